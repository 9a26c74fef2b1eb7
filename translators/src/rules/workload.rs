//! `Workload`: proxies that are alike, on a VM or in a container.
//!
//! Owns: the shape of the spec. May use: `locality`, `scalar`. Never: looks a service up.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::locality::LocalitySpec;
use super::scalar::{ListenAddress, RelativeName};
use crate::name::{Label, SpiffeId};

/// Proxies that are alike: what they serve and call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Which nodes are its proxies; left out, those alone whose credential names it.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<MatchSpec>,
    /// What `version` and `labels` of a route select; none by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"version": "v1"}]))]
    pub labels: BTreeMap<String, String>,
    /// Where its proxies are; not said by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<LocalitySpec>,
    /// The SPIFFE id; `spiffe://<trust domain>/ns/<namespace>/sa/<name>` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"spiffe://cluster.local/ns/shop/sa/cart")]
    pub identity: Option<SpiffeId>,
    /// The ports that it serves; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<ServeSpec>,
    /// The ports that it calls; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallSpec>,
    /// How traffic gets into the proxy; `{mode: explicit}` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
}

/// Which nodes are a workload's proxies; every part must hold, and one that is left out always does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["nodeId"]}, {"required": ["nodeCluster"]}, {"required": ["metadata"]}]))]
pub struct MatchSpec {
    /// A pattern for the node id; `*` is any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"cart-v1-*")]
    pub node_id: Option<String>,
    /// The node's cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"cart")]
    pub node_cluster: Option<String>,
    /// String members of the node's metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"role": "cart"}]))]
    pub metadata: BTreeMap<String, String>,
}

/// One port that a workload serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServeSpec {
    /// The service; of the workload's own namespace.
    pub service: RelativeName,
    /// The name of its port; left out, its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"http")]
    pub port: Option<Label>,
    /// Where the proxy listens.
    #[schemars(example = &"0.0.0.0:8080")]
    pub listen: ListenAddress,
    /// Where the application listens.
    #[schemars(example = &"127.0.0.1:18080")]
    pub app: ListenAddress,
}

/// One port that a workload calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallSpec {
    /// The service.
    pub service: RelativeName,
    /// The name of its port; left out, its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"http")]
    pub port: Option<Label>,
    /// Where the proxy listens for the application.
    pub listen: ListenAddress,
}

/// How traffic gets into the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capture {
    /// One listener for each entry of `serves` and `calls`.
    pub mode: CaptureMode,
}

/// The modes of capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureMode {
    /// One listener for each entry of `serves` and `calls`.
    Explicit,
}
