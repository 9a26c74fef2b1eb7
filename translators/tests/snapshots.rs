//! EnvoySnapshots: what is read, what is said of mistakes, and what a change costs.

use std::sync::Arc;

use prost::Message as _;
use proto::envoy::config::route::v3 as route_pb;
use translators::mesh::resolve::{Resolution, Resolver, resolve};
use translators::mesh::{EnvoySnapshot, NodeMatch, Precision};
use translators::resource::Kind;
use translators::rules::{self, Objects};

fn objects(text: &str) -> Objects {
    let collected = rules::collect([rules::parse("raw.yaml", text)]);
    assert_eq!(collected.findings, []);
    collected.objects
}

fn snapshot(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: chancery.dev/v1alpha1\nkind: EnvoySnapshot\nmetadata: {{name: {name}, namespace: edge}}\nspec:\n{spec}\n"
    )
}

fn resources(resources: &str) -> String {
    snapshot("raw", &format!("  match: {{nodeId: edge-1}}\n  resources:\n{resources}"))
}

fn only(resolution: &Resolution) -> &Arc<EnvoySnapshot> {
    assert_eq!(resolution.all_findings(), []);
    resolution.mesh.snapshots.values().next().expect("one snapshot")
}

fn said(text: &str) -> Vec<String> {
    resolve(&objects(text)).all_findings().iter().map(ToString::to_string).collect()
}

#[test]
fn a_snapshot_is_read_as_it_is_written() {
    let text = snapshot(
        "raw",
        r#"  match: {nodeId: "edge-*", nodeCluster: edge, metadata: {site: fra}}
  version: "2026-11-21"
  resources:
  - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
    name: app
    connectTimeout: 1s
  - "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
    cluster_name: app
  - "@type": type.googleapis.com/envoy.config.route.v3.VirtualHost
    name: main/shop
    domains: [shop.example, "*.shop.example"]
  - "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
    name: wrapped
    aliases: [other]
    ttl: 2.5s
    resource: {"@type": type.googleapis.com/envoy.service.runtime.v3.Runtime, layer: {a: 1}}
  - "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
    name: xdstp://a/envoy.config.endpoint.v3.LbEndpoint/b/1
    resource: {"@type": type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint, health_status: HEALTHY}
"#,
    );
    let resolution = resolve(&objects(&text));
    let snapshot = only(&resolution);
    let matches = NodeMatch {
        node_id: Some("edge-*".into()),
        node_cluster: Some("edge".into()),
        metadata: [("site".into(), "fra".into())].into(),
    };
    assert_eq!((&snapshot.matches, snapshot.version.as_deref()), (&matches, Some("2026-11-21")));
    assert_eq!(snapshot.matches.precision(), Precision::Pattern(6));
    let shown: Vec<_> = snapshot
        .resources
        .iter()
        .map(|resource| {
            let aliases: Vec<&str> = resource.aliases().iter().map(|alias| &**alias).collect();
            (resource.kind(), &**resource.name(), aliases, resource.ttl().map(|ttl| ttl.as_millis()))
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Kind::Cluster, "app", vec![], None),
            (Kind::Endpoints, "app", vec![], None),
            (Kind::VirtualHost, "main/shop", vec!["main/shop.example", "main/*.shop.example"], None),
            (Kind::Runtime, "wrapped", vec!["other"], Some(2_500)),
            (Kind::LocalityEndpoint, "xdstp://a/envoy.config.endpoint.v3.LbEndpoint/b/1", vec![], None),
        ]
    );
    let host = route_pb::VirtualHost::decode(snapshot.resources[2].value()).expect("a virtual host");
    assert_eq!(host.domains, ["shop.example", "*.shop.example"]);
    let origin = snapshot.resources[3].origins()[0].to_string();
    assert_eq!(origin, "EnvoySnapshot edge/raw /spec/resources/3");
}

