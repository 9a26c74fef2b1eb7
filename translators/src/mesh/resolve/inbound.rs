//! TrafficPolicies, what a service takes: the values, and what they put in place of what there is.
//!
//! Owns: what is wrong with these values. May use: `rules`, `checks`. Never: which policy is above another.

use std::time::Duration;

use super::checks;
use super::gateways::Gateways;
use super::levels::Level;
use super::report::Report;
use super::services::Services;
use super::settings::limit;
use crate::finding::Code;
use crate::mesh::{Adaptive, Fault, Inbound, RateKey};
use crate::name::RuleRef;
use crate::rules::inbound::{AdaptiveSpec, InboundSpec};
use crate::rules::scalar::{Setting, Span};

/// Where these settings stand in a policy.
const AT: &str = "/spec/inbound";

/// What one policy says of what a service takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    written: InboundSpec,
    rate_limit: Setting<crate::mesh::RateLimit>,
    fault: Setting<Fault>,
}

// === impl Settings ===

impl Settings {
    /// What `written` says, and what is wrong with it.
    pub(super) fn of(written: &InboundSpec, report: &mut Report<'_>) -> Self {
        let limit = written.rate_limit.clone();
        let rate_limit = limit.map(|limit| checks::rate_limit(&limit, &format!("{AT}/rateLimit"), report));
        let fault = written.fault.clone();
        let fault = fault.map(|fault| checks::fault(&fault, &format!("{AT}/fault"), report));
        if let Setting::Given(written) = &written.adaptive_concurrency {
            check_adaptive(written, report);
        }
        Self { written: written.clone(), rate_limit, fault }
    }

    /// Says which of them do nothing on the one port that the policy is for.
    pub(super) fn check_port(&self, level: &Level, services: &Services, report: &mut Report<'_>) {
        let Level::Port(service, port) = level else { return };
        let declared = services.get(service).and_then(|declared| declared.ports.iter().find(|p| p.name == *port));
        if declared.is_none_or(|port| port.protocol.is_http()) {
            return;
        }
        let InboundSpec { rate_limit, fault, request_timeout, adaptive_concurrency, .. } = &self.written;
        let of_requests = [
            ("rateLimit", !rate_limit.is_inherit()),
            ("fault", !fault.is_inherit()),
            ("requestTimeout", !request_timeout.is_inherit()),
            ("adaptiveConcurrency", !adaptive_concurrency.is_inherit()),
        ];
        for (field, _) in of_requests.into_iter().filter(|(_, is_written)| *is_written) {
            let message = format!("there are no requests on the tcp port {port}");
            report.error(Code::InvalidValue, format!("{AT}/{field}"), message).hint =
                Some("leave it out, or write protocol: http if the port speaks it".to_owned());
        }
    }

    /// Says which of them do nothing on the gateway that the policy is for.
    pub(super) fn check_gateway(&self, level: &Level, gateways: &Gateways, report: &mut Report<'_>) {
        let Level::Gateway(name, listener) = level else { return };
        let InboundSpec { rate_limit, fault, request_timeout, adaptive_concurrency, .. } = &self.written;
        if !request_timeout.is_inherit() {
            let message = "how long a request from outside may take is said where it goes";
            report.error(Code::InvalidValue, format!("{AT}/requestTimeout"), message).hint =
                Some("write timeout in the rules of the gateway's TrafficRoutes".to_owned());
        }
        if let Setting::Given(limit) = &self.rate_limit
            && limit.key == Some(RateKey::Caller)
        {
            let message = "clients of a gateway have no identity of the mesh: all of them would share one bucket";
            report.error(Code::NoIdentity, format!("{AT}/rateLimit/key"), message).choices =
                ["ip", "header"].map(str::to_owned).to_vec();
        }
        let Some(gateway) = gateways.get(name) else { return };
        if gateway.chosen(listener.as_deref()).any(|(_, of)| of.takes_requests()) {
            return;
        }
        let of_requests = [
            ("rateLimit", !rate_limit.is_inherit()),
            ("fault", !fault.is_inherit()),
            ("adaptiveConcurrency", !adaptive_concurrency.is_inherit()),
        ];
        for (field, _) in of_requests.into_iter().filter(|(_, is_written)| *is_written) {
            let message = "there are no requests on a listener of tcp or tls";
            report.error(Code::InvalidValue, format!("{AT}/{field}"), message).hint = Some("leave it out".to_owned());
        }
    }

