//! The shapes of the admin API: what it writes and what the commands read, declared once.
//!
//! Owns: the JSON of `/api/v1`. May use: serde. Never: computes; `admin::render` fills these in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `/api/v1/proxies`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxies {
    /// The connected proxies, in the order in which their streams began.
    pub proxies: Vec<Proxy>,
    /// How many of them have accepted everything that they were sent.
    pub in_sync: usize,
    /// How many there are.
    pub total: usize,
}

/// One connected proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its node id.
    pub node: String,
    /// Its workload, `namespace/name`; `EnvoySnapshot namespace/name` where one is what it receives.
    pub workload: String,
    /// The address that it is reached at.
    pub address: String,
    /// How it is known who it is.
    pub known_by: KnownBy,
    /// The version of its Envoy; empty if it did not say.
    pub envoy: String,
    /// `delta` or `sotw`.
    pub protocol: String,
    /// When its stream began, RFC 3339.
    pub connected: String,
    /// Whether it has accepted everything that it was sent.
    pub in_sync: bool,
    /// What was sent and what came back, by `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
    pub types: BTreeMap<String, Type>,
    /// The certificate of its workload, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// How it is known who a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KnownBy {
    /// It has shown a certificate.
    Certificate,
    /// It says so, on the plaintext address: nobody has shown that it is true.
    NodeId,
}

/// One type of resource on one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Type {
    /// The version last sent.
    pub sent: Option<String>,
    /// The version last accepted.
    pub acked: Option<String>,
    /// How many resources are subscribed to by name; null for all.
    pub subscribed: Option<usize>,
    /// Responses sent on this stream.
    pub responses: u64,
    /// The last refusal, until a later response is accepted.
    pub nack: Option<Nack>,
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nack {
    /// What the proxy said.
    pub reason: String,
    /// The version that was refused.
    pub version: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The resources that it refused, as far as its words tell.
    pub resources: Vec<String>,
    /// The rules that made them.
    pub rules: Vec<Rule>,
}

/// A rule, and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The object, `TrafficRoute shop/cart`.
    pub object: String,
    /// The place in it, as a JSON pointer.
    pub pointer: String,
    /// Its place in a text, where it came from one.
    #[serde(flatten)]
    pub place: Option<Place>,
}

/// A place in a file; both numbers start at 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// The certificate of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Until when it is valid, RFC 3339.
    pub not_after: String,
}

/// `/api/v1/nacks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nacks {
    /// Every refusal that stands, by proxy and type.
    pub nacks: Vec<ProxyNack>,
    /// How many there are.
    pub total: usize,
}

/// One refusal, with who refused what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyNack {
    /// The node id of the proxy.
    pub node: String,
    /// Its workload.
    pub workload: String,
    /// `CDS`, `EDS`, `LDS`, `RDS` or `SDS`.
    pub r#type: String,
    /// The refusal.
    #[serde(flatten)]
    pub nack: Nack,
}

/// `/api/v1/edges`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edges {
    /// Who called what, by caller, service, version and port.
    pub edges: Vec<Edge>,
    /// The share of all requests that came over mTLS; null before the first.
    pub mtls_share: Option<f64>,
    /// All requests.
    pub requests: u64,
}

/// One edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The caller: `namespace/account`, its whole identity if that has another form, or `unknown`.
    pub caller: String,
    /// The caller's SPIFFE id; null if it had none.
    pub caller_identity: Option<String>,
    /// The service, `namespace/name`.
    pub service: String,
    /// The version that answered; empty if it has none.
    pub version: String,
    /// The name of the service's port.
    pub port: String,
    /// What is spoken on it: `http`, `http2`, `grpc` or `tcp`.
    pub protocol: String,
    /// Requests; TCP: connections.
    pub requests: u64,
    /// Those that were answered, and not by a 5xx.
    pub successes: u64,
    /// Their share; null before the first request.
    pub success_rate: Option<f64>,
    /// Those that came over mTLS.
    pub mtls_requests: u64,
    /// Their share; null before the first request.
    pub mtls_share: Option<f64>,
    /// When a proxy last reported a further one, RFC 3339.
    pub last_seen: String,
}

/// `/api/v1/audits`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audits {
    /// Whom audited rules would have refused, by caller, service, version, port and rule.
    pub audits: Vec<Audit>,
}

