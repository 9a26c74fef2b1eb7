//! `explain`: every field of every kind is explained, from its one definition, with an example that can be read.

use translators::explain::{self, Presence, every_field, explain};
use translators::name::ObjectKind;
use translators::rules;

fn all() -> impl Iterator<Item = explain::Explanation> {
    let fields = ObjectKind::ALL.into_iter().flat_map(|kind| [vec![kind.to_string()], every_field(kind)].concat());
    fields.map(|field| explain(&field).unwrap_or_else(|unknown| panic!("{field}: {unknown}")))
}

#[test]
fn every_field_is_described_and_every_optional_one_says_its_default() {
    let silent: Vec<String> = all()
        .filter(|shown| shown.meaning.is_empty() || (shown.presence == Presence::Optional && shown.default.is_none()))
        .map(|shown| format!("{}: {}", shown.field, shown.meaning))
        .collect();
    assert_eq!(silent, Vec::<String>::new(), "say `... by default`, or what holds where it is left out");
}

#[test]
fn every_example_is_a_document_that_can_be_read() {
    let mut wrong = Vec::new();
    for shown in all() {
        let parsed = rules::parse("example.yaml", &shown.example.to_string());
        wrong.extend(parsed.findings.iter().map(|finding| format!("{}: {finding}\n{}", shown.field, shown.example)));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn who_decides_where_a_field_is_left_out_is_a_field_that_exists() {
    let chain = |field: &str| explain(field).map(|shown| (shown.default, shown.default_from));
    let wider = "a TrafficPolicy with a wider target (route, port, service, namespace, mesh)".to_owned();
    let request = |first: &[&str]| {
        let further = [wider.clone(), "Mesh.spec.defaults.timeout".to_owned(), "built in: 15s".to_owned()];
        [first.iter().map(|field| (*field).to_owned()).collect(), further.to_vec()].concat()
    };
    let field = "TrafficPolicy.spec.outbound.timeouts.request";
    assert_eq!(chain("TrafficRoute.http.timeout"), Ok((Some("as policies say".to_owned()), request(&[field]))));
    assert_eq!(chain(field), Ok((Some("15s".to_owned()), request(&[]))));
    let attempts =
        ["TrafficPolicy.spec.outbound.retry.attempts", &wider, "Mesh.spec.defaults.retry.attempts", "built in: 1"];
    let attempts = (Some("1".to_owned()), attempts.map(str::to_owned).to_vec());
    assert_eq!(chain("TrafficRoute.http.retry.attempts"), Ok(attempts));
    assert_eq!(chain("MTLSPolicy.mode"), Ok((None, Vec::new())));
    for kind in ObjectKind::ALL {
        let schema = rules::schema::document(kind).to_string();
        let named = schema.split("\"x-default-from\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        named.for_each(|field| assert_eq!(explain(field).map(|shown| shown.field), Ok(field.to_owned())));
    }
}

#[test]
fn what_does_not_exist_is_said_with_what_does() {
    let said = |field: &str| explain(field).map(|shown| shown.field).map_err(|unknown| unknown.to_string());
    assert_eq!(
        said("MTLSPolicy.spec.mod"),
        Err("MTLSPolicy.spec has no field \"mod\"; choices: mode, target; did you mean \"mode\"?".to_owned())
    );
    let kinds = "Mesh, MeshService, Workload, EdgeGateway, TLSCertificate, EnvoySnapshot, TrafficRoute, TrafficPolicy, MTLSPolicy, AccessPolicy, TelemetryPolicy, EnvoyPatch";
    let unknown = format!("there is no kind \"Worklod\"; choices: {kinds}; did you mean \"Workload\"?");
    assert_eq!(said("Worklod.spec"), Err(unknown));
    assert_eq!(said("mtlspolicy.mode"), Ok("MTLSPolicy.spec.mode".to_owned()));
    assert_eq!(
        said("TrafficRoute.http[].match.headers.x-canary.regex"),
        said("TrafficRoute.spec.http.match.headers.x-canary.regex")
    );
    assert_eq!(said("MTLSPolicy.spec.mode.deeper"), Err("MTLSPolicy.spec.mode has no field \"deeper\"".to_owned()));
    assert_eq!(said("").map_err(|unknown| unknown.len()), Err(kinds.len() + "there is no kind \"\"; choices: ".len()));
}
