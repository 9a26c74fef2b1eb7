//! AccessPolicies: entries accumulate, and the most specific default holds for everybody else.
//!
//! Owns: the ladder of access rules. May use: `rules`, `levels`. Never: decides about mTLS.

use std::collections::{BTreeMap, BTreeSet};

use super::levels::Level;
use super::report::Report;
use super::services::Services;
use crate::finding::Code;
use crate::mesh::{Access, AccessDefault, AccessEntry, Caller, MtlsMode, Operation, Port, Service, Sourced};
use crate::name::{QualifiedName, SpiffeId, TrustDomain};
use crate::rules::policy::{AccessSpec, CallerSpec, EntrySpec, OperationSpec};

/// What an AccessPolicy says.
pub(super) struct Policy {
    pub level: Level,
    pub default: Option<Sourced<AccessDefault>>,
    pub deny: Vec<AccessEntry>,
    pub allow: Vec<AccessEntry>,
}

/// What policies may refer to.
pub(super) struct Known<'a> {
    pub trust_domain: &'a TrustDomain,
    pub services: &'a Services,
    pub identities: &'a BTreeMap<QualifiedName, BTreeSet<SpiffeId>>,
}

// === impl Policy ===

impl Policy {
    /// What `spec` says.
    pub(super) fn of(spec: &AccessSpec, known: &Known<'_>, report: &mut Report<'_>) -> Option<Self> {
        let level = Level::of(&spec.target, known.services, report);
        let default = spec.default.map(|default| Sourced::from_rule(default, report.origin("/spec/default")));
        let deny = entries(&spec.deny, "/spec/deny", known, report);
        let allow = entries(&spec.allow, "/spec/allow", known, report);
        let policy = Self { level: level?, default, deny, allow };
        if policy.is_tcp_only(known.services) {
            for (index, _) in policy.deny.iter().enumerate().filter(|(_, entry)| has_http_parts(entry)) {
                report.error(
                    Code::WrongProtocol,
                    format!("/spec/deny/{index}/to"),
                    "methods and paths cannot be denied on a tcp port",
                );
            }
            for (index, _) in policy.allow.iter().enumerate().filter(|(_, entry)| has_http_parts(entry)) {
                report.warning(
                    Code::NoEffect,
                    format!("/spec/allow/{index}/to"),
                    "methods and paths never match on a tcp port",
                );
            }
        }
        Some(policy)
    }

    fn is_tcp_only(&self, services: &Services) -> bool {
        let (name, port) = match &self.level {
            Level::Mesh | Level::Namespace(_) => return false,
            Level::Service(name) => (name, None),
            Level::Port(name, port) => (name, Some(port)),
        };
        services.0.get(name).is_some_and(|declared| {
            let mut ports = declared.ports.iter().filter(|declared| port.is_none_or(|port| *port == declared.name));
            ports.all(|port| !port.protocol.is_http())
        })
    }

    fn covers(&self, service: &QualifiedName, port: &str) -> bool {
        Level::covering(service, port).contains(&self.level)
    }
}

/// What applies to one port; `policies` are in ladder order.
pub(super) fn effective(
    policies: &[&Policy],
    service: &QualifiedName,
    port: &str,
    below: &Sourced<AccessDefault>,
) -> Access {
    let covering: Vec<&Policy> = policies.iter().copied().filter(|policy| policy.covers(service, port)).collect();
    Access {
        deny: covering.iter().flat_map(|policy| policy.deny.iter().cloned()).collect(),
        allow: covering.iter().flat_map(|policy| policy.allow.iter().cloned()).collect(),
        default: covering.iter().rev().find_map(|policy| policy.default.clone()).unwrap_or_else(|| below.clone()),
    }
}

/// Warns about entries that have no effect where `policy` applies.
pub(super) fn warn<'a>(policy: &Policy, services: impl Iterator<Item = &'a Service>, report: &mut Report<'_>) {
    let ports: Vec<(&QualifiedName, &Port)> = services
        .flat_map(|service| service.ports.iter().map(move |port| (&service.name, port)))
        .filter(|(service, port)| policy.covers(service, &port.name))
        .collect();
    let open = |(_, port): &(&QualifiedName, &Port)| port.access.default.value == AccessDefault::Allow;
    if !policy.allow.is_empty() && !ports.is_empty() && ports.iter().all(open) {
        report.warning(Code::NoEffect, "/spec/allow", "these entries change nothing: the default is allow").hint =
            Some("write default: deny to close the door to everybody else".to_owned());
    }
    if let Some((many, names)) = tcp_ports(&ports) {
        for (index, _) in policy.deny.iter().enumerate().filter(|(_, entry)| has_http_parts(entry)) {
            let message = format!(
                "methods and paths never match on the tcp port{many} {names}, so this entry denies nothing there"
            );
            report.warning(Code::NoEffect, format!("/spec/deny/{index}/to"), message);
        }
    }
    let lists = [("/spec/deny", &policy.deny), ("/spec/allow", &policy.allow)];
    for (list, entries) in lists {
        for (index, _) in entries.iter().enumerate().filter(|(_, entry)| entry.from.iter().any(has_identity)) {
            let pointer = format!("{list}/{index}/from");
            let on = |mode| shown(ports.iter().filter(|(_, port)| port.mtls.value == mode));
            if let Some(names) = on(MtlsMode::Disabled) {
                let message = format!("callers have no identity on {names}, where mTLS is disabled");
                report.warning(Code::NoIdentity, pointer, message).hint =
                    Some("this entry never matches there".to_owned());
            } else if let Some(names) = on(MtlsMode::Permissive) {
                let message = format!("plaintext callers have no identity on {names}, where mTLS is permissive");
                report.warning(Code::NoIdentity, pointer, message).hint =
                    Some("this entry matches mTLS callers only".to_owned());
            }
        }
    }
}

