//! Patching: which changes of EnvoyPatches are for what a workload's proxies get.
//!
//! Owns: the index of patches, the order in which they are made, and what of a resource's key they look at. May use: `mesh`,
//! `patched` (how a resource is changed). Never: looks into a resource.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::patched::{self, Applied, Effect};
use super::{Client, Features, ResourceKey};
use crate::mesh::{Direction, EnvoyPatch, Mesh, PatchChange, PatchEdit, PatchTarget, Patched, Workload};
use crate::name::{Label, QualifiedName};
use crate::resource::{Kind, Name, Resource};
use crate::version::EnvoyVersion;

/// The patches of a mesh, in the order in which they are made.
#[derive(Debug, Default)]
pub struct Patching {
    patches: Vec<Arc<EnvoyPatch>>,
    /// Places in `patches`, in order.
    everywhere: Vec<usize>,
    namespaces: BTreeMap<Label, Vec<usize>>,
    services: BTreeMap<QualifiedName, Vec<usize>>,
}

/// One change of a patch that is for something.
#[derive(Debug, Clone)]
pub struct Step {
    /// The patch.
    pub patch: Arc<EnvoyPatch>,
    /// The place of the change in it.
    pub edit: usize,
}

/// What a key says of its resource that targets look at.
struct Subject<'a> {
    port: Option<(&'a QualifiedName, &'a str)>,
    direction: Direction,
}

// === impl Patching ===

impl Patching {
    /// The patches of `mesh`.
    pub fn of(mesh: &Mesh) -> Self {
        let mut patches: Vec<Arc<EnvoyPatch>> = mesh.patches.values().map(Arc::clone).collect();
        patches.sort_by(|one, other| order(one).cmp(&order(other)));
        let mut patching = Self::default();
        for (place, patch) in patches.iter().enumerate() {
            let places = match &patch.target {
                PatchTarget::Mesh => &mut patching.everywhere,
                PatchTarget::Namespace(namespace) | PatchTarget::Labels(namespace, _) => {
                    patching.namespaces.entry(namespace.clone()).or_default()
                }
                PatchTarget::Service { service, .. } => patching.services.entry(service.clone()).or_default(),
            };
            places.push(place);
        }
        Self { patches, ..patching }
    }

    /// Whether nothing is changed at all.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Every patch, in order.
    pub fn patches(&self) -> &[Arc<EnvoyPatch>] {
        &self.patches
    }

    /// The changes that may be made, depending on the version of the proxy, to the resource of `key` as proxies of `workload`
    /// get it.
    pub fn steps(&self, workload: &Workload, key: &ResourceKey) -> Vec<Step> {
        if self.is_empty() {
            return Vec::new();
        }
        let Some(subject) = Subject::of(key) else { return Vec::new() };
        let (kind, name) = (key.kind(), key.name());
        let patches = self.about(workload, subject.port.map(|(service, _)| service));
        let patches = patches.into_iter().filter(|patch| subject.is_meant(&patch.target, workload));
        let edits = patches.flat_map(|patch| {
            let meant = patch.edits.iter().enumerate().filter(|(_, edit)| {
                may_change(edit, kind, &name) && edit.direction.is_none_or(|only| only == subject.direction)
            });
            meant.map(|(edit, _)| Step { patch: Arc::clone(patch), edit }).collect::<Vec<_>>()
        });
        edits.collect()
    }

    /// What patches may add to what proxies of `workload` get, depending on their version.
    pub fn additions(&self, workload: &Workload) -> Vec<Step> {
        self.own(workload, |edit, directions| {
            let adds = matches!(edit.change, PatchChange::Add(_)) && kind_of(edit.resource).is_some();
            adds && edit.direction.is_none_or(|direction| directions.contains(&direction))
        })
    }

