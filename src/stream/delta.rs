//! The incremental protocol: what differs from state of the world.
//!
//! Owns: what a client that reconnects already holds, and how a response is composed. May use: the session's
//! types. Never: holds state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::wire;
use translators::resource::{Kind, Name};

use super::session::Content;
use crate::publish::ResourceSet;

/// What a client that reconnects says that it holds, beside what there is.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// As it is.
    pub(super) same: ResourceSet,
    /// In another version.
    pub(super) other: Vec<Name>,
    /// Not there any more.
    pub(super) gone: Vec<Name>,
}

/// Sorts what a client that reconnects says that it holds.
pub(super) fn held(current: &ResourceSet, versions: &BTreeMap<String, String>) -> Held {
    let mut held = Held::default();
    for (name, version) in versions {
        match current.get(name) {
            Some(resource) if resource.version().to_string() == *version => {
                held.same.put(Arc::clone(resource));
            }
            Some(resource) => held.other.push(Name::clone(resource.name())),
            None => held.gone.push(Name::from(name.as_str())),
        }
    }
    held
}

/// What to send so that `names` are answered.
pub(super) fn content(names: &BTreeSet<Name>, current: &ResourceSet) -> Content {
    let mut content = Content { version: current.version(), resources: Vec::new(), removed: Vec::new() };
    for name in names {
        match current.get(name) {
            Some(resource) => content.resources.push(Arc::clone(resource)),
            None => content.removed.push(Name::clone(name)),
        }
    }
    content
}

/// The bytes of the response.
pub(super) fn encode(kind: Kind, nonce: u64, content: &Content) -> (Bytes, Vec<Bytes>) {
    let head = wire::DeltaDiscoveryResponseHead {
        system_version_info: content.version.to_string(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_string(),
        removed_resources: content.removed.iter().map(ToString::to_string).collect(),
    };
    let entries = content.resources.iter().map(|resource| resource.delta_entry()).collect();
    (head.encode_to_vec().into(), entries)
}