    /// What of it is written.
    pub(super) fn fields(&self) -> Vec<&'static str> {
        let InboundSpec { rate_limit, fault, max_connections, request_timeout, buffer_limit, adaptive_concurrency } =
            &self.written;
        let fields = [
            ("rateLimit", rate_limit.is_inherit()),
            ("fault", fault.is_inherit()),
            ("maxConnections", max_connections.is_inherit()),
            ("requestTimeout", request_timeout.is_inherit()),
            ("bufferLimit", buffer_limit.is_inherit()),
            ("adaptiveConcurrency", adaptive_concurrency.is_inherit()),
        ];
        fields.into_iter().filter(|(_, is_inherit)| !is_inherit).map(|(field, _)| field).collect()
    }

    /// Puts what is written in place of what there is.
    pub(super) fn apply(&self, inbound: &mut Inbound, origin: impl Fn(&str) -> RuleRef) {
        let at = |field: &str| origin(&format!("{AT}/{field}"));
        let Self { written, rate_limit, fault } = self;
        inbound.rate_limit.settle(rate_limit.clone().map(Some), || None, || at("rateLimit"));
        let fault = fault.clone().map(|fault| Some(merged(fault, inbound.fault.value.as_ref())));
        inbound.fault.settle(fault, || None, || at("fault"));
        inbound.max_connections.settle(written.max_connections.map(Some), || None, || at("maxConnections"));
        inbound.request_timeout.settle(written.request_timeout.map(limit), || None, || at("requestTimeout"));
        inbound.buffer_limit.settle(written.buffer_limit.map(Some), || None, || at("bufferLimit"));
        let below = inbound.adaptive_concurrency.value.unwrap_or_default();
        let adaptive = written.adaptive_concurrency.clone().map(|written| Some(adapted(&written, below)));
        inbound.adaptive_concurrency.settle(adaptive, || None, || at("adaptiveConcurrency"));
    }
}

/// A fault above another: what it does not say of the one below stays.
fn merged(fault: Fault, below: Option<&Fault>) -> Fault {
    let Some(below) = below else { return fault };
    Fault {
        delay: fault.delay.or(below.delay),
        abort: fault.abort.or(below.abort),
        headers: if fault.headers.is_empty() { below.headers.clone() } else { fault.headers },
    }
}

fn adapted(written: &AdaptiveSpec, below: Adaptive) -> Adaptive {
    let span = |written: Option<Span>, below: Duration| written.map_or(below, |Span(span)| span);
    Adaptive {
        min_concurrent: written.min_concurrent.unwrap_or(below.min_concurrent),
        max_concurrent: written.max_concurrent.unwrap_or(below.max_concurrent),
        update: span(written.update, below.update),
        measure: span(written.measure, below.measure),
    }
}

fn check_adaptive(written: &AdaptiveSpec, report: &mut Report<'_>) {
    let at = |field: &str| format!("{AT}/adaptiveConcurrency/{field}");
    for (field, span) in [("update", written.update), ("measure", written.measure)] {
        if let Some(span) = span.filter(|Span(span)| *span < Duration::from_millis(1)) {
            report.error(Code::InvalidValue, at(field), format!("{span} is too short: write 1ms or more"));
        }
    }
    if let (Some(least), Some(most)) = (written.min_concurrent, written.max_concurrent)
        && least > most
    {
        report.error(Code::InvalidValue, at("minConcurrent"), format!("{least} is more than maxConcurrent, {most}"));
    }
}