/// The plural's ending and the names of those ports that do not speak HTTP; `None` when there are none.
fn tcp_ports(ports: &[(&QualifiedName, &Port)]) -> Option<(&'static str, String)> {
    let tcp = || ports.iter().filter(|(_, port)| !port.protocol.is_http());
    Some((if tcp().count() > 1 { "s" } else { "" }, shown(tcp())?))
}

/// Some ports by name; `None` when there are none.
fn shown<'a>(ports: impl Iterator<Item = &'a (&'a QualifiedName, &'a Port)>) -> Option<String> {
    const MOST: usize = 3;
    let names: Vec<String> = ports.map(|(service, port)| format!("{service} {}", port.name)).collect();
    let more = names.len().saturating_sub(MOST);
    let listed = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match (names.len(), more) {
        (0, _) => None,
        (_, 0) => Some(listed),
        _ => Some(format!("{listed} and {more} more")),
    }
}

fn has_identity(caller: &Caller) -> bool {
    match caller {
        Caller::Any => false,
        Caller::Identities(_) | Caller::Namespace(_) | Caller::Pattern(_) => true,
    }
}

fn has_http_parts(entry: &AccessEntry) -> bool {
    entry.to.iter().any(|operation| !operation.methods.is_empty() || !operation.paths.is_empty())
}

fn entries(written: &[EntrySpec], list: &str, known: &Known<'_>, report: &mut Report<'_>) -> Vec<AccessEntry> {
    let mut entries = Vec::new();
    for (index, entry) in written.iter().enumerate() {
        let at = format!("{list}/{index}");
        if entry.from.is_none() && entry.to.is_none() {
            report.error(Code::MissingField, &at, "an entry names callers, operations or both").choices =
                vec!["from".to_owned(), "to".to_owned()];
        }
        for (name, empty) in [
            ("from", entry.from.as_ref().is_some_and(Vec::is_empty)),
            ("to", entry.to.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                report.error(Code::InvalidValue, format!("{at}/{name}"), "an empty list matches nothing").hint =
                    Some(format!("leave {name} out to match everything"));
            }
        }
        let from = entry.from.iter().flatten().enumerate();
        let to = entry.to.iter().flatten().enumerate();
        entries.push(AccessEntry {
            origin: report.origin(&at),
            from: from.filter_map(|(n, from)| caller(from, &format!("{at}/from/{n}"), known, report)).collect(),
            to: to.map(|(n, to)| operation(to, &format!("{at}/to/{n}"), report)).collect(),
        });
    }
    entries
}

fn caller(written: &CallerSpec, at: &str, known: &Known<'_>, report: &mut Report<'_>) -> Option<Caller> {
    let home = report.object.key.name.namespace.clone();
    match written {
        CallerSpec::Any => Some(Caller::Any),
        CallerSpec::Namespace(namespace) => Some(Caller::Namespace(namespace.clone())),
        CallerSpec::Service(name) => {
            let name = name.within(&home);
            known.services.service(&name, &format!("{at}/service"), report)?;
            known.identities.get(&name).cloned().map(Caller::Identities)
        }
        CallerSpec::ServiceAccount(name) => {
            let namespace = name.namespace.as_ref().unwrap_or(&home);
            match SpiffeId::of_account(known.trust_domain, namespace, &name.account) {
                Ok(identity) => Some(Caller::Identities(BTreeSet::from([identity]))),
                Err(error) => {
                    report.error(Code::InvalidValue, format!("{at}/serviceAccount"), error.to_string());
                    None
                }
            }
        }
        CallerSpec::Spiffe(pattern) => {
            let valid = pattern.strip_prefix("spiffe://").is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_/*".contains(&c))
            });
            if !valid {
                let message = format!("{pattern:?} is no pattern for a SPIFFE id");
                let hint = format!("write spiffe://{}/ns/NAMESPACE/sa/*", known.trust_domain);
                report.error(Code::InvalidValue, format!("{at}/spiffe"), message).hint = Some(hint);
            }
            Some(Caller::Pattern(pattern.clone()))
        }
    }
}

fn operation(written: &OperationSpec, at: &str, report: &mut Report<'_>) -> Operation {
    if written.methods.is_empty() && written.paths.is_empty() {
        report.error(Code::MissingField, at, "an operation names methods, paths or both").choices =
            vec!["methods".to_owned(), "paths".to_owned()];
    }
    for (index, path) in written.paths.iter().enumerate() {
        if !path.starts_with(['/', '*']) || path.contains(['?', '#']) {
            let message = format!("{path:?} is no path: a path starts with / or *, and has no query");
            report.error(Code::InvalidValue, format!("{at}/paths/{index}"), message);
        }
    }
    Operation {
        methods: written.methods.iter().map(|method| method.0.clone()).collect(),
        paths: written.paths.iter().cloned().collect(),
    }
}
