//! Messages as canonical proto-JSON, and back.
//!
//! Owns: the text form of every Envoy message, each `Any` expanded; field names are those of Envoy's own
//! documentation and dumps, which a reader of proto-JSON takes like the camel-cased ones. May use: the
//! descriptors of `proto`, prost-reflect. Never: knows what a message means.

use prost::Message;
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, ReflectMessage, SerializeOptions, Value as ProtoValue};
use proto::google::protobuf as google_pb;
use serde_json::{Map, Value};

use crate::resource::{Kind, Resource};

mod deprecated;
mod encode;
mod merge;
mod read;
mod secrets;

pub use deprecated::deprecated;
pub use merge::{Clash, merge};
pub use read::{Misfit, Reason};
pub use secrets::holds_secret;

/// Why a text or bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The descriptors know no such message.
    #[error("{0:?} is no message that Envoy knows")]
    UnknownType(String),
    /// The bytes are not of this type.
    #[error("these bytes are not a {0}")]
    Bytes(String, #[source] prost::DecodeError),
}

/// The encoded message `bytes` of the type `type_name` (a full name, or a type URL). An `Any` whose type is
/// unknown keeps its bytes, in base64.
pub fn to_json(type_name: &str, bytes: &[u8]) -> Result<Value, JsonError> {
    let descriptor = descriptor(type_name)?;
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|e| JsonError::Bytes(type_name.to_owned(), e))?;
    Ok(message_value(message))
}

/// A message of our own.
pub fn message<M: Message + prost::Name>(message: &M) -> Value {
    to_json(&M::full_name(), &message.encode_to_vec()).expect("the descriptors are those of the generated code")
}

/// A resource of our own, with its type.
pub fn resource(resource: &Resource) -> Value {
    let url = resource.kind().type_url();
    let value = to_json(url, &resource.value()).expect("a resource is of its kind's type");
    typed(url, value)
}

/// The encoded message of type `type_name` that `value` stands for, the same bytes for the same value, and whatever of
/// it is left out because it does not fit. A type of somebody's own within an `Any` is its bytes, in base64.
pub fn from_json(type_name: &str, value: &Value) -> Result<(Vec<u8>, Vec<Misfit>), JsonError> {
    Ok(read::read(&descriptor(type_name)?, value))
}

/// The same as YAML.
pub fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("a JSON value is a YAML value")
}

// === impl Kind ===

impl Kind {
    /// The full name of the message.
    pub fn type_name(self) -> &'static str {
        let url = self.type_url();
        url.rsplit_once('/').map_or(url, |(_, name)| name)
    }
}

fn descriptor(type_name: &str) -> Result<MessageDescriptor, JsonError> {
    let name = type_name.rsplit('/').next().unwrap_or(type_name);
    proto::descriptors().get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(type_name.to_owned()))
}

/// The plain fields in one go, and the messages among them one by one, because prost-reflect gives up at an
/// `Any` of an unknown type.
fn message_value(mut message: DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        return any_value(&message);
    }
    if has_own_form(&descriptor) {
        return plain(&message);
    }
    let is_child = |kind: prost_reflect::Kind| kind.as_message().is_some();
    let children: Vec<_> = descriptor.fields().filter(|f| is_child(f.kind()) && message.has_field(f)).collect();
    let children: Vec<_> = children.into_iter().filter_map(|f| Some((message.take_field(&f)?, f))).collect();
    let mut fields = match plain(&message) {
        Value::Object(fields) => fields,
        other => return other,
    };
    for (value, field) in children {
        fields.insert(field.name().to_owned(), child_value(value));
    }
    Value::Object(fields)
}

fn child_value(value: ProtoValue) -> Value {
    match value {
        ProtoValue::Message(message) => message_value(message),
        ProtoValue::List(items) => items.into_iter().map(child_value).collect(),
        ProtoValue::Map(entries) => {
            // A JSON object sorts its members again.
            let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (map_key(&key), value)).collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(entries.into_iter().map(|(key, value)| (key, child_value(value))).collect())
        }
        // The value of a map of plain values.
        ProtoValue::String(text) => Value::String(text),
        ProtoValue::Bool(value) => Value::Bool(value),
        ProtoValue::I32(value) | ProtoValue::EnumNumber(value) => value.into(),
        ProtoValue::U32(value) => value.into(),
        ProtoValue::F32(value) => value.into(),
        ProtoValue::F64(value) => value.into(),
        ProtoValue::I64(value) => value.to_string().into(),
        ProtoValue::U64(value) => value.to_string().into(),
        ProtoValue::Bytes(bytes) => base64(&bytes),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn any_value(message: &DynamicMessage) -> Value {
    let any: google_pb::Any = message.transcode_to().expect("the message is an Any");
    let inner =
        descriptor(&any.type_url).and_then(|inner| Ok((has_own_form(&inner), to_json(&any.type_url, &any.value)?)));
    match inner {
        Ok((false, value @ Value::Object(_))) => typed(&any.type_url, value),
        Ok((_, value)) => with_value(&any.type_url, value),
        Err(_) => with_value(&any.type_url, base64(&any.value)),
    }
}

fn typed(type_url: &str, value: Value) -> Value {
    match value {
        Value::Object(mut fields) => {
            fields.insert("@type".into(), type_url.into());
            Value::Object(fields)
        }
        other => with_value(type_url, other),
    }
}

fn with_value(type_url: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([("@type".to_owned(), type_url.into()), ("value".to_owned(), value)]))
}

