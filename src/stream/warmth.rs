//! What a cluster waits for before it takes requests, and a route before its listener does.
//!
//! Owns: what the endpoints of a cluster are called, whether anybody sees when it is warm, and by which name a route
//! hears that it has all that there is to wait for. May use: the encoded resources. Never: decodes more of them than that.

use std::time::Instant;

use prost::Message;
use prost::encoding::{WireType, encode_varint};
use translators::resource::{Kind, Name, Resource};

/// `envoy.config.cluster.v3.Cluster`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct Cluster {
    /// One of [`STATIC`], [`EDS`], and those that look for their endpoints themselves.
    #[prost(int32, optional, tag = "2")]
    discovery: Option<i32>,
    #[prost(message, optional, tag = "3")]
    eds_cluster_config: Option<EdsClusterConfig>,
    #[prost(message, repeated, tag = "8")]
    health_checks: Vec<Anything>,
    #[prost(message, optional, tag = "24")]
    transport_socket: Option<Anything>,
    #[prost(message, optional, tag = "38")]
    cluster_type: Option<Anything>,
    #[prost(message, repeated, tag = "43")]
    transport_socket_matches: Vec<Anything>,
}

/// A message of which only matters whether it is there.
#[derive(Clone, PartialEq, Message)]
struct Anything {}

const STATIC: i32 = 0;
const EDS: i32 = 3;

/// New clusters on a stream of their own. An aggregated stream accepts them when they are warm; this one at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warming {
    /// When they were sent.
    pub(super) at: Instant,
    /// They wait for these endpoints,
    pub(super) endpoints: Vec<Name>,
    /// and for something that no stream tells: names that they resolve, health, secrets.
    pub(super) unseen: bool,
}

impl Warming {
    /// The clusters that are new; `None` if there is none.
    pub(super) fn of<'a>(new: impl Iterator<Item = &'a Resource>, at: Instant) -> Option<Self> {
        let mut warming = None;
        for cluster in new {
            let warming = warming.get_or_insert(Self { at, endpoints: Vec::new(), unseen: false });
            let decoded = Cluster::decode(cluster.value())
                .unwrap_or_else(|_| Cluster { discovery: Some(EDS), ..Cluster::default() });
            let discovery = decoded.discovery.unwrap_or(STATIC);
            if discovery == EDS {
                warming.endpoints.push(endpoints_of(cluster));
            }
            warming.unseen |= ![STATIC, EDS].contains(&discovery)
                || decoded.cluster_type.is_some()
                || decoded.transport_socket.is_some()
                || !decoded.transport_socket_matches.is_empty()
                || !decoded.health_checks.is_empty();
        }
        warming
    }

    /// With those that were sent before.
    pub(super) fn with(mut self, before: &Self) -> Self {
        self.endpoints.extend(before.endpoints.iter().cloned());
        self.unseen |= before.unseen;
        self
    }
}

/// `envoy.config.cluster.v3.Cluster.EdsClusterConfig`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct EdsClusterConfig {
    #[prost(string, tag = "2")]
    service_name: String,
}

/// `envoy.config.route.v3.RouteConfiguration`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct RouteConfiguration {
    #[prost(message, optional, tag = "9")]
    vhds: Option<Vhds>,
}

/// `envoy.config.route.v3.Vhds`, of which nothing is looked at.
#[derive(Clone, PartialEq, Message)]
struct Vhds {}

/// What the endpoints of a cluster are called: as it is, unless it says otherwise.
pub(super) fn endpoints_of(cluster: &Resource) -> Name {
    let decoded = Cluster::decode(cluster.value()).ok();
    match decoded.and_then(|cluster| cluster.eds_cluster_config) {
        Some(eds) if !eds.service_name.is_empty() => eds.service_name.into(),
        _ => Name::clone(cluster.name()),
    }
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct Assignment {
    #[prost(message, repeated, tag = "2")]
    localities: Vec<Locality>,
}

/// `envoy.config.endpoint.v3.LocalityLbEndpoints`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct Locality {
    #[prost(message, repeated, tag = "2")]
    endpoints: Vec<Anything>,
    /// They are listed elsewhere,
    #[prost(message, optional, tag = "7")]
    list: Option<Anything>,
    /// or discovered by themselves.
    #[prost(message, optional, tag = "8")]
    leds: Option<Anything>,
}

/// Whether a load assignment leads nowhere.
pub(super) fn has_no_endpoints(assignment: &Resource) -> bool {
    let has_none =
        |locality: &Locality| locality.endpoints.is_empty() && locality.list.is_none() && locality.leds.is_none();
    Assignment::decode(assignment.value()).is_ok_and(|assignment| assignment.localities.iter().all(has_none))
}

/// Whether a field of it, wherever, says just this name: of a listener with its routes in it, or for bytes, the clusters
/// that it leads to.
pub(super) fn mentions(resource: &Resource, name: &Name) -> bool {
    // As it is encoded behind the number of its field, the last three bits of whose first byte say that a length follows.
    let mut field = Vec::with_capacity(name.len() + 2);
    encode_varint(name.len() as u64, &mut field);
    field.extend_from_slice(name.as_bytes());
    let value = resource.value();
    let says_length = |first: u8| first & 7 == WireType::LengthDelimited as u8;
    let mut found = value.windows(field.len()).enumerate().filter(|(_, window)| *window == field);
    found.any(|(at, _)| match value[..at] {
        [.., first, _] if first >= 0x80 => says_length(first),
        [.., first] => says_length(first),
        [] => false,
    })
}

