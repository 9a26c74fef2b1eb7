//! What a rule does with a request, through real Envoys: redirects, answers, rewrites, headers, copies, and what it
//! matches by query and template.

use anyhow::ensure;
use conformance::harness::shop::{SOON, Shop, rule};
use conformance::harness::{Echo, eventually};
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};

fn route(rules: &str) -> String {
    rule("TrafficRoute", "cart", &format!("for: {{service: cart}}\nhttp:\n{rules}"))
}

/// A client that goes nowhere by itself.
fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?)
}

async fn answer(request: RequestBuilder) -> anyhow::Result<(u16, HeaderMap, String)> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok((status, headers, response.text().await?))
}

async fn echo(request: RequestBuilder) -> anyhow::Result<(HeaderMap, Echo)> {
    let (status, headers, body) = answer(request).await?;
    ensure!(status == 200, "{status}: {body}");
    Ok((headers, serde_json::from_str(&body)?))
}

#[tokio::test]
async fn a_redirect_says_where_to_go_and_nobody_else_is_asked() -> anyhow::Result<()> {
    let shop = Shop::start(
        &route(
            r#"- {match: [{path: {exact: /tls}}], redirect: {scheme: https}}
- {match: [{path: {exact: /tls-there}}], redirect: {scheme: https, host: shop.example, port: 8443}}
- {match: [{path: {prefix: /old}}], redirect: {prefix: /new, code: 301}}
- {match: [{path: {prefix: /gone}}], redirect: {prefix: /, code: 307}}
- {match: [{path: {prefix: /text/}}], redirect: {prefix: /, code: 303}}
- {match: [{path: {prefix: /all}}], redirect: {host: shop.example, path: /welcome, code: 308}}
- {to: [{service: cart}]}"#,
        ),
        &[],
    )
    .await?;
    let (client, here) = (client()?, shop.web_cart());
    let port = here.port();
    let before = shop.v1.served() + shop.v2.served();
    for (path, status, location) in [
        ("/tls", 302, "https://127.0.0.1:443/tls".to_owned()),
        ("/tls-there", 302, "https://shop.example:8443/tls-there".to_owned()),
        ("/old", 301, format!("http://127.0.0.1:{port}/new")),
        ("/old/x?q=1", 301, format!("http://127.0.0.1:{port}/new/x?q=1")),
        ("/gone/x/y", 307, format!("http://127.0.0.1:{port}/x/y")),
        ("/gone", 307, format!("http://127.0.0.1:{port}/")),
        ("/text/x", 303, format!("http://127.0.0.1:{port}/x")),
        ("/all/of/it?q=1", 308, "http://shop.example/welcome?q=1".to_owned()),
    ] {
        let (seen, headers, _) = answer(client.get(format!("http://{here}{path}"))).await?;
        let to = headers.get("location").map(|to| to.to_str().unwrap_or_default().to_owned());
        assert_eq!((seen, to), (status, Some(location)), "{path}");
    }
    assert_eq!(shop.v1.served() + shop.v2.served(), before);
    echo(client.get(format!("http://{here}/older"))).await?;
    Ok(())
}

