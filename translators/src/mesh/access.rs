//! Who may do what on a port.
//!
//! Owns: entries, callers and operations as the rules mean them for one port. May use: `name`. Never: Envoy's types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{HostMatch, Jwt, JwtProvider, Sourced, TextMatch};
use crate::name::{Label, QualifiedName, RuleRef, SpiffeId};

/// Who may do what on a port: deny beats allow beats the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Entries that refuse.
    pub deny: Vec<AccessEntry>,
    /// Entries that admit.
    pub allow: Vec<AccessEntry>,
    /// What holds for everybody else.
    pub default: Sourced<AccessDefault>,
    /// What is admitted whatever the entries say: callers ask by it whether an endpoint is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Box<AccessEntry>>,
    /// What would hold with the policies that are not enforced yet; `None` where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// What would hold with the policies that are not enforced yet. It changes no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Entries that would refuse more than those that are enforced.
    pub deny: Vec<AccessEntry>,
    /// Entries that would admit, those that are enforced among them.
    pub allow: Vec<AccessEntry>,
    /// What would hold for everybody else.
    pub default: Sourced<AccessDefault>,
}

/// What holds where no entry matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessDefault {
    /// Admitted.
    Allow,
    /// Refused.
    Deny,
}

/// One entry: it matches when one caller and one operation match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessEntry {
    /// The entry as written; its text is the policy's name in Envoy.
    pub origin: RuleRef,
    /// The callers; empty is anybody, with or without identity.
    pub from: Vec<Caller>,
    /// The operations; empty is all.
    pub to: Vec<Operation>,
    /// The token that a request must carry. On TCP ports such an entry never matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Who has the last word about a request that matches. On TCP ports such an entry never matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<Arc<External>>,
}

/// A service that is asked whether a request may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct External {
    /// The service.
    pub service: QualifiedName,
    /// The name of its port.
    pub port: String,
    /// Whether it is asked by gRPC; otherwise by HTTP.
    pub by_grpc: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether requests are admitted while it does not answer.
    pub fail_open: bool,
}

/// A caller, recognised by the identity of its certificate or by where it connects from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Caller {
    /// Anybody, with or without identity.
    Any,
    /// One of these identities (of a service's workloads, of a service account).
    Identities(BTreeSet<SpiffeId>),
    /// Any identity of this namespace of the mesh's own trust domain.
    Namespace(Label),
    /// An identity that this pattern takes; `*` is any characters.
    Pattern(String),
    /// Whoever connects from there, with or without identity.
    Ip(Network),
}

/// The addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The first of them.
    pub address: IpAddr,
    /// How many bits of it all have; at most 32 of IPv4, 128 of IPv6.
    pub length: u8,
}

/// What a caller does on this port; every part must hold. On TCP ports an operation with parts never matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Operation {
    /// The methods; empty is any.
    pub methods: BTreeSet<String>,
    /// The paths, after normalisation, without query; `*` is any characters; empty is any.
    pub paths: BTreeSet<String>,
    /// The hosts; empty is any.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<HostMatch>,
    /// The headers by name, in lower case; all must match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextMatch>,
    /// The calls of gRPC; empty is any request.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub grpc: BTreeSet<GrpcMethod>,
}

/// Calls of gRPC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GrpcMethod {
    /// `package.Service`.
    pub service: String,
    /// The method; `None` is all of them.
    pub method: Option<String>,
}

// === impl Access ===

impl Access {
    /// Whether everybody else is admitted, and would not be if the audited policies were enforced.
    pub fn would_close(&self) -> bool {
        let admits = |default: &Sourced<AccessDefault>| default.value == AccessDefault::Allow;
        admits(&self.default) && self.audit.as_ref().is_some_and(|audit| !admits(&audit.default))
    }

    /// Whose tokens it asks for, by name, and whether anything that is enforced does.
    pub fn jwt_providers(&self) -> BTreeMap<&str, (&JwtProvider, bool)> {
        let audited = self.audit.iter().flat_map(|audit| audit.deny.iter().chain(&audit.allow));
        let enforced = self.deny.iter().chain(&self.allow).map(|entry| (entry, true));
        let all = audited.map(|entry| (entry, false)).chain(enforced);
        let asking = all.filter_map(|(entry, enforced)| Some((entry.jwt.as_ref()?, enforced)));
        asking.map(|(jwt, enforced)| (jwt.provider.name.as_str(), (&*jwt.provider, enforced))).collect()
    }

    /// Whom the port asks about requests, each once, in the order of the entries.
    pub fn externals(&self) -> Vec<&External> {
        let mut asked: Vec<&External> = Vec::new();
        if self.default.value == AccessDefault::Deny {
            for external in self.allow.iter().filter_map(|entry| entry.external.as_deref()) {
                if !asked.contains(&external) {
                    asked.push(external);
                }
            }
        }
        asked
    }

    /// Whether anybody may be refused, or an audit may say so.
    pub fn may_refuse(&self) -> bool {
        self.default.value == AccessDefault::Deny || !self.deny.is_empty() || self.audit.is_some()
    }

    /// Whether no rule says anything, and everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.default.value == AccessDefault::Allow && self.origins().next().is_none()
    }

    /// Every rule that it comes from.
    pub fn origins(&self) -> impl Iterator<Item = &RuleRef> {
        let audit = self.audit.iter();
        let defaults = [&self.default].into_iter().chain(audit.clone().map(|audit| &audit.default));
        let audited = audit.flat_map(|audit| audit.deny.iter().chain(&audit.allow));
        let entries = self.deny.iter().chain(&self.allow).chain(self.checks.as_deref()).chain(audited);
        entries.map(|entry| &entry.origin).chain(defaults.filter_map(|default| default.origin.as_ref()))
    }
}

// === impl Network ===

impl Network {
    /// `address` alone.
    pub fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }

    /// The same with an address that has no bits beyond the length.
    pub fn first(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(self.length.into())).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(self.length.into())).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Self { address, ..self }
    }

    /// Whether every address of `other` is one of these.
    pub fn contains(self, other: Self) -> bool {
        let same_family = self.address.is_ipv4() == other.address.is_ipv4();
        same_family && self.length <= other.length && Self { length: self.length, ..other }.first() == self.first()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Operation ===

impl Operation {
    /// Whether only requests can tell if it matches, connections cannot.
    pub fn is_http(&self) -> bool {
        let Self { methods, paths, hosts, headers, grpc } = self;
        !(methods.is_empty() && paths.is_empty() && hosts.is_empty() && headers.is_empty() && grpc.is_empty())
    }
}
