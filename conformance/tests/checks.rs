//! What is done to requests before they are sent on, through real Envoys: cross-origin rules, faults and limits of rate,
//! each where a route asks for it and nowhere else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use conformance::harness::Echo;
use conformance::harness::shop::{Shop, client, rule};
use reqwest::{Client, Method};

async fn shop(rules: &str) -> anyhow::Result<(Shop, Client, String)> {
    let route =
        rule("TrafficRoute", "cart", &format!("for: {{service: cart}}\nhttp:\n{rules}\n- to: [{{service: cart}}]"));
    let shop = Shop::start(&route, &[]).await?;
    let here = format!("http://{}", shop.web_cart());
    Ok((shop, Client::builder().no_proxy().build()?, here))
}

#[tokio::test]
async fn a_browser_is_told_which_origins_may_read() -> anyhow::Result<()> {
    let (shop, client, here) = shop(
        r#"- match: [{path: {prefix: /browser}}]
  to: [{service: cart}]
  cors:
    allowOrigins: ["https://shop.example", {prefix: "https://dev."}, {regex: "https://[a-z]+\\.test"}]
    allowMethods: [GET, PUT]
    allowHeaders: [x-request]
    exposeHeaders: [x-answer]
    maxAge: 10m
    allowCredentials: true
- match: [{path: {prefix: /puts}, methods: [PUT], headers: {x-user: {present: true}}}]
  to: [{service: cart}]
  cors: {allowOrigins: ["https://shop.example"]}
- {match: [{path: {prefix: /public}}], to: [{service: cart}], cors: {allowOrigins: ["*"]}}"#,
    )
    .await?;
    let ask = async |path: &str, origin: &str| {
        let preflight = client.request(Method::OPTIONS, format!("{here}{path}"));
        let preflight = preflight.header("origin", origin).header("access-control-request-method", "PUT");
        let headers = preflight.send().await?.headers().clone();
        let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        anyhow::Ok([
            of("access-control-allow-origin"),
            of("access-control-allow-methods"),
            of("access-control-allow-headers"),
            of("access-control-max-age"),
            of("access-control-allow-credentials"),
        ])
    };
    let before = shop.v1.served() + shop.v2.served();
    for origin in ["https://shop.example", "https://dev.shop.example", "https://abc.test"] {
        let expected = [origin, "GET,PUT", "x-request", "600", "true"].map(|value| Some(value.to_owned()));
        assert_eq!(ask("/browser", origin).await?, expected, "{origin}");
    }
    assert_eq!(ask("/puts", "https://shop.example").await?[0].as_deref(), Some("https://shop.example"));
    assert_eq!(ask("/public", "https://any.where").await?[0].as_deref(), Some("https://any.where"));
    for origin in ["https://shop.example.evil", "https://abc1.test"] {
        assert_eq!(ask("/browser", origin).await?[0], None, "{origin}");
    }
    assert_eq!(shop.v1.served() + shop.v2.served(), before, "a preflight is answered by the proxy");
    assert_eq!(ask("/", "https://shop.example").await?[0], None, "nothing is said where no rule says it");
    assert_eq!(shop.v1.served() + shop.v2.served(), before + 1, "and the application is asked");
    let answer = client.get(format!("{here}/browser")).header("origin", "https://shop.example").send().await?;
    assert_eq!(answer.headers()["access-control-expose-headers"], "x-answer");
    Ok(())
}

