//! Names: namespaces, qualified names, objects of the rule language, SPIFFE ids.
//!
//! Owns: what a valid name is and how it is written. May use: nothing of this crate. Never: looks a name up.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9`, `-`, not starting or ending with `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

/// Why a text is no DNS label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a DNS label: 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit")]
pub struct InvalidLabel(pub String);

// === impl Label ===

impl Label {
    /// The text of the label.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label before which no other comes.
    pub(crate) fn first() -> Self {
        static FIRST: LazyLock<Label> = LazyLock::new(|| Label("0".into()));
        FIRST.clone()
    }
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let valid =
            (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
        if valid { Ok(Self(text.into())) } else { Err(InvalidLabel(text.to_owned())) }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// `namespace/name`: what a service, a workload or any other object is called.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// The namespace.
    pub namespace: Label,
    /// The name within it.
    pub name: Label,
}

// === impl QualifiedName ===

impl QualifiedName {
    /// The name `name` in `namespace`.
    pub fn new(namespace: Label, name: Label) -> Self {
        Self { namespace, name }
    }

    /// The name before which no other of `namespace` comes.
    pub fn first_of(namespace: &Label) -> Self {
        Self::new(namespace.clone(), Label::first())
    }

    /// Reads `ns/name`, or `name` alone in the namespace `home`.
    pub fn relative(text: &str, home: &Label) -> Result<Self, InvalidLabel> {
        match text.split_once('/') {
            Some((namespace, name)) => Ok(Self::new(namespace.parse()?, name.parse()?)),
            None => Ok(Self::new(home.clone(), text.parse()?)),
        }
    }
}

impl FromStr for QualifiedName {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| InvalidLabel(text.to_owned()))?;
        Ok(Self::new(namespace.parse()?, name.parse()?))
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The kinds of the rule language that exist today, in the order in which listings show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    /// Mesh-wide settings; one object, `mesh-system/default`.
    Mesh,
    /// A service: ports and endpoints.
    MeshService,
    /// Proxies that are alike: what they serve and call.
    Workload,
    /// Where traffic from outside of the mesh comes in.
    EdgeGateway,
    /// What a gateway shows of itself.
    TLSCertificate,
    /// Envoy's own resources, as somebody wrote them.
    EnvoySnapshot,
    /// How requests to a service are routed.
    TrafficRoute,
    /// How the calls to services are made.
    TrafficPolicy,
    /// Whether a port takes mTLS, plaintext or both.
    MTLSPolicy,
    /// Who may call what.
    AccessPolicy,
    /// What proxies say of requests.
    TelemetryPolicy,
    /// What somebody changes in what Envoys get.
    EnvoyPatch,
}

// === impl ObjectKind ===

impl ObjectKind {
    /// Every kind, in listing order.
    pub const ALL: [Self; 12] = [
        Self::Mesh,
        Self::MeshService,
        Self::Workload,
        Self::EdgeGateway,
        Self::TLSCertificate,
        Self::EnvoySnapshot,
        Self::TrafficRoute,
        Self::TrafficPolicy,
        Self::MTLSPolicy,
        Self::AccessPolicy,
        Self::TelemetryPolicy,
        Self::EnvoyPatch,
    ];

    /// The kind as it is written in a document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::MeshService => "MeshService",
            Self::Workload => "Workload",
            Self::EdgeGateway => "EdgeGateway",
            Self::TLSCertificate => "TLSCertificate",
            Self::EnvoySnapshot => "EnvoySnapshot",
            Self::TrafficRoute => "TrafficRoute",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::MTLSPolicy => "MTLSPolicy",
            Self::AccessPolicy => "AccessPolicy",
            Self::TelemetryPolicy => "TelemetryPolicy",
            Self::EnvoyPatch => "EnvoyPatch",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One object of the rule language: `TrafficRoute shop/cart`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace and name.
    pub name: QualifiedName,
}

// === impl ObjectKey ===

impl ObjectKey {
    /// The object of `kind` called `name`.
    pub fn new(kind: ObjectKind, name: QualifiedName) -> Self {
        Self { kind, name }
    }

    /// The key before which no other comes.
    pub fn first() -> Self {
        Self::new(ObjectKind::Mesh, QualifiedName::first_of(&Label::first()))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Whose configuration a proxy receives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// It is an instance of this Workload.
    Workload(QualifiedName),
    /// It is a node that this EnvoySnapshot matches.
    Snapshot(QualifiedName),
}

// === impl Owner ===

impl Owner {
    /// The workload, where it is one.
    pub fn workload(&self) -> Option<&QualifiedName> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Snapshot(_) => None,
        }
    }
}

