//! Access rules through real Envoys: on mTLS chains and on plaintext ones, for HTTP and for TCP.

use std::time::Duration;

use anyhow::ensure;
use conformance::harness::eventually;
use conformance::harness::shop::{SOON, Shop, rule};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn policies(mode: &str) -> String {
    rule("MTLSPolicy", "shop", &format!("target: {{scope: namespace}}\nmode: {mode}"))
        + &rule("AccessPolicy", "closed", "target: {scope: namespace}\ndefault: deny")
        + &rule(
            "AccessPolicy",
            "cart",
            r#"target: {service: cart}
allow:
- from: [{service: web}]
  to: [{methods: [GET], paths: ["/cart", "/cart/*", "/*.css"]}]
- to: [{paths: ["/public"]}]
deny:
- to: [{paths: ["/cart/secret*"]}]"#,
        )
}

/// The status of one request, its path sent as it is.
async fn raw(address: std::net::SocketAddr, method: &str, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: cart\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| anyhow::anyhow!("no status in {answer:?}"))
}

#[tokio::test]
async fn an_allow_list_holds_on_both_chains() -> anyhow::Result<()> {
    let shop = Shop::start(&policies("permissive"), &[]).await?;
    let from_web = [
        ("GET", "/cart", 200),
        ("GET", "/cart?x=/other", 200),
        ("GET", "/cart/7", 200),
        ("GET", "/a/b.css", 200),
        ("GET", "/public", 200),
        ("POST", "/cart", 403),
        ("GET", "/", 403),
        ("GET", "/cartoon", 403),
        ("GET", "/CART", 403),
        ("GET", "/b.css/x", 403),
        ("GET", "/cart/secret", 403),
        ("GET", "/cart/secret/more", 403),
        // However the path is written, it is the same path.
        ("GET", "/cart//secret", 403),
        ("GET", "/cart/./secret", 403),
        ("GET", "/cart/x/../secret", 403),
        ("GET", "/cart/%73ecret", 403),
        ("GET", "/cart%2fsecret", 403),
        ("GET", "/cart/../admin", 403),
    ];
    for (method, path, status) in from_web {
        assert_eq!(raw(shop.web_cart(), method, path).await?, status, "{method} {path} from web");
    }
    // A plaintext caller has no identity: what names a caller does not match it.
    for (method, path, status) in [("GET", "/cart", 403), ("GET", "/public", 200), ("GET", "/cart/secret", 403)] {
        assert_eq!(raw(shop.cart_v1(), method, path).await?, status, "{method} {path} in plaintext");
    }
    Ok(())
}

#[tokio::test]
async fn tcp_callers_are_admitted_by_name() -> anyhow::Result<()> {
    let greeted = async |shop: &Shop| {
        let mut line = String::new();
        let stream = TcpStream::connect(shop.web_store()).await?;
        let read = tokio::time::timeout(Duration::from_secs(8), BufReader::new(stream).read_line(&mut line)).await?;
        anyhow::Ok(read.is_ok() && line.trim() == "store")
    };
    let shop = Shop::start(&policies("strict"), &[]).await?;
    ensure!(!greeted(&shop).await?, "nobody may call the store");
    let allow = rule("AccessPolicy", "store", "target: {service: store}\nallow:\n- from: [{service: web}]");
    shop.write_policies(&(policies("strict") + &allow))?;
    eventually(SOON, "web is admitted", async || {
        ensure!(greeted(&shop).await?, "no greeting");
        Ok(())
    })
    .await?;
    let other = rule("AccessPolicy", "store", "target: {service: store}\nallow:\n- from: [{service: cart}]");
    shop.write_policies(&(policies("strict") + &other))?;
    eventually(SOON, "only the cart is admitted", async || {
        ensure!(!greeted(&shop).await?, "web is greeted");
        Ok(())
    })
    .await
}
