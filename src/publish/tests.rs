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
fn an_endpoint_change_wakes_only_the_groups_that_hold_it() {
    let (mut writer, issued) = (Writer::default(), issued());
    let mut next = translation();
    assert!(writer.write(Some(next.clone()), Arc::clone(&issued)));
    let mut a = writer.groups[&group("ns/a")].subscribe();
    let mut b = writer.groups[&group("ns/b")].subscribe();

    put(&mut next, &["ns/a"], &resource(Kind::Endpoints, "x", b"2"));
    assert!(!writer.write(Some(next.clone()), Arc::clone(&issued)), "the rules are the same");
    assert!(a.has_changed().expect("open") && !b.has_changed().expect("open"));
    assert_eq!(a.borrow_and_update().of(Kind::Endpoints).get("x").expect("held").value(), b"2".as_slice());

    put(&mut next, &["ns/a", "ns/b"], &resource(Kind::Endpoints, "shared", b"2"));
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
    next.groups.remove(&group("ns/a"));
    writer.write(Some(next), issued);
    assert!(a.has_changed().is_err(), "the sender is gone");
}