    /// The bootstrap of a proxy of `workload` after the patches, as proto-JSON; without a version, those patches alone that are
    /// for any.
    pub fn bootstrap(
        &self,
        workload: &Workload,
        version: Option<EnvoyVersion>,
        mut bootstrap: Map<String, Value>,
    ) -> (Map<String, Value>, Vec<Effect>) {
        let effects = patched::bootstrap(&mut bootstrap, &self.bootstrap_steps(workload, version));
        (bootstrap, effects)
    }

    /// The changes of the bootstrap of a proxy of `workload`.
    pub fn bootstrap_steps(&self, workload: &Workload, version: Option<EnvoyVersion>) -> Vec<Step> {
        let mut steps = self.own(workload, |edit, _| edit.resource == Patched::Bootstrap);
        steps.retain(|step| match version {
            Some(version) => step.patch.envoy.takes(version),
            None => step.patch.envoy.is_any(),
        });
        steps
    }

    /// Changes that are no changes of one resource, for `workload`: `is_meant` is told which ways of it the patch is about.
    fn own(&self, workload: &Workload, is_meant: impl Fn(&PatchEdit, &[Direction]) -> bool) -> Vec<Step> {
        if self.is_empty() {
            return Vec::new();
        }
        let wide = self.about(workload, None);
        let wide = wide.into_iter().filter(|patch| patch.target.takes(workload));
        let both: &[Direction] = &[Direction::Inbound, Direction::Outbound];
        let mut found: Vec<(&Arc<EnvoyPatch>, Vec<Direction>)> = wide.map(|patch| (patch, both.to_vec())).collect();
        for patch in self.services.values().flatten().filter_map(|place| self.patches.get(*place)) {
            let directions = ways(&patch.target, workload);
            if !directions.is_empty() {
                found.push((patch, directions));
            }
        }
        found.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
        let steps = found.into_iter().flat_map(|(patch, directions)| {
            let edits = patch.edits.iter().enumerate().filter(|(_, edit)| is_meant(edit, &directions));
            edits.map(|(edit, _)| Step { patch: Arc::clone(patch), edit }).collect::<Vec<_>>()
        });
        steps.collect()
    }

    /// The patches that may be for something of `workload` that is about `service`, in order.
    fn about(&self, workload: &Workload, service: Option<&QualifiedName>) -> Vec<&Arc<EnvoyPatch>> {
        let near = self.namespaces.get(&workload.name.namespace).into_iter().flatten();
        let narrow = service.and_then(|service| self.services.get(service)).into_iter().flatten();
        let mut places: Vec<usize> = self.everywhere.iter().chain(near).chain(narrow).copied().collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| self.patches.get(place)).collect()
    }
}

// === impl Step ===

impl Step {
    /// The change.
    pub fn edit(&self) -> &PatchEdit {
        &self.patch.edits[self.edit]
    }

    /// Those of `steps` that are for clients of these features.
    pub fn of_features(steps: &[Self], features: Features) -> Vec<Self> {
        let known = |step: &&Self| features.client == Client::Envoy && step.patch.envoy.takes(features.version);
        steps.iter().filter(known).cloned().collect()
    }

    /// `resource` after `steps`.
    pub fn apply(steps: &[Self], resource: &Resource) -> Applied {
        patched::resource(resource, steps)
    }

    /// What it adds, if it adds a resource.
    pub fn added(&self) -> Option<Resource> {
        patched::added(self)
    }

    /// The kind and the name of that.
    pub fn adds(&self) -> Option<(Kind, Name)> {
        let edit = self.edit();
        let name = edit.value()?.get(edit.resource.name_field()?)?.as_str()?;
        Some((kind_of(edit.resource)?, name.into()))
    }
}

/// The same change of the same form of a patch.
impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.patch, &other.patch) && self.edit == other.edit
    }
}

