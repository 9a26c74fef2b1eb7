//! EnvoyPatches: what is changed, and that Envoy's messages have it.
//!
//! Owns: the patches that are kept. May use: `rules`, `levels`, `raw` (how mistakes in Envoy's messages are said), `json`. Never:
//! knows what a patch finds to change.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use serde_json::{Map, Value};

use super::claims::Unclaimed;
use super::levels::Level;
use super::raw;
use super::report::Report;
use super::services::Services;
use super::stage::{Common, Stage};
use crate::finding::Code;
use crate::json;
use crate::mesh::{Direction, EnvoyPatch, PatchChange, PatchEdit, PatchTarget, Patched};
use crate::name::{ObjectKind, QualifiedName};
use crate::rules::Spec;
use crate::rules::patch::{EditMatch, EditOp, EditSpec, PatchSpec};
use crate::rules::target::Target;

/// The patches.
#[derive(Debug, Default)]
pub(super) struct Patches {
    stage: Stage<EnvoyPatch, Unclaimed>,
    kept: OrdMap<QualifiedName, Arc<EnvoyPatch>>,
}

// === impl Patches ===

impl Patches {
    /// What the mesh holds.
    pub(super) fn kept(&self) -> &OrdMap<QualifiedName, Arc<EnvoyPatch>> {
        &self.kept
    }

    /// Evaluates the patches `names` again.
    pub(super) fn update(&mut self, names: Vec<QualifiedName>, services: &Services, common: &mut Common) {
        let changes = self.stage.update(ObjectKind::EnvoyPatch, names, common, |report| match &report.object.spec {
            Spec::EnvoyPatch(spec) => Some((patch(spec, services, report)?, None)),
            _ => None,
        });
        for change in changes.into_iter().filter(super::stage::Change::is_new) {
            match change.after {
                Some(kept) => self.kept.insert(change.name, kept.value),
                None => self.kept.remove(&change.name),
            };
        }
    }
}

fn patch(spec: &PatchSpec, services: &Services, report: &mut Report<'_>) -> Option<EnvoyPatch> {
    let target = target(&spec.target, services, report);
    if spec.patches.is_empty() {
        report.error(Code::MissingField, "/spec/patches", "nothing is changed");
    }
    let mut edits = Vec::with_capacity(spec.patches.len());
    let mut added = BTreeSet::new();
    for (index, written) in spec.patches.iter().enumerate() {
        let at = format!("/spec/patches/{index}");
        let Some(edit) = edit(written, &at, report) else { continue };
        if let (PatchChange::Add(value), Some(field)) = (&edit.change, edit.resource.name_field())
            && !edit.resource.is_part()
            && !added.insert((edit.resource, value.get(field).cloned().map(|name| name.to_string())))
        {
            report.error(Code::Duplicate, format!("{at}/value/{field}"), "the same name is added before already");
        }
        let of_service = matches!(target, Some(PatchTarget::Service { .. }));
        if of_service && edit.resource == Patched::Bootstrap {
            let message = "a bootstrap is there for the sake of no service";
            report.error(Code::InvalidValue, format!("{at}/resource"), message).hint =
                Some("target the mesh, a namespace or labels".to_owned());
        }
        if let Some(PatchTarget::Service { service, consumer: Some(home), .. }) = &target
            && edit.direction != Some(Direction::Outbound)
        {
            let message = format!("a patch of {home} changes how {home} calls {service}, and nothing else of it");
            report.error(Code::Foreign, format!("{at}/match/direction"), message).hint =
                Some("write direction: outbound".to_owned());
        }
        edits.push(edit);
    }
    let envoy = spec.envoy.clone().map(|versions| versions.0).unwrap_or_default();
    let (name, origin) = (report.object.key.name.clone(), report.origin(""));
    Some(EnvoyPatch { name, origin, target: target?, envoy, priority: spec.priority, edits })
}

fn target(written: &Target, services: &Services, report: &mut Report<'_>) -> Option<PatchTarget> {
    let home = &report.object.key.name.namespace;
    match written {
        Target::Namespace => Some(PatchTarget::Namespace(home.clone())),
        Target::Labels(labels) => {
            let home = home.clone();
            if labels.is_empty() {
                report.error(Code::InvalidValue, "/spec/target/labels", "no labels would be every workload").hint =
                    Some("write {scope: namespace}".to_owned());
            }
            Some(PatchTarget::Labels(home, labels.clone()))
        }
        Target::Mesh | Target::Service(_) | Target::Port(..) | Target::Gateway(..) | Target::Route(..) => {
            let (level, consumer) = Level::of_calls(written, services, report)?;
            Some(match level {
                Level::Mesh => PatchTarget::Mesh,
                Level::Namespace(namespace) => PatchTarget::Namespace(namespace),
                Level::Service(service) => PatchTarget::Service { service, port: None, consumer },
                Level::Port(service, port) => PatchTarget::Service { service, port: Some(port), consumer },
                // No level of calls is one.
                Level::Gateway(..) => return None,
            })
        }
    }
}

