//! The law of a resolver that follows changes: it says what a fresh one says, keeps what stayed the same, and what
//! it does depends on the change.

use std::sync::Arc;

use imbl::OrdMap;
use proptest::prelude::*;
use proptest::sample::select;
use translators::mesh::resolve::{Resolution, Resolver, resolve};
use translators::name::{ObjectKey, ObjectKind};
use translators::rules::{self, Object, Objects};

const NAMESPACES: [&str; 3] = ["a", "b", "mesh-system"];
/// Those who are referred to but hardly ever declared are among them.
const SERVICES: [&str; 5] = ["x", "w", "a/x", "b/w", "nowhere"];

/// What becomes of one object.
#[derive(Debug, Clone)]
enum Edit {
    /// It says this, and stands at this file and line.
    Write(String, &'static str, u32),
    /// It stands elsewhere.
    Move(usize, &'static str, u32),
    /// It goes.
    Remove(usize),
}

fn document(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn join<T: std::fmt::Display>(items: Vec<T>) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn service() -> impl Strategy<Value = String> {
    let ports = select(vec![
        "{name: main, port: 80, protocol: http}",
        "{name: main, port: 80, protocol: http}",
        "{name: main, port: 80, protocol: grpc}",
        "{name: main, port: 25, protocol: tcp}",
        "{name: main, port: 90, protocol: http}, {name: side, port: 80, protocol: tcp}",
        "{name: main, port: 80, protocol: http}, {name: side, port: 90, protocol: http2}",
        "{name: side, port: 80, protocol: http}",
        "",
    ]);
    let endpoints = select(vec![
        "",
        "",
        ", endpoints: {static: [{address: 10.0.0.1, port: 1, labels: {version: v0}}]}",
        ", endpoints: {static: [{address: 10.0.0.2, port: 1, labels: {version: v0}}]}",
        ", endpoints: {static: [{address: 10.0.0.1, port: 1, labels: {version: v1}}]}",
        ", endpoints: {dns: {hostname: one.example}}",
        ", endpoints: {dns: {hostname: two.example}}, external: true",
        ", endpoints: {dns: {hostname: three.example}}, external: true, tls: {}",
    ]);
    (ports, endpoints).prop_map(|(ports, endpoints)| format!("{{ports: [{ports}]{endpoints}}}"))
}

fn workload() -> impl Strategy<Value = String> {
    let matches =
        select(vec!["", "", "match: {nodeId: n-0}, ", "match: {nodeId: n-1}, ", "match: {nodeId: \"n-*\"}, "]);
    let identity = select(vec![
        "",
        "identity: \"spiffe://cluster.local/shared\", ",
        "identity: \"spiffe://cluster.local/shared\", ",
        "identity: \"spiffe://cluster.local/other\", ",
    ]);
    let version = select(vec!["", "labels: {version: v0}, ", "labels: {version: v1}, "]);
    let port = || select(vec!["", "", "", ", port: main", ", port: side"]);
    let serve = (select(vec!["x", "w", "x", "w", "nowhere", "a/x"]), port());
    let serves = proptest::collection::vec(serve, 0..3);
    let calls = proptest::collection::vec((select(SERVICES.to_vec()), port()), 0..2);
    (matches, identity, version, serves, calls).prop_map(|(matches, identity, version, serves, calls)| {
        let serve = |(n, (service, port)): (usize, (&str, &str))| {
            format!("{{service: {service}{port}, listen: \"127.0.0.1:1{n}\", app: \"127.0.0.1:2{n}\"}}")
        };
        let call = |(n, (service, port)): (usize, (&str, &str))| {
            format!("{{service: {service}{port}, listen: \"127.0.0.1:3{n}\"}}")
        };
        let serves = join(serves.into_iter().enumerate().map(serve).collect());
        let calls = join(calls.into_iter().enumerate().map(call).collect());
        format!("{{{matches}{identity}{version}serves: [{serves}], calls: [{calls}]}}")
    })
}

fn route() -> impl Strategy<Value = String> {
    let selection = || select(vec!["", "", ", version: v0", ", version: v1", ", port: main", ", port: side"]);
    let to = proptest::collection::vec((select(SERVICES.to_vec()), selection()), 1..3);
    let settings = select(vec!["", "", ", timeout: 2s", ", timeout: 3s", ", retry: {attempts: 2, when: [reset]}"]);
    (select(SERVICES.to_vec()), to, settings).prop_map(|(subject, to, settings)| {
        let to =
            join(to.into_iter().map(|(service, selection)| format!("{{service: {service}{selection}}}")).collect());
        format!("{{for: {{service: {subject}}}, http: [{{to: [{to}]{settings}}}]}}")
    })
}

fn gateway() -> impl Strategy<Value = String> {
    let workload =
        select(vec!["{name: x}", "{name: w}", "{name: nowhere}", "{labels: {version: v0}}", "{labels: {version: v1}}"]);
    let tls = select(vec![
        "",
        "",
        ", tls: {certificate: x}",
        ", tls: {certificate: w, clientAuth: {mode: require, ca: system}}",
    ]);
    let port = select(vec!["80", "80", "81", "10", "30"]);
    let listener = (port, select(vec!["", "", "a.b", "\"*.b\"", "c"]), any::<bool>(), tls);
    let listeners = proptest::collection::vec(listener, 0..3);
    (workload, listeners).prop_map(|(workload, listeners)| {
        let listener = |(n, (port, host, redirects, tls)): (usize, (&str, &str, bool, &str))| {
            let redirect = if redirects { ", redirectTo: l0" } else { "" };
            let protocol = if tls.is_empty() { "http" } else { "https" };
            format!(
                "{{name: l{n}, address: 127.0.0.1, port: {port}, protocol: {protocol}, hostnames: [{host}]{redirect}{tls}}}"
            )
        };
        let listeners = join(listeners.into_iter().enumerate().map(listener).collect());
        format!("{{workload: {workload}, listeners: [{listeners}]}}")
    })
}

fn certificate() -> impl Strategy<Value = String> {
    let source = select(vec!["issued: {dnsNames: [a.b]}", "issued: {dnsNames: []}", "file: {cert: /c, key: /k}"]);
    source.prop_map(|source| format!("{{source: {{{source}}}}}"))
}

/// Of requests to a gateway.
fn edge_route() -> impl Strategy<Value = String> {
    let gateway = select(vec!["x", "x", "w", "a/x", "nowhere"]);
    let hosts = select(vec!["", "", ", hostnames: [a.b]", ", hostnames: [\"*.b\", c]", ", hostnames: [\"*\"]"]);
    let prefix = select(vec!["", "", ", prefix: /p"]);
    let rule = select(vec![
        "http: [{to: [{service: x}]}]",
        "http: [{match: [{path: {prefix: /p/q}}], to: [{service: a/x, version: v0}, {service: w}], timeout: 2s}]",
        "http: [{respond: {status: 200}}]",
        "grpc: [{match: [{headers: {x-a: b}}], to: [{service: x, port: main}]}]",
        "tcp: [{to: [{service: x}]}]",
    ]);
    (gateway, hosts, prefix, rule)
        .prop_map(|(gateway, hosts, prefix, rule)| format!("{{for: {{gateway: {gateway}{hosts}{prefix}}}, {rule}}}"))
}

/// Of the calls to services.
fn traffic() -> impl Strategy<Value = String> {
    let outbound = select(vec![
        "{timeouts: {request: 3s, idle: 9s}}",
        "{retry: {attempts: 2}}",
        "{timeouts: null}",
        "{healthCheck: {http: {path: /health}}}",
        "{healthCheck: {http: {path: /health}}}",
    ]);
    (target(), outbound).prop_map(|(target, outbound)| format!("{{target: {target}, outbound: {outbound}}}"))
}

fn target() -> impl Strategy<Value = &'static str> {
    select(vec![
        "{scope: mesh}",
        "{scope: mesh}",
        "{scope: namespace}",
        "{service: x}",
        "{service: x}",
        "{service: w}",
        "{service: x, port: main}",
        "{service: x, port: side}",
        "{service: a/x}",
        "{service: nowhere}",
    ])
}

fn mtls() -> impl Strategy<Value = String> {
    let mode = select(vec!["strict", "permissive", "disabled"]);
    (target(), mode).prop_map(|(target, mode)| format!("{{target: {target}, mode: {mode}}}"))
}

fn access() -> impl Strategy<Value = String> {
    let default = select(vec!["", ", default: allow", ", default: deny"]);
    let entry = select(vec![
        "{from: [{service: x}]}",
        "{from: [{service: a/x}]}",
        "{from: [{service: nowhere}]}",
        "{from: [{namespace: a}]}",
        "{from: [any]}",
        "{to: [{methods: [GET]}]}",
        "{to: [{ports: [80]}]}",
        "{from: [{ip: 10.0.0.0/8}, {ip: fd00::1}]}",
        "{jwt: {provider: login}}",
        "{from: [{service: x}], jwt: {provider: login, claims: {role: [a, b]}}}",
        "{to: [{ports: [90], hosts: [a.b], headers: {x-a: {present: true}}, grpcMethods: [a.B/*]}]}",
        "{from: [{service: w}], to: [{paths: [/p]}]}",
        "{from: [{serviceAccount: z}]}",
    ]);
    let entries = || proptest::collection::vec(entry.clone(), 0..2);
    let mode = select(vec!["", "", ", mode: enforce", ", mode: audit"]);
    (target(), default, mode, entries(), entries()).prop_map(|(target, default, mode, allow, deny)| {
        format!("{{target: {target}{default}{mode}, allow: [{}], deny: [{}]}}", join(allow), join(deny))
    })
}

fn telemetry() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        3 => target(),
        2 => select(vec!["{labels: {version: v0}}", "{labels: {version: v1}}", "{labels: {version: v0, a: b}}", "{labels: {}}"]),
    ];
    let rest = select(vec![
        "accessLogs: [{to: stdout}]",
        "accessLogs: [{to: otlp}]",
        "accessLogs: [{to: otlp, provider: one}], tracing: {percent: 1}",
        "accessLogs: null, metrics: null",
        "tracing: {provider: one, tags: {a: b}}",
        "tracing: {provider: two, tags: {a: null}}",
        "metrics: {drop: [caller], labels: {c: d}}",
    ]);
    (target, rest).prop_map(|(target, rest)| format!("{{target: {target}, {rest}}}"))
}

