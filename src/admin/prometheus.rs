//! `/metrics`: what the process knows, as Prometheus reads it.
//!
//! Owns: the names of our metrics. May use: prometheus-client, tokio, `report`, `telemetry`. Never: counts on its
//! own: every scrape is written from the state that the rest of the API shows.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;
use translators::finding::Severity;
use translators::resource::Kind;

use super::{AdminState, Status, render};
use crate::escape::escaped;
use crate::report::Responses;
use crate::telemetry::edges::{AuditKey, Audited, Edge, Labelled};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label value; control characters are shown, not sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Text(String);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&escaped(&self.0).as_ref(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProxyAndType {
    node: Text,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySeverity {
    severity: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWorkload {
    workload: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWorker {
    worker: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEdge {
    caller: Text,
    service: Text,
    version: Text,
    mtls: &'static str,
    success: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAudit {
    caller: Text,
    service: Text,
    port: Text,
    version: Text,
    policy: Text,
}

/// Everything, in the OpenMetrics text format.
pub(super) fn text(state: &AdminState, status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("chancery_build", "The running version", build);
    gauge(&mut registry, "chancery_ready", "Whether proxies can be served", u64::from(status.ready.is_ok()));
    proxies(&mut registry, state);
    findings(&mut registry, status);
    certificates(&mut registry, status);
    edges(&mut registry, state);
    audits(&mut registry, state);
    labelled(&mut registry, state);
    loads(&mut registry, state);
    workers(&mut registry);
    if let Some(bytes) = resident_memory() {
        gauge(&mut registry, "process_resident_memory_bytes", "Memory in RAM", bytes);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn proxies(registry: &mut Registry, state: &AdminState) {
    let proxies = state.report.proxies();
    let in_sync = proxies.iter().filter(|proxy| proxy.in_sync()).count();
    gauge(registry, "chancery_proxies", "Connected proxies", proxies.len() as u64);
    gauge(registry, "chancery_proxies_in_sync", "Proxies that have accepted all they were sent", in_sync as u64);

    let (pushes, large_pushes) = (Family::<ByType, Counter>::default(), Family::<ByType, Counter>::default());
    let responses = state.report.responses();
    for kind in Kind::ALL {
        let Responses { sent, large } = responses.get(&kind).copied().unwrap_or_default();
        pushes.get_or_create(&ByType { r#type: kind.service() }).inc_by(sent);
        large_pushes.get_or_create(&ByType { r#type: kind.service() }).inc_by(large);
    }
    registry.register("chancery_pushes", "Responses sent", pushes);
    let help = "Responses sent that are larger than the 4 MiB that a gRPC client takes unless it is told otherwise";
    registry.register("chancery_large_pushes", help, large_pushes);

    let nacks = Family::<ByProxyAndType, Gauge>::default();
    for proxy in &proxies {
        for (kind, _) in proxy.types.iter().filter(|(_, of)| !of.rejections.is_empty()) {
            let labels = ByProxyAndType { node: Text(proxy.node.clone()), r#type: kind.service() };
            nacks.get_or_create(&labels).set(1);
        }
    }
    registry.register("chancery_nacks_active", "Refusals that stand", nacks);
}

fn findings(registry: &mut Registry, status: &Status) {
    let findings = Family::<BySeverity, Gauge>::default();
    let all = (status.findings)();
    for (severity, name) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
        let count = all.iter().filter(|finding| finding.severity == severity).count();
        findings.get_or_create(&BySeverity { severity: name }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("chancery_findings", "Mistakes in the rules", findings);
}

fn certificates(registry: &mut Registry, status: &Status) {
    let expiry = Family::<ByWorkload, Gauge>::default();
    for (workload, validity) in &status.certificates {
        let seconds = validity.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let labels = ByWorkload { workload: Text(workload.to_string()) };
        expiry.get_or_create(&labels).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
    registry.register(
        "chancery_certificate_expiry_timestamp_seconds",
        "Until when the certificate of a workload is valid",
        expiry,
    );
}

fn audits(registry: &mut Registry, state: &AdminState) {
    let refused = Family::<ByAudit, Counter>::default();
    for Audited { key: AuditKey { edge, policy }, requests, .. } in state.telemetry.audited() {
        let labels = ByAudit {
            caller: Text(render::caller(edge.caller.as_ref())),
            service: Text(edge.service.to_string()),
            port: Text(edge.port.to_string()),
            version: Text(edge.version.to_string()),
            policy: Text(policy.to_string()),
        };
        refused.get_or_create(&labels).inc_by(requests);
    }
    registry.register("chancery_audit_denied", "Requests that an audited access rule would have refused", refused);
}

/// Requests by the labels that policies add.
fn labelled(registry: &mut Registry, state: &AdminState) {
    let requests = Family::<Vec<(String, Text)>, Counter>::default();
    for Labelled { edge, labels, requests: count } in state.telemetry.labelled() {
        let own = [
            ("caller", render::caller(edge.caller.as_ref())),
            ("service", edge.service.to_string()),
            ("version", edge.version.to_string()),
            ("port", edge.port.to_string()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let further = labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let shown = own.chain(further).map(|(name, value)| (name, Text(value)));
        requests.get_or_create(&shown.collect()).inc_by(count);
    }
    registry.register("chancery_labelled_requests", "Requests with the labels that policies add", requests);
    let entries = Counter::<u64>::default();
    entries.inc_by(state.telemetry.logs().received());
    registry.register("chancery_access_log_entries", "Entries of access logs that proxies sent", entries);
}

fn edges(registry: &mut Registry, state: &AdminState) {
    let requests = Family::<ByEdge, Counter>::default();
    for Edge { key, totals } in state.telemetry.edges() {
        for (mtls, success, count) in [
            ("true", "true", totals.mtls_successes),
            ("true", "false", totals.mtls_failures),
            ("false", "true", totals.plain_successes),
            ("false", "false", totals.plain_failures),
        ] {
            if count > 0 {
                let caller = Text(render::caller(key.caller.as_ref()));
                let (service, version) = (Text(key.service.to_string()), Text(key.version.to_string()));
                requests.get_or_create(&ByEdge { caller, service, version, mtls, success }).inc_by(count);
            }
        }
    }
    registry.register("chancery_edge_requests", "Requests, or TCP connections, that proxies reported", requests);

    let lost = Family::<ByReason, Counter>::default();
    let losses = state.telemetry.losses();
    lost.get_or_create(&ByReason { reason: "refused" }).inc_by(losses.refused);
    lost.get_or_create(&ByReason { reason: "overflow" }).inc_by(losses.overflowed);
    registry.register("chancery_telemetry_lost", "Reported counters that were not counted", lost);
}

fn loads(registry: &mut Registry, state: &AdminState) {
    let reporters = state.loads.reporters().len() as u64;
    gauge(registry, "chancery_load_reporters", "Proxies that report their load", reporters);
    let lost = Counter::<u64>::default();
    lost.inc_by(state.loads.lost());
    registry.register("chancery_load_reports_lost", "Reports of a cluster that were not kept", lost);
}

/// The threads that serve connections, one for each core, and how long each of them had something to do.
fn workers(registry: &mut Registry) {
    let busy = Family::<ByWorker, Counter<f64, AtomicU64>>::default();
    let Ok(runtime) = Handle::try_current().map(|runtime| runtime.metrics()) else { return };
    for worker in 0..runtime.num_workers() {
        let seconds = runtime.worker_total_busy_duration(worker).as_secs_f64();
        busy.get_or_create(&ByWorker { worker }).inc_by(seconds);
    }
    let help = "Time that a thread which serves connections was busy";
    registry.register_with_unit("chancery_worker_busy", help, Unit::Seconds, busy);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

/// What Linux says that this process holds in RAM; elsewhere nothing.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
