//! MTLSPolicies: the most specific mode wins.
//!
//! Owns: the ladder of modes, and which of them nobody can meet. May use: `levels`. Never: knows what a caller does about it.

use std::collections::BTreeMap;

use super::levels::Level;
use super::report::Report;
use crate::finding::Code;
use crate::mesh::{Backing, MtlsMode, Service, Sourced};
use crate::name::QualifiedName;

/// The mode that each target is given.
pub(super) type Modes = BTreeMap<Level, Sourced<MtlsMode>>;

/// The most specific mode that covers a port.
pub(super) fn effective(
    modes: &Modes,
    service: &QualifiedName,
    port: &str,
    below: &Sourced<MtlsMode>,
) -> Sourced<MtlsMode> {
    let covering = Level::covering(service, port);
    covering.iter().rev().find_map(|level| modes.get(level)).unwrap_or(below).clone()
}

/// Warns about ports of `service` whose listed endpoints are reached by mTLS only.
pub(super) fn warn(service: &Service, report: &mut Report<'_>) {
    if !matches!(service.backing, Backing::Static(_)) {
        return;
    }
    for port in service.ports.iter().filter(|port| port.mtls.value == MtlsMode::Strict) {
        let message = format!(
            "mTLS is strict on the port {}, but these endpoints have no proxy known to the mesh: they are reached by \
             mTLS only, and plaintext endpoints cannot be reached",
            port.name
        );
        report.warning(Code::NoProxy, "/spec/endpoints", message).hint =
            Some("write a MTLSPolicy with mode permissive or disabled for the service".to_owned());
    }
}
