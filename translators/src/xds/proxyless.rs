//! gRPC clients without a proxy: what a service is dialled by, and how its endpoints are reached.
//!
//! Owns: the listeners and clusters of such clients, and what they need. May use: `endpoint`, `tls`, `mesh`. Never:
//! plaintext towards a strict port, or anything that these clients refuse.

mod route;

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::extensions::filters::http::router::v3 as router_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use super::{Audience, Client, Part, cluster, cluster_name, endpoint, http, origins, plan, planned_port};
use super::{route_name, tls, wire};
use crate::mesh::{
    Backing, Call, Consumer, Destination, Instances, Mesh, MtlsMode, Port, Protocol, Senders, Service, Vantage,
};
use crate::name::QualifiedName;
use crate::resource::{Kind, Name, Resource};

/// The certificate provider of a client's bootstrap that has the workload's certificate and the mesh's roots.
pub const CERTIFICATES: &str = "default";

/// One resource of gRPC clients without a proxy. They have the names of the resources of proxies, which say the same
/// in another way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proxyless {
    /// What is dialled: `cart.shop`, or `cart.shop:8080`.
    Listener {
        /// The service.
        service: QualifiedName,
        /// The name of its port.
        port: String,
        /// The number of the port, where that is dialled.
        number: Option<NonZeroU16>,
        /// Which callers.
        consumer: Consumer,
    },
    /// How clients route the requests to a port.
    Route {
        /// The service.
        service: QualifiedName,
        /// The name of its port.
        port: String,
        /// Which callers.
        consumer: Consumer,
        /// Who they are, where rules tell them apart.
        senders: Senders,
    },
    /// How clients reach a destination.
    Cluster {
        /// The destination.
        to: Destination,
        /// As in [`Client::Grpc`].
        certificates: bool,
    },
    /// Where a destination is, as [`super::ResourceKey::Endpoints`].
    Endpoints(Destination, Option<Arc<Vantage>>),
}

/// What one entry of `calls` adds to what these `clients` need: nothing where the port carries no gRPC. `is_only`
/// says that the workload calls no other port of the service.
pub(super) fn contribution(
    mesh: &Mesh,
    call: &Call,
    port: &Port,
    (consumer, senders): (&Consumer, &Senders),
    is_only: bool,
    leads_to: impl Iterator<Item = (Destination, Option<Arc<Vantage>>)>,
    clients: &BTreeSet<Client>,
) -> impl Iterator<Item = Proxyless> {
    let mut keys = Vec::new();
    if carries_grpc(port.protocol) {
        let of_service = mesh.services.get(&call.service).into_iter().flat_map(|service| &service.ports);
        let is_only = is_only || of_service.filter(|port| carries_grpc(port.protocol)).count() == 1;
        let (service, name) = (call.service.clone(), port.name.clone());
        for number in is_only.then_some(None).into_iter().chain([Some(port.number)]) {
            let (service, port, consumer) = (service.clone(), name.clone(), consumer.clone());
            keys.push(Proxyless::Listener { service, port, number, consumer });
        }
        let (consumer, senders) = (consumer.clone(), senders.clone());
        keys.push(Proxyless::Route { service, port: name, consumer, senders });
        for (to, from) in leads_to {
            let certificates = clients.iter().filter_map(|client| client.certificates());
            keys.extend(certificates.map(|certificates| Proxyless::Cluster { to: to.clone(), certificates }));
            keys.push(Proxyless::Endpoints(to, from));
        }
    }
    keys.into_iter()
}

/// Whether gRPC can be spoken on a port: an application of HTTP/1 cannot.
pub(super) fn carries_grpc(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http | Protocol::Tcp | Protocol::Tls => false,
    }
}

// === impl Proxyless ===

impl Proxyless {
    pub(super) fn build(&self, mesh: &Mesh, instances: &Instances) -> Resource {
        match self {
            Self::Listener { service, port, consumer, .. } => self.listener(mesh, service, port, consumer),
            Self::Route { service, port, consumer, senders } => {
                route::configuration(mesh, service, port, (consumer, senders))
            }
            Self::Cluster { to, certificates } => reached(mesh, to, *certificates),
            Self::Endpoints(to, from) => {
                endpoint::endpoints(mesh, to, from.as_deref(), instances, Client::Grpc { certificates: false })
            }
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Listener { .. } => Kind::Listener,
            Self::Route { .. } => Kind::Route,
            Self::Cluster { .. } => Kind::Cluster,
            Self::Endpoints(..) => Kind::Endpoints,
        }
    }

    pub(super) fn name(&self) -> Name {
        match self {
            Self::Listener { service, number: None, .. } => format!("{}.{}", service.name, service.namespace).into(),
            Self::Listener { service, number: Some(number), .. } => {
                format!("{}.{}:{number}", service.name, service.namespace).into()
            }
            Self::Route { service, port, consumer, .. } => route_name(service, port, consumer).into(),
            Self::Cluster { to, .. } | Self::Endpoints(to, _) => cluster_name(to).into(),
        }
    }