#[test]
fn every_mistake_is_said_where_it_stands() {
    let text = resources(
        r#"  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: in
    adress: {}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefx: in
          codec_type: HTTP9
  - "@type": type.googleapis.com/envoy.config.cluster.v3.Clustre
  - "@type": type.googleapis.com/envoy.config.core.v3.Node
  - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
    type: EDS
    cluster_type: {name: x}
    name: 5
  - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  - "@type": type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint
  - name: nothing
  - "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
    version: "5"
    ttl: 0s
    resource: {"@type": type.googleapis.com/envoy.service.runtime.v3.Runtime, name: a, naem: b}
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: twice}
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: twice, connect_timeout: 1s}
"#,
    );
    let resolution = resolve(&objects(&text));
    assert!(resolution.mesh.snapshots.is_empty());
    let said: Vec<String> = resolution
        .all_findings()
        .into_iter()
        .map(|mut finding| {
            finding.choices.clear();
            finding.to_string()
        })
        .collect();
    let expected = [
        "raw.yaml:10:5: MX0201 error EnvoySnapshot edge/raw /spec/resources/0/adress: unknown field \"adress\"; did you mean \"address\"?",
        "raw.yaml:16:11: MX0201 error EnvoySnapshot edge/raw /spec/resources/0/filter_chains/0/filters/0/typed_config/stat_prefx: unknown field \"stat_prefx\"; did you mean \"stat_prefix\"?",
        "raw.yaml:17:23: MX0203 error EnvoySnapshot edge/raw /spec/resources/0/filter_chains/0/filters/0/typed_config/codec_type: \"HTTP9\" is not a choice; did you mean \"HTTP1\"?",
    ];
    for line in expected {
        assert!(said.contains(&line.to_owned()), "{line}\nis not in\n{}", said.join("\n"));
    }
    for (pointer, words) in [
        (
            "/1/@type",
            "\"envoy.config.cluster.v3.Clustre\" is no type of resource that Envoy subscribes to; did you mean \"envoy.config.cluster.v3.Cluster\"?",
        ),
        ("/2/@type", "\"envoy.config.core.v3.Node\" is no type of resource that Envoy subscribes to"),
        (
            "/3/type",
            "\"cluster_type\" is there already, and only one may be the \"cluster_discovery_type\"; remove one of them",
        ),
        ("/3/name", "a number stands where a text belongs; quote it"),
        ("/4", "missing field \"name\""),
        ("/5", "LbEndpoint has no name of its own; wrap it as envoy.service.discovery.v3.Resource, with a name"),
        ("/6", "missing field \"@type\""),
        ("/7/version", "unknown field \"version\""),
        ("/7/ttl", "a resource lives longer than that"),
        ("/7/resource/naem", "unknown field \"naem\"; did you mean \"name\"?"),
        ("/9", "Cluster \"twice\" is already defined at /spec/resources/8; remove one of them"),
    ] {
        let line = format!(" EnvoySnapshot edge/raw /spec/resources{pointer}: {words}");
        assert!(said.iter().any(|said| said.ends_with(&line)), "{line}\nis not in\n{}", said.join("\n"));
    }
    assert_eq!(said.len(), 3 + 11, "{}", said.join("\n"));
}

#[test]
fn a_mistake_shows_no_secret() {
    let text = resources(
        r#"  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: s
    tls_certificate: {private_key: "-----BEGIN PRIVATE KEY-----", password: {inline_string: 12345}}
"#,
    );
    let objects = objects(&text);
    let findings = resolve(&objects).all_findings();
    assert_eq!(findings.len(), 2);
    let spec = format!("{findings:?} {:?}", objects.values().map(|object| &object.spec).collect::<Vec<_>>());
    assert!(!spec.contains("PRIVATE KEY") && !spec.contains("12345"), "{spec}");
}

