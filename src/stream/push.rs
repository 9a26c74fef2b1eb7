//! A response, made once for every stream that is due the same.
//!
//! Owns: what it says, its bytes, and its nonce. May use: resources, the framing. Never: copies a resource more than
//! once, or at all if only one stream is sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use translators::resource::{Kind, Name, Resource, Version};

use super::names::Names;
use super::node::Client;
use super::session::{Protocol, Response};
use super::{delta, sotw};
use crate::publish::ResourceSet;

/// What a client takes by default is 4 MiB: a response that may be in parts has parts that are smaller than this, which
/// leaves room for its head. A resource that is larger goes alone.
const MOST_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

/// A client that is not told otherwise takes no message that is larger: who sends one may be cut off without a word.
pub(super) const MOST_TAKEN: usize = 4 * 1024 * 1024;

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
    /// Names that were asked for and that nothing goes by: answered by an entry without a body.
    pub(super) absent: Vec<Name>,
    /// Names that were asked for and do not exist: told by an error.
    pub(super) errors: Vec<Name>,
    /// It says only that the resources still live.
    pub(super) is_heartbeat: bool,
}

/// A response, for as long as it is under way to any stream.
#[derive(Debug)]
pub(super) struct Push {
    protocol: Protocol,
    client: Client,
    kind: Kind,
    pub(super) nonce: u64,
    pub(super) content: Arc<Content>,
    /// The names of its resources.
    pub(super) names: Arc<[Name]>,
    /// Some of its resources live for a time only, and heartbeats are to follow.
    pub(super) is_mortal: bool,
    pub(super) made: Made,
    /// How large the message is.
    pub(super) bytes: usize,
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
    /// What was too much for it, and follows in the next.
    pub(super) rest: BTreeSet<Name>,
    /// Of this set: who accepts it holds what it takes of that. None of a heartbeat, and of what has more parts to come.
    pub(super) of: Option<ResourceSet>,
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
    /// One that says nothing yet.
    pub(super) fn new(said: Said) -> Self {
        let (resources, removed, absent, errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { said, resources, removed, absent, errors, is_heartbeat: false }
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty() && self.absent.is_empty() && self.errors.is_empty()
    }

    /// Whether it says the same, in whatever order.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let said = |content: &Self| -> BTreeMap<Name, Version> {
            content.resources.iter().map(|resource| (Name::clone(resource.name()), resource.version())).collect()
        };
        self.removed == other.removed
            && self.absent == other.absent
            && self.errors == other.errors
            && self.resources.len() == other.resources.len()
            && said(self) == said(other)
    }

    /// Takes away what is too much for one response; at least one resource stays.
    pub(super) fn cut(&mut self, protocol: Protocol) -> BTreeSet<Name> {
        let mut left = MOST_BYTES;
        let mut fits = |bytes: usize| {
            let fits = left >= bytes || left == MOST_BYTES;
            left = left.saturating_sub(bytes);
            fits
        };
        let resources = self.resources.iter().take_while(|resource| {
            fits(match protocol {
                Protocol::Sotw => resource.sotw_entry().len(),
                Protocol::Delta => resource.delta_entry().len(),
            })
        });
        let at = resources.count();
        // Two copies of the name at most, and what stands before them.
        let mut named = |names: &Vec<Name>| names.iter().take_while(|name| fits(2 * name.len() + 16)).count();
        let (removed, absent) = (named(&self.removed), named(&self.absent));
        let resources = self.resources.drain(at..).map(|resource| Name::clone(resource.name()));
        resources.chain(self.removed.drain(removed..)).chain(self.absent.drain(absent..)).collect()
    }
}

// === impl Push ===

impl Push {
    pub(super) fn new(
        (protocol, client): (Protocol, Client),
        kind: Kind,
        nonce: u64,
        content: Content,
        made: Made,
    ) -> Self {
        let head = match protocol {
            Protocol::Sotw => sotw::head(kind, nonce, &content),
            Protocol::Delta => delta::head(kind, nonce, &content),
        };
        let names = content.resources.iter().map(|resource| Name::clone(resource.name())).collect();
        let can_be_told = match protocol {
            Protocol::Sotw => client.unwraps,
            // Of virtual hosts Envoy takes none.
            Protocol::Delta => kind != Kind::VirtualHost,
        };
        let is_mortal = can_be_told && content.resources.iter().any(|resource| resource.ttl().is_some());
        let (content, whole) = (Arc::new(content), OnceLock::new());
        let (start, bytes) = (Bytes::new(), head.len());
        let mut push =
            Self { protocol, client, kind, nonce, content, names, is_mortal, made, bytes, head: start, whole };
        let entries = push.entries().map(|entry| entry.len()).sum();
        push.bytes += entries;
        push.head = super::frame::head(&head, entries);
        push
    }

    /// In pieces, which are the resources' own bytes.
    pub(super) fn in_pieces(&self) -> Response {
        self.response(self.head.clone(), self.entries().collect())
    }

    /// In one piece, the same for every stream.
    pub(super) fn in_one(&self) -> Response {
        let whole = self.whole.get_or_init(|| {
            let bytes = self.head.len() + self.entries().map(|entry| entry.len()).sum::<usize>();
            let mut whole = BytesMut::with_capacity(bytes);
            whole.extend_from_slice(&self.head);
            self.entries().for_each(|entry| whole.extend_from_slice(&entry));
            whole.freeze()
        });
        self.response(whole.clone(), Vec::new())
    }

    fn response(&self, head: Bytes, entries: Vec<Bytes>) -> Response {
        Response { kind: self.kind, version: self.content.said.version, bytes: self.bytes, head, entries }
    }

    fn entries(&self) -> impl Iterator<Item = Bytes> {
        self.content.resources.iter().map(|resource| match (self.protocol, self.content.is_heartbeat) {
            (Protocol::Delta, false) => resource.delta_entry(),
            (Protocol::Delta, true) => resource.delta_heartbeat(),
            (Protocol::Sotw, true) => resource.sotw_heartbeat(),
            (Protocol::Sotw, false) if self.client.unwraps && resource.ttl().is_some() => resource.sotw_wrapped(),
            (Protocol::Sotw, false) => resource.sotw_entry(),
        })
    }
}
