//! `target`: what a policy applies to.
//!
//! Owns: every form of a target. May use: `scalar`. Never: looks a target up.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::RelativeName;
use crate::name::Label;

/// What a policy applies to; there is no "empty means everything". Of `scope`, `labels`, `service`, `gateway` and `route`
/// one is there, and the others are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
#[schemars(with = "Written")]
pub enum Target {
    /// `{scope: mesh}`: everything; only in the namespace `mesh-system`.
    Mesh,
    /// `{scope: namespace}`: the policy's own namespace.
    Namespace,
    /// `{labels: {...}}`: workloads with these labels.
    Labels(BTreeMap<String, String>),
    /// `{service: cart}`: every port of a service.
    Service(RelativeName),
    /// `{service: cart, port: http}`: one port of a service.
    Port(RelativeName, String),
    /// `{gateway: edge}`, `{gateway: edge, listener: https}`.
    Gateway(RelativeName, Option<String>),
    /// `{route: cart}`, `{route: cart, rule: default}`.
    Route(RelativeName, Option<String>),
}

/// The two scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// Everything; only in the namespace `mesh-system`.
    Mesh,
    /// The namespace of the object.
    Namespace,
}

/// A target as written.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [
        {"required": ["service"]}, {"required": ["scope"]}, {"required": ["labels"]}, {"required": ["gateway"]},
        {"required": ["route"]}
    ],
    "dependentRequired" = {"port": ["service"], "listener": ["gateway"], "rule": ["route"]}
))]
struct Written {
    /// The mesh, or the object's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = Scope::Namespace)]
    scope: Option<Scope>,
    /// Workloads with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{"version": "v1"}]))]
    labels: Option<BTreeMap<String, String>>,
    /// A service.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<RelativeName>,
    /// The name of one of its ports; left out, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"http")]
    port: Option<Label>,
    /// A gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<RelativeName>,
    /// The name of one of its listeners; left out, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"https")]
    listener: Option<String>,
    /// A TrafficRoute.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RelativeName>,
    /// The name of one of its rules; left out, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"testers")]
    rule: Option<String>,
}

/// A target that is not exactly one of the forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a target is exactly one of {{scope: mesh}}, {{scope: namespace}}, {{labels: ...}}, {{service: x}}, \
     {{service: x, port: p}}, {{gateway: g}}, {{gateway: g, listener: l}}, {{route: r}}, {{route: r, rule: n}}"
)]
pub struct InvalidTarget;

impl TryFrom<Written> for Target {
    type Error = InvalidTarget;

    fn try_from(written: Written) -> Result<Self, InvalidTarget> {
        let Written { scope, labels, service, port, gateway, listener, route, rule } = written;
        let modifiers = (port, listener, rule);
        match (scope, labels, service, gateway, route, modifiers) {
            (Some(Scope::Mesh), None, None, None, None, (None, None, None)) => Ok(Self::Mesh),
            (Some(Scope::Namespace), None, None, None, None, (None, None, None)) => Ok(Self::Namespace),
            (None, Some(labels), None, None, None, (None, None, None)) => Ok(Self::Labels(labels)),
            (None, None, Some(service), None, None, (None, None, None)) => Ok(Self::Service(service)),
            (None, None, Some(service), None, None, (Some(port), None, None)) => {
                Ok(Self::Port(service, port.to_string()))
            }
            (None, None, None, Some(gateway), None, (None, listener, None)) => Ok(Self::Gateway(gateway, listener)),
            (None, None, None, None, Some(route), (None, None, rule)) => Ok(Self::Route(route, rule)),
            _ => Err(InvalidTarget),
        }
    }
}

impl From<Target> for Written {
    fn from(target: Target) -> Self {
        let empty = Self::default();
        match target {
            Target::Mesh => Self { scope: Some(Scope::Mesh), ..empty },
            Target::Namespace => Self { scope: Some(Scope::Namespace), ..empty },
            Target::Labels(labels) => Self { labels: Some(labels), ..empty },
            Target::Service(service) => Self { service: Some(service), ..empty },
            Target::Port(service, port) => Self { service: Some(service), port: port.parse().ok(), ..empty },
            Target::Gateway(gateway, listener) => Self { gateway: Some(gateway), listener, ..empty },
            Target::Route(route, rule) => Self { route: Some(route), rule, ..empty },
        }
    }
}