fn settings() -> impl Strategy<Value = String> {
    let written = select(vec![
        "{}",
        "{trustDomain: elsewhere}",
        "{defaults: {mtls: strict}}",
        "{defaults: {access: deny}}",
        "{defaults: {timeout: 4s, connectTimeout: 3s}}",
        "{ca: {leafTTL: 1s}}",
        "{telemetryProviders: [{name: one, otlp: {address: \"a:1\"}}]}",
        "{telemetryProviders: [{name: one, otlp: {service: a/x}}, {name: two, zipkin: {service: b/w, port: main}}]}",
        "{jwtProviders: [{name: login, issuer: i, jwks: {url: \"https://keys.example/k\"}}]}",
        "{jwtProviders: [{name: login, issuer: j, jwks: {url: \"https://keys.example/k\"}}, {name: p, issuer: i, jwks: {inline: x}}]}",
    ]);
    written.prop_map(str::to_owned)
}

fn place() -> impl Strategy<Value = (&'static str, u32)> {
    (select(vec!["1.yaml", "2.yaml", "3.yaml"]), select(vec![1, 2, 20, 40]))
}

fn edit() -> impl Strategy<Value = Edit> {
    let namespace = || select(vec!["a", "a", "b", "mesh-system"]);
    let name = || select(vec!["x", "w", "z"]);
    let policy = || select(NAMESPACES.to_vec());
    let written = prop_oneof![
        1 => settings().prop_map(|spec| document("Mesh", "mesh-system", "default", &spec)),
        10 => (namespace(), name(), service()).prop_map(|(ns, name, spec)| document("MeshService", ns, name, &spec)),
        10 => (namespace(), name(), workload()).prop_map(|(ns, name, spec)| document("Workload", ns, name, &spec)),
        8 => (namespace(), name(), route()).prop_map(|(ns, name, spec)| document("TrafficRoute", ns, name, &spec)),
        6 => (namespace(), name(), gateway()).prop_map(|(ns, name, spec)| document("EdgeGateway", ns, name, &spec)),
        4 => (namespace(), name(), certificate()).prop_map(|(ns, name, spec)| document("TLSCertificate", ns, name, &spec)),
        6 => (namespace(), name(), edge_route()).prop_map(|(ns, name, spec)| document("TrafficRoute", ns, name, &spec)),
        4 => (policy(), name(), traffic()).prop_map(|(ns, name, spec)| document("TrafficPolicy", ns, name, &spec)),
        6 => (policy(), name(), mtls()).prop_map(|(ns, name, spec)| document("MTLSPolicy", ns, name, &spec)),
        8 => (policy(), name(), access()).prop_map(|(ns, name, spec)| document("AccessPolicy", ns, name, &spec)),
        8 => (policy(), name(), telemetry()).prop_map(|(ns, name, spec)| document("TelemetryPolicy", ns, name, &spec)),
    ];
    prop_oneof![
        6 => (written, place()).prop_map(|(text, (file, line))| Edit::Write(text, file, line)),
        3 => (any::<usize>(), place()).prop_map(|(which, (file, line))| Edit::Move(which, file, line)),
        2 => any::<usize>().prop_map(Edit::Remove),
    ]
}

