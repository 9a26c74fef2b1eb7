//! Patched: a resource after the changes of EnvoyPatches.
//!
//! Owns: finding the parts of a resource that a change means, making it, and what came of it. May use: `json` (how messages
//! merge), `guards`. Never: knows who gets the resource.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::guards::Guards;
use super::patching::{Step, kind_of};
use crate::json::{self, Clash};
use crate::mesh::{PatchChange, Patched};
use crate::name::RuleRef;
use crate::resource::{Kind, Resource};

const CONNECTION_MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// What came of the changes of a resource.
#[derive(Debug)]
pub struct Applied {
    /// The resource; none if it was taken away.
    pub resource: Option<Resource>,
    /// What each change did, in their order.
    pub effects: Vec<Effect>,
}

/// What one change did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// How much it has changed.
    pub matched: usize,
    /// The names of what it might have changed.
    pub seen: Vec<String>,
    /// What it could not be merged into, and the name of that.
    pub clash: Option<(String, Clash)>,
    /// What protects, and is not there any more, or not as it was.
    pub unguarded: Vec<String>,
}

/// `base` after `steps`.
pub(super) fn resource(base: &Resource, steps: &[Step]) -> Applied {
    let unchanged = |effects| Applied { resource: Some(base.clone()), effects };
    let type_name = base.kind().type_name();
    let Ok(Value::Object(mut message)) = json::to_json(type_name, &base.value()) else {
        return unchanged(vec![Effect::default(); steps.len()]);
    };
    let mut effects = Vec::with_capacity(steps.len());
    let mut guards = Guards::of(&message);
    for step in steps {
        let effect = effect(step, base, &mut message);
        if is_removal(step) {
            // Nothing is left that would need to be protected.
            effects.push(effect);
            effects.resize(steps.len(), Effect::default());
            return Applied { resource: None, effects };
        }
        let after = Guards::of(&message);
        effects.push(Effect { unguarded: guards.lost(&after), ..effect });
        guards = after;
    }
    let made: Vec<&Step> =
        steps.iter().zip(&effects).filter(|(_, effect)| effect.matched > 0).map(|(step, _)| step).collect();
    if made.is_empty() {
        return unchanged(effects);
    }
    match json::from_json(type_name, &Value::Object(message)) {
        Ok((bytes, misfits)) if misfits.is_empty() => {
            let mut origins: Vec<RuleRef> = base.origins().to_vec();
            origins.extend(made.into_iter().map(|step| step.edit().origin.clone()));
            origins.sort();
            origins.dedup();
            let resource = Resource::from_bytes(base.kind(), Arc::clone(base.name()), &bytes, origins.into());
            let resource = if base.holds_key() { resource.holding_key() } else { resource };
            Applied { resource: Some(resource), effects }
        }
        // What fits by itself fits what it is merged into; a resource is never lost otherwise.
        Ok(_) | Err(_) => unchanged(vec![Effect::default(); steps.len()]),
    }
}

/// What `step` adds beside other resources.
pub(super) fn added(step: &Step) -> Option<Resource> {
    let (kind, name) = step.adds()?;
    let value = Value::Object(step.edit().value()?.as_ref().clone());
    let (bytes, _) = json::from_json(kind.type_name(), &value).ok()?;
    Some(Resource::from_bytes(kind, name, &bytes, [step.edit().origin.clone()].into()))
}

/// Merges `steps` into a bootstrap.
pub(super) fn bootstrap(bootstrap: &mut Map<String, Value>, steps: &[Step]) -> Vec<Effect> {
    let merged = steps.iter().map(|step| {
        let mut effect = Effect::default();
        change(step, bootstrap, "the bootstrap", &mut effect);
        effect
    });
    merged.collect()
}

/// Whether what `step` means goes away as a whole.
fn is_removal(step: &Step) -> bool {
    step.edit().change == PatchChange::Remove && kind_of(step.edit().resource).is_some()
}

/// Makes the change in every part of `message` that it means.
fn effect(step: &Step, base: &Resource, message: &mut Map<String, Value>) -> Effect {
    let mut effect = Effect::default();
    match step.edit().resource {
        Patched::Listener | Patched::Cluster | Patched::Endpoint => {
            if is_removal(step) {
                effect.matched = 1;
            } else {
                change(step, message, base.name(), &mut effect);
            }
        }
        Patched::FilterChain => {
            list(step, message, "filter_chains", &mut effect);
            // It has no place among the others.
            if let Some(Value::Object(chain)) = message.get_mut("default_filter_chain") {
                let name = text(chain, "name").to_owned();
                if step.edit().takes(&name) {
                    change(step, chain, &name, &mut effect);
                }
            }
        }
        Patched::HttpFilter => connection_managers(message, |manager| list(step, manager, "http_filters", &mut effect)),
        Patched::VirtualHost => {
            configurations(base.kind(), message, |routes| list(step, routes, "virtual_hosts", &mut effect));
        }
        Patched::Route => configurations(base.kind(), message, |routes| {
            for host in members(routes, "virtual_hosts") {
                list(step, host, "routes", &mut effect);
            }
        }),
        Patched::Bootstrap => {}
    }
    effect
}

