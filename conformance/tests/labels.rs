//! Policies by labels, through real Envoys: what the proxies of some workloads take, and how callers come to each of them.

use std::collections::BTreeSet;

use anyhow::ensure;
use conformance::harness::shop::{SOON, Shop, rule};
use conformance::harness::{Echo, Load, eventually};
use reqwest::Client;

/// A client that opens a connection for each request.
fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().pool_max_idle_per_host(0).build()?)
}

/// Who answers 30 requests of web, or with which status it is refused, and whether web has shown who it is.
async fn answers(shop: &Shop, client: &Client) -> anyhow::Result<BTreeSet<(String, bool)>> {
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        let answer = client.get(format!("http://{}/cart", shop.web_cart())).send().await?;
        let status = answer.status();
        seen.insert(match answer.json::<Echo>().await {
            Ok(echo) => (echo.version, echo.headers.contains_key("x-forwarded-client-cert")),
            Err(_) => (status.as_u16().to_string(), false),
        });
    }
    Ok(seen)
}

async fn see(shop: &Shop, expected: &[(&str, bool)]) -> anyhow::Result<()> {
    let client = client()?;
    let expected: BTreeSet<_> = expected.iter().map(|(who, shown)| ((*who).to_owned(), *shown)).collect();
    eventually(SOON, "the answers of both", async || {
        let seen = answers(shop, &client).await?;
        ensure!(seen == expected, "{expected:?}: {seen:?}");
        Ok(())
    })
    .await
}

fn mtls(mode: &str) -> String {
    let of =
        |name: &str, target: &str, mode: &str| rule("MTLSPolicy", name, &format!("target: {target}\nmode: {mode}"));
    of("all", "{scope: namespace}", "strict") + &of("old", "{labels: {version: v1}}", mode)
}

#[tokio::test]
async fn callers_come_to_each_endpoint_as_it_takes_them_and_no_request_fails_on_the_way() -> anyhow::Result<()> {
    let shop = Shop::start(&mtls("disabled"), &[]).await?;
    see(&shop, &[("v1", false), ("v2", true)]).await?;
    // The one takes plaintext from anybody, the other does not.
    let client = client()?;
    assert_eq!(client.get(format!("http://{}/", shop.cart_v1())).send().await?.status(), 200);
    let load = Load::connecting(format!("http://{}/cart", shop.web_cart()), 50)?;
    shop.write_policies(&mtls("strict"))?;
    see(&shop, &[("v1", true), ("v2", true)]).await?;
    eventually(SOON, "plaintext ends", async || {
        ensure!(client.get(format!("http://{}/", shop.cart_v1())).send().await.is_err(), "it is taken");
        Ok(())
    })
    .await?;
    shop.write_policies(&mtls("disabled"))?;
    see(&shop, &[("v1", false), ("v2", true)]).await?;
    // Labels say nothing of it any more.
    shop.write_policies(&rule("MTLSPolicy", "all", "target: {scope: namespace}\nmode: strict"))?;
    see(&shop, &[("v1", true), ("v2", true)]).await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.ok > 50, "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_refused_and_limited_is_so_at_the_workloads_with_these_labels() -> anyhow::Result<()> {
    let strict = rule("MTLSPolicy", "all", "target: {scope: namespace}\nmode: strict");
    let access = rule("AccessPolicy", "v1", "target: {labels: {version: v1}}\ndefault: deny");
    let limit =
        rule("TrafficPolicy", "v2", "target: {labels: {version: v2}}\ninbound: {fault: {abort: {status: 418}}}");
    let shop = Shop::start(&strict, &[]).await?;
    see(&shop, &[("v1", true), ("v2", true)]).await?;
    shop.write_policies(&(strict.clone() + &access))?;
    see(&shop, &[("403", false), ("v2", true)]).await?;
    shop.write_policies(&(strict + &access + &limit))?;
    see(&shop, &[("403", false), ("418", false)]).await
}
