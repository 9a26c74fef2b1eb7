//! EnvoyPatches through real Envoys: what is changed acts, on those whom it is for, and goes again.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, Shop, cart_alone, client, rule};
use conformance::harness::{App, Chancery, EnvoyProxy, EnvoySource, eventually};
use futures::future::join_all;
use serde_json::Value;

/// A filter that says `value` of itself in every answer.
fn lua(name: &str, value: &str) -> String {
    format!(
        "{{name: {name}, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, \
         default_source_code: {{inline_string: \"function envoy_on_response(h) h:headers():add('x-{name}', '{value}') end\"}}}}}}"
    )
}

fn patch(name: &str, head: &str, edits: &[String]) -> String {
    rule("EnvoyPatch", name, &format!("{head}\npatches: [{}]", edits.join(", ")))
}

fn edit(resource: &str, direction: &str, op: &str, value: &str) -> String {
    format!("{{resource: {resource}, match: {{direction: {direction}}}, op: {op}, value: {value}}}")
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let response = client()?.get(format!("http://{address}{path}")).send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}

/// Waits until an answer from `address` has, or has not, a header.
async fn says(address: SocketAddr, header: &str, value: Option<&str>) -> anyhow::Result<()> {
    eventually(SOON, header, async || {
        let answer = get(address, "/cart").await?;
        let said = answer.headers.get(header).map(|value| value.to_str().map(str::to_owned)).transpose()?;
        ensure!(answer.status == 200 && said.as_deref() == value, "{} {said:?}", answer.status);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn filters_act_where_they_are_put_and_go_again() -> anyhow::Result<()> {
    let filters = [
        edit("httpFilter", "inbound", "add", &lua("in", "cart")),
        edit("httpFilter", "outbound", "add", &lua("out", "web")),
    ];
    let shop = Shop::start(&patch("filters", "target: {service: cart}", &filters), &[]).await?;
    says(shop.web_cart(), "x-in", Some("cart")).await?;
    says(shop.web_cart(), "x-out", Some("web")).await?;
    // Who calls past web's proxy has met the cart's alone.
    says(shop.cart_v1(), "x-in", Some("cart")).await?;
    says(shop.cart_v1(), "x-out", None).await?;
    let replaced = lua("out", "again").replace("name: out, ", "");
    let more = format!(
        "{{resource: httpFilter, match: {{name: \"patch/*/out\"}}, op: replace, value: {replaced}}}, \
         {{resource: httpFilter, match: {{name: \"patch/*/in\"}}, op: remove}}"
    );
    let more = patch("more", "target: {scope: namespace}\npriority: 1", &[more]);
    shop.write_policies(&(patch("filters", "target: {service: cart}", &filters) + &more))?;
    says(shop.web_cart(), "x-out", Some("again")).await?;
    says(shop.web_cart(), "x-in", None).await?;
    shop.write_policies("")?;
    says(shop.web_cart(), "x-out", None).await?;
    assert_eq!(shop.chancery.json("/api/v1/nacks").await?["total"], 0);
    Ok(())
}

#[tokio::test]
async fn routes_clusters_and_listeners_are_changed() -> anyhow::Result<()> {
    let port = Port::reserve()?;
    let hello = "{name: hello, match: {path: /hello}, direct_response: {status: 203, body: {inline_string: hello}}}";
    let breaker = "{circuit_breakers: {thresholds: [{max_requests: 1, max_pending_requests: 1, max_connections: 1}]}}";
    let cluster = "{name: own, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: own, endpoints: \
                   [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: APP}}}}]}]}}";
    let listener = "{name: own, address: {socket_address: {address: 127.0.0.1, port_value: PORT}}, filter_chains: [{filters: \
                    [{name: tcp, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
                    stat_prefix: own, cluster: patch/shop/all/own}}]}]}";
    let app = App::http("own").await?;
    let cluster = cluster.replace("APP", &app.address().port().to_string());
    let listener = listener.replace("PORT", &port.loopback().port().to_string());
    let edits = [
        edit("route", "outbound", "insertBefore", hello),
        edit(
            "virtualHost",
            "outbound",
            "merge",
            "{response_headers_to_add: [{header: {key: x-host, value: patched}}]}",
        ),
        edit("cluster", "outbound", "merge", "{circuit_breakers: null}"),
        edit("cluster", "outbound", "merge", breaker),
        edit("cluster", "outbound", "add", &cluster),
        edit("listener", "outbound", "add", &listener),
    ];
    let shop = Shop::start(&patch("all", "target: {service: cart}", &edits), &[]).await?;
    let answer = get(shop.web_cart(), "/hello").await?;
    assert_eq!((answer.status, answer.body.as_str()), (203, "hello"));
    says(shop.web_cart(), "x-host", Some("patched")).await?;
    let client = client()?;
    let slow = async || {
        let request = client.get(format!("http://{}/cart", shop.web_cart())).header("x-wait", "1500");
        anyhow::Ok(request.send().await?.status().as_u16())
    };
    let answers: Vec<u16> = join_all((0..6).map(|_| slow())).await.into_iter().collect::<anyhow::Result<_>>()?;
    assert!(answers.contains(&200) && answers.contains(&503), "{answers:?}");
    let own = get(port.loopback(), "/cart").await?;
    assert!(own.status == 200 && own.body.contains("own"), "{}", own.body);
    // What callers have of the cart goes away.
    let gone = "{resource: listener, match: {direction: outbound, name: out/shop/cart/*}, op: remove}".to_owned();
    shop.write_policies(&patch("all", "target: {service: cart}", &[gone]))?;
    eventually(SOON, "nobody listens", async || {
        ensure!(
            get(shop.web_cart(), "/cart").await.is_err() && get(port.loopback(), "/").await.is_err(),
            "somebody does"
        );
        Ok(())
    })
    .await?;
    assert_eq!(shop.chancery.json("/api/v1/nacks").await?["total"], 0);
    Ok(())
}

