//! Routing through real Envoys: weights, matches, retries, live edits and broken ones.

use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::shop::{INVENTORY, POLICIES, SOON, Shop, rule};
use conformance::harness::{Load, eventually};

fn weights(v1: u32, v2: u32) -> String {
    rule(
        "TrafficRoute",
        "cart",
        &format!(
            "for: {{service: cart}}\nhttp:\n- name: split\n  to:\n  - {{service: cart, version: v1, weight: {v1}}}\n  \
             - {{service: cart, version: v2, weight: {v2}}}"
        ),
    )
}

async fn requests(load: &Load, count: u64) -> anyhow::Result<()> {
    let end = load.counts().requests() + count;
    eventually(Duration::from_secs(60), "enough requests", async || {
        let counts = load.counts();
        ensure!(counts.requests() >= end, "{counts:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_canary_gets_its_share_and_a_live_edit_moves_it_without_a_failed_request() -> anyhow::Result<()> {
    canary(Shop::start(&weights(90, 10), &[]).await?, "delta").await
}

#[tokio::test]
async fn a_canary_and_its_edits_are_the_same_in_the_state_of_the_world_protocol() -> anyhow::Result<()> {
    canary(Shop::start_with(&weights(90, 10), &[], &["--sotw"]).await?, "sotw").await
}

async fn canary(shop: Shop, protocol: &str) -> anyhow::Result<()> {
    let proxies = shop.chancery.json("/api/v1/proxies").await?;
    ensure!(proxies["proxies"].as_array().into_iter().flatten().all(|p| p["protocol"] == protocol), "{proxies}");
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 200)?;
    requests(&load, 1000).await?;
    let before = load.counts();
    let share = before.share("v2");
    // 1000 draws at 10 %: five standard deviations are under 5 %.
    ensure!((0.05..0.15).contains(&share), "v2 got {share}: {before:?}");

    for (v1, v2) in [(50, 50), (0, 100), (100, 0), (20, 80), (0, 1)] {
        shop.write_policies(&weights(v1, v2))?;
        requests(&load, 60).await?;
    }
    let from = load.counts().by_version.get("v1").copied().unwrap_or_default();
    requests(&load, 200).await?;
    let after = load.stop().await?;
    ensure!(after.by_version.get("v1").copied().unwrap_or_default() == from, "v1 is out: {after:?}");
    ensure!(after.failed == 0, "{after:?}");
    Ok(())
}

#[tokio::test]
async fn the_first_rule_that_matches_decides_and_no_match_is_a_404() -> anyhow::Result<()> {
    let policies = rule(
        "TrafficRoute",
        "cart",
        r#"for: {service: cart}
http:
- {name: testers, match: [{headers: {x-canary: "true"}}], to: [{service: cart, version: v2}]}
- {name: admin, match: [{path: {prefix: /admin}, methods: [GET]}], to: [{service: cart, version: v2}]}
- {name: exact, match: [{path: {exact: /exact}}], to: [{service: cart, version: v1}]}
- {name: regex, match: [{path: {regex: "/items/[0-9]+"}}], to: [{service: cart, version: v2}]}
- {name: cart, match: [{path: {prefix: /cart}}], to: [{service: cart, version: v1}]}"#,
    );
    let shop = Shop::start(&policies, &[]).await?;
    let expected = [
        ("/cart", Some("v1")),
        ("/cart/7?x=1", Some("v1")),
        ("/cartoon", None),
        ("/admin", Some("v2")),
        ("/admin/users", Some("v2")),
        ("/administrator", None),
        ("/exact", Some("v1")),
        ("/exact/more", None),
        ("/items/42", Some("v2")),
        ("/items/42?page=2", Some("v2")),
        ("/items/none", None),
        ("/", None),
    ];
    for (path, version) in expected {
        let answer = shop.get(path).await?;
        match version {
            Some(version) => assert_eq!(answer.echo()?.version, version, "{path}"),
            None => assert_eq!(answer.status, 404, "{path}"),
        }
    }
    for (value, version) in [("true", "v2"), ("false", "v1")] {
        let answer = shop.ask(shop.web_cart(), "/cart", &[("x-canary", value)]).await?;
        assert_eq!(answer.echo()?.version, version, "x-canary: {value}");
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_edit_is_reported_with_its_place_and_changes_nothing() -> anyhow::Result<()> {
    let mut shop = Shop::start(&weights(1, 0), &[]).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 100)?;
    let broken = [
        (weights(0, 1).replace("weight: 1", "weigth: 1"), "MX0201"),
        (weights(0, 1).replace("service: cart, version: v2", "service: crat, version: v2"), "MX0101"),
        (weights(0, 1).replace("  for:", "for:"), "MX02"),
        (weights(0, 1).replace("  http:", "\thttp:"), "MX02"),
        ("kind: [\n".to_owned(), "MX02"),
    ];
    for (text, code) in broken {
        shop.write_policies(&text)?;
        eventually(SOON, "the finding", async || {
            let findings = shop.chancery.json("/api/v1/findings").await?;
            let findings = findings["findings"].as_array().context("findings")?;
            let finding = findings.iter().find(|f| f["code"].as_str().is_some_and(|c| c.starts_with(code)));
            let finding = finding.with_context(|| format!("no {code} in {findings:?}"))?;
            let location = &finding["location"];
            ensure!(location["file"].as_str().is_some_and(|file| file.ends_with(POLICIES)), "{finding}");
            ensure!(location["line"].as_u64() > Some(0) && location["column"].as_u64() > Some(0), "{finding}");
            Ok(())
        })
        .await?;
        requests(&load, 20).await?;
    }
    // A restart while the edit is still broken changes nothing either.
    shop.chancery.restart().await?;
    shop.chancery.in_sync(4).await?;
    requests(&load, 50).await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.share("v1") == 1.0, "{counts:?}");

    shop.write_policies(&weights(0, 1))?;
    eventually(SOON, "the mended edit", async || {
        ensure!(shop.get("/cart").await?.echo()?.version == "v2", "still v1");
        Ok(())
    })
    .await?;
    let findings = shop.chancery.json("/api/v1/findings").await?;
    ensure!(findings["findings"].as_array().is_some_and(Vec::is_empty), "{findings}");
    Ok(())
}

#[tokio::test]
async fn a_retry_goes_to_another_endpoint_and_a_timeout_holds() -> anyhow::Result<()> {
    let retry = |attempts: u32| {
        rule(
            "TrafficRoute",
            "cart",
            &format!(
                "for: {{service: cart}}\nhttp:\n- to: [{{service: cart}}]\n  timeout: 500ms\n  \
                 retry: {{attempts: {attempts}, when: [\"503\", connect-failure, refused-stream]}}"
            ),
        )
    };
    let shop = Shop::start(&retry(3), &[]).await?;
    // The application of v2 is gone: its proxy answers 503 for it.
    let inventory = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let free = chancery::ports::Port::reserve()?;
    let dead = inventory.replace(&shop.v2.address().to_string(), &free.loopback().to_string());
    shop.chancery.write_rules(INVENTORY, &dead)?;
    shop.write_policies(&retry(0))?;
    eventually(SOON, "failures without a retry", async || {
        ensure!(shop.get("/cart").await?.status == 503, "v1 or still v2");
        Ok(())
    })
    .await?;
    shop.write_policies(&retry(3))?;
    eventually(SOON, "no failure with retries", async || {
        for _ in 0..20 {
            let answer = shop.get("/cart").await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        Ok(())
    })
    .await?;

    // Nobody answers at all: the timeout of the rule holds.
    let address = silent.local_addr()?.to_string();
    let mute = dead.replace(&free.loopback().to_string(), &address).replace(&shop.v1.address().to_string(), &address);
    shop.chancery.write_rules(INVENTORY, &mute)?;
    eventually(SOON, "a timeout", async || {
        let started = std::time::Instant::now();
        let answer = shop.get("/cart").await?;
        ensure!(answer.status == 504, "{answer:?}");
        ensure!((400..5000).contains(&started.elapsed().as_millis()), "after {:?}", started.elapsed());
        Ok(())
    })
    .await
}
