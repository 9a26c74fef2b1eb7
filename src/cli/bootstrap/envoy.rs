//! The bootstrap document: what an Envoy is started with.
//!
//! Owns: its form. May use: serde_json. Never: issues or reads anything.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::identity::tls::SERVER_NAME;

/// The name of the secret that a credential file holds.
pub(super) const CREDENTIAL: &str = "control-plane-credential";

const CONTROL_PLANE: &str = "chancery-control-plane";

/// What a bootstrap is made of.
pub(super) struct Bootstrap {
    pub(super) node_id: String,
    pub(super) cluster: String,
    pub(super) xds_host: String,
    pub(super) xds_port: NonZeroU16,
    pub(super) ca_pem: String,
    pub(super) credential: Credential,
    pub(super) protocol: Protocol,
    pub(super) administration: Administration,
    pub(super) stats_interval: Duration,
    pub(super) all_stats: bool,
}

/// Where the proxy finds its credential.
pub(super) enum Credential {
    /// In the bootstrap.
    Inline { chain_pem: String, key_pem: String },
    /// In a file that it watches.
    File { path: PathBuf },
}

/// Which form of xDS the proxy speaks.
pub(super) enum Protocol {
    Delta,
    StateOfTheWorld,
}

/// Envoy's own admin interface.
pub(super) enum Administration {
    Off,
    Loopback(u16),
}

/// The bootstrap as canonical proto-JSON.
pub(super) fn render(bootstrap: &Bootstrap) -> Value {
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let mut document = json!({
        "node": { "id": bootstrap.node_id, "cluster": bootstrap.cluster },
        "dynamic_resources": {
            "ads_config": {
                "api_type": match bootstrap.protocol {
                    Protocol::Delta => "DELTA_GRPC",
                    Protocol::StateOfTheWorld => "GRPC",
                },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [control_plane_service()],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": { "clusters": [control_plane(bootstrap)] },
        "stats_flush_interval": format!("{}s", bootstrap.stats_interval.as_secs()),
        "stats_sinks": [{
            "name": "envoy.stat_sinks.metrics_service",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
                "transport_api_version": "V3",
                "grpc_service": control_plane_service(),
                "report_counters_as_deltas": true,
                "emit_tags_as_labels": true,
            },
        }],
    });
    if !bootstrap.all_stats {
        document["stats_config"] = json!({ "stats_matcher": { "inclusion_list": { "patterns": [
            { "prefix": "listener." },
            { "prefix": "cluster." },
            { "prefix": "http." },
            { "prefix": "tcp." },
            { "prefix": "server." },
            { "prefix": "control_plane." },
        ] } } });
    }
    if let Administration::Loopback(port) = bootstrap.administration {
        document["admin"] = json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } });
    }
    document
}

fn control_plane_service() -> Value {
    json!({ "envoy_grpc": {
        "cluster_name": CONTROL_PLANE,
        "retry_policy": { "retry_back_off": { "base_interval": "0.25s", "max_interval": "2s" } },
    } })
}

fn control_plane(bootstrap: &Bootstrap) -> Value {
    let kind = if bootstrap.xds_host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    json!({
        "name": CONTROL_PLANE,
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": CONTROL_PLANE,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": {
                "address": bootstrap.xds_host,
                "port_value": bootstrap.xds_port,
            } } } }] }],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {
                    "connection_keepalive": { "interval": "5s", "timeout": "2s" },
                } },
            },
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": SERVER_NAME,
                "common_tls_context": tls_context(bootstrap),
            },
        },
    })
}

fn tls_context(bootstrap: &Bootstrap) -> Value {
    let mut context = json!({ "validation_context": {
        "trusted_ca": { "inline_string": bootstrap.ca_pem },
        "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": SERVER_NAME } }],
    } });
    match &bootstrap.credential {
        Credential::Inline { chain_pem, key_pem } => {
            context["tls_certificates"] = json!([{
                "certificate_chain": { "inline_string": chain_pem },
                "private_key": { "inline_string": key_pem },
            }]);
        }
        Credential::File { path } => {
            let directory = path.parent().unwrap_or(path);
            context["tls_certificate_sds_secret_configs"] = json!([{
                "name": CREDENTIAL,
                "sds_config": {
                    "resource_api_version": "V3",
                    "path_config_source": { "path": path, "watched_directory": { "path": directory } },
                },
            }]);
        }
    }
    context
}
