//! Naive: the server that one writes first: tonic, its codec, and every stream encoding its own changed resources.
//!
//! Owns: that. May use: tonic and Envoy's messages. Never: shares an encoded byte between streams.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, RwLock};

use futures::{Stream, StreamExt};
use prost::{Message, Name};
use proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server as ads;
use proto::google::protobuf::Any;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status, Streaming};

use super::catalogue::Catalogue;
use super::orders::{Order, orders};
use super::wire::ENDPOINTS;

/// How many changes a stream may be behind.
const BEHIND: usize = 1 << 16;

/// What every stream uses.
#[derive(Debug, Clone)]
struct Naive {
    assignments: Arc<RwLock<Vec<ClusterLoadAssignment>>>,
    index: Arc<std::collections::HashMap<String, usize>>,
    changes: broadcast::Sender<Change>,
}

/// A load assignment has changed.
#[derive(Debug, Clone, Copy)]
struct Change {
    index: usize,
    number: u32,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves the load assignments of `file`, and changes them as standard input says, until its end.
pub async fn run(file: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::read_file(file)?;
    let decode = |assignment: &super::catalogue::Assignment| ClusterLoadAssignment::decode(assignment.body.clone());
    let assignments = catalogue.assignments.iter().map(decode).collect::<Result<_, _>>()?;
    let index = catalogue.names().into_iter().enumerate().map(|(index, name)| (name, index)).collect();
    let (changes, _) = broadcast::channel(BEHIND);
    let naive =
        Naive { assignments: Arc::new(RwLock::new(assignments)), index: Arc::new(index), changes: changes.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = ads::AggregatedDiscoveryServiceServer::new(naive.clone()).max_decoding_message_size(64 << 20);
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(Some(1 << 20))
        .add_service(service)
        .serve_with_incoming(incoming);
    let obey = async {
        let mut orders = orders();
        while let Some(order) = orders.next().await {
            let Order { index, number } = order?;
            let assignment = ClusterLoadAssignment::decode(catalogue.body(index, number))?;
            naive.assignments.write().expect("no writer panics")[index] = assignment;
            // Nobody may be connected.
            _ = changes.send(Change { index, number });
            println!("ok");
        }
        anyhow::Ok(())
    };
    tokio::select! { served = server => Ok(served?), obeyed = obey => obeyed }
}

// === impl Naive ===

impl Naive {
    fn any(&self, index: usize) -> (String, Any) {
        let assignments = self.assignments.read().expect("no writer panics");
        let assignment = &assignments[index];
        let any = Any { type_url: ClusterLoadAssignment::type_url(), value: assignment.encode_to_vec() };
        (assignment.cluster_name.clone(), any)
    }

    fn delta(&self, changed: &[Change]) -> discovery_pb::DeltaDiscoveryResponse {
        let resource = |change: &Change| {
            let (name, any) = self.any(change.index);
            discovery_pb::Resource {
                name,
                version: change.number.to_string(),
                resource: Some(any),
                ..Default::default()
            }
        };
        discovery_pb::DeltaDiscoveryResponse {
            type_url: ENDPOINTS.into(),
            nonce: "1".into(),
            resources: changed.iter().map(resource).collect(),
            ..Default::default()
        }
    }

    fn sotw(&self, changed: &[Change]) -> discovery_pb::DiscoveryResponse {
        discovery_pb::DiscoveryResponse {
            version_info: "1".into(),
            type_url: ENDPOINTS.into(),
            nonce: "1".into(),
            resources: changed.iter().map(|change| self.any(change.index).1).collect(),
            ..Default::default()
        }
    }
}

/// One stream: what it wants, and where that comes from.
struct Client<Q> {
    naive: Naive,
    requests: Streaming<Q>,
    names: fn(&Q) -> &[String],
    changes: broadcast::Receiver<Change>,
    wanted: Vec<bool>,
}

// === impl Client ===

impl<Q: Send + 'static> Client<Q> {
    fn new(naive: &Naive, requests: Streaming<Q>, names: fn(&Q) -> &[String]) -> Self {
        let wanted = vec![false; naive.index.len()];
        Self { naive: naive.clone(), requests, names, changes: naive.changes.subscribe(), wanted }
    }

    /// What it is sent: what it asks for first, then what changes of that.
    fn answers<A: Send + 'static>(self, answer: fn(&Naive, &[Change]) -> A) -> Response<Answers<A>> {
        let answers = futures::stream::try_unfold(self, move |mut client| async move {
            let Some(changed) = client.next().await? else { return Ok(None) };
            Ok(Some((answer(&client.naive, &changed), client)))
        });
        Response::new(Box::pin(answers))
    }

    async fn next(&mut self) -> Result<Option<Vec<Change>>, Status> {
        loop {
            tokio::select! {
                request = self.requests.message() => {
                    let Some(request) = request? else { return Ok(None) };
                    let asked = (self.names)(&request).iter().filter_map(|name| self.naive.index.get(name).copied());
                    let new = asked.filter(|index| !std::mem::replace(&mut self.wanted[*index], true));
                    let new: Vec<Change> = new.map(|index| Change { index, number: 0 }).collect();
                    if !new.is_empty() {
                        return Ok(Some(new));
                    }
                }
                change = self.changes.recv() => {
                    let change = change.map_err(|error| Status::data_loss(error.to_string()))?;
                    if self.wanted[change.index] {
                        return Ok(Some(vec![change]));
                    }
                }
            }
        }
    }
}

#[tonic::async_trait]
impl ads::AggregatedDiscoveryService for Naive {
    type StreamAggregatedResourcesStream = Answers<discovery_pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<discovery_pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<discovery_pb::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Client::new(self, request.into_inner(), |request| &request.resource_names).answers(Self::sotw))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery_pb::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(Client::new(self, request.into_inner(), |request| &request.resource_names_subscribe).answers(Self::delta))
    }
}
