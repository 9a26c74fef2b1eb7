//! Clusters of servers outside of the mesh, at a host and a port.
//!
//! Owns: how such a host is found. May use: `tls`, `cluster`. Never: an endpoint of the mesh.

use std::time::Duration;

use proto::envoy::config::cluster::v3 as cluster_pb;

use super::{cluster, endpoint, tls, wire};
use crate::mesh::{Authorities, Originate, Protocol, TlsVersion};

/// A server.
pub(super) struct Server<'a> {
    /// A name, or an address without brackets.
    pub(super) host: &'a str,
    /// The port.
    pub(super) port: u16,
    /// Who vouches for it, by TLS; `None` is without.
    pub(super) tls: Option<&'a Authorities>,
}

/// The cluster `name` of a server.
pub(super) fn cluster(name: &str, server: &Server<'_>, protocol: Protocol, connect: Duration) -> cluster_pb::Cluster {
    let Server { host, port, tls } = *server;
    let alpn: &[&str] = match protocol {
        Protocol::Http2 | Protocol::Grpc => &["h2"],
        Protocol::Http | Protocol::Tcp | Protocol::Tls => &[],
    };
    cluster_pb::Cluster {
        cluster_discovery_type: Some(cluster_pb::cluster::ClusterDiscoveryType::Type(
            cluster_pb::cluster::DiscoveryType::StrictDns.into(),
        )),
        dns_lookup_family: cluster_pb::cluster::DnsLookupFamily::V4Preferred.into(),
        load_assignment: Some(endpoint::only(name, wire::host_and_port(host.to_owned(), port))),
        transport_socket: tls.map(|by| tls::outside(&vouched(host, by), alpn)),
        ..cluster::base(name.to_owned(), protocol, connect)
    }
}

fn vouched(host: &str, by: &Authorities) -> Originate {
    Originate { name: host.to_owned(), authorities: by.clone(), oldest: TlsVersion::V12 }
}
