//! What must hold of rules, whatever their text: what the fuzzers of `conformance/fuzz` run, and what they have found, again.
//!
//! Owns: what holds of a text that is read, and of the resources that it comes to. May use: everything here, as its users
//! do. Never: draws anything by lot.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::describe::{self, Subject};
use crate::json;
use crate::mesh::resolve::{self, Resolution, Resolver};
use crate::mesh::{Instance, Instances, Mesh, Workload, keyed};
use crate::resource::{Kind, Resource};
use crate::rules::{self, Collected};
use crate::xds::{Features, ResourceKey, build, closed, plan, secret};

const FILE: &str = "rules.yaml";

/// A text is read: every finding stands in it, and every object is read again from its own text.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = rules::parse(FILE, text);
    let lines = text.lines().count() + 1;
    for location in parsed.findings.iter().filter_map(|finding| finding.location.as_ref()) {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX);
        assert!((1..=lines).contains(&line) && location.column >= 1, "{location:?} is not among {lines} lines");
    }
    for object in &parsed.objects {
        let again = rules::parse_from(FILE, &object.text, object.line);
        assert_eq!(
            (again.objects.as_slice(), again.findings.len()),
            (std::slice::from_ref(object), 0),
            "{}",
            object.key
        );
    }
    assert_eq!(rules::parse(FILE, text), parsed, "a text means one thing");
}

/// A text comes to resources: the same whatever was there before, closed, and written down as Envoy reads them.
pub fn translate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let whole = collected(text);
    let fresh = resolve::resolve(&whole.objects);
    assert_eq!(followed(text, &whole), fresh, "an edit leaves nothing behind");
    let mesh = &fresh.mesh;
    let services = mesh.services.keys().cloned().map(Subject::Service);
    for subject in services.chain(mesh.workloads.keys().cloned().map(Subject::Workload)) {
        assert!(describe::describe(mesh, &subject).is_ok(), "{subject:?}");
    }
    for features in [Features::of_envoy(1, 36), Features::of_envoy(1, 40), Features::of_grpc(true)] {
        let instances = keyed(instances(mesh, features));
        for workload in mesh.workloads.values() {
            let resources = delivered(mesh, workload, features, &instances);
            assert_eq!(closed::dangling(&resources), vec![], "{}", workload.name);
            let names: BTreeSet<_> = resources.iter().map(|one| (one.kind(), one.name())).collect();
            assert_eq!(names.len(), resources.len(), "{}", workload.name);
            for resource in resources.iter().filter(|resource| resource.kind() != Kind::Secret) {
                let written = json::resource(resource);
                assert!(written.is_object(), "{}: {written}", resource.name());
            }
        }
    }
}

fn collected(text: &str) -> Collected {
    rules::collect([rules::parse(FILE, text)])
}

/// The same by way of half of it.
fn followed(text: &str, whole: &Collected) -> Resolution {
    let half = text.match_indices("\n---").map(|(at, _)| at + 1).nth(text.matches("\n---").count() / 2);
    let mut resolver = Resolver::default();
    resolver.update(&collected(&text[..half.unwrap_or(0)]).objects);
    resolver.update(&whole.objects)
}

/// A proxy of every workload, which has taken its listeners.
fn instances(mesh: &Mesh, features: Features) -> Vec<Instance> {
    let instance = |workload: &Arc<Workload>| Instance {
        workload: workload.name.clone(),
        node: workload.name.to_string(),
        address: Ipv4Addr::LOCALHOST.into(),
        listeners: plan(mesh, workload, features)
            .iter()
            .filter(|key| matches!(key, ResourceKey::Inbound(..)))
            .map(|key| key.name().to_string())
            .collect(),
        has_certificate: true,
    };
    mesh.workloads.values().map(instance).collect()
}

/// Everything that the proxies of a workload get, with placeholders for its secrets.
fn delivered(mesh: &Mesh, workload: &Workload, features: Features, instances: &Instances) -> Vec<Resource> {
    let own = [secret::certificate(secret::IDENTITY, "chain", "key"), secret::trust_bundle("bundle")];
    let built = plan(mesh, workload, features);
    let built = built.iter().map(|key| build(mesh, key, instances));
    let names: BTreeSet<String> = workload
        .edges
        .iter()
        .flat_map(|edge| edge.certificates().map(|certificate| certificate.secret()).collect::<Vec<_>>())
        .collect();
    let certificates = names.iter().map(|name| secret::certificate(name, "chain", "key"));
    own.into_iter().chain(built).chain(certificates).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every input of this folder; some were found, and some are what the fuzzers begin with.
    fn replay(folder: &str, run: fn(&[u8])) {
        let mut count = 0;
        for input in
            std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder of the tree")
        {
            let path = input.expect("an entry").path();
            let path = if path.is_dir() { path.join("1-rules.yaml") } else { path };
            println!("{}", path.display());
            run(&std::fs::read(path).expect("a readable file"));
            count += 1;
        }
        assert!(count > 0, "{folder} is a corpus");
    }

    #[test]
    fn texts_are_read() {
        for folder in ["../testdata/cases", "../conformance/fuzz/corpus/rules"] {
            replay(folder, rules);
        }
    }

    #[test]
    fn texts_come_to_resources() {
        for folder in ["../testdata/cases", "../conformance/fuzz/corpus/translate"] {
            replay(folder, translate);
        }
    }
}
