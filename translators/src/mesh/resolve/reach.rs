//! Reach: which proxies a policy about proxies is for.
//!
//! Owns: targets that may be labels of workloads, and where these stand on the ladder. May use: `levels`, `facts`. Never: knows what
//! a policy says.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::claims::Claim;
use super::facts::Fact;
use super::gateways::Gateways;
use super::levels::{ByLevel, Level};
use super::report::Report;
use super::services::Services;
use crate::finding::Code;
use crate::mesh::Workload;
use crate::name::{Label, QualifiedName};
use crate::rules::target::Target;

/// What a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Everything, a namespace, a service or a port of it.
    Ports(Level),
    /// The workloads of a namespace with these labels.
    Workloads(Label, BTreeMap<String, String>),
}

/// The workloads that are kept, by name.
pub(super) type Workloads = OrdMap<QualifiedName, Arc<Workload>>;

/// Something that one policy alone may say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// Of a target.
    Of(Reach),
    /// Of a workload, which it takes by so many labels.
    By(usize, QualifiedName),
}

/// How many labels, and which.
type Labels = (usize, BTreeMap<String, String>);

/// What there is for each.
#[derive(Debug)]
pub(super) struct ByReach<T> {
    levels: ByLevel<T>,
    /// By namespace; the more labels, the later.
    labelled: BTreeMap<Label, BTreeMap<Labels, T>>,
}

// === impl Said ===

impl Said {
    /// What is wrong with being second: the same of a target as `of_target` says.
    pub(super) fn why(&self, of_target: &str) -> String {
        match self {
            Self::Of(_) => of_target.to_owned(),
            Self::By(_, workload) => format!("says it of the workload {workload} too, by as many labels"),
        }
    }
}

// === impl Reach ===

/// One policy decides for a target.
impl Claim for Reach {
    const POINTER: &'static str = "/spec/target";
    const WHY: &'static str = "has the same target";
}

impl Reach {
    /// What `target` is for.
    pub(super) fn of(target: &Target, services: &Services, report: &mut Report<'_>) -> Option<Self> {
        let Target::Labels(labels) = target else {
            // What its workloads call is told too, whatever they serve.
            return match target {
                Target::Namespace => Some(Self::Ports(Level::Namespace(report.object.key.name.namespace.clone()))),
                _ => Level::of(target, services, report).map(Self::Ports),
            };
        };
        if labels.is_empty() {
            report.error(Code::InvalidValue, "/spec/target/labels", "no labels would be every workload").hint =
                Some("write {scope: namespace}".to_owned());
        }
        Some(Self::Workloads(report.object.key.name.namespace.clone(), labels.clone()))
    }

    /// As [`Reach::of`], for a policy about what `workloads` take.
    pub(super) fn of_served(
        target: &Target,
        services: &Services,
        workloads: &Workloads,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Target::Labels(_) = target else { return Level::of(target, services, report).map(Self::Ports) };
        let reach = Self::of(target, services, report)?;
        report.reads.push(Fact::Labels(report.object.key.name.namespace.clone()));
        if reach.within(workloads).next().is_none() {
            let message = format!("no workload of {} has these labels", report.object.key.name.namespace);
            report.warning(Code::NoEffect, "/spec/target/labels", message);
        }
        Some(reach)
    }

    /// The same, where it may also be about a gateway.
    pub(super) fn with_gateways(
        target: &Target,
        (services, gateways): (&Services, &Gateways),
        workloads: &Workloads,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        match target {
            Target::Gateway(..) => Level::with_gateways(target, services, gateways, report).map(Self::Ports),
            _ => Self::of_served(target, services, workloads, report),
        }
    }

    /// What a policy for it says that no other one may: of the target, and of every one of `workloads` that it takes by
    /// labels.
    pub(super) fn said(&self, workloads: &Workloads) -> Vec<Said> {
        let labels = match self {
            Self::Ports(_) => 0,
            Self::Workloads(_, labels) => labels.len(),
        };
        let each = self.within(workloads).map(|workload| Said::By(labels, workload.name.clone()));
        [Said::Of(self.clone())].into_iter().chain(each).collect()
    }

    /// The workloads that it takes by labels.
    pub(super) fn within<'a>(&'a self, workloads: &'a Workloads) -> impl Iterator<Item = &'a Workload> {
        let labelled = match self {
            Self::Ports(_) => None,
            Self::Workloads(namespace, labels) => Some((namespace, labels)),
        };
        labelled.into_iter().flat_map(|(namespace, labels)| {
            let near = workloads.range(QualifiedName::first_of(namespace)..).map(|(_, workload)| workload.as_ref());
            let near = near.take_while(|workload| workload.name.namespace == *namespace);
            near.filter(|workload| carries(workload, labels))
        })
    }

    /// What it covers, unless labels say that.
    pub(super) fn level(&self) -> Option<&Level> {
        match self {
            Self::Ports(level) => Some(level),
            Self::Workloads(..) => None,
        }
    }

    /// Whether labels say what it takes.
    pub(super) fn is_by_labels(&self) -> bool {
        match self {
            Self::Ports(_) => false,
            Self::Workloads(..) => true,
        }
    }

