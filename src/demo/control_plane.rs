//! Control plane: what the demo's own control plane says of itself, over its admin address.
//!
//! Owns: the few fields that are read of its answers. May use: an HTTP client, /proc. Never: looks into the
//! control plane by another way than a user's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The admin address of a control plane.
#[derive(Debug, Clone)]
pub(super) struct ControlPlane {
    client: reqwest::Client,
    address: SocketAddr,
}

/// What the control plane knows at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Status {
    /// Connected proxies.
    pub(super) proxies: u64,
    /// Those that have accepted everything that they were sent.
    pub(super) in_sync: u64,
    /// Refusals that stand, one line each.
    pub(super) nacks: Vec<String>,
    /// Mistakes in the rules, one line each.
    pub(super) findings: Vec<String>,
    /// What the proxies have reported of the traffic.
    pub(super) edges: Vec<Edge>,
}

/// The traffic from one identity to one version of a service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Edge {
    /// `shop/cart`.
    pub(super) service: String,
    /// `v1`; empty if it has none.
    pub(super) version: String,
    /// Requests; TCP: connections.
    pub(super) requests: u64,
    /// Those of them over mutual TLS.
    pub(super) mtls_requests: u64,
}

#[derive(Debug, Deserialize)]
struct Proxies {
    proxies: Vec<Proxy>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proxy {
    node: String,
    in_sync: bool,
    #[serde(default)]
    types: std::collections::BTreeMap<String, Type>,
}

#[derive(Debug, Deserialize)]
struct Type {
    nack: Option<Nack>,
}

#[derive(Debug, Deserialize)]
struct Nack {
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Edges {
    edges: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Findings {
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    text: String,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// The control plane with this admin address.
    pub(super) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("no http client")?;
        Ok(Self { client, address })
    }

    /// Whether it is ready to serve proxies.
    pub(super) async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("http://{}/readyz", self.address)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// What it knows.
    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        let Proxies { proxies } = self.read("/api/v1/proxies").await?;
        let Findings { findings } = self.read("/api/v1/findings").await?;
        let Edges { edges } = self.read("/api/v1/edges").await?;
        let in_sync = proxies.iter().filter(|proxy| proxy.in_sync).count();
        let nacks = proxies.iter().flat_map(|proxy| {
            let nacks = proxy.types.iter().filter_map(|(kind, status)| Some((kind, status.nack.as_ref()?)));
            nacks.map(|(kind, nack)| format!("{} refused {kind}: {}", proxy.node, nack.reason))
        });
        Ok(Status {
            proxies: proxies.len() as u64,
            in_sync: in_sync as u64,
            nacks: nacks.collect(),
            findings: findings.into_iter().map(|finding| finding.text).collect(),
            edges,
        })
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let unreadable = || format!("the control plane's answer to {path} cannot be read");
        let answer = self.client.get(format!("http://{}{path}", self.address)).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status).with_context(unreadable)?;
        let body = answer.bytes().await.with_context(unreadable)?;
        serde_json::from_slice(&body).with_context(unreadable)
    }
}

// === impl Status ===

impl Status {
    /// The requests that the proxies saw, and how many of them were over mutual TLS.
    pub(super) fn requests(&self) -> (u64, u64) {
        self.edges.iter().fold((0, 0), |(all, mtls), edge| (all + edge.requests, mtls + edge.mtls_requests))
    }

    /// The requests that the proxies saw going to this version of the service.
    pub(super) fn requests_to(&self, service: &str, version: &str) -> u64 {
        let edges = self.edges.iter().filter(|edge| edge.service == service && edge.version == version);
        edges.map(|edge| edge.requests).sum()
    }
}

/// The most memory that a process has had, in MiB.
pub(super) fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let kib: f64 = kib.with_context(|| format!("{path} does not say VmHWM"))?;
    Ok((kib / 1024.0 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;
    use crate::demo::http;
    use crate::task::Tasks;

    const PROXIES: &str = r#"{"proxies": [
        {"node": "web-1", "workload": "shop/web", "inSync": true, "types": {"CDS": {"nack": null}}},
        {"node": "store-1", "inSync": false, "types": {"LDS": {"nack": {"reason": "no such filter"}}}}]}"#;
    const FINDINGS: &str = r#"{"findings": [{"code": "MX0101", "text": "traffic.yaml:9:5: MX0101 error ..."}]}"#;
    const EDGES: &str = r#"{"edges": [
        {"caller": "shop/web", "service": "shop/cart", "version": "v1", "requests": 8, "mtlsRequests": 8},
        {"caller": "unknown", "service": "shop/cart", "version": "v2", "requests": 2, "mtlsRequests": 1},
        {"caller": "shop/cart-v1", "service": "shop/store", "version": "", "requests": 3, "mtlsRequests": 3}]}"#;

    #[tokio::test]
    async fn the_status_is_what_the_admin_address_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let control_plane = ControlPlane::new(listener.local_addr().expect("it is bound")).expect("a client");
        let router = Router::new()
            .route("/readyz", get(|| async { "ok" }))
            .route("/api/v1/proxies", get(|| async { PROXIES }))
            .route("/api/v1/findings", get(|| async { FINDINGS }))
            .route("/api/v1/edges", get(|| async { EDGES }));
        let mut tasks = Tasks::default();
        let stop = tasks.stop_token();
        tasks.spawn("server", http::serve(listener, router, stop));
        let session = async {
            assert!(control_plane.is_ready().await);
            let status = control_plane.status().await.expect("every answer can be read");
            let edge = |service: &str, version: &str, requests, mtls_requests| Edge {
                service: service.to_owned(),
                version: version.to_owned(),
                requests,
                mtls_requests,
            };
            assert_eq!(
                status,
                Status {
                    proxies: 2,
                    in_sync: 1,
                    nacks: vec!["store-1 refused LDS: no such filter".to_owned()],
                    findings: vec!["traffic.yaml:9:5: MX0101 error ...".to_owned()],
                    edges: vec![
                        edge("shop/cart", "v1", 8, 8),
                        edge("shop/cart", "v2", 2, 1),
                        edge("shop/store", "", 3, 3),
                    ],
                }
            );
            assert_eq!((status.requests(), status.requests_to("shop/cart", "v2")), ((13, 12), 2));
        };
        tasks.run(session, Duration::from_secs(5)).await.expect("the server serves until the end");
        let error = control_plane.status().await.expect_err("nobody listens any more");
        assert_eq!(error.to_string(), "the control plane's answer to /api/v1/proxies cannot be read");
    }

    #[test]
    fn the_peak_of_a_process_is_read() {
        assert!(peak_mib(std::process::id()).expect("we are running") > 1.0);
    }
}