async fn finding(chancery: &Chancery, code: &str) -> anyhow::Result<Value> {
    let findings = chancery.json("/api/v1/_analyze").await?;
    let found = findings["findings"].as_array().into_iter().flatten().find(|finding| finding["code"] == code);
    Ok(found.with_context(|| findings.to_string())?.clone())
}

#[tokio::test]
async fn a_patch_is_for_the_versions_that_it_names() -> anyhow::Result<()> {
    let (new, old) = (Port::reserve()?, Port::reserve()?);
    let app = App::http("v1").await?;
    let serves =
        format!("serves: [{{service: cart, port: http, listen: \"{}\", app: \"{}\"}}]", old.loopback(), app.address());
    let rules = cart_alone("new", new.loopback(), app.address()) + &rule("Workload", "old", &serves);
    let filter = [edit("httpFilter", "inbound", "add", &lua("in", "cart"))];
    let of_versions = |range: &str| patch("filter", &format!("target: {{service: cart}}\nenvoy: \"{range}\""), &filter);
    let chancery = Chancery::start(&[("rules.yaml", &rules), ("patch.yaml", &of_versions(">=1.38"))], &[]).await?;
    let _new = EnvoyProxy::start(&chancery, "shop/new", &[]).await?;
    let source = EnvoySource::release("1.36.4").await?;
    let mut of_old = EnvoyProxy::launch(&source, &chancery, "shop/old", &[]).await?;
    of_old.live().await?;
    chancery.in_sync(2).await?;
    says(new.loopback(), "x-in", Some("cart")).await?;
    says(old.loopback(), "x-in", None).await?;
    chancery.write_rules("patch.yaml", &of_versions("<1.37"))?;
    says(new.loopback(), "x-in", None).await?;
    says(old.loopback(), "x-in", Some("cart")).await?;
    chancery.write_rules("patch.yaml", &of_versions("=1.37"))?;
    says(old.loopback(), "x-in", None).await?;
    let finding = finding(&chancery, "MX0603").await?;
    assert_eq!(finding["object"], "EnvoyPatch shop/filter", "{finding}");
    assert!(
        finding["message"].as_str().is_some_and(|said| said.contains("1.36") && said.contains("=1.37")),
        "{finding}"
    );
    Ok(())
}

#[tokio::test]
async fn what_envoy_refuses_is_said_with_its_line_and_changes_nothing() -> anyhow::Result<()> {
    let shop = Shop::start("", &[]).await?;
    let bad = lua("in", "x").replace("function envoy_on_response(h)", "this is no lua");
    shop.write_policies(&patch("bad", "target: {service: cart}", &[edit("httpFilter", "inbound", "add", &bad)]))?;
    let nack = eventually(SOON, "the refusal", async || {
        let nacks = shop.chancery.json("/api/v1/nacks").await?;
        let nack = nacks["nacks"].get(0).with_context(|| nacks.to_string())?;
        Ok(nack.clone())
    })
    .await?;
    let rules = nack["rules"].as_array().context("rules")?;
    let of_patch =
        rules.iter().find(|rule| rule["object"] == "EnvoyPatch shop/bad").with_context(|| nack.to_string())?;
    assert_eq!(of_patch["pointer"], "/spec/patches/0");
    assert!(of_patch["file"].as_str().is_some_and(|file| file.ends_with("policies.yaml")), "{nack}");
    assert!(of_patch["line"].as_u64() > Some(1), "{nack}");
    says(shop.web_cart(), "x-in", None).await?;
    shop.write_policies("")?;
    eventually(SOON, "nothing is refused any more", async || {
        ensure!(shop.chancery.json("/api/v1/nacks").await?["total"] == 0, "it is");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_bootstrap_is_patched() -> anyhow::Result<()> {
    let listen = Port::reserve()?;
    let app = App::http("v1").await?;
    let runtime = "{resource: bootstrap, op: merge, value: {layered_runtime: {layers: [{name: patch, static_layer: \
                   {patched.by.us: 7}}]}}}"
        .to_owned();
    let of = |name: &str, range: &str| {
        patch(name, &format!("target: {{labels: {{version: v1}}}}{range}"), std::slice::from_ref(&runtime))
    };
    let rules =
        cart_alone("cart", listen.loopback(), app.address()).replace("serves:", "labels: {version: v1}\n  serves:");
    let chancery = Chancery::start(&[("rules.yaml", &rules), ("patch.yaml", &of("any", ""))], &[]).await?;
    eventually(SOON, "the rules are on disk", async || {
        ensure!(chancery.bootstrap("shop/cart", &[]).await?.contains("patched.by.us"), "not yet");
        Ok(())
    })
    .await?;
    let envoy = EnvoyProxy::start(&chancery, "shop/cart", &[]).await?;
    chancery.in_sync(1).await?;
    let layers = envoy.text("/runtime").await?;
    assert!(layers.contains("patched.by.us"), "{layers}");
    // Where the version is not known, a patch that is not for any is left out.
    chancery.write_rules("patch.yaml", &of("newer", "\nenvoy: \">=1.38\""))?;
    eventually(SOON, "the rules are on disk", async || {
        ensure!(!chancery.bootstrap("shop/cart", &[]).await?.contains("patched.by.us"), "not yet");
        Ok(())
    })
    .await?;
    for (version, is_for) in [("1.37", false), ("1.38", true)] {
        let printed = chancery.bootstrap("shop/cart", &["--envoy-version", version]).await?;
        assert_eq!(printed.contains("patched.by.us"), is_for, "{version}");
    }
    Ok(())
}
