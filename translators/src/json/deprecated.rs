//! Fields that Envoy means to drop.
//!
//! Owns: finding them in proto-JSON. May use: the descriptors of `proto`, prost-reflect. Never: says whether a text fits.

use prost_reflect::{Kind as FieldKind, MessageDescriptor};
use serde_json::Value;

use super::{descriptor, has_own_form};

/// Where `value`, a message of the type `type_name`, uses deprecated fields, as JSON pointers.
pub fn deprecated(type_name: &str, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(descriptor) = descriptor(type_name) {
        message(&descriptor, value, "", &mut found);
    }
    found
}

fn message(descriptor: &MessageDescriptor, value: &Value, at: &str, found: &mut Vec<String>) {
    let inner = match descriptor.full_name() {
        "google.protobuf.Any" => value.get("@type").and_then(Value::as_str).and_then(|url| self::descriptor(url).ok()),
        _ => None,
    };
    let descriptor = inner.as_ref().unwrap_or(descriptor);
    let Value::Object(members) = value else { return };
    if has_own_form(descriptor) {
        return;
    }
    for (name, value) in members {
        let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else { continue };
        let at = format!("{at}/{}", crate::rules::escaped(name));
        if field.field_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated()) {
            found.push(at.clone());
        }
        let FieldKind::Message(of_field) = field.kind() else { continue };
        match value {
            Value::Array(items) if field.is_list() => {
                for (index, item) in items.iter().enumerate() {
                    message(&of_field, item, &format!("{at}/{index}"), found);
                }
            }
            Value::Object(entries) if field.is_map() => {
                let FieldKind::Message(of_value) = of_field.map_entry_value_field().kind() else { continue };
                for (key, value) in entries {
                    message(&of_value, value, &format!("{at}/{}", crate::rules::escaped(key)), found);
                }
            }
            _ => message(&of_field, value, &at, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deprecated_field_is_found_wherever_it_stands() {
        let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
        let filter = json!({"name": "x", "typedConfig": {"@type": lua, "inlineCode": "x"}});
        let name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";
        assert_eq!(deprecated(name, &filter), ["/typedConfig/inlineCode"]);
        let cluster = json!({"http2_protocol_options": {}, "name": "a", "type": "STATIC"});
        assert_eq!(deprecated("envoy.config.cluster.v3.Cluster", &cluster), ["/http2_protocol_options"]);
    }
}