/// Requests that an audited rule would have refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The caller: `namespace/account`, its whole identity if that has another form, or `unknown`.
    pub caller: String,
    /// The caller's SPIFFE id; null if it had none.
    pub caller_identity: Option<String>,
    /// The service, `namespace/name`.
    pub service: String,
    /// The version that answered; empty if it has none.
    pub version: String,
    /// The name of the service's port.
    pub port: String,
    /// The rule: an entry of an AccessPolicy, or its default.
    pub policy: String,
    /// Requests; TCP: connections.
    pub requests: u64,
    /// When a proxy last reported a further one, RFC 3339.
    pub last_seen: String,
}

/// `/api/v1/logs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    /// The newest entries, the newest first.
    pub logs: Vec<Log>,
    /// How many have come since the control plane started.
    pub received: u64,
}

/// A request, or a TCP connection, that a proxy logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// When it began, RFC 3339.
    pub time: String,
    /// The node id of the proxy.
    pub node: String,
    /// Its workload, `namespace/name`; null for a proxy that has none.
    pub workload: Option<String>,
    /// The listener that took it.
    pub listener: String,
    /// The method; empty of a connection, as all of these.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path, without the query.
    pub path: String,
    /// The status; 0 for none.
    pub status: u32,
    /// What the proxies call the request.
    pub request_id: String,
    /// How it ended, in Envoy's words.
    pub details: String,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Whom its certificate names; empty for nobody.
    pub caller: String,
    /// Where it came from.
    pub source: String,
    /// Where it was sent; empty for nowhere.
    pub upstream: String,
}

/// `/api/v1/loads`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loads {
    /// The last report of each proxy on each cluster, by node id and cluster.
    pub loads: Vec<Load>,
    /// How many proxies report.
    pub reporters: usize,
}

/// The last report of a proxy on a cluster that it sends requests to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// The node id of the proxy.
    pub node: String,
    /// Its workload, `namespace/name`; `EnvoySnapshot namespace/name` where one is what it receives.
    pub workload: String,
    /// The cluster.
    pub cluster: String,
    /// The name that the cluster's endpoints go by, if it is another; else empty.
    pub service: String,
    /// When it was reported, RFC 3339.
    pub at: String,
    /// How many seconds the report is about.
    pub seconds: f64,
    /// Requests in that time that the proxy dropped before it had chosen an endpoint.
    pub dropped: u64,
    /// Requests in that time to each locality; none if there was no request.
    pub localities: Vec<LocalityLoad>,
}

/// The requests to one locality of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityLoad {
    /// `region/zone/sub-zone`; empty if its endpoints have none.
    pub locality: String,
    /// Its priority.
    pub priority: u32,
    /// Requests that were begun.
    pub requests: u64,
    /// Requests that have succeeded.
    pub successes: u64,
    /// Requests that have failed.
    pub errors: u64,
    /// Requests that are under way.
    pub in_progress: u64,
}

/// `/api/v1/findings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// What is wrong with the rules.
    pub findings: Vec<Finding>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The stable code, `MX0101`.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// The object, when it could be told.
    pub object: Option<String>,
    /// The place in it, as a JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, if that can be listed.
    pub choices: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where it stands.
    pub location: Option<Place>,
    /// All of it in one line.
    pub text: String,
}

/// `/api/v1/_effective?service=NS/NAME` and `?workload=NS/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// What is described, and where it stands.
    pub subject: Rule,
    /// What holds for it.
    pub sections: Vec<Section>,
    /// The connected proxies that serve it or are its instances, by workload; null where no control plane was asked.
    pub proxies: Option<BTreeMap<String, Connected>>,
}

/// Values that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    /// What they are about: `port http`.
    pub title: String,
    /// The values.
    pub values: Vec<EffectiveValue>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveValue {
    /// Its name.
    pub name: String,
    /// The value; null is none, or without limit.
    pub value: serde_json::Value,
    /// The rule that says so; null is built in.
    pub from: Option<Rule>,
}

/// How many proxies are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    /// All of them.
    pub total: usize,
    /// Those that have accepted everything that they were sent.
    pub in_sync: usize,
}

/// `/api/v1/_check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// Every check, by group.
    pub checks: Vec<Check>,
    /// How many of them warn.
    pub warnings: usize,
    /// How many of them fail.
    pub failures: usize,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What it is about: `control plane`, `identity`, `rules`, `proxies`.
    pub group: String,
    /// Its name within the group.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do; null if it is well.
    pub hint: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// Something does not work.
    Fail,
}

/// `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// `/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Why a request was not answered: `application/problem+json`, RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here, and what to do.
    pub detail: String,
}
