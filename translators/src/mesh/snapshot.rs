//! What somebody wrote for Envoy itself.
//!
//! Owns: the resolved EnvoySnapshot. May use: `resource`. Never: makes a resource.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::NodeMatch;
use crate::name::{QualifiedName, RuleRef};
use crate::resource::Resource;

/// Envoy's own resources for the nodes that it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvoySnapshot {
    /// Its name.
    pub name: QualifiedName,
    /// The EnvoySnapshot.
    pub origin: RuleRef,
    /// Which nodes are served.
    pub matches: NodeMatch,
    /// The version that Envoys are told, instead of one that follows from the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// The resources, as they are written; no two of one kind have a name in common.
    #[serde(serialize_with = "names")]
    pub resources: Vec<Arc<Resource>>,
}

/// By kind and name: the content may be a secret.
fn names<S: Serializer>(resources: &[Arc<Resource>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(resources.iter().map(|resource| format!("{} {}", resource.kind(), resource.name())))
}