fn read(text: &str, file: &str, line: u32) -> Arc<Object> {
    let parsed = rules::parse_from(file, text, line);
    assert_eq!(parsed.findings, [], "{text}");
    Arc::clone(parsed.objects.first().expect("one document"))
}

fn apply(edit: &Edit, objects: &mut Objects) {
    let nth = |which: usize| objects.keys().nth(which % objects.len().max(1)).cloned();
    match edit {
        Edit::Write(text, file, line) => {
            let object = read(text, file, *line);
            objects.insert(object.key.clone(), object);
        }
        Edit::Move(which, file, line) => {
            let Some(object) = nth(*which).and_then(|key| objects.get(&key).cloned()) else { return };
            objects.insert(object.key.clone(), read(&object.text, file, *line));
        }
        Edit::Remove(which) => {
            if let Some(key) = nth(*which) {
                objects.remove(&key);
            }
        }
    }
}

/// Whether everything that is equal in both is the same allocation.
fn assert_shared<K: Ord + Clone + std::fmt::Debug, V: PartialEq + ?Sized>(
    before: &OrdMap<K, Arc<V>>,
    after: &OrdMap<K, Arc<V>>,
) {
    for (key, after) in after {
        let before = before.get(key).filter(|before| *before == after);
        assert!(before.is_none_or(|before| Arc::ptr_eq(before, after)), "{key:?} was allocated again");
    }
}

