//! Collectors: the clusters of providers of telemetry, and how they are spoken to.
//!
//! Owns: which cluster leads to a provider. May use: `outside`. Never: what is told.

use std::time::Duration;

use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::trace::v3 as trace_pb;

use super::outside::{self, Server};
use super::{ResourceKey, cluster_name, origins, wire};
use crate::mesh::{Collector, CollectorAt, Destination, Language, Mesh, Protocol, TelemetryProvider};
use crate::name::QualifiedName;
use crate::resource::{Kind, Resource};

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cluster of a provider at an address; it is counted under the provider's name in the namespace of the Mesh, which
/// says where it is.
pub fn collector_key(provider: &TelemetryProvider) -> Option<ResourceKey> {
    let home = provider.origin.object.name.namespace.clone();
    match provider.at {
        CollectorAt::Address { .. } => {
            Some(ResourceKey::Collector(QualifiedName::new(home, provider.name.parse().ok()?)))
        }
        CollectorAt::Service { .. } => None,
    }
}

/// The name of the cluster of a provider that has one of its own.
pub(super) fn own_name(provider: &str) -> String {
    format!("telemetry/{provider}")
}

/// The destination in the mesh that a provider is.
pub(super) fn destination(collector: &Collector) -> Option<Destination> {
    let (service, port) = collector.port.clone()?;
    Some(Destination { service, port, labels: Default::default(), sticky: false })
}

/// The cluster that leads to a provider. Resolution refuses policies that name a provider which is nowhere.
fn cluster_of(collector: &Collector) -> String {
    destination(collector).map_or_else(|| own_name(&collector.provider.name), |to| cluster_name(&to))
}

/// The cluster of the provider that is counted under `key`.
pub(super) fn cluster(mesh: &Mesh, key: &QualifiedName) -> Resource {
    let name = own_name(key.name.as_str());
    let provider = mesh.telemetry_providers.get(key.name.as_str());
    let provider = provider.expect("the plan of this mesh has the provider");
    let origins = origins([&provider.origin].into_iter().chain(&mesh.connect_timeout.origin));
    let cluster = match &provider.at {
        CollectorAt::Address { host, port, tls } => {
            let protocol = match provider.language {
                Language::Otlp => Protocol::Grpc,
                Language::Zipkin(_) => Protocol::Http,
            };
            let server = Server { host, port: port.get(), tls: tls.as_ref() };
            outside::cluster(&name, &server, protocol, mesh.connect_timeout.value)
        }
        CollectorAt::Service { .. } => Default::default(),
    };
    Resource::new(Kind::Cluster, name, &cluster, origins)
}

/// The host by which a collector is asked for.
fn authority(collector: &Collector) -> String {
    match &collector.provider.at {
        CollectorAt::Address { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
        CollectorAt::Address { host, port, .. } => format!("{host}:{port}"),
        CollectorAt::Service { service, .. } => format!("{}.{}", service.name, service.namespace),
    }
}

/// A provider as a service of gRPC.
pub(super) fn grpc_service(collector: &Collector) -> core_pb::GrpcService {
    use core_pb::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let cluster_name = cluster_of(collector);
    let envoy = EnvoyGrpc { cluster_name, authority: authority(collector), ..Default::default() };
    core_pb::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)),
        timeout: Some(wire::duration(PATIENCE)),
        ..Default::default()
    }
}

/// A provider as a collector of Zipkin at `path`.
pub(super) fn zipkin(collector: &Collector, path: &str) -> trace_pb::ZipkinConfig {
    use trace_pb::zipkin_config::CollectorEndpointVersion;
    trace_pb::ZipkinConfig {
        collector_cluster: cluster_of(collector),
        collector_endpoint: path.to_owned(),
        collector_hostname: authority(collector),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
        trace_id_128bit: true,
        // Both ends of a call have a span of their own.
        shared_span_context: Some(wire::boolean(false)),
        ..Default::default()
    }
}
