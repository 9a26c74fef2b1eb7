//! `for`: whose requests a TrafficRoute routes.
//!
//! Owns: the two forms of it. May use: `scalar`. Never: looks a name up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::RelativeName;

/// Whose requests are routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
#[schemars(with = "Written")]
pub enum Subject {
    /// `{service: cart}`: those of the callers of a service.
    Service(RelativeName),
    /// `{gateway: edge, hostnames: [...], prefix: /}`: those from outside.
    Gateway {
        /// The gateway, in the namespace of the TrafficRoute.
        gateway: RelativeName,
        /// The hosts; none is every host of the gateway.
        hostnames: Vec<String>,
        /// What their paths begin with.
        prefix: Option<String>,
    },
}

/// As written.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["service"]}, {"required": ["gateway"]}],
    "dependentRequired" = {"hostnames": ["gateway"], "prefix": ["gateway"]}
))]
struct Written {
    /// The service that callers call; left out where there is `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<RelativeName>,
    /// The gateway that requests come in by, of the route's own namespace; left out where there is `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<RelativeName>,
    /// The hosts that requests to the gateway are for, or that are named in handshakes: `shop.example.com`,
    /// `*.example.com` for one or more labels before it, `*` for all; the most specific one decides; every host of the
    /// gateway by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hostnames: Vec<String>,
    /// What the paths of requests to the gateway begin with, in whole segments; with a slash at the end, as a text. `/` by
    /// default. Of several routes for one host the one of the longest prefix is tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
}

/// Neither the one nor the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a route is for one of {{service: x}}, {{gateway: g}}, {{gateway: g, hostnames: [...], prefix: /p}}")]
pub struct InvalidSubject;

impl TryFrom<Written> for Subject {
    type Error = InvalidSubject;

    fn try_from(written: Written) -> Result<Self, InvalidSubject> {
        match written {
            Written { service: Some(service), gateway: None, hostnames, prefix: None } if hostnames.is_empty() => {
                Ok(Self::Service(service))
            }
            Written { service: None, gateway: Some(gateway), hostnames, prefix } => {
                Ok(Self::Gateway { gateway, hostnames, prefix })
            }
            _ => Err(InvalidSubject),
        }
    }
}

impl From<Subject> for Written {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Service(service) => Self { service: Some(service), ..Self::default() },
            Subject::Gateway { gateway, hostnames, prefix } => {
                Self { service: None, gateway: Some(gateway), hostnames, prefix }
            }
        }
    }
}
