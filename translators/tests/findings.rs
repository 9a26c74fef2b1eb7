//! What each mistake in a document looks like: the whole line, as `validate` prints it.

use translators::mesh::resolve;
use translators::name::{ObjectKey, ObjectKind};
use translators::rules::{self, Parsed};

/// A document of `kind` called `shop/x`; the spec starts on line 5.
fn document(kind: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec:\n{spec}")
}

fn lines(parsed: &Parsed) -> Vec<String> {
    parsed.findings.iter().map(ToString::to_string).collect()
}

fn key(kind: ObjectKind) -> ObjectKey {
    ObjectKey::new(kind, "shop/x".parse().expect("a name"))
}

#[test]
fn a_mistake_names_its_place_and_what_would_be_right() {
    let table = [
        (
            "MTLSPolicy",
            "target: {scope: namespace}\nmod: strict",
            "f:6:3: MX0201 error MTLSPolicy shop/x /spec/mod: unknown field \"mod\"; choices: target, mode; did you mean \"mode\"?",
        ),
        (
            "MTLSPolicy",
            "target: {scope: namespace}",
            "f:4:1: MX0202 error MTLSPolicy shop/x /spec: missing field \"mode\"",
        ),
        (
            "MTLSPolicy",
            "target: {scope: namespace}\nmode: tls",
            "f:6:9: MX0203 error MTLSPolicy shop/x /spec/mode: \"tls\" is not a choice; choices: strict, permissive, disabled",
        ),
        (
            "MTLSPolicy",
            "target: {scope: namespace}\nmode: off",
            "f:6:9: MX0204 error MTLSPolicy shop/x /spec/mode: the boolean false stands where a word belongs; choices: strict, permissive, disabled; write disabled",
        ),
        (
            "MTLSPolicy",
            "target: {}\nmode: strict",
            "f:5:3: MX0203 error MTLSPolicy shop/x /spec/target: a target is exactly one of {scope: mesh}, {scope: namespace}, {labels: ...}, {service: x}, {service: x, port: p}, {gateway: g}, {gateway: g, listener: l}, {route: r}, {route: r, rule: n}",
        ),
        (
            "MTLSPolicy",
            "target: {service: a, scope: mesh}\nmode: strict",
            "f:5:3: MX0203 error MTLSPolicy shop/x /spec/target: a target is exactly one of {scope: mesh}, {scope: namespace}, {labels: ...}, {service: x}, {service: x, port: p}, {gateway: g}, {gateway: g, listener: l}, {route: r}, {route: r, rule: n}",
        ),
        (
            "MeshService",
            "ports: [{name: http, port: 0, protocol: http}]",
            "f:5:30: MX0203 error MeshService shop/x /spec/ports/0/port: the number 0 stands where a number from 1 to 65535 belongs",
        ),
        (
            "MeshService",
            "ports: [{name: http, port: 70000, protocol: http}]",
            "f:5:30: MX0203 error MeshService shop/x /spec/ports/0/port: the number 70000 stands where a number from 1 to 65535 belongs",
        ),
        (
            "MeshService",
            "ports: [{name: http, port: \"80\", protocol: http}]",
            "f:5:30: MX0203 error MeshService shop/x /spec/ports/0/port: the text \"80\" stands where a number from 1 to 65535 belongs",
        ),
        (
            "MeshService",
            "ports: {name: http}",
            "f:5:3: MX0203 error MeshService shop/x /spec/ports: a mapping stands where a list belongs",
        ),
        (
            "MeshService",
            "ports: []\noutward: false",
            "f:6:3: MX0201 error MeshService shop/x /spec/outward: unknown field \"outward\"; choices: ports, endpoints, external, tls",
        ),
        (
            "MeshService",
            "ports: [{name: Http, port: 80, protocol: http}]",
            "f:5:18: MX0203 error MeshService shop/x /spec/ports/0/name: \"Http\" is not a DNS label: 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
        ),
        (
            "MeshService",
            "ports: []\nendpoints: {srv: {hostname: a}}",
            "f:6:3: MX0203 error MeshService shop/x /spec/endpoints: \"srv\" is not a choice; choices: static, dns",
        ),
        (
            "MeshService",
            "ports: []\nendpoints: {static: [{address: localhost, port: 1}]}",
            "f:6:34: MX0203 error MeshService shop/x /spec/endpoints/static/0/address: invalid IP address syntax",
        ),
        (
            "Workload",
            "labels: {version: 1.10}",
            "f:5:21: MX0204 error Workload shop/x /spec/labels/version: the number 1.1 stands where a string belongs; quote it: \"1.10\"",
        ),
        (
            "Workload",
            "capture: {mode: transparent}",
            "f:5:19: MX0203 error Workload shop/x /spec/capture/mode: \"transparent\" is not a choice; choices: explicit",
        ),
        (
            "Workload",
            "calls: [{service: a/b/c, listen: \"127.0.0.1:1\"}]",
            "f:5:21: MX0203 error Workload shop/x /spec/calls/0/service: \"b/c\" is not a DNS label: 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
        ),
        (
            "Workload",
            "calls: [{service: a, listen: \"9001\"}]",
            "f:5:32: MX0203 error Workload shop/x /spec/calls/0/listen: \"9001\" is not an address: write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "TrafficRoute",
            "for: {service: a}\nhttp: [{to: [{service: a}], timeout: 2}]",
            "f:6:40: MX0203 error TrafficRoute shop/x /spec/http/0/timeout: the number 2 stands where a duration such as 600ms, 2s, 1m30s or 24h belongs",
        ),
        (
            "TrafficRoute",
            "for: {service: a}\nhttp: [{to: [{service: a}], retry: {when: [503]}}]",
            "f:6:46: MX0204 error TrafficRoute shop/x /spec/http/0/retry/when/0: the number 503 stands where a string belongs; quote it: \"503\"",
        ),
        (
            "TrafficRoute",
            "for: {service: a}\nhttp: [{to: [{service: a}], match: [{path: {exact: /a, prefix: /b}}]}]",
            "f:6:40: MX0203 error TrafficRoute shop/x /spec/http/0/match/0/path: exactly one of the choices belongs here; choices: exact, prefix, regex, template",
        ),
        (
            "TrafficRoute",
            "for: {service: a}\nhttp: [{to: [{service: a}], match: [{headers: {x-a: true}}]}]",
            "f:6:55: MX0204 error TrafficRoute shop/x /spec/http/0/match/0/headers/x-a: the boolean true stands where a string belongs; quote it: \"true\"",
        ),
        (
            "TrafficRoute",
            "for: {service: a}\nhttp: [{to: [{service: a}], match: [{headers: {x-a: {exac: b}}}]}]",
            "f:6:56: MX0201 error TrafficRoute shop/x /spec/http/0/match/0/headers/x-a/exac: unknown field \"exac\"; choices: exact, prefix, regex, present, absent; did you mean \"exact\"?",
        ),
        (
            "TrafficRoute",
            "for: {service: a}\nhttp: [{to: [{service: a}], match: [{methods: [get]}]}]",
            "f:6:50: MX0203 error TrafficRoute shop/x /spec/http/0/match/0/methods/0: \"get\" is not an HTTP method: methods are written in capitals, such as GET",
        ),
        (
            "AccessPolicy",
            "target: {scope: namespace}\nallow: [{from: [anyone]}]",
            "f:6:19: MX0203 error AccessPolicy shop/x /spec/allow/0/from/0: \"anyone\" is not a choice; choices: service, namespace, gateway, serviceAccount, spiffe, ip, any",
        ),
        (
            "AccessPolicy",
            "target: {scope: namespace}\nwhen: never",
            "f:6:3: MX0201 error AccessPolicy shop/x /spec/when: unknown field \"when\"; choices: target, mode, default, allow, deny",
        ),
        (
            "Mesh",
            "discovery: []",
            "f:5:3: MX0201 error Mesh shop/x /spec/discovery: unknown field \"discovery\"; choices: trustDomain, ca, defaults, jwtProviders, telemetryProviders",
        ),
        (
            "MeshService",
            "ports:\n- name: a\n  name: b",
            "f:7:5: MX0200 error MeshService shop/x: duplicate mapping key: name not allowed here",
        ),
        (
            "MeshService",
            "ports:\n\t- name: a",
            "f:6:4: MX0200 error MeshService shop/x: tabs disallowed within this context (block indentation)",
        ),
    ];
    let differences: Vec<String> = table
        .iter()
        .filter_map(|(kind, spec, line)| {
            let parsed = rules::parse("f", &document(kind, spec));
            let kind = ObjectKind::ALL.into_iter().find(|known| known.as_str() == *kind).expect("a kind");
            let right = lines(&parsed) == [*line] && parsed.objects.is_empty() && parsed.broken == [Some(key(kind))];
            (!right).then(|| format!("{spec}\n  {:?}\n  instead of\n  {line:?}\n  {:?}", lines(&parsed), parsed.broken))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn the_envelope_is_checked_first() {
    let table = [
        ("kind: Mesh", "f:1:1: MX0202 error: missing field \"apiVersion\"; choices: chancery.dev/v1alpha1"),
        (
            "apiVersion: v1",
            "f:1:13: MX0205 error /apiVersion: this apiVersion does not exist; choices: chancery.dev/v1alpha1",
        ),
        (
            "apiVersion: chancery.dev/v1alpha1",
            "f:1:1: MX0202 error: missing field \"kind\"; choices: Mesh, MeshService, Workload, EdgeGateway, TLSCertificate, EnvoySnapshot, TrafficRoute, TrafficPolicy, MTLSPolicy, AccessPolicy, TelemetryPolicy, EnvoyPatch",
        ),
        (
            "apiVersion: chancery.dev/v1alpha1\nkind: Meshservice",
            "f:2:7: MX0205 error /kind: this kind does not exist; choices: Mesh, MeshService, Workload, EdgeGateway, TLSCertificate, EnvoySnapshot, TrafficRoute, TrafficPolicy, MTLSPolicy, AccessPolicy, TelemetryPolicy, EnvoyPatch; did you mean \"MeshService\"?",
        ),
        (
            "apiVersion: chancery.dev/v1alpha1\nkind: Mesh\nmetadata: {name: x}\nspec: {}",
            "f:3:1: MX0202 error /metadata: missing field \"namespace\"",
        ),
        (
            "apiVersion: chancery.dev/v1alpha1\nkind: Mesh\nmetadata: {name: 7, namespace: a}\nspec: {}",
            "f:3:18: MX0204 error /metadata/name: the number 7 stands where a string belongs; quote it: \"7\"",
        ),
        ("text", "f:1:1: MX0200 error: a document is a mapping with apiVersion, kind, metadata and spec"),
    ];
    for (text, line) in table {
        assert_eq!(lines(&rules::parse("f", text)), [line], "{text}");
    }
}

#[test]
fn a_broken_document_stays_alone() {
    let good = document("MTLSPolicy", "target: {scope: namespace}\nmode: strict");
    let text = format!("# nothing\n---\n# still nothing\n---\n{good}--- \nkind: [\n---\r\n{good}...\n");
    let parsed = rules::parse("f", &text);
    assert_eq!(lines(&parsed).len(), 1, "{:?}", lines(&parsed));
    let homes: Vec<u32> = parsed.objects.iter().map(|object| object.line).collect();
    assert_eq!((homes, parsed.broken), (vec![4, 13], vec![None]));
}

#[test]
fn an_object_can_be_read_again_from_its_own_text() {
    let good = document("MTLSPolicy", "target: {scope: namespace}\nmode: strict");
    let parsed = rules::parse("f", &format!("# one\n---\n{good}---\n{}", good.replace("name: x", "name: y")));
    for object in &parsed.objects {
        let again = rules::parse_from("f", &object.text, object.line);
        assert_eq!(again, Parsed { objects: vec![object.clone()], ..Parsed::default() });
    }
}

#[test]
fn json_is_read_too() {
    let text = r#"{"apiVersion": "chancery.dev/v1alpha1", "kind": "MTLSPolicy",
        "metadata": {"name": "x", "namespace": "shop"},
        "spec": {"target": {"scope": "namespace"}, "mode": "strict"}, "status": {"any": ["thing"]}}"#;
    let yaml = rules::parse("f", &document("MTLSPolicy", "target: {scope: namespace}\nmode: strict"));
    let json = rules::parse("f", text);
    assert_eq!(lines(&json), Vec::<String>::new());
    assert!(json.objects[0].same_content(&yaml.objects[0]));
    assert_eq!(json.objects[0].location("/spec/mode").map(|place| place.to_string()), Some("f:3:60".to_owned()));
    assert_eq!(json.objects[0].location("/spec/none/0").map(|place| place.to_string()), Some("f:3:9".to_owned()));
}

#[test]
fn hostile_documents_end_soon() {
    let bomb = (1..40)
        .fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1));
    let hostile =
        ["[".repeat(200_000), "{a: ".repeat(200_000), "- ".repeat(200_000), bomb, "? ".repeat(100_000), "\0".into()];
    for text in hostile {
        let parsed = rules::parse("f", &text);
        let start: String = text.chars().take(20).collect();
        assert_eq!((parsed.objects.len(), parsed.findings.len(), parsed.broken), (0, 1, vec![None]), "{start}");
    }
}

