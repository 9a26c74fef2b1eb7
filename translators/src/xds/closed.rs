//! The check that resources are closed: every name that one refers to exists beside it.
//!
//! Owns: what counts as a reference, read from the JSON form of the encoded messages. May use: `json`,
//! `resource`. Never: shares code with the translation that it checks.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json;
use crate::resource::{Kind, Name, Resource};

/// The cluster that every bootstrap has.
const CONTROL_PLANE: &str = "chancery-control-plane";

/// A reference that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dangling {
    /// The resource that refers.
    pub from: Name,
    /// What is missing.
    pub kind: Kind,
    /// What it would be called.
    pub name: String,
}

/// The references among `resources` that lead nowhere, in the order of the resources.
pub fn dangling(resources: &[Resource]) -> Vec<Dangling> {
    let present: BTreeSet<(Kind, String)> = resources.iter().map(|r| (r.kind(), r.name().to_string())).collect();
    let mut found = Vec::new();
    for resource in resources {
        let mut references = BTreeSet::new();
        collect(&json::resource(resource), &mut references);
        let missing = references.into_iter().filter(|reference| !present.contains(reference));
        found.extend(missing.map(|(kind, name)| Dangling { from: resource.name().clone(), kind, name }));
    }
    found
}

fn collect(value: &Value, references: &mut BTreeSet<(Kind, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Object(fields) => {
            references.extend(of_object(value));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What an object refers to by its own members.
fn of_object(object: &Value) -> Vec<(Kind, String)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let mut found = Vec::new();
    // A route action or a TCP proxy.
    found.extend(text("/cluster").map(|name| (Kind::Cluster, name)));
    let weighted = object.pointer("/weighted_clusters/clusters").and_then(Value::as_array);
    let names = weighted.into_iter().flatten().filter_map(|cluster| cluster["name"].as_str());
    found.extend(names.map(|name| (Kind::Cluster, name.to_owned())));
    // A provider of telemetry; the control plane itself is not among the resources.
    let providers = [text("/envoy_grpc/cluster_name"), text("/collector_cluster")].into_iter().flatten();
    found.extend(providers.filter(|name| name != CONTROL_PLANE).map(|name| (Kind::Cluster, name)));
    found.extend(text("/rds/route_config_name").map(|name| (Kind::Route, name)));
    if object.get("eds_cluster_config").is_some() {
        let name = text("/eds_cluster_config/service_name").or_else(|| text("/name"));
        found.extend(name.map(|name| (Kind::Endpoints, name)));
    }
    if object.pointer("/sds_config/ads").is_some() {
        found.extend(text("/name").map(|name| (Kind::Secret, name)));
    }
    found
}
