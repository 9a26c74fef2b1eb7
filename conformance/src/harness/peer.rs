//! A scripted xDS client: it says what it is told to and shows what it is sent.
//!
//! Owns: one stream of the aggregated service, and what the protocol has a client repeat: the node, the last nonce and
//! version of each type. May use: the address of a control plane. Never: answers by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::google::rpc::Status as GoogleStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use translators::resource::Kind;

/// How long something may take to come.
const COMES: Duration = Duration::from_secs(10);
/// How long nothing has to come to count as nothing.
const SILENCE: Duration = Duration::from_millis(200);

/// A client that speaks one of the two protocols.
pub struct Peer {
    stream: Stream,
    node: core_pb::Node,
    says_node: bool,
    /// By type: the nonce of the last response, the version last accepted.
    last: BTreeMap<Kind, (String, String)>,
    accepted: BTreeMap<Kind, String>,
}

enum Stream {
    Sotw(mpsc::Sender<discovery_pb::DiscoveryRequest>, Streaming<discovery_pb::DiscoveryResponse>),
    Delta(mpsc::Sender<discovery_pb::DeltaDiscoveryRequest>, Streaming<discovery_pb::DeltaDiscoveryResponse>),
}

/// What was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The type.
    pub kind: Kind,
    /// The version of the response.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// The resources: name (of delta), version (of delta), encoded body.
    pub resources: Vec<(String, String, Vec<u8>)>,
    /// What was removed, in delta.
    pub removed: Vec<String>,
}

/// What a delta request says beside its type.
#[derive(Debug, Clone, Default)]
pub struct Delta<'a> {
    /// To subscribe to.
    pub subscribe: &'a [&'a str],
    /// To unsubscribe from.
    pub unsubscribe: &'a [&'a str],
    /// What is held already, with its version.
    pub holds: &'a [(&'a str, &'a str)],
    /// The nonce that is answered.
    pub nonce: &'a str,
    /// Why it is refused.
    pub error: Option<&'a str>,
}

// === impl Peer ===

impl Peer {
    /// Opens a state-of-the-world stream for a node.
    pub async fn sotw(address: SocketAddr, node: &str) -> anyhow::Result<Self> {
        Self::sotw_over(channel(address), node).await
    }

    /// Opens a state-of-the-world stream for a node on a connection that may carry others.
    pub async fn sotw_over(channel: Channel, node: &str) -> anyhow::Result<Self> {
        let (requests, received) = mpsc::channel(64);
        let mut client = client(channel);
        let responses = client.stream_aggregated_resources(ReceiverStream::new(received)).await?.into_inner();
        Ok(Self::new(Stream::Sotw(requests, responses), node))
    }

    /// Opens an incremental stream for a node.
    pub async fn delta(address: SocketAddr, node: &str) -> anyhow::Result<Self> {
        Self::delta_over(channel(address), node).await
    }

    /// Opens an incremental stream for a node on a connection that may carry others.
    pub async fn delta_over(channel: Channel, node: &str) -> anyhow::Result<Self> {
        let (requests, received) = mpsc::channel(64);
        let mut client = client(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(received)).await?.into_inner();
        Ok(Self::new(Stream::Delta(requests, responses), node))
    }

    fn new(stream: Stream, node: &str) -> Self {
        let node = core_pb::Node { id: node.to_owned(), ..Default::default() };
        Self { stream, node, says_node: true, last: BTreeMap::new(), accepted: BTreeMap::new() }
    }

    /// Who it says it is from now on.
    pub fn node(&mut self) -> &mut core_pb::Node {
        &mut self.node
    }

    /// Whether it says so in every request from now on, or in none.
    pub fn say_node(&mut self, says: bool) {
        self.says_node = says;
    }

    /// The nonce of the last response of this type; empty before there was one.
    pub fn nonce(&self, kind: Kind) -> String {
        self.last.get(&kind).map(|(nonce, _)| nonce.clone()).unwrap_or_default()
    }

    /// State of the world: the version that it says from now on that it has accepted.
    pub fn pretend(&mut self, kind: Kind, version: &str) {
        self.accepted.insert(kind, version.to_owned());
    }

