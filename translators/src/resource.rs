//! Resources: what a proxy is sent, serialized once.
//!
//! Owns: kinds in make-before-break order, names, content versions, and the one encoding of a resource that
//! every stream shares. May use: `name`,
//! `xdstp`, prost. Never: knows what a resource means.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::wire;
use serde::{Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_128;

use crate::name::RuleRef;
use crate::xdstp;

/// The types of resource, declared in the order in which they are pushed: whatever is referred to comes
/// before what refers to it. Removals go last, in the opposite order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// RTDS: `envoy.service.runtime.v3.Runtime`. An Envoy that has some asks for nothing else before.
    Runtime,
    /// SDS: `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
    /// CDS: `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// EDS: `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// LEDS: `envoy.config.endpoint.v3.LbEndpoint`, incremental only.
    LocalityEndpoint,
    /// LDS: `envoy.config.listener.v3.Listener`.
    Listener,
    /// ECDS: `envoy.config.core.v3.TypedExtensionConfig`.
    ExtensionConfig,
    /// SRDS: `envoy.config.route.v3.ScopedRouteConfiguration`.
    ScopedRoute,
    /// RDS: `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// VHDS: `envoy.config.route.v3.VirtualHost`, incremental only.
    VirtualHost,
}

// === impl Kind ===

impl Kind {
    /// Every kind, in push order.
    pub const ALL: [Self; 10] = [
        Self::Runtime,
        Self::Secret,
        Self::Cluster,
        Self::Endpoints,
        Self::LocalityEndpoint,
        Self::Listener,
        Self::ExtensionConfig,
        Self::ScopedRoute,
        Self::Route,
        Self::VirtualHost,
    ];

    /// The type URL on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
            Self::LocalityEndpoint => "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::ScopedRoute => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// The kind with this type URL, if we serve it.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Whether a response in the state-of-the-world protocol is the full set (what is missing is deleted),
    /// and an empty first subscription means everything.
    pub fn is_full_state(self) -> bool {
        match self {
            Self::Cluster | Self::Listener | Self::ScopedRoute => true,
            Self::Runtime
            | Self::Secret
            | Self::Endpoints
            | Self::LocalityEndpoint
            | Self::ExtensionConfig
            | Self::Route
            | Self::VirtualHost => false,
        }
    }

    /// Whether only the incremental protocol serves it.
    pub fn is_incremental(self) -> bool {
        matches!(self, Self::LocalityEndpoint | Self::VirtualHost)
    }

    /// The short name that operators know: `CDS`, `EDS`, ...
    pub fn service(self) -> &'static str {
        match self {
            Self::Secret => "SDS",
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::Runtime => "RTDS",
            Self::LocalityEndpoint => "LEDS",
            Self::ExtensionConfig => "ECDS",
            Self::ScopedRoute => "SRDS",
            Self::VirtualHost => "VHDS",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service())
    }
}

/// The name of a resource; unique within its kind and group of proxies.
pub type Name = Arc<str>;

/// A content version: the same bytes have the same version, on every replica and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u128);

// === impl Version ===

impl Version {
    /// The version of no content.
    pub const EMPTY: Self = Self(0);

