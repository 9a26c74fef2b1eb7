//! Who is woken by what.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use translators::resource::{Kind, Resource};
use translators::xds::Features;

use super::*;
use crate::ca::Issuance;
use crate::translate::Translation;

fn resource(kind: Kind, name: &str, content: &[u8]) -> Arc<Resource> {
    Arc::new(Resource::from_bytes(kind, name.into(), content, [].into()))
}

fn group(name: &str) -> GroupKey {
    GroupKey::Workload { name: name.parse().expect("valid"), features: Features::default() }
}

/// Two groups: `a` holds the endpoints `x` and `shared`, `b` holds `y` and `shared`.
fn translation() -> Translation {
    let rules = RulesPart {
        number: 1,
        climbing: false,
        mesh: translators::mesh::resolve::resolve(&Default::default()).mesh,
        findings: Default::default(),
        objects: Default::default(),
    };
    let mut translation = Translation { rules: Arc::new(rules), groups: OrdMap::new() };
    for name in ["x", "y", "shared"] {
        let groups: &[&str] = match name {
            "x" => &["ns/a"],
            "y" => &["ns/b"],
            _ => &["ns/a", "ns/b"],
        };
        put(&mut translation, groups, &resource(Kind::Endpoints, name, b"1"));
    }
    translation
}

fn put(translation: &mut Translation, groups: &[&str], resource: &Arc<Resource>) {
    for name in groups {
        let snapshot = translation.groups.entry(group(name)).or_default();
        Arc::make_mut(snapshot).of_mut(resource.kind()).put(Arc::clone(resource));
    }
}

fn issued() -> Arc<Issued> {
    Arc::new(Issued { certificates: OrdMap::new(), trust_bundle: resource(Kind::Secret, "trust-bundle", b"roots") })
}

#[test]
fn only_what_matches_nodes_otherwise_wakes_those_who_are_matched() {
    let mesh = |specs: &[(&str, &str)]| {
        let document = |(n, (kind, spec)): (usize, &(&str, &str))| {
            format!(
                "---\napiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: o{n}, namespace: a}}\nspec: {spec}\n"
            )
        };
        let text: String = specs.iter().enumerate().map(document).collect();
        let objects = translators::rules::collect([translators::rules::parse("f", &text)]).objects;
        translators::mesh::resolve::resolve(&objects).mesh
    };
    let workload = ("Workload", "{match: {nodeId: w}}");
    let snapshot = ("EnvoySnapshot", "{match: {nodeId: s}, resources: []}");
    let both = mesh(&[workload, snapshot]);
    for (next, otherwise) in [
        (mesh(&[workload, snapshot]), false),
        (mesh(&[("Workload", "{match: {nodeId: w}, labels: {a: b}}"), snapshot]), false),
        (mesh(&[workload, ("EnvoySnapshot", "{match: {nodeId: s}, version: v, resources: []}")]), false),
        (mesh(&[workload, snapshot, ("Workload", "{}")]), false),
        (mesh(&[workload, snapshot, ("Workload", "{match: {nodeId: x}}")]), true),
        (mesh(&[("Workload", "{match: {nodeId: x}}"), snapshot]), true),
        (mesh(&[workload, ("EnvoySnapshot", "{match: {nodeId: x}, resources: []}")]), true),
        (mesh(&[workload]), true),
    ] {
        assert_eq!(match_otherwise(Some(&both), Some(&next)), otherwise, "{next:?}");
    }
}

#[test]
fn an_envoy_snapshot_is_served_with_its_own_secrets_and_no_others() {
    let raw = GroupKey::Snapshot("edge/raw".parse().expect("valid"));
    let mut snapshot = Snapshot::default();
    snapshot.of_mut(Kind::Secret).put(resource(Kind::Secret, "own", b"1"));
    let mut next = translation();
    next.groups.insert(raw.clone(), Arc::new(snapshot.clone()));
    let mut writer = Writer::default();
    writer.write(Some(next.clone()), issued(), Arc::default());
    let feed = Arc::clone(&writer.groups[&raw]);
    let (held, seen) = (feed.current(), feed.subscribe());
    assert!(held.says_the_same(&snapshot));
    writer.write(
        Some(next.clone()),
        Arc::new(Issued { trust_bundle: resource(Kind::Secret, "roots", b"2"), ..Issued::clone(&issued()) }),
        Arc::default(),
    );
    assert!(!seen.is_behind() && feed.current().says_the_same(&snapshot));

    snapshot.of_mut(Kind::Secret).remove("own");
    snapshot.say_version(Some("2".into()));
    next.groups.insert(raw, Arc::new(snapshot.clone()));
    writer.write(Some(next), issued(), Arc::default());
    assert!(seen.is_behind() && feed.current().says_the_same(&snapshot));
}

#[test]
fn an_endpoint_change_wakes_only_the_groups_that_hold_it() {
    let (mut writer, issued) = (Writer::default(), issued());
    let mut next = translation();
    assert!(writer.write(Some(next.clone()), Arc::clone(&issued), Arc::default()));
    let own = writer.groups[&group("ns/a")].subscribe().current();
    assert!(own.of(Kind::Secret).is_coming("identity"), "its certificate is on its way");
    let mut a = writer.groups[&group("ns/a")].subscribe();
    let mut b = writer.groups[&group("ns/b")].subscribe();

    put(&mut next, &["ns/a"], &resource(Kind::Endpoints, "x", b"2"));
    assert!(!writer.write(Some(next.clone()), Arc::clone(&issued), Arc::default()), "the rules are the same");
    assert!(a.is_behind() && !b.is_behind());
    assert_eq!(a.current().of(Kind::Endpoints).get("x").expect("held").value(), b"2".as_slice());

    put(&mut next, &["ns/a", "ns/b"], &resource(Kind::Endpoints, "shared", b"2"));
    writer.write(Some(next.clone()), Arc::clone(&issued), Arc::default());
    assert!(a.is_behind() && b.is_behind());
    let (a, b) = (a.current(), b.current());
    let held = |snapshot: &Snapshot| snapshot.of(Kind::Endpoints).get("shared").cloned().expect("held");
    assert!(Arc::ptr_eq(&held(&a), &held(&b)), "one resource for both");
}

