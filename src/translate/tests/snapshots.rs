//! EnvoySnapshots: what a change of one costs, what stays in force, and that nobody else has anything of it.

use super::*;

const URL: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn raw(name: &str, version: &str, timeouts: impl IntoIterator<Item = (usize, u32)>) -> String {
    let cluster =
        |(n, timeout): (usize, u32)| format!("  - {{\"@type\": {URL}, name: c-{n}, connect_timeout: {timeout}s}}\n");
    let clusters: String = timeouts.into_iter().map(cluster).collect();
    format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: EnvoySnapshot\nmetadata: {{name: {name}, namespace: edge}}\nspec:\n  \
         match: {{nodeId: {name}}}\n{version}  resources:\n{clusters}"
    )
}

fn key(name: &str) -> GroupKey {
    GroupKey::Snapshot(format!("edge/{name}").parse().expect("valid"))
}

/// The group of those nodes that have not shown who they are.
fn open(name: &str) -> GroupKey {
    GroupKey::Open(format!("edge/{name}").parse().expect("valid"))
}

#[test]
fn one_changed_resource_of_a_thousand_is_one_new_resource() {
    let thousand = |seventh: u32| (0..1000).map(move |n| (n, if n == 7 { seventh } else { 1 }));
    let text = |seventh: u32, version: &str| {
        format!("{RULES}---\n{}---\n{}", raw("a", version, thousand(seventh)), raw("b", "", [(0, 1)]))
    };
    let mut translator = Translator::open(None).0;
    let first = translator.translate(&inputs(&text(1, ""), Vec::new()), &features(), 0).expect("new");
    assert_eq!(first.groups[&key("a")].of(Kind::Cluster).len(), 1000);
    let second = translator.translate(&inputs(&text(2, ""), Vec::new()), &features(), 0).expect("changed");
    assert_eq!((changed(&first, &second), translator.built()), (vec!["CDS c-7".to_owned(); 2], 1));
    let others = second.groups.iter().filter(|(group, _)| ![key("a"), open("a")].contains(group));
    assert!(others.clone().all(|(group, held)| Arc::ptr_eq(held, &first.groups[group])) && others.count() > 2);

    // A version is said of all that the snapshot holds, and is all that changes.
    let third =
        translator.translate(&inputs(&text(2, "  version: v3\n"), Vec::new()), &features(), 0).expect("changed");
    assert_eq!((changed(&second, &third), translator.built()), (Vec::new(), 0));
    let held = &third.groups[&key("a")];
    assert_eq!(held.said_version().map(|version| &**version), Some("v3"));
    assert!(!held.says_the_same(&second.groups[&key("a")]));

    // What is no longer written is gone, and so is a snapshot.
    let few = format!("{RULES}---\n{}", raw("a", "", (0..999).map(|n| (n, 1))));
    let fourth = translator.translate(&inputs(&few, Vec::new()), &features(), 0).expect("changed");
    assert_eq!((changed(&third, &fourth), translator.built()), (vec!["CDS c-7".to_owned(); 2], 1));
    let held = &fourth.groups[&key("a")];
    assert_eq!((held.of(Kind::Cluster).len(), held.said_version()), (999, None));
    assert!(!fourth.groups.contains_key(&key("b")));
}

#[test]
fn a_snapshot_that_breaks_is_served_as_it_was_and_nobody_else_notices() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = |snapshot: &str| format!("{RULES}---\n{snapshot}");
    let good = raw("a", "", [(0, 1), (1, 1)]);
    let (mut translator, mut records) = Translator::open(Some(dir.path()));
    let first = translator.translate(&inputs(&text(&good), Vec::new()), &features(), 0).expect("new");
    let broken = [
        (good.replace("connect_timeout: 1s", "conect_timeout: 1s"), "MX0201"),
        (good.replace("c-1", "c-0"), "MX0302"),
        (good.replace("connect_timeout: 1s", "connect_timeout: soon"), "MX0203"),
        (good.replace("nodeId: a", "nodeId: [a]"), "MX0203"),
        (good.replace(URL, "envoy.config.cluster.v3.Clutser"), "MX0203"),
    ];
    for (snapshot, code) in broken {
        let edited = text(&snapshot).replace("timeout: 1s}]", "timeout: 2s}]");
        let now = translator.translate(&inputs(&edited, Vec::new()), &features(), 0).expect("changed");
        assert!(now.groups[&key("a")].says_the_same(&first.groups[&key("a")]), "{snapshot}");
        assert_eq!(timeout_in_force(&now), Some(Duration::from_secs(2)), "the rest goes on");
        let findings = now.rules.findings.all();
        assert!(findings.iter().all(|finding| finding.code.as_str() == code), "{findings:?}");
        assert!(!findings.is_empty() && findings.iter().all(|finding| finding.location.is_some()));

        records.write();
        let mut restarted = Translator::open(Some(dir.path())).0;
        let again = restarted.translate(&inputs(&edited, Vec::new()), &features(), 0).expect("new");
        assert!(again.groups[&key("a")].says_the_same(&first.groups[&key("a")]), "after a restart");
    }
}

#[test]
fn a_snapshot_whose_nodes_are_a_workloads_too_is_kept_and_has_a_last_good_form() {
    let workload = "---\napiVersion: chancery.dev/v1alpha1\nkind: Workload\nmetadata: {name: a, namespace: edge}\nspec: {match: {nodeId: a}}\n";
    let mut translator = Translator::open(None).0;
    let mut translate = |snapshot: &str| {
        let inputs = inputs(&(raw("a", snapshot, [(0, 1)]) + workload), Vec::new());
        translator.translate(&inputs, &features(), 0).expect("changed")
    };
    let disputed = translate("");
    let edited = translate("  version: v2\n");
    let broken = translate("  versoin: v3\n");
    for (translation, version) in [(disputed, None), (edited, Some("v2")), (broken, Some("v2"))] {
        let held = &translation.groups[&key("a")];
        assert_eq!(held.said_version().map(|version| &**version), version);
        let codes: Vec<_> = translation.rules.findings.all().iter().map(|finding| finding.code.as_str()).collect();
        assert!(codes.contains(&"MX0301"), "{codes:?}");
    }
}

#[test]
fn snapshots_alone_are_a_configuration() {
    let mut translator = Translator::open(None).0;
    let only = translator.translate(&inputs(&raw("a", "", [(0, 1)]), Vec::new()), &features(), 0).expect("new");
    assert_eq!(only.rules.findings.all(), []);
    assert_eq!(only.groups.keys().cloned().collect::<Vec<_>>(), [key("a"), open("a")]);
}
