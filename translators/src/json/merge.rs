//! One proto-JSON into another, as messages merge.
//!
//! Owns: what becomes of a field that both have. May use: the descriptors of `proto`, prost-reflect. Never: knows what a
//! message means, or checks one: the text that is merged fits.

use prost_reflect::{FieldDescriptor, Kind as FieldKind, MessageDescriptor};
use serde_json::{Map, Value};

use super::{descriptor, has_own_form};

/// An `Any` that is of another type than what is merged into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// Where, as a JSON pointer into what is merged.
    pub pointer: String,
    /// The type that is there.
    pub there: String,
}

/// Merges the message `from` of the type `type_name` into `into`, whose fields are in snake_case, field by field: a list is
/// appended to, a map takes each key, a `oneof` takes the other field, an `Any` of the same type is merged as its message,
/// `null` takes a field away, a value of a well-known type is replaced.
pub fn merge(type_name: &str, into: &mut Map<String, Value>, from: &Map<String, Value>) -> Result<(), Clash> {
    match descriptor(type_name) {
        Ok(descriptor) => fields(&descriptor, into, from.iter()),
        Err(_) => Ok(()),
    }
}

fn fields<'a>(
    descriptor: &MessageDescriptor,
    into: &mut Map<String, Value>,
    from: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), Clash> {
    for (name, value) in from {
        let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else { continue };
        if value.is_null() {
            into.remove(field.name());
            continue;
        }
        if let Some(choice) = field.containing_oneof() {
            for other in choice.fields().filter(|other| other.number() != field.number()) {
                into.remove(other.name());
            }
        }
        self::field(&field, into.entry(field.name()).or_insert(Value::Null), value)
            .map_err(|clash| clash.below(name))?;
    }
    Ok(())
}

fn field(field: &FieldDescriptor, into: &mut Value, from: &Value) -> Result<(), Clash> {
    let kind = field.kind();
    match (from, kind.as_message()) {
        (Value::Object(members), Some(entry)) if field.is_map() => {
            let kind = entry.map_entry_value_field().kind();
            let into = object(into);
            for (key, value) in members {
                let place = into.entry(key).or_insert(Value::Null);
                element(&kind, place, value).map_err(|clash| clash.below(key))?;
            }
            Ok(())
        }
        (Value::Array(items), _) if field.is_list() => {
            if !into.is_array() {
                *into = Value::Array(Vec::new());
            }
            for (index, item) in items.iter().enumerate() {
                let mut new = Value::Null;
                element(&kind, &mut new, item).map_err(|clash| clash.below(&index.to_string()))?;
                if let Value::Array(list) = into {
                    list.push(new);
                }
            }
            Ok(())
        }
        _ => element(&kind, into, from),
    }
}

fn element(kind: &FieldKind, into: &mut Value, from: &Value) -> Result<(), Clash> {
    match (kind, from) {
        (FieldKind::Message(message), Value::Object(members)) => self::message(message, into, members),
        _ => {
            *into = from.clone();
            Ok(())
        }
    }
}

fn message(descriptor: &MessageDescriptor, into: &mut Value, from: &Map<String, Value>) -> Result<(), Clash> {
    match descriptor.full_name() {
        "google.protobuf.Any" => any(into, from),
        "google.protobuf.Struct" | "google.protobuf.Value" => {
            overlay(into, from);
            Ok(())
        }
        _ if has_own_form(descriptor) => {
            *into = Value::Object(from.clone());
            Ok(())
        }
        _ => fields(descriptor, object(into), from.iter()),
    }
}

fn any(into: &mut Value, from: &Map<String, Value>) -> Result<(), Clash> {
    let there = into.get("@type").and_then(Value::as_str).map(str::to_owned);
    let given = from.get("@type").and_then(Value::as_str).unwrap_or_default();
    if let Some(there) = there
        && name_of(&there) != name_of(given)
    {
        return Err(Clash { pointer: "/@type".to_owned(), there: name_of(&there).to_owned() });
    }
    match descriptor(given) {
        Ok(inner) if !has_own_form(&inner) && inner.full_name() != "google.protobuf.Any" => {
            let into = object(into);
            into.entry("@type").or_insert_with(|| given.into());
            fields(&inner, into, from.iter().filter(|(name, _)| *name != "@type"))
        }
        _ => {
            *into = Value::Object(from.clone());
            Ok(())
        }
    }
}

