//! A closed port is a mistake as soon as somebody calls it, and none any more when nobody does.

use translators::mesh::resolve::{Resolver, resolve};
use translators::name::{ObjectKey, ObjectKind};
use translators::rules;

#[test]
fn a_call_that_comes_or_goes_is_held_against_the_door() {
    let case = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/cases/doors/1-rules.yaml");
    let text = std::fs::read_to_string(case).expect("the case");
    let called = rules::collect([rules::parse("rules.yaml", &text)]).objects;
    let web = ObjectKey::new(ObjectKind::Workload, "front/web".parse().expect("a name"));
    let alone = called.without(&web);
    assert_ne!(resolve(&called).all_findings(), resolve(&alone).all_findings());
    let mut resolver = Resolver::default();
    for objects in [&alone, &called, &alone] {
        assert_eq!(resolver.update(objects).all_findings(), resolve(objects).all_findings());
    }
}
