//! `describe`: every value of a service, with the rule that it came from.

use std::collections::BTreeSet;

use translators::describe::{self, Section, Subject, describe};
use translators::explain::explain;
use translators::mesh::{Mesh, Service, resolve};
use translators::name::RuleRef;
use translators::rules;

fn mesh(text: &str) -> Mesh {
    resolve::resolve(&rules::collect([rules::parse("rules.yaml", text)]).objects).mesh
}

/// The rules of every golden case.
fn cases() -> impl Iterator<Item = String> {
    let cases = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/cases")).expect("the cases");
    cases.map(|case| std::fs::read_to_string(case.expect("a case").path().join("1-rules.yaml")).expect("its rules"))
}

fn of_service(mesh: &Mesh, name: &str) -> Vec<Section> {
    describe(mesh, &Subject::Service(name.parse().expect("a name"))).expect("a service")
}

fn origins(sections: &[Section]) -> BTreeSet<&RuleRef> {
    sections.iter().flat_map(|section| &section.values).filter_map(|value| value.origin.as_ref()).collect()
}

fn lines(sections: &[Section], title: &str) -> Vec<String> {
    let values = sections.iter().filter(|section| section.title == title).flat_map(|section| &section.values);
    let origin = |origin: &Option<RuleRef>| origin.as_ref().map_or("built in".to_owned(), ToString::to_string);
    values
        .map(|value| format!("{} = {} <- {}", value.name, describe::shown(&value.value), origin(&value.origin)))
        .collect()
}

#[test]
fn every_origin_of_every_case_is_shown() {
    let of = |service: &Service| -> BTreeSet<RuleRef> {
        let of_port = |port: &translators::mesh::Port| -> Vec<RuleRef> {
            let outbound = port.outbound_of.values().chain([&port.outbound]).flat_map(|outbound| outbound.origins());
            let rules = port.routes.values().flat_map(|route| &route.rules);
            let routes = rules.flat_map(|rule| [&rule.origin, &rule.timeout.origin, &rule.retry.origin]).flatten();
            let all = outbound.chain(port.inbound.origins()).chain(routes).chain(&port.mtls.origin);
            all.chain(port.access.origins())
                .chain(port.tcp_routes.values().flat_map(|route| &route.rules).map(|rule| &rule.origin))
                .cloned()
                .collect()
        };
        service.ports.iter().flat_map(of_port).collect()
    };
    let mut shown = 0;
    for mesh in cases().map(|rules| mesh(&rules)) {
        for service in mesh.services.values() {
            let sections = of_service(&mesh, &service.name.to_string());
            let (all, described) = (of(service), origins(&sections));
            let missing: Vec<&RuleRef> = all.iter().filter(|origin| !described.contains(origin)).collect();
            assert_eq!(missing, Vec::<&RuleRef>::new(), "{}", service.name);
            shown += all.len();
        }
    }
    assert!(shown > 100, "the cases have rules: {shown}");
}

#[test]
fn a_service_is_described_port_by_port() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/cases/example-of-the-rule-language/1-rules.yaml");
    let mesh = mesh(&std::fs::read_to_string(example).expect("a case"));
    let sections = of_service(&mesh, "shop/cart");
    let titles: Vec<_> = sections.iter().map(|section| section.title.as_str()).collect();
    let of_port =
        ["port http", "port http, calls of everyone", "port http, what it takes", "port http, routes of everyone"];
    assert_eq!(titles, [&["service"], &of_port[..], &["callers"]].concat());
    let allow = "{from: [{identities: [spiffe://shop.example/ns/front/sa/web]}], \
                 to: [{methods: [GET, POST], paths: [/cart, /cart/*]}]}";
    assert_eq!(
        lines(&sections, "port http"),
        [
            &format!("access.allow.0 = {allow} <- AccessPolicy shop/cart /spec/allow/0"),
            "access.default = deny <- AccessPolicy shop/closed /spec/default",
            "mtls = strict <- MTLSPolicy shop/shop-strict /spec/mode",
            "number = 8080 <- MeshService shop/cart",
            "protocol = http <- MeshService shop/cart",
            "serverFirst = false <- MeshService shop/cart",
        ]
    );
    let to =
        "[{destination: shop/cart/http/version=v1, weight: 90}, {destination: shop/cart/http/version=v2, weight: 10}]";
    let retry = "{attempts: 2, perTryTimeout: 600ms, when: [connect-failure, reset, {status: 503}]}";
    assert_eq!(
        lines(&sections, "port http, routes of everyone"),
        [
            "testers.matches = [{headers: {x-canary: {exact: true}}}] <- TrafficRoute shop/cart /spec/http/0",
            "testers.retry = {attempts: 1, when: [connect-failure, refused-stream]} <- built in",
            "testers.timeout = 15s <- built in",
            "testers.to = [{destination: shop/cart/http/version=v2, weight: 1}] <- TrafficRoute shop/cart /spec/http/0",
            "default.matches = [] <- TrafficRoute shop/cart /spec/http/1",
            &format!("default.retry = {retry} <- TrafficRoute shop/cart /spec/http/1/retry"),
            "default.timeout = 2s <- TrafficRoute shop/cart /spec/http/1/timeout",
            &format!("default.to = {to} <- TrafficRoute shop/cart /spec/http/1"),
        ]
    );
    assert_eq!(
        lines(&sections, "callers"),
        ["front/web = http by 127.0.0.1:21111 <- Workload front/web /spec/calls/0"]
    );
}

