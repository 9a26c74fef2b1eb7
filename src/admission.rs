//! Admission: which group a stream belongs to.
//!
//! Owns: the check that a stream's credential, its node and the rules agree. May use: `identity`, `publish`.
//! Never: hands out anything but the snapshots of the one group that the credential is for, or a secret to a node
//! that is known by its own word alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use http::Extensions;
use proto::wire;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::server::TcpConnectInfo;
use translators::mesh::{Mesh, NodeMatch};
use translators::name::{Owner, QualifiedName};
use translators::xds::bootstrap::CERTIFICATES_KEY;
use translators::xds::{self, Features};

use crate::identity::connection::Peer;
use crate::identity::{Identities, ProxyCredential};
use crate::publish::{Reader, Snapshot, Table};
use crate::stream::{Admission, Directory, Refusal};
use crate::telemetry::metrics::{Authenticator, Reporter, Serves};
use crate::translate::GroupKey;

/// The node metadata key under which a proxy may say at which address others reach it.
const ADDRESS_KEY: &str = "chancery.address";

/// Admits streams: by client certificate, or, of [`Unproven`], by the word of the node.
#[derive(Clone)]
pub struct Admissions {
    identities: Arc<Identities>,
    table: Table,
    features: watch::Sender<BTreeSet<Features>>,
}

// === impl Admissions ===

impl Admissions {
    /// Admits the bearers of `identities`' credentials to the groups of `table`; the features of Envoys that
    /// come are added to `features`, so that their groups are translated.
    pub fn new(identities: Arc<Identities>, table: Table, features: watch::Sender<BTreeSet<Features>>) -> Self {
        Self { identities, table, features }
    }

    /// The same for a listener without TLS.
    pub fn unproven(self) -> Unproven {
        Unproven(self)
    }

    /// The group of a node: that of the workload that its credential names, or else of what matches it.
    fn group(&self, named: Option<&QualifiedName>, node: &wire::Node, proven: bool) -> Result<Subscribed, Refusal> {
        let published = self.table.current();
        let Some(mesh) = published.mesh() else {
            return Err(Refusal::NotReady("the rules have not been read yet".into()));
        };
        let owner = match named {
            Some(workload) => workload_of(mesh, workload)?,
            None => owner_of(mesh, &Matched::of(node))?,
        };
        let features = features_of(node);
        let group = match &owner {
            Owner::Workload(workload) => GroupKey::Workload { name: workload.clone(), features },
            Owner::Snapshot(name) if proven => GroupKey::Snapshot(name.clone()),
            Owner::Snapshot(name) => GroupKey::Open(name.clone()),
        };
        match published.subscribe(&group) {
            Some(snapshots) => Ok((owner, snapshots)),
            None => {
                self.features.send_if_modified(|known| known.insert(features));
                Err(Refusal::BeingMade(format!("the configuration of {owner} is not there yet")))
            }
        }
    }

    /// Waits until the node is matched by something else alone. One that nothing matches any more, or too much, keeps
    /// what it has for as long as it stays.
    fn moved(
        &self,
        owner: Owner,
        node: &wire::Node,
        mut matches: watch::Receiver<()>,
    ) -> impl Future<Output = Refusal> + Send + use<> {
        let (table, node) = (self.table.clone(), Matched::of(node));
        async move {
            while matches.changed().await.is_ok() {
                let now = table.current().mesh().and_then(|mesh| owner_of(mesh, &node).ok());
                if let Some(now) = now.filter(|now| *now != owner) {
                    return Refusal::NotReady(format!("the node {:?} is {now}'s now: connect again", node.id));
                }
            }
            std::future::pending().await
        }
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        let mut news = self.table.news();
        Box::pin(async move { _ = news.changed().await })
    }

    fn verify(&self, extensions: &Extensions) -> Result<ProxyCredential, Refusal> {
        self.identities.verify(extensions).map_err(|error| Refusal::Unauthenticated(error.to_string()))
    }
}

impl Directory for Admissions {
    fn admit(&self, extensions: &Extensions, node: &wire::Node) -> Result<Admission, Refusal> {
        let credential = self.verify(extensions)?;
        if credential.node_id.as_str() != node.id {
            return Err(Refusal::Denied(format!(
                "the credential is for the node {:?}, the stream says it is {:?}",
                credential.node_id.as_str(),
                node.id
            )));
        }
        let matches = self.table.matches();
        let (owner, snapshots) = self.group(credential.workload.as_ref(), node, true)?;
        let address = address_of(extensions.get().map(Peer::address), node)?;
        let identities = Arc::clone(&self.identities);
        let moved = credential.workload.is_none().then(|| self.moved(owner.clone(), node, matches));
        let ended = async move {
            let expired = async { Refusal::Unauthenticated(identities.ended(&credential).await.to_string()) };
            match moved {
                None => expired.await,
                Some(moved) => tokio::select! { reason = expired => reason, reason = moved => reason },
            }
        };
        Ok(Admission { owner, address, proven: true, snapshots, ended: Box::pin(ended) })
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        Self::news(self)
    }
}

/// A group, and what it is to hold.
type Subscribed = (Owner, Reader<Snapshot>);