    /// The version of the last response of this type; empty before there was one.
    pub fn version(&self, kind: Kind) -> String {
        self.last.get(&kind).map(|(_, version)| version.clone()).unwrap_or_default()
    }

    /// State of the world: asks for all of these, with the last nonce and the version last accepted.
    pub async fn ask(&mut self, kind: Kind, names: &[&str]) -> anyhow::Result<()> {
        self.ask_with(kind, names, &self.nonce(kind), None).await
    }

    /// State of the world: the same with a nonce and an error of one's own.
    pub async fn ask_with(
        &mut self,
        kind: Kind,
        names: &[&str],
        nonce: &str,
        error: Option<&str>,
    ) -> anyhow::Result<()> {
        let Stream::Sotw(requests, _) = &self.stream else { bail!("the stream is incremental") };
        let request = discovery_pb::DiscoveryRequest {
            version_info: self.accepted.get(&kind).cloned().unwrap_or_default(),
            node: self.says_node.then(|| self.node.clone()),
            resource_names: owned(names),
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(refusal),
            ..Default::default()
        };
        requests.send(request).await.context("the stream is open")
    }

    /// State of the world: accepts the last response, and asks for these.
    pub async fn ack(&mut self, kind: Kind, names: &[&str]) -> anyhow::Result<()> {
        let (_, version) = self.last.get(&kind).context("something was received")?;
        self.accepted.insert(kind, version.clone());
        self.ask(kind, names).await
    }

    /// State of the world: refuses the last response, and asks for these.
    pub async fn nack(&mut self, kind: Kind, names: &[&str], error: &str) -> anyhow::Result<()> {
        let (nonce, _) = self.last.get(&kind).context("something was received")?.clone();
        self.ask_with(kind, names, &nonce, Some(error)).await
    }

    /// Incremental: says what it is told to say.
    pub async fn say(&mut self, kind: Kind, delta: Delta<'_>) -> anyhow::Result<()> {
        let Stream::Delta(requests, _) = &self.stream else { bail!("the stream is state of the world") };
        let request = discovery_pb::DeltaDiscoveryRequest {
            node: self.says_node.then(|| self.node.clone()),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: owned(delta.subscribe),
            resource_names_unsubscribe: owned(delta.unsubscribe),
            initial_resource_versions: delta.holds.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            response_nonce: delta.nonce.to_owned(),
            error_detail: delta.error.map(refusal),
            ..Default::default()
        };
        requests.send(request).await.context("the stream is open")
    }

    /// Asks for something of a type that Chancery does not know.
    pub async fn ask_unknown(&mut self, type_url: &str) -> anyhow::Result<()> {
        let (node, type_url) = (self.says_node.then(|| self.node.clone()), type_url.to_owned());
        let open = match &self.stream {
            Stream::Sotw(requests, _) => {
                let request = discovery_pb::DiscoveryRequest { node, type_url, ..Default::default() };
                requests.send(request).await.is_ok()
            }
            Stream::Delta(requests, _) => {
                let request = discovery_pb::DeltaDiscoveryRequest { node, type_url, ..Default::default() };
                requests.send(request).await.is_ok()
            }
        };
        ensure!(open, "the stream has ended");
        Ok(())
    }

    /// Incremental: accepts the last response.
    pub async fn accept(&mut self, kind: Kind) -> anyhow::Result<()> {
        let (nonce, _) = self.last.get(&kind).context("something was received")?.clone();
        self.say(kind, Delta { nonce: &nonce, ..Default::default() }).await
    }

    /// Incremental: refuses the last response.
    pub async fn refuse(&mut self, kind: Kind, error: &str) -> anyhow::Result<()> {
        let (nonce, _) = self.last.get(&kind).context("something was received")?.clone();
        self.say(kind, Delta { nonce: &nonce, error: Some(error), ..Default::default() }).await
    }

    /// The next response, of whatever type.
    pub async fn next(&mut self) -> anyhow::Result<Received> {
        tokio::time::timeout(COMES, self.receive()).await.context("nothing came")?
    }