    pub(super) fn audience(&self) -> Audience {
        match self {
            Self::Listener { .. } | Self::Route { .. } | Self::Endpoints(..) => Audience::Proxyless,
            Self::Cluster { certificates, .. } => Audience::Grpc { certificates: *certificates },
        }
    }

    pub(super) fn service(&self) -> &QualifiedName {
        match self {
            Self::Listener { service, .. } | Self::Route { service, .. } => service,
            Self::Cluster { to, .. } | Self::Endpoints(to, _) => &to.service,
        }
    }

    pub(super) fn part(&self) -> Part {
        match self {
            Self::Listener { .. } => Part::Outbound,
            Self::Route { .. } => Part::Route,
            Self::Cluster { .. } => Part::Cluster,
            Self::Endpoints(..) => Part::Endpoints,
        }
    }

    /// As [`plan::reads_alike`].
    pub(super) fn reads_alike(&self, former: &Service, next: &Service) -> bool {
        match self {
            Self::Listener { port, .. } => plan::ports(former, next, port).is_some() && former.origin == next.origin,
            Self::Route { port, consumer, .. } => plan::ports(former, next, port).is_some_and(|(a, b)| {
                (&former.origin, a.routes.get(consumer)) == (&next.origin, b.routes.get(consumer))
            }),
            Self::Cluster { to, .. } => {
                let secured = |service: &Service| service.port(&to.port).map(|port| is_secured(service, port, true));
                plan::parts_alike(Part::Cluster, &to.port, former, next) && secured(former) == secured(next)
            }
            Self::Endpoints(to, from) => plan::endpoints_alike(to, from.as_deref(), former, next),
        }
    }

    fn listener(&self, mesh: &Mesh, service: &QualifiedName, port: &str, consumer: &Consumer) -> Resource {
        use hcm_pb::http_connection_manager::RouteSpecifier;
        let name = self.name();
        let (named, _) = planned_port(mesh, service, port);
        let rds =
            hcm_pb::Rds { config_source: Some(wire::ads()), route_config_name: route_name(service, port, consumer) };
        let router = wire::any(&router_pb::Router::default());
        let manager = hcm_pb::HttpConnectionManager {
            stat_prefix: name.to_string(),
            route_specifier: Some(RouteSpecifier::Rds(rds)),
            http_filters: vec![http::http_filter("envoy.filters.http.router", router)],
            ..Default::default()
        };
        let listener = listener_pb::Listener {
            name: name.to_string(),
            api_listener: Some(listener_pb::ApiListener { api_listener: Some(wire::any(&manager)) }),
            ..Default::default()
        };
        Resource::new(Kind::Listener, name, &listener, origins([&named.origin]))
    }
}

/// The cluster of a destination. A client knows round robin and no endpoint's weight.
fn reached(mesh: &Mesh, to: &Destination, certificates: bool) -> Resource {
    let (service, port) = planned_port(mesh, &to.service, &to.port);
    let name = cluster_name(to);
    let secured = is_secured(service, port, certificates);
    let cluster = cluster_pb::Cluster {
        name: name.clone(),
        lb_policy: cluster_pb::cluster::LbPolicy::RoundRobin.into(),
        transport_socket: secured.then(|| tls::proxyless(&cluster::identities(mesh, service))),
        ..cluster::discovered()
    };
    Resource::new(Kind::Cluster, name, &cluster, origins([&service.origin].into_iter().chain(cluster::modes(port))))
}

/// Whether a client comes by mTLS: it has one transport for all endpoints, and can use mTLS only with a certificate.
/// Where plaintext is taken as well, those that are connected proxies all answer mTLS; of others it is not known.
fn is_secured(service: &Service, port: &Port, certificates: bool) -> bool {
    if port.apart.is_some() && !service.modes(port).any(|mode| mode == MtlsMode::Strict) {
        // Those who differ take plaintext, all of them.
        return service.modes(port).all(|mode| mode == MtlsMode::Permissive) && certificates && port.callers_use_mtls;
    }
    match if port.apart.is_some() { MtlsMode::Strict } else { port.mtls.value } {
        MtlsMode::Strict => true,
        MtlsMode::Permissive => {
            certificates && port.callers_use_mtls && matches!(service.backing, Backing::Workloads(_))
        }
        MtlsMode::Disabled => false,
    }
}

// === impl Client ===

impl Client {
    /// As in [`Client::Grpc`]; `None` for a proxy.
    fn certificates(self) -> Option<bool> {
        match self {
            Self::Envoy => None,
            Self::Grpc { certificates } => Some(certificates),
        }
    }
}
