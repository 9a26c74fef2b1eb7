//! Bootstraps: how a proxy finds the control plane.
//!
//! Owns: everything that a proxy needs to know before it is told anything. May use: `tls`, the localities of `mesh`, the `proto` crate.
//! Never: writes a file or makes a credential.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proto::envoy::config::bootstrap::v3 as bootstrap_pb;
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::metrics::v3 as metrics_pb;
use proto::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;
use proto::google::protobuf as google_pb;

use super::{secret, tls, wire};
use crate::mesh::Locality;
use crate::telemetry_names;

mod connection;
mod grpc;

pub(super) use connection::control_plane_service;
pub(super) use connection::{ads, control_plane};
use connection::{grpc_service, load_reports};
pub use grpc::{CERTIFICATES_KEY, CertificateFiles, GrpcOptions, grpc};

/// The DNS name in the control plane's certificate, wherever it is reached.
pub const SERVER_NAME: &str = "chancery";

/// The name of the secret in a credential file ([`Credential::File`]).
pub const CREDENTIAL: &str = "control-plane-credential";

/// Who a proxy says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id, bound to its credential.
    pub id: String,
    /// Its cluster.
    pub cluster: String,
    /// What else it says about itself.
    pub metadata: BTreeMap<String, String>,
    /// Where it is, where that is known.
    pub locality: Option<Locality>,
}

/// Where the control plane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// An IP address or a DNS name.
    pub host: String,
    /// The port of its xDS listener.
    pub port: u16,
}

/// How a proxy proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// In the bootstrap itself; cannot rotate.
    Inline {
        /// The certificate chain, PEM, leaf first.
        chain_pem: String,
        /// Its key, PEM.
        key_pem: String,
    },
    /// In a file with one secret called [`CREDENTIAL`], which Envoy reads again when another is moved into its
    /// place.
    File {
        /// The file.
        path: String,
    },
}

/// The protocol of the aggregated stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdsProtocol {
    /// Changes only.
    #[default]
    Delta,
    /// State of the world.
    Sotw,
}

/// Everything that a bootstrap is made of.
#[derive(Debug, Clone)]
pub struct BootstrapOptions {
    /// The proxy.
    pub node: Node,
    /// The control plane.
    pub server: Server,
    /// Who certifies the control plane, PEM.
    pub control_plane_ca_pem: String,
    /// The proxy's credential.
    pub credential: Credential,
    /// Where the proxy's own administration listens; see [`DEFAULT_ADMIN`].
    pub admin: SocketAddr,
    /// How it is told.
    pub protocol: AdsProtocol,
    /// How often it reports.
    pub stats_flush_interval: Duration,
    /// Whether it keeps every statistic of Envoy, not only those that the control plane reads.
    pub all_stats: bool,
}

/// Where a proxy's administration listens unless told otherwise.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Shows no key.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline { .. } => f.write_str("Inline"),
            Self::File { path } => f.debug_struct("File").field("path", path).finish(),
        }
    }
}

/// A complete bootstrap.
pub fn bootstrap(options: &BootstrapOptions) -> bootstrap_pb::Bootstrap {
    let control_plane = cluster_pb::Cluster {
        transport_socket: Some(tls::socket(wire::any(&transport(options)))),
        ..control_plane(&options.server)
    };
    bootstrap_pb::Bootstrap {
        node: Some(node(&options.node)),
        admin: Some(admin(options.admin)),
        cluster_manager: Some(bootstrap_pb::ClusterManager {
            load_stats_config: Some(load_reports()),
            ..Default::default()
        }),
        dynamic_resources: Some(bootstrap_pb::bootstrap::DynamicResources {
            lds_config: Some(wire::ads()),
            cds_config: Some(wire::ads()),
            ads_config: Some(ads(options.protocol)),
            ..Default::default()
        }),
        static_resources: Some(bootstrap_pb::bootstrap::StaticResources {
            clusters: vec![control_plane],
            ..Default::default()
        }),
        stats_sinks: vec![metrics_sink()],
        stats_config: (!options.all_stats).then(what_we_read),
        stats_flush_interval: Some(wire::duration(options.stats_flush_interval)),
        ..Default::default()
    }
}