impl Eq for Step {}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// Of what proxies get.
    fn of(key: &'a ResourceKey) -> Option<Self> {
        let (port, direction) = match key {
            ResourceKey::Cluster(to) | ResourceKey::ConsumerCluster(to, _) | ResourceKey::Endpoints(to, _) => {
                (Some((&to.service, to.port.as_str())), Direction::Outbound)
            }
            ResourceKey::LocalCluster(slot) | ResourceKey::Jwks(slot, _) | ResourceKey::Inbound(slot, _) => {
                (Some((&slot.service, slot.port.as_str())), Direction::Inbound)
            }
            ResourceKey::Outbound(slot, _) => (Some((&slot.service, slot.port.as_str())), Direction::Outbound),
            ResourceKey::Route { service, port, .. } => (Some((service, port.as_str())), Direction::Outbound),
            ResourceKey::Collector(_) => (None, Direction::Outbound),
            ResourceKey::Edge(_) | ResourceKey::EdgeRoute(..) | ResourceKey::EdgeJwks(..) => (None, Direction::Inbound),
            ResourceKey::Proxyless(_) => return None,
        };
        Some(Self { port, direction })
    }

    fn is_meant(&self, target: &PatchTarget, workload: &Workload) -> bool {
        let PatchTarget::Service { service, port, consumer } = target else { return target.takes(workload) };
        let is_port =
            |(of, name): (&QualifiedName, &str)| of == service && port.as_deref().is_none_or(|only| only == name);
        self.port.is_some_and(is_port) && consumer.as_ref().is_none_or(|only| workload.name.namespace == *only)
    }
}

/// Which ways of `workload` lead to the service that is the target, or come from it.
fn ways(target: &PatchTarget, workload: &Workload) -> Vec<Direction> {
    let PatchTarget::Service { service, port, consumer } = target else { return Vec::new() };
    let is_meant = |of: &QualifiedName, name: &str| of == service && port.as_deref().is_none_or(|only| only == name);
    let serves = workload.serves.iter().any(|serve| is_meant(&serve.service, &serve.port)) && consumer.is_none();
    let mut to = workload.edges.iter().flat_map(|edge| edge.destinations());
    let calls = consumer.as_ref().is_none_or(|only| workload.name.namespace == *only)
        && (workload.calls.iter().any(|call| is_meant(&call.service, &call.port))
            || to.any(|to| is_meant(&to.service, &to.port)));
    let ways = [(serves, Direction::Inbound), (calls, Direction::Outbound)];
    ways.into_iter().filter(|(leads, _)| *leads).map(|(_, direction)| direction).collect()
}

/// Lower priorities first, then wider targets, then names.
fn order(patch: &EnvoyPatch) -> (i32, u8, &QualifiedName) {
    let width = match &patch.target {
        PatchTarget::Mesh => 0,
        PatchTarget::Namespace(_) => 1,
        PatchTarget::Labels(..) => 2,
        PatchTarget::Service { port: None, .. } => 3,
        PatchTarget::Service { port: Some(_), .. } => 4,
    };
    (patch.priority, width, &patch.name)
}

/// Whether `edit` may change something in the resource of this kind and name.
fn may_change(edit: &PatchEdit, kind: Kind, name: &str) -> bool {
    let adds = matches!(edit.change, PatchChange::Add(_));
    match edit.resource {
        Patched::Listener | Patched::Cluster | Patched::Endpoint => {
            !adds && kind_of(edit.resource) == Some(kind) && edit.takes(name)
        }
        Patched::FilterChain | Patched::HttpFilter => kind == Kind::Listener && edit.takes_within(name),
        Patched::VirtualHost | Patched::Route => {
            matches!(kind, Kind::Listener | Kind::Route) && edit.takes_within(name)
        }
        Patched::Bootstrap => false,
    }
}

/// The kind of a resource of its own.
pub(super) fn kind_of(resource: Patched) -> Option<Kind> {
    match resource {
        Patched::Listener => Some(Kind::Listener),
        Patched::Cluster => Some(Kind::Cluster),
        Patched::Endpoint => Some(Kind::Endpoints),
        Patched::FilterChain | Patched::HttpFilter | Patched::VirtualHost | Patched::Route | Patched::Bootstrap => None,
    }
}