#[test]
fn one_changed_resource_of_a_thousand_is_read_and_the_others_stay() {
    let text = |of_seven: &str| {
        let one = |n: usize| {
            let timeout = if n == 7 { of_seven } else { "1s" };
            format!(
                "  - {{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: c-{n}, connect_timeout: {timeout}}}\n"
            )
        };
        resources(&(0..1000).map(one).collect::<String>())
    };
    let mut resolver = Resolver::default();
    let first = resolver.update(&objects(&text("1s")));
    assert!(resolver.evaluated() >= 1000);
    let second = resolver.update(&objects(&text("2s")));
    assert_eq!(resolver.evaluated(), 2, "the object, and one resource");
    let (first, second) = (only(&first), only(&second));
    let kept = first.resources.iter().zip(&second.resources).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
    assert_eq!((kept, first.resources.len(), second.resources.len()), (999, 1000, 1000));
    assert_ne!(first.resources[7].version(), second.resources[7].version());
}

#[test]
fn a_resource_that_moves_says_where_it_stands_and_stays_the_same() {
    let cluster =
        |name: &str| format!("  - {{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: {name}}}\n");
    let host = "  - {\"@type\": type.googleapis.com/envoy.config.route.v3.VirtualHost, name: r/h, domains: [a]}\n";
    let mut resolver = Resolver::default();
    let first = resolver.update(&objects(&resources(host)));
    let second = resolver.update(&objects(&resources(&(cluster("new") + host))));
    assert_eq!(resolver.evaluated(), 2, "the object, and the new resource");
    let (before, after) = (&only(&first).resources[0], &only(&second).resources[1]);
    assert_eq!((before.version(), before.aliases()), (after.version(), after.aliases()));
    assert_eq!(after.origins()[0].pointer, "/spec/resources/1");
}

#[test]
fn nodes_that_are_a_workloads_too_are_a_conflict() {
    let workload = |matches: &str| {
        format!(
            "---\napiVersion: chancery.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w, namespace: shop}}\nspec: {{match: {matches}}}\n"
        )
    };
    let raw = |matches: &str| snapshot("raw", &format!("  match: {matches}\n  resources: []"));
    for (of_raw, of_workload, conflict) in [
        ("{nodeId: edge-1}", "{nodeId: \"edge-*\"}", true),
        ("{nodeId: edge-1}", "{nodeId: edge-1}", true),
        ("{nodeId: \"edge-*\"}", "{nodeId: edge-1}", true),
        ("{nodeId: \"edge-*\"}", "{nodeId: \"*-1\"}", false),
        ("{nodeId: edge-1}", "{nodeId: edge-1, nodeCluster: a}", true),
        ("{nodeId: edge-1}", "{nodeCluster: a}", false),
        ("{nodeId: edge-1, nodeCluster: a}", "{nodeCluster: a}", true),
    ] {
        let both = raw(of_raw) + &workload(of_workload);
        let expected = "MX0301 error EnvoySnapshot edge/raw /spec/match: Workload shop/w matches the same nodes";
        assert_eq!(said(&both).iter().any(|said| said.contains(expected)), conflict, "{of_raw} {of_workload}");
        assert_eq!(said(&both).len(), usize::from(conflict));
        let resolution = resolve(&objects(&both));
        let kept = (resolution.mesh.snapshots.len(), resolution.refused.len());
        assert_eq!(kept, (1, 0), "who is connected keeps what it has");

        // The same step by step, both ways.
        let mut resolver = Resolver::default();
        for text in [raw(of_raw), both.clone(), workload(of_workload), both.clone(), raw(of_raw)] {
            let all = objects(&text);
            assert_eq!(resolver.update(&all), resolve(&all), "{text}");
        }
    }
    let twice = raw("{nodeId: edge-1}") + &raw("{nodeId: edge-1}").replace("name: raw", "name: twin");
    let twice = said(&twice);
    assert!(twice.len() == 1 && twice[0].contains("EnvoySnapshot edge/raw at raw.yaml:2 matches the same nodes"));
    assert!(said(&raw("{}"))[0].contains("an empty match would take every node"));
}
