//! What goes wrong: the control plane dies, a proxy refuses a resource.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::shop::{INVENTORY, SOON, Shop, rule};
use conformance::harness::{EnvoyProxy, Load, eventually};
use serde_json::Value;

fn strict() -> String {
    rule("MTLSPolicy", "shop", "target: {scope: namespace}\nmode: strict")
}

/// Every dynamic resource of an Envoy with the version and the time of its last change.
async fn held(envoy: &EnvoyProxy) -> anyhow::Result<BTreeMap<String, (Value, Value)>> {
    fn walk(value: &Value, found: &mut BTreeMap<String, (Value, Value)>) {
        match value {
            Value::Object(members) => {
                if let (Some(version), Some(updated)) = (members.get("version_info"), members.get("last_updated")) {
                    let body = ["cluster", "listener", "route_config", "secret", "name"];
                    let body = body.iter().find_map(|name| members.get(*name)).unwrap_or(&Value::Null);
                    let name = body.get("name").unwrap_or(body).to_string();
                    found.insert(name, (version.clone(), updated.clone()));
                }
                members.values().for_each(|member| walk(member, found));
            }
            Value::Array(elements) => elements.iter().for_each(|element| walk(element, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = BTreeMap::new();
    walk(&envoy.config_dump().await?, &mut found);
    ensure!(found.len() >= 3, "an Envoy holds resources: {found:?}");
    Ok(found)
}

#[tokio::test]
async fn a_control_plane_that_dies_and_returns_under_load_fails_no_request_and_changes_nothing() -> anyhow::Result<()> {
    let mut shop = Shop::start(&strict(), &[]).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 100)?;
    let before = [held(&shop.envoys[0]).await?, held(&shop.envoys[1]).await?];
    for pause in [0, 1500] {
        shop.chancery.kill();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        shop.chancery.restart().await?;
        shop.chancery.in_sync(4).await?;
    }
    let after = [held(&shop.envoys[0]).await?, held(&shop.envoys[1]).await?];
    assert_eq!(before, after, "what was held has neither another version nor a later change");
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.ok > 100, "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn an_orderly_stop_ends_well_and_quickly() -> anyhow::Result<()> {
    let mut shop = Shop::start(&strict(), &[]).await?;
    let started = std::time::Instant::now();
    ensure!(shop.chancery.terminate().await?, "exit code 0");
    ensure!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(shop.get("/cart").await?.status, 200, "traffic goes on without a control plane");
    Ok(())
}

#[tokio::test]
async fn a_refused_listener_leaves_the_rest_working_and_names_its_rule_and_line() -> anyhow::Result<()> {
    let shop = Shop::start(&strict(), &[]).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 50)?;
    // Somebody else listens where web's proxy is told to.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let inventory = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let call = format!("calls: [{{service: web, port: http, listen: \"{address}\"}}, ");
    let line = inventory.lines().position(|line| line.contains("calls: [")).context("web calls")? + 1;
    shop.chancery.write_rules(INVENTORY, &inventory.replace("calls: [", &call))?;
    let nack = eventually(SOON, "the refusal", async || {
        let nacks = shop.chancery.json("/api/v1/nacks").await?;
        nacks["nacks"].get(0).cloned().with_context(|| nacks.to_string())
    })
    .await?;
    assert_eq!(nack["workload"], "shop/web");
    assert_eq!(nack["type"], "LDS");
    assert_eq!(nack["resources"], serde_json::json!(["out/shop/web/http"]));
    ensure!(nack["reason"].as_str().is_some_and(|reason| reason.contains("Address already in use")), "{nack}");
    let origin = nack["rules"].as_array().into_iter().flatten().find(|rule| rule["object"] == "Workload shop/web");
    let origin = origin.with_context(|| format!("no Workload in {nack}"))?;
    ensure!(origin["file"].as_str().is_some_and(|file| file.ends_with(INVENTORY)), "{origin}");
    assert_eq!(origin["line"], line, "{origin}");

    let listing = shop.chancery.run(&["nacks", "--admin-address", &shop.chancery.admin_address().to_string()]).await?;
    assert_eq!(listing.status.code(), Some(1));
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    ensure!(text.contains("out/shop/web/http") && text.contains(&format!("{INVENTORY}:{line}")), "{text}");

    // The same bytes are not sent again and again.
    let sent = async || -> anyhow::Result<u64> {
        let proxies = shop.chancery.json("/api/v1/proxies").await?;
        let web = proxies["proxies"].as_array().into_iter().flatten().find(|p| p["workload"] == "shop/web").cloned();
        web.and_then(|web| web["types"]["LDS"]["responses"].as_u64()).context("a count of responses")
    };
    let once = sent().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sent().await?, once);

    // Other changes still arrive, also at this proxy.
    let slow = rule("TrafficRoute", "cart", "for: {service: cart}\nhttp: [{to: [{service: cart, version: v2}]}]");
    shop.write_policies(&(strict() + &slow))?;
    eventually(SOON, "a route that arrives beside the refusal", async || {
        ensure!(shop.get("/cart").await?.echo()?.version == "v2", "still v1");
        Ok(())
    })
    .await?;

    let stands = shop.chancery.json("/api/v1/nacks").await?;
    assert_eq!(stands["nacks"][0]["resources"], serde_json::json!(["out/shop/web/http"]), "{stands}");

    shop.chancery.write_rules(INVENTORY, &inventory)?;
    shop.chancery.in_sync(4).await?;
    let nacks = shop.chancery.json("/api/v1/nacks").await?;
    assert_eq!(nacks["total"], 0, "{nacks}");
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.ok > 50, "{counts:?}");
    Ok(())
}

