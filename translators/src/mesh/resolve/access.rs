//! AccessPolicies: entries accumulate, and the most specific default holds for everybody else.
//!
//! Owns: the ladder of access rules. May use: `rules`, `levels`, `reach`, `entries`, `coverage`. Never: decides about mTLS.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use super::claims::Claim;
use super::coverage::Summary;
use super::entries::{self, Entry, Known};
use super::levels::Level;
use super::reach::{ByReach, Reach, Said, Workloads};
use super::report::Report;
use super::services::{DeclaredPort, Services};
use super::stage::{Change, Kept};
use crate::finding::Code;
use crate::mesh::{
    Access, AccessDefault, AccessEntry, Audit, Backing, Caller, Operation, Port, Service, Sourced, Workload,
};
use crate::name::{Label, QualifiedName};
use crate::rules::policy::{AccessMode, AccessSpec};

/// What an AccessPolicy says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub reach: Reach,
    pub mode: AccessMode,
    pub default: Option<Sourced<AccessDefault>>,
    pub deny: Vec<Entry>,
    pub allow: Vec<Entry>,
}

/// The policies of every level, in order of their names.
#[derive(Debug, Default)]
pub(super) struct Policies(ByReach<BTreeMap<QualifiedName, Kept<Policy>>>);

/// The lists of a policy.
#[derive(Debug, Clone, Copy)]
enum List {
    Deny,
    Allow,
}

/// The default of a level: one policy gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefaultOf(Said, AccessMode);

// === impl DefaultOf ===

impl Claim for DefaultOf {
    const POINTER: &'static str = "/spec/default";
    const WHY: &'static str = "gives the same target a default";

    fn why(&self) -> String {
        self.0.why(Self::WHY)
    }
}

// === impl Policy ===

impl Policy {
    /// What `spec` says.
    pub(super) fn of(
        spec: &AccessSpec,
        known: &Known<'_>,
        workloads: &Workloads,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let reach = Reach::with_gateways(&spec.target, (known.services, known.gateways), workloads, report);
        let default = spec.default.map(|default| Sourced::from_rule(default, report.origin("/spec/default")));
        let deny = Entry::all(&spec.deny, "/spec/deny", known, report);
        let allow = Entry::all(&spec.allow, "/spec/allow", known, report);
        for (index, _) in deny.iter().enumerate().filter(|(_, entry)| entry.is_external()) {
            let message = "a service that is asked has the last word: it admits, and does not only refuse";
            report.error(Code::InvalidValue, format!("/spec/deny/{index}/external"), message).hint =
                Some("write the entry in allow, where the default is deny".to_owned());
        }
        let policy = Self { reach: reach?, mode: spec.mode, default, deny, allow };
        match &policy.reach {
            Reach::Ports(Level::Gateway(gateway, listener)) => {
                policy.check_listeners(known, gateway, listener.as_deref(), report);
            }
            Reach::Ports(_) | Reach::Workloads(..) => policy.check_ports(known.services, report),
        }
        Some(policy)
    }

