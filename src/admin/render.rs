//! What the process knows, as the API shows it.
//!
//! Owns: filling in the shapes of `view`. May use: `report`, `telemetry`, findings. Never: keeps anything.

use translators::finding::{Finding, Location};
use translators::mesh::Protocol;
use translators::name::{RuleRef, SpiffeId};
use translators::resource::Kind;

use super::{Status, rfc3339, view};
use crate::report::{Proxy, Rejection, TypeStatus};
use crate::telemetry::edges::{AuditKey, Audited, Edge};
use crate::telemetry::loads::{Load, Loads, LocalityLoad};
use crate::telemetry::logs::{Asked, Entry, Logs};

pub(super) fn build() -> view::Build {
    view::Build { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

pub(super) fn proxies(proxies: &[Proxy], status: &Status) -> view::Proxies {
    view::Proxies {
        proxies: proxies.iter().map(|shown| proxy(shown, status)).collect(),
        in_sync: proxies.iter().filter(|proxy| proxy.in_sync()).count(),
        total: proxies.len(),
    }
}

fn proxy(proxy: &Proxy, status: &Status) -> view::Proxy {
    let one_type = |(kind, of): (&Kind, &TypeStatus)| {
        let shown = view::Type {
            sent: of.sent.map(|version| version.to_string()),
            acked: of.acked.map(|version| version.to_string()),
            subscribed: of.subscribed,
            responses: of.responses,
            nack: of.rejections.last().map(|rejection| nack(rejection, status)),
        };
        (kind.service().to_owned(), shown)
    };
    view::Proxy {
        node: proxy.node.clone(),
        workload: proxy.owner.to_string(),
        address: proxy.address.to_string(),
        known_by: if proxy.proven { view::KnownBy::Certificate } else { view::KnownBy::NodeId },
        envoy: proxy.envoy.clone(),
        protocol: proxy.protocol.to_owned(),
        connected: rfc3339::format(proxy.connected),
        in_sync: proxy.in_sync(),
        types: proxy.types.iter().map(one_type).collect(),
        certificate: proxy
            .owner
            .workload()
            .and_then(|workload| status.certificates.get(workload))
            .map(|validity| view::Certificate { not_after: rfc3339::format(validity.not_after) }),
    }
}

/// A rule, and where it stands.
pub(super) fn rule(rule: &RuleRef, locate: &dyn Fn(&RuleRef) -> Option<Location>) -> view::Rule {
    view::Rule {
        object: rule.object.to_string(),
        pointer: rule.pointer.clone(),
        place: locate(rule).as_ref().map(place),
    }
}

pub(super) fn nacks(proxies: &[Proxy], status: &Status) -> view::Nacks {
    let mut nacks = Vec::new();
    for proxy in proxies {
        for (kind, of) in &proxy.types {
            for rejection in &of.rejections {
                nacks.push(view::ProxyNack {
                    node: proxy.node.clone(),
                    workload: proxy.owner.to_string(),
                    r#type: kind.service().to_owned(),
                    nack: nack(rejection, status),
                });
            }
        }
    }
    view::Nacks { total: nacks.len(), nacks }
}

fn nack(rejection: &Rejection, status: &Status) -> view::Nack {
    view::Nack {
        reason: rejection.reason.clone(),
        version: rejection.version.to_string(),
        since: rfc3339::format(rejection.since),
        resources: rejection.resources.iter().map(ToString::to_string).collect(),
        rules: rejection.rules.iter().map(|origin| rule(origin, &*status.locate)).collect(),
    }
}

fn place(location: &Location) -> view::Place {
    view::Place { file: location.file.to_string(), line: location.line, column: location.column }
}

pub(super) fn edges(edges: &[Edge]) -> view::Edges {
    let shown: Vec<_> = edges.iter().map(edge).collect();
    let sum = |of: fn(&view::Edge) -> u64| shown.iter().map(of).fold(0, u64::saturating_add);
    let requests = sum(|edge| edge.requests);
    view::Edges { mtls_share: share(sum(|edge| edge.mtls_requests), requests), requests, edges: shown }
}

fn edge(Edge { key, totals }: &Edge) -> view::Edge {
    let requests = totals.requests();
    view::Edge {
        caller: caller(key.caller.as_ref()),
        caller_identity: key.caller.as_ref().map(ToString::to_string),
        service: key.service.to_string(),
        version: key.version.to_string(),
        port: key.port.to_string(),
        protocol: protocol(key.protocol).to_owned(),
        requests,
        successes: totals.successes(),
        success_rate: share(totals.successes(), requests),
        mtls_requests: totals.mtls_requests(),
        mtls_share: share(totals.mtls_requests(), requests),
        last_seen: rfc3339::format(totals.last_seen),
    }
}

pub(super) fn audits(audited: &[Audited]) -> view::Audits {
    let audit = |Audited { key: AuditKey { edge, policy }, requests, last_seen }: &Audited| view::Audit {
        caller: caller(edge.caller.as_ref()),
        caller_identity: edge.caller.as_ref().map(ToString::to_string),
        service: edge.service.to_string(),
        version: edge.version.to_string(),
        port: edge.port.to_string(),
        policy: policy.to_string(),
        requests: *requests,
        last_seen: rfc3339::format(*last_seen),
    };
    view::Audits { audits: audited.iter().map(audit).collect() }
}

pub(super) fn logs(logs: &Logs) -> view::Logs {
    view::Logs { logs: logs.newest().into_iter().map(log).collect(), received: logs.received() }
}

fn log(entry: Entry) -> view::Log {
    let nothing = || Asked {
        method: String::new(),
        host: String::new(),
        path: String::new(),
        status: 0,
        request_id: String::new(),
    };
    let Asked { method, host, path, status, request_id } = entry.request.unwrap_or_else(nothing);
    view::Log {
        time: rfc3339::format(entry.time),
        node: entry.node.to_string(),
        workload: entry.workload.map(|workload| workload.to_string()),
        listener: entry.listener,
        method,
        host,
        path,
        status,
        request_id,
        details: entry.details,
        duration_ms: entry.duration.as_secs_f64() * 1000.0,
        caller: entry.caller,
        source: entry.source,
        upstream: entry.upstream,
    }
}

/// A caller as people know it: `namespace/account`, or the whole id where it has another form.
pub(super) fn caller(identity: Option<&SpiffeId>) -> String {
    let Some(identity) = identity else { return "unknown".to_owned() };
    let path: Vec<&str> = identity.as_str().split('/').skip(3).collect();
    match path[..] {
        ["ns", namespace, "sa", account] => format!("{namespace}/{account}"),
        _ => identity.to_string(),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is rounded anyway")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

pub(super) fn loads(loads: &Loads) -> view::Loads {
    let shown = loads.snapshot().into_iter().map(|Load { node, owner, at, load }| view::Load {
        node: node.to_string(),
        workload: owner.to_string(),
        cluster: load.cluster,
        service: load.service,
        at: rfc3339::format(at),
        seconds: load.interval.as_secs_f64(),
        dropped: load.dropped,
        localities: load.localities.into_iter().map(locality).collect(),
    });
    view::Loads { loads: shown.collect(), reporters: loads.reporters().len() }
}

fn locality(load: LocalityLoad) -> view::LocalityLoad {
    view::LocalityLoad {
        locality: load.locality.join("/").trim_end_matches('/').to_owned(),
        priority: load.priority,
        requests: load.issued,
        successes: load.succeeded,
        errors: load.failed,
        in_progress: load.active,
    }
}

pub(super) fn findings(findings: &[Finding], status: &Status) -> view::Findings {
    view::Findings { findings: findings.iter().map(|shown| finding(&placed(shown, status))).collect() }
}

/// The same with its place, where the rule still stands in one.
pub(super) fn placed(finding: &Finding, status: &Status) -> Finding {
    let look_up = || (status.locate)(&RuleRef::new(finding.object.clone()?, finding.pointer.clone()));
    finding.clone().at(finding.location.clone().or_else(look_up))
}

/// One finding, which knows its place.
pub fn finding(located: &Finding) -> view::Finding {
    view::Finding {
        code: located.code.as_str().to_owned(),
        severity: located.severity.to_string(),
        object: located.object.as_ref().map(ToString::to_string),
        pointer: located.pointer.clone(),
        message: located.message.clone(),
        choices: located.choices.clone(),
        hint: located.hint.clone(),
        location: located.location.as_ref().map(place),
        text: located.to_string(),
    }
}