#[tokio::test]
async fn a_rule_answers_by_itself() -> anyhow::Result<()> {
    let shop = Shop::start(
        &route(
            r#"- {match: [{path: {exact: /healthz}}], respond: {status: 200, body: "all is 100% fine"}}
- {match: [{path: {prefix: /admin}}], respond: {status: 403}, headers: {response: {set: {x-why: "closed: 100%"}}}}
- {to: [{service: cart}]}"#,
        ),
        &[],
    )
    .await?;
    let (client, here) = (client()?, shop.web_cart());
    let (status, _, body) = answer(client.get(format!("http://{here}/healthz"))).await?;
    assert_eq!((status, body.as_str()), (200, "all is 100% fine"));
    let (status, headers, body) = answer(client.post(format!("http://{here}/admin/x"))).await?;
    assert_eq!((status, body.as_str(), headers["x-why"].to_str()?), (403, "", "closed: 100%"));
    echo(client.get(format!("http://{here}/healthz/more"))).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_is_made_into_what_the_rule_says() -> anyhow::Result<()> {
    let shop = Shop::start(
        &route(
            r#"- {match: [{path: {prefix: /api}}, {path: {prefix: /v1/}}], to: [{service: cart}], rewrite: {prefix: /, host: cart.internal}}
- {match: [{path: {prefix: /old}}], to: [{service: cart}], rewrite: {prefix: /new/}}
- {match: [{path: {prefix: /one}}], to: [{service: cart}], rewrite: {path: '/two\three'}}
- {match: [{path: {prefix: /users}}], to: [{service: cart}], rewrite: {regex: {pattern: "^/users/([^/]+)(.*)$", substitution: '/people\2/\1'}}}
- to: [{service: cart}]
  headers:
    request: {set: {X-Set: "50% %REQ(x-gone)%"}, add: {x-add: mine}, remove: [X-Gone]}
    response: {set: {x-set: "1", x-empty: ""}, remove: [content-type]}"#,
        ),
        &[],
    )
    .await?;
    let (client, here) = (client()?, shop.web_cart());
    for (path, becomes, host) in [
        ("/api", "/", "cart.internal"),
        ("/api/a/b?q=1", "/a/b?q=1", "cart.internal"),
        ("/v1/a", "/a", "cart.internal"),
        ("/old", "/new", ""),
        ("/old/a", "/new/a", ""),
        ("/one/more?q=1", "/two%5Cthree?q=1", ""),
        ("/users/7/orders", "/people/orders/7", ""),
    ] {
        let (_, echo) = echo(client.get(format!("http://{here}{path}"))).await?;
        // An application may see a backslash as it is, or escaped.
        assert_eq!(echo.path.replace('\\', "%5C"), becomes, "{path}");
        let expected = if host.is_empty() { here.to_string() } else { host.to_owned() };
        assert_eq!(echo.headers["host"], expected, "{path}");
    }
    let request = client.get(format!("http://{here}/cart"));
    let request = request.header("x-set", "theirs").header("x-add", "theirs").header("x-gone", "theirs");
    let (headers, echo) = echo(request).await?;
    assert_eq!((echo.headers["x-set"].as_str(), echo.headers["x-add"].as_str()), ("50% %REQ(x-gone)%", "theirs, mine"));
    assert_eq!(echo.headers.get("x-gone"), None);
    assert_eq!((headers["x-set"].to_str()?, headers["x-empty"].to_str()?), ("1", ""));
    assert_eq!(headers.get("content-type"), None);
    Ok(())
}

#[tokio::test]
async fn rules_match_by_query_and_by_template() -> anyhow::Result<()> {
    let shop = Shop::start(
        &route(
            r#"- {name: both, match: [{query: {beta: "true", user: {prefix: t-}}}], respond: {status: 201}}
- {name: id, match: [{query: {id: {regex: "[0-9]+"}, debug: {present: true}}}], respond: {status: 202}}
- {name: orders, match: [{path: {template: "/users/{id}/orders/*"}}], respond: {status: 203}}
- {name: files, match: [{path: {template: "/files/{rest=**}"}, query: {debug: {absent: true}}}], respond: {status: 205}}
- {to: [{service: cart}]}"#,
        ),
        &[],
    )
    .await?;
    let (client, here) = (client()?, shop.web_cart());
    for (path, status) in [
        ("/?beta=true&user=t-7", 201),
        ("/?beta=true&user=x", 200),
        ("/?beta=true", 200),
        ("/?id=42&debug=", 202),
        ("/?id=4x&debug=", 200),
        ("/?id=42", 200),
        ("/users/7/orders/8", 203),
        ("/users/7/orders", 200),
        ("/users/7/orders/8/9", 200),
        ("/files/a/b/c", 205),
        ("/files/a?debug=1", 200),
    ] {
        assert_eq!(answer(client.get(format!("http://{here}{path}"))).await?.0, status, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_copy_goes_to_whom_the_rule_names_and_its_answer_to_nobody() -> anyhow::Result<()> {
    let shop = Shop::start(
        &route(
            r"- {match: [{path: {prefix: /half}}], to: [{service: cart, version: v1}], mirror: {service: cart, version: v2, percent: 50}}
- {match: [{path: {prefix: /none}}], to: [{service: cart, version: v1}], mirror: {service: cart, version: v2, percent: 0}}
- {to: [{service: cart, version: v1}], mirror: {service: cart, version: v2}}",
        ),
        &[],
    )
    .await?;
    let (client, here) = (client()?, shop.web_cart());
    let all = |path: &'static str, count: usize| {
        let client = client.clone();
        async move {
            for _ in 0..count {
                let (_, echo) = echo(client.get(format!("http://{here}{path}"))).await?;
                ensure!(echo.version == "v1", "{echo:?}");
            }
            anyhow::Ok(())
        }
    };
    // What was sent before has arrived.
    let settled = async |copies: u64| {
        eventually(SOON, "the copies", async || {
            let served = shop.v2.served();
            ensure!(served == copies, "{served} of {copies}");
            Ok(())
        })
        .await
    };
    // The copies of what was asked at the start.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let before = shop.v2.served();
    all("/cart", 40).await?;
    settled(before + 40).await?;
    all("/none", 40).await?;
    all("/half", 400).await?;
    all("/cart", 1).await?;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let copies = shop.v2.served() - before - 41;
    // 400 draws at a half: five standard deviations are 50.
    ensure!((150..=250).contains(&copies), "{copies} of 400");
    Ok(())
}