    /// Holds the entries against the ports of the service that the policy targets, if it targets one.
    fn check_ports(&self, services: &Services, report: &mut Report<'_>) {
        let (name, port) = match &self.reach {
            Reach::Ports(Level::Mesh | Level::Namespace(_) | Level::Gateway(..)) | Reach::Workloads(..) => return,
            Reach::Ports(Level::Service(name)) => (name, None),
            Reach::Ports(Level::Port(name, port)) => (name, Some(port)),
        };
        let Some(declared) = services.service(name, format_args!("/spec/target/service"), report) else { return };
        let targeted: Vec<_> =
            declared.ports.iter().filter(|declared| port.is_none_or(|port| *port == declared.name)).collect();
        for (list, index, entry) in self.entries() {
            for (n, (ports, _)) in entry.operations().enumerate() {
                for unknown in ports.iter().filter(|number| targeted.iter().all(|port| port.number != **number)) {
                    let message = format!("the policy targets no port {unknown} of {name}");
                    let finding =
                        report.error(Code::NotFound, format!("{}/{index}/to/{n}/ports", list.pointer()), message);
                    finding.choices = targeted.iter().map(|port| port.number.to_string()).collect();
                }
            }
            let on_tcp_alone = |ports: &BTreeSet<_>| {
                let mut taken = targeted.iter().filter(|port| entries::is_among(port.number, ports)).peekable();
                taken.peek().is_some() && taken.all(|port| !port.protocol.is_http())
            };
            for (part, message) in entry.of_requests().filter(|_| on_tcp_alone(&BTreeSet::new())) {
                let pointer = format!("{}/{index}/{part}", list.pointer());
                match list {
                    List::Deny => report.error(Code::WrongProtocol, pointer, message),
                    List::Allow => report.warning(Code::NoEffect, pointer, message),
                };
            }
            let idle = entry.operations().filter(|(ports, _)| on_tcp_alone(ports)).map(|(_, operation)| operation);
            let Some(parts) = http_parts(idle) else { continue };
            let pointer = format!("{}/{index}/to", list.pointer());
            match list {
                List::Deny => {
                    report.error(Code::WrongProtocol, pointer, format!("{parts} cannot be denied on a tcp port"));
                }
                List::Allow => {
                    report.warning(Code::NoEffect, pointer, format!("{parts} never match on a tcp port"));
                }
            }
        }
    }

    /// Holds the entries against the listeners of the gateway that the policy targets.
    fn check_listeners(
        &self,
        known: &Known<'_>,
        gateway: &QualifiedName,
        listener: Option<&str>,
        report: &mut Report<'_>,
    ) {
        let Some(found) = known.gateways.get(gateway) else { return };
        let ports: BTreeSet<u16> = found.chosen(listener).map(|(port, _)| port).collect();
        let of_bytes = found.chosen(listener).all(|(_, of)| !of.takes_requests());
        for (list, index, entry) in self.entries() {
            let at = format!("{}/{index}", list.pointer());
            if entry.from().iter().any(has_identity) {
                let message = "clients of a gateway come from outside of the mesh and have no identity of it";
                report.error(Code::NoIdentity, format!("{at}/from"), message).choices =
                    ["ip", "any"].map(str::to_owned).to_vec();
            }
            for (n, (of_operation, _)) in entry.operations().enumerate() {
                for unknown in of_operation.iter().filter(|number| !ports.contains(&number.get())) {
                    let message = format!("the policy targets no listener on port {unknown}");
                    let finding = report.error(Code::NotFound, format!("{at}/to/{n}/ports"), message);
                    finding.choices = ports.iter().map(ToString::to_string).collect();
                }
            }
            if !of_bytes {
                continue;
            }
            let of_requests = entry.of_requests().map(|(part, _)| part.to_owned());
            let parts = http_parts(entry.operations().map(|(_, operation)| operation));
            for part in of_requests.chain(parts) {
                let message = format!("{part} cannot match on a listener that takes no requests");
                match list {
                    List::Deny => report.error(Code::WrongProtocol, &at, message),
                    List::Allow => report.warning(Code::NoEffect, &at, message),
                };
            }
        }
    }

    /// Whether it speaks of some ports by their numbers.
    pub(super) fn names_ports(&self) -> bool {
        self.entries().any(|(.., entry)| entry.operations().any(|(ports, _)| !ports.is_empty()))
    }

    fn entries(&self) -> impl Iterator<Item = (List, usize, &Entry)> {
        let deny = self.deny.iter().enumerate().map(|(n, entry)| (List::Deny, n, entry));
        deny.chain(self.allow.iter().enumerate().map(|(n, entry)| (List::Allow, n, entry)))
    }

    /// What only this policy may say.
    pub(super) fn claims(&self, workloads: &Workloads) -> Vec<DefaultOf> {
        let said = self.default.as_ref().map(|_| self.reach.said(workloads));
        said.into_iter().flatten().map(|said| DefaultOf(said, self.mode)).collect()
    }
}

// === impl List ===

impl List {
    fn pointer(self) -> &'static str {
        match self {
            Self::Deny => "/spec/deny",
            Self::Allow => "/spec/allow",
        }
    }
}

// === impl Policies ===

