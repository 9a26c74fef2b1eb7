//! The incremental protocol: what differs from state of the world.
//!
//! Owns: what a client that reconnects already holds, and how a response is composed. May use: the session's
//! types. Never: holds state.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use prost::{Message, encoding};
use proto::wire;
use translators::resource::{Kind, Name, Version};

use super::news::News;
use super::push::{Content, Said};
use super::request::Holding;
use super::types::TypeState;
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
pub(super) fn held(current: &ResourceSet, versions: &[Holding<'_>]) -> Held {
    let mut held = Held::default();
    for (name, version) in versions {
        match current.get(name) {
            Some(resource) if spells(version, resource.version()) => {
                held.same.put(Arc::clone(resource));
            }
            Some(resource) => held.other.push(Name::clone(resource.name())),
            None => held.gone.push(Name::from(&**name)),
        }
    }
    held
}

/// What to send so that the news are said.
pub(super) fn content(kind: Kind, news: &News, snapshot: &Snapshot, state: &TypeState) -> Content {
    let current = snapshot.of(kind);
    let mut content = Content::new(Said { version: current.version(), text: snapshot.said_version().cloned() });
    let mut found = BTreeMap::new();
    for name in &news.names {
        let mut known = false;
        for resource in current.called(name).filter(|resource| state.subscription.takes(resource)) {
            known = true;
            let form = if news.mending.contains(name) { state.refused.form(resource) } else { Some(resource) };
            found.extend(form.map(|form| (form.name(), form)));
        }
        if known || state.kept.contains(name) || current.is_coming(name) {
            continue;
        }
        match kind {
            Kind::VirtualHost if state.subscription.covers(name) && !news.gone.contains(name) => {
                content.absent.push(Name::clone(name));
            }
            _ => content.removed.push(Name::clone(name)),
        }
    }
    content.resources.extend(found.into_values().cloned());
    content
}

/// The message without its resources; an entry without a body is not one of those.
pub(super) fn head(kind: Kind, nonce: u64, content: &Content) -> Vec<u8> {
    let head = wire::DeltaDiscoveryResponseHead {
        system_version_info: content.said.to_string(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_string(),
        removed_resources: content.removed.iter().map(ToString::to_string).collect(),
    };
    let mut head = head.encode_to_vec();
    for name in &content.absent {
        let (name, aliases) = (name.to_string(), vec![name.to_string()]);
        let entry = wire::ResourceHead { name, aliases, ..wire::ResourceHead::default() };
        encoding::message::encode(2, &entry, &mut head);
    }
    head
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
