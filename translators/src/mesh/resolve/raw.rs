//! Resources as somebody wrote them.
//!
//! Owns: what a resource's type, names and time to live are, and how every mistake in it is said. May use: `json` (what
//! Envoy's own messages take), `resource`. Never: changes what was written, or shows a value of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::google::protobuf as google_pb;
use serde_json::Value;

use super::report::Report;
use crate::finding::{Code, Finding};
use crate::json::{self, Misfit, Reason};
use crate::name::RuleRef;
use crate::resource::{Kind, Name, Resource};
use crate::suggest;

/// The message in which a resource may be wrapped, and what of it can be said.
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";
const WRAPPER_FIELDS: [&str; 4] = ["name", "aliases", "ttl", "resource"];

/// The names of the resources of one snapshot, and where each stands.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<(Kind, Name), String>);

/// The resource that `written`, which stands at `at`, describes; `None` where that is not certain.
pub(super) fn resource(written: &Value, at: &str, report: &mut Report<'_>) -> Option<Resource> {
    let wrapped = type_of(written) == Some(WRAPPER);
    let (body, body_at) = match wrapped {
        true => (written.get("resource").unwrap_or(&Value::Null), format!("{at}/resource")),
        false => (written, at.to_owned()),
    };
    let kind = kind(body, &body_at, report)?;
    let known = report.findings.len();
    if wrapped {
        let members = written.as_object().into_iter().flat_map(|members| members.keys());
        for other in members.filter(|name| *name != "@type" && !WRAPPER_FIELDS.contains(&name.as_str())) {
            let unknown = Reason::UnknownField(other.clone(), WRAPPER_FIELDS.map(str::to_owned).to_vec());
            say(Misfit { pointer: format!("/{}", crate::rules::escaped(other)), reason: unknown }, at, report);
        }
    }
    let (any, misfits) = json::from_json("google.protobuf.Any", written).ok()?;
    for misfit in misfits {
        say(misfit, at, report);
    }
    let any = google_pb::Any::decode(any.as_slice()).ok()?;
    let wrapper = match wrapped {
        true => discovery_pb::Resource::decode(any.value.as_slice()).ok()?,
        false => discovery_pb::Resource { resource: Some(any), ..Default::default() },
    };
    let name = name(kind, body, &wrapper, &body_at, report);
    let ttl = wrapper.ttl.as_ref().map(|ttl| time_to_live(ttl, at, report));
    if report.findings.len() > known && report.is_refused() {
        return None;
    }
    let (name, value) = (Name::from(name?), wrapper.resource.unwrap_or_default().value);
    let aliases = aliases(kind, body, &wrapper.aliases, &name);
    let mut resource = Resource::from_bytes(kind, name, &value, [report.origin(at)].into());
    if json::holds_secret(kind.type_url(), &value) {
        resource = resource.holding_key();
    }
    if !aliases.is_empty() {
        resource = resource.aliased(aliases);
    }
    Some(match ttl {
        Some(Some(ttl)) => resource.living(ttl),
        Some(None) | None => resource,
    })
}

/// The same resource where it stands now; the same allocation where it has not moved.
pub(super) fn moved(resource: Arc<Resource>, origin: RuleRef) -> Arc<Resource> {
    if **resource.origins() == [origin.clone()] {
        return resource;
    }
    let origins = [origin].into();
    let mut moved = Resource::from_bytes(resource.kind(), resource.name().clone(), &resource.value(), origins);
    if !resource.aliases().is_empty() {
        moved = moved.aliased(resource.aliases().iter().cloned());
    }
    if resource.holds_key() {
        moved = moved.holding_key();
    }
    Arc::new(match resource.ttl() {
        Some(ttl) => moved.living(ttl),
        None => moved,
    })
}

// === impl Names ===

impl Names {
    /// Enters the names of a resource; says whether nobody else has one of them.
    pub(super) fn enter(&mut self, resource: &Resource, at: &str, report: &mut Report<'_>) -> bool {
        let kind = resource.kind();
        if kind == Kind::VirtualHost && !resource.name().contains('/') {
            let message = format!("{:?} does not say its route configuration, which Envoy looks for", resource.name());
            report.warning(Code::NoEffect, at, message).hint = Some("name it <route configuration>/<name>".to_owned());
        }
        for name in std::iter::once(resource.name()).chain(resource.aliases()) {
            if let Some(first) = self.0.insert((kind, Name::clone(name)), at.to_owned()) {
                let message = format!("{} {name:?} is already defined at {first}", short_name(kind));
                report.error(Code::Duplicate, at, message).hint = Some("remove one of them".to_owned());
                return false;
            }
        }
        true
    }
}

/// The kind of a resource, or a finding.
fn kind(body: &Value, at: &str, report: &mut Report<'_>) -> Option<Kind> {
    let Some(given) = type_of(body) else {
        let finding = match body.get("@type") {
            Some(_) => report.error(Code::InvalidValue, format!("{at}/@type"), "the name of a type belongs here"),
            None if body.is_object() => report.error(Code::MissingField, at, "missing field \"@type\""),
            None => report.error(Code::InvalidValue, at, "a resource is a mapping with \"@type\""),
        };
        finding.choices = Kind::ALL.map(|kind| kind.type_name().to_owned()).to_vec();
        return None;
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.type_name() == given);
    if kind.is_none() {
        let names = Kind::ALL.map(|kind| kind.type_name().to_owned()).to_vec();
        let message = format!("{given:?} is no type of resource that Envoy subscribes to");
        let finding = report.error(Code::InvalidValue, format!("{at}/@type"), message);
        *finding = suggested(finding.clone(), given, names);
    }
    kind
}