/// Whether proto-JSON has a form of its own for the type: a duration is text, a struct is an object.
fn has_own_form(descriptor: &MessageDescriptor) -> bool {
    descriptor.package_name() == "google.protobuf" && descriptor.full_name() != "google.protobuf.Any"
}

fn plain(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a message without Any has a JSON form")
}

fn base64(bytes: &[u8]) -> Value {
    let wrapped = google_pb::BytesValue { value: bytes.to_vec() };
    let descriptor = descriptor("google.protobuf.BytesValue").expect("the descriptors hold the well-known types");
    let mut message = DynamicMessage::new(descriptor);
    message.transcode_from(&wrapped).expect("the message is a BytesValue");
    plain(&message)
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::core::v3 as core_pb;
    use serde_json::json;

    use super::*;

    fn extension(type_url: &str, value: Vec<u8>) -> core_pb::TypedExtensionConfig {
        let any = google_pb::Any { type_url: type_url.into(), value };
        core_pb::TypedExtensionConfig { name: "x".into(), typed_config: Some(any) }
    }

    #[test]
    fn known_messages_in_an_any_are_expanded_and_read_back() {
        let inner = core_pb::Node { id: "n".into(), ..Default::default() };
        let outer = extension("type.googleapis.com/envoy.config.core.v3.Node", inner.encode_to_vec());
        let value = message(&outer);
        let any = json!({"@type": "type.googleapis.com/envoy.config.core.v3.Node", "id": "n"});
        assert_eq!(value, json!({"name": "x", "typed_config": any}));
        let name = "envoy.config.core.v3.TypedExtensionConfig";
        assert_eq!(from_json(name, &value).expect("reads"), (outer.encode_to_vec(), Vec::new()));
    }

    #[test]
    fn well_known_messages_in_an_any_have_their_own_form() {
        let duration = google_pb::Duration { seconds: 1, nanos: 500_000_000 };
        let url = "type.googleapis.com/google.protobuf.Duration";
        let any = json!({"@type": url, "value": "1.500s"});
        assert_eq!(message(&extension(url, duration.encode_to_vec())), json!({"name": "x", "typed_config": any}));
    }

    #[test]
    fn an_any_that_nobody_knows_keeps_its_bytes() {
        for (url, bytes) in [("example.com/nobody.Knows", vec![1, 2, 255]), ("", vec![])] {
            let any = json!({"@type": url, "value": if bytes.is_empty() { "" } else { "AQL/" }});
            assert_eq!(message(&extension(url, bytes)), json!({"name": "x", "typed_config": any}));
        }
        let url = "type.googleapis.com/envoy.config.core.v3.Node";
        let any = json!({"@type": url, "value": "/w=="});
        assert_eq!(message(&extension(url, vec![255])), json!({"name": "x", "typed_config": any}));
    }

    #[test]
    fn what_is_no_message_is_said() {
        let of = |result: Result<Value, JsonError>| result.expect_err("refused").to_string();
        assert_eq!(of(to_json("nobody.Knows", &[])), "\"nobody.Knows\" is no message that Envoy knows");
        let node = "envoy.config.core.v3.Node";
        assert_eq!(of(to_json(node, &[255])), "these bytes are not a envoy.config.core.v3.Node");
        assert!(from_json("nobody.Knows", &json!({})).is_err());
    }

    #[test]
    fn yaml_keeps_texts_texts() {
        for text in [
            "yes",
            "on",
            "1.10",
            "0x1f",
            "null",
            "~",
            "",
            " a",
            "a: b",
            "- a",
            "#",
            "2026-11-21",
            "a\nb\n",
            "é\u{7}",
            "1e3",
            "0o7",
        ] {
            let value = json!({"text": text, text: [text]});
            let read: Value = serde_saphyr::from_str(&to_yaml(&value)).expect("reads");
            assert_eq!(read, value);
        }
    }
}
