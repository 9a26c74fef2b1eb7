//! MTLSPolicies: the most specific mode wins.
//!
//! Owns: the ladder of modes, and which of them nobody can meet. May use: `reach`. Never: knows what a caller does about it.

use super::claims::Claim;
use super::reach::{ByReach, Reach, Said, Workloads};
use super::report::Report;
use super::services::Services;
use super::stage::Change;
use crate::finding::Code;
use crate::mesh::{Backing, MtlsMode, Port, Service, Sourced, Workload};
use crate::name::{Label, QualifiedName};
use crate::rules::policy::MtlsSpec;

/// What a MTLSPolicy says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub reach: Reach,
    mode: Sourced<MtlsMode>,
}

/// The mode that each target is given.
#[derive(Debug, Default)]
pub(super) struct Modes(ByReach<Sourced<MtlsMode>>);

// === impl Policy ===

/// One policy decides about a target, and by as many labels about a workload.
impl Claim for Said {
    const POINTER: &'static str = "/spec/target";
    const WHY: &'static str = "has the same target";

    fn why(&self) -> String {
        Self::why(self, Self::WHY)
    }
}

impl Policy {
    /// What `spec` says.
    pub(super) fn of(
        spec: &MtlsSpec,
        services: &Services,
        workloads: &Workloads,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let reach = Reach::of_served(&spec.target, services, workloads, report)?;
        Some(Self { reach, mode: Sourced::from_rule(spec.mode, report.origin("/spec/mode")) })
    }
}

// === impl Modes ===

impl Modes {
    /// Takes up changes of MTLSPolicies.
    pub(super) fn follow(&mut self, changes: &[Change<Policy>]) {
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            self.0.remove(&kept.value.reach);
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            self.0.put(&kept.value.reach, kept.value.mode.clone());
        }
    }

    /// Whether labels say anything of the workloads of a namespace.
    pub(super) fn is_by_labels(&self, namespace: &Label) -> bool {
        self.0.is_by_labels(namespace)
    }

    /// The most specific mode that covers a port as `workload` serves it, or those of whom labels say nothing.
    pub(super) fn effective(
        &self,
        service: &QualifiedName,
        port: &str,
        workload: Option<&Workload>,
        below: &Sourced<MtlsMode>,
    ) -> Sourced<MtlsMode> {
        self.0.covering(service, port, workload).next_back().unwrap_or(below).clone()
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
