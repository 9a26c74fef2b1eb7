//! `EnvoyPatch`: what somebody changes in what Envoys get, where the rules do not reach.
//!
//! Owns: the shape of the spec. May use: `target`, `scalar`. Never: looks into a value; what Envoy takes there is found out
//! when the rules are resolved.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::scalar::{TextOf, text};
use super::target::Target;
use crate::mesh::{Direction, Patched};
use crate::version::VersionRange;

/// Changes to what Envoys get, in Envoy's own words, made last of all. A target of workloads (mesh, namespace, labels) is
/// everything that their proxies get. A service, or a port of it, is what there is for its sake: `inbound` in its own
/// proxies, `outbound` in those that call it, gateways included; written in another namespace, in those that call it
/// from there, and `outbound` alone. gRPC clients without a proxy, EnvoySnapshots and certificates are left as they are.
///
/// What is added is called `patch/NAMESPACE/NAME/` and then the name in its `value`, and goes by that name for whatever
/// refers to it. Where several patches change the same, one of a lower `priority` comes first; of the same, those of a wider target
/// (mesh, namespace, labels, service, port), then those whose namespace and name come first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchSpec {
    /// What is changed; a gateway or a route cannot be named.
    pub target: Target,
    /// The versions of Envoy whose proxies get the changed form, such as `">=1.36 <1.42"`, in which a space or a comma is an
    /// and; any version by default. Other proxies, and those that do not say their version, keep the unchanged form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy: Option<EnvoyVersions>,
    /// The changes, made one after the other.
    pub patches: Vec<EditSpec>,
    /// When the changes are made among those of other patches: lower ones first, so that the highest has the last word; 0 by
    /// default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditSpec {
    /// What is changed.
    pub resource: Patched,
    /// Which of them; all by default.
    #[serde(rename = "match", default, skip_serializing_if = "EditMatch::is_all")]
    pub matches: EditMatch,
    /// How it is changed.
    pub op: EditOp,
    /// In proto-JSON, the message that `resource` is in Envoy's API (`envoy.config.cluster.v3.Cluster`, ...), in snake_case or
    /// lowerCamelCase; left out with `op: remove`. Merged field by field, within an `Any` of the same type too: a list is
    /// appended to, a map takes each key, one of several alternatives takes the place of another, `null` takes a field
    /// away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<PatchValue>,
}

/// Which resources, or which parts of them; every part must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditMatch {
    /// The name that it has in Envoy, in which `*` is any characters; any by default. What is added next to nothing is matched
    /// by `direction` and `within` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"envoy.filters.http.*")]
    pub name: Option<String>,
    /// Which way: `inbound` is what workloads serve, and gateways, `outbound` what workloads call; both by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The name of the listener or route configuration that it is a part of, in which `*` is any characters; any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"in/shop/*")]
    pub within: Option<String>,
}

/// How something is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EditOp {
    /// The value goes into it, field by field.
    Merge,
    /// The value goes beside it: among the resources of a proxy; at the end of a list, an HTTP filter before the last one, which
    /// sends requests on.
    Add,
    /// It goes away.
    Remove,
    /// The value takes its place, and its name.
    Replace,
    /// The value goes before the first of those that match.
    InsertBefore,
    /// The value goes after the last of those that match.
    InsertAfter,
}

/// A message in proto-JSON. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct PatchValue(pub Arc<Map<String, Value>>);

/// Versions of Envoy, `>=1.36 <1.42`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyVersions(pub VersionRange);

// === impl EditMatch ===

impl EditMatch {
    /// Whether nothing is said.
    fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

// === impl EnvoyVersions ===

impl std::str::FromStr for EnvoyVersions {
    type Err = crate::version::InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for EnvoyVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text! {
    EnvoyVersions: "a string", "versions of Envoy", ">=1.36 <1.42", r"^[ ,]*((>=|<=|>|<|=) *\d+\.\d+[ ,]*)+$";
}

// === impl PatchValue ===

/// Shows no content: it may be a private key.
impl fmt::Debug for PatchValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PatchValue").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

impl Serialize for PatchValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PatchValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|fields| Self(Arc::new(fields)))
    }
}

impl JsonSchema for PatchValue {
    fn schema_name() -> Cow<'static, str> {
        "PatchValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A message of Envoy's in proto-JSON.",
            "examples": [{"name": "example"}],
        })
    }
}

fn is_zero(priority: &i32) -> bool {
    *priority == 0
}