#[tokio::test]
async fn what_goes_wrong_on_purpose_does_so_for_whom_it_is_meant() -> anyhow::Result<()> {
    let (shop, client, here) = shop(
        r#"- {match: [{path: {prefix: /chaos}}], to: [{service: cart}], fault: {abort: {status: 418}, onlyIfHeader: {x-chaos: "true"}}}
- {match: [{path: {prefix: /half}}], to: [{service: cart}], fault: {abort: {percent: 50, status: 503}}}
- {match: [{path: {prefix: /slow}}], to: [{service: cart}], fault: {delay: {fixed: 700ms}}}"#,
    )
    .await?;
    let status = async |path: &str, chaos: &str| {
        anyhow::Ok(client.get(format!("{here}{path}")).header("x-chaos", chaos).send().await?.status().as_u16())
    };
    let before = shop.v1.served() + shop.v2.served();
    assert_eq!(status("/chaos", "true").await?, 418);
    assert_eq!(shop.v1.served() + shop.v2.served(), before, "nobody was asked");
    assert_eq!((status("/chaos", "false").await?, status("/", "true").await?), (200, 200));
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(status("/half", "false").await? == 503);
    }
    // 200 draws at a half: five standard deviations are 35.
    assert!((65..=135).contains(&failed), "{failed} of 200");
    let began = Instant::now();
    assert_eq!(status("/slow", "false").await?, 200);
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_bucket_holds_so_many_requests_and_each_value_of_its_key_has_one() -> anyhow::Result<()> {
    let (_shop, client, here) = shop(
        r#"- {match: [{path: {prefix: /limited}}], to: [{service: cart}], rateLimit: {requests: 5, per: 10m}}
- {match: [{path: {prefix: /users}}], to: [{service: cart}], rateLimit: {requests: 3, per: 10m, key: {header: x-user}}}
- {match: [{path: {prefix: /here}}], to: [{service: cart}], rateLimit: {requests: 2, per: 10m, key: ip}}
- {match: [{path: {prefix: /refilled}}], to: [{service: cart}], rateLimit: {requests: 10, per: 1s}}"#,
    )
    .await?;
    let statuses = async |path: &str, user: Option<&str>, count: usize| {
        let mut statuses = Vec::new();
        for _ in 0..count {
            let request = client.get(format!("{here}{path}"));
            let request = user.iter().fold(request, |request, user| request.header("x-user", *user));
            statuses.push(request.send().await?.status().as_u16());
        }
        anyhow::Ok(statuses)
    };
    assert_eq!(statuses("/limited", None, 7).await?, [200, 200, 200, 200, 200, 429, 429]);
    for user in [Some("a"), Some("b"), None] {
        assert_eq!(statuses("/users", user, 4).await?, [200, 200, 200, 429], "{user:?}");
    }
    assert_eq!(statuses("/here", None, 3).await?, [200, 200, 429]);
    let refused = client.get(format!("{here}/limited")).send().await?;
    let told = |name: &str| refused.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    assert_eq!(told("x-ratelimit-remaining").as_deref(), Some("0"));
    assert!(told("x-ratelimit-limit").is_some_and(|limit| limit.starts_with('5')), "{refused:?}");
    assert!(told("x-ratelimit-reset").is_some(), "{refused:?}");
    assert_eq!(statuses("/", None, 20).await?, [200; 20]);
    let refilled = statuses("/refilled", None, 30).await?;
    assert!(refilled.contains(&429), "{refilled:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(statuses("/refilled", None, 2).await?, [200, 200], "it is refilled evenly");
    Ok(())
}

#[tokio::test]
async fn a_client_stays_at_its_endpoint_also_where_weights_share_clients_out() -> anyhow::Result<()> {
    let (_shop, _, here) = shop(
        r#"- {match: [{path: {prefix: /cookie}}], to: [{service: cart}], stickyBy: {cookie: cart-session}}
- match: [{path: {prefix: /split}}]
  to: [{service: cart, version: v1}, {service: cart, version: v2}]
  stickyBy: {cookie: cart-session}
- {match: [{path: {prefix: /header}}], to: [{service: cart}], stickyBy: {header: x-user}}"#,
    )
    .await?;
    // A client has a connection of its own.
    let client = client()?;
    let version = async |path: &str, name: &str, value: &str| {
        let answer = client.get(format!("{here}{path}")).header(name, value).send().await?;
        anyhow::Ok(answer.json::<Echo>().await?.version)
    };
    for path in ["/cookie", "/split"] {
        let mut seen = BTreeSet::new();
        for _ in 0..24 {
            let first = client.get(format!("{here}{path}")).send().await?;
            let cookie = first.headers()["set-cookie"].to_str()?.to_owned();
            assert!(cookie.starts_with("cart-session=") && cookie.contains("Path=/"), "{cookie}");
            assert!(cookie.contains("HttpOnly") && !cookie.contains("Max-Age"), "{cookie}");
            let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
            let mut at = first.json::<Echo>().await?.version;
            if path == "/split" {
                // Weights are decided about before a cookie is set.
                at = version(path, "cookie", &cookie).await?;
            }
            for _ in 0..4 {
                assert_eq!(version(path, "cookie", &cookie).await?, at, "{path}");
            }
            seen.insert(at);
        }
        assert_eq!(seen.len(), 2, "{path}: new clients come to both");
    }
    let mut seen = BTreeSet::new();
    for user in 0..16 {
        let user = format!("user-{user}");
        let at = version("/header", "x-user", &user).await?;
        for _ in 0..4 {
            assert_eq!(version("/header", "x-user", &user).await?, at, "{user}");
        }
        seen.insert(at);
    }
    assert_eq!(seen.len(), 2, "sixteen users at one of two endpoints");
    let mut without = BTreeSet::new();
    for _ in 0..30 {
        without.insert(version("/", "x-user", "user-1").await?);
    }
    assert_eq!(without.len(), 2, "no rule keeps anybody here");
    Ok(())
}
