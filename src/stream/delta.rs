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

/// What of `current` a client holds that reported `versions`, and the names that it holds and should not.
pub(super) fn held(current: &ResourceSet, versions: &BTreeMap<String, String>) -> (ResourceSet, Vec<Name>) {
    let mut same = ResourceSet::default();
    let mut gone = Vec::new();
    for (name, version) in versions {
        match current.get(name) {
            Some(resource) if resource.version().to_string() == *version => {
                same.put(Arc::clone(resource));
            }
            Some(_) => {}
            None => gone.push(Name::from(name.as_str())),
        }
    }
    (same, gone)
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
