//! The metrics service: `envoy.service.metrics.v3.MetricsService`, beside ADS on the same port.
//!
//! Owns: who may report, and reading the counters of our listeners out of a report. May use: tonic, the names
//! of the metrics. Never: adds up; that is `edges`'. A proxy reports only for services that its own workload
//! serves; whatever else it says is counted as refused.

use std::sync::Arc;
use std::time::SystemTime;

use proto::envoy::service::metrics::v3 as metrics_pb;
use proto::io::prometheus::client as prometheus_pb;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use translators::mesh::Protocol;
use translators::name::{QualifiedName, SpiffeId};
use translators::telemetry_names as names;

use super::edges::{AuditKey, Audited, EdgeKey, Labels, Sample, Series};
use super::{Report, Telemetry};

/// Longer versions and flags than these are nobody's.
const LONGEST_TAG: usize = 253;
/// A counter with more further labels is not one of ours.
const MOST_LABELS: usize = 64;
/// Counters beyond this are not exact as a double, and no counter of requests.
const LARGEST_COUNT: f64 = 9_007_199_254_740_992.0;

/// Whom a credential names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// Its workload; a reporter without one serves nothing, and reports nothing.
    pub workload: Option<QualifiedName>,
    /// The node that the credential is bound to.
    pub node: String,
}

/// Tells whose connection a request came on.
pub trait Authenticator: Send + Sync + 'static {
    /// The bearer of the connection's credential, or UNAUTHENTICATED.
    fn authenticate(&self, extensions: &http::Extensions) -> Result<Reporter, Status>;
}

/// What `workload` speaks on this port, by name, of `service`: `None` unless it serves it.
pub type Serves = Arc<
    dyn Fn(
            &QualifiedName, /* workload */
            &QualifiedName, /* service */
            &str,           /* port */
        ) -> Option<Protocol>
        + Send
        + Sync,
>;

/// The service.
pub struct MetricsService {
    authenticator: Arc<dyn Authenticator>,
    telemetry: Telemetry,
    serves: Serves,
    stop: CancellationToken,
}

// === impl MetricsService ===

impl MetricsService {
    /// A service that enters into `telemetry` what authenticated proxies report, until `stop`.
    pub fn new(
        authenticator: Arc<dyn Authenticator>,
        telemetry: Telemetry,
        serves: Serves,
        stop: CancellationToken,
    ) -> Self {
        Self { authenticator, telemetry, serves, stop }
    }

    /// The service as tonic mounts it.
    pub fn into_server(self) -> metrics_pb::metrics_service_server::MetricsServiceServer<Self> {
        metrics_pb::metrics_service_server::MetricsServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl metrics_pb::metrics_service_server::MetricsService for MetricsService {
    async fn stream_metrics(
        &self,
        request: Request<Streaming<metrics_pb::StreamMetricsMessage>>,
    ) -> Result<Response<metrics_pb::StreamMetricsResponse>, Status> {
        let reporter = self.authenticator.authenticate(request.extensions())?;
        let stream = Open::new(self.telemetry.clone(), &reporter.node);
        info!(node = %reporter.node.escape_debug(), "metrics stream opened");
        let mut messages = request.into_inner();
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                () = self.stop.cancelled() => return Err(Status::unavailable("the control plane is stopping")),
            };
            let Some(message) = message else { break };
            let report = read(&message.envoy_metrics, &reporter, &self.serves);
            for Audited { key: AuditKey { edge, policy }, requests, .. } in stream.record(report)? {
                let caller = edge.caller.map_or_else(|| "unknown".to_owned(), |caller| caller.to_string());
                let policy = policy.escape_debug();
                info!(%caller, service = %edge.service, port = %edge.port, %policy, requests, "an audit would refuse");
            }
        }
        Ok(Response::new(metrics_pb::StreamMetricsResponse {}))
    }
}