    /// The version of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes))
    }

    /// The version of a set with one element more: order does not matter, and [`Self::without`] undoes it.
    #[must_use]
    pub fn with(self, element: Self) -> Self {
        Self(self.0.wrapping_add(element.0))
    }

    /// The version of a set with one element less.
    #[must_use]
    pub fn without(self, element: Self) -> Self {
        Self(self.0.wrapping_sub(element.0))
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |at: usize| b"0123456789abcdef"[(self.0 >> (4 * (31 - at))) as usize & 0xf];
        let digits: [u8; 32] = std::array::from_fn(digit);
        f.write_str(std::str::from_utf8(&digits).expect("digits are text"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One resource, encoded once. Cloning shares the bytes.
///
/// In both protocols field 2 of a response holds the resources, and field 2 of the delta wrapper holds the
/// body. The wrapper is written with its body last, so the entry of a state-of-the-world response is the
/// tail of the entry of a delta response: one encoding serves both.
#[derive(Clone)]
pub struct Resource {
    kind: Kind,
    name: Name,
    version: Version,
    delta_entry: Bytes,
    body_at: usize,
    value_at: usize,
    origins: Arc<[RuleRef]>,
    /// Most have none.
    extra: Option<Arc<Extra>>,
}

/// What few resources have.
#[derive(Clone, Default, PartialEq, Eq)]
struct Extra {
    aliases: Vec<Name>,
    ttl: Option<Duration>,
    holds_key: bool,
}

// === impl Resource ===

impl Resource {
    /// Encodes `message` (of the type that `kind` names) under `name`; `origins` are the rules that made it.
    pub fn new(kind: Kind, name: impl Into<Name>, message: &impl Message, origins: impl Into<Arc<[RuleRef]>>) -> Self {
        Self::from_bytes(kind, name.into(), &message.encode_to_vec(), origins.into())
    }

    /// The resource whose encoded message is `value`.
    pub fn from_bytes(kind: Kind, name: Name, value: &[u8], origins: Arc<[RuleRef]>) -> Self {
        let name = normalised(name);
        // The version covers the name too: a set of resources is told apart by the sum of its versions.
        let mut hashed = Vec::with_capacity(name.len() + 1 + value.len());
        hashed.extend_from_slice(name.as_bytes());
        hashed.push(0);
        hashed.extend_from_slice(value);
        let version = Version::of(&hashed);

        Self { kind, name, version, delta_entry: Bytes::new(), body_at: 0, value_at: 0, origins, extra: None }
            .encoded(value)
    }

    /// The same under other names too: it is found by them, and says so in the incremental protocol.
    #[must_use]
    pub fn aliased(self, aliases: impl IntoIterator<Item = Name>) -> Self {
        let aliases = aliases.into_iter().map(normalised).collect();
        let extra = Extra { aliases, ttl: self.ttl(), holds_key: self.holds_key() };
        self.with(extra)
    }

    /// The same for so long only, unless it is said again that it lives.
    #[must_use]
    pub fn living(self, ttl: Duration) -> Self {
        let extra = Extra { aliases: self.aliases().to_vec(), ttl: Some(ttl), holds_key: self.holds_key() };
        self.with(extra)
    }

    /// The same, known to have something secret in it, such as a private key.
    #[must_use]
    pub fn holding_key(mut self) -> Self {
        let extra = Extra { aliases: self.aliases().to_vec(), ttl: self.ttl(), holds_key: true };
        self.extra = Some(Arc::new(extra));
        self
    }

    fn with(mut self, extra: Extra) -> Self {
        let value = self.value();
        let bare = Self::from_bytes(self.kind, Name::clone(&self.name), &value, Arc::clone(&self.origins));
        if extra.aliases.is_empty() && extra.ttl.is_none() {
            return if extra.holds_key { bare.holding_key() } else { bare };
        }
        // The version covers these too.
        let mut hashed = bare.version.0.to_be_bytes().to_vec();
        for alias in &extra.aliases {
            hashed.extend_from_slice(alias.as_bytes());
            hashed.push(0);
        }
        hashed.extend(extra.ttl.iter().flat_map(|ttl| ttl.as_nanos().to_be_bytes()));
        self.version = Version::of(&hashed);
        self.extra = Some(Arc::new(extra));
        self.encoded(&value)
    }

    /// With its entry written.
    fn encoded(mut self, value: &[u8]) -> Self {
        let head = self.head();
        let url = self.kind.type_url();
        let any_len = field_len(1, url.len()) + field_len(2, value.len());
        let wrapper_len = head.encoded_len() + field_len(2, any_len);
        let mut entry = BytesMut::with_capacity(field_len(2, wrapper_len));
        put_field_head(&mut entry, 2, wrapper_len);
        head.encode(&mut entry).expect("the buffer grows");
        self.body_at = entry.len();
        put_field_head(&mut entry, 2, any_len);
        put_field_head(&mut entry, 1, url.len());
        entry.put_slice(url.as_bytes());
        put_field_head(&mut entry, 2, value.len());
        self.value_at = entry.len();
        entry.put_slice(value);
        self.delta_entry = entry.freeze();
        self
    }

    /// The delta wrapper without a body.
    fn head(&self) -> wire::ResourceHead {
        let ttl = self.ttl().map(|ttl| wire::Duration {
            seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or(i32::MAX),
        });
        wire::ResourceHead {
            version: self.version.to_string(),
            name: self.name.to_string(),
            aliases: self.aliases().iter().map(ToString::to_string).collect(),
            ttl,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its content version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The rules that made it.
    pub fn origins(&self) -> &Arc<[RuleRef]> {
        &self.origins
    }

    /// The other names that it goes by.
    pub fn aliases(&self) -> &[Name] {
        self.extra.as_ref().map_or(&[], |extra| &extra.aliases)
    }

    /// How long it lives after it was last said that it does; `None` for ever.
    pub fn ttl(&self) -> Option<Duration> {
        self.extra.as_ref().and_then(|extra| extra.ttl)
    }

    /// Whether something secret is in it, which is for nobody but its proxies.
    pub fn holds_key(&self) -> bool {
        self.kind == Kind::Secret || self.extra.as_ref().is_some_and(|extra| extra.holds_key)
    }

    /// The encoded message itself.
    pub fn value(&self) -> Bytes {
        self.delta_entry.slice(self.value_at..)
    }

    /// Field 2 of a `DeltaDiscoveryResponse`: tag, length and wrapper.
    pub fn delta_entry(&self) -> Bytes {
        self.delta_entry.clone()
    }

    /// Field 2 of a `DiscoveryResponse`: tag, length and `Any`; the same memory as the delta entry.
    pub fn sotw_entry(&self) -> Bytes {
        self.delta_entry.slice(self.body_at..)
    }

    /// The delta entry without a body: it says that the resource still lives.
    pub fn delta_heartbeat(&self) -> Bytes {
        let head = self.head();
        let mut entry = BytesMut::with_capacity(field_len(2, head.encoded_len()));
        put_field_head(&mut entry, 2, head.encoded_len());
        head.encode(&mut entry).expect("the buffer grows");
        entry.freeze()
    }

    /// The state-of-the-world entry with the delta wrapper in its `Any`, which has room for a time to live.
    pub fn sotw_wrapped(&self) -> Bytes {
        wrapped(&self.delta_entry)
    }

    /// The same without a body: it says that the resource still lives.
    pub fn sotw_heartbeat(&self) -> Bytes {
        wrapped(&self.delta_heartbeat())
    }
}

/// Equal content and origin; the bytes follow from the version.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.name == other.name
            && self.version == other.version
            && self.origins == other.origins
    }
}

impl Eq for Resource {}

/// Shows no content: it may be a private key.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind, self.name, self.version)
    }
}

fn normalised(name: Name) -> Name {
    match xdstp::normalised(&name) {
        Cow::Borrowed(_) => name,
        Cow::Owned(other) => other.into(),
    }
}

/// The wrapper of a delta entry as the `Any` of a state-of-the-world entry.
fn wrapped(delta_entry: &[u8]) -> Bytes {
    const URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";
    // The delta entry is field 2 of its response, and so is the value of an `Any`.
    let any_len = field_len(1, URL.len()) + delta_entry.len();
    let mut entry = BytesMut::with_capacity(field_len(2, any_len));
    put_field_head(&mut entry, 2, any_len);
    put_field_head(&mut entry, 1, URL.len());
    entry.put_slice(URL.as_bytes());
    entry.put_slice(delta_entry);
    entry.freeze()
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn put_field_head(buffer: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::envoy::config::endpoint::v3 as endpoint_pb;
    use proto::envoy::service::discovery::v3 as discovery_pb;

    #[test]
    fn one_encoding_is_an_entry_of_both_protocols() {
        let assignment =
            endpoint_pb::ClusterLoadAssignment { cluster_name: "out/shop/cart/http".into(), ..Default::default() };
        let resource = Resource::new(Kind::Endpoints, "out/shop/cart/http", &assignment, []);

        let delta = discovery_pb::DeltaDiscoveryResponse::decode(resource.delta_entry()).expect("decodes");
        let wrapper = delta.resources.first().expect("one resource");
        let any = wrapper.resource.clone().expect("a body");
        assert_eq!(wrapper.name, "out/shop/cart/http");
        assert_eq!(wrapper.version, resource.version().to_string());
        assert_eq!(any.type_url, Kind::Endpoints.type_url());
        assert_eq!(any.value, assignment.encode_to_vec());
        assert_eq!(any.value, resource.value());

        let sotw = discovery_pb::DiscoveryResponse::decode(resource.sotw_entry()).expect("decodes");
        assert_eq!(sotw.resources, vec![any]);
        assert_eq!(resource.sotw_entry().as_ptr(), resource.delta_entry()[resource.body_at..].as_ptr());
    }

    #[test]
    fn aliases_and_a_time_to_live_are_part_of_the_version_and_of_the_entry() {
        let bare = Resource::from_bytes(Kind::VirtualHost, "r/v".into(), b"body", [].into());
        let aliased = bare.clone().aliased(["r/a".into(), "r/b".into()]);
        let both = aliased.clone().living(Duration::from_millis(2_500));
        let versions =
            [&bare, &aliased, &both, &bare.clone().aliased(["r/b".into(), "r/a".into()])].map(|r| r.version());
        assert_eq!(versions.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{versions:?}");
        assert_eq!(both, bare.clone().living(Duration::from_millis(2_500)).aliased(["r/a".into(), "r/b".into()]));
        assert_eq!(bare.clone().aliased([]), bare);
        assert_eq!(
            (both.aliases(), both.ttl()),
            (&["r/a".into(), "r/b".into()][..], Some(Duration::from_millis(2_500)))
        );
        assert_eq!((bare.aliases(), bare.ttl()), (&[][..], None));

        let decode = |entry: Bytes| discovery_pb::DeltaDiscoveryResponse::decode(entry).expect("decodes").resources;
        let written = decode(both.delta_entry()).remove(0);
        assert_eq!(written.aliases, ["r/a", "r/b"]);
        let ttl = written.ttl.as_ref().expect("it lives for a time");
        assert_eq!((ttl.seconds, ttl.nanos), (2, 500_000_000));
        assert_eq!(written.resource.as_ref().expect("a body").value, both.value());
        let beat = decode(both.delta_heartbeat()).remove(0);
        assert_eq!(beat, discovery_pb::Resource { resource: None, ..written.clone() });

        for (entry, expected) in [(both.sotw_wrapped(), written), (both.sotw_heartbeat(), beat)] {
            let response = discovery_pb::DiscoveryResponse::decode(entry).expect("decodes");
            let [any] = &response.resources[..] else { panic!("one resource") };
            assert_eq!(any.type_url, "type.googleapis.com/envoy.service.discovery.v3.Resource");
            assert_eq!(discovery_pb::Resource::decode(&any.value[..]).expect("decodes"), expected);
        }
    }

    #[test]
    fn a_version_is_shown_in_full() {
        for number in [0, 1, 0xf0, u128::MAX, 0x0123_4567_89ab_cdef_0000_0000_dead_beef] {
            assert_eq!(Version(number).to_string(), format!("{number:032x}"));
        }
    }

    #[test]
    fn a_set_version_ignores_order_and_undoes_removal() {
        let (a, b) = (Version::of(b"a"), Version::of(b"b"));
        assert_eq!(Version::EMPTY.with(a).with(b), Version::EMPTY.with(b).with(a));
        assert_eq!(Version::EMPTY.with(a).with(b).without(a), Version::EMPTY.with(b));
    }
}
