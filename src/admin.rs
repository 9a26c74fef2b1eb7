//! Admin: what the operator sees, over HTTP on a loopback address.
//!
//! Owns: the routes, who may ask (nobody from another site), the server. May use: `report`, `telemetry`, and
//! the [`Status`] that the application publishes. Never: changes anything, or shows a secret: it is given none.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use imbl::OrdMap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use translators::finding::{Finding, Location};
use translators::mesh::Mesh;
use translators::name::{QualifiedName, RuleRef};
use translators::rules::Objects;

use crate::csds::{self, ClientStatus};
use crate::report::Report;
use crate::telemetry::Telemetry;
use crate::telemetry::loads::Loads;

mod analyze;
mod check;
mod effective;
mod guard;
mod prometheus;
mod render;
pub mod rfc3339;
pub mod view;

pub use check::Setting;
pub use effective::effective;
pub use render::finding;

use guard::guard;
use view::Problem;

/// Where a rule stands in its text.
pub type Locate = Arc<dyn Fn(&RuleRef) -> Option<Location> + Send + Sync>;

/// What is wrong with the rules, put together for whoever asks.
pub type List = Arc<dyn Fn() -> Vec<Finding> + Send + Sync>;

/// What the application says of itself.
#[derive(Clone)]
pub struct Status {
    /// Whether proxies can be served; otherwise what is missing, such as a source that has not synced.
    pub ready: Result<(), String>,
    /// What is wrong with the rules.
    pub findings: List,
    /// Where a rule stands.
    pub locate: Locate,
    /// The objects in force.
    pub objects: Objects,
    /// What they come to; `None` before they have been read.
    pub mesh: Option<Mesh>,
    /// How long the certificate of each workload is valid.
    pub certificates: OrdMap<QualifiedName, Validity>,
}

/// How long a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Until when.
    pub not_after: SystemTime,
    /// When it is to be replaced.
    pub renew_at: SystemTime,
}

/// Everything that the API shows. Cloning shares it.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// The connected proxies.
    pub report: Report,
    /// What they measure.
    pub telemetry: Telemetry,
    /// What they send elsewhere.
    pub loads: Loads,
    /// What the process was started with.
    pub setting: Arc<Setting>,
    /// What the application says of itself.
    pub status: watch::Receiver<Arc<Status>>,
}

/// Whom the API may be shown to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// This machine: the default, since the API asks for no credential.
    Loopback,
    /// Whoever reaches the address: for the inside of a container.
    Anywhere,
}

// === impl Status ===

impl Status {
    /// The status of a process that has just begun.
    pub fn starting(reason: impl Into<String>) -> Self {
        Self {
            ready: Err(reason.into()),
            findings: Arc::new(Vec::new),
            locate: Arc::new(|_| None),
            objects: Objects::new(),
            mesh: None,
            certificates: OrdMap::new(),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("ready", &self.ready)
            .field("findings", &(self.findings)())
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

/// Listens on `address`; refuses one that other machines can reach, unless that is what is wanted.
pub async fn bind(address: SocketAddr, exposure: Exposure) -> anyhow::Result<TcpListener> {
    match exposure {
        Exposure::Loopback if !address.ip().is_loopback() => bail!(
            "the admin address {address} is not a loopback address, and the admin API asks for no credential; \
             use 127.0.0.1:{}",
            address.port()
        ),
        Exposure::Loopback | Exposure::Anywhere => {}
    }
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on the admin address {address}"))
}

/// Serves until `stop`; requests that have begun are answered.
pub async fn serve(listener: TcpListener, state: AdminState, stop: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router(state))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("the admin server failed")
}

/// The routes.
pub fn router(state: AdminState) -> Router {
    let status = ClientStatus::of_all(state.report.clone()).into_server();
    Router::new()
        .route("/healthz", get(async || Json(view::Health { status: "ok".to_owned() })))
        .route("/readyz", get(ready))
        .route("/version", get(async || Json(render::build())))
        .route("/metrics", get(metrics))
        .route("/api/v1/proxies", get(proxies))
        .route("/api/v1/nacks", get(nacks))
        .route("/api/v1/edges", get(edges))
        .route("/api/v1/audits", get(audits))
        .route("/api/v1/logs", get(logs))
        .route("/api/v1/loads", get(loads))
        .route("/api/v1/_check", get(checks))
        .route("/api/v1/_analyze", get(analysis))
        .route("/api/v1/_effective", get(effective::answer))
        .route("/api/v1/findings", get(findings))
        .route(csds::PATH, post(client_status))
        .route_service(&format!("/{}/{{*method}}", name_of(&status)), status)
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn(guard))
        .with_state(state)
}

/// The name by which gRPC asks for a service.
fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

// === impl AdminState ===

impl AdminState {
    fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }
}

async fn ready(State(state): State<AdminState>) -> Response {
    match &state.status().ready {
        Ok(()) => Json(view::Health { status: "ok".to_owned() }).into_response(),
        Err(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, reason.clone()),
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match prometheus::text(&state, &state.status()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(fmt::Error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written".to_owned()),
    }
}

async fn proxies(State(state): State<AdminState>) -> Json<view::Proxies> {
    Json(render::proxies(&state.report.proxies(), &state.status()))
}

async fn nacks(State(state): State<AdminState>) -> Json<view::Nacks> {
    Json(render::nacks(&state.report.proxies(), &state.status()))
}

async fn edges(State(state): State<AdminState>) -> Json<view::Edges> {
    Json(render::edges(&state.telemetry.edges()))
}

async fn logs(State(state): State<AdminState>) -> Json<view::Logs> {
    Json(render::logs(state.telemetry.logs()))
}

async fn audits(State(state): State<AdminState>) -> Json<view::Audits> {
    Json(render::audits(&state.telemetry.audited()))
}

async fn loads(State(state): State<AdminState>) -> Json<view::Loads> {
    Json(render::loads(&state.loads))
}

async fn checks(State(state): State<AdminState>) -> Json<view::Checks> {
    Json(check::all(&state))
}

async fn findings(State(state): State<AdminState>) -> Json<view::Findings> {
    let status = state.status();
    Json(render::findings(&(status.findings)(), &status))
}

async fn analysis(State(state): State<AdminState>) -> Json<view::Findings> {
    Json(render::findings(&analyze::all(&state), &state.status()))
}

async fn client_status(State(state): State<AdminState>, question: Bytes) -> Response {
    match ClientStatus::of_all(state.report).poll(&Extensions::new(), &question) {
        (StatusCode::OK, text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        (status, text) => problem(status, text.trim_end().to_owned()),
    }
}

async fn not_found(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} takes {}, not {method}", uri.path(), if uri.path() == csds::PATH { "POST" } else { "GET" }),
    )
}

/// An error as RFC 9457 has it.
fn problem(status: StatusCode, detail: String) -> Response {
    let problem = Problem {
        r#type: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail,
    };
    (status, [(CONTENT_TYPE, "application/problem+json")], Json(problem)).into_response()
}

#[cfg(test)]
mod tests;
