//! How calls are made, through real Envoys: each setting of a TrafficPolicy is seen to act.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::shop::{INVENTORY, SOON, Shop, client, listed, rule};
use conformance::harness::{App, Chancery, Echo, EnvoyProxy, eventually};
use futures::future::join_all;
use reqwest::{Client, Response};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

fn policy(outbound: &str) -> String {
    rule("TrafficPolicy", "cart", &format!("target: {{service: cart}}\noutbound: {outbound}"))
}

/// A shop in which the cart is called like this, and a client that opens a connection for each request.
async fn shop(outbound: &str) -> anyhow::Result<(Shop, Client, String)> {
    let shop = Shop::start(&policy(outbound), &[]).await?;
    let here = format!("http://{}/", shop.web_cart());
    Ok((shop, client()?, here))
}

async fn status(client: &Client, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<u16> {
    Ok(send(client, url, headers).await?.status().as_u16())
}

async fn send(client: &Client, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(*name, *value));
    Ok(request.send().await?)
}

async fn version(client: &Client, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<String> {
    Ok(send(client, url, headers).await?.json::<Echo>().await?.version)
}

#[tokio::test]
async fn a_request_ends_when_its_time_is_over() -> anyhow::Result<()> {
    let wait = [("x-wait", "1500")];
    for (timeouts, expected) in [
        ("{request: 300ms}", 504),
        ("{request: 0s, idle: 300ms}", 504),
        ("{request: 0s, maxStream: 300ms}", 504),
        ("{request: 0s}", 200),
    ] {
        let (_shop, client, here) = shop(&format!("{{timeouts: {timeouts}, retry: {{attempts: 0}}}}")).await?;
        assert_eq!(status(&client, &here, &[]).await?, 200, "{timeouts}");
        assert_eq!(status(&client, &here, &wait).await?, expected, "{timeouts}");
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_takes_no_more_requests_when_its_time_is_over() -> anyhow::Result<()> {
    for (outbound, expected) in [("{timeouts: {maxConnection: 200ms}}", true), ("{}", false)] {
        let (shop, client, here) = shop(outbound).await?;
        let mut used = BTreeSet::new();
        for _ in 0..40 {
            assert_eq!(status(&client, &here, &[]).await?, 200);
            used.extend(connections(shop.cart_v1().port())?.into_iter().map(|connection| connection.from));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Each of the proxy's threads has one of its own.
        let threads = std::thread::available_parallelism()?.get();
        assert_eq!(used.len() > 2 * threads, expected, "{outbound}: {used:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_of_bytes_ends_when_it_is_idle_or_old() -> anyhow::Result<()> {
    for timeouts in ["{idle: 1s}", "{maxConnection: 1s}"] {
        let policy = format!("target: {{service: store}}\noutbound: {{timeouts: {timeouts}}}");
        let shop = Shop::start(&rule("TrafficPolicy", "store", &policy), &[]).await?;
        let mut line = String::new();
        let mut stream = eventually(SOON, "the store answers", async || {
            let mut stream = BufReader::new(TcpStream::connect(shop.web_store()).await?);
            let mut line = String::new();
            ensure!(stream.read_line(&mut line).await? > 0, "the store speaks first");
            stream.get_mut().write_all(b"hello\n").await?;
            ensure!(stream.read_line(&mut line).await? > 0, "it answers");
            Ok(stream)
        })
        .await?;
        // The client itself waits much longer than the proxy.
        let end = tokio::time::timeout(SOON, stream.read_line(&mut line)).await;
        assert_eq!(end.context("the proxy ends it")??, 0, "{timeouts}: {line}");
    }
    Ok(())
}

#[tokio::test]
async fn what_fails_is_repeated_as_far_as_the_budget_goes() -> anyhow::Result<()> {
    let fail = [("x-fail", "v2")];
    for (outbound, all_succeed) in [
        (r#"{retry: {attempts: 2, when: ["503"]}}"#, true),
        ("{retry: {attempts: 2}}", false),
        (r#"{retry: {attempts: 2, when: ["503"]}, retryBudget: {percent: 0, minConcurrent: 0}}"#, false),
        (r#"{retry: {attempts: 2, when: ["503"]}, circuitBreaker: {maxRetries: 0}}"#, false),
    ] {
        let (_shop, client, here) = shop(outbound).await?;
        let mut statuses = BTreeSet::new();
        for _ in 0..20 {
            statuses.insert(status(&client, &here, &fail).await?);
        }
        assert_eq!(statuses, if all_succeed { [200].into() } else { [200, 503].into() }, "{outbound}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_too_much_at_once_is_refused() -> anyhow::Result<()> {
    let wait = [("x-wait", "1500")];
    for (breaker, served) in [("{maxRequests: 2}", 2), ("{maxConnections: 1, maxPendingRequests: 1}", 3), ("{}", 6)] {
        // To one endpoint: what is counted there is counted once.
        let outbound = format!("{{circuitBreaker: {breaker}, retry: {{attempts: 0}}}}");
        let one = "for: {service: cart}\nhttp:\n- to: [{service: cart, version: v1}]";
        let policies = format!("{}{}", policy(&outbound), rule("TrafficRoute", "cart", one));
        let shop = Shop::start(&policies, &[]).await?;
        let (client, here) = (Client::builder().no_proxy().build()?, format!("http://{}/", shop.web_cart()));
        let answers = join_all((0..6).map(|_| status(&client, &here, &wait))).await;
        let answers: Vec<u16> = answers.into_iter().collect::<anyhow::Result<_>>()?;
        let (ok, refused) =
            (answers.iter().filter(|s| **s == 200).count(), answers.iter().filter(|s| **s == 503).count());
        assert_eq!(ok + refused, 6, "{breaker}: {answers:?}");
        // Each of the proxy's threads may have one connection, whatever the limit.
        ensure!(if served == 3 { (1..6).contains(&ok) } else { ok == served }, "{breaker}: {answers:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_fails_gets_nothing_for_a_while() -> anyhow::Result<()> {
    let fail = [("x-fail", "v2")];
    let most = "maxEjectedPercent: 50, ejectFor: 30s";
    for outliers in ["consecutive5xx: 3", "consecutiveGatewayErrors: 3"] {
        let outbound = format!("{{outlierDetection: {{{outliers}, {most}}}, loadBalancing: {{policy: round-robin}}}}");
        let (shop, client, here) = shop(&outbound).await?;
        eventually(SOON, "v2 is left out", async || {
            let before = shop.v2.served();
            for _ in 0..10 {
                _ = status(&client, &here, &fail).await?;
            }
            ensure!(shop.v2.served() == before, "it gets requests");
            Ok(())
        })
        .await?;
        let before = shop.v2.served();
        for _ in 0..20 {
            assert_eq!(status(&client, &here, &fail).await?, 200, "{outliers}");
        }
        assert_eq!(shop.v2.served(), before, "{outliers}");
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_with_too_few_successes_gets_nothing_for_a_while() -> anyhow::Result<()> {
    let outbound = "{outlierDetection: {successRate: 90, maxEjectedPercent: 50, ejectFor: 5s}}";
    let (shop, client, here) = shop(outbound).await?;
    eventually(4 * SOON, "v2 is left out", async || {
        let before = shop.v2.served();
        for _ in 0..200 {
            _ = status(&client, &here, &[("x-fail", "v2")]).await?;
        }
        ensure!(shop.v2.served() == before, "it gets requests");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn alike_requests_go_to_the_same_endpoint() -> anyhow::Result<()> {
    for policy in ["ring-hash", "maglev"] {
        let (_shop, client, here) =
            shop(&format!("{{loadBalancing: {{policy: {policy}, hashOn: {{header: x-user}}}}}}")).await?;
        let mut seen = BTreeSet::new();
        for user in 0..16 {
            let user = format!("user-{user}");
            let mut versions = BTreeSet::new();
            for _ in 0..5 {
                versions.insert(version(&client, &here, &[("x-user", &user)]).await?);
            }
            assert_eq!(versions.len(), 1, "{policy}, {user}: {versions:?}");
            seen.extend(versions);
        }
        assert_eq!(seen.len(), 2, "{policy}: sixteen users at one of two endpoints");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_stays_by_the_cookie_that_it_is_given_or_by_its_address() -> anyhow::Result<()> {
    let (_shop, client, here) = shop("{loadBalancing: {policy: ring-hash, hashOn: {cookie: cart-session}}}").await?;
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        let first = send(&client, &here, &[]).await?;
        let cookie = first.headers().get("set-cookie").context("the proxy sets a cookie")?.to_str()?.to_owned();
        ensure!(cookie.starts_with("cart-session="), "{cookie}");
        ensure!(cookie.contains("Path=/") && cookie.contains("HttpOnly") && !cookie.contains("Max-Age"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let at = first.json::<Echo>().await?.version;
        for _ in 0..3 {
            assert_eq!(version(&client, &here, &[("cookie", &cookie)]).await?, at);
        }
        seen.insert(at);
    }
    assert_eq!(seen.len(), 2, "new clients come to both");

    let (_shop, client, here) = shop("{loadBalancing: {policy: maglev, hashOn: ip}}").await?;
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        seen.insert(version(&client, &here, &[]).await?);
    }
    assert_eq!(seen.len(), 1, "one address");
    Ok(())
}

#[tokio::test]
async fn the_policy_of_balancing_is_the_one_that_is_written() -> anyhow::Result<()> {
    for (written, held) in [
        ("{policy: round-robin, slowStart: 40s}", [r#""lb_policy":null"#, "round_robin_lb_config", r#""40s""#]),
        ("{slowStart: 40s}", [r#""lb_policy":"LEAST_REQUEST""#, "least_request_lb_config", r#""40s""#]),
        ("{policy: random}", [r#""lb_policy":"RANDOM""#, "", ""]),
    ] {
        let (shop, client, here) = shop(&format!("{{loadBalancing: {written}}}")).await?;
        let dump = shop.envoys[0].config_dump().await?;
        let cluster = find(&dump, "out/shop/cart/http").context("the cluster of the cart")?;
        let text = format!("{cluster} \"lb_policy\":{}", cluster["lb_policy"]);
        ensure!(held.iter().all(|part| text.contains(part)), "{written}: {text}");
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.insert(version(&client, &here, &[]).await?);
        }
        assert_eq!(seen.len(), 2, "{written}");
    }
    Ok(())
}

/// The first object of this name with a way to balance.
fn find<'a>(value: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    if value["name"] == name && value.get("common_lb_config").is_some() {
        return Some(value);
    }
    match value {
        serde_json::Value::Object(members) => members.values().find_map(|member| find(member, name)),
        serde_json::Value::Array(elements) => elements.iter().find_map(|element| find(element, name)),
        _ => None,
    }
}

#[tokio::test]
async fn idle_connections_are_kept_open_by_probes() -> anyhow::Result<()> {
    for (outbound, expected) in [("{keepalive: {time: 77s, interval: 5s, probes: 3}}", true), ("{}", false)] {
        let (shop, client, here) = shop(outbound).await?;
        let port = shop.cart_v1().port();
        eventually(SOON, "a connection to v1", async || {
            assert_eq!(status(&client, &here, &[]).await?, 200);
            let found = connections(port)?;
            ensure!(!found.is_empty(), "there is none");
            let probed = found.iter().filter_map(|one| one.probe).any(|due| (7_000..=7_700).contains(&due));
            ensure!(probed == expected, "{outbound}: {found:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A connection to a port of loopback.
#[derive(Debug)]
struct Connection {
    /// The port that it comes from.
    from: String,
    /// When its next probe is due, in hundredths of a second; `None` where there are none.
    probe: Option<u64>,
}

/// The connections to this port of loopback.
fn connections(port: u16) -> anyhow::Result<Vec<Connection>> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let to = format!("0100007F:{port:04X}");
    let established = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let established = established.filter(|row| row.len() > 5 && row[2] == to && row[3] == "01");
    let connection = |row: Vec<&str>| {
        let (timer, due) = row[5].split_once(':').context("a timer")?;
        let probe = if timer == "02" { Some(u64::from_str_radix(due, 16)?) } else { None };
        Ok(Connection { from: row[1].to_owned(), probe })
    };
    established.map(connection).collect()
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up_in_time() -> anyhow::Result<()> {
    // A listener whose queue is full drops whoever knocks.
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let silent = socket.listen(1)?;
    let at = silent.local_addr()?;
    let mut filling = Vec::new();
    for _ in 0..8 {
        filling.push(tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(at)).await);
    }
    ensure!(filling.iter().any(Result::is_err), "the queue of the listener is full");
    for (connect, expected) in [("connect: 300ms,", 503), ("", 504)] {
        // Without a limit of its own an attempt takes five seconds, longer than the request may.
        let outbound = format!("{{timeouts: {{{connect} request: 2s}}, retry: {{attempts: 0}}}}");
        let (_chancery, _envoys, here, _ports) = consumers(at, &policy(&outbound), 1).await?;
        assert_eq!(status(&Client::builder().no_proxy().build()?, &here[0], &[]).await?, expected, "{outbound}");
    }
    Ok(())
}

#[tokio::test]
async fn the_callers_of_a_namespace_make_their_own_calls_otherwise() -> anyhow::Result<()> {
    let app = App::http("v1").await?;
    let everyone = policy("{timeouts: {request: 300ms}, retry: {attempts: 0}}");
    let of_b = rule("TrafficPolicy", "cart", "target: {service: shop/cart}\noutbound: {timeouts: {request: 5s}}");
    let of_b = of_b.replace("namespace: shop", "namespace: b");
    let (_chancery, _envoys, here, _ports) = consumers(app.address(), &format!("{everyone}{of_b}"), 2).await?;
    let client = Client::builder().no_proxy().build()?;
    let wait = [("x-wait", "1000")];
    assert_eq!(status(&client, &here[0], &wait).await?, 504, "what the service says holds for a");
    assert_eq!(status(&client, &here[1], &wait).await?, 200, "b has said otherwise");
    Ok(())
}

type Consumers = (Chancery, Vec<EnvoyProxy>, Vec<String>, Vec<chancery::ports::Port>);

/// A cart at one fixed address, and callers in the first `count` of the namespaces a and b.
async fn consumers(cart: std::net::SocketAddr, policies: &str, count: usize) -> anyhow::Result<Consumers> {
    let ports: Vec<_> = (0..count).map(|_| chancery::ports::Port::reserve()).collect::<Result<_, _>>()?;
    let spec = format!("ports: [{{name: http, port: 80, protocol: http}}]\n{}", listed(&[(cart, "")]));
    let mut inventory = rule("MeshService", "cart", &spec);
    for (namespace, port) in ["a", "b"].iter().zip(&ports) {
        let calls = format!("calls: [{{service: shop/cart, port: http, listen: \"{}\"}}]", port.loopback());
        inventory += &rule("Workload", "web", &calls).replace("namespace: shop", &format!("namespace: {namespace}"));
    }
    let chancery = Chancery::start(&[(INVENTORY, &inventory), ("policies.yaml", policies)], &[]).await?;
    let mut envoys = Vec::new();
    for namespace in ["a", "b"].into_iter().take(count) {
        envoys.push(EnvoyProxy::start(&chancery, &format!("{namespace}/web"), &[]).await?);
    }
    chancery.in_sync(count).await?;
    let here = ports.iter().map(|port| format!("http://{}/", port.loopback())).collect();
    Ok((chancery, envoys, here, ports))
}

#[tokio::test]
async fn what_is_said_of_a_route_and_of_a_rule_holds_for_their_requests_alone() -> anyhow::Result<()> {
    let route = "for: {service: cart}\nhttp:\n\
        - {name: slow, match: [{path: {prefix: /slow}}], to: [{service: cart}]}\n\
        - {name: rest, to: [{service: cart}]}";
    let policy = |name: &str, target: &str, outbound: &str| {
        rule("TrafficPolicy", name, &format!("target: {target}\noutbound: {outbound}"))
    };
    let policies = rule("TrafficRoute", "cart", route)
        + &policy("service", "{service: cart}", "{timeouts: {request: 20s}, retry: {attempts: 0}}")
        + &policy("route", "{route: cart}", r#"{timeouts: {request: 300ms}, retry: {attempts: 2, when: ["503"]}}"#)
        + &policy("slow", "{route: cart, rule: slow}", "{timeouts: {request: 10s}, retry: {attempts: 0}}");
    let shop = Shop::start(&policies, &[]).await?;
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
    let at = |path: &str| format!("http://{}{path}", shop.web_cart());
    eventually(SOON, "the policies", async || {
        assert_eq!(status(&client, &at("/slow"), &[("x-wait", "1000")]).await?, 200, "the rule's own limit");
        ensure!(status(&client, &at("/"), &[("x-wait", "1000")]).await? == 504, "the limit of the route");
        Ok(())
    })
    .await?;
    let mut statuses = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..20 {
        for (path, seen) in ["/", "/slow"].into_iter().zip(&mut statuses) {
            seen.insert(status(&client, &at(path), &[("x-fail", "v2")]).await?);
        }
    }
    assert_eq!(statuses, [BTreeSet::from([200]), BTreeSet::from([200, 503])]);
    Ok(())
}