impl Policies {
    /// Takes up changes of AccessPolicies.
    pub(super) fn follow(&mut self, changes: &[Change<Policy>]) {
        for (name, kept) in changes.iter().filter_map(|change| Some((&change.name, change.before.as_ref()?))) {
            let of_level = self.0.entry(&kept.value.reach, BTreeMap::new);
            of_level.remove(name);
            if of_level.is_empty() {
                self.0.remove(&kept.value.reach);
            }
        }
        for (name, kept) in changes.iter().filter_map(|change| Some((&change.name, change.after.as_ref()?))) {
            self.0.entry(&kept.value.reach, BTreeMap::new).insert(name.clone(), kept.clone());
        }
    }

    /// The policies of a level.
    pub(super) fn at(&self, level: &Level) -> impl Iterator<Item = &Kept<Policy>> {
        self.0.get(&Reach::Ports(level.clone())).into_iter().flat_map(BTreeMap::values)
    }

    /// The policies that cover only `service` or ports of it.
    pub(super) fn only(&self, service: &QualifiedName) -> impl Iterator<Item = &Kept<Policy>> {
        self.0.only(service).flat_map(BTreeMap::values)
    }

    /// Whether labels say anything of the workloads of a namespace.
    pub(super) fn is_by_labels(&self, namespace: &Label) -> bool {
        self.0.is_by_labels(namespace)
    }

    /// What applies to one port as `workload` serves it, or those of whom labels say nothing.
    pub(super) fn effective(
        &self,
        service: &QualifiedName,
        port: &DeclaredPort,
        workload: Option<&Workload>,
        below: &Sourced<AccessDefault>,
    ) -> Access {
        let levels: Vec<_> = self.0.covering(service, &port.name, workload).collect();
        put_together(&levels, Some(service), port.number, below)
    }

    /// What applies to a listener of a gateway, if one is named, which has this port.
    pub(super) fn at_listener(&self, gateway: &QualifiedName, listener: Option<&str>, port: NonZeroU16) -> Access {
        let open = Sourced::built_in(AccessDefault::Allow);
        put_together(&self.0.of_gateway(gateway, listener).collect::<Vec<_>>(), None, port, &open)
    }
}

/// What the policies of `levels`, from the widest to the most specific, make of what is `below` on a port, which may be one
/// of `service`.
fn put_together(
    levels: &[&BTreeMap<QualifiedName, Kept<Policy>>],
    service: Option<&QualifiedName>,
    port: NonZeroU16,
    below: &Sourced<AccessDefault>,
) -> Access {
    use AccessMode::{Audit as Audited, Enforce};
    let at_levels = || levels.iter().map(|at| at.values().map(|kept| &*kept.value));
    let covering =
        |modes: &'static [AccessMode]| at_levels().flatten().filter(move |policy| modes.contains(&policy.mode));
    let on_port = |entries: &Vec<Entry>| entries.iter().filter_map(|entry| entry.on(service, port)).collect::<Vec<_>>();
    let deny = |modes| covering(modes).flat_map(|policy| on_port(&policy.deny)).collect::<Vec<AccessEntry>>();
    let allow = |modes| covering(modes).flat_map(|policy| on_port(&policy.allow)).collect();
    // The most specific level decides, and at one level the later of these modes.
    let default = |modes: &[AccessMode]| {
        let at_level = |mut policies: Vec<&Policy>| {
            policies.retain(|policy| modes.contains(&policy.mode));
            policies.sort_by_key(|policy| policy.mode);
            policies.into_iter().rev().find_map(|policy| policy.default.clone())
        };
        at_levels().rev().find_map(|policies| at_level(policies.collect())).unwrap_or_else(|| below.clone())
    };
    let is_audited = covering(&[Audited]).next().is_some();
    let audit = is_audited.then(|| Audit {
        deny: deny(&[Audited]),
        allow: allow(&[Enforce, Audited]),
        default: default(&[Enforce, Audited]),
    });
    Access { deny: deny(&[Enforce]), allow: allow(&[Enforce]), default: default(&[Enforce]), checks: None, audit }
}