    /// The next response, which has to be of this type.
    pub async fn next_of(&mut self, kind: Kind) -> anyhow::Result<Received> {
        let received = self.next().await?;
        ensure!(received.kind == kind, "{kind} was to come, and this came: {received:?}");
        Ok(received)
    }

    /// Ready when nothing has come for a while.
    pub async fn silence(&mut self) -> anyhow::Result<()> {
        match tokio::time::timeout(SILENCE, self.receive()).await {
            Err(_) => Ok(()),
            Ok(received) => bail!("nothing was to come, and this came: {received:?}"),
        }
    }

    /// How the stream ends; what comes before is passed over.
    pub async fn end(&mut self) -> anyhow::Result<Status> {
        let end = async {
            loop {
                match self.receive().await {
                    Ok(_) => {}
                    Err(error) => match error.downcast::<Status>() {
                        Ok(status) => return Ok(status),
                        Err(_) => return Ok(Status::new(Code::Ok, "")),
                    },
                }
            }
        };
        tokio::time::timeout(COMES, end).await.context("it does not end")?
    }

    async fn receive(&mut self) -> anyhow::Result<Received> {
        let received = match &mut self.stream {
            Stream::Sotw(_, responses) => {
                let message = responses.message().await?.context("the stream ended")?;
                let foreign = message.resources.iter().find(|any| any.type_url != message.type_url);
                ensure!(foreign.is_none(), "{foreign:?} in a response of {}", message.type_url);
                Received {
                    kind: kind(&message.type_url)?,
                    version: message.version_info,
                    nonce: message.nonce,
                    resources: message
                        .resources
                        .into_iter()
                        .map(|any| (String::new(), String::new(), any.value))
                        .collect(),
                    removed: Vec::new(),
                }
            }
            Stream::Delta(_, responses) => {
                let message = responses.message().await?.context("the stream ended")?;
                let resource = |resource: discovery_pb::Resource| {
                    let body = resource.resource.map(|any| any.value).unwrap_or_default();
                    (resource.name, resource.version, body)
                };
                let all = message.resources.iter().map(|one| &one.name).chain(&message.removed_resources);
                let (mut seen, mut all) = (BTreeSet::new(), all);
                let twice = all.find(|name| !seen.insert(*name));
                ensure!(twice.is_none(), "{twice:?} occurs twice in a response");
                let whole = message.resources.iter().filter(|one| one.resource.is_some());
                let bare = whole.clone().find(|one| one.name.is_empty() || one.version.is_empty());
                ensure!(bare.is_none(), "a resource without a name or a version: {bare:?}");
                let foreign = whole.flat_map(|one| &one.resource).find(|any| any.type_url != message.type_url);
                ensure!(foreign.is_none(), "{foreign:?} in a response of {}", message.type_url);
                Received {
                    kind: kind(&message.type_url)?,
                    version: message.system_version_info,
                    nonce: message.nonce,
                    resources: message.resources.into_iter().map(resource).collect(),
                    removed: message.removed_resources,
                }
            }
        };
        ensure!(!received.nonce.is_empty(), "a response without a nonce: {received:?}");
        self.last.insert(received.kind, (received.nonce.clone(), received.version.clone()));
        Ok(received)
    }
}

// === impl Received ===

impl Received {
    /// The names of the resources, which in delta stand beside them.
    pub fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|(name, _, _)| name.as_str()).collect()
    }

    /// The version of one resource, in delta.
    pub fn version_of(&self, name: &str) -> Option<&str> {
        self.resources.iter().find(|(of, _, _)| of == name).map(|(_, version, _)| version.as_str())
    }

    /// Whether the body of a resource holds this text.
    pub fn says(&self, text: &str) -> bool {
        self.resources.iter().any(|(_, _, body)| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

/// A connection of its own, without TLS.
fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address is a URI").connect_lazy()
}

fn client(channel: Channel) -> AggregatedDiscoveryServiceClient<Channel> {
    AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20)
}

fn kind(type_url: &str) -> anyhow::Result<Kind> {
    Kind::from_type_url(type_url).with_context(|| format!("a type of ours, not {type_url:?}"))
}

fn refusal(message: &str) -> GoogleStatus {
    GoogleStatus { code: 13, message: message.to_owned(), details: Vec::new() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
