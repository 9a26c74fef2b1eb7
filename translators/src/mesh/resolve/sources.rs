//! Sources: who sends the requests that a match takes.
//!
//! Owns: which of them a caller's proxy, or a gateway, can tell. May use: `rules`, `services`. Never: knows who calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::report::Report;
use super::routes::{Known, Routed};
use crate::finding::Code;
use crate::mesh::Source;
use crate::name::SpiffeId;
use crate::rules::matching::SourceSpec;
use crate::rules::scalar::Addresses;

/// The senders written at `at`; `None` is anybody.
pub(super) fn sources(
    written: &[SourceSpec],
    at: &str,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<Arc<BTreeSet<Source>>> {
    if written.is_empty() {
        return None;
    }
    let each = written.iter().enumerate();
    Some(Arc::new(each.filter_map(|(n, one)| source(one, &format!("{at}/{n}"), routed, known, report)).collect()))
}

fn source(
    written: &SourceSpec,
    at: &str,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<Source> {
    let (field, is_address) = match written {
        SourceSpec::Namespace(_) => ("namespace", false),
        SourceSpec::Service(_) => ("service", false),
        SourceSpec::ServiceAccount(_) => ("serviceAccount", false),
        SourceSpec::Ip(_) => ("ip", true),
    };
    if is_address != routed.called.is_none() {
        let (message, choices) = if is_address {
            (
                "only a gateway looks at addresses: the proxies of callers know who they are",
                &["namespace", "service", "serviceAccount"][..],
            )
        } else {
            ("the clients of a gateway are no workloads: it knows their addresses alone", &["ip"][..])
        };
        let finding = report.error(Code::InvalidValue, format!("{at}/{field}"), message);
        finding.choices = choices.iter().map(|&choice| choice.to_owned()).collect();
        return None;
    }
    let home = report.object.key.name.namespace.clone();
    match written {
        SourceSpec::Namespace(namespace) => Some(Source::Namespace(namespace.clone())),
        SourceSpec::Service(name) => {
            let service = name.within(&home);
            known.services.service(&service, format_args!("{at}/service"), report)?;
            Some(Source::Service(service))
        }
        SourceSpec::ServiceAccount(name) => {
            let namespace = name.namespace.as_ref().unwrap_or(&home);
            match SpiffeId::of_account(&known.settings.trust_domain.value, namespace, &name.account) {
                Ok(identity) => Some(Source::Identity(identity)),
                Err(error) => {
                    report.error(Code::InvalidValue, format!("{at}/serviceAccount"), error.to_string());
                    None
                }
            }
        }
        SourceSpec::Ip(Addresses(network)) => Some(Source::Ip(network.first())),
    }
}
