//! Every route, as a client sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use translators::finding::Code;
use translators::mesh::Protocol;
use translators::name::{ObjectKey, ObjectKind, Owner};
use translators::resource::{Kind, Version};

use super::*;
use crate::report::{Proxy, Rejection, StreamReport, TypeStatus};
use crate::telemetry::edges::{Edge, EdgeKey, Totals};
use crate::telemetry::loads::{ClusterLoad, LocalityLoad};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn route() -> ObjectKey {
    ObjectKey::new(ObjectKind::TrafficRoute, "shop/cart".parse().expect("valid"))
}

fn proxy() -> Proxy {
    let version = Version::of(b"clusters");
    let rejection = Rejection {
        version: Version::of(b"listeners"),
        reason: "bad\r\n\x1b[31mlistener".to_owned(),
        resources: vec!["in".into()],
        rules: vec![RuleRef::new(route(), "/spec/http/0")],
        since: at(5),
    };
    let accepted = TypeStatus { sent: Some(version), acked: Some(version), responses: 2, ..TypeStatus::default() };
    let refused = TypeStatus {
        sent: Some(Version::of(b"listeners")),
        rejections: vec![rejection],
        subscribed: Some(1),
        responses: 1,
        ..TypeStatus::default()
    };
    Proxy {
        node: "cart\n\x1b[2J\"a\"".to_owned(),
        owner: Owner::Workload("shop/cart-v1".parse().expect("valid")),
        address: std::net::IpAddr::from([127, 0, 0, 2]),
        proven: true,
        envoy: "1.40.0".to_owned(),
        protocol: "delta",
        connected: at(0),
        types: [(Kind::Cluster, accepted), (Kind::Listener, refused)].into(),
        listeners: std::collections::BTreeSet::new(),
        has_certificate: true,
    }
}