pub(super) fn node(node: &Node) -> core_pb::Node {
    let text = |text: &String| google_pb::Value { kind: Some(google_pb::value::Kind::StringValue(text.clone())) };
    let fields = node.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    core_pb::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: (!node.metadata.is_empty()).then_some(google_pb::Struct { fields }),
        locality: node.locality.as_ref().map(|place| core_pb::Locality {
            region: place.region.clone(),
            zone: place.zone.clone(),
            sub_zone: place.subzone.clone(),
        }),
        ..Default::default()
    }
}

pub(super) fn admin(address: SocketAddr) -> bootstrap_pb::Admin {
    bootstrap_pb::Admin { address: Some(wire::address(address)), ..Default::default() }
}

/// The control plane's certificate is for [`SERVER_NAME`], whatever address it has.
fn transport(options: &BootstrapOptions) -> tls_pb::UpstreamTlsContext {
    use tls_pb::common_tls_context::ValidationContextType;
    let server = tls_pb::SubjectAltNameMatcher {
        san_type: tls_pb::subject_alt_name_matcher::SanType::Dns.into(),
        matcher: Some(wire::exact(SERVER_NAME)),
        ..Default::default()
    };
    let validation = tls_pb::CertificateValidationContext {
        trusted_ca: Some(secret::inline(&options.control_plane_ca_pem)),
        match_typed_subject_alt_names: vec![server],
        ..Default::default()
    };
    let context = tls_pb::CommonTlsContext {
        tls_params: Some(tls::parameters()),
        alpn_protocols: vec!["h2".into()],
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..Default::default()
    };
    let common_tls_context = match &options.credential {
        Credential::Inline { chain_pem, key_pem } => tls_pb::CommonTlsContext {
            tls_certificates: vec![tls_pb::TlsCertificate {
                certificate_chain: Some(secret::inline(chain_pem)),
                private_key: Some(secret::inline(key_pem)),
                ..Default::default()
            }],
            ..context
        },
        Credential::File { path } => {
            tls_pb::CommonTlsContext { tls_certificate_sds_secret_configs: vec![file(path)], ..context }
        }
    };
    tls_pb::UpstreamTlsContext {
        sni: SERVER_NAME.into(),
        common_tls_context: Some(common_tls_context),
        ..Default::default()
    }
}

/// Envoy sees a file that is moved into place, if it watches the folder.
fn file(path: &str) -> tls_pb::SdsSecretConfig {
    use core_pb::config_source::ConfigSourceSpecifier;
    // Envoy refuses a path that names no folder.
    let path = if path.contains('/') { path.to_owned() } else { format!("./{path}") };
    let folder = match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((folder, _)) => folder.to_owned(),
    };
    let source = core_pb::PathConfigSource {
        path,
        watched_directory: Some(core_pb::WatchedDirectory { path: folder, ..Default::default() }),
        ..Default::default()
    };
    tls_pb::SdsSecretConfig {
        name: CREDENTIAL.into(),
        sds_config: Some(core_pb::ConfigSource {
            resource_api_version: core_pb::ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::PathConfigSource(source)),
            ..Default::default()
        }),
    }
}

/// Statistics go the way that configuration comes.
fn metrics_sink() -> metrics_pb::StatsSink {
    let config = metrics_pb::MetricsServiceConfig {
        transport_api_version: core_pb::ApiVersion::V3.into(),
        grpc_service: Some(grpc_service(None)),
        emit_tags_as_labels: true,
        ..Default::default()
    };
    metrics_pb::StatsSink {
        name: "envoy.stat_sinks.metrics_service".into(),
        config_type: Some(metrics_pb::stats_sink::ConfigType::TypedConfig(wire::any(&config))),
    }
}

/// The statistics that the control plane reads: about 1 kB per report, where all of them are 230.
fn what_we_read() -> metrics_pb::StatsConfig {
    use metrics_pb::stats_matcher::StatsMatcher;
    let counters = wire::prefix(format!("{}.", telemetry_names::PREFIX));
    let server = ["server.live", "server.uptime", "server.memory_allocated"].map(wire::exact);
    let audits = wire::suffix("shadow_denied");
    let managers = ["listener_manager.", "cluster_manager.", "control_plane."].map(wire::prefix);
    let patterns = [counters, audits].into_iter().chain(server).chain(managers).collect();
    let list = StatsMatcher::InclusionList(matcher_pb::ListStringMatcher { patterns });
    metrics_pb::StatsConfig {
        stats_matcher: Some(metrics_pb::StatsMatcher { stats_matcher: Some(list) }),
        ..Default::default()
    }
}