    /// Whether something of `workload` is within.
    pub(super) fn takes(&self, workload: &Workload) -> bool {
        match self {
            Self::Ports(Level::Mesh) => true,
            Self::Ports(Level::Gateway(..)) => false,
            Self::Ports(Level::Namespace(namespace)) => workload.name.namespace == *namespace,
            Self::Ports(Level::Service(service)) => workload.serves.iter().any(|serve| serve.service == *service),
            Self::Ports(Level::Port(service, port)) => {
                workload.serves.iter().any(|serve| (&serve.service, &serve.port) == (service, port))
            }
            Self::Workloads(namespace, labels) => workload.name.namespace == *namespace && carries(workload, labels),
        }
    }

    /// The one namespace in which it takes anything, if there is but one.
    pub(super) fn namespace(&self) -> Option<&Label> {
        match self {
            Self::Ports(Level::Mesh) => None,
            Self::Ports(Level::Namespace(namespace)) | Self::Workloads(namespace, _) => Some(namespace),
            Self::Ports(Level::Service(name) | Level::Port(name, _) | Level::Gateway(name, _)) => Some(&name.namespace),
        }
    }

    /// Whether a workload that both take by their labels would have to choose.
    pub(super) fn rivals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workloads(a, labels), Self::Workloads(b, others)) => {
                a == b && labels != others && labels.len() == others.len()
            }
            _ => false,
        }
    }
}

fn carries(workload: &Workload, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
}

// === impl ByReach ===

impl<T> Default for ByReach<T> {
    fn default() -> Self {
        Self { levels: ByLevel::default(), labelled: BTreeMap::new() }
    }
}

impl<T> ByReach<T> {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.labelled.is_empty()
    }

    /// Whether labels say anything of the workloads of a namespace.
    pub(super) fn is_by_labels(&self, namespace: &Label) -> bool {
        self.labelled.contains_key(namespace)
    }

    /// What is at `reach`.
    pub(super) fn get(&self, reach: &Reach) -> Option<&T> {
        match reach {
            Reach::Ports(level) => self.levels.get(level),
            Reach::Workloads(namespace, labels) => self.labelled.get(namespace)?.get(&(labels.len(), labels.clone())),
        }
    }

    /// What is at `reach`, or else what `new` gives.
    pub(super) fn entry(&mut self, reach: &Reach, new: impl FnOnce() -> T) -> &mut T {
        match reach {
            Reach::Ports(level) => self.levels.entry(level, new),
            Reach::Workloads(namespace, labels) => {
                let labelled = self.labelled.entry(namespace.clone()).or_default();
                labelled.entry((labels.len(), labels.clone())).or_insert_with(new)
            }
        }
    }

    /// What covers a port as `workload` serves it, or else as those serve it of whom labels say nothing, from the widest to
    /// the most specific.
    pub(super) fn covering<'a>(
        &'a self,
        service: &QualifiedName,
        port: &str,
        workload: Option<&'a Workload>,
    ) -> impl DoubleEndedIterator<Item = &'a T> {
        let labelled = workload.into_iter().flat_map(|workload| {
            let near = self.labelled.get(&workload.name.namespace).into_iter().flatten();
            near.filter(|((_, labels), _)| carries(workload, labels)).map(|(_, value)| value)
        });
        self.levels.wide(&service.namespace).chain(labelled).chain(self.levels.narrow(service, port))
    }

    /// What covers a listener of a gateway, if one is named, from the gateway to the listener.
    pub(super) fn of_gateway(&self, gateway: &QualifiedName, listener: Option<&str>) -> impl Iterator<Item = &T> {
        self.levels.of_gateway(gateway, listener)
    }

    /// What covers only `service` or ports of it.
    pub(super) fn only(&self, service: &QualifiedName) -> impl Iterator<Item = &T> {
        self.levels.only(service)
    }

    /// Puts `value` there.
    pub(super) fn put(&mut self, reach: &Reach, value: T) {
        match reach {
            Reach::Ports(level) => self.levels.put(level, value),
            Reach::Workloads(namespace, labels) => {
                let labelled = self.labelled.entry(namespace.clone()).or_default();
                labelled.insert((labels.len(), labels.clone()), value);
            }
        }
    }

    /// Takes away what is there.
    pub(super) fn remove(&mut self, reach: &Reach) {
        match reach {
            Reach::Ports(level) => self.levels.remove(level),
            Reach::Workloads(namespace, labels) => {
                let Some(labelled) = self.labelled.get_mut(namespace) else { return };
                labelled.remove(&(labels.len(), labels.clone()));
                if labelled.is_empty() {
                    self.labelled.remove(namespace);
                }
            }
        }
    }

    /// What is for all of a workload, from the widest to the most specific.
    pub(super) fn of_workload<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a T> {
        let labelled = self.labelled.get(&workload.name.namespace).into_iter().flatten();
        let labelled = labelled.filter(|((_, labels), _)| carries(workload, labels)).map(|(_, value)| value);
        self.levels.wide(&workload.name.namespace).chain(labelled)
    }

    /// What is for a port alone, or for its service; it goes before everything else.
    pub(super) fn of_port<'a>(&'a self, service: &QualifiedName, port: &str) -> impl Iterator<Item = &'a T> {
        self.levels.narrow(service, port)
    }
}
