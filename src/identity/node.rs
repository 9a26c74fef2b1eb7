//! Node ids: what a proxy calls itself.
//!
//! Owns: what a valid node id is. May use: serde. Never: believes one; a credential is what binds it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of an Envoy node: 1 to 255 printable ASCII characters without space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

/// Why a text is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node id: 1 to 255 printable ASCII characters without space")]
pub struct InvalidNodeId(pub String);

// === impl NodeId ===

impl NodeId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = (1..=255).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        if valid { Ok(Self(text)) } else { Err(InvalidNodeId(text)) }
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