/// Admits the streams of a listener without TLS: a node is who it says, and gets nothing that is secret.
#[derive(Clone)]
pub struct Unproven(Admissions);

impl Directory for Unproven {
    fn admit(&self, extensions: &Extensions, node: &wire::Node) -> Result<Admission, Refusal> {
        let matches = self.0.table.matches();
        let (owner, snapshots) = self.0.group(None, node, false)?;
        let address = address_of(extensions.get().and_then(TcpConnectInfo::remote_addr), node)?;
        let ended = Box::pin(self.0.moved(owner.clone(), node, matches));
        Ok(Admission { owner, address, proven: false, snapshots, ended })
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        self.0.news()
    }
}

impl Authenticator for Admissions {
    fn authenticate(&self, extensions: &Extensions) -> Result<Reporter, Status> {
        let credential = self.verify(extensions).map_err(Status::from)?;
        Ok(Reporter { workload: credential.workload, node: credential.node_id.to_string() })
    }
}

/// What a workload speaks on a port of a service that it serves, by the rules in force.
pub fn serves(table: Table) -> Serves {
    Arc::new(move |workload: &QualifiedName, service: &QualifiedName, name: &str| {
        let published = table.current();
        let mesh = published.mesh()?;
        let port = mesh.services.get(service)?.ports.iter().find(|port| port.name == name)?;
        let serves = mesh.workloads.get(workload)?.serves.iter().any(|s| s.service == *service && s.port == port.name);
        serves.then_some(port.protocol)
    })
}

/// What matches are held against.
#[derive(Debug, Clone, Default)]
struct Matched {
    id: String,
    cluster: String,
    /// The string members.
    metadata: BTreeMap<String, String>,
}

// === impl Matched ===

impl Matched {
    fn of(node: &wire::Node) -> Self {
        let members = node.metadata.iter().flat_map(|metadata| &metadata.fields);
        let metadata = members.map(|(key, value)| (key.clone(), value.string_value.clone())).collect();
        Self { id: node.id.clone(), cluster: node.cluster.clone(), metadata }
    }
}

/// The workload that a credential names.
fn workload_of(mesh: &Mesh, named: &QualifiedName) -> Result<Owner, Refusal> {
    match mesh.workloads.contains_key(named) {
        true => Ok(Owner::Workload(named.clone())),
        false => Err(Refusal::NotReady(format!("the rules hold no Workload {named}"))),
    }
}

/// The workload or the EnvoySnapshot that matches the node.
fn owner_of(mesh: &Mesh, node: &Matched) -> Result<Owner, Refusal> {
    let workloads = mesh.workloads.values();
    let workloads =
        workloads.filter(|workload| workload.matches.as_ref().is_some_and(|pattern| matches(pattern, node)));
    let workloads = workloads.map(|workload| Owner::Workload(workload.name.clone()));
    let mut matching = workloads.chain(snapshots_of(mesh, node));
    let named = |owner: &Owner| match owner {
        Owner::Workload(workload) => format!("Workload {workload}"),
        Owner::Snapshot(_) => owner.to_string(),
    };
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Refusal::NotReady(format!("no Workload and no EnvoySnapshot matches the node {:?}", node.id))),
        (Some(one), Some(other)) => Err(Refusal::Denied(format!(
            "the node {:?} is matched twice, by {} and by {}: neither serves it",
            node.id,
            named(&one),
            named(&other)
        ))),
    }
}

/// The EnvoySnapshots that say most of the node id among those that match; more than one is a conflict.
fn snapshots_of(mesh: &Mesh, node: &Matched) -> Vec<Owner> {
    let matching = || mesh.snapshots.values().filter(|snapshot| matches(&snapshot.matches, node));
    let most = matching().map(|snapshot| snapshot.matches.precision()).max();
    let first = matching().filter(|snapshot| Some(snapshot.matches.precision()) == most);
    first.map(|snapshot| Owner::Snapshot(snapshot.name.clone())).collect()
}

fn matches(pattern: &NodeMatch, node: &Matched) -> bool {
    pattern.takes(&node.id, &node.cluster, |key| node.metadata.get(key).map(String::as_str))
}

fn features_of(node: &wire::Node) -> Features {
    if crate::stream::is_proxyless(node) {
        let said = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(CERTIFICATES_KEY));
        return Features::of_grpc(said.is_some_and(|said| said.string_value == xds::CERTIFICATES));
    }
    let version = node.user_agent_build_version.as_ref().and_then(|build| build.version.as_ref());
    match version {
        Some(version) => Features::of_envoy(version.major_number, version.minor_number),
        None => Features::default(),
    }
}

fn address_of(peer: Option<SocketAddr>, node: &wire::Node) -> Result<IpAddr, Refusal> {
    let said = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(ADDRESS_KEY));
    if let Some(said) = said {
        return said.string_value.parse().map_err(|_| {
            Refusal::Denied(format!("node metadata {ADDRESS_KEY} is no IP address: {:?}", said.string_value))
        });
    }
    peer.map(|address| address.ip()).ok_or_else(|| Refusal::Denied("the peer's address is not known".into()))
}

#[cfg(test)]
mod tests;
