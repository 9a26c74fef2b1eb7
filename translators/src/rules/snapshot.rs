//! `EnvoySnapshot`: Envoy's own resources, as somebody wrote them, for the nodes that it matches.
//!
//! Owns: the shape of the spec. May use: `workload` (how nodes are matched). Never: looks into a resource; what Envoy
//! takes there is found out when the rules are resolved.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::workload::MatchSpec;

/// Envoy's own resources for the nodes that it matches, served as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotSpec {
    /// Which nodes are served. An exact `nodeId` goes before a pattern, a longer pattern before a shorter one.
    #[serde(rename = "match")]
    #[schemars(extend("examples" = [{"nodeId": "edge-*"}]))]
    pub matches: MatchSpec,
    /// The version that Envoys are told; left out, one that follows from the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"42")]
    pub version: Option<String>,
    /// The resources, of any type that Envoy subscribes to.
    pub resources: Vec<RawResource>,
}

/// One resource in proto-JSON: `"@type"` beside its fields, in snake_case or lowerCamelCase; or wrapped as an
/// `envoy.service.discovery.v3.Resource` with `name`, `aliases` and `ttl`. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct RawResource(pub Arc<Value>);

// === impl RawResource ===

/// Shows no content: it may be a private key.
impl fmt::Debug for RawResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawResource").field(&self.0.get("@type")).finish()
    }
}

impl Serialize for RawResource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawResource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(Arc::new(value)))
    }
}

impl JsonSchema for RawResource {
    fn schema_name() -> Cow<'static, str> {
        "RawResource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "One resource in proto-JSON; or wrapped as an `envoy.service.discovery.v3.Resource`.",
            "properties": {"@type": {
                "type": "string",
                "description": "The type of the resource; its fields stand beside it, in snake_case or lowerCamelCase.",
                "examples": ["type.googleapis.com/envoy.config.cluster.v3.Cluster"],
            }},
            "required": ["@type"],
            "examples": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "api", "type": "STATIC"}],
        })
    }
}
