//! The Mesh object: settings of the whole mesh, with the built-in defaults below them.
//!
//! Owns: what the Mesh says above what is built in. May use: `rules`. Never: looks at a service.

use std::sync::Arc;
use std::time::Duration;

use super::keys::{self, Providers};
use super::providers;
use super::report::Report;
use super::retry;
use crate::finding::Code;
use crate::mesh::{AccessDefault, MtlsMode, Outbound, Sourced};
use crate::name::{RuleRef, TrustDomain};
use crate::rules::mesh::MeshSpec;
use crate::rules::scalar::{Setting, Span};

/// The namespace of what concerns the whole mesh.
pub(super) const ROOT_NAMESPACE: &str = "mesh-system";

/// What holds where no rule says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub trust_domain: Sourced<TrustDomain>,
    pub leaf_ttl: Sourced<Duration>,
    pub mtls: Sourced<MtlsMode>,
    pub access: Sourced<AccessDefault>,
    /// How calls are made.
    pub outbound: Arc<Outbound>,
    pub jwt_providers: Providers,
    pub telemetry_providers: Arc<providers::Providers>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self::built_in()
    }
}

impl Settings {
    /// Every built-in default.
    pub(super) fn built_in() -> Self {
        Self {
            trust_domain: Sourced::built_in("cluster.local".parse().expect("a trust domain")),
            leaf_ttl: Sourced::built_in(Duration::from_secs(24 * 60 * 60)),
            mtls: Sourced::built_in(MtlsMode::Permissive),
            access: Sourced::built_in(AccessDefault::Allow),
            outbound: Arc::clone(Outbound::built_in()),
            jwt_providers: Providers::new(),
            telemetry_providers: Arc::default(),
        }
    }

    /// What the Mesh object says, above the built-in defaults.
    pub(super) fn of(spec: &MeshSpec, report: &mut Report<'_>) -> Self {
        let key = report.object.key.clone();
        if key.name.namespace.as_str() != ROOT_NAMESPACE {
            report
                .error(Code::InvalidValue, "/metadata/namespace", "the Mesh belongs in the root namespace")
                .choices
                .push(ROOT_NAMESPACE.to_owned());
        }
        if key.name.name.as_str() != "default" {
            report
                .error(Code::InvalidValue, "/metadata/name", "there is one Mesh, and it is called default")
                .choices
                .push("default".to_owned());
        }
        let origin = |pointer: &str| RuleRef::new(key.clone(), pointer);
        let mut settings = Self::built_in();
        if let Some(trust_domain) = &spec.trust_domain {
            settings.trust_domain = Sourced::from_rule(trust_domain.clone(), origin("/spec/trustDomain"));
        }
        if let Some(Span(ttl)) = spec.ca.as_ref().and_then(|ca| ca.leaf_ttl) {
            if ttl < Duration::from_secs(10) {
                report.error(Code::InvalidValue, "/spec/ca/leafTTL", "a certificate lives for 10s at least");
            }
            settings.leaf_ttl = Sourced::from_rule(ttl, origin("/spec/ca/leafTTL"));
        }
        let defaults = &spec.defaults;
        if let Some(mode) = defaults.mtls {
            settings.mtls = Sourced::from_rule(mode, origin("/spec/defaults/mtls"));
        }
        if let Some(default) = defaults.access {
            settings.access = Sourced::from_rule(default, origin("/spec/defaults/access"));
        }
        let mut outbound = settings.outbound.as_ref().clone();
        if let Setting::Given(span) = defaults.timeout {
            outbound.request_timeout = Sourced::from_rule(limit(span), origin("/spec/defaults/timeout"));
        }
        if let Setting::Given(Span(timeout)) = defaults.connect_timeout {
            if timeout.is_zero() {
                report.error(Code::InvalidValue, "/spec/defaults/connectTimeout", "a connection needs more than 0s");
            }
            outbound.connect_timeout = Sourced::from_rule(timeout, origin("/spec/defaults/connectTimeout"));
        }
        if let Setting::Given(written) = &defaults.retry {
            let pointer = "/spec/defaults/retry";
            retry::check(written, pointer, report);
            outbound.retry = Sourced::from_rule(retry::merged(written, &outbound.retry.value), origin(pointer));
        }
        settings.outbound = Arc::new(outbound);
        settings.jwt_providers = keys::providers(&spec.jwt_providers, report);
        settings.telemetry_providers = Arc::new(providers::providers(&spec.telemetry_providers, report));
        settings
    }
}

/// A limit; `0s` is none.
pub(super) fn limit(Span(span): Span) -> Option<Duration> {
    (!span.is_zero()).then_some(span)
}