/// One service, served by one workload.
fn objects() -> Objects {
    let rules = "\
apiVersion: chancery.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 8080, protocol: http}]}
---
apiVersion: chancery.dev/v1alpha1
kind: Workload
metadata: {name: cart-v1, namespace: shop}
spec: {serves: [{service: cart, listen: \"0.0.0.0:8080\", app: \"127.0.0.1:18080\"}]}
---
apiVersion: chancery.dev/v1alpha1
kind: MTLSPolicy
metadata: {name: strict, namespace: shop}
spec: {target: {service: cart}, mode: strict}
";
    translators::rules::collect([translators::rules::parse("rules.yaml", rules)]).objects
}

/// A process with one proxy, whose listener is refused because of a rule, and one finding.
fn process() -> (AdminState, StreamReport, watch::Sender<Arc<Status>>) {
    let report = Report::default();
    let stream = report.connect(Arc::new(Mutex::new(proxy())));
    let finding = Finding::error(Code::NotFound, &route(), "/spec/http/0", "service \"crat\" not found")
        .choices(["cart"])
        .hint("did you mean \"cart\"?");
    let validity = Validity { not_after: at(86_400), renew_at: at(43_200) };
    let status = Status {
        ready: Ok(()),
        findings: Arc::new(move || vec![finding.clone()]),
        locate: Arc::new(|_| Some(Location { file: "rules.yaml".into(), line: 14, column: 3 })),
        objects: objects(),
        mesh: Some(translators::mesh::resolve::resolve(&objects()).mesh),
        certificates: imbl::OrdMap::unit("shop/cart-v1".parse().expect("valid"), validity),
    };
    let (sender, status) = watch::channel(Arc::new(status));
    (
        AdminState {
            report,
            telemetry: Telemetry::default(),
            loads: Loads::default(),
            setting: Setting::of_tests(),
            status,
        },
        stream,
        sender,
    )
}

async fn ask(state: &AdminState, method: &str, path: &str, host: &str) -> (StatusCode, Option<String>, String) {
    let request = Request::builder().method(method).uri(path).header("host", host).body(Body::empty());
    let response = router(state.clone()).oneshot(request.expect("a request")).await.expect("infallible");
    assert!(response.headers().keys().all(|name| !name.as_str().starts_with("access-control-")));
    let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().expect("text").to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, kind, String::from_utf8(body.to_vec()).expect("text"))
}

async fn get(state: &AdminState, path: &str) -> Value {
    let (status, kind, body) = ask(state, "GET", path, "127.0.0.1:18080").await;
    assert_eq!((status, kind.as_deref()), (StatusCode::OK, Some("application/json")), "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

#[tokio::test]
async fn health_readiness_and_version() {
    let (state, _stream, status) = process();
    assert_eq!(get(&state, "/healthz").await, json!({"status": "ok"}));
    assert_eq!(get(&state, "/readyz").await, json!({"status": "ok"}));
    assert_eq!(get(&state, "/version").await, json!({"name": "chancery", "version": env!("CARGO_PKG_VERSION")}));
    status.send_replace(Arc::new(Status::starting("the rules in \"rules\" are not read yet")));
    let (code, kind, body) = ask(&state, "GET", "/readyz", "localhost").await;
    assert_eq!((code, kind.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("application/problem+json")));
    let expected = json!({
        "type": "about:blank", "title": "Service Unavailable", "status": 503,
        "detail": "the rules in \"rules\" are not read yet",
    });
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), expected);
    assert_eq!(get(&state, "/healthz").await, json!({"status": "ok"}));
}

fn nack() -> Value {
    json!({
        "reason": "bad\r\n\u{1b}[31mlistener", "version": Version::of(b"listeners").to_string(),
        "since": "2023-11-14T22:13:25Z", "resources": ["in"],
        "rules": [{
            "object": "TrafficRoute shop/cart", "pointer": "/spec/http/0",
            "file": "rules.yaml", "line": 14, "column": 3,
        }],
    })
}

#[tokio::test]
async fn proxies_and_what_they_refuse() {
    let (state, _stream, _status) = process();
    let clusters = Version::of(b"clusters").to_string();
    let expected = json!({
        "proxies": [{
            "node": "cart\n\u{1b}[2J\"a\"", "workload": "shop/cart-v1", "address": "127.0.0.2", "knownBy": "certificate",
            "envoy": "1.40.0", "protocol": "delta", "connected": "2023-11-14T22:13:20Z", "inSync": false,
            "types": {
                "CDS": {"sent": clusters, "acked": clusters, "subscribed": null, "responses": 2, "nack": null},
                "LDS": {
                    "sent": Version::of(b"listeners").to_string(), "acked": null, "subscribed": 1, "responses": 1,
                    "nack": nack(),
                },
            },
            "certificate": {"notAfter": "2023-11-15T22:13:20Z"},
        }],
        "inSync": 0, "total": 1,
    });
    assert_eq!(get(&state, "/api/v1/proxies").await, expected);

    let mut refused = nack();
    for (key, value) in [("node", "cart\n\u{1b}[2J\"a\""), ("workload", "shop/cart-v1"), ("type", "LDS")] {
        refused[key] = json!(value);
    }
    assert_eq!(get(&state, "/api/v1/nacks").await, json!({"nacks": [refused], "total": 1}));
    let (_, _, raw) = ask(&state, "GET", "/api/v1/nacks", "localhost").await;
    assert!(!raw.chars().any(char::is_control), "{raw:?}");
}

#[tokio::test]
async fn findings_with_their_place() {
    let (state, _stream, _status) = process();
    let expected = json!({"findings": [{
        "code": "MX0101", "severity": "error", "object": "TrafficRoute shop/cart", "pointer": "/spec/http/0",
        "message": "service \"crat\" not found", "choices": ["cart"], "hint": "did you mean \"cart\"?",
        "location": {"file": "rules.yaml", "line": 14, "column": 3},
        "text": "rules.yaml:14:3: MX0101 error TrafficRoute shop/cart /spec/http/0: service \"crat\" not found; \
                 choices: cart; did you mean \"cart\"?",
    }]});
    assert_eq!(get(&state, "/api/v1/findings").await, expected);
}

#[tokio::test]
async fn edges_before_and_after_traffic() {
    let (state, _stream, _status) = process();
    assert_eq!(get(&state, "/api/v1/edges").await, json!({"edges": [], "mtlsShare": null, "requests": 0}));

    let key = EdgeKey {
        caller: Some("spiffe://cluster.local/ns/front/sa/web".parse().expect("valid")),
        service: "shop/cart".parse().expect("valid"),
        version: "v1".into(),
        port: "grpc".into(),
        protocol: Protocol::Grpc,
    };
    let unknown = EdgeKey { caller: None, version: "".into(), ..key.clone() };
    let totals = Totals { mtls_successes: 6, mtls_failures: 2, ..Totals::new(at(1)) };
    let plain = Totals { plain_successes: 8, ..Totals::new(at(2)) };
    let shown = render::edges(&[Edge { key, totals }, Edge { key: unknown, totals: plain }]);
    let expected = json!({
        "edges": [
            {
                "caller": "front/web", "callerIdentity": "spiffe://cluster.local/ns/front/sa/web",
                "service": "shop/cart", "version": "v1", "port": "grpc", "protocol": "grpc", "requests": 8,
                "successes": 6, "successRate": 0.75, "mtlsRequests": 8, "mtlsShare": 1.0,
                "lastSeen": "2023-11-14T22:13:21Z",
            },
            {
                "caller": "unknown", "callerIdentity": null, "service": "shop/cart", "version": "", "port": "grpc",
                "protocol": "grpc", "requests": 8, "successes": 8, "successRate": 1.0, "mtlsRequests": 0,
                "mtlsShare": 0.0, "lastSeen": "2023-11-14T22:13:22Z",
            },
        ],
        "mtlsShare": 0.5, "requests": 16,
    });
    assert_eq!(serde_json::to_value(shown).expect("JSON"), expected);
}

#[tokio::test]
async fn loads_of_those_who_report() {
    let (state, _stream, _status) = process();
    assert_eq!(get(&state, "/api/v1/logs").await, json!({"logs": [], "received": 0}));
    assert_eq!(get(&state, "/api/v1/loads").await, json!({"loads": [], "reporters": 0}));
    let stream = state.loads.open("web-a", Owner::Workload("front/web".parse().expect("valid")));
    let locality = |locality: [&str; 3], issued| LocalityLoad {
        locality: locality.map(str::to_owned),
        priority: 1,
        issued,
        succeeded: issued - 2,
        failed: 1,
        active: 1,
    };
    let load = ClusterLoad {
        cluster: "out/shop/cart/http".to_owned(),
        interval: Duration::from_millis(60_500),
        dropped: 3,
        localities: vec![locality(["eu", "a", ""], 7), locality(["", "", ""], 2)],
        ..ClusterLoad::default()
    };
    stream.record([load], at(1));
    let shown = |locality: &str, requests: u64| {
        json!({
            "locality": locality, "priority": 1, "requests": requests, "successes": requests - 2, "errors": 1,
            "inProgress": 1,
        })
    };
    let expected = json!({
        "loads": [{
            "node": "web-a", "workload": "front/web", "cluster": "out/shop/cart/http", "service": "",
            "at": "2023-11-14T22:13:21Z", "seconds": 60.5, "dropped": 3,
            "localities": [shown("eu/a", 7), shown("", 2)],
        }],
        "reporters": 1,
    });
    assert_eq!(get(&state, "/api/v1/loads").await, expected);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (state, stream, _status) = process();
    let (code, kind, text) = ask(&state, "GET", "/metrics", "localhost").await;
    assert_eq!((code, kind.as_deref()), (StatusCode::OK, Some(prometheus::CONTENT_TYPE)));
    let samples = |text: &str| -> Vec<String> {
        let measured = ["#", "process_", "chancery_worker_"];
        let lines = text.lines().filter(|line| !measured.iter().any(|measured| line.starts_with(measured)));
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        "chancery_access_log_entries_total 0",
        &format!("chancery_build_info{{version=\"{version}\"}} 1"),
        "chancery_certificate_expiry_timestamp_seconds{workload=\"shop/cart-v1\"} 1700086400",
        "chancery_findings{severity=\"error\"} 1",
        "chancery_findings{severity=\"warning\"} 0",
        "chancery_large_pushes_total{type=\"CDS\"} 0",
        "chancery_large_pushes_total{type=\"ECDS\"} 0",
        "chancery_large_pushes_total{type=\"EDS\"} 0",
        "chancery_large_pushes_total{type=\"LDS\"} 0",
        "chancery_large_pushes_total{type=\"LEDS\"} 0",
        "chancery_large_pushes_total{type=\"RDS\"} 0",
        "chancery_large_pushes_total{type=\"RTDS\"} 0",
        "chancery_large_pushes_total{type=\"SDS\"} 0",
        "chancery_large_pushes_total{type=\"SRDS\"} 0",
        "chancery_large_pushes_total{type=\"VHDS\"} 0",
        "chancery_load_reporters 0",
        "chancery_load_reports_lost_total 0",
        "chancery_nacks_active{node=\"cart\\\\n\\\\u{1b}[2J\\\"a\\\"\",type=\"LDS\"} 1",
        "chancery_proxies 1",
        "chancery_proxies_in_sync 0",
        "chancery_pushes_total{type=\"CDS\"} 2",
        "chancery_pushes_total{type=\"ECDS\"} 0",
        "chancery_pushes_total{type=\"EDS\"} 0",
        "chancery_pushes_total{type=\"LDS\"} 1",
        "chancery_pushes_total{type=\"LEDS\"} 0",
        "chancery_pushes_total{type=\"RDS\"} 0",
        "chancery_pushes_total{type=\"RTDS\"} 0",
        "chancery_pushes_total{type=\"SDS\"} 0",
        "chancery_pushes_total{type=\"SRDS\"} 0",
        "chancery_pushes_total{type=\"VHDS\"} 0",
        "chancery_ready 1",
        "chancery_telemetry_lost_total{reason=\"overflow\"} 0",
        "chancery_telemetry_lost_total{reason=\"refused\"} 0",
    ];
    assert_eq!(samples(&text), expected);
    let memory = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(memory.is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 20)), "{memory:?}");

    assert!(text.contains("\nchancery_worker_busy_seconds_total{worker=\"0\"} "), "{text}");

    // Counters stay when a proxy goes.
    drop(stream);
    let (_, _, text) = ask(&state, "GET", "/metrics", "localhost").await;
    let samples = samples(&text);
    assert!(samples.iter().any(|line| line == "chancery_pushes_total{type=\"CDS\"} 2"), "{samples:?}");
    assert!(samples.iter().any(|line| line == "chancery_proxies 0"), "{samples:?}");
}

