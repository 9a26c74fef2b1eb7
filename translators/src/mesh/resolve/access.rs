//! AccessPolicies: entries accumulate, and the most specific default holds for everybody else.
//!
//! Owns: the ladder of access rules. May use: `rules`, `levels`, `backing`, `coverage`. Never: decides about mTLS.

use std::collections::{BTreeMap, BTreeSet};

use super::backing::Backings;
use super::claims::Claim;
use super::coverage::Summary;
use super::levels::{ByLevel, Level};
use super::report::Report;
use super::services::{Declared, Services};
use super::stage::{Change, Kept};
use crate::finding::Code;
use crate::mesh::{Access, AccessDefault, AccessEntry, Caller, Operation, Sourced};
use crate::name::{QualifiedName, SpiffeId, TrustDomain};
use crate::rules::policy::{AccessSpec, CallerSpec, EntrySpec, OperationSpec};

/// What an AccessPolicy says.
#[derive(Debug, PartialEq, Eq)]
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
    pub backings: &'a Backings,
}

/// The policies of every level, in order of their names.
#[derive(Debug, Default)]
pub(super) struct Policies(ByLevel<BTreeMap<QualifiedName, Kept<Policy>>>);

/// The default of a level: one policy gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefaultOf(Level);

// === impl DefaultOf ===

impl Claim for DefaultOf {
    const POINTER: &'static str = "/spec/default";
    const WHY: &'static str = "gives the same target a default";
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
        if policy.is_tcp_only(known.services, report) {
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

    /// What only this policy may say.
    pub(super) fn claim(&self) -> Option<DefaultOf> {
        self.default.as_ref().map(|_| DefaultOf(self.level.clone()))
    }

    fn is_tcp_only(&self, services: &Services, report: &mut Report<'_>) -> bool {
        let (name, port) = match &self.level {
            Level::Mesh | Level::Namespace(_) => return false,
            Level::Service(name) => (name, None),
            Level::Port(name, port) => (name, Some(port)),
        };
        let tcp_only = |declared: &Declared| {
            let mut ports = declared.ports.iter().filter(|declared| port.is_none_or(|port| *port == declared.name));
            ports.all(|port| !port.protocol.is_http())
        };
        services.service(name, "/spec/target/service", report).is_some_and(tcp_only)
    }
}

// === impl Policies ===

impl Policies {
    /// Takes up changes of AccessPolicies.
    pub(super) fn follow(&mut self, changes: &[Change<Policy>]) {
        for (name, kept) in changes.iter().filter_map(|change| Some((&change.name, change.before.as_ref()?))) {
            let of_level = self.0.entry(&kept.value.level, BTreeMap::new);
            of_level.remove(name);
            if of_level.is_empty() {
                self.0.remove(&kept.value.level);
            }
        }
        for (name, kept) in changes.iter().filter_map(|change| Some((&change.name, change.after.as_ref()?))) {
            self.0.entry(&kept.value.level, BTreeMap::new).insert(name.clone(), kept.clone());
        }
    }

    /// The policies of a level.
    pub(super) fn at(&self, level: &Level) -> impl Iterator<Item = &Kept<Policy>> {
        self.0.get(level).into_iter().flat_map(BTreeMap::values)
    }

    /// The policies that cover only `service` or ports of it.
    pub(super) fn only(&self, service: &QualifiedName) -> impl Iterator<Item = &Kept<Policy>> {
        self.0.only(service).flat_map(BTreeMap::values)
    }

    /// What applies to one port.
    pub(super) fn effective(&self, service: &QualifiedName, port: &str, below: &Sourced<AccessDefault>) -> Access {
        let covering = || self.0.covering(service, port).flat_map(BTreeMap::values).map(|kept| &kept.value);
        Access {
            deny: covering().flat_map(|policy| policy.deny.iter().cloned()).collect(),
            allow: covering().flat_map(|policy| policy.allow.iter().cloned()).collect(),
            default: covering().rev().find_map(|policy| policy.default.clone()).unwrap_or_else(|| below.clone()),
        }
    }
}

/// Warns about entries that have no effect where `policy` applies.
pub(super) fn warn(policy: &Policy, covered: &Summary, report: &mut Report<'_>) {
    if !policy.allow.is_empty() && covered.all_open {
        report.warning(Code::NoEffect, "/spec/allow", "these entries change nothing: the default is allow").hint =
            Some("write default: deny to close the door to everybody else".to_owned());
    }
    if let Some((many, names)) = &covered.tcp {
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
            if let Some(names) = &covered.disabled {
                let message = format!("callers have no identity on {names}, where mTLS is disabled");
                report.warning(Code::NoIdentity, pointer, message).hint =
                    Some("this entry never matches there".to_owned());
            } else if let Some(names) = &covered.permissive {
                let message = format!("plaintext callers have no identity on {names}, where mTLS is permissive");
                report.warning(Code::NoIdentity, pointer, message).hint =
                    Some("this entry matches mTLS callers only".to_owned());
            }
        }
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
            known.backings.identities(&name, report).cloned().map(Caller::Identities)
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
