//! The state-of-the-world protocol: what differs from delta.
//!
//! Owns: which requests are stale, which answers accept, and how a response is composed. May use: the
//! session's types. Never: holds state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::wire;
use translators::resource::{Kind, Name, Resource};

use super::push::{Content, Said};
use super::subscription::Subscription;
use crate::publish::Snapshot;

/// Whether the request answers an older response than the last one: a newer answer is under way.
pub(super) fn is_stale(nonce: &str, last: Option<u64>) -> bool {
    !nonce.is_empty() && last.is_some_and(|last| nonce.parse() != Ok(last))
}

/// Whether an answer with an error accepts nevertheless: the version is the one just sent, and no earlier
/// response carried it, so the error is left over from a response between. Only a full state is told by its
/// version: the parts of the other types all carry the version of their whole.
pub(super) fn accepts_despite_error(kind: Kind, version_info: &str, sent: &Said, accepted: Option<&Said>) -> bool {
    let told_apart = accepted.is_none_or(|accepted| accepted.to_string() != sent.to_string());
    kind.is_full_state() && sent.is_written(version_info) && told_apart
}

/// What to send so that `names` are answered; `None` if nothing says it.
pub(super) fn content(
    kind: Kind,
    names: &BTreeSet<Name>,
    snapshot: &Snapshot,
    subscription: &Subscription,
    held: &BTreeMap<Name, Option<Arc<Resource>>>,
) -> Content {
    let current = snapshot.of(kind);
    let said = |version| Said { version, text: snapshot.said_version().cloned() };
    if kind.is_full_state() {
        // What is missing is deleted: everything, and what is still to be kept.
        let mut resources: Vec<_> =
            current.iter().filter(|resource| subscription.covers(resource.name())).cloned().collect();
        let kept = held.values().flatten();
        resources.extend(kept.clone().cloned());
        let version = kept.fold(current.version(), |version, resource| version.with(resource.version()));
        return Content { said: said(version), resources, removed: Vec::new() };
    }
    let resources = names.iter().filter_map(|name| match (current.get(name), kind) {
        (Some(resource), _) => Some(Arc::clone(resource)),
        (None, Kind::Endpoints) => Some(no_endpoints(name)),
        (None, _) => None,
    });
    Content { said: said(current.version()), resources: resources.collect(), removed: Vec::new() }
}

/// The message without its resources.
pub(super) fn head(kind: Kind, nonce: u64, content: &Content) -> Vec<u8> {
    let head = wire::DiscoveryResponseHead {
        version_info: content.said.to_string(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_string(),
        resource_errors: Vec::new(),
    };
    head.encode_to_vec()
}

/// A cluster without endpoints: absence would say nothing.
fn no_endpoints(name: &Name) -> Arc<Resource> {
    let message = endpoint_pb::ClusterLoadAssignment { cluster_name: name.to_string(), ..Default::default() };
    Arc::new(Resource::new(Kind::Endpoints, Name::clone(name), &message, []))
}
