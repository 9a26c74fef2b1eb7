//! What is shown, and to whom.

use std::sync::Mutex;
use std::time::SystemTime;

use translators::name::Owner;
use translators::resource::{Kind, Resource};

use super::*;
use crate::report::{Observed, StreamReport};
use crate::stream::{Admission, Refusal};

/// A stream with a resource in each state.
struct Fixed(&'static str);

impl Observed for Fixed {
    fn proxy(&self) -> Proxy {
        Proxy {
            node: self.0.to_owned(),
            owner: Owner::Workload("shop/cart".parse().expect("a name")),
            address: [127, 0, 0, 1].into(),
            proven: true,
            envoy: String::new(),
            protocol: "delta",
            connected: SystemTime::UNIX_EPOCH,
            types: Default::default(),
            listeners: Default::default(),
            has_certificate: false,
        }
    }

    fn resources(&self) -> Vec<ResourceStatus> {
        let of = |kind: Kind, name: &str, state: ResourceState| {
            let resource = Some(Arc::new(Resource::from_bytes(kind, name.into(), b"", [].into())));
            ResourceStatus { kind, name: name.into(), resource, state }
        };
        let error = ResourceState::Error { reason: "no such filter".into(), since: Instant::now() };
        vec![
            of(Kind::Secret, "identity", ResourceState::Synced),
            of(Kind::Cluster, "a", ResourceState::Stale),
            of(Kind::Listener, "l", error),
            ResourceStatus { kind: Kind::Route, name: "gone".into(), resource: None, state: ResourceState::NotSent },
        ]
    }
}

/// Lets `a` in, and nobody else.
struct OnlyA(Mutex<Vec<String>>);

impl Directory for OnlyA {
    fn admit(&self, _: &Extensions, node: &wire::Node) -> Result<Admission, Refusal> {
        self.0.lock().expect("no panic").push(node.id.clone());
        if node.id != "a" {
            return Err(Refusal::Denied("not you".to_owned()));
        }
        let feed = crate::publish::Feed::new(Arc::default());
        Ok(Admission {
            owner: Owner::Workload("shop/cart".parse().expect("a name")),
            address: [127, 0, 0, 1].into(),
            proven: true,
            snapshots: feed.subscribe(),
            ended: Box::pin(std::future::pending()),
        })
    }
}

fn report() -> (Report, Vec<StreamReport>) {
    let report = Report::default();
    let streams = ["a", "b"].map(|node| report.connect(Arc::new(Fixed(node))));
    (report, streams.into())
}

fn ask(status: &ClientStatus, text: &str) -> (StatusCode, Value) {
    let (code, answer) = status.poll(&Extensions::new(), text.as_bytes());
    (code, serde_json::from_str(&answer).unwrap_or(Value::String(answer)))
}

fn nodes(answer: &Value) -> Vec<&str> {
    let configs = answer["config"].as_array().map(Vec::as_slice).unwrap_or_default();
    configs.iter().filter_map(|config| config["node"]["id"].as_str()).collect()
}

#[test]
fn every_state_has_its_words_and_no_secret_is_shown() {
    let (report, _streams) = report();
    let status = ClientStatus::of_all(report);
    let (code, answer) = ask(&status, r#"{"nodeMatchers": [{"nodeId": {"exact": "a"}}]}"#);
    assert_eq!((code, nodes(&answer)), (StatusCode::OK, vec!["a"]));
    let configs = &answer["config"][0]["generic_xds_configs"];
    let line = |config: &Value| {
        let text = |field: &str| config[field].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("name"), text("config_status"), text("client_status"))
    };
    let lines: Vec<_> = configs.as_array().expect("a list").iter().map(line).collect();
    let expected = ["identity SYNCED ACKED", "a STALE REQUESTED", "l ERROR NACKED", "gone NOT_SENT DOES_NOT_EXIST"];
    assert_eq!(lines, expected);
    assert_eq!(configs[2]["error_state"]["details"], "no such filter");
    assert!(configs[0].get("xds_config").is_none(), "a secret stays one");
    assert_eq!(configs[1]["xds_config"]["@type"], Kind::Cluster.type_url());
    let (_, bare) = ask(&status, r#"{"exclude_resource_contents": true}"#);
    assert_eq!(nodes(&bare), ["a", "b"]);
    assert!(bare["config"][0]["generic_xds_configs"][1].get("xds_config").is_none());
}

#[test]
fn a_proxy_sees_itself_alone() {
    let (report, _streams) = report();
    let directory = Arc::new(OnlyA(Mutex::default()));
    let status = ClientStatus::of_oneself(report, Arc::clone(&directory) as Arc<dyn Directory>);
    let (code, answer) = ask(&status, r#"{"node": {"id": "a", "extensions": [{"name": "x"}]}, "other": 1}"#);
    assert_eq!((code, nodes(&answer)), (StatusCode::OK, vec!["a"]));
    assert_eq!(ask(&status, r#"{"node": {"id": "b"}}"#).0, StatusCode::FORBIDDEN);
    assert_eq!(ask(&status, "{}").0, StatusCode::BAD_REQUEST);
    assert_eq!(*directory.0.lock().expect("no panic"), ["a", "b"]);
}

#[test]
fn what_is_no_question_is_told_why() {
    let status = ClientStatus::of_all(Report::default());
    for (text, code) in [
        ("", StatusCode::OK),
        ("[]", StatusCode::BAD_REQUEST),
        ("{", StatusCode::BAD_REQUEST),
        (r#"{"nodeMatchers": 1}"#, StatusCode::BAD_REQUEST),
        (r#"{"nodeMatchers": [{"nodeId": {"safeRegex": {"regex": "a"}}}]}"#, StatusCode::NOT_IMPLEMENTED),
    ] {
        assert_eq!(ask(&status, text).0, code, "{text}");
    }
}