/// A refusal stands until its resource is accepted, changed or gone, whatever else is accepted meanwhile.
async fn a_refusal_stands(protocol: &[&str]) -> anyhow::Result<()> {
    let shop = Shop::start_with(&strict(), &[], protocol).await?;
    let inventory = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    // In one response: a listener that is refused, one that is not, and, since a service called twice is named
    // otherwise, the end of a third.
    let free = chancery::ports::Port::reserve()?;
    let call = |address: &str| format!("calls: [{{service: cart, port: http, listen: \"{address}\"}}, ");
    let refused = inventory.replace("calls: [", &call(&address.to_string()));
    shop.chancery.write_rules(INVENTORY, &refused)?;
    let name = format!("out/shop/cart/http@{address}");
    let stands = async || -> anyhow::Result<()> {
        let nacks = shop.chancery.json("/api/v1/nacks").await?;
        ensure!(nacks["nacks"][0]["resources"] == serde_json::json!([name]), "{nacks}");
        let proxies = shop.chancery.json("/api/v1/proxies").await?;
        ensure!(proxies["inSync"] == 3, "{proxies}");
        Ok(())
    };
    eventually(SOON, "the refusal", stands).await?;
    // Another listener of the same proxy changes, and is accepted.
    let web = shop.chancery.json("/api/v1/proxies").await?;
    let responses = |proxies: &Value| {
        let web = proxies["proxies"].as_array().into_iter().flatten().find(|p| p["workload"] == "shop/web").cloned();
        web.and_then(|web| web["types"]["LDS"]["responses"].as_u64()).unwrap_or_default()
    };
    let before = responses(&web);
    let moved = refused.replace(&shop.web_store().to_string(), &free.loopback().to_string());
    shop.chancery.write_rules(INVENTORY, &moved)?;
    eventually(SOON, "the other listener", async || {
        ensure!(tokio::net::TcpStream::connect(free.loopback()).await.is_ok(), "not yet");
        ensure!(responses(&shop.chancery.json("/api/v1/proxies").await?) > before, "not yet");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stands().await?;
    // The rule is mended: so is the refusal.
    shop.chancery.write_rules(INVENTORY, &inventory)?;
    shop.chancery.in_sync(4).await?;
    assert_eq!(shop.chancery.json("/api/v1/nacks").await?["total"], 0);
    Ok(())
}

#[tokio::test]
async fn a_refusal_stands_while_others_are_accepted() -> anyhow::Result<()> {
    a_refusal_stands(&[]).await
}

#[tokio::test]
async fn a_refusal_stands_in_the_state_of_the_world_too() -> anyhow::Result<()> {
    a_refusal_stands(&["--sotw"]).await
}

#[tokio::test]
async fn a_service_that_is_deleted_takes_nothing_else_from_its_callers() -> anyhow::Result<()> {
    let shop = Shop::start(&strict(), &[]).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 50)?;
    let inventory = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let store = "apiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {name: store, namespace: shop}";
    let gone = inventory.replace(store, &store.replace("name: store", "name: renamed"));
    ensure!(gone != inventory, "the store is declared otherwise");
    shop.chancery.write_rules(INVENTORY, &gone)?;
    eventually(SOON, "the finding", async || {
        let findings = shop.chancery.json("/api/v1/findings").await?.to_string();
        ensure!(findings.contains("MX0101") && findings.contains("Workload shop/web"), "{findings}");
        Ok(())
    })
    .await?;
    // Web stays, and what is changed for the cart still reaches it.
    let route = rule("TrafficRoute", "cart", "for: {service: cart}\nhttp: [{to: [{service: cart, version: v2}]}]");
    shop.write_policies(&(strict() + &route))?;
    eventually(SOON, "the route", async || {
        ensure!(shop.get("/cart").await?.echo()?.version == "v2", "still v1");
        Ok(())
    })
    .await?;
    shop.chancery.in_sync(4).await?;
    shop.chancery.write_rules(INVENTORY, &inventory)?;
    eventually(SOON, "no finding", async || {
        let findings = shop.chancery.json("/api/v1/findings").await?;
        ensure!(findings["findings"].as_array().is_some_and(Vec::is_empty), "{findings}");
        Ok(())
    })
    .await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0, "{counts:?}");
    Ok(())
}

