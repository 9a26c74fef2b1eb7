//! What holds for one service or workload, every value with where it came from.
//!
//! Owns: taking the model apart into values and their origins, whatever fields it has, and how a value is written. May use:
//! `mesh`. Never: decides what holds; `mesh::resolve` has.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::mesh::{Consumer, Destination, Mesh, Port, Service, Workload};
use crate::name::{ObjectKey, ObjectKind, QualifiedName, RuleRef};
use crate::rules::scalar::Span;
use crate::suggest;

/// Values that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// What they are about: `port http`.
    pub title: String,
    /// The values.
    pub values: Vec<Effective>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Its name; dots lead into the model.
    pub name: String,
    /// The value; null is none, or without limit.
    pub value: Value,
    /// The rule that says so; `None` is built in.
    pub origin: Option<RuleRef>,
}

/// What can be described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A MeshService.
    Service(QualifiedName),
    /// A Workload.
    Workload(QualifiedName),
}

/// There is nothing of this name, or it has errors and is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {subject} is in force; choices: {}{}", choices.join(", "), hint.iter().map(|hint| format!("; {hint}")).collect::<String>())]
pub struct NotInForce {
    /// What was asked for.
    pub subject: ObjectKey,
    /// What there is of its kind.
    pub choices: Vec<String>,
    /// What was meant, if that can be guessed.
    pub hint: Option<String>,
}

/// What holds for `subject`.
///
/// # Errors
///
/// The mesh does not have it.
pub fn describe(mesh: &Mesh, subject: &Subject) -> Result<Vec<Section>, NotInForce> {
    let sections = match subject {
        Subject::Service(name) => mesh.services.get(name).map(|found| service(mesh, found)),
        Subject::Workload(name) => mesh.workloads.get(name).map(|found| workload(mesh, found)),
    };
    sections.ok_or_else(|| {
        let choices: Vec<String> = match subject {
            Subject::Service(_) => mesh.services.keys().map(ToString::to_string).collect(),
            Subject::Workload(_) => mesh.workloads.keys().map(ToString::to_string).collect(),
        };
        let subject = subject.key();
        let hint = suggest::did_you_mean(&subject.name.to_string(), &choices);
        NotInForce { subject, choices, hint }
    })
}

// === impl Subject ===

impl Subject {
    /// The object.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(name) => ObjectKey::new(ObjectKind::MeshService, name.clone()),
            Self::Workload(name) => ObjectKey::new(ObjectKind::Workload, name.clone()),
        }
    }
}

fn service(mesh: &Mesh, service: &Service) -> Vec<Section> {
    let mut own = members(service);
    own.remove("ports");
    let origin = Some(&service.origin);
    let mut sections = vec![Section { title: "service".to_owned(), values: values(own, origin) }];
    for port in &service.ports {
        let title = |what: &str| format!("port {}{what}", port.name);
        sections.push(Section { title: title(""), values: values(of_port(port), origin) });
        let outbound = |title, settings: &_| Section { title, values: values(members(settings), None) };
        sections.push(outbound(title(", calls of everyone"), &*port.outbound));
        for (namespace, settings) in &port.outbound_of {
            sections.push(outbound(title(&format!(", calls of {namespace}")), &**settings));
        }
        sections.push(Section { title: title(", what it takes"), values: values(members(&*port.inbound), None) });
        for (workload, own) in port.apart() {
            let mut values = values(members(own), None);
            let (at, inbound) = (title(&format!(", as {workload} serves it")), members(&*own.inbound));
            values.retain(|value| !value.name.starts_with("inbound"));
            values.extend(self::values(inbound, None));
            sections.push(Section { title: at, values });
        }
        let routes = |consumer: &Consumer| match consumer {
            Consumer::Everyone => title(", routes of everyone"),
            Consumer::Namespace(namespace) => title(&format!(", routes of {namespace}")),
        };
        for (consumer, route) in &port.routes {
            let rules = members(&**route).remove("rules").unwrap_or_default();
            let mut shown = Vec::new();
            flatten("", rules, route.origin.as_ref(), &mut shown);
            sections.push(Section { title: routes(consumer), values: shown });
        }
        for (consumer, route) in &port.tcp_routes {
            let rules = members(&**route).remove("rules").unwrap_or_default();
            let mut shown = Vec::new();
            flatten("", rules, Some(&route.origin), &mut shown);
            sections.push(Section { title: routes(consumer), values: shown });
        }
    }
    sections.push(Section { title: "callers".to_owned(), values: callers(mesh, &service.name) });
    sections.retain(|section| !section.values.is_empty());
    sections
}

fn workload(mesh: &Mesh, workload: &Workload) -> Vec<Section> {
    let mut own = members(workload);
    let (serves, calls) = (own.remove("serves"), own.remove("calls"));
    let listed = |title: &str, list: Option<Value>| {
        let mut shown = Vec::new();
        for item in list.iter().flat_map(|list| list.as_array().into_iter().flatten()) {
            let text = |name: &str| item[name].as_str().unwrap_or_default();
            flatten(&format!("{}/{}", text("service"), text("port")), item.clone(), None, &mut shown);
        }
        Section { title: title.to_owned(), values: shown }
    };
    let mut values = values(own, Some(&workload.origin));
    if let Some(trust_domain) = value_of(&mesh.trust_domain) {
        flatten("trustDomain", trust_domain, None, &mut values);
    }
    if let Some(leaf_ttl) = value_of(&mesh.leaf_ttl) {
        flatten("leafTtl", leaf_ttl, None, &mut values);
    }
    let mut sections =
        vec![Section { title: "workload".to_owned(), values }, listed("serves", serves), listed("calls", calls)];
    sections.retain(|section| !section.values.is_empty());
    sections
}