#[test]
fn what_says_the_same_wakes_nobody() {
    let (mut writer, issued) = (Writer::default(), issued());
    writer.write(Some(translation()), Arc::clone(&issued), Arc::default());
    let a = writer.groups[&group("ns/a")].subscribe();
    for _ in 0..100 {
        // Translated anew: other allocations, the same content.
        writer.write(Some(translation()), super::tests::issued(), Arc::default());
    }
    assert!(writer.write(Some(translation()), issued, Arc::default()), "others may look at the rules again");
    assert!(!a.is_behind());
}

#[test]
fn the_streams_of_a_group_that_is_gone_are_told() {
    let (mut writer, issued) = (Writer::default(), issued());
    writer.write(Some(translation()), Arc::clone(&issued), Arc::default());
    let mut a = writer.groups[&group("ns/a")].subscribe();
    let mut next = translation();
    next.groups.remove(&group("ns/a"));
    writer.write(Some(next), issued, Arc::default());
    let gone = a.poll_next(&Context::from_waker(Waker::noop()));
    assert!(matches!(gone, Poll::Ready(None)), "the feed is gone");
}

/// One step of a history: what it puts into or takes out of the groups, and what it certifies.
#[derive(Debug, Clone)]
enum Step {
    Put(&'static str, Kind, &'static str, u8),
    Remove(&'static str, Kind, &'static str),
    Gone(&'static str),
    Certify(&'static str, u8),
    Roots(u8),
    /// What was put so far is published.
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    let of = || prop::sample::select(["ns/a", "ns/b", "ns/c"].as_slice());
    let kind = || prop::sample::select([Kind::Cluster, Kind::Endpoints, Kind::Route].as_slice());
    let name = || prop::sample::select(["x", "y"].as_slice());
    prop_oneof![
        4 => (of(), kind(), name(), 0..3u8).prop_map(|(group, kind, name, says)| Step::Put(group, kind, name, says)),
        1 => (of(), kind(), name()).prop_map(|(group, kind, name)| Step::Remove(group, kind, name)),
        1 => of().prop_map(Step::Gone),
        2 => (of(), 0..3u8).prop_map(|(group, says)| Step::Certify(group, says)),
        1 => (0..3u8).prop_map(Step::Roots),
        3 => Just(Step::Publish),
    ]
}

fn issuance(says: u8) -> Issuance {
    Issuance {
        secret: resource(Kind::Secret, "identity", &[says]),
        identity: "spiffe://cluster.local/ns/ns/sa/x".parse().expect("valid"),
        serial: String::new(),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        renew_at: SystemTime::UNIX_EPOCH,
        ttl: Duration::ZERO,
    }
}

proptest! {
    #[test]
    fn every_group_holds_its_translation_and_its_own_secrets(steps in prop::collection::vec(step(), 1..40)) {
        let mut writer = Writer::default();
        let (mut next, mut issued) = (translation(), Issued::clone(&issued()));
        for step in steps {
            match step {
                Step::Put(name, kind, of, says) => put(&mut next, &[name], &resource(kind, of, &[says])),
                Step::Remove(name, kind, of) => {
                    if let Some(snapshot) = next.groups.get_mut(&group(name)) {
                        Arc::make_mut(snapshot).of_mut(kind).remove(of);
                    }
                }
                Step::Gone(name) => drop(next.groups.remove(&group(name))),
                Step::Certify(name, says) => {
                    issued.certificates.insert(name.parse().expect("valid"), Arc::new(issuance(says)));
                }
                Step::Roots(says) => issued.trust_bundle = resource(Kind::Secret, "trust-bundle", &[says]),
                Step::Publish => {
                    let watch = |(group, feed): (&GroupKey, &Arc<Feed<Snapshot>>)| {
                        (group.clone(), feed.current(), feed.subscribe())
                    };
                    let before: Vec<_> = writer.groups.iter().map(watch).collect();
                    writer.write(Some(next.clone()), Arc::new(issued.clone()), Arc::default());
                    prop_assert!(writer.groups.keys().eq(next.groups.keys()));
                    for (group, feed) in &writer.groups {
                        let held = feed.current();
                        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Secret) {
                            prop_assert_eq!(held.of(kind).version(), next.groups[group].of(kind).version());
                        }
                        let own = group.workload().and_then(|workload| issued.certificates.get(workload)).map(|issuance| &issuance.secret);
                        let secrets: Vec<_> = own.into_iter().chain([&issued.trust_bundle]).collect();
                        prop_assert_eq!(held.of(Kind::Secret).iter().collect::<Vec<_>>(), secrets);
                    }
                    for (group, held, seen) in before {
                        let now = writer.groups.get(&group).map(|feed| feed.current());
                        let other = now.is_none_or(|now| !now.says_the_same(&held));
                        prop_assert_eq!(seen.is_behind(), other, "who is woken has something new");
                    }
                }
            }
        }
    }
}
