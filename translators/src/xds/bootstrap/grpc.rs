//! Bootstraps of gRPC clients without a proxy.
//!
//! Owns: their form, which is gRPC's own JSON. May use: the `Node` and `Server` of other bootstraps. Never: contains a
//! key; these clients read certificates from files.

use serde_json::{Value, json};

use super::{Node, Server};
use crate::xds::CERTIFICATES;

/// The node metadata by which a client says that its bootstrap has a certificate provider, and the provider's name.
pub const CERTIFICATES_KEY: &str = "chancery.certificates";

/// How often a client looks whether its files are others.
const REFRESH: &str = "10s";

/// Where a certificate, its key and who certifies the other side are: three files, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The roots that the other side is trusted by.
    pub roots: String,
}

/// Everything that the bootstrap of a gRPC client is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcOptions {
    /// The client.
    pub node: Node,
    /// The control plane.
    pub server: Server,
    /// What the client proves itself by to the control plane; `None` towards an address without TLS.
    pub credential: Option<CertificateFiles>,
    /// The certificate of its workload; a client without one uses plaintext.
    pub certificates: Option<CertificateFiles>,
}

/// A complete bootstrap.
pub fn grpc(options: &GrpcOptions) -> Value {
    let GrpcOptions { node, server, credential, certificates } = options;
    let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    let channel = match credential {
        Some(files) => json!({"type": "tls", "config": files.watched()}),
        None => json!({"type": "insecure"}),
    };
    let mut metadata = node.metadata.clone();
    if certificates.is_some() {
        metadata.insert(CERTIFICATES_KEY.to_owned(), CERTIFICATES.to_owned());
    }
    let provider = |files: &CertificateFiles| json!({"plugin_name": "file_watcher", "config": files.watched()});
    let providers: serde_json::Map<String, Value> =
        certificates.iter().map(|files| (CERTIFICATES.to_owned(), provider(files))).collect();
    let place = node.locality.as_ref().map_or_else(
        || json!({}),
        |place| json!({"region": place.region, "zone": place.zone, "sub_zone": place.subzone}),
    );
    json!({
        "xds_servers": [{
            "server_uri": format!("{host}:{}", server.port),
            "channel_creds": [channel],
            "server_features": ["xds_v3"],
        }],
        // Some clients refuse a node without a locality.
        "node": {"id": node.id, "cluster": node.cluster, "locality": place, "metadata": metadata},
        "certificate_providers": providers,
    })
}

// === impl CertificateFiles ===

impl CertificateFiles {
    fn watched(&self) -> Value {
        json!({
            "certificate_file": self.certificate,
            "private_key_file": self.key,
            "ca_certificate_file": self.roots,
            "refresh_interval": REFRESH,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_what_it_has() {
        let files = |name: &str| CertificateFiles {
            certificate: format!("/{name}.pem"),
            key: format!("/{name}.key"),
            roots: format!("/{name}-roots.pem"),
        };
        let node =
            Node { id: "web-1".into(), cluster: "shop/web".into(), metadata: Default::default(), locality: None };
        let server = Server { host: "::1".into(), port: 18000 };
        let mut options = GrpcOptions {
            node,
            server,
            credential: Some(files("credential")),
            certificates: Some(files("certificate")),
        };
        let both = grpc(&options);
        assert_eq!(both["xds_servers"][0]["server_uri"], "[::1]:18000");
        let channel = &both["xds_servers"][0]["channel_creds"];
        assert_eq!(*channel, json!([{"type": "tls", "config": files("credential").watched()}]));
        let provider = json!({"plugin_name": "file_watcher", "config": files("certificate").watched()});
        assert_eq!(both["certificate_providers"], json!({ CERTIFICATES: provider }));
        assert_eq!(both["node"]["metadata"], json!({ CERTIFICATES_KEY: CERTIFICATES }));

        (options.credential, options.certificates) = (None, None);
        let neither = grpc(&options);
        assert_eq!(neither["xds_servers"][0]["channel_creds"], json!([{"type": "insecure"}]));
        assert_eq!((&neither["certificate_providers"], &neither["node"]["metadata"]), (&json!({}), &json!({})));
    }
}
