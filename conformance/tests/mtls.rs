//! Mutual TLS through real Envoys: every mode, server-first TCP, the way between modes, renewals.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::shop::{INVENTORY, SOON, Shop, listed, rule};
use conformance::harness::{ClientIdentity, Load, TlsConnection, eventually};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

const XFCC: &str = "x-forwarded-client-cert";
const WEB: &str = "URI=spiffe://cluster.local/ns/shop/sa/web";
/// The ALPN protocol by which callers of the mesh are recognised.
const MESH: &str = "chancery";

fn mode(mode: &str) -> String {
    rule("MTLSPolicy", "shop", &format!("target: {{scope: namespace}}\nmode: {mode}"))
}

/// What the application sees of the caller's certificate when web asks.
async fn seen_by_cart(shop: &Shop) -> anyhow::Result<Option<String>> {
    let answer = shop.ask(shop.web_cart(), "/cart", &[(XFCC, "URI=spiffe://cluster.local/ns/shop/sa/forged")]).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.echo()?.headers.get(XFCC).cloned())
}

/// A plaintext request straight to a proxy: its status, or why there was none.
async fn plaintext(address: SocketAddr) -> anyhow::Result<u16> {
    // A client of its own: a kept connection would be older than the mode.
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let response = client.get(format!("http://{address}/cart")).header(XFCC, WEB).send().await?;
    let status = response.status().as_u16();
    let echo: conformance::harness::Echo = response.json().await?;
    ensure!(!echo.headers.contains_key(XFCC), "a forged identity reached the application: {echo:?}");
    Ok(status)
}

/// The first line that a TCP server says unasked.
async fn banner(address: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut line = String::new();
    tokio::time::timeout(Duration::from_secs(8), BufReader::new(stream).read_line(&mut line)).await??;
    ensure!(!line.is_empty(), "the connection was closed without a word");
    Ok(line.trim().to_owned())
}

