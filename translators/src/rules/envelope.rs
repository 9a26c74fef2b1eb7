//! The envelope that every document has: apiVersion, kind, metadata, spec, status.
//!
//! Owns: the shape around a spec. May use: `name`. Never: knows a spec's fields.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::name::Label;

/// The only version of the language there is.
pub const API_VERSION: &str = "chancery.dev/v1alpha1";

/// What an object is called, and what people attach to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name: a DNS label.
    #[schemars(with = "String")]
    pub name: Label,
    /// The namespace: a DNS label.
    #[schemars(with = "String")]
    pub namespace: Label,
    /// Labels; none by default. Chancery gives them no meaning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; none by default. Chancery gives them no meaning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A whole document.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document<S> {
    /// The version of the language.
    #[serde(rename = "apiVersion")]
    #[schemars(with = "String", extend("const" = API_VERSION))]
    pub _api_version: IgnoredAny,
    /// What the document describes.
    #[serde(rename = "kind")]
    #[schemars(with = "String")]
    pub _kind: IgnoredAny,
    /// What the object is called, and what people attach to it.
    pub metadata: Metadata,
    /// What it says.
    pub spec: S,
    /// Written by Chancery; ignored on input, and may be left out.
    #[serde(default, rename = "status")]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub _status: IgnoredAny,
}
