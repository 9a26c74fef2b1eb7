//! MTLSPolicies: the most specific mode wins.
//!
//! Owns: the ladder of modes. May use: `levels`. Never: knows what a caller does about it.

use std::collections::BTreeMap;

use super::levels::Level;
use crate::mesh::{MtlsMode, Sourced};
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
