//! Every case of `testdata/cases`: `1-rules.yaml` and what each later stage makes of it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p translators --test golden` writes the later stages anew and removes files
//! that no stage makes; without it a missing, stale or orphaned file fails. A case is added by adding a folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use translators::mesh::resolve;
use translators::mesh::{EnvoySnapshot, Instance, Instances, Mesh, Workload, keyed};
use translators::resource::{Kind, Resource};
use translators::xds::{self, Features, ResourceKey};
use translators::{finding, json, rules};

/// The file that people write.
const RULES: &str = "1-rules.yaml";

/// What each later stage makes of the rules, by file name. A new stage is one entry here.
fn stages(rules: &str) -> BTreeMap<&'static str, String> {
    let collected = rules::collect([rules::parse(RULES, rules)]);
    let resolution = resolve::resolve(&collected.objects);
    let mut findings = resolution.all_findings();
    let mesh = resolution.mesh;
    findings.extend(xds::patch_findings(&mesh, &collected.objects));
    findings.sort_by(finding::by_place);
    let findings: Vec<String> = collected.findings.iter().chain(&findings).map(ToString::to_string).collect();
    let mut stages = BTreeMap::from([
        ("2-mesh.yaml", yaml(&mesh)),
        ("3-xds.yaml", yaml(&proxies(&mesh))),
        ("4-findings.yaml", yaml(&findings)),
    ]);
    let proxyless = proxyless(&mesh);
    if !proxyless.is_empty() {
        stages.insert("5-proxyless.yaml", yaml(&proxyless));
    }
    stages
}

/// Resources by kind and name.
type ByKind = BTreeMap<String, BTreeMap<String, Value>>;

/// What the proxies of each workload and of each EnvoySnapshot get, secrets apart, by kind and name; every workload has
/// one proxy, which has accepted everything.
fn proxies(mesh: &Mesh) -> BTreeMap<String, ByKind> {
    let written = |snapshot: &EnvoySnapshot| {
        let mut by_kind = BTreeMap::new();
        let public = snapshot.resources.iter().filter(|resource| resource.kind() != Kind::Secret);
        public.for_each(|resource| enter(&mut by_kind, resource));
        by_kind
    };
    let workloads = of_workloads(mesh, Features::of_envoy(1, 40));
    let snapshots = mesh.snapshots.iter().map(|(name, snapshot)| (format!("EnvoySnapshot {name}"), written(snapshot)));
    workloads.chain(snapshots).collect()
}

/// What a gRPC client with a certificate gets that is an instance of a workload, of those that call something by gRPC.
fn proxyless(mesh: &Mesh) -> BTreeMap<String, ByKind> {
    of_workloads(mesh, Features::of_grpc(true)).filter(|(_, by_kind)| !by_kind.is_empty()).collect()
}

fn of_workloads(mesh: &Mesh, features: Features) -> impl Iterator<Item = (String, ByKind)> {
    let instances = instances(mesh);
    mesh.workloads.iter().map(move |(name, workload)| {
        let mut by_kind = ByKind::new();
        for resource in xds::resources(mesh, workload, features, &instances) {
            enter(&mut by_kind, &resource);
        }
        (name.to_string(), by_kind)
    })
}

fn enter(by_kind: &mut ByKind, resource: &Resource) {
    let of_kind = by_kind.entry(resource.kind().to_string()).or_default();
    of_kind.insert(resource.name().to_string(), json::resource(resource));
}

fn instances(mesh: &Mesh) -> Instances {
    let inbound = |workload: &Workload| {
        let keys = xds::plan(mesh, workload, Features::of_envoy(1, 40)).into_iter();
        keys.filter(|key| matches!(key, ResourceKey::Inbound(..))).map(|key| key.name().to_string()).collect()
    };
    let instance = |(n, workload): (u8, &Arc<Workload>)| Instance {
        workload: workload.name.clone(),
        node: format!("{}-0", workload.name.name),
        address: Ipv4Addr::new(192, 0, 2, n).into(),
        listeners: inbound(workload),
        has_certificate: true,
    };
    keyed((1..).zip(mesh.workloads.values()).map(instance))
}

/// YAML with sorted keys.
fn yaml(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("the model is JSON");
    serde_saphyr::to_string(&value).expect("JSON is YAML")
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .expect("the cases are in the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    cases.sort();
    cases
}

/// The differences of one case, after writing them where that is wanted.
fn differences(case: &Path, update: bool) -> Vec<String> {
    let rules = fs::read_to_string(case.join(RULES)).expect("every case has its rules");
    let stages = stages(&rules);
    let mut differences = Vec::new();
    for (name, wanted) in &stages {
        let path = case.join(name);
        let found = fs::read_to_string(&path).ok();
        if found.as_ref() == Some(wanted) {
            continue;
        }
        if update {
            fs::write(&path, wanted).expect("the case can be written");
            continue;
        }
        let found = found.unwrap_or_default();
        let line = found.lines().zip(wanted.lines()).take_while(|(found, wanted)| found == wanted).count();
        let at = |text: &str| text.lines().nth(line).unwrap_or("(end)").to_owned();
        differences.push(format!("{}:{}: {} instead of {}", path.display(), line + 1, at(wanted), at(&found)));
    }
    for entry in fs::read_dir(case).expect("the case can be read") {
        let path = entry.expect("the case can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == RULES || stages.contains_key(name) {
            continue;
        }
        if update {
            fs::remove_file(&path).expect("the orphan can be removed");
        } else {
            differences.push(format!("{}: no stage makes this file", path.display()));
        }
    }
    differences
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test has no config.rs")]
fn every_stage_of_every_case() {
    let update = std::env::var("UPDATE_GOLDEN").is_ok();
    let differences: Vec<String> = cases().iter().flat_map(|case| differences(case, update)).collect();
    assert!(differences.is_empty(), "UPDATE_GOLDEN=1 rewrites what is meant:\n{}", differences.join("\n"));
}