#[tokio::test]
async fn whatever_else_is_asked_is_a_problem() {
    let (state, _stream, _status) = process();
    for (method, path, host, expected, title) in [
        ("GET", "/", "localhost", 404, "Not Found"),
        ("GET", "/api/v1/secrets", "localhost", 404, "Not Found"),
        ("POST", "/api/v1/proxies", "localhost", 405, "Method Not Allowed"),
        ("DELETE", "/healthz", "localhost", 405, "Method Not Allowed"),
        ("OPTIONS", "/api/v1/edges", "localhost", 405, "Method Not Allowed"),
        ("GET", "/api/v1/proxies", "rebound.example:18080", 421, "Misdirected Request"),
        ("GET", "/metrics", "10.0.0.1", 421, "Misdirected Request"),
    ] {
        let (code, kind, body) = ask(&state, method, path, host).await;
        assert_eq!((code.as_u16(), kind.as_deref()), (expected, Some("application/problem+json")), "{method} {path}");
        let problem: Problem = serde_json::from_str(&body).expect("a problem");
        assert_eq!((problem.title.as_str(), problem.status), (title, expected));
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    let refused = bind(SocketAddr::from(([0, 0, 0, 0], 18080)), Exposure::Loopback).await.expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "the admin address 0.0.0.0:18080 is not a loopback address, and the admin API asks for no credential; \
         use 127.0.0.1:18080"
    );
    bind(SocketAddr::from(([127, 0, 0, 1], 0)), Exposure::Loopback).await.expect("loopback");
}