/// The cart goes by another name, in one write, for those who serve it and who call it; and back.
async fn a_renamed_service_loses_no_request(bootstrap: &[&str]) -> anyhow::Result<()> {
    let shop = Shop::start_with(&strict(), &[], bootstrap).await?;
    let url = format!("http://{}/", shop.web_cart());
    let loads = [Load::start(&url, 100)?, Load::connecting(&url, 50)?];
    let cart = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let basket = cart.replace("name: cart,", "name: basket,").replace("service: cart,", "service: basket,");
    ensure!(basket.matches("basket").count() == 4, "{basket}");
    for (inventory, name) in [(&basket, "basket"), (&cart, "cart")] {
        shop.chancery.write_rules(INVENTORY, inventory)?;
        for (envoy, listener) in [(&shop.envoys[0], "out"), (&shop.envoys[1], "in"), (&shop.envoys[2], "in")] {
            eventually(SOON, "the new name", async || {
                let listeners = envoy.text("/listeners").await?;
                ensure!(listeners.contains(&format!("{listener}/shop/{name}/http")), "{listeners}");
                Ok(())
            })
            .await?;
        }
        // What drains still leads somewhere.
        tokio::time::sleep(Duration::from_secs(10)).await;
        for load in &loads {
            let counts = load.counts();
            ensure!(counts.failed == 0, "{name}: {counts:?}");
        }
    }
    for load in loads {
        let counts = load.stop().await?;
        ensure!(counts.failed == 0 && counts.ok > 1_000, "{counts:?}");
    }
    shop.chancery.in_sync(4).await?;
    Ok(())
}

#[tokio::test]
async fn a_renamed_service_loses_no_request_by_delta() -> anyhow::Result<()> {
    a_renamed_service_loses_no_request(&[]).await
}

#[tokio::test]
async fn a_renamed_service_loses_no_request_by_sotw() -> anyhow::Result<()> {
    a_renamed_service_loses_no_request(&["--sotw"]).await
}
