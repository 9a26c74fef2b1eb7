//! The rule language: what people write, and nothing but its shape.
//!
//! Owns: the documents, their envelope, one file per kind, and where each field stands in its text.
//! May use: `name`, `finding`. Never: looks at a second object; that is `mesh::resolve`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::finding::Finding;
use crate::name::ObjectKey;

/// One object of the rule language, as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind, namespace and name.
    pub key: ObjectKey,
}

/// What a text holds.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The objects that could be read.
    pub objects: Vec<Arc<Object>>,
    /// What could not.
    pub findings: Vec<Finding>,
}

/// The objects of a whole configuration.
pub type Objects = BTreeMap<ObjectKey, Arc<Object>>;