#[tokio::test]
async fn the_server_stops_when_asked() {
    let (state, _stream, _status) = process();
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), Exposure::Loopback).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let (served, ()) = tokio::join!(serve(listener, state, stop.clone()), async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = client.get(format!("http://{address}/healthz")).send().await.expect("an answer");
        assert_eq!(answer.text().await.expect("a body"), "{\"status\":\"ok\"}");
        drop(client);
        stop.cancel();
    });
    served.expect("it ends well");
}

proptest! {
    /// No node id, however hostile, adds a line to the metrics or a control character.
    #[test]
    fn a_node_id_stays_in_its_label(node in "[\\x00-\\x1f\\x7f-\\x9f\"\\\\{}, a]{0,12}") {
        let (state, stream, _status) = process();
        let text = |state: &AdminState| prometheus::text(state, &state.status()).expect("text");
        let before = text(&state).lines().count();
        drop(stream);
        let _stream = state.report.connect(Arc::new(Mutex::new(Proxy { node, ..proxy() })));
        let after = text(&state);
        prop_assert_eq!(after.lines().count(), before);
        prop_assert!(!after.chars().any(|c| c != '\n' && c.is_control()), "{after:?}");
    }
}

#[tokio::test]
async fn what_holds_for_a_service_is_shown_with_its_origins() {
    let (state, _stream, status) = process();
    let answer = get(&state, "/api/v1/_effective?service=shop/cart").await;
    assert_eq!(answer["proxies"], json!({"shop/cart-v1": {"total": 1, "inSync": 0}}));
    let subject =
        json!({"object": "MeshService shop/cart", "pointer": "", "file": "rules.yaml", "line": 14, "column": 3});
    assert_eq!(answer["subject"], subject);
    let values = |title: &str| {
        let sections = answer["sections"].as_array().into_iter().flatten();
        let values =
            sections.filter(|section| section["title"] == title).flat_map(|section| section["values"].as_array());
        values.flatten().map(|value| (value["name"].as_str().unwrap_or_default(), value)).collect::<BTreeMap<_, _>>()
    };
    let origin = json!({"object": "MTLSPolicy shop/strict", "pointer": "/spec/mode", "file": "rules.yaml", "line": 14, "column": 3});
    assert_eq!(*values("port http")["mtls"], json!({"name": "mtls", "value": "strict", "from": origin}));
    let timeout = json!({"name": "connectTimeout", "value": "5s", "from": null});
    assert_eq!(*values("port http, calls of everyone")["connectTimeout"], timeout);

    let workload = get(&state, "/api/v1/_effective?workload=shop/cart-v1").await;
    let identity = &workload["sections"][0]["values"][0];
    assert_eq!(identity["value"], "spiffe://cluster.local/ns/shop/sa/cart-v1");

    let refused = async |query: &str| {
        let (code, _, body) = ask(&state, "GET", &format!("/api/v1/_effective?{query}"), "localhost").await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        (code.as_u16(), body["detail"].as_str().unwrap_or_default().to_owned())
    };
    let unknown = "no MeshService shop/crat is in force; choices: shop/cart; did you mean \"shop/cart\"?";
    assert_eq!(refused("service=shop/crat").await, (404, unknown.to_owned()));
    let question = "ask for ?service=NAMESPACE/NAME or ?workload=NAMESPACE/NAME";
    assert_eq!(refused("service=cart").await, (400, question.to_owned()));
    assert_eq!(refused("service=shop/cart&workload=shop/cart-v1").await.0, 400);
    status.send_replace(Arc::new(Status::starting("the rules have not been read yet")));
    assert_eq!(refused("service=shop/cart").await.0, 503);
}