/// Members of a struct, which is no message of Envoy's: mappings go into mappings, anything else in the place of what is
/// there.
fn overlay(into: &mut Value, from: &Map<String, Value>) {
    let into = object(into);
    for (name, value) in from {
        match (value, into.get_mut(name)) {
            (Value::Object(members), Some(place @ Value::Object(_))) => overlay(place, members),
            _ => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

/// The members of `value`, which is a mapping from now on.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was just made one")
}

fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

// === impl Clash ===

impl Clash {
    /// The same, seen from where `member` stands.
    fn below(self, member: &str) -> Self {
        Self { pointer: format!("/{}{}", crate::rules::escaped(member), self.pointer), ..self }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(type_name: &str, mut into: Value, from: Value) -> Result<Value, Clash> {
        let from = from.as_object().expect("a mapping").clone();
        merge(type_name, object(&mut into), &from).map(|()| into)
    }

    const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

    #[test]
    fn fields_go_in_one_by_one() {
        let cases = [
            // What is not spoken of stays, in whichever spelling the rest is written; a default is said too.
            (
                json!({"name": "a", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s"}),
                json!({"lbPolicy": "ROUND_ROBIN", "connectTimeout": "0.5s"}),
                json!({"name": "a", "lb_policy": "ROUND_ROBIN", "connect_timeout": "0.5s"}),
            ),
            // Messages within messages; lists are appended to.
            (
                json!({"circuit_breakers": {"thresholds": [{"max_retries": 3}]}, "outlier_detection": {"consecutive_5xx": 5}}),
                json!({"circuitBreakers": {"thresholds": [{"maxRetries": 4}]}, "outlier_detection": {"interval": "1s"}}),
                json!({
                    "circuit_breakers": {"thresholds": [{"max_retries": 3}, {"max_retries": 4}]},
                    "outlier_detection": {"consecutive_5xx": 5, "interval": "1s"},
                }),
            ),
            // One alternative instead of another; nothing instead of something.
            (
                json!({"type": "EDS", "eds_cluster_config": {"service_name": "x"}, "transport_socket": {"name": "t"}}),
                json!({"cluster_type": {"name": "c"}, "edsClusterConfig": null, "transport_socket": null}),
                json!({"cluster_type": {"name": "c"}}),
            ),
            // Structs by member.
            (
                json!({"metadata": {"filter_metadata": {"a": {"k": 1, "m": {"x": 1}}}}}),
                json!({"metadata": {"filterMetadata": {"a": {"m": {"y": 2}}, "b": {}}}}),
                json!({"metadata": {"filter_metadata": {"a": {"k": 1, "m": {"x": 1, "y": 2}}, "b": {}}}}),
            ),
        ];
        for (into, from, wanted) in cases {
            assert_eq!(merged(CLUSTER, into, from), Ok(wanted));
        }
    }

    #[test]
    fn a_message_of_any_type_takes_its_own_type_alone() {
        let url = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let of = |any: Value| json!({"typed_extension_protocol_options": {"http": any}});
        let there = of(json!({"@type": url, "common_http_protocol_options": {"idle_timeout": "1s"}}));
        let more = of(json!({"@type": url, "commonHttpProtocolOptions": {"max_requests_per_connection": 1}}));
        let both = json!({"idle_timeout": "1s", "max_requests_per_connection": 1});
        let both = of(json!({"@type": url, "common_http_protocol_options": both}));
        assert_eq!(merged(CLUSTER, there.clone(), more), Ok(both));
        let other = of(json!({"@type": "type.googleapis.com/envoy.config.core.v3.Node"}));
        let clash = Clash {
            pointer: "/typed_extension_protocol_options/http/@type".to_owned(),
            there: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
        };
        assert_eq!(merged(CLUSTER, there, other), Err(clash));
    }
}