/// The ports of `service` that nobody may call, though workloads serve it.
pub(super) fn closed(service: &Service) -> impl Iterator<Item = &Port> {
    let is_served = matches!(&service.backing, Backing::Workloads(serving) if !serving.is_empty());
    let is_closed = |port: &&Port| {
        port.accesses().all(|access| access.default.value == AccessDefault::Deny && access.allow.is_empty())
    };
    service.ports.iter().filter(move |port| is_served && is_closed(port))
}

/// Warns about ports that are [`closed`], though workloads call them.
pub(super) fn warn_of_closed(ports: &[&Port], report: &mut Report<'_>) {
    for port in ports {
        let by = port.access.default.origin.as_ref().map(|origin| format!(" by {origin}")).unwrap_or_default();
        let message = format!(
            "the port {} is called, but nobody may: the default is deny{by}, and no entry allows anybody",
            port.name
        );
        report.warning(Code::Closed, "/spec/ports", message).hint =
            Some("write an AccessPolicy with allow for its callers".to_owned());
    }
}

/// Warns about entries that have no effect where `policy` applies.
pub(super) fn warn(policy: &Policy, covered: &Summary, report: &mut Report<'_>) {
    let (is_open, why) = match policy.mode {
        AccessMode::Enforce => (covered.all_open, "the default is allow"),
        AccessMode::Audit => (covered.audit_all_open, "no audited default would refuse what is admitted now"),
    };
    if !policy.allow.is_empty() && is_open {
        report.warning(Code::NoEffect, "/spec/allow", format!("these entries change nothing: {why}")).hint =
            Some("write default: deny to close the door to everybody else".to_owned());
    }
    if let Some((many, names)) = &covered.tcp {
        for (index, entry) in policy.deny.iter().enumerate() {
            // What names its ports was held against those already, or names them for several services.
            let everywhere = entry.operations().filter(|(ports, _)| ports.is_empty()).map(|(_, operation)| operation);
            let Some(parts) = http_parts(everywhere) else { continue };
            let message =
                format!("{parts} never match on the tcp port{many} {names}, so this entry denies nothing there");
            report.warning(Code::NoEffect, format!("/spec/deny/{index}/to"), message);
        }
    }
    for (list, index, entry) in
        policy.entries().filter(|_| matches!(policy.reach, Reach::Ports(Level::Mesh | Level::Namespace(_))))
    {
        for (n, (ports, _)) in entry.operations().enumerate() {
            for absent in ports.difference(&covered.numbers) {
                let pointer = format!("{}/{index}/to/{n}/ports", list.pointer());
                report.warning(Code::NoEffect, pointer, format!("the policy covers no port {absent}"));
            }
        }
    }
    for (list, index, entry) in policy.entries().filter(|(.., entry)| entry.from().iter().any(has_identity)) {
        let pointer = format!("{}/{index}/from", list.pointer());
        let alone = entry.from().iter().all(has_identity);
        if let Some(names) = &covered.disabled {
            let message = format!("callers have no identity on {names}, where mTLS is disabled");
            let hint = if alone { "this entry never matches there" } else { "only the other callers match there" };
            report.warning(Code::NoIdentity, pointer, message).hint = Some(hint.to_owned());
        } else if let Some(names) = &covered.permissive {
            let message = format!("plaintext callers have no identity on {names}, where mTLS is permissive");
            let hint =
                if alone { "this entry matches mTLS callers only" } else { "of them only the other callers match" };
            report.warning(Code::NoIdentity, pointer, message).hint = Some(hint.to_owned());
        }
    }
}

fn has_identity(caller: &Caller) -> bool {
    match caller {
        Caller::Any | Caller::Ip(_) => false,
        Caller::Identities(_) | Caller::Namespace(_) | Caller::Pattern(_) => true,
    }
}

/// The parts of these operations that only requests have, as words; `None` where there are none.
fn http_parts<'a>(operations: impl Iterator<Item = &'a Operation>) -> Option<String> {
    let mut parts: Vec<_> = operations.flat_map(entries::http_parts).collect();
    parts.sort_unstable();
    parts.dedup();
    let (last, others) = parts.split_last()?;
    Some(if others.is_empty() { (*last).to_owned() } else { format!("{} and {last}", others.join(", ")) })
}
