//! Health checks: how a proxy asks endpoints whether they are well.
//!
//! Owns: these fields of a cluster. May use: `wire`. Never: who is admitted to be asked; that is `rbac`'s.

use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::r#type::v3 as type_pb;

use super::wire;
use crate::mesh::{HealthCheck, HealthCheckKind, Port, Protocol, Service};

use core_pb::health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck};

/// How the endpoints of a port are asked. They are asked as often before the first request as after it.
pub(super) fn check(check: &HealthCheck, service: &Service, port: &Port) -> core_pb::HealthCheck {
    let host = format!("{}.{}", service.name.name, service.name.namespace);
    let host = service.outside.as_ref().and_then(|outside| outside.host.clone()).unwrap_or(host);
    let checker = match check.kind_for(port.protocol) {
        HealthCheckKind::Http(path) => HealthChecker::HttpHealthCheck(HttpHealthCheck {
            host,
            path,
            codec_client_type: match port.protocol {
                Protocol::Http | Protocol::Tcp | Protocol::Tls => type_pb::CodecClientType::Http1,
                Protocol::Http2 | Protocol::Grpc => type_pb::CodecClientType::Http2,
            }
            .into(),
            ..Default::default()
        }),
        HealthCheckKind::Grpc(service_name) => {
            HealthChecker::GrpcHealthCheck(GrpcHealthCheck { service_name, authority: host, ..Default::default() })
        }
        HealthCheckKind::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
    };
    core_pb::HealthCheck {
        timeout: Some(wire::duration(check.timeout)),
        interval: Some(wire::duration(check.interval)),
        no_traffic_interval: Some(wire::duration(check.interval)),
        unhealthy_threshold: Some(wire::number(check.unhealthy.get())),
        healthy_threshold: Some(wire::number(check.healthy.get())),
        health_checker: Some(checker),
        ..Default::default()
    }
}