/// The name, of no virtual host, whose removal tells a proxy that the route is not to wait for any; none if it does not.
/// Envoy asks for no name at first, and serves no listener of the route before it has heard anything of a virtual host
/// below it, or a timeout.
pub(super) fn nobody_of(route: &Resource) -> Option<Name> {
    if route.kind() != Kind::Route {
        return None;
    }
    RouteConfiguration::decode(route.value()).ok()?.vhds?;
    Some(format!("{}/", route.name()).into())
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::cluster::v3 as cluster_pb;
    use proto::envoy::config::route::v3 as route_pb;

    use super::*;

    #[test]
    fn what_a_new_cluster_waits_for_is_told_by_its_stream_or_unseen() {
        use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType};
        let cluster = |discovery: Option<DiscoveryType>, change: fn(&mut cluster_pb::Cluster)| {
            let discovery = discovery.map(|discovery| ClusterDiscoveryType::Type(discovery.into()));
            let mut cluster =
                cluster_pb::Cluster { name: "c".into(), cluster_discovery_type: discovery, ..Default::default() };
            change(&mut cluster);
            let at = Instant::now();
            let cluster = Resource::new(Kind::Cluster, "c", &cluster, []);
            let warming = Warming::of([&cluster].into_iter(), at).expect("one is new");
            assert_eq!(warming.clone().with(&warming).at, at);
            (warming.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(), warming.unseen)
        };
        let nothing: fn(&mut cluster_pb::Cluster) = |_| {};
        assert_eq!(cluster(None, nothing), (vec![], false));
        assert_eq!(cluster(Some(DiscoveryType::Static), nothing), (vec![], false));
        assert_eq!(cluster(Some(DiscoveryType::Eds), nothing), (vec!["c".to_owned()], false));
        for discovery in [DiscoveryType::StrictDns, DiscoveryType::LogicalDns] {
            assert_eq!(cluster(Some(discovery), nothing), (vec![], true));
        }
        for change in [
            (|cluster| cluster.transport_socket = Some(Default::default())) as fn(&mut cluster_pb::Cluster),
            |cluster| cluster.transport_socket_matches = vec![Default::default()],
            |cluster| cluster.health_checks = vec![Default::default()],
        ] {
            assert_eq!(cluster(Some(DiscoveryType::Eds), change), (vec!["c".to_owned()], true));
        }
        let other = ClusterDiscoveryType::ClusterType(Default::default());
        let other = cluster_pb::Cluster { cluster_discovery_type: Some(other), ..Default::default() };
        let other = Resource::new(Kind::Cluster, "c", &other, []);
        assert!(Warming::of([&other].into_iter(), Instant::now()).expect("one is new").unseen);
        assert_eq!(Warming::of(std::iter::empty(), Instant::now()), None);
    }

    #[test]
    fn endpoints_are_called_as_the_cluster_says() {
        let called = |service_name: Option<&str>| {
            let eds = service_name.map(|name| cluster_pb::cluster::EdsClusterConfig {
                service_name: name.to_owned(),
                ..Default::default()
            });
            let cluster = cluster_pb::Cluster {
                name: "c".to_owned(),
                alt_stat_name: "other".to_owned(),
                eds_cluster_config: eds,
                ..Default::default()
            };
            endpoints_of(&Resource::new(Kind::Cluster, "c", &cluster, []))
        };
        assert_eq!([None, Some(""), Some("e")].map(called).map(|name| name.to_string()), ["c", "c", "e"]);
        let broken = Resource::from_bytes(Kind::Cluster, "c".into(), b"no message", [].into());
        assert_eq!(&*endpoints_of(&broken), "c");
    }

    #[test]
    fn a_listener_mentions_the_clusters_that_it_leads_to() {
        use proto::envoy::config::listener::v3 as listener_pb;
        let long = "a/very/long/name/".repeat(20);
        let listener = listener_pb::Listener {
            name: "in/xy".to_owned(),
            stat_prefix: long.clone(),
            default_filter_chain: Some(listener_pb::FilterChain { name: "x".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let listener = Resource::new(Kind::Listener, "in/xy", &listener, []);
        let mentioned = ["x", "in/xy", &long, "y", "xy", "in/x", ""].map(|name| mentions(&listener, &name.into()));
        assert_eq!(mentioned, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn a_route_waits_if_its_virtual_hosts_are_discovered() {
        let nobody = |vhds: Option<route_pb::Vhds>| {
            let route = route_pb::RouteConfiguration { name: "r".to_owned(), vhds, ..Default::default() };
            nobody_of(&Resource::new(Kind::Route, "r", &route, []))
        };
        assert_eq!(nobody(None), None);
        assert_eq!(nobody(Some(route_pb::Vhds::default())).as_deref(), Some("r/"));
        assert_eq!(nobody_of(&Resource::from_bytes(Kind::Route, "r".into(), b"no message", [].into())), None);
    }
}
