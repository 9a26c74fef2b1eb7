//! Coverage: what the ports under a level are like, as far as warnings about policies speak of it.
//!
//! Owns: counts and the first names, kept so that a service that changes costs its own part only. May use:
//! `levels`. Never: knows what a policy says.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use imbl::OrdMap;

use super::levels::Level;
use crate::mesh::{Access, AccessDefault, MtlsMode, Port, Service};
use crate::name::QualifiedName;

/// What a policy must know of the ports that it covers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    /// Whether there are any, and all of them admit everybody.
    pub all_open: bool,
    /// Whether there are any, and none of them would refuse more by an audited default.
    pub audit_all_open: bool,
    /// The plural's ending and the names of those that do not speak HTTP.
    pub tcp: Option<(&'static str, String)>,
    /// The numbers of all of them.
    pub numbers: BTreeSet<NonZeroU16>,
    /// The names of those with mTLS disabled.
    pub disabled: Option<String>,
    /// The names of those that are permissive.
    pub permissive: Option<String>,
}

/// The levels that cover many services and that policies target.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    wide: BTreeMap<Level, (Covered, Summary)>,
    touched: BTreeSet<Level>,
}

/// The ports under one level.
#[derive(Debug, Default, PartialEq, Eq)]
struct Covered {
    ports: usize,
    closed: usize,
    would_close: usize,
    /// How many have each number.
    numbers: BTreeMap<NonZeroU16, usize>,
    tcp: BTreeSet<PortName>,
    disabled: BTreeSet<PortName>,
    permissive: BTreeSet<PortName>,
}

/// A port by its name, in order of services and numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PortName {
    service: QualifiedName,
    number: NonZeroU16,
    name: String,
}

// === impl Coverage ===

impl Coverage {
    /// Takes up a change of a service; says whether policies that cover its ports see another service.
    pub(super) fn replace(&mut self, name: &QualifiedName, before: Option<&Service>, after: Option<&Service>) -> bool {
        if let (Some(before), Some(after)) = (before, after)
            && Covered::of(before) == Covered::of(after)
        {
            return false;
        }
        for level in Level::wide(name) {
            let Some((covered, _)) = self.wide.get_mut(&level) else { continue };
            before.into_iter().for_each(|service| covered.remove(service));
            after.into_iter().for_each(|service| covered.add(service));
            self.touched.insert(level);
        }
        true
    }

    /// Starts to follow `level`, or stops it when no policy targets it any more.
    pub(super) fn follow(&mut self, level: &Level, is_targeted: bool, services: &OrdMap<QualifiedName, Arc<Service>>) {
        if !is_targeted {
            self.wide.remove(level);
            return;
        }
        let services: Vec<&Service> = match level {
            Level::Mesh => services.values().map(AsRef::as_ref).collect(),
            Level::Namespace(namespace) => {
                let from = services.range(QualifiedName::first_of(namespace)..);
                from.take_while(|(name, _)| name.namespace == *namespace).map(|(_, service)| service.as_ref()).collect()
            }
            Level::Service(_) | Level::Port(..) | Level::Gateway(..) => return,
        };
        if !self.wide.contains_key(level) {
            let mut covered = Covered::default();
            services.into_iter().for_each(|service| covered.add(service));
            let summary = covered.summary();
            self.wide.insert(level.clone(), (covered, summary));
        }
    }

    /// The levels of which something else is to be said than before, and whether that is the numbers alone.
    pub(super) fn changed(&mut self) -> Vec<(Level, bool)> {
        let mut changed = Vec::new();
        for level in std::mem::take(&mut self.touched) {
            let Some((covered, summary)) = self.wide.get_mut(&level) else { continue };
            let now = covered.summary();
            if *summary != now {
                let before = std::mem::replace(summary, now);
                let numbers_alone = *summary == Summary { numbers: summary.numbers.clone(), ..before };
                changed.push((level, numbers_alone));
            }
        }
        changed
    }

    /// What the ports under `level` are like.
    pub(super) fn of(&self, level: &Level, services: &OrdMap<QualifiedName, Arc<Service>>) -> Summary {
        let mut covered = Covered::default();
        match level {
            Level::Mesh | Level::Namespace(_) => {
                return self.wide.get(level).map(|(_, summary)| summary.clone()).unwrap_or_default();
            }
            Level::Service(name) => services.get(name).into_iter().for_each(|service| covered.add(service)),
            Level::Port(name, port) => {
                let service = services.get(name).into_iter();
                service.flat_map(|service| service.port(port)).for_each(|port| covered.add_port(name, port));
            }
            // It says by itself what is wrong there.
            Level::Gateway(..) => return Summary::default(),
        }
        covered.summary()
    }
}

// === impl Covered ===

impl Covered {
    fn of(service: &Service) -> Self {
        let mut covered = Self::default();
        covered.add(service);
        covered
    }

    fn add(&mut self, service: &Service) {
        service.ports.iter().for_each(|port| self.add_port(&service.name, port));
    }

    fn add_port(&mut self, service: &QualifiedName, port: &Port) {
        self.ports += 1;
        self.closed += usize::from(is_closed(port));
        self.would_close += usize::from(port.accesses().any(Access::would_close));
        *self.numbers.entry(port.number).or_default() += 1;
        for list in self.lists(port) {
            list.insert(PortName::of(service, port));
        }
    }

    fn remove(&mut self, service: &Service) {
        for port in &service.ports {
            self.ports -= 1;
            self.closed -= usize::from(is_closed(port));
            self.would_close -= usize::from(port.accesses().any(Access::would_close));
            if let Entry::Occupied(mut count) = self.numbers.entry(port.number) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            for list in self.lists(port) {
                list.remove(&PortName::of(&service.name, port));
            }
        }
    }

    fn lists(&mut self, port: &Port) -> impl Iterator<Item = &mut BTreeSet<PortName>> {
        let tcp = (!port.protocol.is_http()).then_some(&mut self.tcp);
        let mode = match port.mtls.value {
            MtlsMode::Strict => None,
            MtlsMode::Permissive => Some(&mut self.permissive),
            MtlsMode::Disabled => Some(&mut self.disabled),
        };
        tcp.into_iter().chain(mode)
    }

    fn summary(&self) -> Summary {
        Summary {
            all_open: self.ports > 0 && self.closed == 0,
            audit_all_open: self.ports > 0 && self.would_close == 0,
            tcp: shown(&self.tcp).map(|names| (if self.tcp.len() > 1 { "s" } else { "" }, names)),
            numbers: self.numbers.keys().copied().collect(),
            disabled: shown(&self.disabled),
            permissive: shown(&self.permissive),
        }
    }
}

fn is_closed(port: &Port) -> bool {
    port.accesses().any(|access| access.default.value != AccessDefault::Allow)
}

/// Some ports by name; `None` when there are none.
fn shown(ports: &BTreeSet<PortName>) -> Option<String> {
    const MOST: usize = 3;
    let listed = ports.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (ports.len(), ports.len().saturating_sub(MOST)) {
        (0, _) => None,
        (_, 0) => Some(listed),
        (_, more) => Some(format!("{listed} and {more} more")),
    }
}

// === impl PortName ===

impl PortName {
    fn of(service: &QualifiedName, port: &Port) -> Self {
        Self { service: service.clone(), number: port.number, name: port.name.clone() }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.name)
    }
}