fn edit(written: &EditSpec, at: &str, report: &mut Report<'_>) -> Option<PatchEdit> {
    let EditSpec { resource, matches, op, value } = written;
    let EditMatch { name, direction, within } = matches;
    for (field, pattern) in [("name", name), ("within", within)] {
        if pattern.as_deref() == Some("") {
            report.error(Code::PatchUnfit, format!("{at}/match/{field}"), "nothing has an empty name").hint =
                Some("leave it out for any name".to_owned());
        }
    }
    let mut superfluous = |field: &str, message: &str| {
        report.error(Code::InvalidValue, format!("{at}/match/{field}"), message).hint = Some("leave it out".to_owned());
    };
    if *op == EditOp::Add && name.is_some() {
        superfluous("name", "what is added is next to nothing: direction and within say where it goes");
    }
    if within.is_some() && !resource.is_part() {
        superfluous("within", "this is no part of a listener or route configuration");
    }
    if *resource == Patched::Bootstrap {
        for (field, _) in [("name", name.is_some()), ("direction", direction.is_some())].iter().filter(|(_, is)| *is) {
            superfluous(field, "a proxy has one bootstrap");
        }
        if *op != EditOp::Merge {
            report.error(Code::InvalidValue, format!("{at}/op"), "a bootstrap is merged into").choices =
                vec!["merge".to_owned()];
            return None;
        }
    }
    if matches!(op, EditOp::InsertBefore | EditOp::InsertAfter) && !resource.is_ordered() {
        report.error(Code::InvalidValue, format!("{at}/op"), "there is no order among these").hint =
            Some("write add".to_owned());
    }
    let change = match (op, value) {
        (EditOp::Remove, None) => PatchChange::Remove,
        (EditOp::Remove, Some(_)) => {
            report.error(Code::InvalidValue, format!("{at}/value"), "what goes away needs no value").hint =
                Some("leave it out".to_owned());
            return None;
        }
        (_, None) => {
            report.error(Code::MissingField, at, "missing field \"value\"");
            return None;
        }
        (op, Some(value)) => {
            let at = format!("{at}/value");
            fits(*resource, &value.0, &at, report)?;
            let is_new = matches!(op, EditOp::Add | EditOp::InsertBefore | EditOp::InsertAfter);
            let value = Arc::new(named(*resource, &value.0, is_new, &at, report)?);
            match op {
                EditOp::Merge => PatchChange::Merge(value),
                EditOp::Add => PatchChange::Add(value),
                EditOp::Replace => PatchChange::Replace(value),
                EditOp::InsertBefore => PatchChange::InsertBefore(value),
                EditOp::InsertAfter => PatchChange::InsertAfter(value),
                EditOp::Remove => PatchChange::Remove,
            }
        }
    };
    Some(PatchEdit {
        origin: report.origin(at),
        resource: *resource,
        name: name.clone(),
        within: within.clone(),
        direction: *direction,
        change,
    })
}

/// Whether Envoy's message takes the value.
fn fits(resource: Patched, value: &Map<String, Value>, at: &str, report: &mut Report<'_>) -> Option<()> {
    let written = Value::Object(value.clone());
    let (bytes, misfits) = json::from_json(resource.type_name(), &written).ok()?;
    let before = report.findings.len();
    for misfit in misfits {
        raw::say(misfit, at, report);
    }
    for finding in &mut report.findings[before..] {
        finding.code = Code::PatchUnfit;
    }
    for pointer in json::deprecated(resource.type_name(), &written) {
        report.warning(Code::PatchUnfit, format!("{at}{pointer}"), "Envoy means to drop this field: it is deprecated");
    }
    if json::holds_secret(resource.type_name(), &bytes) {
        report.error(Code::ExposedKey, at, "a private key or another secret stands in it").hint =
            Some("name its file instead".to_owned());
    }
    Some(())
}

/// The value without what it may be called in the other spelling, and with the name that something new has.
fn named(
    resource: Patched,
    value: &Map<String, Value>,
    is_new: bool,
    at: &str,
    report: &mut Report<'_>,
) -> Option<Map<String, Value>> {
    let mut value = value.clone();
    let Some(field) = resource.name_field() else { return Some(value) };
    let spelt = [field, "clusterName"].into_iter().find_map(|field| Some((field, value.remove(field)?)));
    if !is_new {
        if let Some((field, _)) = spelt {
            let message = "the name is what others refer to it by, and stays";
            report.error(Code::PatchUnfit, format!("{at}/{field}"), message).hint = Some("leave it out".to_owned());
        }
        return Some(value);
    }
    let patch = &report.object.key.name;
    let name = match spelt {
        Some((_, Value::String(name))) if !name.is_empty() && !name.chars().any(char::is_control) => {
            format!("patch/{patch}/{name}")
        }
        // Nothing refers to a route or a filter chain.
        None if matches!(resource, Patched::Route | Patched::FilterChain) => format!("patch/{patch}"),
        Some((field, _)) => {
            report.error(Code::PatchUnfit, format!("{at}/{field}"), "this is no name");
            return None;
        }
        None => {
            report.error(Code::MissingField, at, format!("missing field {field:?}"));
            return None;
        }
    };
    value.insert(field.to_owned(), name.into());
    Some(value)
}