#[tokio::test]
async fn an_analysis_adds_what_a_running_mesh_shows() {
    let (state, _stream, _status) = process();
    let answer = get(&state, "/api/v1/_analyze").await;
    let found = answer["findings"].as_array().into_iter().flatten().map(|one| {
        let text = |name: &str| one[name].as_str().unwrap_or_default();
        format!("{} {} {}{}", text("code"), text("severity"), text("object"), text("pointer"))
    });
    // The proxy is the workload's, and its streams have no resource of the policy.
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            "MX0408 warning MeshService shop/cart",
            "MX0506 warning MeshService shop/cart",
            "MX0101 error TrafficRoute shop/cart/spec/http/0",
            "MX0505 warning MTLSPolicy shop/strict",
        ]
    );

    let status = state.status();
    let mesh = status.mesh.as_ref().expect("rules");
    let key = |caller: Option<&str>| EdgeKey {
        caller: caller.map(|caller| caller.parse().expect("valid")),
        service: "shop/cart".parse().expect("valid"),
        version: "v1".into(),
        port: "http".into(),
        protocol: Protocol::Http,
    };
    let plain = Totals { plain_successes: 3, ..Totals::new(at(5)) };
    let mtls = Totals { mtls_successes: 3, ..Totals::new(at(5)) };
    let proven = Edge { key: key(Some("spiffe://cluster.local/ns/front/sa/web")), totals: mtls };
    assert_eq!(analyze::plaintext(mesh, std::slice::from_ref(&proven)), []);
    assert_eq!(analyze::not_called(mesh, std::slice::from_ref(&proven)), []);
    let seen = analyze::plaintext(mesh, &[proven, Edge { key: key(None), totals: plain }]);
    let said = seen
        .iter()
        .map(|one| format!("{} {} {}: {}", one.code, one.object.as_ref().expect("one"), one.pointer, one.message));
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            "MX0406 MTLSPolicy shop/strict /spec/mode: mTLS is strict on shop/cart http, but it was called in plaintext: \
          unknown 3 times, last 2023-11-14T22:13:25Z"
        ]
    );
}