/// Waits until web reaches the store.
async fn greeted(shop: &Shop) -> anyhow::Result<()> {
    eventually(SOON, "the store greets web", async || {
        assert_eq!(banner(shop.web_store()).await?, "store");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn strict_takes_mutual_tls_alone() -> anyhow::Result<()> {
    let shop = Shop::start(&mode("strict"), &[]).await?;
    let seen = seen_by_cart(&shop).await?.context("the application sees no caller")?;
    ensure!(seen.contains(WEB) && !seen.contains("forged"), "{seen}");
    ensure!(seen.split(',').count() == 1, "exactly one element: {seen}");
    ensure!(seen.starts_with("By=") || seen.starts_with("Hash="), "{seen}");

    let refused = plaintext(shop.cart_v1()).await.expect_err("plaintext is refused");
    ensure!(refused.downcast_ref::<reqwest::Error>().is_some(), "no answer at all: {refused:#}");
    let stranger = async {
        TlsConnection::open(shop.cart_v1(), ClientIdentity::None, &[MESH]).await?.request("GET", "/cart").await
    };
    ensure!(stranger.await.is_err(), "a client without a certificate was served");

    greeted(&shop).await?;
    // The store speaks first, and does so at once through mutual TLS.
    let started = std::time::Instant::now();
    assert_eq!(banner(shop.web_store()).await?, "store");
    ensure!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let mut direct = TcpStream::connect(shop.store_proxy()).await?;
    let mut said = Vec::new();
    // Closed or reset: either way not a byte of the store's.
    let _ = tokio::time::timeout(Duration::from_secs(8), direct.read_to_end(&mut said)).await?;
    assert_eq!(said, b"");
    Ok(())
}

#[tokio::test]
async fn permissive_takes_both_and_callers_of_the_mesh_use_mutual_tls() -> anyhow::Result<()> {
    let shop = Shop::start(&mode("permissive"), &[]).await?;
    let seen = seen_by_cart(&shop).await?.context("the application sees no caller")?;
    ensure!(seen.contains(WEB) && !seen.contains("forged"), "{seen}");
    assert_eq!(plaintext(shop.cart_v1()).await?, 200);

    greeted(&shop).await?;
    let started = std::time::Instant::now();
    assert_eq!(banner(shop.store_proxy()).await?, "store");
    ensure!(
        started.elapsed() < Duration::from_secs(3),
        "a server-first plaintext client waited {:?}",
        started.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn disabled_is_plaintext_on_both_sides() -> anyhow::Result<()> {
    let shop = Shop::start(&mode("disabled"), &[]).await?;
    assert_eq!(seen_by_cart(&shop).await?, None);
    assert_eq!(plaintext(shop.cart_v1()).await?, 200);
    assert_eq!(banner(shop.store_proxy()).await?, "store");
    greeted(&shop).await?;
    let tls = async { TlsConnection::open(shop.cart_v1(), ClientIdentity::None, &[MESH]).await };
    ensure!(tls.await.is_err(), "there is no TLS on a disabled port");
    Ok(())
}

/// Waits until both sides use plaintext; no request of the load may have failed on the way.
async fn arrives_at_plaintext(shop: &Shop, load: Load) -> anyhow::Result<()> {
    eventually(Duration::from_secs(90), "plaintext, and nothing else", async || {
        ensure!(seen_by_cart(shop).await?.is_none(), "web still uses mutual TLS");
        ensure!(plaintext(shop.cart_v1()).await? == 200, "plaintext is not taken");
        Ok(())
    })
    .await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.ok > 100, "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_mode_changes_from_end_to_end_without_a_failed_request() -> anyhow::Result<()> {
    let shop = Shop::start(&mode("disabled"), &[]).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 100)?;
    shop.write_policies(&mode("strict"))?;
    eventually(Duration::from_secs(60), "mutual TLS, and nothing else", async || {
        ensure!(seen_by_cart(&shop).await?.is_some(), "web still uses plaintext");
        ensure!(plaintext(shop.cart_v1()).await.is_err(), "plaintext is still taken");
        Ok(())
    })
    .await?;
    shop.write_policies(&mode("disabled"))?;
    arrives_at_plaintext(&shop, load).await
}

#[tokio::test]
async fn a_mode_that_changes_while_the_control_plane_is_away_fails_no_request_either() -> anyhow::Result<()> {
    let mut shop = Shop::start(&mode("strict"), &[]).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 100)?;
    shop.chancery.kill();
    shop.write_policies(&mode("disabled"))?;
    shop.chancery.restart().await?;
    arrives_at_plaintext(&shop, load).await
}

#[tokio::test]
async fn certificates_renew_under_load_and_new_handshakes_take_the_new_one() -> anyhow::Result<()> {
    let shop = Shop::start(&mode("strict"), &["--leaf-ttl", "10s"]).await?;
    greeted(&shop).await?;
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 50)?;
    let mut serials = BTreeSet::new();
    let mut handshakes = 0;
    // Leaves of 10 s are renewed after about 5 s: four serials take about 15 s.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(45);
    while serials.len() < 4 {
        ensure!(tokio::time::Instant::now() < deadline, "only {} certificates: {serials:?}", serials.len());
        // A connection of its own from web's proxy to the store's: a handshake of both leaves.
        assert_eq!(banner(shop.web_store()).await?, "store");
        handshakes += 1;
        let server = TlsConnection::open(shop.store_proxy(), ClientIdentity::None, &[MESH]).await;
        if let Ok(connection) = server {
            let leaf = connection.server_certificates().first().context("a certificate")?.clone();
            let (_, leaf) = x509_parser::parse_x509_certificate(&leaf)?;
            let names = leaf.subject_alternative_name()?.context("a subject alternative name")?;
            assert_eq!(
                names.value.general_names,
                [x509_parser::extensions::GeneralName::URI("spiffe://cluster.local/ns/shop/sa/store")]
            );
            serials.insert(leaf.raw_serial_as_string());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(handshakes > 20, "{handshakes}");
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.ok > 100, "{counts:?}");
    let failures = shop.envoys[3].stats().await?;
    let failed: u64 = failures.iter().filter(|(name, _)| name.contains("fail_verify")).map(|(_, count)| count).sum();
    assert_eq!(failed, 0);
    Ok(())
}

#[tokio::test]
async fn a_caller_takes_only_the_identities_of_the_service_that_it_calls() -> anyhow::Result<()> {
    let shop = Shop::start_with(&mode("strict"), &[], &["--all-stats"]).await?;
    // The address of the cart, under the name of another service: its certificate is valid, but not for that name.
    let listen = chancery::ports::Port::reserve()?;
    let fake = rule(
        "MeshService",
        "fake",
        &format!("ports: [{{name: http, port: 80, protocol: http}}]\n{}", listed(&[(shop.cart_v1(), "")])),
    );
    let inventory = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let call = format!("calls: [{{service: fake, port: http, listen: \"{}\"}}, ", listen.loopback());
    shop.chancery.write_rules(INVENTORY, &(inventory.replace("calls: [", &call) + &fake))?;
    let answer =
        eventually(SOON, "an answer of the proxy", async || shop.ask(listen.loopback(), "/cart", &[]).await).await?;
    assert_eq!(answer.status, 503, "{answer:?}");
    ensure!(
        shop.envoys[0].stat("cluster.out/shop/fake/http.ssl.fail_verify_san").await? > 0,
        "refused for another reason"
    );
    assert_eq!(shop.get("/cart").await?.status, 200, "under its own name it is taken");
    Ok(())
}
