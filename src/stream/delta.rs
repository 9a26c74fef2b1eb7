//! The incremental protocol: what differs from state of the world.
//!
//! Owns: what a client that reconnects already holds, and how a response is composed. May use: the session's
//! types. Never: holds state.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use prost::Message;
use proto::wire;
use translators::resource::{Kind, Name, Version};

use super::push::{Content, Said};
use crate::publish::{ResourceSet, Snapshot};

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
pub(super) fn held(current: &ResourceSet, versions: &[(&str, &str)]) -> Held {
    let mut held = Held::default();
    for (name, version) in versions {
        match current.get(name) {
            Some(resource) if spells(version, resource.version()) => {
                held.same.put(Arc::clone(resource));
            }
            Some(resource) => held.other.push(Name::clone(resource.name())),
            None => held.gone.push(Name::from(*name)),
        }
    }
    held
}

/// What to send so that `names` are answered.
pub(super) fn content(kind: Kind, names: &BTreeSet<Name>, snapshot: &Snapshot) -> Content {
    let current = snapshot.of(kind);
    let said = Said { version: current.version(), text: snapshot.said_version().cloned() };
    let mut content = Content { said, resources: Vec::new(), removed: Vec::new() };
    for name in names {
        match current.get(name) {
            Some(resource) => content.resources.push(Arc::clone(resource)),
            None => content.removed.push(Name::clone(name)),
        }
    }
    content
}

/// The message without its resources.
pub(super) fn head(kind: Kind, nonce: u64, content: &Content) -> Vec<u8> {
    let head = wire::DeltaDiscoveryResponseHead {
        system_version_info: content.said.to_string(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_string(),
        removed_resources: content.removed.iter().map(ToString::to_string).collect(),
        resource_errors: Vec::new(),
    };
    head.encode_to_vec()
}

/// Whether `text` is how the version is written.
pub(super) fn spells(text: &str, version: Version) -> bool {
    /// What is left of the text to be compared.
    struct Left<'a>(&'a str);
    impl fmt::Write for Left<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut left = Left(text);
    write!(left, "{version}").is_ok() && left.0.is_empty()
}
