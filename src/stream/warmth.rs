//! What a cluster waits for before it takes requests, and a route before its listener does.
//!
//! Owns: what the endpoints of a cluster are called, and by which name a route hears that it has all that there is to
//! wait for. May use: the encoded resources. Never: decodes more of them than that.

use prost::Message;
use translators::resource::{Kind, Name, Resource};

/// `envoy.config.cluster.v3.Cluster`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct Cluster {
    #[prost(message, optional, tag = "3")]
    eds_cluster_config: Option<EdsClusterConfig>,
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
