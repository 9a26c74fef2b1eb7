//! Credential: what a bootstrap holds for a client that is no Envoy.
//!
//! Owns: reading it out of what `chancery bootstrap` prints, and connections that show it or do not. May use: tonic's
//! client. Never: makes a credential itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::chancery::Chancery;
use super::tls::ClientIdentity;

/// A node id, and the credential that is bound to it.
#[derive(Debug)]
pub struct Credential {
    /// The node id.
    pub node: String,
    ca: String,
    chain: String,
    key: String,
}

// === impl Credential ===

impl Credential {
    /// One for a proxy of `workload`.
    pub async fn issue(chancery: &Chancery, workload: &str) -> anyhow::Result<Self> {
        Self::read(&chancery.bootstrap(workload, &["-o", "json"]).await?)
    }

    /// One for a node of which only the id is known.
    pub async fn issue_to_node(chancery: &Chancery, node: &str) -> anyhow::Result<Self> {
        let data = chancery.data_directory();
        let data = data.to_str().context("temporary directories are UTF-8")?;
        let output = chancery.run(&["bootstrap", "--node-id", node, "--data-dir", data, "-o", "json"]).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::read(&String::from_utf8(output.stdout)?)
    }

    fn read(bootstrap: &str) -> anyhow::Result<Self> {
        let document: Value = serde_json::from_str(bootstrap)?;
        let find = |name: &str| find(&document, name).with_context(|| format!("no {name} in {document}"));
        let context = find("validation_context")?;
        let certificate = find("tls_certificates")?;
        let text = |value: &Value| value["inline_string"].as_str().map(str::to_owned).context("an inline string");
        Ok(Self {
            node: document["node"]["id"].as_str().context("a node id")?.to_owned(),
            ca: text(&context["trusted_ca"])?,
            chain: text(&certificate[0]["certificate_chain"])?,
            key: text(&certificate[0]["private_key"])?,
        })
    }

    /// The same for a client that is not of gRPC.
    pub fn identity(&self) -> ClientIdentity {
        ClientIdentity::Certificate { chain_pem: self.chain.clone(), key_pem: self.key.clone() }
    }

    /// A connection that shows it.
    pub async fn connect(&self, chancery: &Chancery) -> anyhow::Result<Channel> {
        let identity = Identity::from_pem(&self.chain, &self.key);
        self.open(chancery, self.tls().identity(identity)).await
    }

    /// A connection that shows nothing.
    pub async fn connect_without(&self, chancery: &Chancery) -> anyhow::Result<Channel> {
        self.open(chancery, self.tls()).await
    }

    fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca)).domain_name("chancery")
    }

    async fn open(&self, chancery: &Chancery, tls: ClientTlsConfig) -> anyhow::Result<Channel> {
        let endpoint = Channel::from_shared(format!("https://{}", chancery.xds_address()))?.tls_config(tls)?;
        Ok(endpoint.timeout(Duration::from_secs(10)).connect().await?)
    }
}

fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(name).or_else(|| members.values().find_map(|member| find(member, name))),
        Value::Array(elements) => elements.iter().find_map(|element| find(element, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
