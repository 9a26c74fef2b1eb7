//! Lab: what every workload works with.
//!
//! Owns: how much is done, the worlds, starting servers and clients, progress on standard error. May use: `server`,
//! `fleet`. Never: judges.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::StreamExt;
use proto::envoy::service::discovery::v3 as discovery_pb;
use tempfile::TempDir;

use super::catalogue::{Catalogue, resource_name};
use super::fleet::{Fleet, FleetSpec, Subscription};
use super::outcome::Samples;
use super::rules::{Rules, node_name};
use super::server::{Contender, Server, Start, World};
use super::wire::{ENDPOINTS, Protocol};

/// Endpoints of a service.
pub const ENDPOINTS_EACH: usize = 10;
/// How many connections the clients of a fleet share, unless each has its own.
pub const CONNECTIONS: usize = 16;
/// How long clients may take to have everything.
const COLD: Duration = Duration::from_secs(120);

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Fewer of everything, so that it ends within three minutes.
    pub quick: bool,
    /// Rounds of an interleaved comparison.
    pub rounds: usize,
    /// Clients.
    pub clients: usize,
    /// Services.
    pub services: usize,
    /// Most changes in a round.
    pub flips: usize,
    /// Longest time for the changes of a round and server.
    pub round: Duration,
}

/// What every workload works with.
pub struct Lab {
    /// How much is done.
    pub scale: Scale,
    /// What cold starts were, once a workload has measured them: two look at them.
    pub cold: Option<Samples>,
    directory: TempDir,
    worlds: HashMap<Rules, World>,
}

// === impl Scale ===

impl Scale {
    /// The size of the targets.
    pub fn full() -> Self {
        Self { quick: false, rounds: 5, clients: 1_000, services: 1_000, flips: 20, round: Duration::from_secs(5) }
    }

    /// A size for every day.
    pub fn quick() -> Self {
        Self { quick: true, rounds: 3, clients: 200, services: 200, flips: 5, round: Duration::from_secs(2) }
    }
}

// === impl Lab ===

impl Lab {
    /// An empty one.
    pub fn new(scale: Scale) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chancery-bench-").tempdir()?;
        Ok(Self { scale, cold: None, directory, worlds: HashMap::new() })
    }

    /// A place for files that end with the bench.
    pub fn scratch(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// What is served: so many services with so many endpoints, as Chancery serves them to one group of proxies.
    /// The endpoints are reached by mTLS and say so, each in its metadata.
    pub async fn world(&mut self, services: usize, endpoints: usize) -> anyhow::Result<World> {
        self.world_of(Rules { mtls: "strict", ..Rules::one_group(services, endpoints) }).await
    }

    /// The same of rules of one's own.
    pub async fn world_of(&mut self, rules: Rules) -> anyhow::Result<World> {
        if let Some(world) = self.worlds.get(&rules) {
            return Ok(world.clone());
        }
        let Rules { services, endpoints, .. } = rules;
        progress(&format!("reading {services} load assignments of {endpoints} endpoints from Chancery"));
        let file = self.scratch().join(format!("assignments-{}", self.worlds.len()));
        let server = self.server(Contender::Chancery, &self.bare(rules), Protocol::Delta).await?;
        let served = read_all(&server, services).await?;
        let catalogue = Arc::new(Catalogue::of(services, endpoints, &served)?);
        catalogue.write(&file)?;
        let mut world = World { rules, go: Arc::clone(&catalogue), catalogue, file };
        let go = self.server(Contender::GoLinear, &world, Protocol::Delta).await?;
        let other = Catalogue::of(services, endpoints, &read_all(&go, services).await?)?;
        ensure!(other.says_the_same(&world.catalogue)?, "the Go peer serves other load assignments than Chancery");
        world.go = Arc::new(other);
        self.worlds.insert(rules, world.clone());
        Ok(world)
    }

    /// What only Chancery serves: these rules, with no load assignment that a client looks at.
    pub fn bare(&self, rules: Rules) -> World {
        World { rules, catalogue: Arc::default(), go: Arc::default(), file: PathBuf::new() }
    }

    /// A running server.
    pub async fn server(&self, contender: Contender, world: &World, protocol: Protocol) -> anyhow::Result<Server> {
        self.server_with(contender, world, Start { protocol, clients: self.scale.clients, arguments: &[] }).await
    }

    /// The same with settings of one's own.
    pub async fn server_with(&self, contender: Contender, world: &World, start: Start<'_>) -> anyhow::Result<Server> {
        Server::start(contender, world, start, self.directory.path()).await
    }

    /// Clients of a server that subscribe to every load assignment.
    pub async fn fleet(
        &self,
        server: &Server,
        world: &World,
        protocol: Protocol,
        clients: usize,
    ) -> anyhow::Result<Fleet> {
        self.connect(self.fleet_spec(server, world, protocol, clients)).await
    }

    /// What [`Self::fleet`] connects.
    pub fn fleet_spec(&self, server: &Server, world: &World, protocol: Protocol, clients: usize) -> FleetSpec {
        FleetSpec {
            address: server.address,
            clients,
            // A certificate is bound to a node, so each has its connection.
            connections: if server.tls.is_some() { clients } else { CONNECTIONS },
            protocol,
            subscriptions: vec![Subscription::endpoints(&world.catalogue)],
            node: node_name,
            tls: server.tls.clone(),
            catalogue: world.served_by(server.contender),
            whole_type: (server.contender, protocol) == (Contender::GoSnapshot, Protocol::Sotw),
            stalling: 0,
        }
    }

    /// Connects clients.
    pub async fn connect(&self, spec: FleetSpec) -> anyhow::Result<Fleet> {
        Fleet::connect(spec, COLD).await
    }
}

/// Reads every load assignment once, in a decoded form that trusts nothing.
async fn read_all(server: &Server, services: usize) -> anyhow::Result<HashMap<String, Bytes>> {
    use discovery_pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.address))?.connect().await?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(1 << 30);
    let node = proto::envoy::config::core::v3::Node { id: node_name(0), ..Default::default() };
    let request = discovery_pb::DeltaDiscoveryRequest {
        node: Some(node),
        type_url: ENDPOINTS.into(),
        resource_names_subscribe: (0..services).map(resource_name).collect(),
        ..Default::default()
    };
    let mut served = HashMap::new();
    let requests = futures::stream::iter([request]).chain(futures::stream::pending());
    let mut responses = client.delta_aggregated_resources(requests).await?.into_inner();
    while served.len() < services {
        let response = tokio::time::timeout(Duration::from_secs(20), responses.message()).await;
        let response = response.with_context(|| format!("{} of {services} load assignments came", served.len()))??;
        for resource in response.context("the stream has ended")?.resources {
            served.insert(resource.name, Bytes::from(resource.resource.unwrap_or_default().value));
        }
    }
    Ok(served)
}

/// Says on standard error what goes on.
pub fn progress(what: &str) {
    eprintln!("bench: {what}");
}

/// An error that says in which comparison it came.
pub fn of<T>(result: anyhow::Result<T>, workload: &str, contender: Contender) -> anyhow::Result<T> {
    result.with_context(|| format!("{workload}, {}", contender.name()))
}
