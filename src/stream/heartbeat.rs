//! Heartbeats: that resources which live for a time only still live.
//!
//! Owns: when each of them was last said, and when that is to be said again. May use: resources. Never: says it of what
//! was not sent, or in another version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use translators::resource::{Name, Resource, Version};

use super::push::Push;
use crate::publish::ResourceSet;

/// Three heartbeats fit into a life, so that one may be late,
const PER_LIFE: u32 = 3;

/// but they are not closer than this, however short the life.
const CLOSEST: Duration = Duration::from_millis(100);

/// What one stream was sent that lives for a time only.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(BTreeMap<Name, Heart>);

#[derive(Debug)]
struct Heart {
    /// As it was last sent.
    version: Version,
    /// When it is to be said that it lives.
    due: Instant,
}

// === impl Heartbeats ===

impl Heartbeats {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A response that was sent says of each of its resources that it lives.
    pub(super) fn sent(&mut self, push: &Push, now: Instant) {
        if !push.is_mortal && self.0.is_empty() {
            return;
        }
        for resource in &push.content.resources {
            match due(resource, now) {
                Some(due) => {
                    self.0.insert(Name::clone(resource.name()), Heart { version: resource.version(), due });
                }
                None => {
                    self.0.remove(resource.name());
                }
            }
        }
    }

    /// The resources of which it is time to say it. What is not as it was sent is not to be told any more, nor is what
    /// is not `held`.
    pub(super) fn due(
        &mut self,
        current: &ResourceSet,
        now: Instant,
        held: impl Fn(&Resource) -> bool,
    ) -> Vec<Arc<Resource>> {
        let mut beating = Vec::new();
        self.0.retain(|name, heart| {
            let same = current.get(name).filter(|resource| resource.version() == heart.version && held(resource));
            let Some((resource, next)) = same.and_then(|resource| Some((resource, due(resource, now)?))) else {
                return false;
            };
            if heart.due <= now {
                heart.due = next;
                beating.push(Arc::clone(resource));
            }
            true
        });
        beating
    }

    /// When the next is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.0.values().map(|heart| heart.due).min()
    }

    /// Forgets those of a response that was refused.
    pub(super) fn refused(&mut self, names: &[Name]) {
        self.0.retain(|name, _| !names.contains(name));
    }
}

/// When it is to be said of the resource that it lives, if it was said now.
fn due(resource: &Resource, now: Instant) -> Option<Instant> {
    now.checked_add((resource.ttl()? / PER_LIFE).max(CLOSEST))
}