/// A workload by its name alone, an EnvoySnapshot with its kind.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => workload.fmt(f),
            Self::Snapshot(name) => write!(f, "{} {name}", ObjectKind::EnvoySnapshot),
        }
    }
}

/// A place in an object, as a JSON pointer (RFC 6901): the origin of a value or of a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleRef {
    /// The object.
    pub object: ObjectKey,
    /// The place in it, such as `/spec/http/0/to/1/weight`; empty for the whole object.
    pub pointer: String,
}

// === impl RuleRef ===

impl RuleRef {
    /// The place `pointer` in `object`.
    pub fn new(object: ObjectKey, pointer: impl Into<String>) -> Self {
        Self { object, pointer: pointer.into() }
    }

    /// The member `name` of this place.
    pub fn member(&self, name: &str) -> Self {
        Self { object: self.object.clone(), pointer: format!("{}/{name}", self.pointer) }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.object, if self.pointer.is_empty() { "" } else { " " }, self.pointer)
    }
}

impl fmt::Debug for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A SPIFFE trust domain: 1 to 255 of `a-z`, `0-9`, `.`, `-`, `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE id: `spiffe://<trust domain>/<path>`, at most 2,048 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Why a text is no SPIFFE trust domain or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffe {
    /// Not a trust domain.
    #[error("{0:?} is not a trust domain: 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain(String),
    /// Not a SPIFFE id.
    #[error("{0:?} is not a SPIFFE id: spiffe://<trust domain>/<path of a-z, A-Z, 0-9, '.', '-', '_' segments>")]
    Id(String),
}

// === impl TrustDomain ===

impl TrustDomain {
    /// The trust domain of a mesh that names none.
    pub fn built_in() -> Self {
        Self("cluster.local".into())
    }

    /// The text of the trust domain.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffe;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=255).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c));
        if valid { Ok(Self(text.into())) } else { Err(InvalidSpiffe::TrustDomain(text.to_owned())) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

// === impl SpiffeId ===

impl SpiffeId {
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`; the account is a path segment.
    pub fn of_account(trust_domain: &TrustDomain, namespace: &Label, account: &str) -> Result<Self, InvalidSpiffe> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").parse()
    }

    /// The identity that a workload has unless it names one.
    pub fn of_workload(trust_domain: &TrustDomain, workload: &QualifiedName) -> Self {
        let (namespace, name) = (workload.namespace.as_str(), workload.name.as_str());
        Self(["spiffe://", trust_domain.as_str(), "/ns/", namespace, "/sa/", name].concat().into())
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain that the id belongs to.
    pub fn trust_domain(&self) -> &str {
        self.0.trim_start_matches("spiffe://").split('/').next().unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffe;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpiffe::Id(text.to_owned());
        let (domain, path) =
            text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or_else(invalid)?;
        domain.parse::<TrustDomain>().map_err(|_| invalid())?;
        let segment = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c))
        };
        if text.len() <= 2048 && path.split('/').all(segment) { Ok(Self(text.into())) } else { Err(invalid()) }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Every name is written and read as its text.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
    (read $($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(Label, QualifiedName, ObjectKey, Owner, TrustDomain, SpiffeId);
as_text!(read Label, QualifiedName, TrustDomain, SpiffeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dns_labels() {
        for valid in ["a", "cart-v1", "0", &"a".repeat(63)] {
            assert_eq!(valid.parse::<Label>().map(|l| l.to_string()), Ok(valid.to_owned()));
        }
        for invalid in ["", "-a", "a-", "A", "a.b", "a/b", "ä", &"a".repeat(64)] {
            assert_eq!(invalid.parse::<Label>(), Err(InvalidLabel(invalid.to_owned())));
        }
    }

    #[test]
    fn spiffe_ids_follow_the_standard() {
        let id: SpiffeId = "spiffe://shop.example/ns/shop/sa/cart".parse().expect("valid");
        assert_eq!(id.trust_domain(), "shop.example");
        for invalid in [
            "spiffe://shop.example",
            "spiffe://Shop/x",
            "spiffe://s/a//b",
            "spiffe://s/a/",
            "spiffe://s/..",
            "https://s/a",
            "spiffe://s/a%20b",
        ] {
            assert_eq!(invalid.parse::<SpiffeId>(), Err(InvalidSpiffe::Id(invalid.to_owned())));
        }
    }
}