/// An open stream; dropping it, however it ends, closes it.
struct Open {
    telemetry: Telemetry,
    id: super::StreamId,
}

// === impl Open ===

impl Open {
    fn new(telemetry: Telemetry, node: &str) -> Self {
        let id = telemetry.open(node, SystemTime::now());
        Self { telemetry, id }
    }

    fn record(&self, report: Report) -> Result<Vec<Audited>, Status> {
        self.telemetry
            .record(&self.id, report, SystemTime::now())
            .map_err(|superseded| Status::aborted(superseded.to_string()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.telemetry.close(&self.id, SystemTime::now());
        debug!("metrics stream closed");
    }
}

/// Reads a message: our counters and the uptime; every other family is passed over.
fn read(families: &[prometheus_pb::MetricFamily], reporter: &Reporter, serves: &Serves) -> Report {
    let mut report = Report::default();
    for family in families {
        match family.name() {
            names::REQUESTS_FAMILY | names::AUDITED_FAMILY => {
                let audited = family.name() == names::AUDITED_FAMILY;
                for metric in &family.metric {
                    match reporter.workload.as_ref().and_then(|workload| sample(metric, audited, workload, serves)) {
                        Some(sample) => report.samples.push(sample),
                        None => report.refused += 1,
                    }
                }
            }
            names::UPTIME_FAMILY => {
                let gauge = family.metric.first().and_then(|metric| metric.gauge.as_ref());
                report.uptime = gauge.and_then(|gauge| count(gauge.value())).or(report.uptime);
            }
            _ => {}
        }
    }
    report
}

/// One counter, of an audit or of all requests, if it is whole and `workload` may report it.
fn sample(metric: &prometheus_pb::Metric, audited: bool, workload: &QualifiedName, serves: &Serves) -> Option<Sample> {
    let tag = |name: &str| metric.label.iter().find(|label| label.name() == name).map(|label| label.value());
    let bounded = |name: &str| tag(name).filter(|value| value.len() <= LONGEST_TAG);
    let service: QualifiedName = tag(names::SERVICE)?.parse().ok()?;
    let port = tag(names::PORT)?;
    let protocol = serves(workload, &service, port)?;
    let mtls = match tag(names::MTLS)? {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    // Only mTLS proves an identity; on any other chain the tag is what somebody claims.
    let caller: Option<SpiffeId> = tag(names::CALLER).filter(|_| mtls).and_then(|caller| caller.parse().ok());
    let version = match tag(names::VERSION) {
        None | Some(names::NONE) => "",
        Some(_) => bounded(names::VERSION)?,
    };
    let (code, flags, policy) = if audited {
        (0, names::NONE, Some(bounded(names::POLICY)?.into()))
    } else {
        let code = match tag(names::CODE)? {
            "" | names::NONE => 0,
            code => code.parse().ok()?,
        };
        let flags = match tag(names::FLAGS) {
            None => names::NONE,
            Some(_) => bounded(names::FLAGS)?,
        };
        (code, flags, None)
    };
    let further = metric.label.iter().filter(|label| !names::LABELS.contains(&label.name()));
    let labels: Labels = further.map(|label| (label.name().into(), label.value().into())).collect();
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let is_whole = |(name, value): (&Arc<str>, &Arc<str>)| {
        is_name(name) && name.len() <= LONGEST_TAG && value.len() <= LONGEST_TAG
    };
    if labels.len() > MOST_LABELS || !labels.iter().all(is_whole) {
        return None;
    }
    let series = Series {
        edge: EdgeKey { caller, service, version: version.into(), port: port.into(), protocol },
        mtls,
        code,
        flags: flags.into(),
        policy,
        labels: Arc::new(labels),
    };
    Some(Sample { series, value: count(metric.counter.as_ref()?.value())? })
}

/// A double as a count, if it is one.
fn count(value: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was just checked")]
    (0.0..=LARGEST_COUNT).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests;
