//! MTLSPolicies: the most specific mode wins.
//!
//! Owns: the ladder of modes, and which of them nobody can meet. May use: `levels`. Never: knows what a caller does about it.

use super::claims::Claim;
use super::levels::{ByLevel, Level};
use super::report::Report;
use super::services::Services;
use super::stage::Change;
use crate::finding::Code;
use crate::mesh::{Backing, MtlsMode, Port, Service, Sourced};
use crate::name::QualifiedName;
use crate::rules::policy::MtlsSpec;

/// What a MTLSPolicy says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub level: Level,
    mode: Sourced<MtlsMode>,
}

/// The mode that each target is given.
#[derive(Debug, Default)]
pub(super) struct Modes(ByLevel<Sourced<MtlsMode>>);

// === impl Policy ===

/// One policy decides about a target.
impl Claim for Level {
    const POINTER: &'static str = "/spec/target";
    const WHY: &'static str = "has the same target";
}

impl Policy {
    /// What `spec` says.
    pub(super) fn of(spec: &MtlsSpec, services: &Services, report: &mut Report<'_>) -> Option<Self> {
        let level = Level::of(&spec.target, services, report)?;
        Some(Self { level, mode: Sourced::from_rule(spec.mode, report.origin("/spec/mode")) })
    }
}

// === impl Modes ===

impl Modes {
    /// Takes up changes of MTLSPolicies.
    pub(super) fn follow(&mut self, changes: &[Change<Policy>]) {
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            self.0.remove(&kept.value.level);
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            *self.0.entry(&kept.value.level, || kept.value.mode.clone()) = kept.value.mode.clone();
        }
    }

    /// The most specific mode that covers a port.
    pub(super) fn effective(
        &self,
        service: &QualifiedName,
        port: &str,
        below: &Sourced<MtlsMode>,
    ) -> Sourced<MtlsMode> {
        self.0.covering(service, port).next_back().unwrap_or(below).clone()
    }
}

/// Whether listed endpoints of `service` are reached by mTLS only.
pub(super) fn is_unproven(service: &Service) -> bool {
    matches!(service.backing, Backing::Static(_) | Backing::Dns(_)) && strict(service).next().is_some()
}

fn strict(service: &Service) -> impl Iterator<Item = &Port> {
    service.ports.iter().filter(|port| port.mtls.value == MtlsMode::Strict)
}

/// Warns about ports of `service`, if it [`is_unproven`].
pub(super) fn warn(service: &Service, report: &mut Report<'_>) {
    for port in strict(service).filter(|_| is_unproven(service)) {
        let message = format!(
            "mTLS is strict on the port {}, but these endpoints have no proxy known to the mesh: they are reached by \
             mTLS only, and plaintext endpoints cannot be reached",
            port.name
        );
        report.warning(Code::NoProxy, "/spec/endpoints", message).hint =
            Some("write a MTLSPolicy with mode permissive or disabled for the service".to_owned());
    }
}
