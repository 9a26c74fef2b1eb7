//! The shape of each kind as JSON Schema, made from the types that documents are read into.
//!
//! Owns: which type a kind's documents are, and what a schema says beside them. May use: the kinds. Never: says what a
//! field means; its doc comment does.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::envelope::Document;
use super::{certificate, gateway, mesh, patch, policy, route, service, snapshot, telemetry, traffic, workload};
use crate::name::ObjectKind;

/// The schema of whole documents of `kind`: draft 2020-12, with every type by its name under `$defs`.
///
/// Two words of it are our own: `x-default-from` is the field that decides where this one is left out, as
/// `chancery explain` takes it, and `x-ladder` says which other objects do for all that is under a field.
pub fn document(kind: ObjectKind) -> Value {
    let mut schema = match kind {
        ObjectKind::Mesh => schema_of::<mesh::MeshSpec>(),
        ObjectKind::MeshService => schema_of::<service::ServiceSpec>(),
        ObjectKind::Workload => schema_of::<workload::WorkloadSpec>(),
        ObjectKind::EdgeGateway => schema_of::<gateway::GatewaySpec>(),
        ObjectKind::TLSCertificate => schema_of::<certificate::CertificateSpec>(),
        ObjectKind::EnvoySnapshot => schema_of::<snapshot::SnapshotSpec>(),
        ObjectKind::TrafficRoute => schema_of::<route::RouteSpec>(),
        ObjectKind::TrafficPolicy => schema_of::<traffic::TrafficSpec>(),
        ObjectKind::MTLSPolicy => schema_of::<policy::MtlsSpec>(),
        ObjectKind::AccessPolicy => schema_of::<policy::AccessSpec>(),
        ObjectKind::TelemetryPolicy => schema_of::<telemetry::TelemetrySpec>(),
        ObjectKind::EnvoyPatch => schema_of::<patch::PatchSpec>(),
    }
    .to_value();
    schema["title"] = json!(kind.as_str());
    schema["properties"]["kind"]["const"] = json!(kind.as_str());
    let (name, namespace) = match kind {
        ObjectKind::Mesh => ("default", "mesh-system"),
        _ => ("cart", "shop"),
    };
    let metadata = &mut schema["$defs"]["Metadata"]["properties"];
    metadata["name"]["examples"] = json!([name]);
    metadata["namespace"]["examples"] = json!([namespace]);
    schema
}

fn schema_of<S: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document<S>>()
}
