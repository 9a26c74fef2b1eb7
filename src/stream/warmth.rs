//! What a cluster waits for before it takes requests.
//!
//! Owns: what the endpoints of a cluster are called. May use: the encoded cluster. Never: decodes more of it than that.

use prost::Message;
use translators::resource::{Name, Resource};

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

/// What the endpoints of a cluster are called: as it is, unless it says otherwise.
pub(super) fn endpoints_of(cluster: &Resource) -> Name {
    let decoded = Cluster::decode(cluster.value()).ok();
    match decoded.and_then(|cluster| cluster.eds_cluster_config) {
        Some(eds) if !eds.service_name.is_empty() => eds.service_name.into(),
        _ => Name::clone(cluster.name()),
    }
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::cluster::v3 as cluster_pb;
    use translators::resource::Kind;

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
}
