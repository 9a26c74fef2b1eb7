//! The laws of reading and resolving rules: total, deterministic, local.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use imbl::OrdSet;
use proptest::prelude::*;
use translators::mesh::Mesh;
use translators::mesh::resolve::{Resolution, resolve};
use translators::name::ObjectKey;
use translators::rules::{self, Objects};

const PROTOCOLS: [&str; 4] = ["http", "http2", "grpc", "tcp"];
const MODES: [&str; 3] = ["strict", "permissive", "disabled"];

fn document(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// A service of a generated configuration, and what concerns it.
#[derive(Debug, Clone)]
struct Part {
    protocol: usize,
    versions: u8,
    mode: Option<usize>,
    route: bool,
    consumer: bool,
    closed: bool,
    caller: usize,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = (0..4usize, 0..3u8, proptest::option::of(0..3usize), any::<[bool; 3]>(), 0..8usize);
    let part = part.prop_map(|(protocol, versions, mode, [route, consumer, closed], caller)| Part {
        protocol,
        versions,
        mode,
        route,
        consumer,
        closed,
        caller,
    });
    proptest::collection::vec(part, 1..6)
}

/// A valid configuration, one document an element; service N is `ns-(N % 2)/s-N`.
fn documents(parts: &[Part]) -> Vec<String> {
    let mut documents = Vec::new();
    let service = |n: usize| format!("ns-{}/s-{n}", n % 2);
    for (n, part) in parts.iter().enumerate() {
        let (namespace, name) = (format!("ns-{}", n % 2), format!("s-{n}"));
        let protocol = PROTOCOLS[part.protocol];
        let spec = format!("{{ports: [{{name: main, port: 80, protocol: {protocol}}}]}}");
        documents.push(document("MeshService", &namespace, &name, &spec));
        for version in 0..part.versions {
            let spec = format!(
                "{{labels: {{version: v{version}}}, serves: [{{service: {name}, listen: \"127.0.0.1:1\", app: \"127.0.0.1:2\"}}], \
                 calls: [{{service: {}, listen: \"127.0.0.1:3\"}}]}}",
                service(part.caller % parts.len())
            );
            documents.push(document("Workload", &namespace, &format!("{name}-{version}"), &spec));
        }
        if let Some(mode) = part.mode {
            let spec = format!("{{target: {{service: {name}}}, mode: {}}}", MODES[mode]);
            documents.push(document("MTLSPolicy", &namespace, &name, &spec));
        }
        if part.route && protocol != "tcp" {
            let spec = format!(
                "{{for: {{service: {name}}}, http: [{{match: [{{path: {{prefix: /a}}}}], to: [{{service: {name}, version: v0}}]}}, \
                 {{to: [{{service: {name}}}], timeout: 2s}}]}}"
            );
            documents.push(document("TrafficRoute", &namespace, &name, &spec));
            let spec = format!(
                "{{workload: {{labels: {{version: v0}}}}, listeners: [{{name: a, port: {}, protocol: http, hostnames: [a.b, \"*.c\"]}}, \
                 {{name: b, port: {0}, protocol: http, redirectTo: a}}]}}",
                100 + n
            );
            documents.push(document("EdgeGateway", &namespace, &name, &spec));
            let spec = "{source: {issued: {dnsNames: [a.b]}}}";
            documents.push(document("TLSCertificate", &namespace, &format!("{name}-tls"), spec));
            let spec = format!(
                "{{workload: {{labels: {{version: v0}}}}, listeners: [{{name: a, port: {}, protocol: https, tls: {{certificate: {name}-tls}}}}]}}",
                200 + n
            );
            documents.push(document("EdgeGateway", &namespace, &format!("{name}-tls"), &spec));
            for (prefix, hosts) in [("/", "a.b, x.c"), ("/p", "a.b")] {
                let spec = format!(
                    "{{for: {{gateway: {name}, hostnames: [{hosts}], prefix: {prefix}}}, http: [{{to: [{{service: {name}}}]}}]}}"
                );
                documents.push(document("TrafficRoute", &namespace, &format!("{name}-{}", prefix.len()), &spec));
            }
        }
        if part.consumer && protocol != "tcp" {
            let name = service(n);
            let spec =
                format!("{{for: {{service: {name}}}, http: [{{to: [{{service: {name}}}], retry: {{attempts: 3}}}}]}}");
            documents.push(document("TrafficRoute", "other", &format!("s-{n}"), &spec));
        }
        if part.closed {
            let caller = service(part.caller % parts.len());
            let spec =
                format!("{{target: {{service: {name}}}, default: deny, allow: [{{from: [{{service: {caller}}}]}}]}}");
            documents.push(document("AccessPolicy", &namespace, &name, &spec));
            let mut to = "{ports: [80]}".to_owned();
            if protocol != "tcp" {
                to += ", {hosts: [a.b, \"*.c.d\"], headers: {x-a: b}, grpcMethods: [a.B/*]}";
            }
            let spec = format!(
                "{{target: {{service: {name}}}, mode: audit, default: allow, \
                 deny: [{{from: [{{ip: 10.0.0.0/8}}, any], to: [{to}]}}]}}"
            );
            documents.push(document("AccessPolicy", &namespace, &format!("{name}-audit"), &spec));
            let spec = format!(
                "{{target: {{service: {name}}}, accessLogs: [{{to: stdout, when: {{status: \">=500\"}}}}], metrics: {{labels: {{a: b}}}}}}"
            );
            documents.push(document("TelemetryPolicy", &namespace, &name, &spec));
        }
    }
    documents
}

/// Objects that are wrong and to which nothing refers, each named so that it sorts first.
fn broken() -> impl Strategy<Value = String> {
    let wrong = [
        ("Mesh", "{defaults: {mtls: strict}}"),
        ("MeshService", "{ports: []}"),
        ("MeshService", "{ports: [{name: a, port: 1, protocol: http}], endpoints: {static: [{address: 127.0.0.1}]}}"),
        ("Workload", "{serves: [{service: s-0, listen: \"127.0.0.1:1\", app: \"127.0.0.1:1\"}]}"),
        ("Workload", "{calls: [{service: nowhere, listen: \"127.0.0.1:1\"}]}"),
        (
            "Workload",
            "{identity: \"spiffe://elsewhere/x\", serves: [{service: s-0, listen: \"127.0.0.1:1\", app: \"127.0.0.1:2\"}]}",
        ),
        ("MTLSPolicy", "{target: {scope: mesh}, mode: disabled}"),
        ("MTLSPolicy", "{target: {service: nowhere}, mode: disabled}"),
        ("MTLSPolicy", "{target: {service: s-0, port: nowhere}, mode: disabled}"),
        ("TrafficRoute", "{for: {service: s-0}, http: [{to: [{service: nowhere}]}]}"),
        ("TrafficRoute", "{for: {service: s-0}, http: []}"),
        ("TrafficRoute", "{for: {gateway: nowhere}, http: [{respond: {status: 200}}]}"),
        ("TrafficRoute", "{for: {gateway: ns-1/s-1}, http: [{respond: {status: 200}}]}"),
        ("EdgeGateway", "{workload: {labels: {version: v0}}, listeners: []}"),
        (
            "EdgeGateway",
            "{workload: {labels: {version: v0}}, listeners: [{name: a, port: 1, protocol: https, tls: {certificate: nowhere}}]}",
        ),
        ("TLSCertificate", "{source: {file: {cert: c, key: k}}}"),
        (
            "EdgeGateway",
            "{workload: {labels: {version: v0}}, listeners: [{name: a, port: 1, protocol: http, redirectTo: b}]}",
        ),
        ("AccessPolicy", "{target: {service: s-0}, default: deny, allow: [{from: [{service: nowhere}]}]}"),
        ("AccessPolicy", "{target: {labels: {a: b}}, default: deny}"),
        ("AccessPolicy", "{target: {service: s-0}, default: deny, allow: [{jwt: {provider: nobody}}]}"),
        ("AccessPolicy", "{target: {service: s-0}, deny: [{to: [{ports: [81]}]}]}"),
        ("AccessPolicy", "{target: {scope: namespace}, default: [}"),
        ("TelemetryPolicy", "{target: {scope: mesh}, accessLogs: [{to: stdout}]}"),
        ("TelemetryPolicy", "{target: {scope: namespace}, accessLogs: [{to: otlp}], metrics: {drop: [caller]}}"),
        ("TelemetryPolicy", "{target: {service: nowhere}, tracing: {tags: {a: b}}}"),
    ];
    proptest::sample::select(wrong.to_vec()).prop_map(|(kind, spec)| document(kind, "ns-0", "a-broken", spec))
}

fn objects(documents: &[String]) -> (Objects, usize) {
    let parsed = documents.iter().enumerate().map(|(n, text)| rules::parse(&format!("{n:03}.yaml"), text));
    let collected = rules::collect(parsed);
    (collected.objects, collected.findings.len())
}

fn mesh(documents: &[String]) -> (Mesh, BTreeSet<ObjectKey>) {
    let Resolution { mesh, refused, .. } = resolve(&objects(documents).0);
    (mesh, refused.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Total: any text is objects or findings, and what was read can be resolved.
    #[test]
    fn any_text_is_read(text in "(?s).{0,200}") {
        resolve(&rules::collect([rules::parse("f", &text)]).objects);
    }

    /// Total: as above, near to what people write.
    #[test]
    fn any_damage_is_read(parts in parts(), cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[-{}:,\\[\\]a-z0-9\"' \n\t*&]{0,3}"), 0..6)) {
        let mut text = documents(&parts).join("---\n");
        for (index, piece) in cuts {
            let at = index.index(text.len());
            text.replace_range(at..=at, &piece);
            if text.is_empty() { break; }
        }
        let parsed = rules::parse("f", &text);
        prop_assert_eq!(parsed.broken.len(), parsed.findings.len());
        resolve(&rules::collect([parsed]).objects);
    }

    /// What is generated as valid is valid, or the laws below would hold for the wrong reason.
    #[test]
    fn valid_is_valid(parts in parts()) {
        let documents = documents(&parts);
        let (objects, findings) = objects(&documents);
        prop_assert_eq!((objects.len(), findings, resolve(&objects).refused), (documents.len(), 0, OrdSet::new()));
    }

    /// Local: a broken object changes nothing.
    #[test]
    fn a_broken_object_changes_nothing(parts in parts(), broken in broken(), at in any::<prop::sample::Index>()) {
        let documents = documents(&parts);
        let mut with = documents.clone();
        with.insert(at.index(documents.len() + 1), broken);
        prop_assert_eq!(mesh(&documents).0, mesh(&with).0);
    }

    /// Local: an object that breaks takes with it what refers to it, and nothing else.
    #[test]
    fn a_lost_service_takes_only_its_own(parts in parts()) {
        let documents = documents(&parts);
        let lost = documents.len();
        let alone = document("MeshService", "ns-0", "alone", "{ports: [{name: a, port: 1, protocol: http}]}");
        let caller = document("Workload", "ns-0", "caller", "{calls: [{service: alone, listen: \"127.0.0.1:9\"}]}");
        let mut with = documents.clone();
        with.extend([alone.replace("protocol: http", "protocol: htpp"), caller]);
        let (after, refused) = mesh(&with);
        prop_assert_eq!(mesh(&documents[..lost]).0, after);
        prop_assert_eq!(refused.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Workload ns-0/caller"]);
    }

    /// Deterministic: the order in which texts and objects come does not matter, findings included.
    #[test]
    fn order_does_not_matter(parts in parts(), broken in proptest::collection::vec(broken(), 0..4), seed in any::<u64>()) {
        let mut texts = documents(&parts);
        texts.extend(broken);
        let named: Vec<(String, String)> =
            texts.into_iter().enumerate().map(|(n, text)| (format!("{n:03}.yaml"), text)).collect();
        let outcome = |named: &[(String, String)]| {
            let collected = rules::collect(named.iter().map(|(file, text)| rules::parse(file, text)));
            let resolution = resolve(&collected.objects);
            let mut shown = String::new();
            for finding in collected.findings.iter().chain(&resolution.all_findings()) {
                writeln!(shown, "{finding}").expect("a string grows");
            }
            (serde_json::to_string(&resolution.mesh).expect("the model is JSON"), shown)
        };
        let mut shuffled = named.clone();
        let mut state = seed | 1;
        for n in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(n, (state >> 33) as usize % (n + 1));
        }
        prop_assert_eq!(outcome(&named), outcome(&shuffled));
    }

    /// An object says the same when it is read again from its own text.
    #[test]
    fn objects_are_read_again_as_they_were(parts in parts()) {
        let text = documents(&parts).join("---\n");
        for object in rules::parse("f", &text).objects {
            let again = rules::parse_from("f", &object.text, object.line);
            prop_assert_eq!(again.objects.iter().map(Arc::as_ref).collect::<Vec<_>>(), [object.as_ref()]);
        }
    }
}
