//! Secrets within messages.
//!
//! Owns: finding out whether an encoded message has a secret in it. May use: the descriptors of `proto`, whose fields say
//! which of them are sensitive. Never: shows what it found.

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, ReflectMessage, Value};

use super::descriptor;

/// How deep messages are looked into; Envoy's own go nowhere near.
const DEEPEST: usize = 64;

/// How the first line of every private key in PEM ends.
const PEM: &[u8] = b"PRIVATE KEY-----";

/// Whether a field that Envoy calls sensitive has its content in the message `bytes` of this type, or there is a private
/// key in PEM anywhere in it, be its type known or not. A field that names a file or a variable holds nothing.
pub fn holds_secret(type_name: &str, bytes: &[u8]) -> bool {
    bytes.windows(PEM.len()).any(|part| part == PEM) || of_type(type_name, bytes, DEEPEST)
}

fn of_type(type_name: &str, bytes: &[u8], deeper: usize) -> bool {
    let message = descriptor(type_name).ok().and_then(|descriptor| DynamicMessage::decode(descriptor, bytes).ok());
    message.is_some_and(|message| in_message(&message, false, deeper))
}

/// `is_sensitive` tells of the field that the message stands in.
fn in_message(message: &DynamicMessage, is_sensitive: bool, deeper: usize) -> bool {
    let Some(deeper) = deeper.checked_sub(1) else { return false };
    let text = |name: &str| message.get_field_by_name(name).filter(|_| message.has_field_by_name(name));
    match message.descriptor().full_name() {
        "google.protobuf.Any" => {
            let (type_url, value) = (text("type_url"), text("value"));
            let type_url = type_url.as_ref().and_then(|url| url.as_str());
            let value = value.as_ref().and_then(|value| value.as_bytes());
            type_url.zip(value).is_some_and(|(type_url, value)| of_type(type_url, value, deeper))
        }
        "envoy.config.core.v3.DataSource" => {
            is_sensitive && ["inline_bytes", "inline_string"].into_iter().any(|field| message.has_field_by_name(field))
        }
        _ => message.fields().any(|(field, value)| {
            let is_sensitive = is_sensitive_field(&field);
            in_value(value, is_sensitive, deeper)
        }),
    }
}

fn in_value(value: &Value, is_sensitive: bool, deeper: usize) -> bool {
    match value {
        Value::Message(message) => in_message(message, is_sensitive, deeper),
        Value::List(items) => items.iter().any(|item| in_value(item, is_sensitive, deeper)),
        Value::Map(entries) => entries.values().any(|value| in_value(value, is_sensitive, deeper)),
        Value::String(text) => is_sensitive && !text.is_empty(),
        Value::Bytes(bytes) => is_sensitive && !bytes.is_empty(),
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::EnumNumber(_) => false,
    }
}

fn is_sensitive_field(field: &FieldDescriptor) -> bool {
    let annotation: Option<ExtensionDescriptor> =
        proto::descriptors().get_extension_by_name("udpa.annotations.sensitive");
    annotation.is_some_and(|annotation| field.options().get_extension(&annotation).as_bool() == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::from_json;

    fn holds(written: Value) -> bool {
        let name = written["@type"].as_str().expect("a type").rsplit('/').next().expect("a name").to_owned();
        let (bytes, misfits) = from_json("google.protobuf.Any", &written).expect("known");
        assert_eq!(misfits, []);
        let any = <proto::google::protobuf::Any as prost::Message>::decode(&bytes[..]).expect("an Any");
        holds_secret(&name, &any.value)
    }

    fn listener(key: Value) -> Value {
        let context = json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"inline_string": "public"}, "private_key": key}]}});
        json!({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l", "filter_chains": [
            {"transport_socket": {"name": "tls", "typed_config": context}}]})
    }

    #[test]
    fn a_key_is_found_wherever_it_is_and_its_file_is_none() {
        assert!(holds(listener(json!({"inline_string": "k"}))));
        assert!(holds(listener(json!({"inline_bytes": "aw=="}))));
        assert!(!holds(listener(json!({"filename": "/etc/key.pem"}))));
        assert!(!holds(listener(json!({"environment_variable": "KEY"}))));
        assert!(!holds(json!({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l"})));
        let secret = json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "s", "session_ticket_keys": {"keys": [{"inline_bytes": "aw=="}]}});
        assert!(holds(secret));
        // Envoy does not call these sensitive.
        let pem = "{\"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMIIE\"}";
        let access = json!({"service_account_jwt_access": {"json_key": pem}});
        let api = json!({"api_type": "GRPC", "grpc_services": [
            {"google_grpc": {"target_uri": "x", "stat_prefix": "x", "call_credentials": [access]}}]});
        assert!(holds(json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c",
            "eds_cluster_config": {"eds_config": {"api_config_source": api}}})));
        assert!(holds(json!({"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": "r",
            "layer": {"a": {"b": "-----BEGIN EC PRIVATE KEY-----"}}})));
        assert!(holds_secret("no.such.Type", b"x-----BEGIN RSA PRIVATE KEY-----x"));
        assert!(!holds(json!({"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": "r",
            "layer": {"a": "-----BEGIN PUBLIC KEY-----"}})));
        assert!(!holds_secret("no.such.Type", b"x") && !holds_secret("envoy.config.cluster.v3.Cluster", b"\xff"));
    }
}
