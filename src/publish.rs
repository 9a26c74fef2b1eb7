//! 4. Publish: the resource table, groups of proxies, and who is woken when something changes.
//!
//! Owns: the current [`Snapshot`] of every group. May use: `translators`. Never: translates, encodes or
//! knows a protocol. One task writes; readers take an `Arc` and never lock.

pub mod snapshot;

pub use snapshot::{ResourceSet, Snapshot};
