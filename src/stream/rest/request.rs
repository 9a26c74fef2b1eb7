//! A discovery request as JSON.
//!
//! Owns: reading the text, with field names as in the protos or in camel case. May use: serde. Never: reads what
//! Chancery has no use for: nearly all of a stock Envoy's 77 kB are the extensions that its node lists.

use std::collections::BTreeMap;

use prost::Message;
use proto::wire;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is read of `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Debug, Deserialize)]
struct DiscoveryRequest {
    #[serde(default, alias = "versionInfo", deserialize_with = "or_default")]
    version_info: String,
    #[serde(default, deserialize_with = "or_default")]
    node: Node,
    #[serde(default, alias = "resourceNames", deserialize_with = "or_default")]
    resource_names: Vec<String>,
    #[serde(default, alias = "typeUrl", deserialize_with = "or_default")]
    type_url: String,
    #[serde(default, alias = "errorDetail")]
    error_detail: Option<Status>,
}

/// `google.rpc.Status`.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default, deserialize_with = "number")]
    code: i64,
    #[serde(default, deserialize_with = "or_default")]
    message: String,
}

/// `envoy.config.core.v3.Node`.
#[derive(Debug, Default, Deserialize)]
struct Node {
    #[serde(default, deserialize_with = "or_default")]
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    cluster: String,
    #[serde(default, deserialize_with = "or_default")]
    metadata: BTreeMap<String, Value>,
    #[serde(default, alias = "userAgentName", deserialize_with = "or_default")]
    user_agent_name: String,
    #[serde(default, alias = "userAgentVersion", deserialize_with = "or_default")]
    user_agent_version: String,
    #[serde(default, alias = "userAgentBuildVersion")]
    user_agent_build_version: Option<BuildVersion>,
    #[serde(default, alias = "clientFeatures", deserialize_with = "or_default")]
    client_features: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct BuildVersion {
    #[serde(default)]
    version: Option<SemanticVersion>,
}

#[derive(Debug, Deserialize)]
struct SemanticVersion {
    #[serde(default, alias = "majorNumber", deserialize_with = "number")]
    major_number: u32,
    #[serde(default, alias = "minorNumber", deserialize_with = "number")]
    minor_number: u32,
    #[serde(default, deserialize_with = "number")]
    patch: u32,
}

/// The same request as it is sent over gRPC.
pub(in crate::stream) fn read(text: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(serde::de::Error::custom("it is a list, and no object"));
    }
    let request: DiscoveryRequest = serde_json::from_slice(text)?;
    let message = wire::DiscoveryRequest {
        version_info: request.version_info,
        node: request.node.into_wire().encode_to_vec().into(),
        resource_names: request.resource_names,
        type_url: request.type_url,
        // There is no stream whose responses it could tell apart.
        response_nonce: String::new(),
        #[expect(clippy::cast_possible_truncation, reason = "what does not fit wraps, as in every protobuf reader")]
        error_detail: request
            .error_detail
            .map(|error| wire::Status { code: error.code as i32, message: error.message }),
    };
    Ok(message.encode_to_vec())
}

// === impl Node ===

impl Node {
    fn into_wire(self) -> wire::Node {
        let version = self.user_agent_build_version.and_then(|build| build.version);
        let fields: BTreeMap<_, _> =
            self.metadata.into_iter().filter_map(|(key, value)| Some((key, metadata(value)?))).collect();
        wire::Node {
            id: self.id,
            cluster: self.cluster,
            metadata: (!fields.is_empty()).then_some(wire::Struct { fields }),
            user_agent_name: self.user_agent_name,
            user_agent_version: self.user_agent_version,
            user_agent_build_version: version.map(|version| wire::BuildVersion {
                version: Some(wire::SemanticVersion {
                    major_number: version.major_number,
                    minor_number: version.minor_number,
                    patch: version.patch,
                }),
            }),
            client_features: self.client_features,
        }
    }
}

/// A member of the metadata, if it is a text: no others are looked at.
fn metadata(value: Value) -> Option<wire::Value> {
    match value {
        Value::String(string_value) => Some(wire::Value { string_value }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `null` stands for the default of any field.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A number may be written as a text.
fn number<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default + std::str::FromStr<Err: std::fmt::Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        Number(T),
        Text(String),
        Nothing,
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Written::Nothing => Ok(T::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<wire::DiscoveryRequest, String> {
        let message = super::read(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(wire::DiscoveryRequest::decode(&message[..]).expect("it was encoded just now"))
    }

    fn node(request: &wire::DiscoveryRequest) -> wire::Node {
        wire::Node::decode(&request.node[..]).expect("it was encoded just now")
    }

    #[test]
    fn names_are_those_of_the_protos_or_camel_case_and_others_are_passed_over() {
        let snake = r#"{"version_info": "7", "resource_names": ["a"], "type_url": "t", "error_detail": {"code": 13,
            "message": "no", "details": [{"@type": "x/y"}]}, "node": {"id": "n", "cluster": "c", "metadata":
            {"role": "edge", "list": [1], "size": 3}, "user_agent_name": "envoy", "user_agent_build_version":
            {"version": {"major_number": 1, "minor_number": 40}, "metadata": {}}, "extensions": [{"name": "x"}],
            "client_features": ["f"]},
            "resource_locators": [], "later": {"more": true}}"#;
        let camel = r#"{"versionInfo": "7", "resourceNames": ["a"], "typeUrl": "t", "errorDetail": {"code": "13",
            "message": "no"}, "node": {"id": "n", "cluster": "c", "metadata": {"role": "edge"}, "userAgentName": "envoy",
            "userAgentBuildVersion": {"version": {"majorNumber": 1, "minorNumber": "40"}}, "clientFeatures": ["f"]}, "responseNonce": "9"}"#;
        let (snake, camel) = (read(snake).expect("reads"), read(camel).expect("reads"));
        assert_eq!(snake, camel);
        assert_eq!((&*snake.version_info, &*snake.type_url, &*snake.resource_names), ("7", "t", &["a".to_owned()][..]));
        assert_eq!(snake.error_detail, Some(wire::Status { code: 13, message: "no".into() }));
        let node = node(&snake);
        assert_eq!((&*node.id, &*node.cluster, &*node.user_agent_name), ("n", "c", "envoy"));
        assert_eq!(node.client_features, ["f"]);
        let metadata = node.metadata.expect("there is some").fields;
        assert_eq!(metadata, [("role".to_owned(), wire::Value { string_value: "edge".into() })].into());
        let version = node.user_agent_build_version.and_then(|build| build.version).expect("there is one");
        assert_eq!((version.major_number, version.minor_number, version.patch), (1, 40, 0));
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let nothing = read("{}").expect("reads");
        for text in [
            r#"{"version_info": null, "node": null, "resource_names": null, "type_url": null, "error_detail": null}"#,
            r#"{"node": {"id": null, "metadata": null, "user_agent_build_version": null}}"#,
        ] {
            assert_eq!(read(text).as_ref(), Ok(&nothing), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (text, said) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "it is a list"),
            ("{\"node\": 3}", "invalid type: integer `3`, expected"),
            ("{\"resource_names\": [1]}", "invalid type: integer `1`, expected a string at line 1 column 21"),
            ("{\"version_info\": \"1\",}", "trailing comma at line 1 column 22"),
            ("{\"version_info\": \"1\", \"versionInfo\": \"2\"}", "duplicate field `version_info`"),
            ("{\"error_detail\": {\"code\": \"x\"}}", "invalid digit"),
            ("\u{0}", "expected value at line 1 column 1"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
