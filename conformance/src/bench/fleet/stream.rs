//! One client: a stream that subscribes, checks and accepts.
//!
//! Owns: its requests and what it holds. May use: h2. Never: buffers more than one resource.

use std::convert::Infallible;
use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use h2::client::SendRequest;
use prost::Message;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::r#type::v3 as type_pb;

use super::Shared;
use crate::bench::board::{Fault, Holdings};
use crate::bench::wire::{Entry, Malformed, Piece, Protocol, Splitter, framed, own_name};

/// The Envoy that every client claims to be.
const VERSION: type_pb::SemanticVersion = type_pb::SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };

/// What a client knows of itself.
struct Client<'a> {
    shared: &'a Shared,
    holdings: Holdings,
    /// By subscription how many of its resources have come.
    had: Vec<usize>,
    complete: bool,
    /// The client whose versions are remembered.
    remembers: bool,
    response: Response,
}

/// What is known of the response that is being read.
#[derive(Default)]
struct Response {
    version: Vec<u8>,
    nonce: Vec<u8>,
    /// Its type, by subscription; unknown until it or a resource has come.
    subscription: Option<usize>,
    /// Resources that came before their type, which is what the members' order makes of most responses.
    entries: usize,
}

/// Runs one client until its stream ends, which is a fault.
pub(super) async fn run(shared: &Shared, index: usize, requests: SendRequest<Bytes>) {
    let Err(fault) = follow(shared, index, requests).await;
    shared.board.fault(index, &fault);
}

async fn follow(shared: &Shared, index: usize, requests: SendRequest<Bytes>) -> Result<Infallible, Fault> {
    let protocol = shared.spec.protocol;
    let mut requests = requests.ready().await.map_err(ended)?;
    let request = http::Request::post(format!("http://{}{}", shared.spec.address, protocol.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| Fault::Ended(error.to_string()))?;
    let (response, mut sender) = requests.send_request(request, false).map_err(ended)?;
    drop(requests);
    let mut first = protocol.node(&node((shared.spec.node)(index)));
    for rest in &shared.requests {
        send(&mut sender, &first, rest)?;
        first = BytesMut::new();
    }
    let response = response.await.map_err(ended)?;
    if let Some(status) = response.headers().get("grpc-status") {
        return Err(Fault::Ended(format!("grpc-status {status:?}, {:?}", response.headers().get("grpc-message"))));
    }
    let mut body = response.into_body();
    let mut client = Client {
        shared,
        holdings: Holdings::default(),
        had: vec![0; shared.requests.len()],
        complete: false,
        remembers: index == 0,
        response: Response::default(),
    };
    let mut splitter = Splitter::default();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(ended)?;
        body.flow_control().release_capacity(chunk.len()).map_err(ended)?;
        shared.board.bytes(chunk.len());
        splitter.feed(&chunk, |piece| client.take(piece, &mut sender))?;
    }
    let trailers = body.trailers().await.map_err(ended)?.unwrap_or_default();
    Err(Fault::Ended(format!("grpc-status {:?}, {:?}", trailers.get("grpc-status"), trailers.get("grpc-message"))))
}

// === impl Client ===

impl Client<'_> {
    fn take(&mut self, piece: Piece<'_>, sender: &mut SendStream<Bytes>) -> Result<(), Fault> {
        let protocol = self.shared.spec.protocol;
        match (piece, protocol) {
            (Piece::Field(1, version), _) => self.response.version = version.to_vec(),
            (Piece::Field(2, resource), _) => self.resource(resource)?,
            (Piece::Field(4, type_url), _) => self.typed(type_url)?,
            (Piece::Field(5, nonce), _) => self.response.nonce = nonce.to_vec(),
            (Piece::Field(6, removed), Protocol::Delta) => {
                return Err(Fault::Removed(String::from_utf8_lossy(removed).into_owned()));
            }
            (Piece::Field(..), _) => {}
            (Piece::End, _) => self.over(sender)?,
        }
        Ok(())
    }

    fn typed(&mut self, type_url: &[u8]) -> Result<(), Fault> {
        let of = |s: &super::Subscription| s.type_url.as_bytes() == type_url;
        let found = self.shared.spec.subscriptions.iter().position(of);
        let unknown = || Fault::Ended(format!("a response of type {}", String::from_utf8_lossy(type_url)));
        self.response.subscription = Some(found.ok_or_else(unknown)?);
        Ok(())
    }

    fn resource(&mut self, field: &[u8]) -> Result<(), Fault> {
        let entry = self.shared.spec.protocol.entry(field)?;
        // The type of the response comes after its resources, and each resource says its own.
        let subscription = self.of(entry)?;
        let type_url = self.shared.spec.subscriptions[subscription].type_url;
        self.response.entries += 1;
        if self.shared.board.take(&mut self.holdings, type_url, entry)? {
            self.had[subscription] += 1;
        }
        if self.remembers && !self.complete {
            let name = if entry.name.is_empty() { own_name(entry.body)? } else { entry.name };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut first = self.shared.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.push((text(name), text(entry.version)));
        }
        Ok(())
    }

    /// The subscription that a resource belongs to.
    fn of(&self, entry: Entry<'_>) -> Result<usize, Fault> {
        let subscriptions = &self.shared.spec.subscriptions;
        if subscriptions.len() == 1 {
            return Ok(0);
        }
        let of = |s: &super::Subscription| s.type_url.as_bytes() == entry.type_url;
        Ok(subscriptions.iter().position(of).ok_or(Malformed)?)
    }

    /// The response is over: accept it, and see whether everything has come.
    fn over(&mut self, sender: &mut SendStream<Bytes>) -> Result<(), Fault> {
        let response = std::mem::take(&mut self.response);
        let subscription = response.subscription.unwrap_or_default();
        let first = self.shared.spec.protocol.acceptance(&response.version, &response.nonce);
        send(sender, &first, &self.shared.acceptances[subscription])?;
        self.shared.board.response();
        let had = |(had, s): (&usize, &super::Subscription)| *had >= s.expected;
        if !self.complete && self.had.iter().zip(&self.shared.spec.subscriptions).all(had) {
            self.complete = true;
            self.shared.board.complete(self.shared.started.elapsed());
        }
        Ok(())
    }
}

/// The encoded node of a client.
fn node(id: String) -> Vec<u8> {
    let build = core_pb::BuildVersion { version: Some(VERSION), metadata: None };
    let version = core_pb::node::UserAgentVersionType::UserAgentBuildVersion(build);
    let node = core_pb::Node {
        id,
        cluster: "bench".into(),
        user_agent_name: "envoy".into(),
        user_agent_version_type: Some(version),
        ..Default::default()
    };
    node.encode_to_vec()
}

/// Sends a request in two parts, the second one shared.
fn send(sender: &mut SendStream<Bytes>, first: &[u8], rest: &Bytes) -> Result<(), Fault> {
    sender.send_data(framed(first, rest), false).map_err(ended)?;
    sender.send_data(rest.clone(), false).map_err(ended)
}

fn ended(error: h2::Error) -> Fault {
    Fault::Ended(error.to_string())
}