/// Every HTTP connection manager of a listener.
fn connection_managers(listener: &mut Map<String, Value>, mut visit: impl FnMut(&mut Map<String, Value>)) {
    let mut of_chain = |chain: &mut Map<String, Value>| {
        for filter in members(chain, "filters") {
            if let Some(Value::Object(config)) = filter.get_mut("typed_config")
                && text(config, "@type").rsplit('/').next() == Some(CONNECTION_MANAGER)
            {
                visit(config);
            }
        }
    };
    members(listener, "filter_chains").for_each(&mut of_chain);
    if let Some(Value::Object(chain)) = listener.get_mut("default_filter_chain") {
        of_chain(chain);
    }
}

/// The route configuration that a resource is, or those within it.
fn configurations(kind: Kind, message: &mut Map<String, Value>, mut visit: impl FnMut(&mut Map<String, Value>)) {
    if kind == Kind::Route {
        return visit(message);
    }
    connection_managers(message, |manager| {
        if let Some(Value::Object(routes)) = manager.get_mut("route_config") {
            visit(routes);
        }
    });
}

/// Makes the change in one list.
fn list(step: &Step, of: &mut Map<String, Value>, field: &str, effect: &mut Effect) {
    let edit = step.edit();
    let is_meant = |item: &Value| edit.takes(item.get("name").and_then(Value::as_str).unwrap_or_default());
    match &edit.change {
        PatchChange::Add(value) => {
            let items = items(of, field);
            // The last HTTP filter sends requests on; nothing comes after it.
            let at = if edit.resource == Patched::HttpFilter { items.len().saturating_sub(1) } else { items.len() };
            items.insert(at, Value::Object(value.as_ref().clone()));
            effect.matched += 1;
            return;
        }
        PatchChange::Merge(_) | PatchChange::Replace(_) => {
            for item in members(of, field).filter(|item| edit.takes(text(item, "name"))) {
                let name = text(item, "name").to_owned();
                change(step, item, &name, effect);
            }
        }
        PatchChange::Remove => {
            if let Some(Value::Array(items)) = of.get_mut(field) {
                let before = items.len();
                items.retain(|item| !is_meant(item));
                effect.matched += before - items.len();
            }
        }
        PatchChange::InsertBefore(value) | PatchChange::InsertAfter(value) => {
            let items = items(of, field);
            let at = match &edit.change {
                PatchChange::InsertBefore(_) => items.iter().position(is_meant),
                _ => items.iter().rposition(is_meant).map(|last| last + 1),
            };
            if let Some(at) = at {
                items.insert(at, Value::Object(value.as_ref().clone()));
                effect.matched += 1;
            }
        }
    }
    if effect.matched == 0 && effect.clash.is_none() {
        let names = members(of, field).map(|item| text(item, "name").to_owned());
        effect.seen.extend(names.filter(|name| !name.is_empty()));
    }
}

/// Merges into `message`, or puts something else in its place; what clashes is left as it was.
fn change(step: &Step, message: &mut Map<String, Value>, name: &str, effect: &mut Effect) {
    let edit = step.edit();
    match &edit.change {
        PatchChange::Merge(value) => {
            let mut merged = message.clone();
            match json::merge(edit.resource.type_name(), &mut merged, value) {
                Ok(()) => {
                    *message = merged;
                    effect.matched += 1;
                }
                Err(clash) => effect.clash = Some((name.to_owned(), clash)),
            }
        }
        PatchChange::Replace(value) => {
            let mut other = value.as_ref().clone();
            if let Some(field) = edit.resource.name_field()
                && let Some(name) = message.get(field)
            {
                other.insert(field.to_owned(), name.clone());
            }
            *message = other;
            effect.matched += 1;
        }
        PatchChange::Add(_) | PatchChange::Remove | PatchChange::InsertBefore(_) | PatchChange::InsertAfter(_) => {}
    }
}

/// The mappings of a list; none where there is no such list.
fn members<'a>(of: &'a mut Map<String, Value>, field: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let items = of.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
    items.filter_map(Value::as_object_mut)
}

/// A list, which is there from now on.
fn items<'a>(of: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let place = of.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut().expect("it was just made one")
}

fn text<'a>(of: &'a Map<String, Value>, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}
