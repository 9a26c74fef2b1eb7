//! TLS: the transport sockets of both sides of the mesh, and towards servers outside.
//!
//! Owns: what a handshake takes and offers. May use: `secret`, `name`. Never: plaintext.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::extensions::transport_sockets::proxy_protocol::v3 as announced_pb;
use proto::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::{CERTIFICATES, secret, wire};
use crate::mesh::{Authorities, EdgeClients, EdgeTls, Originate, ProxyProtocol, TlsVersion};
use crate::name::SpiffeId;

/// The ALPN by which inbound listeners tell mesh TLS from other TLS. Callers offer it; nobody selects it: Envoy
/// would take a selected protocol that it does not know for HTTP/1.
pub(super) const ALPN: &str = "chancery";

/// Where the systems that Envoy is built for keep the authorities that they trust.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

const SOCKET: &str = "envoy.transport_sockets.tls";

/// The side that serves, for callers whose identity one of `callers` takes.
pub(super) fn downstream(callers: Vec<matcher_pb::StringMatcher>, alpn_protocols: &[&str]) -> core_pb::TransportSocket {
    // A resumed session would carry the identity of its first handshake past the certificate's renewal or the
    // authority's removal.
    let no_tickets = tls_pb::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(true);
    let context = tls_pb::DownstreamTlsContext {
        common_tls_context: Some(common(alpn_protocols, callers)),
        require_client_certificate: Some(wire::boolean(true)),
        disable_stateful_session_resumption: true,
        session_ticket_keys_type: Some(no_tickets),
        ..Default::default()
    };
    socket(wire::any(&context))
}

/// The side of a gateway, for clients outside of the mesh, by one of these protocols.
pub(super) fn edge(tls: &EdgeTls, alpn_protocols: &[&str]) -> core_pb::TransportSocket {
    use tls_pb::common_tls_context::ValidationContextType;
    use tls_pb::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption;
    let trusted = |clients: &EdgeClients| {
        ValidationContextType::ValidationContext(tls_pb::CertificateValidationContext {
            trusted_ca: Some(trusted(&clients.authorities)),
            ..Default::default()
        })
    };
    let context = tls_pb::DownstreamTlsContext {
        common_tls_context: Some(tls_pb::CommonTlsContext {
            tls_params: Some(from(tls.min_version)),
            tls_certificate_sds_secret_configs: vec![by_ads(&tls.certificate.secret())],
            validation_context_type: tls.clients.as_ref().map(trusted),
            alpn_protocols: alpn_protocols.iter().map(|&protocol| protocol.to_owned()).collect(),
            ..Default::default()
        }),
        require_client_certificate: tls.clients.as_ref().map(|clients| wire::boolean(clients.required)),
        // A resumed session would carry a client past the removal of its authority.
        disable_stateful_session_resumption: tls.clients.is_some(),
        session_ticket_keys_type: tls.clients.as_ref().map(|_| DisableStatelessSessionResumption(true)),
        ..Default::default()
    };
    socket(wire::any(&context))
}

/// The side that calls: exactly the identities of the called service.
pub(super) fn upstream(identities: &BTreeSet<SpiffeId>) -> core_pb::TransportSocket {
    let servers = identities.iter().map(|id| wire::exact(id.as_str())).collect();
    let context = tls_pb::UpstreamTlsContext {
        common_tls_context: Some(common(&[ALPN], servers)),
        max_session_keys: Some(wire::number(0)),
        ..Default::default()
    };
    socket(wire::any(&context))
}

