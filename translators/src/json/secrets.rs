//! Secrets within messages.
//!
//! Owns: finding out whether an encoded message has a secret in it. May use: the descriptors of `proto`, whose fields say
//! which of them are sensitive. Never: shows what it found.

use prost::Message as _;
use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, ReflectMessage, Value};

use super::{descriptor, from_json, to_json};

/// How deep messages are looked into; Envoy's own go nowhere near.
const DEEPEST: usize = 64;

/// What the first line of every private key in PEM says; and the same in base64, which has three forms of it, by where in
/// the text it begins.
const PEM: [&str; 4] = ["PRIVATE KEY", "UFJJVkFURSBLRV", "BSSVZBVEUgS0VZ", "QUklWQVRFIEtFW"];

/// The fields of a `DataSource` that hold what they say.
const INLINE: [&str; 4] = ["inline_bytes", "inlineBytes", "inline_string", "inlineString"];

/// Whether a field that Envoy calls sensitive has its content in the message `bytes` of this type, or there is a private
/// key in PEM anywhere in it, be its type known or not, and be it in base64. A field that names a file or a variable holds
/// nothing.
pub fn holds_secret(type_name: &str, bytes: &[u8]) -> bool {
    let stands = |mark: &str| bytes.windows(mark.len()).any(|part| part == mark.as_bytes());
    PEM.into_iter().any(stands) || of_type(type_name, bytes, DEEPEST)
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
            is_sensitive && INLINE.into_iter().any(|field| message.has_field_by_name(field))
        }
        name @ ("udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") => {
            let type_url = text("type_url");
            let written = to_json(name, &message.encode_to_vec());
            let type_url = type_url.as_ref().and_then(|url| url.as_str()).unwrap_or_default();
            written.is_ok_and(|written| in_struct(type_url, &written["value"], deeper))
        }
        _ => message.fields().any(|(field, value)| {
            let is_sensitive = is_sensitive_field(&field);
            in_value(value, is_sensitive, deeper)
        }),
    }
}

/// A message of a type that is written as JSON: as Envoy reads it. What is not read here may be known to an Envoy.
fn in_struct(type_url: &str, written: &serde_json::Value, deeper: usize) -> bool {
    match from_json(type_url, written) {
        Ok((bytes, misfits)) => of_type(type_url, &bytes, deeper) || (!misfits.is_empty() && is_inline(written)),
        Err(_) => is_inline(written),
    }
}

/// Whether anything in it is content of its own, of whatever field.
fn is_inline(written: &serde_json::Value) -> bool {
    match written {
        serde_json::Value::Object(members) => {
            members.iter().any(|(name, value)| INLINE.contains(&name.as_str()) || is_inline(value))
        }
        serde_json::Value::Array(items) => items.iter().any(is_inline),
        _ => false,
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
        // Envoy reads what is written in a struct as a message of the type that it names.
        for (name, key) in [("xds.type.v3.TypedStruct", "private_key"), ("udpa.type.v1.TypedStruct", "privateKey")] {
            let typed = |type_url: &str, value: &Value| {
                json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c", "transport_socket":
                    {"name": "tls", "typed_config": {"@type": format!("type.googleapis.com/{name}"),
                        "type_url": format!("type.googleapis.com/{type_url}"), "value": value}}})
            };
            let context = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
            let keyed = |source: Value| json!({"common_tls_context": {"tls_certificates": [{key: source}]}});
            assert!(holds(typed(context, &keyed(json!({"inline_bytes": "aw=="})))));
            assert!(holds(typed(context, &keyed(json!({"inlineString": "k"})))));
            assert!(!holds(typed(context, &keyed(json!({"filename": "/etc/key.pem"})))));
            assert!(!holds(typed(context, &json!({"sni": "inline_string"}))));
            // Of what is not known here nothing is known to be public.
            assert!(holds(typed("no.such.Type", &keyed(json!({"inline_string": "k"})))));
            assert!(holds(typed(context, &json!({"newer": {"inline_string": "k"}}))));
            assert!(!holds(typed("no.such.Type", &keyed(json!({"filename": "/etc/key.pem"})))));
        }
        // A key in base64, wherever in the text it begins.
        for encoded in [
            "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t",
            "eC0tLS0tQkVHSU4gUFJJVkFURSBLRVktLS0tLQ==",
            "eHgtLS0tLUJFR0lOIFBSSVZBVEUgS0VZLS0tLS0=",
        ] {
            assert!(
                holds(json!({"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": "r",
                "layer": {"a": encoded}})),
                "{encoded}"
            );
        }
        assert!(holds_secret("no.such.Type", b"x-----BEGIN PGP PRIVATE KEY BLOCK-----x"));
        assert!(holds_secret("no.such.Type", b"x-----BEGIN RSA PRIVATE KEY-----x"));
        assert!(!holds(json!({"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": "r",
            "layer": {"a": "-----BEGIN PUBLIC KEY-----"}})));
        assert!(!holds_secret("no.such.Type", b"x") && !holds_secret("envoy.config.cluster.v3.Cluster", b"\xff"));
    }
}
