//! The state-of-the-world protocol: what differs from delta.
//!
//! Owns: which requests are stale, which answers accept, and how a response is composed. May use: the
//! session's types. Never: holds state.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::wire;
use translators::resource::{Kind, Name, Resource};

use super::news::News;
use super::node::Client;
use super::push::{Content, Said};
use super::types::TypeState;
use crate::publish::Snapshot;

/// `google.rpc.Code`.
const NOT_FOUND: i32 = 5;

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

/// What to send so that the news are said.
pub(super) fn content(kind: Kind, news: &News, snapshot: &Snapshot, state: &TypeState, client: Client) -> Content {
    let current = snapshot.of(kind);
    let said = Said { version: current.version(), text: snapshot.said_version().cloned() };
    let mut content = Content::new(said);
    if client.takes_errors {
        let missing = news.names.iter().filter(|name| current.find(name).is_none() && !current.is_coming(name));
        // Of endpoints it is said that there are none.
        let told = missing.filter(|name| kind != Kind::Endpoints && state.subscription.names_it(name));
        content.errors.extend(told.cloned());
    }
    if kind.is_full_state() {
        // What is missing is deleted: everything, and what is still to be kept.
        let taken = current.iter().filter(|resource| state.subscription.takes(resource));
        let forms = taken.filter_map(|resource| {
            if news.asked.contains(resource.name()) { Some(resource) } else { state.refused.form(resource) }
        });
        content.resources.extend(forms.cloned());
        for resource in state.held.values().filter_map(|held| held.form.as_ref()) {
            content.said.version = content.said.version.with(resource.version());
            content.resources.push(Arc::clone(resource));
        }
        return content;
    }
    // One that is asked for by several of its names is said once.
    let mut aliased = BTreeSet::new();
    for name in &news.names {
        let form = match current.find(name) {
            Some(resource) if news.mending.contains(name) => state.refused.form(resource),
            Some(resource) => Some(resource),
            None if kind == Kind::Endpoints => {
                content.resources.push(no_endpoints(name));
                None
            }
            None => None,
        };
        let once = |form: &&Arc<Resource>| form.aliases().is_empty() || aliased.insert(Name::clone(form.name()));
        content.resources.extend(form.filter(once).cloned());
    }
    content
}

/// The message without its resources.
pub(super) fn head(kind: Kind, nonce: u64, content: &Content) -> Vec<u8> {
    let error = |name: &Name| wire::ResourceError {
        resource_name: Some(wire::ResourceName { name: name.to_string() }),
        error_detail: Some(wire::Status { code: NOT_FOUND, message: "there is no such resource".to_owned() }),
    };
    let head = wire::DiscoveryResponseHead {
        version_info: content.said.to_string(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_string(),
        resource_errors: content.errors.iter().map(error).collect(),
    };
    head.encode_to_vec()
}

/// A cluster without endpoints: absence would say nothing.
fn no_endpoints(name: &Name) -> Arc<Resource> {
    let message = endpoint_pb::ClusterLoadAssignment { cluster_name: name.to_string(), ..Default::default() };
    Arc::new(Resource::new(Kind::Endpoints, Name::clone(name), &message, []))
}
