//! Where things are, and which endpoints callers prefer for it.
//!
//! Owns: what is wrong with these values, and what they put in place of what there is. May use: `rules`. Never: which
//! policy is above another.

use std::sync::Arc;

use super::report::Report;
use crate::finding::Code;
use crate::mesh::{Failover, Locality, Nearness, Prefer, Sourced};
use crate::name::RuleRef;
use crate::rules::locality::{LocalitySpec, NearnessSpec};
use crate::rules::scalar::Setting;

/// Where something is, as written at `at`; one that is as `before` is shared with it.
pub(super) fn locality(
    written: Option<&LocalitySpec>,
    at: impl Fn() -> String,
    before: Option<&Arc<Locality>>,
    report: &mut Report<'_>,
) -> Option<Arc<Locality>> {
    let written = written?;
    let parts =
        [("region", Some(&written.region)), ("zone", written.zone.as_ref()), ("subzone", written.subzone.as_ref())];
    for (field, _) in parts.iter().filter(|(_, part)| part.is_some_and(String::is_empty)) {
        report.error(Code::InvalidValue, format!("{}/{field}", at()), format!("a {field} has a name"));
    }
    if let (None, Some(subzone)) = (&written.zone, &written.subzone) {
        let message = format!("{subzone} is part of a zone: say which");
        report.error(Code::MissingField, at(), message).hint = Some("write zone beside it".to_owned());
    }
    let locality = written.locality();
    Some(before.filter(|before| ***before == locality).cloned().unwrap_or_else(|| Arc::new(locality)))
}

/// Says what is wrong with the values at `at`.
pub(super) fn check(written: &NearnessSpec, at: &str, report: &mut Report<'_>) {
    if let Setting::Given(list) = &written.failover {
        for (n, failover) in list.iter().enumerate() {
            let at = format!("{at}/failover/{n}");
            for (field, region) in [("from", &failover.from), ("to", &failover.to)] {
                if region.is_empty() {
                    report.error(Code::InvalidValue, format!("{at}/{field}"), "a region has a name");
                }
            }
            if failover.from == failover.to {
                let message = format!("callers of {} go there first anyway", failover.from);
                report.error(Code::InvalidValue, format!("{at}/to"), message);
            } else if list[..n].contains(failover) {
                let message = format!("callers of {} go to {} already", failover.from, failover.to);
                report.error(Code::Conflict, at, message).hint = Some("remove one of them".to_owned());
            }
        }
    }
    if written.prefer == Setting::Given(Prefer::None) {
        let idle = [
            ("failover", matches!(written.failover, Setting::Given(_))),
            ("overprovisioning", matches!(written.overprovisioning, Setting::Given(_))),
        ];
        for (field, _) in idle.into_iter().filter(|(_, is_written)| *is_written) {
            let message = "nobody looks at where endpoints are, with prefer: none";
            report.warning(Code::NoEffect, format!("{at}/{field}"), message).hint =
                Some("write prefer: zone or region".to_owned());
        }
    }
}

/// Puts what is written in place of what there is.
pub(super) fn apply(written: &Setting<NearnessSpec>, nearness: &mut Nearness, origin: impl Fn(&str) -> RuleRef) {
    let built_in = Nearness::default();
    let Nearness { prefer, failover, overprovisioning } = nearness;
    let set = |field: &str| origin(&format!("locality/{field}"));
    settle(prefer, written.within(|w| w.prefer), built_in.prefer, || set("prefer"));
    let list: Setting<Vec<Failover>> = written.within(|w| w.failover.clone());
    settle(failover, list, built_in.failover, || set("failover"));
    let factor = written.within(|w| w.overprovisioning).map(|factor| factor.hundredths);
    settle(overprovisioning, factor, built_in.overprovisioning, || set("overprovisioning"));
}

fn settle<T>(place: &mut Sourced<T>, written: Setting<T>, built_in: Sourced<T>, origin: impl FnOnce() -> RuleRef) {
    place.settle(written, || built_in.value, origin);
}
