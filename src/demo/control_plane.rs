//! Control plane: what the demo's own control plane says of itself, over its admin address.
//!
//! Owns: what is read of its answers. May use: `admin::view`, an HTTP client, /proc. Never: looks into the
//! control plane by another way than a user's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;

use crate::admin::view::{Edge, Edges, Findings, Proxies};

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
        let Proxies { proxies, in_sync, total } = self.read("/api/v1/proxies").await?;
        let Findings { findings } = self.read("/api/v1/findings").await?;
        let Edges { edges, .. } = self.read("/api/v1/edges").await?;
        let nacks = proxies.iter().flat_map(|proxy| {
            let nacks = proxy.types.iter().filter_map(|(kind, status)| Some((kind, status.nack.as_ref()?)));
            nacks.map(|(kind, nack)| format!("{} refused {kind}: {}", proxy.node, nack.reason))
        });
        Ok(Status {
            proxies: total as u64,
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
pub(super) mod tests {
    use std::collections::BTreeMap;

    use axum::routing::get;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;
    use crate::admin::view::{Finding, KnownBy, Nack, Proxy, Type};
    use crate::demo::http;
    use crate::task::Tasks;

    fn proxy(node: &str, in_sync: bool, nack: Option<Nack>) -> Proxy {
        let status = Type { sent: None, acked: None, subscribed: None, responses: 1, nack };
        Proxy {
            node: node.to_owned(),
            workload: "shop/any".to_owned(),
            address: "127.0.0.1".to_owned(),
            known_by: KnownBy::Certificate,
            envoy: "1.40.0".to_owned(),
            protocol: "delta".to_owned(),
            connected: "2026-01-01T00:00:00Z".to_owned(),
            in_sync,
            types: BTreeMap::from([("LDS".to_owned(), status)]),
            certificate: None,
        }
    }

    pub(crate) fn edge(service: &str, version: &str, requests: u64, mtls_requests: u64) -> Edge {
        Edge {
            caller: "shop/web".to_owned(),
            caller_identity: None,
            service: service.to_owned(),
            version: version.to_owned(),
            port: "http".to_owned(),
            protocol: "http".to_owned(),
            requests,
            successes: requests,
            success_rate: Some(1.0),
            mtls_requests,
            mtls_share: None,
            last_seen: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[tokio::test]
    async fn the_status_is_what_the_admin_address_says() {
        let nack = Nack {
            reason: "no such filter".to_owned(),
            version: "1".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            resources: Vec::new(),
            rules: Vec::new(),
        };
        let proxies = vec![proxy("web-1", true, None), proxy("store-1", false, Some(nack))];
        let proxies = Proxies { proxies, in_sync: 1, total: 2 };
        let finding = Finding {
            code: "MX0101".to_owned(),
            severity: "error".to_owned(),
            object: None,
            pointer: String::new(),
            message: "broken".to_owned(),
            choices: Vec::new(),
            hint: None,
            location: None,
            text: "traffic.yaml:9:5: MX0101 error: broken".to_owned(),
        };
        let edges = vec![edge("shop/cart", "v1", 8, 8), edge("shop/cart", "v2", 2, 1), edge("shop/store", "", 3, 3)];
        let router = Router::new()
            .route("/readyz", get("ok"))
            .route("/api/v1/proxies", get(Json(proxies)))
            .route("/api/v1/findings", get(Json(Findings { findings: vec![finding] })))
            .route("/api/v1/edges", get(Json(Edges { edges: edges.clone(), mtls_share: None, requests: 13 })));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let control_plane = ControlPlane::new(listener.local_addr().expect("it is bound")).expect("a client");
        let mut tasks = Tasks::default();
        tasks.spawn("server", http::serve(listener, router, tasks.stop_token()));
        let session = async {
            assert!(control_plane.is_ready().await);
            let status = control_plane.status().await.expect("every answer can be read");
            assert_eq!(
                status,
                Status {
                    proxies: 2,
                    in_sync: 1,
                    nacks: vec!["store-1 refused LDS: no such filter".to_owned()],
                    findings: vec!["traffic.yaml:9:5: MX0101 error: broken".to_owned()],
                    edges,
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
