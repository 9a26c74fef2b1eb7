//! What a change costs, and what stays in force.

use std::collections::{BTreeMap, BTreeSet};

use translators::mesh::{Instance, keyed};
use translators::resource::Kind;

use super::*;

mod cost;
mod laws;
mod snapshots;
mod world;

const RULES: &str = "\
apiVersion: chancery.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80, protocol: http}]}
---
apiVersion: chancery.dev/v1alpha1
kind: Workload
metadata: {name: cart, namespace: shop}
spec: {labels: {version: v1}, serves: [{service: cart, port: http, listen: \"127.0.0.1:1001\", app: \"127.0.0.1:1002\"}]}
---
apiVersion: chancery.dev/v1alpha1
kind: Workload
metadata: {name: web, namespace: shop}
spec: {calls: [{service: cart, port: http, listen: \"127.0.0.1:1003\"}]}
---
apiVersion: chancery.dev/v1alpha1
kind: TrafficRoute
metadata: {name: cart, namespace: shop}
spec: {for: {service: cart}, http: [{name: all, to: [{service: cart}], timeout: 1s}]}
";

fn inputs(text: &str, instances: Vec<Instance>) -> Inputs {
    let parsed = translators::rules::parse("rules.yaml", text);
    let broken = parsed.broken.iter().map(|key| ("rules.yaml".into(), key.clone())).collect();
    let collected = translators::rules::collect([parsed]);
    let files = FileState { synced: true, objects: collected.objects, findings: collected.findings, broken };
    Inputs { files: Arc::new(files), instances: keyed(instances) }
}

fn features() -> BTreeSet<Features> {
    BTreeSet::from([Features::of_envoy(1, 40)])
}

fn instance(node: &str) -> Instance {
    Instance {
        workload: "shop/cart".parse().expect("valid"),
        node: node.to_owned(),
        address: [127, 0, 0, 1].into(),
        listeners: ["in/shop/cart/http".to_owned()].into(),
        has_certificate: true,
    }
}

/// The resources that are another allocation now, of all groups.
fn changed(first: &Translation, second: &Translation) -> Vec<String> {
    let mut changed = Vec::new();
    for (group, snapshot) in &second.groups {
        for resource in Kind::ALL.into_iter().flat_map(|kind| snapshot.of(kind).iter()) {
            let held = first.groups.get(group).and_then(|held| held.of(resource.kind()).get(resource.name()));
            if !held.is_some_and(|held| Arc::ptr_eq(held, resource)) {
                changed.push(format!("{} {}", resource.kind(), resource.name()));
            }
        }
    }
    changed
}

fn timeout_in_force(translation: &Translation) -> Option<Duration> {
    let service = translation.rules.mesh.services.values().next().expect("one service");
    let (_, route) = service.ports[0].routes.iter().next().expect("one route");
    route.rules[0].timeout.value
}

#[test]
fn an_endpoint_change_does_not_pass_through_the_rules() {
    let mut translator = Translator::open(None).0;
    let mut now = inputs(RULES, Vec::new());
    let first = translator.translate(&now, &features(), 0).expect("new");
    now.instances = keyed([instance("a")]);
    let second = translator.translate(&now, &features(), 0).expect("changed");
    assert!(Arc::ptr_eq(&first.rules, &second.rules));
    assert_eq!(changed(&first, &second), ["EDS out/shop/cart/http"]);
    assert_eq!(translator.built(), 1);
    // The same set again, or one of a workload that serves nothing here, changes nothing.
    now.instances = keyed([instance("a")]);
    assert!(translator.translate(&now, &features(), 0).is_none());
    let stranger = Instance { workload: "shop/web".parse().expect("valid"), ..instance("b") };
    now.instances = keyed([instance("a"), stranger]);
    assert!(translator.translate(&now, &features(), 0).is_none());
}

#[test]
fn a_rule_change_keeps_what_it_does_not_touch() {
    let mut translator = Translator::open(None).0;
    let first = translator.translate(&inputs(RULES, Vec::new()), &features(), 0).expect("new");
    let edited = RULES.replace("timeout: 1s", "timeout: 2s");
    let second = translator.translate(&inputs(&edited, Vec::new()), &features(), 0).expect("changed");
    assert_eq!(changed(&first, &second), ["RDS out/shop/cart/http"], "the route alone");
    assert_eq!(translator.built(), 1);
}

#[test]
fn a_broken_edit_leaves_the_last_good_form_in_force_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = Some(Duration::from_secs(1));
    let (mut translator, mut records) = Translator::open(Some(dir.path()));
    let good = translator.translate(&inputs(RULES, Vec::new()), &features(), 0).expect("new");
    assert_eq!((timeout_in_force(&good), good.rules.findings.all().len()), (one, 0));

    let broken = [
        RULES.replace("timeout: 1s", "timeout: soon"),
        RULES.replace("timeout: 1s", "timeuot: 9s"),
        RULES.replace("to: [{service: cart}], timeout: 1s", "to: [{service: crat}], timeout: 9s"),
        RULES.replace("{for: {service: cart}, http: [{name: all", "{for: {service: cart}, http: [{[name: all"),
    ];
    for text in broken {
        let kept = translator.translate(&inputs(&text, Vec::new()), &features(), 0).expect("changed");
        assert_eq!(timeout_in_force(&kept), one, "{text}");
        let findings: Vec<_> = kept.rules.findings.all().iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("rules.yaml:19:"), "{findings:?}");

        records.write();
        let mut restarted = Translator::open(Some(dir.path())).0;
        let kept = restarted.translate(&inputs(&text, Vec::new()), &features(), 0).expect("new");
        assert_eq!(timeout_in_force(&kept), one, "after a restart: {text}");
    }
    let removed = RULES.rsplit_once("---").expect("documents").0;
    let gone = translator.translate(&inputs(removed, Vec::new()), &features(), 0).expect("changed");
    assert_eq!(timeout_in_force(&gone), Some(Duration::from_secs(15)), "what is removed is not kept");
}

/// A workload is given without its entries of services that are gone, for as long as they are gone and no longer.
#[test]
fn a_service_that_returns_brings_its_entry_back_though_another_is_still_gone() {
    let service = |name: &str| {
        format!(
            "---\napiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{name: http, port: 80, protocol: http}}]}}\n"
        )
    };
    let call = |name: &str, port: u16| format!("{{service: {name}, port: http, listen: \"127.0.0.1:{port}\"}}");
    let caller = format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: Workload\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{calls: [{}, {}, {}]}}\n",
        call("a", 1001),
        call("b", 1002),
        call("c", 1003)
    );
    let mut translator = Translator::open(None).0;
    let mut called = |services: &[&str]| -> Vec<String> {
        let text = caller.clone() + &services.iter().map(|name| service(name)).collect::<String>();
        translator.translate(&inputs(&text, Vec::new()), &features(), 0);
        let translation = translator.current.as_ref().expect("it was translated");
        let web = translation.mesh.workloads.values().next().expect("it stays");
        web.calls.iter().map(|call| call.service.name.to_string()).collect()
    };
    assert_eq!(called(&["a", "b", "c"]), ["a", "b", "c"]);
    assert_eq!(called(&["a", "c"]), ["a", "c"]);
    assert_eq!(called(&["a"]), ["a"]);
    assert_eq!(called(&["a", "b"]), ["a", "b"]);
    assert_eq!(called(&["a", "b", "c"]), ["a", "b", "c"]);
}

#[test]
fn a_service_that_goes_takes_only_its_own_entries_from_the_workloads_that_name_it() {
    let other = "---\napiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {name: pay, namespace: shop}\n\
                 spec: {ports: [{name: http, port: 80, protocol: http}]}\n";
    let both = RULES.replace(
        "calls: [{service: cart, port: http, listen: \"127.0.0.1:1003\"}]",
        "calls: [{service: pay, port: http, listen: \"127.0.0.1:1004\"}, {service: cart, port: http, listen: \"127.0.0.1:1003\"}]",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let (mut translator, mut records) = Translator::open(Some(dir.path()));
    let calls = |translation: &Translation| -> Vec<String> {
        let web =
            translation.rules.mesh.workloads.values().find(|w| w.name.to_string() == "shop/web").expect("it stays");
        web.calls.iter().map(|call| call.service.to_string()).collect()
    };
    let whole = format!("{both}{other}");
    let first = translator.translate(&inputs(&whole, Vec::new()), &features(), 0).expect("new");
    assert_eq!(calls(&first), ["shop/pay", "shop/cart"]);
    for _ in 0..2 {
        let less = translator.translate(&inputs(&both, Vec::new()), &features(), 0).expect("changed");
        assert_eq!(calls(&less), ["shop/cart"]);
        let findings: Vec<_> = less.rules.findings.all().iter().map(ToString::to_string).collect();
        assert!(findings.iter().any(|finding| finding.contains("MX0101 error Workload shop/web")), "{findings:?}");
        // The same after a restart.
        records.write();
        (translator, records) = Translator::open(Some(dir.path()));
    }
    let back = translator.translate(&inputs(&whole, Vec::new()), &features(), 0).expect("changed");
    assert_eq!(calls(&back), ["shop/pay", "shop/cart"]);
    assert_eq!(back.rules.findings.all(), []);
}

/// The door stays closed: what is gone takes its own callers from the rules about who may call, and nothing else.
#[test]
fn a_service_that_goes_does_not_take_the_access_rules_that_name_it() {
    let service = "{ports: [{name: http, port: 80, protocol: http}]}";
    let mut world = world::World::default();
    let [_, going, _] = ["a/s0", "a/s1", "b/s2"].map(|name| world.put("MeshService", name, service));
    let rules = "{target: {service: s2}, default: deny, \
                 allow: [{from: [{service: a/s0}, {namespace: c}]}, {from: [{service: a/s1}]}, \
                 {to: [{paths: [/x]}], external: {service: a/s1}}], \
                 deny: [{from: [{service: a/s1}, {namespace: d}]}]}";
    world.put("AccessPolicy", "b/door", rules);
    let dir = tempfile::tempdir().expect("a directory");
    let (mut translator, mut records) = Translator::open(Some(dir.path()));
    let admitted = |translator: &Translator| {
        let translation = translator.current.as_ref().expect("translated");
        let access = &translation.mesh.services.values().next_back().expect("b/s2").ports[0].access;
        let callers = |entries: &[translators::mesh::AccessEntry]| -> Vec<usize> {
            entries.iter().map(|entry| entry.from.len()).collect()
        };
        (callers(&access.allow), callers(&access.deny), access.default.value)
    };
    let deny = translators::mesh::AccessDefault::Deny;
    translator.translate(&world.inputs(), &features(), 0);
    assert_eq!(admitted(&translator), (vec![2, 1, 0], vec![2], deny));
    world.remove(&going);
    for _ in 0..2 {
        translator.translate(&world.inputs(), &features(), 0);
        assert_eq!(admitted(&translator), (vec![2], vec![1], deny));
        // The same after a restart.
        records.write();
        (translator, records) = Translator::open(Some(dir.path()));
    }
    world.put("MeshService", "a/s1", service);
    translator.translate(&world.inputs(), &features(), 0);
    assert_eq!(admitted(&translator), (vec![2, 1, 0], vec![2], deny));
}

/// What the group of `b/w2` with these features holds.
fn listeners_of(translator: &Translator, features: Features) -> Vec<String> {
    let group = GroupKey::Workload { name: "b/w2".parse().expect("valid"), features };
    let snapshot = translator.catalog.groups().get(&group).expect("the group is there");
    snapshot.of(Kind::Listener).iter().map(|resource| resource.name().to_string()).collect()
}

const SERVING: &str = "{serves: [{service: s2, port: http, listen: \"0.0.0.0:100\", app: \"127.0.0.1:200\"}]}";

#[test]
fn a_service_that_breaks_leaves_its_workloads_what_they_serve() {
    let (features, mut world) = (Features::of_envoy(1, 36), world::World::default());
    let mut translator = Translator::open(None).0;
    world.put("MeshService", "b/s2", "{ports: [{name: http, port: 80, protocol: http}]}");
    world.put("Workload", "b/w2", SERVING);
    translator.translate(&world.inputs(), &[features].into(), 0);
    // Two ports, and an endpoint that says for neither which is its own.
    let broken = "{ports: [{name: http, port: 80, protocol: http}, {name: raw, port: 81, protocol: http2}], \
                  endpoints: {static: [{address: 127.0.0.1, port: 9}]}}";
    world.put("MeshService", "b/s2", broken);
    for _ in 0..3 {
        translator.translate(&world.inputs(), &[features].into(), 0);
        assert_eq!(listeners_of(&translator, features), ["in/b/s2/http"]);
        let findings = &translator.current.as_ref().expect("translated").findings;
        let objects: Vec<_> = findings.refused.iter().filter_map(|finding| finding.object.clone()).collect();
        assert_eq!(objects.iter().map(ToString::to_string).collect::<Vec<_>>(), ["MeshService b/s2"]);
    }
}

#[test]
fn what_goes_as_the_features_change_is_gone_from_the_new_groups() {
    let (older, newer) = (Features::of_envoy(1, 36), Features::of_envoy(1, 37));
    let mut world = world::World::default();
    let mut translator = Translator::open(None).0;
    world.put("MeshService", "b/s2", "{ports: [{name: http, port: 80, protocol: http}]}");
    world.put("Workload", "b/w2", SERVING);
    translator.translate(&world.inputs(), &[older].into(), 0);
    assert_eq!(listeners_of(&translator, older), ["in/b/s2/http"]);
    world.put("Workload", "b/w2", "{serves: []}");
    translator.translate(&world.inputs(), &[newer].into(), 0);
    assert_eq!(listeners_of(&translator, newer), [""; 0]);
}