fn assert_follows(before: &Resolution, after: &Resolution, objects: &Objects) {
    let fresh = resolve(objects);
    assert_eq!(after.mesh, fresh.mesh);
    assert_eq!(after.findings, fresh.findings);
    assert_eq!(after.refused, fresh.refused);
    assert_shared(&before.mesh.services, &after.mesh.services);
    assert_shared(&before.mesh.workloads, &after.mesh.workloads);
    assert_shared(&before.mesh.observed, &after.mesh.observed);
    assert_shared(&before.findings, &after.findings);
    for (name, service) in &after.mesh.services {
        for port in &service.ports {
            let former = before.mesh.services.get(name).and_then(|former| former.port(&port.name));
            for (consumer, route) in &port.routes {
                let former = former.and_then(|former| former.routes.get(consumer)).filter(|former| *former == route);
                assert!(
                    former.is_none_or(|former| Arc::ptr_eq(former, route)),
                    "{name} {consumer} was allocated again"
                );
            }
        }
    }
}

fn assert_follows_all(batches: &[Vec<Edit>]) {
    let mut objects = Objects::new();
    let mut resolver = Resolver::default();
    let mut before = resolver.update(&objects);
    for batch in batches {
        batch.iter().for_each(|edit| apply(edit, &mut objects));
        let after = resolver.update(&objects);
        assert_follows(&before, &after, &objects);
        before = after;
    }
}

