//! Whose configuration a node receives.

use super::*;

/// Workloads and EnvoySnapshots with these matches, each called after its place.
fn mesh(workloads: &[&str], snapshots: &[&str]) -> Mesh {
    let document = |kind: &str, name: String, spec: String| {
        format!(
            "---\napiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: a}}\nspec: {spec}\n"
        )
    };
    let workloads = workloads.iter().enumerate();
    let workloads = workloads.map(|(n, of)| document("Workload", format!("w{n}"), format!("{{match: {of}}}")));
    let snapshots = snapshots.iter().enumerate();
    let snapshots =
        snapshots.map(|(n, of)| document("EnvoySnapshot", format!("s{n}"), format!("{{match: {of}, resources: []}}")));
    let text: String = workloads.chain(snapshots).collect();
    let objects = translators::rules::collect([translators::rules::parse("f", &text)]).objects;
    translators::mesh::resolve::resolve(&objects).mesh
}

fn node(id: &str) -> Matched {
    Matched { id: id.to_owned(), cluster: "edge".to_owned(), ..Matched::default() }
}

fn owner(mesh: &Mesh, id: &str) -> Result<String, Refusal> {
    owner_of(mesh, &node(id)).map(|owner| owner.to_string())
}

#[test]
fn the_snapshot_that_says_most_of_the_node_id_serves_it() {
    let mesh = mesh(
        &["{nodeId: \"cart-*\"}"],
        &[
            "{nodeCluster: edge}",
            "{nodeId: \"edge-*\"}",
            "{nodeId: \"edge-eu-*\"}",
            "{nodeId: edge-eu-1}",
            "{nodeId: \"*-eu-9\"}",
        ],
    );
    for (id, expected) in [
        ("edge-eu-1", "EnvoySnapshot a/s3"),
        ("edge-eu-2", "EnvoySnapshot a/s2"),
        ("edge-us-1", "EnvoySnapshot a/s1"),
        ("other", "EnvoySnapshot a/s0"),
        // A longer pattern, wherever its star is.
        ("edge-eu-9", "EnvoySnapshot a/s2"),
        ("x-eu-9", "EnvoySnapshot a/s4"),
    ] {
        assert_eq!(owner(&mesh, id), Ok(expected.to_owned()), "{id}");
    }
    let elsewhere = Matched { cluster: "other".to_owned(), ..node("other") };
    assert!(matches!(owner_of(&mesh, &elsewhere), Err(Refusal::NotReady(_))));
}

#[test]
fn a_node_that_is_matched_twice_is_served_by_neither() {
    let mesh = mesh(&["{nodeId: \"cart-*\"}"], &["{nodeCluster: edge}", "{nodeId: \"a-*\"}", "{nodeId: \"*-a\"}"]);
    for (id, one, other) in
        [("cart-1", "Workload a/w0", "EnvoySnapshot a/s0"), ("a-a", "EnvoySnapshot a/s1", "EnvoySnapshot a/s2")]
    {
        let text = format!("the node {id:?} is matched twice, by {one} and by {other}: neither serves it");
        assert_eq!(owner(&mesh, id), Err(Refusal::Denied(text)));
    }
    // A credential that names a workload has said enough.
    let named = "a/w0".parse().expect("a name");
    assert_eq!(workload_of(&mesh, &named), Ok(Owner::Workload(named)));
}