#[test]
fn a_workload_is_described_by_what_it_serves_and_calls() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/cases/example-of-the-rule-language/1-rules.yaml");
    let mesh = mesh(&std::fs::read_to_string(example).expect("a case"));
    let web = describe(&mesh, &Subject::Workload("front/web".parse().expect("a name"))).expect("a workload");
    let titles: Vec<_> = web.iter().map(|section| section.title.as_str()).collect();
    assert_eq!(titles, ["workload", "serves", "calls"]);
    let call = "{listen: 127.0.0.1:21111, port: http, service: shop/cart}";
    assert_eq!(lines(&web, "calls"), [format!("shop/cart/http = {call} <- Workload front/web /spec/calls/0")]);
    let trust = "trustDomain = shop.example <- Mesh mesh-system/default /spec/trustDomain".to_owned();
    assert!(lines(&web, "workload").contains(&trust));
    let unknown = describe(&mesh, &Subject::Workload("front/web1".parse().expect("a name")));
    let choices = "front/web, shop/cart-v1, shop/cart-v2, shop/redis; did you mean \"front/web\"?";
    assert_eq!(
        unknown.map_err(|unknown| unknown.to_string()),
        Err(format!("no Workload front/web1 is in force; choices: {choices}"))
    );
}

#[test]
fn what_is_built_in_is_what_the_documentation_says() {
    let mesh = mesh(
        "apiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {name: cart, namespace: shop}\n\
         spec: {ports: [{name: http, port: 80, protocol: http}]}\n",
    );
    let sections = of_service(&mesh, "shop/cart");
    let outbound = "port http, calls of everyone";
    for (title, name, field) in [
        ("port http", "mtls", "Mesh.defaults.mtls"),
        ("port http", "access.default", "Mesh.defaults.access"),
        ("port http", "serverFirst", "MeshService.ports.serverFirst"),
        (outbound, "balancing", "TrafficPolicy.outbound.loadBalancing.policy"),
        (outbound, "slowStart", "TrafficPolicy.outbound.loadBalancing.slowStart"),
        (outbound, "breaker.maxConnections", "TrafficPolicy.outbound.circuitBreaker.maxConnections"),
        (outbound, "breaker.maxPendingRequests", "TrafficPolicy.outbound.circuitBreaker.maxPendingRequests"),
        (outbound, "breaker.maxRequests", "TrafficPolicy.outbound.circuitBreaker.maxRequests"),
        (outbound, "connectTimeout", "TrafficPolicy.outbound.timeouts.connect"),
        (outbound, "connectTimeout", "Mesh.defaults.connectTimeout"),
        (outbound, "idleTimeout", "TrafficPolicy.outbound.timeouts.idle"),
        (outbound, "requestTimeout", "TrafficPolicy.outbound.timeouts.request"),
        (outbound, "requestTimeout", "Mesh.defaults.timeout"),
        (outbound, "outliers.ejectFor", "TrafficPolicy.outbound.outlierDetection.ejectFor"),
        (outbound, "outliers.maxEjected", "TrafficPolicy.outbound.outlierDetection.maxEjectedPercent"),
        (outbound, "retryPercent", "TrafficPolicy.outbound.retryBudget.percent"),
        (outbound, "retryMinConcurrent", "TrafficPolicy.outbound.retryBudget.minConcurrent"),
    ] {
        let values = sections.iter().filter(|section| section.title == title).flat_map(|section| &section.values);
        let holds = values.filter(|value| value.name == name).map(|value| describe::shown(&value.value)).next();
        let said = explain(field).ok().and_then(|shown| shown.default);
        assert!(holds.is_some(), "{title} has no {name}");
        assert_eq!(holds, said, "{field}");
    }
}