/// What is written of one service and those who refer to it.
fn edit_of_one() -> impl Strategy<Value = Edit> {
    let written = prop_oneof![
        3 => service().prop_map(|spec| document("MeshService", "a", "x", &spec)),
        1 => workload().prop_map(|spec| document("Workload", "a", "x", &spec)),
        1 => route().prop_map(|spec| document("TrafficRoute", "a", "x", &spec)),
        1 => gateway().prop_map(|spec| document("EdgeGateway", "a", "x", &spec)),
        1 => edge_route().prop_map(|spec| document("TrafficRoute", "a", "z", &spec)),
        1 => certificate().prop_map(|spec| document("TLSCertificate", "a", "x", &spec)),
        1 => traffic().prop_map(|spec| document("TrafficPolicy", "a", "x", &spec)),
        1 => access().prop_map(|spec| document("AccessPolicy", "a", "x", &spec)),
        1 => mtls().prop_map(|spec| document("MTLSPolicy", "a", "x", &spec)),
    ];
    written.prop_map(|text| Edit::Write(text, "1.yaml", 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever changes, together or one after the other: the outcome is that of a fresh resolver.
    #[test]
    fn it_says_what_a_fresh_one_says(
        first in proptest::collection::vec(edit(), 0..30),
        batches in proptest::collection::vec(proptest::collection::vec(edit(), 1..3), 1..12),
    ) {
        assert_follows_all(&[vec![first], batches].concat());
    }

    /// The same where nearly every change concerns the others.
    #[test]
    fn it_says_so_of_a_service_that_all_refer_to(
        batches in proptest::collection::vec(proptest::collection::vec(edit_of_one(), 1..2), 1..40),
    ) {
        assert_follows_all(&batches);
    }
}

/// `size` services with a route, policies, a workload that serves each and one that calls all; with policies of the
/// namespace and of the mesh above them.
fn configuration(size: usize) -> Objects {
    let mut texts = vec![
        document("AccessPolicy", "mesh-system", "all", "{target: {scope: mesh}, deny: [{from: [{namespace: bad}]}]}"),
        document("AccessPolicy", "shop", "all", "{target: {scope: namespace}, allow: [{from: [{namespace: shop}]}]}"),
        document("MTLSPolicy", "shop", "all", "{target: {scope: namespace}, mode: strict}"),
    ];
    for n in 0..size {
        texts.push(service_document(n, 1, 80));
        texts.push(route_document(n, 1));
        texts.push(policy_document(n, "deny"));
        let spec = format!(
            "{{serves: [{{service: s-{n}, listen: \"127.0.0.1:1\", app: \"127.0.0.1:2\"}}], \
             calls: [{{service: s-{}, listen: \"127.0.0.1:3\"}}]}}",
            (n + 1) % size
        );
        texts.push(document("Workload", "shop", &format!("s-{n}"), &spec));
    }
    let calls = (0..size).map(|n| format!("{{service: s-{n}, listen: \"127.1.{}.{}:1\"}}", n / 250, n % 250)).collect();
    texts.push(document("Workload", "shop", "all", &format!("{{calls: [{}]}}", join(calls))));
    let objects = texts.iter().enumerate().map(|(n, text)| read(text, "f.yaml", 10 * n as u32 + 1));
    objects.map(|object| (object.key.clone(), object)).collect()
}

fn service_document(n: usize, endpoint: u8, number: u16) -> String {
    let endpoints = if n.is_multiple_of(2) {
        format!(", endpoints: {{static: [{{address: 10.0.0.{endpoint}, port: 1}}]}}")
    } else {
        String::new()
    };
    let spec = format!("{{ports: [{{name: main, port: {number}, protocol: http}}]{endpoints}}}");
    document("MeshService", "shop", &format!("s-{n}"), &spec)
}

fn route_document(n: usize, seconds: u8) -> String {
    let spec = format!("{{for: {{service: s-{n}}}, http: [{{to: [{{service: s-{n}}}], timeout: {seconds}s}}]}}");
    document("TrafficRoute", "shop", &format!("s-{n}"), &spec)
}

fn policy_document(n: usize, default: &str) -> String {
    let spec = format!("{{target: {{service: s-{n}}}, default: {default}, allow: [{{from: [{{namespace: shop}}]}}]}}");
    document("AccessPolicy", "shop", &format!("s-{n}"), &spec)
}

/// What one edit each of several kinds makes the resolver look at.
fn work(size: usize) -> Vec<(&'static str, usize)> {
    let mut objects = configuration(size);
    let mut resolver = Resolver::default();
    let whole = resolver.update(&objects);
    assert_eq!((whole.mesh.services.len(), whole.refused.len()), (size, 0));
    assert!(resolver.evaluated() >= objects.len() + size);
    let middle = size / 2 / 2 * 2;
    let mut work = Vec::new();
    let mut edit = |what: &'static str, objects: &Objects| {
        let changed = resolver.update(objects);
        assert_ne!(changed.mesh.services, whole.mesh.services, "{what}");
        work.push((what, resolver.evaluated()));
    };
    let write = |objects: &mut Objects, text: &str| {
        let key = read(text, "f.yaml", 1).key.clone();
        let line = objects.get(&key).map_or(1, |object| object.line);
        objects.insert(key, read(text, "f.yaml", line));
    };
    write(&mut objects, &service_document(middle, 2, 80));
    edit("the endpoints of a service", &objects);
    write(&mut objects, &service_document(middle, 2, 81));
    edit("the ports of a service", &objects);
    write(&mut objects, &route_document(middle, 2));
    edit("a route", &objects);
    write(&mut objects, &policy_document(middle, "allow"));
    edit("an access policy of a service", &objects);
    write(
        &mut objects,
        &document("MTLSPolicy", "shop", "one", &format!("{{target: {{service: s-{middle}}}, mode: disabled}}")),
    );
    edit("a mode for a service", &objects);
    let workload = document(
        "Workload",
        "shop",
        "s-1",
        "{labels: {version: v2}, serves: [{service: s-1, listen: \"127.0.0.1:1\", app: \"127.0.0.1:2\"}]}",
    );
    write(&mut objects, &workload);
    edit("a workload", &objects);
    objects.remove(&ObjectKey::new(ObjectKind::TrafficRoute, format!("shop/s-{middle}").parse().expect("a name")));
    edit("a route that goes", &objects);
    resolver.update(&objects);
    work.push(("nothing", resolver.evaluated()));
    work
}

#[test]
fn what_it_does_depends_on_the_change_alone() {
    let small = work(100);
    assert_eq!(small, work(1_000));
    for (what, evaluated) in small {
        assert!(evaluated <= 12, "{what}: {evaluated}");
    }
}

#[test]
fn a_policy_of_many_services_says_where_it_has_no_effect() {
    let mut objects = configuration(5);
    objects.remove(&ObjectKey::new(ObjectKind::MTLSPolicy, "shop/all".parse().expect("a name")));
    let mut resolver = Resolver::default();
    let policy = ObjectKey::new(ObjectKind::AccessPolicy, "mesh-system/all".parse().expect("a name"));
    let messages = |resolution: &Resolution| {
        let findings = resolution.findings.get(&policy).into_iter().flat_map(|findings| findings.iter());
        findings.map(|finding| finding.message.clone()).collect::<Vec<_>>()
    };
    let permissive = |names: &str| format!("plaintext callers have no identity on {names}, where mTLS is permissive");
    let first = messages(&resolver.update(&objects));
    assert_eq!(first, [permissive("shop/s-0 main, shop/s-1 main, shop/s-2 main and 2 more")]);
    let strict = read(&document("MTLSPolicy", "shop", "one", "{target: {service: s-1}, mode: strict}"), "g.yaml", 1);
    objects.insert(strict.key.clone(), strict);
    let second = messages(&resolver.update(&objects));
    assert_eq!(second, [permissive("shop/s-0 main, shop/s-2 main, shop/s-3 main and 1 more")]);
}
