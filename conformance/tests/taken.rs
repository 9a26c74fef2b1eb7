//! What a service takes, through real Envoys: each inbound setting of a TrafficPolicy is seen to act.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, Shop, client, rule};
use conformance::harness::{EnvoyProxy, eventually};
use futures::future::join_all;
use reqwest::Client;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn policy(service: &str, inbound: &str) -> String {
    rule("TrafficPolicy", "taken", &format!("target: {{service: {service}}}\ninbound: {inbound}"))
}

async fn status(client: &Client, address: SocketAddr, headers: &[(&str, &str)]) -> anyhow::Result<u16> {
    let request = client.get(format!("http://{address}/"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Ok(request.send().await?.status().as_u16())
}

#[tokio::test]
async fn each_caller_has_a_bucket_of_its_own_and_those_without_an_identity_share_one() -> anyhow::Result<()> {
    let port = Port::reserve()?;
    let calls = format!("calls: [{{service: cart, port: http, listen: \"{}\"}}]", port.loopback());
    let to_v1 = rule("TrafficRoute", "cart", "for: {service: cart}\nhttp: [{to: [{service: cart, version: v1}]}]");
    let limit = policy("cart", "{rateLimit: {requests: 6, per: 10m, key: caller}}");
    let shop = Shop::start(&(rule("Workload", "other", &calls) + &to_v1 + &limit), &[]).await?;
    let _other = EnvoyProxy::start(&shop.chancery, "shop/other", &[]).await?;
    shop.chancery.in_sync(5).await?;
    let client = client()?;
    let mut statuses = Vec::new();
    for caller in [shop.web_cart(), port.loopback(), shop.cart_v1()] {
        let admitted = eventually(SOON, "the limit is reached", async || {
            let status = status(&client, caller, &[]).await?;
            ensure!(status != 503, "not yet");
            Ok(status)
        });
        // Of the six one was used to wait for the shop, where it was reached by web.
        let mut of_caller = vec![admitted.await?];
        for _ in 0..6 {
            of_caller.push(status(&client, caller, &[]).await?);
        }
        statuses.push(of_caller);
    }
    for of_caller in &statuses {
        ensure!(of_caller.first() == Some(&200) && of_caller.last() == Some(&429), "{statuses:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_goes_wrong_on_purpose_goes_wrong_for_every_caller() -> anyhow::Result<()> {
    let fault = "{fault: {delay: {fixed: 400ms}, abort: {status: 418}, onlyIfHeader: {x-chaos: \"true\"}}}";
    let shop = Shop::start(&policy("cart", fault), &[]).await?;
    let client = client()?;
    for address in [shop.web_cart(), shop.cart_v1()] {
        assert_eq!(status(&client, address, &[]).await?, 200);
        let began = Instant::now();
        assert_eq!(status(&client, address, &[("x-chaos", "true")]).await?, 418);
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_service_bears_a_request_for_so_long() -> anyhow::Result<()> {
    let shop = Shop::start(&policy("cart", "{requestTimeout: 300ms}"), &[]).await?;
    let client = client()?;
    for address in [shop.web_cart(), shop.cart_v1()] {
        assert_eq!(status(&client, address, &[]).await?, 200);
        assert_eq!(status(&client, address, &[("x-wait", "2000")]).await?, 504);
    }
    Ok(())
}

#[tokio::test]
async fn one_connection_too_many_is_closed() -> anyhow::Result<()> {
    let shop = Shop::start(&(policy("store", "{maxConnections: 2}")), &[]).await?;
    let speaks = async || {
        let mut stream = BufReader::new(TcpStream::connect(shop.store_proxy()).await?);
        let mut line = String::new();
        let read = timeout(SOON, stream.read_line(&mut line)).await.context("it answers or closes")?;
        anyhow::Ok((stream, read.is_ok_and(|read| read > 0)))
    };
    let (first, second) = (speaks().await?, speaks().await?);
    assert!(first.1 && second.1, "two are taken");
    assert!(!speaks().await?.1, "a third is not");
    drop(first);
    eventually(SOON, "its place is free", async || {
        ensure!(speaks().await?.1, "closed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_connection_with_requests_too_many_is_closed() -> anyhow::Result<()> {
    let shop = Shop::start(&policy("cart", "{maxConnections: 2}"), &[]).await?;
    let client = client()?;
    let wait = [("x-wait", "4000")];
    let answers = join_all((0..4).map(|_| status(&client, shop.cart_v1(), &wait))).await;
    let taken = answers.iter().filter(|answer| matches!(answer, Ok(200))).count();
    assert_eq!((taken, answers.iter().filter(|answer| answer.is_err()).count()), (2, 2), "{answers:?}");
    Ok(())
}

#[tokio::test]
async fn a_service_takes_no_more_at_once_than_it_bears() -> anyhow::Result<()> {
    let shop = Shop::start(&policy("cart", "{adaptiveConcurrency: {}}"), &[]).await?;
    let client = client()?;
    let wait = [("x-wait", "4000")];
    // Only so many while it is found out how long a request has to take.
    let answers: Vec<u16> = join_all((0..20).map(|_| status(&client, shop.cart_v1(), &wait)))
        .await
        .into_iter()
        .collect::<anyhow::Result<_>>()?;
    let taken = answers.iter().filter(|status| **status == 200).count();
    assert!((1..=5).contains(&taken), "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 20 - taken, "{answers:?}");
    Ok(())
}

/// What the proxy of the store holds of a connection whose client sends and does not read.
async fn held(policies: &str) -> anyhow::Result<u64> {
    let shop = Shop::start_with(policies, &[], &["--all-stats"]).await?;
    let (mut sent, line) = (0, [b'x'; 65_535].into_iter().chain([b'\n']).collect::<Vec<u8>>());
    let mut stream = TcpStream::connect(shop.store_proxy()).await?;
    while let Ok(written) = timeout(Duration::from_secs(3), stream.write_all(&line)).await {
        written?;
        sent += line.len();
        ensure!(sent < 256 << 20, "it takes everything");
    }
    let [.., store] = &shop.envoys;
    store.stat("cluster.app/shop/store/line.upstream_cx_tx_bytes_buffered").await
}

#[tokio::test]
async fn a_proxy_holds_so_much_of_what_nobody_takes() -> anyhow::Result<()> {
    let usual = held("").await?;
    let less = held(&policy("store", "{bufferLimit: 32768}")).await?;
    assert!(usual > 512 << 10 && less < 256 << 10, "{usual} and {less} bytes");
    Ok(())
}
