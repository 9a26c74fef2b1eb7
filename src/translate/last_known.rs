//! Last known: what the rules that were last in force say, for those who have no control plane to ask.
//!
//! Owns: reading it from the data directory. May use: `journal`, `last_good`. Never: writes there.

use std::path::Path;

use translators::mesh::Locality;
use translators::name::{ObjectKey, ObjectKind, QualifiedName};
use translators::rules::Spec;

pub use super::records::objects;

/// Where the proxies of `workload` are, if its last good form says so.
pub fn locality(data_dir: &Path, workload: &QualifiedName) -> Option<Locality> {
    match &objects(data_dir).get(&ObjectKey::new(ObjectKind::Workload, workload.clone()))?.spec {
        Spec::Workload(spec) => Some(spec.locality.as_ref()?.locality()),
        _ => None,
    }
}
