//! The laws of the translation to Envoy: total, deterministic, closed, local.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use translators::mesh::{Instances, Mesh, MtlsMode, Service, Sourced, keyed};
use translators::resource::{Kind, Resource};
use translators::xds::closed::dangling;
use translators::xds::{Features, ResourceKey, build, plan, plans_alike, reads_alike, secret};

#[path = "laws_xds/meshes.rs"]
mod meshes;

fn features() -> impl Strategy<Value = Features> {
    let envoy = (35u32..42).prop_map(|minor| Features::of_envoy(1, minor));
    prop_oneof![3 => envoy, 1 => any::<bool>().prop_map(Features::of_grpc)]
}

fn keys(mesh: &Mesh, features: Features) -> BTreeSet<ResourceKey> {
    mesh.workloads.values().flat_map(|workload| plan(mesh, workload, features)).collect()
}

/// Everything that the proxies of one workload get, with placeholders for its secrets.
fn delivered(mesh: &Mesh, keys: &BTreeSet<ResourceKey>, features: Features) -> Vec<Resource> {
    let instances = keyed(meshes::instances(mesh, features));
    let secrets = [secret::certificate(secret::IDENTITY, "chain", "key"), secret::trust_bundle("bundle")];
    let built = keys.iter().map(|key| build(mesh, key, &instances));
    let edges = mesh.workloads.values().flat_map(|workload| &workload.edges);
    let certificates: BTreeMap<String, Resource> = edges
        .flat_map(|edge| edge.certificates())
        .map(|certificate| (certificate.secret(), secret::certificate(&certificate.secret(), "chain", "key")))
        .collect();
    secrets.into_iter().chain(built).chain(certificates.into_values()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_is_total_closed_and_its_names_are_unique(mesh in meshes::mesh(), features in features()) {
        for workload in mesh.workloads.values() {
            let keys = plan(&mesh, workload, features);
            let resources = delivered(&mesh, &keys, features);
            prop_assert_eq!(dangling(&resources), vec![]);
            let names: BTreeSet<_> = resources.iter().map(|r| (r.kind(), r.name().clone())).collect();
            prop_assert_eq!(names.len(), resources.len());
            for (key, resource) in keys.iter().zip(&resources[2..]) {
                prop_assert_eq!((key.kind(), &key.name()), (resource.kind(), resource.name()));
            }
        }
    }

    /// Whatever is written field by field has the bytes of the typed message.
    #[test]
    fn its_bytes_are_those_of_the_typed_messages(mesh in meshes::mesh(), features in features()) {
        for resource in delivered(&mesh, &keys(&mesh, features), features) {
            let value = resource.value();
            let again = match resource.kind() {
                Kind::Cluster => cluster_pb::Cluster::decode(value.clone()).map(|typed| typed.encode_to_vec()),
                Kind::Endpoints => {
                    endpoint_pb::ClusterLoadAssignment::decode(value.clone()).map(|typed| typed.encode_to_vec())
                }
                _ => continue,
            };
            prop_assert_eq!(again.expect("a resource is of its kind's type"), value);
        }
    }

    #[test]
    fn it_is_deterministic(mesh in meshes::mesh(), features in features()) {
        let keys = keys(&mesh, features);
        let once = delivered(&mesh, &keys, features);
        let bytes = |resources: &[Resource]| resources.iter().map(Resource::value).collect::<Vec<_>>();
        for _ in 0..5 {
            prop_assert_eq!(bytes(&delivered(&mesh.clone(), &keys, features)), bytes(&once));
        }
        let mut shuffled = meshes::instances(&mesh, features);
        shuffled.reverse();
        let shuffled = keyed(shuffled);
        for key in &keys {
            if key.endpoints_of().is_some() {
                prop_assert!(once.contains(&build(&mesh, key, &shuffled)));
            }
        }
    }

    #[test]
    fn it_is_local(
        mesh in meshes::mesh(),
        chosen in any::<prop::sample::Index>(),
        mode in meshes::mode(),
        access in meshes::access(),
        features in features(),
    ) {
        let name = mesh.services.keys().nth(chosen.index(mesh.services.len())).expect("in range").clone();
        let mut changed = mesh.clone();
        let service = Arc::make_mut(changed.services.get_mut(&name).expect("present"));
        service.identities = ["spiffe://cluster.local/ns/a/sa/other".parse().expect("an identity")].into();
        for port in &mut service.ports {
            port.mtls = Sourced::built_in(mode);
            port.access = access.clone();
        }
        let keys = keys(&mesh, features);
        // Rules about access bring the keys of the tokens that they ask for, and the way to whom they ask.
        let asked = meshes::name(meshes::ASKED);
        let is_other = |key: &&ResourceKey| match key {
            ResourceKey::Jwks(slot, _) => slot.service != name,
            ResourceKey::Cluster(to) | ResourceKey::ConsumerCluster(to, _) | ResourceKey::Endpoints(to, _) => to.service != asked,
            _ => true,
        };
        let after = self::keys(&changed, features);
        prop_assert!(keys.iter().filter(is_other).eq(after.iter().filter(is_other)));
        for key in keys.iter().filter(|key| key.service() != Some(&name)) {
            let nobody = Instances::new();
            prop_assert_eq!(build(&mesh, key, &nobody).value(), build(&changed, key, &nobody).value());
        }
    }
}

/// Takes one thing that a service says from `other`.
fn take(field: usize, service: &mut Service, other: &Service) {
    match field {
        0 => service.identities = ["spiffe://cluster.local/ns/a/sa/other".parse().expect("an identity")].into(),
        1 => service.backing = other.backing.clone(),
        2 => service.origin.pointer.push_str("/elsewhere"),
        3 => drop(service.ports.pop()),
        _ => {
            for (port, other) in service.ports.iter_mut().zip(&other.ports) {
                match field {
                    4 => port.mtls = other.mtls.clone(),
                    5 => port.access = other.access.clone(),
                    6 => port.callers_use_mtls = !port.callers_use_mtls,
                    7 => port.server_first = other.server_first,
                    8 => port.protocol = other.protocol,
                    9 => port.routes = other.routes.clone(),
                    10 => port.number = other.number,
                    13 => port.apart = other.apart.clone(),
                    11 => port.outbound = Arc::clone(&other.outbound),
                    12 => port.outbound_of = other.outbound_of.clone(),
                    _ => drop(port.routes.pop_last()),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Who follows a mesh builds only what does not read alike.
    #[test]
    fn what_reads_alike_says_the_same(
        mesh in meshes::mesh(),
        other in meshes::mesh(),
        chosen in any::<prop::sample::Index>(),
        field in 0usize..15,
        features in features(),
    ) {
        let name = mesh.services.keys().nth(chosen.index(mesh.services.len())).expect("in range").clone();
        let mut changed = mesh.clone();
        let service = Arc::make_mut(changed.services.get_mut(&name).expect("present"));
        take(field, service, other.services.values().next().expect("one at least"));
        let (former, next) = (&mesh.services[&name], &changed.services[&name]);
        let (keys, changed_keys) = (keys(&mesh, features), self::keys(&changed, features));
        prop_assert!(keys == changed_keys || !plans_alike(former, next));
        for key in keys.intersection(&changed_keys) {
            if key.service() != Some(&name) || reads_alike(key, former, next) {
                let instances = keyed(meshes::instances(&mesh, features));
                prop_assert_eq!(build(&mesh, key, &instances), build(&changed, key, &instances));
            }
        }
    }
}

/// The listeners of the whole mesh with one mode everywhere.
fn inbound(mesh: &Mesh, mode: MtlsMode, features: Features) -> Vec<listener_pb::Listener> {
    let mut mesh = mesh.clone();
    for (_, service) in mesh.services.clone() {
        let service = mesh.services.entry(service.name.clone()).or_insert(service);
        Arc::make_mut(service).ports.iter_mut().for_each(|port| {
            port.mtls = Sourced::built_in(mode);
            port.apart
                .iter_mut()
                .flat_map(|apart| apart.values_mut())
                .for_each(|own| own.mtls = Sourced::built_in(mode));
        });
    }
    let keys = keys(&mesh, features);
    let listeners = keys
        .iter()
        .filter(|key| matches!(key, ResourceKey::Inbound(..)))
        .map(|key| build(&mesh, key, &Instances::new()));
    listeners.map(|listener| listener_pb::Listener::decode(listener.value()).expect("decodes")).collect()
}

proptest! {
    /// Whatever Envoy finds changed, it drains.
    #[test]
    fn a_change_between_permissive_and_strict_leaves_mtls_alone(mesh in meshes::mesh(), features in features()) {
        let strict = inbound(&mesh, MtlsMode::Strict, features);
        let mut permissive = inbound(&mesh, MtlsMode::Permissive, features);
        for listener in &mut permissive {
            let is_mtls = |chain: &listener_pb::FilterChain| matches!(chain.name.as_str(), "mtls" | "mtls-refused");
            prop_assert!(!listener.filter_chains.iter().all(is_mtls));
            listener.filter_chains.retain(is_mtls);
        }
        prop_assert_eq!(strict, permissive);
    }
}

#[test]
fn the_check_of_references_sees_each_kind() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let features = Features::of_envoy(1, 40);
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let mesh = meshes::mesh().new_tree(&mut runner).expect("a mesh").current();
        let resources = delivered(&mesh, &keys(&mesh, features), features);
        for kind in Kind::ALL {
            let without: Vec<_> = resources.iter().filter(|r| r.kind() != kind).cloned().collect();
            seen.extend(dangling(&without).into_iter().map(|missing| missing.kind));
        }
    }
    assert_eq!(seen, BTreeSet::from([Kind::Secret, Kind::Cluster, Kind::Endpoints, Kind::Route]));
}
