//! Bootstraps as somebody wrote them long ago: with neither TLS nor a credential.
//!
//! Owns: that text. May use: ports. Never: what `chancery bootstrap` prints.

use std::net::SocketAddr;

use chancery::ports::Port;

/// Everything from the aggregated service, which is asked by `api`: `GRPC` or `DELTA_GRPC`.
pub fn aggregated(node: &str, admin: &Port, xds: SocketAddr, api: &str) -> String {
    let resources = format!(
        "{{ads_config: {{api_type: {api}, transport_api_version: V3, \
         grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}, \
         cds_config: {{ads: {{}}, resource_api_version: V3}}, lds_config: {{ads: {{}}, resource_api_version: V3}}}}"
    );
    text(node, admin, xds, &resources, "http2_protocol_options")
}

/// Clusters and listeners as `source` says, over HTTP as `protocol` says.
pub fn polled(node: &str, admin: &Port, xds: SocketAddr, source: &str, protocol: &str) -> String {
    text(node, admin, xds, &format!("{{cds_config: {source}, lds_config: {source}}}"), protocol)
}

fn text(node: &str, admin: &Port, xds: SocketAddr, resources: &str, protocol: &str) -> String {
    format!(
        r#"
node: {{id: {node}, cluster: old}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
dynamic_resources: {resources}
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
"#,
        admin = admin.number(),
        ip = xds.ip(),
        port = xds.port(),
    )
}
