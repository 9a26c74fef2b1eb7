//! A response, made once for every stream that is due the same.
//!
//! Owns: what it says, its bytes, and its nonce. May use: resources, the framing. Never: copies a resource more than
//! once, or at all if only one stream is sent it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use translators::resource::{Kind, Name, Resource, Version};

use super::names::Names;
use super::session::{Protocol, Response};
use super::{delta, sotw};

/// The version of a response: that of its content, and the text in its place if the snapshot has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) version: Version,
    pub(super) text: Option<Arc<str>>,
}

/// What a response says, before it is bytes.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) said: Said,
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Name>,
}

/// A response, for as long as it is under way to any stream.
#[derive(Debug)]
pub(super) struct Push {
    protocol: Protocol,
    kind: Kind,
    pub(super) nonce: u64,
    pub(super) content: Arc<Content>,
    /// The names of its resources.
    pub(super) names: Arc<[Name]>,
    pub(super) made: Made,
    /// The start of the frame, up to the resources.
    head: Bytes,
    /// The frame; made when a second stream is sent it.
    whole: OnceLock<Bytes>,
}

/// What a response was made of, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// For this subscription,
    pub(super) names: Option<Arc<Names>>,
    /// and because these clusters were sent.
    pub(super) woken: Option<Arc<Names>>,
    /// The clusters that it brings, whose endpoints follow.
    pub(super) clusters: Option<Arc<Names>>,
    /// It brings names that the proxy does not have.
    pub(super) brings_new: bool,
}

// === impl Said ===

impl Said {
    /// Whether this is how it is written.
    pub(super) fn is_written(&self, text: &str) -> bool {
        match &self.text {
            Some(said) => **said == *text,
            None => delta::spells(text, self.version),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.version.fmt(f),
        }
    }
}

// === impl Content ===

impl Content {
    /// Whether it says the same, in whatever order.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let said = |content: &Self| -> BTreeMap<Name, Version> {
            content.resources.iter().map(|resource| (Name::clone(resource.name()), resource.version())).collect()
        };
        self.removed == other.removed && self.resources.len() == other.resources.len() && said(self) == said(other)
    }
}

// === impl Push ===

impl Push {
    pub(super) fn new(protocol: Protocol, kind: Kind, nonce: u64, content: Content, made: Made) -> Self {
        let head = match protocol {
            Protocol::Sotw => sotw::head(kind, nonce, &content),
            Protocol::Delta => delta::head(kind, nonce, &content),
        };
        let entries = content.resources.iter().map(|resource| entry(protocol, resource).len()).sum();
        let names = content.resources.iter().map(|resource| Name::clone(resource.name())).collect();
        let head = super::frame::head(&head, entries);
        Self { protocol, kind, nonce, content: Arc::new(content), names, made, head, whole: OnceLock::new() }
    }

    /// In pieces, which are the resources' own bytes.
    pub(super) fn in_pieces(&self) -> Response {
        let entries = self.content.resources.iter().map(|resource| entry(self.protocol, resource)).collect();
        self.response(self.head.clone(), entries)
    }

    /// In one piece, the same for every stream.
    pub(super) fn in_one(&self) -> Response {
        let whole = self.whole.get_or_init(|| {
            let resources = &self.content.resources;
            let entries = resources.iter().map(|resource| entry(self.protocol, resource));
            let mut whole = BytesMut::with_capacity(self.head.len() + entries.clone().map(|e| e.len()).sum::<usize>());
            whole.extend_from_slice(&self.head);
            entries.for_each(|entry| whole.extend_from_slice(&entry));
            whole.freeze()
        });
        self.response(whole.clone(), Vec::new())
    }

    fn response(&self, head: Bytes, entries: Vec<Bytes>) -> Response {
        Response { kind: self.kind, version: self.content.said.version, head, entries }
    }
}

fn entry(protocol: Protocol, resource: &Resource) -> Bytes {
    match protocol {
        Protocol::Sotw => resource.sotw_entry(),
        Protocol::Delta => resource.delta_entry(),
    }
}
