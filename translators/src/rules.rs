//! The rule language: what people write, and nothing but its shape.
//!
//! Owns: the documents, their envelope, one file per kind, and where each field stands in its text.
//! May use: `name`, `finding`, the small enums of `mesh`. Never: looks at a second object, except for one
//! name that is defined twice; everything else is `mesh::resolve`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::finding::{Finding, Location};
use crate::name::ObjectKey;

pub mod certificate;
pub mod checks;
mod collection;
pub mod connection;
mod document;
mod envelope;
pub mod gateway;
pub mod health;
pub mod inbound;
pub mod locality;
pub mod matching;
pub mod mesh;
mod mistake;
mod node;
pub mod patch;
pub mod policy;
pub mod route;
pub mod scalar;
pub mod schema;
pub mod service;
pub mod snapshot;
pub mod subject;
pub mod target;
pub mod telemetry;
mod text;
pub mod tls;
pub mod traffic;
pub mod workload;

pub use collection::{Collection, collect};
pub use envelope::{API_VERSION, Metadata};
pub(crate) use node::escaped;
pub use text::{Text, parse, parse_from};

/// One object of the rule language, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its kind, namespace and name.
    pub key: ObjectKey,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it says.
    pub spec: Spec,
    /// The file that it stands in.
    pub file: Arc<str>,
    /// Its document as written: [`parse_from`] reads it again.
    pub text: Arc<str>,
    /// The line of the file on which the document starts.
    pub line: u32,
    /// Where each pointer stands in the document.
    places: document::Places,
}

/// What an object says, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum Spec {
    Mesh(mesh::MeshSpec),
    MeshService(service::ServiceSpec),
    Workload(workload::WorkloadSpec),
    EdgeGateway(gateway::GatewaySpec),
    TLSCertificate(certificate::CertificateSpec),
    EnvoySnapshot(snapshot::SnapshotSpec),
    TrafficRoute(route::RouteSpec),
    TrafficPolicy(Box<traffic::TrafficSpec>),
    MTLSPolicy(policy::MtlsSpec),
    AccessPolicy(policy::AccessSpec),
    TelemetryPolicy(Box<telemetry::TelemetrySpec>),
    EnvoyPatch(patch::PatchSpec),
}

/// What a text holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The objects that could be read.
    pub objects: Vec<Arc<Object>>,
    /// What could not.
    pub findings: Vec<Finding>,
    /// One for each document that could not be read, with its key when that could still be told.
    pub broken: Vec<Option<ObjectKey>>,
}

/// The objects of a whole configuration: a persistent map, so that two of them are told apart in the size of their
/// difference.
pub type Objects = imbl::OrdMap<ObjectKey, Arc<Object>>;

/// Several texts together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// The objects, each from its one home.
    pub objects: Objects,
    /// What could not be read, and names that are defined twice.
    pub findings: Vec<Finding>,
}

// === impl Object ===

impl Object {
    /// Where `pointer` stands, or the nearest of its ancestors that was written.
    pub fn location(&self, pointer: &str) -> Option<Location> {
        let (line, column) = document::placed(self.places.nearest(&self.text, pointer), self.line);
        Some(Location { file: Arc::clone(&self.file), line, column })
    }

    /// Where the member at `pointer` begins: its name, not its value.
    pub fn member_location(&self, pointer: &str) -> Option<Location> {
        self.location(&node::name_of(pointer))
    }

    /// Whether both say the same, wherever they stand.
    pub fn same_content(&self, other: &Self) -> bool {
        self.key == other.key
            && self.labels == other.labels
            && self.annotations == other.annotations
            && self.spec == other.spec
    }

    /// The order in which conflicts are decided.
    pub(crate) fn home(&self) -> (&str, u32, &ObjectKey) {
        (&self.file, self.line, &self.key)
    }

    /// The line of its first field.
    fn line(&self) -> u32 {
        document::placed(self.places.nearest(&self.text, ""), self.line).0
    }
}