#[test]
fn every_kind_has_a_schema_of_its_fields() {
    let fields = |schema: schemars::Schema| -> Vec<String> {
        let properties = schema.get("properties").and_then(|properties| properties.as_object()).cloned();
        properties.unwrap_or_default().keys().cloned().collect()
    };
    assert_eq!(
        fields(schemars::schema_for!(rules::mesh::MeshSpec)),
        ["ca", "defaults", "jwtProviders", "telemetryProviders", "trustDomain"]
    );
    assert_eq!(fields(schemars::schema_for!(rules::service::ServiceSpec)), ["endpoints", "external", "ports", "tls"]);
    assert_eq!(
        fields(schemars::schema_for!(rules::workload::WorkloadSpec)),
        ["calls", "capture", "identity", "labels", "locality", "match", "serves"]
    );
    assert_eq!(fields(schemars::schema_for!(rules::gateway::GatewaySpec)), ["direction", "listeners", "workload"]);
    assert_eq!(fields(schemars::schema_for!(rules::certificate::CertificateSpec)), ["source"]);
    assert_eq!(fields(schemars::schema_for!(rules::route::RouteSpec)), ["for", "grpc", "http", "tcp", "tls"]);
    assert_eq!(fields(schemars::schema_for!(rules::traffic::TrafficSpec)), ["inbound", "outbound", "target"]);
    assert_eq!(fields(schemars::schema_for!(rules::policy::MtlsSpec)), ["mode", "target"]);
    assert_eq!(
        fields(schemars::schema_for!(rules::policy::AccessSpec)),
        ["allow", "default", "deny", "mode", "target"]
    );
    assert_eq!(
        fields(schemars::schema_for!(rules::telemetry::TelemetrySpec)),
        ["accessLogs", "metrics", "target", "tracing"]
    );
}

