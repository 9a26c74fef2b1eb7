//! Patches: what somebody changes in what Envoys get.
//!
//! Owns: the resolved EnvoyPatch, and which resources it means. May use: `name`, `node` (patterns), `version`. Never:
//! Envoy's types.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Workload;
use super::node::glob;
use crate::name::{Label, QualifiedName, RuleRef};
use crate::version::VersionRange;

/// Changes to what the proxies of a target get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvoyPatch {
    /// Its name.
    pub name: QualifiedName,
    /// The EnvoyPatch.
    pub origin: RuleRef,
    /// What is changed.
    pub target: PatchTarget,
    /// For which versions of Envoy.
    #[serde(skip_serializing_if = "VersionRange::is_any")]
    pub envoy: VersionRange,
    /// Lower ones are made first.
    pub priority: i32,
    /// The changes, one after the other.
    pub edits: Vec<PatchEdit>,
}

/// What a patch is for, from the widest to the most specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PatchTarget {
    /// All proxies.
    Mesh,
    /// Those of the workloads of a namespace.
    Namespace(Label),
    /// Those of its workloads that carry these labels.
    Labels(Label, BTreeMap<String, String>),
    /// What there is because of a service.
    Service {
        /// The service.
        service: QualifiedName,
        /// The name of the only port that is meant.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        /// The namespace whose callers alone are meant.
        #[serde(skip_serializing_if = "Option::is_none")]
        consumer: Option<Label>,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchEdit {
    /// `/spec/patches/N`.
    pub origin: RuleRef,
    /// What is changed.
    pub resource: Patched,
    /// A pattern for its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A pattern for the name of what it is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Which way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// How.
    pub change: PatchChange,
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Patched {
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.listener.v3.FilterChain`, of a listener.
    FilterChain,
    /// `envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter`, of every HTTP connection manager of a
    /// listener.
    HttpFilter,
    /// `envoy.config.route.v3.Route`, of a virtual host.
    Route,
    /// `envoy.config.route.v3.VirtualHost`, of a route configuration: one of its own (`outbound`, and gateways), or that of a
    /// listener (`inbound`).
    VirtualHost,
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`: the endpoints of a cluster, by its name.
    Endpoint,
    /// `envoy.config.bootstrap.v3.Bootstrap`, as `chancery bootstrap` and `chancery translate -o bootstrap` print it; merged
    /// alone, and only with a target of workloads.
    Bootstrap,
}

/// Which way requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the application, or into a gateway.
    Inbound,
    /// From the application to others.
    Outbound,
}

/// How something is changed; values are proto-JSON that fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PatchChange {
    /// Field by field.
    Merge(Arc<Map<String, Value>>),
    /// Something new beside it.
    Add(Arc<Map<String, Value>>),
    /// Taken away.
    Remove,
    /// Something else in its place, under its name.
    Replace(Arc<Map<String, Value>>),
    /// Something new before the first.
    InsertBefore(Arc<Map<String, Value>>),
    /// Something new after the last.
    InsertAfter(Arc<Map<String, Value>>),
}

// === impl PatchTarget ===

impl PatchTarget {
    /// Whether proxies of `workload` are meant whatever they serve and call.
    pub fn takes(&self, workload: &Workload) -> bool {
        match self {
            Self::Mesh => true,
            Self::Namespace(namespace) => workload.name.namespace == *namespace,
            Self::Labels(namespace, labels) => {
                workload.name.namespace == *namespace
                    && labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
            }
            Self::Service { .. } => false,
        }
    }
}

// === impl PatchEdit ===

impl PatchEdit {
    /// Whether something of this name is meant.
    pub fn takes(&self, name: &str) -> bool {
        self.name.as_deref().is_none_or(|pattern| glob(pattern, name))
    }

    /// Whether parts of what has this name are meant.
    pub fn takes_within(&self, name: &str) -> bool {
        self.within.as_deref().is_none_or(|pattern| glob(pattern, name))
    }

    /// What is written for Envoy.
    pub fn value(&self) -> Option<&Arc<Map<String, Value>>> {
        match &self.change {
            PatchChange::Merge(value)
            | PatchChange::Add(value)
            | PatchChange::Replace(value)
            | PatchChange::InsertBefore(value)
            | PatchChange::InsertAfter(value) => Some(value),
            PatchChange::Remove => None,
        }
    }
}

// === impl Patched ===

impl Patched {
    /// The full name of the message.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::FilterChain => "envoy.config.listener.v3.FilterChain",
            Self::HttpFilter => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
            Self::Route => "envoy.config.route.v3.Route",
            Self::VirtualHost => "envoy.config.route.v3.VirtualHost",
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Bootstrap => "envoy.config.bootstrap.v3.Bootstrap",
        }
    }

    /// The field that names one.
    pub fn name_field(self) -> Option<&'static str> {
        match self {
            Self::Listener | Self::FilterChain | Self::HttpFilter | Self::Route | Self::VirtualHost | Self::Cluster => {
                Some("name")
            }
            Self::Endpoint => Some("cluster_name"),
            Self::Bootstrap => None,
        }
    }

    /// Whether it is a part of something else.
    pub fn is_part(self) -> bool {
        match self {
            Self::FilterChain | Self::HttpFilter | Self::Route | Self::VirtualHost => true,
            Self::Listener | Self::Cluster | Self::Endpoint | Self::Bootstrap => false,
        }
    }

    /// Whether the order among its like means something.
    pub fn is_ordered(self) -> bool {
        matches!(self, Self::HttpFilter | Self::Route)
    }
}
