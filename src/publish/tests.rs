//! Who is woken by what.

use std::sync::Arc;

use translators::resource::{Kind, Resource};
use translators::xds::Features;

use super::*;
use crate::translate::Translation;

fn resource(kind: Kind, name: &str, content: &[u8]) -> Arc<Resource> {
    Arc::new(Resource::from_bytes(kind, name.into(), content, [].into()))
}

fn group(name: &str) -> GroupKey {
    GroupKey { workload: name.parse().expect("valid"), features: Features::default() }
}

/// Two groups: `a` holds the endpoints `x` and `shared`, `b` holds `y` and `shared`.
fn translation() -> Translation {
    let plan = |names: [&str; 2]| GroupPlan {
        resources: BTreeMap::new(),
        endpoints: names.into_iter().map(Name::from).collect(),
    };
    let rules = RulesPart {
        number: 1,
        mesh: translators::mesh::resolve::resolve(&Default::default()).mesh,
        groups: [(group("ns/a"), plan(["x", "shared"])), (group("ns/b"), plan(["y", "shared"]))].into(),
        findings: Vec::new(),
        objects: Default::default(),
    };
    let endpoints = ["x", "y", "shared"].map(|name| (Name::from(name), resource(Kind::Endpoints, name, b"1")));
    Translation { rules: Arc::new(rules), endpoints: endpoints.into_iter().collect() }
}

fn issued() -> Arc<Issued> {
    Arc::new(Issued { certificates: BTreeMap::new(), trust_bundle: resource(Kind::Secret, "trust-bundle", b"roots") })
}

#[test]
fn an_endpoint_change_wakes_only_the_groups_that_hold_it() {
    let (mut writer, issued) = (Writer::default(), issued());
    let mut next = translation();
    assert!(writer.write(Some(next.clone()), Arc::clone(&issued)));
    let mut a = writer.groups[&group("ns/a")].subscribe();
    let mut b = writer.groups[&group("ns/b")].subscribe();

    next.endpoints.insert("x".into(), resource(Kind::Endpoints, "x", b"2"));
    assert!(!writer.write(Some(next.clone()), Arc::clone(&issued)), "the rules are the same");
    assert!(a.has_changed().expect("open") && !b.has_changed().expect("open"));
    assert_eq!(a.borrow_and_update().of(Kind::Endpoints).get("x").expect("held").value(), b"2".as_slice());

    next.endpoints.insert("shared".into(), resource(Kind::Endpoints, "shared", b"2"));
    writer.write(Some(next.clone()), Arc::clone(&issued));
    assert!(a.has_changed().expect("open") && b.has_changed().expect("open"));
    let (a, b) = (a.borrow_and_update().clone(), b.borrow_and_update().clone());
    let held = |snapshot: &Snapshot| snapshot.of(Kind::Endpoints).get("shared").cloned().expect("held");
    assert!(Arc::ptr_eq(&held(&a), &held(&b)), "one resource for both");
}

#[test]
fn what_says_the_same_wakes_nobody() {
    let (mut writer, issued) = (Writer::default(), issued());
    writer.write(Some(translation()), Arc::clone(&issued));
    let mut a = writer.groups[&group("ns/a")].subscribe();
    for _ in 0..100 {
        // Translated anew: other allocations, the same content.
        writer.write(Some(translation()), super::tests::issued());
    }
    assert!(!a.has_changed().expect("open"));
    assert!(writer.write(Some(translation()), issued), "others may look at the rules again");
    a.mark_unchanged();
}

#[test]
fn the_streams_of_a_group_that_is_gone_are_told() {
    let (mut writer, issued) = (Writer::default(), issued());
    writer.write(Some(translation()), Arc::clone(&issued));
    let a = writer.groups[&group("ns/a")].subscribe();
    let mut next = translation();
    let mut rules = Arc::try_unwrap(next.rules).expect("one owner");
    rules.groups.remove(&group("ns/a"));
    next.rules = Arc::new(rules);
    writer.write(Some(next), issued);
    assert!(a.has_changed().is_err(), "the sender is gone");
}