#[test]
fn no_finding_shows_a_private_key() {
    let pem = "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMGByqGSM49\\n-----END PRIVATE KEY-----";
    for source in [
        format!("{{inline: {{cert: none, key: \"{pem}\"}}}}"),
        format!("{{inline: {{cert: none, key: [\"{pem}\"]}}}}"),
        format!("{{inline: {{cert: none, kee: \"{pem}\"}}}}"),
        format!("{{inline: {{cert: none, \"{pem}\": a}}}}"),
        format!("{{inline: \"{pem}\"}}"),
        format!("{{file: {{cert: c, key: \"{pem}\"}}}}"),
        format!("\"{pem}\""),
    ] {
        let collected = rules::collect([rules::parse("f", &document("TLSCertificate", &format!("source: {source}")))]);
        let resolution = resolve::resolve(&collected.objects);
        let shown: Vec<String> =
            collected.findings.iter().chain(&resolution.all_findings()).map(ToString::to_string).collect();
        assert!(!shown.is_empty() && shown.iter().all(|one| !one.contains("MIGH")), "{source}: {shown:?}");
    }
    let cluster = "\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster";
    for resource in [
        format!("{{{cluster}, name: x, type: \"{pem}\"}}"),
        format!("{{{cluster}, name: x, \"{pem}\": 1}}"),
        format!("{{\"@type\": \"{pem}\"}}"),
        format!("{{{cluster}, name: x, typed_extension_protocol_options: {{a: {{\"@type\": \"{pem}\"}}}}}}"),
        format!("{{{cluster}, name: \"{pem}\"}}\n- {{{cluster}, name: \"{pem}\"}}"),
    ] {
        let text = format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: EnvoySnapshot\nmetadata: {{name: x, namespace: shop}}\n\
             spec:\n  match: {{nodeId: x}}\n  resources:\n  - {}\n",
            resource.replace("\n- ", "\n  - ")
        );
        let collected = rules::collect([rules::parse("f", &text)]);
        let resolution = resolve::resolve(&collected.objects);
        let shown: Vec<String> =
            collected.findings.iter().chain(&resolution.all_findings()).map(ToString::to_string).collect();
        assert!(!shown.is_empty() && shown.iter().all(|one| !one.contains("MIGH")), "{resource}: {shown:?}");
    }
}
