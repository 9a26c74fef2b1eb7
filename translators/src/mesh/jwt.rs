//! Tokens: who issues them, and what one must say.
//!
//! Owns: providers whose keys are known to be keys. May use: `name`. Never: verifies a token; proxies do.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Serialize;

use super::Authorities;
use crate::name::RuleRef;

/// A token that a request carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Jwt {
    /// Who issued it.
    pub provider: Arc<JwtProvider>,
    /// What it says: each of these is one of its values, a text or a list with it.
    pub claims: BTreeMap<String, BTreeSet<String>>,
}

/// Who issues tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JwtProvider {
    /// `/spec/jwtProviders/N` of the Mesh.
    pub origin: RuleRef,
    /// Its name.
    pub name: String,
    /// What `iss` of its tokens says.
    pub issuer: String,
    /// One of these is in `aud`; empty is any.
    pub audiences: BTreeSet<String>,
    /// What they are signed with.
    pub keys: JwtKeys,
    /// The header, in lower case, that is the token; `None` is `authorization` with `Bearer ` before it.
    pub header: Option<String>,
    /// Whether the application gets the token as well.
    pub forward: bool,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum JwtKeys {
    /// A key set in JSON, of which every key is public and one that Envoy takes.
    Inline(String),
    /// At a server.
    Remote(KeysUrl),
}

/// Where keys are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeysUrl {
    /// Who vouches for the server, by https; `None` is http.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Authorities>,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: NonZeroU16,
    /// The whole of it.
    pub url: String,
}