/// The side that calls a server outside of the mesh, by these protocols.
pub(super) fn outside(server: &Originate, alpn_protocols: &[&str]) -> core_pb::TransportSocket {
    use tls_pb::common_tls_context::ValidationContextType;
    use tls_pb::subject_alt_name_matcher::SanType;
    let host = server.name.as_str();
    let is_address = host.parse::<IpAddr>().is_ok();
    let name = tls_pb::SubjectAltNameMatcher {
        san_type: if is_address { SanType::IpAddress } else { SanType::Dns }.into(),
        matcher: Some(wire::exact(host)),
        ..Default::default()
    };
    let validation = tls_pb::CertificateValidationContext {
        trusted_ca: Some(trusted(&server.authorities)),
        match_typed_subject_alt_names: vec![name],
        ..Default::default()
    };
    let context = tls_pb::UpstreamTlsContext {
        // An address is no name to ask for.
        sni: if is_address { String::new() } else { host.to_owned() },
        common_tls_context: Some(tls_pb::CommonTlsContext {
            tls_params: Some(from(server.oldest)),
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            alpn_protocols: alpn_protocols.iter().map(|&protocol| protocol.to_owned()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    socket(wire::any(&context))
}

fn trusted(authorities: &Authorities) -> core_pb::DataSource {
    use core_pb::data_source::Specifier;
    let specifier = match authorities {
        Authorities::System => Specifier::Filename(SYSTEM_AUTHORITIES.to_owned()),
        Authorities::File(path) => Specifier::Filename(path.clone()),
        Authorities::Inline(pem) => Specifier::InlineString(pem.clone()),
    };
    core_pb::DataSource { specifier: Some(specifier), ..Default::default() }
}

/// `oldest` and what came after it.
fn from(oldest: TlsVersion) -> tls_pb::TlsParameters {
    use tls_pb::tls_parameters::TlsProtocol;
    let oldest = match oldest {
        TlsVersion::V12 => TlsProtocol::TlSv12,
        TlsVersion::V13 => TlsProtocol::TlSv13,
    };
    tls_pb::TlsParameters {
        tls_minimum_protocol_version: oldest.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..Default::default()
    }
}

/// The side that calls, where it is a gRPC client without a proxy: its certificates come from files, and it takes no
/// protocol versions but its own; the side that serves insists on TLS 1.3.
pub(super) fn proxyless(identities: &BTreeSet<SpiffeId>) -> core_pb::TransportSocket {
    use tls_pb::common_tls_context::ValidationContextType;
    let provider = || {
        let instance_name = CERTIFICATES.to_owned();
        Some(tls_pb::CertificateProviderPluginInstance { instance_name, ..Default::default() })
    };
    // These clients read the form of names that Envoy has given up.
    #[expect(deprecated, reason = "gRPC knows no other")]
    let validation = tls_pb::CertificateValidationContext {
        ca_certificate_provider_instance: provider(),
        match_subject_alt_names: identities.iter().map(|id| wire::exact(id.as_str())).collect(),
        ..Default::default()
    };
    let context = tls_pb::UpstreamTlsContext {
        common_tls_context: Some(tls_pb::CommonTlsContext {
            tls_certificate_provider_instance: provider(),
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..Default::default()
        }),
        ..Default::default()
    };
    socket(wire::any(&context))
}

/// Every connection of `cluster` that is not mTLS begins with whose it is.
pub(super) fn announcing(cluster: &mut cluster_pb::Cluster, version: ProxyProtocol) {
    let wrapped = |inner: core_pb::TransportSocket| {
        let version = match version {
            ProxyProtocol::V1 => core_pb::proxy_protocol_config::Version::V1,
            ProxyProtocol::V2 => core_pb::proxy_protocol_config::Version::V2,
        };
        let config = core_pb::ProxyProtocolConfig { version: version.into(), ..Default::default() };
        let announced = announced_pb::ProxyProtocolUpstreamTransport {
            config: Some(config),
            transport_socket: Some(inner),
            ..Default::default()
        };
        let config_type = Some(core_pb::transport_socket::ConfigType::TypedConfig(wire::any(&announced)));
        core_pb::TransportSocket { name: "envoy.transport_sockets.upstream_proxy_protocol".into(), config_type }
    };
    if cluster.transport_socket_matches.is_empty() {
        let inner = cluster.transport_socket.take().unwrap_or_else(super::cluster::plaintext);
        cluster.transport_socket = Some(wrapped(inner));
    }
    if let Some(last) = cluster.transport_socket_matches.last_mut() {
        last.transport_socket = last.transport_socket.take().map(wrapped);
    }
}

pub(super) fn socket(context: proto::google::protobuf::Any) -> core_pb::TransportSocket {
    use core_pb::transport_socket::ConfigType;
    core_pb::TransportSocket { name: SOCKET.into(), config_type: Some(ConfigType::TypedConfig(context)) }
}

/// TLS 1.3 and nothing else: left alone, the calling side of Envoy stops at 1.2.
pub(super) fn parameters() -> tls_pb::TlsParameters {
    let version = tls_pb::tls_parameters::TlsProtocol::TlSv13.into();
    tls_pb::TlsParameters {
        tls_minimum_protocol_version: version,
        tls_maximum_protocol_version: version,
        ..Default::default()
    }
}

pub(super) fn uri(matcher: matcher_pb::StringMatcher) -> tls_pb::SubjectAltNameMatcher {
    tls_pb::SubjectAltNameMatcher {
        san_type: tls_pb::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher),
        ..Default::default()
    }
}

fn common(alpn_protocols: &[&str], peers: Vec<matcher_pb::StringMatcher>) -> tls_pb::CommonTlsContext {
    use tls_pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let peers = tls_pb::CertificateValidationContext {
        match_typed_subject_alt_names: peers.into_iter().map(uri).collect(),
        ..Default::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(peers),
        validation_context_sds_secret_config: Some(by_ads(secret::TRUST_BUNDLE)),
        ..Default::default()
    };
    tls_pb::CommonTlsContext {
        tls_params: Some(parameters()),
        tls_certificate_sds_secret_configs: vec![by_ads(secret::IDENTITY)],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        alpn_protocols: alpn_protocols.iter().map(|&protocol| protocol.to_owned()).collect(),
        ..Default::default()
    }
}

fn by_ads(name: &str) -> tls_pb::SdsSecretConfig {
    tls_pb::SdsSecretConfig { name: name.into(), sds_config: Some(wire::ads()) }
}