/// What stands for a value, in one line: texts as they are, the rest as YAML has it in a flow.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}: {}", shown(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What a port says that has no section of its own.
fn of_port(port: &Port) -> Map<String, Value> {
    let mut own = members(port);
    for section in ["outbound", "outbound_of", "inbound", "routes", "tcp_routes"] {
        own.remove(section);
    }
    own
}

/// The workloads that call `service`.
fn callers(mesh: &Mesh, service: &QualifiedName) -> Vec<Effective> {
    let calls = mesh.workloads.values().flat_map(|workload| workload.calls.iter().map(move |call| (workload, call)));
    let to_it = calls.filter(|(_, call)| call.service == *service);
    to_it
        .map(|(workload, call)| Effective {
            name: workload.name.to_string(),
            value: Value::from(format!("{} by {}", call.port, call.listen)),
            origin: Some(call.origin.clone()),
        })
        .collect()
}

fn value_of(part: &impl Serialize) -> Option<Value> {
    serde_json::to_value(part).ok()
}

/// The fields of a part of the model.
fn members(part: &impl Serialize) -> Map<String, Value> {
    match value_of(part) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

fn values(mut members: Map<String, Value>, origin: Option<&RuleRef>) -> Vec<Effective> {
    let own = members.remove("origin").as_ref().and_then(reference);
    let mut shown = Vec::new();
    for (name, value) in members.into_iter().filter(|(name, _)| name != "name") {
        flatten(&name, value, own.as_ref().or(origin), &mut shown);
    }
    shown
}

/// Takes a value apart as far as parts of it have origins of their own.
fn flatten(name: &str, value: Value, origin: Option<&RuleRef>, shown: &mut Vec<Effective>) {
    let within = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Object(mut members) => {
            let own = members.remove("origin");
            // A null stands for a route that nobody wrote, and has no value beside it.
            let is_sourced = members.len() == 1 && !own.as_ref().is_some_and(Value::is_null);
            if let Some(value) = members.get("value").filter(|_| is_sourced) {
                let origin = own.as_ref().and_then(reference);
                return shown.push(Effective { name: camel(name), value: plain(value.clone()), origin });
            }
            // What a rule says of everything, it says: an entry without callers is there.
            let says = own.is_some();
            let own = own.as_ref().map_or(origin.cloned(), reference);
            if !members.values().any(has_origins) {
                let value = plain(Value::Object(members));
                return shown.push(Effective { name: camel(name), value, origin: own });
            }
            for (part, value) in members
                .into_iter()
                .filter(|(part, value)| part != "name" && !(value.is_null() || (!says && is_nothing(value))))
            {
                flatten(&within(&part), value, own.as_ref(), shown);
            }
        }
        Value::Array(items) if items.iter().any(has_origins) => {
            for (place, item) in items.into_iter().enumerate() {
                let part = item["name"].as_str().map_or_else(|| place.to_string(), str::to_owned);
                flatten(&within(&part), item, origin, shown);
            }
        }
        value => shown.push(Effective { name: camel(name), value: plain(value), origin: origin.cloned() }),
    }
}

/// Whether it, or a part of it, says where it came from.
fn has_origins(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            let is_sourced = members.len() == 1 && members.contains_key("value");
            is_sourced || members.contains_key("origin") || members.values().any(has_origins)
        }
        Value::Array(items) => items.iter().any(has_origins),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A value as the rule language writes it: lengths of time as texts, destinations in one word, nothing that is not there.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            if let Some(span) = span(&members) {
                return Value::from(span.to_string());
            }
            if let Some(destination) = destination(&members) {
                return Value::from(destination.to_string());
            }
            let kept = members.into_iter().filter(|(_, value)| !is_nothing(value));
            Value::Object(kept.map(|(name, value)| (camel(&name), plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        value => value,
    }
}

fn span(members: &Map<String, Value>) -> Option<Span> {
    let (secs, nanos) = (members.get("secs")?.as_u64()?, members.get("nanos")?.as_u64()?);
    (members.len() == 2).then(|| Span(Duration::new(secs, u32::try_from(nanos).unwrap_or_default())))
}

fn destination(members: &Map<String, Value>) -> Option<Destination> {
    let labels = members.get("labels")?.as_object()?;
    Some(Destination {
        service: members.get("service")?.as_str()?.parse().ok()?,
        port: members.get("port")?.as_str()?.to_owned(),
        labels: labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        sticky: members.get("sticky").and_then(Value::as_bool).unwrap_or_default(),
    })
}

/// A rule as the model writes it.
fn reference(origin: &Value) -> Option<RuleRef> {
    let (kind, name) = origin["object"].as_str()?.split_once(' ')?;
    let kind = ObjectKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some(RuleRef::new(ObjectKey::new(kind, name.parse().ok()?), origin["pointer"].as_str()?))
}

/// `per_try_timeout` as `perTryTimeout`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