/// The full name in `"@type"`.
fn type_of(value: &Value) -> Option<&str> {
    value.get("@type")?.as_str()?.rsplit('/').next()
}

fn short_name(kind: Kind) -> &'static str {
    let name = kind.type_name();
    name.rsplit('.').next().unwrap_or(name)
}

/// What the resource is called: by its wrapper, or else by its own field.
fn name(
    kind: Kind,
    body: &Value,
    wrapper: &discovery_pb::Resource,
    at: &str,
    report: &mut Report<'_>,
) -> Option<String> {
    if !wrapper.name.is_empty() {
        return Some(wrapper.name.clone());
    }
    let fields: &[&str] = match kind {
        Kind::Endpoints => &["cluster_name", "clusterName"],
        Kind::LocalityEndpoint => &[],
        Kind::Runtime
        | Kind::Secret
        | Kind::Cluster
        | Kind::Listener
        | Kind::ExtensionConfig
        | Kind::ScopedRoute
        | Kind::Route
        | Kind::VirtualHost => &["name"],
    };
    let own = fields.iter().find_map(|field| body.get(field));
    match (own, fields.first()) {
        (Some(Value::String(name)), _) if !name.is_empty() => return Some(name.clone()),
        // Of another type, which has been said.
        (Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)), _) => {}
        (_, Some(field)) => {
            report.error(Code::MissingField, at, format!("missing field {field:?}"));
        }
        (_, None) => {
            let finding = report.error(Code::MissingField, at, format!("{} has no name of its own", short_name(kind)));
            finding.hint = Some(format!("wrap it as {WRAPPER}, with a name"));
        }
    }
    None
}

/// What else it is called: what its wrapper says; and a virtual host's domains, each within the route configuration
/// that its name begins with.
fn aliases(kind: Kind, body: &Value, written: &[String], name: &Name) -> Vec<Name> {
    let domains = body.get("domains").and_then(Value::as_array).filter(|_| kind == Kind::VirtualHost);
    let within = name.rsplit_once('/').map(|(configuration, _)| configuration);
    let of_domains = within.into_iter().flat_map(|configuration| {
        let domains = domains.into_iter().flatten().filter_map(Value::as_str);
        domains.map(move |domain| format!("{configuration}/{domain}"))
    });
    let mut aliases: Vec<Name> = Vec::new();
    for alias in written.iter().cloned().chain(of_domains).map(Name::from) {
        if alias != *name && !aliases.contains(&alias) {
            aliases.push(alias);
        }
    }
    aliases
}

fn time_to_live(ttl: &google_pb::Duration, at: &str, report: &mut Report<'_>) -> Option<Duration> {
    let read = u64::try_from(ttl.seconds).ok().zip(u32::try_from(ttl.nanos).ok());
    let read = read.map(|(seconds, nanos)| Duration::new(seconds, nanos)).filter(|ttl| !ttl.is_zero());
    if read.is_none() {
        report.error(Code::InvalidValue, format!("{at}/ttl"), "a resource lives longer than that");
    }
    read
}

/// A misfit as a finding; `at` is where the text begins that it was read from.
pub(super) fn say(Misfit { pointer, reason }: Misfit, at: &str, report: &mut Report<'_>) {
    let pointer = format!("{at}{pointer}");
    let object = report.object;
    let error = |code, message: String| Finding::error(code, &object.key, pointer.as_str(), message);
    let mut location = object.location(&pointer);
    let finding = match reason {
        Reason::UnknownField(field, known) => {
            location = object.member_location(&pointer);
            let finding = error(Code::UnknownField, format!("unknown field {field:?}"));
            suggested(finding, &field, known)
        }
        Reason::Twice(other) => error(Code::Syntax, format!("the field is written twice, also as {other:?}")),
        Reason::OneOf(group, other) => {
            error(Code::InvalidValue, format!("{other:?} is there already, and only one may be the {group:?}"))
                .hint("remove one of them")
        }
        Reason::MissingType => error(Code::MissingField, "missing field \"@type\"".to_owned()),
        Reason::UnknownType(given, meant) => {
            let mut finding = error(Code::InvalidValue, format!("{given:?} is no message that Envoy knows"));
            let own = "a type of your own is written as its bytes, base64 in \"value\"";
            finding.hint = Some(meant.unwrap_or_else(|| own.to_owned()));
            finding
        }
        Reason::NotAChoice(given, choices) => {
            let finding = error(Code::InvalidValue, format!("{given:?} is not a choice"));
            suggested(finding, &given, choices)
        }
        Reason::Unquoted(given) => {
            error(Code::QuoteIt, format!("{given} stands where a text belongs")).hint("quote it")
        }
        Reason::Shape(given, wanted) => error(Code::InvalidValue, format!("{given} stands where {wanted} belongs")),
    };
    report.findings.push(finding.at(location));
}

/// With what was meant, or else with everything that there is, which may be a lot.
fn suggested(mut finding: Finding, given: &str, known: Vec<String>) -> Finding {
    finding.hint = suggest::did_you_mean(given, &known);
    if finding.hint.is_none() {
        finding.choices = known;
    }
    finding
}
