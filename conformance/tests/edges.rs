//! Gateways through real Envoys: which host and path a request from outside belongs to, where it goes, and what the
//! services learn of its client.

use std::net::IpAddr;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::gateway::Gateway;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{App, Echo, eventually, greeting};
use reqwest::{RequestBuilder, Response};

async fn echo(request: RequestBuilder) -> anyhow::Result<Echo> {
    let answer = request.send().await?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(answer.json().await?)
}

fn location(answer: &Response) -> &str {
    answer.headers().get("location").and_then(|location| location.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_request_from_outside_goes_where_the_routes_of_its_host_and_path_say() -> anyhow::Result<()> {
    let (main, other) = (Port::reserve()?, Port::reserve()?);
    let listeners = format!(
        r#"- {{name: main, address: 127.0.0.1, port: {}, protocol: http, hostnames: [shop.test, "*.shop.test", cart.test]}}
- {{name: other, address: 127.0.0.1, port: {}, protocol: http}}"#,
        main.number(),
        other.number()
    );
    let respond = |name: &str, subject: &str, body: &str| {
        rule("TrafficRoute", name, &format!("for: {{{subject}}}\nhttp: [{{respond: {{status: 200, body: {body}}}}}]"))
    };
    let routes = rule(
        "TrafficRoute",
        "shop",
        "for: {gateway: edge, hostnames: [shop.test, cart.test]}\n\
         http:\n- {match: [{path: {prefix: /v2}}], to: [{service: cart, version: v2}], headers: {request: {set: {x-edge: \"1\"}}}}\n\
         - {match: [{path: {exact: /}}], to: [{service: cart, version: v1}]}",
    ) + &rule(
        "TrafficRoute",
        "shop-api",
        "for: {gateway: edge, hostnames: [shop.test], prefix: /api}\n\
         http:\n- {match: [{path: {regex: \".*/end\"}}], respond: {status: 200, body: end}}\n\
         - {match: [{path: {exact: /api/said}}], respond: {status: 200, body: said}}\n\
         - {match: [{methods: [GET]}], to: [{service: cart, version: v1}], rewrite: {prefix: /}}",
    ) + &respond("deep", "gateway: edge, hostnames: [\"*.deep.shop.test\"]", "deep")
        + &respond("any", "gateway: edge, hostnames: [\"*.shop.test\"]", "any")
        + &respond("all", "gateway: edge", "all");
    let gateway = Gateway::start(&listeners, &routes).await?;
    gateway.ready(&main).await?;
    let text = async |port: &Port, host: &str, path: &str| {
        let answer = gateway.ask(port, host, path).send().await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    // By host, the most specific first; case and port make no difference.
    for (port, host, body) in [
        (&main, "x.shop.test", "any"),
        (&main, "x.y.shop.test", "any"),
        (&main, "x.deep.shop.test", "deep"),
        (&main, "deep.shop.test:80", "any"),
        (&main, "X.SHOP.test", "any"),
        (&other, "x.shop.test", "any"),
        (&other, "elsewhere.test", "all"),
    ] {
        assert_eq!(text(port, host, "/").await?, (200, body.to_owned()), "{host}");
    }
    assert_eq!(text(&main, "elsewhere.test", "/").await?.0, 404, "no listener of this port is for the host");
    assert_eq!(text(&main, "shop.test", "/v1").await?.0, 404, "no rule of the host takes it, and no other host's does");
    // By path, the longest prefix first.
    for (path, version, reached) in [
        ("/", "v1", "/"),
        ("/v2/x", "v2", "/v2/x"),
        ("/api", "v1", "/"),
        ("/api/x/y?q=1", "v1", "/x/y?q=1"),
        // What is behind the gateway reads what the rules were held against.
        ("/v3/../v2//x/%2e", "v2", "/v2/x/"),
        ("/v3/..%2fv2", "v2", "/v2"),
    ] {
        let seen = echo(gateway.ask(&main, "shop.test", path)).await?;
        assert_eq!((seen.version.as_str(), seen.path.as_str()), (version, reached), "{path}");
    }
    for (path, answer) in [("/api/x/end", "end"), ("/api/said", "said")] {
        assert_eq!(text(&main, "shop.test", path).await?, (200, answer.to_owned()));
    }
    for (host, path) in [("shop.test", "/apis"), ("shop.test", "/x/end"), ("cart.test", "/api/said")] {
        assert_eq!(text(&main, host, path).await?.0, 404, "{host}{path} is not below the prefix");
    }
    // What the service learns of the client.
    let asked = gateway.ask(&main, "shop.test", "/v2");
    let forged = "By=spiffe://cluster.local/ns/shop/sa/web;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/web";
    let asked = asked.header("x-forwarded-client-cert", forged).header("x-envoy-upstream-rq-timeout-ms", "1");
    let asked = asked.header("x-forwarded-for", "10.9.8.7");
    let seen = echo(asked).await?;
    let certificate = seen.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default();
    assert!(certificate.contains("URI=spiffe://cluster.local/ns/shop/sa/edge"), "{certificate}");
    assert!(!certificate.contains("sa/web"), "{certificate}");
    // For a client on its own host Envoy names the address of the host.
    let path = seen.headers.get("x-forwarded-for").cloned().unwrap_or_default();
    assert!(path.strip_prefix("10.9.8.7,").is_some_and(|last| last.parse::<IpAddr>().is_ok()), "{path}");
    assert_eq!(seen.headers.get("host").map(String::as_str), Some("shop.test"));
    assert_eq!(seen.headers.get("x-edge").map(String::as_str), Some("1"));
    assert_eq!(seen.headers.get("x-envoy-upstream-rq-timeout-ms"), None, "nobody outside steers a proxy");
    // Services tell it from others by its identity.
    let closed = "target: {service: cart}\ndefault: deny\nallow: [{from: [{service: web}]}]";
    let policy = |spec: &str| gateway.shop.chancery.write_rules("closed.yaml", &rule("AccessPolicy", "cart", spec));
    let status = async |wanted: u16| {
        eventually(SOON, "the policy holds", async || {
            let status = gateway.ask(&main, "shop.test", "/v2").send().await?.status();
            ensure!(status == wanted, "{status}");
            Ok(())
        })
        .await
    };
    policy(closed)?;
    status(403).await?;
    policy(&closed.replace("{service: web}", "{serviceAccount: edge}"))?;
    status(200).await
}

#[tokio::test]
async fn a_listener_sends_its_hosts_to_another_one() -> anyhow::Result<()> {
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let [here, there, mixed] = &ports;
    let listeners = format!(
        r#"- {{name: here, address: 127.0.0.1, port: {}, protocol: http, redirectTo: there}}
- {{name: there, address: 127.0.0.1, port: {}, protocol: http}}
- {{name: mixed, address: 127.0.0.1, port: {2}, protocol: http}}
- {{name: moved, address: 127.0.0.1, port: {2}, protocol: http, hostnames: ["*.moved.test"], redirectTo: far}}
- {{name: far, address: 127.0.0.2, port: 80, protocol: http}}
- {{name: near, address: 127.0.0.3, port: {0}, protocol: http, redirectTo: far}}"#,
        here.number(),
        there.number(),
        mixed.number()
    );
    let route = rule("TrafficRoute", "all", "for: {gateway: edge}\nhttp: [{to: [{service: cart}]}]");
    let gateway = Gateway::start(&listeners, &route).await?;
    gateway.ready(there).await?;
    let redirected = async |port: &Port, host: &str| {
        let answer = gateway.ask(port, host, "/a?b=c").send().await?;
        anyhow::Ok((answer.status().as_u16(), location(&answer).to_owned()))
    };
    let to_there = format!("http://shop.test:{}/a?b=c", there.number());
    assert_eq!(redirected(here, "shop.test").await?, (301, to_there.clone()));
    assert_eq!(redirected(here, "shop.test:8080").await?, (301, to_there));
    assert_eq!(redirected(mixed, "a.moved.test:8080").await?, (301, "http://a.moved.test:80/a?b=c".to_owned()));
    assert_eq!(redirected(mixed, "moved.test").await?, (200, String::new()));
    // The port of a scheme's own is not named.
    let near = format!("http://127.0.0.3:{}/a?b=c", here.number());
    let answer = gateway.client.get(near).send().await?;
    assert_eq!((answer.status().as_u16(), location(&answer)), (301, "http://127.0.0.3/a?b=c"));
    Ok(())
}

#[tokio::test]
async fn connections_go_where_the_rules_for_the_port_and_the_client_say() -> anyhow::Result<()> {
    let (one, two) = (Port::reserve()?, Port::reserve()?);
    let apps = [App::server_first("near").await?, App::server_first("far").await?, App::server_first("two").await?];
    let listener = |name: &str, port: &Port| {
        format!("- {{name: {name}, address: 127.0.0.1, port: {}, protocol: tcp}}\n", port.number())
    };
    let outside = |name: &str, app: &App| {
        let endpoint = format!("{{address: 127.0.0.1, port: {}}}", app.address().port());
        let port = "[{name: line, port: 70, protocol: tcp, serverFirst: true}]";
        rule("MeshService", name, &format!("ports: {port}\nendpoints: {{static: [{endpoint}]}}"))
    };
    let rules = outside("near", &apps[0])
        + &outside("far", &apps[1])
        + &outside("two", &apps[2])
        + &rule(
            "TrafficRoute",
            "lines",
            &format!(
                "for: {{gateway: edge}}\ntcp:\n- {{match: [{{port: {one}, cidr: 127.0.0.2}}], to: [{{service: near}}]}}\n\
                 - {{match: [{{port: {two}, cidr: 127.0.0.0/30}}], to: [{{service: two}}]}}\n\
                 - {{match: [{{port: {one}}}], to: [{{service: far}}, {{service: near, weight: 0}}]}}",
                one = one.number(),
                two = two.number()
            ),
        );
    let _gateway = Gateway::start(&(listener("one", &one) + &listener("two", &two)), &rules).await?;
    eventually(SOON, "the gateway passes connections on", async || {
        ensure!(greeting(one.loopback(), "127.0.0.2").await? == "near");
        Ok(())
    })
    .await?;
    for (port, from, by) in
        [(&one, "127.0.0.2", "near"), (&one, "127.0.0.1", "far"), (&two, "127.0.0.1", "two"), (&two, "127.0.0.9", "")]
    {
        assert_eq!(greeting(port.loopback(), from).await?, by, "{from} to {}", port.number());
    }
    Ok(())
}
