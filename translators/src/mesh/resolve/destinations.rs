//! Destinations: services, their ports and versions that rules send to.
//!
//! Owns: what a valid destination is, and whether anything is there. May use: `rules`, `services`, `backing`. Never: which
//! rule leads there.

use std::collections::{BTreeMap, BTreeSet};

use super::action::headers;
use super::backing::Selectable;
use super::report::Report;
use super::routes::{Known, Routed};
use crate::finding::Code;
use crate::mesh::{Destination, Mirror, Percent, WeightedDestination};
use crate::rules::route::{DestinationSpec, MirrorSpec};

/// Where the requests or connections of a rule go.
pub(super) fn destinations(
    written: &[DestinationSpec],
    at: &str,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Vec<WeightedDestination> {
    if written.is_empty() {
        report.error(Code::InvalidValue, at, "a rule has at least one destination");
        return Vec::new();
    }
    let total: u64 = written.iter().map(|to| u64::from(to.weight.unwrap_or(1))).sum();
    if total == 0 {
        report.error(Code::InvalidValue, at, "all weights are 0").hint =
            Some("give one destination a weight above 0".to_owned());
    }
    if total > u64::from(u32::MAX) {
        report.error(Code::InvalidValue, at, format!("the weights add up to more than {}", u32::MAX));
    }
    let each = written.iter().enumerate();
    each.filter_map(|(index, to)| {
        let at = format!("{at}/{index}");
        let destination = destination(to, &at, routed, known, report)?;
        let host = known.services.get(&destination.service).and_then(|declared| declared.host().cloned());
        if to.headers.is_some() && !routed.protocol.is_http() {
            let message = "a connection of a tcp port has no headers";
            report.error(Code::WrongProtocol, format!("{at}/headers"), message);
        }
        let headers = to.headers.as_ref().map(|written| Box::new(headers(written, &format!("{at}/headers"), report)));
        Some(WeightedDestination { destination, weight: to.weight.unwrap_or(1), host, headers })
    })
    .collect()
}

fn destination(
    written: &DestinationSpec,
    at: &str,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<Destination> {
    let service = written.service.within(&report.object.key.name.namespace);
    let declared = known.services.service(&service, format_args!("{at}/service"), report)?;
    let same = routed.called.filter(|(called, _)| **called == service && written.port.is_none()).map(|(_, port)| port);
    let port = match same {
        Some(port) => port,
        None => declared.port(written.port.as_ref(), format_args!("{at}/port"), report)?,
    };
    if port.protocol.is_http() != routed.protocol.is_http() {
        let field = if written.port.is_some() { "port" } else { "service" };
        let lacks = if port.protocol.is_http() { "is no tcp port" } else { "does not speak HTTP" };
        let message = format!("the port {} of {service} {lacks}", port.name);
        report.error(Code::WrongProtocol, format!("{at}/{field}"), message);
    }
    let mut labels = written.labels.clone().unwrap_or_default();
    if let Some(version) = &written.version {
        if labels.get("version").is_some_and(|other| other != version) {
            report.error(Code::Conflict, format!("{at}/version"), "labels name another version");
        }
        labels.insert("version".to_owned(), version.clone());
    }
    if !labels.is_empty() {
        let selectable = known.backings.selectable(&service, report);
        warn_of_nothing(written, at, &labels, &port.name, selectable, report);
    }
    Some(Destination { service, port: port.name.clone(), labels, sticky: false })
}

/// Warns when no endpoint carries `labels`.
fn warn_of_nothing(
    written: &DestinationSpec,
    at: &str,
    labels: &BTreeMap<String, String>,
    port: &str,
    selectable: Option<BTreeSet<Selectable<'_>>>,
    report: &mut Report<'_>,
) {
    let Some(selectable) = selectable else { return };
    let carried = selectable.into_iter().filter(|(of, _)| *of == port).map(|(_, labels)| labels);
    let carried: Vec<&BTreeMap<String, String>> = carried.collect();
    let selected =
        |carried: &BTreeMap<String, String>| labels.iter().all(|(key, value)| carried.get(key) == Some(value));
    if carried.iter().any(|carried| selected(carried)) {
        return;
    }
    let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let field = if written.version.is_some() { "version" } else { "labels" };
    let message = format!("no endpoint of {} carries {}", written.service, shown.join(", "));
    let versions: BTreeSet<String> = carried.iter().filter_map(|carried| carried.get("version").cloned()).collect();
    let finding = report.warning(Code::NoEndpoints, format!("{at}/{field}"), message);
    if written.version.is_some() {
        finding.choices = versions.into_iter().collect();
    }
}

/// Who gets a copy.
pub(super) fn mirror(
    written: &MirrorSpec,
    at: &str,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<Mirror> {
    let MirrorSpec { service, port, version, labels, percent } = written.clone();
    let to = DestinationSpec { service, port, version, labels, weight: None, headers: None };
    let to = destination(&to, &format!("{at}/mirror"), routed, known, report)?;
    Some(Mirror { to, percent: percent.unwrap_or(Percent::ALL) })
}
