//! Access rules through real Envoys: on mTLS chains and on plaintext ones, for HTTP and for TCP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use conformance::harness::eventually;
use conformance::harness::shop::{SOON, Shop, rule};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

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
async fn raw(address: SocketAddr, method: &str, path: &str) -> anyhow::Result<u16> {
    asked(TcpStream::connect(address).await?, &format!("{method} {path}"), "host: cart\r\n").await
}

/// The status of one request with these headers.
async fn asked(mut stream: TcpStream, what: &str, headers: &str) -> anyhow::Result<u16> {
    let request = format!("{what} HTTP/1.1\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| anyhow::anyhow!("no status in {answer:?}"))
}

/// Whether the application at the other end says who it is.
async fn greets(stream: TcpStream) -> anyhow::Result<bool> {
    let mut line = String::new();
    let read = tokio::time::timeout(Duration::from_secs(8), BufReader::new(stream).read_line(&mut line)).await?;
    Ok(read.is_ok() && line.trim() == "store")
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
    let greeted = async |shop: &Shop| greets(TcpStream::connect(shop.web_store()).await?).await;
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

#[tokio::test]
async fn operations_are_told_apart_by_host_port_header_and_method_of_grpc() -> anyhow::Result<()> {
    let policies =
        rule("AccessPolicy", "all", "target: {scope: namespace}\ndefault: deny\nallow: [{to: [{ports: [70]}]}]")
            + &rule(
                "AccessPolicy",
                "cart",
                r#"target: {service: cart}
allow:
- to: [{hosts: [Cart.example, "*.cart.example", "[::1]"], ports: [80]}]
- to: [{headers: {X-Key: k, x-more: {prefix: a}, x-no: {absent: true}}, methods: [GET]}]
- to: [{grpcMethods: [shop.Cart/Get, shop.Health/*]}]
deny:
- to: [{headers: {x-bad: {regex: "[0-9]+"}}}]
- to: [{hosts: [secret.cart.example]}]"#,
            );
    let shop = Shop::start(&policies, &[]).await?;
    let cases = [
        ("GET /", "host: cart.example\r\n", 200),
        ("GET /", "host: CART.Example:8080\r\n", 200),
        ("GET /", "host: cart.example.\r\n", 200),
        ("GET /", "host: [::1]:80\r\n", 200),
        ("GET /", "host: a.b.cart.example\r\n", 200),
        ("GET /", "host: xcart.example\r\n", 403),
        ("GET /", "host: cartxexample\r\n", 403),
        ("GET /", "host: cart.example.org\r\n", 403),
        ("GET /", "host: cart.example:80@evil.example\r\n", 403),
        ("GET /", "host: evil.example:80.cart.example\r\n", 403),
        ("GET /", "host: evil\r\nx-forwarded-host: cart.example\r\n", 403),
        ("GET /", "host: Secret.cart.example:1\r\n", 403),
        ("GET /", "host: secret.cart.example.\r\n", 403),
        ("GET /", "host: cart.example\r\nx-bad: 17\r\n", 403),
        ("GET /", "host: cart.example\r\nx-bad: 17x\r\n", 200),
        ("GET /", "host: a\r\nx-key: k\r\nx-more: ab\r\n", 200),
        ("POST /", "host: a\r\nx-key: k\r\nx-more: ab\r\n", 403),
        ("GET /", "host: a\r\nx-key: k\r\n", 403),
        ("GET /", "host: a\r\nx-key: kk\r\nx-more: ab\r\n", 403),
        ("GET /", "host: a\r\nx-key: k\r\nx-more: ab\r\nx-no: 1\r\n", 403),
        ("POST /shop.Cart/Get", "host: a\r\n", 200),
        ("GET /shop.Cart/Get", "host: a\r\n", 403),
        ("POST /shop.Cart/GetAll", "host: a\r\n", 403),
        ("POST /shop.Health/Check", "host: a\r\n", 200),
        ("POST /shop.Healthy/Check", "host: a\r\n", 403),
        ("POST /", "host: a\r\n", 403),
    ];
    for address in [shop.web_cart(), shop.cart_v1()] {
        for (what, headers, status) in cases {
            let seen = asked(TcpStream::connect(address).await?, what, headers).await?;
            assert_eq!(seen, status, "{what} {headers:?} at {address}");
        }
    }
    // What is said of port 70 opens that one, and no other.
    ensure!(greets(TcpStream::connect(shop.web_store()).await?).await?, "the store is closed");
    Ok(())
}

/// A connection to `address` that comes from `source`.
async fn from(source: &str, address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source.parse()?, 0))?;
    Ok(socket.connect(address).await?)
}

#[tokio::test]
async fn callers_are_told_apart_by_where_they_connect_from() -> anyhow::Result<()> {
    let policies = rule(
        "AccessPolicy",
        "all",
        r#"target: {scope: namespace}
default: deny
allow: [{from: [{ip: 127.0.0.0/28}, {ip: 127.0.0.32}]}]
deny: [{from: [{ip: 127.0.0.4/30}]}]"#,
    );
    let shop = Shop::start(&policies, &[]).await?;
    let spoofed = "host: cart\r\nx-forwarded-for: 127.0.0.1\r\nx-envoy-external-address: 127.0.0.1\r\n";
    let sources = [
        ("127.0.0.1", true),
        ("127.0.0.3", true),
        ("127.0.0.4", false),
        ("127.0.0.7", false),
        ("127.0.0.8", true),
        ("127.0.0.16", false),
        ("127.0.0.31", false),
        ("127.0.0.32", true),
    ];
    for (source, admitted) in sources {
        let seen = asked(from(source, shop.cart_v1()).await?, "GET /", spoofed).await?;
        assert_eq!(seen, if admitted { 200 } else { 403 }, "{source}");
        // The store speaks first: whom it may not speak to is closed before.
        let stream = from(source, shop.store_proxy()).await?;
        assert_eq!(greets(stream).await?, admitted, "{source}");
    }
    // Web's proxy connects from 127.0.0.1.
    assert_eq!(raw(shop.web_cart(), "GET", "/").await?, 200);
    ensure!(greets(TcpStream::connect(shop.web_store()).await?).await?, "the store is closed");
    let denied = policies.replace("127.0.0.4/30", "127.0.0.1");
    shop.write_policies(&denied)?;
    eventually(SOON, "web is refused on both", async || {
        let seen = raw(shop.web_cart(), "GET", "/").await?;
        ensure!(seen == 403, "{seen}");
        ensure!(!greets(TcpStream::connect(shop.web_store()).await?).await?, "greeted");
        Ok(())
    })
    .await?;
    assert_eq!(asked(from("127.0.0.5", shop.cart_v1()).await?, "GET /", spoofed).await?, 200);
    Ok(())
}

#[tokio::test]
async fn an_audit_refuses_nobody_and_lists_whom_it_would_refuse() -> anyhow::Result<()> {
    let audited = rule(
        "AccessPolicy",
        "audited",
        r#"target: {service: cart}
mode: audit
default: deny
allow: [{from: [{service: web}], to: [{paths: ["/cart*"]}]}]
deny: [{to: [{paths: [/cart/secret]}]}]"#,
    ) + &rule("AccessPolicy", "store", "target: {service: store}\nmode: audit\ndefault: deny");
    let shop = Shop::start(&audited, &[]).await?;
    let host = "host: cart\r\n";
    let ask = async |address, what: &str, headers: &str| asked(TcpStream::connect(address).await?, what, headers).await;
    // The application sees the path as it was asked for.
    let answer = shop.ask(shop.cart_v1(), "/cart//a%2fb", &[]).await?;
    assert_eq!((answer.status, answer.echo()?.path.as_str()), (200, "/cart//a%2fb"));
    let refused = "target: {scope: namespace}\ndeny: [{to: [{headers: {x-refused: {present: true}}}]}]";
    shop.write_policies(&(audited + &rule("AccessPolicy", "enforced", refused)))?;
    eventually(SOON, "what is enforced", async || {
        // Often enough to have reached the proxies of both versions.
        for _ in 0..24 {
            let status = ask(shop.web_cart(), "GET /cart", "host: cart\r\nx-refused: 1\r\n").await?;
            ensure!(status == 403, "{status}");
        }
        Ok(())
    })
    .await?;
    for _ in 0..3 {
        assert_eq!(ask(shop.cart_v1(), "GET /cart", host).await?, 200);
    }
    for _ in 0..2 {
        assert_eq!(ask(shop.cart_v1(), "GET /cart/secret", host).await?, 200);
    }
    for _ in 0..40 {
        assert_eq!(ask(shop.web_cart(), "GET /cart", host).await?, 200);
        assert_eq!(ask(shop.web_cart(), "GET /other", host).await?, 200);
        // What is refused anyway is no news.
        assert_eq!(ask(shop.web_cart(), "GET /other", "host: cart\r\nx-refused: 1\r\n").await?, 403);
    }
    for _ in 0..5 {
        let mut stream = TcpStream::connect(shop.web_store()).await?;
        stream.write_all(b"hello\n").await?;
        ensure!(greets(stream).await?, "the store is closed");
    }
    let (secret, rest) = ("AccessPolicy shop/audited /spec/deny/0", "AccessPolicy shop/audited /spec/default");
    eventually(SOON, "whom the audit would refuse", async || {
        let audits = shop.chancery.json("/api/v1/audits").await?;
        let count = |caller: &str, service: &str, port: &str, policy: &str| -> u64 {
            let all = audits["audits"].as_array().into_iter().flatten();
            let of = all.filter(|one| {
                [&one["caller"], &one["service"], &one["port"], &one["policy"]] == [caller, service, port, policy]
            });
            of.filter_map(|one| one["requests"].as_u64()).sum()
        };
        let counts = [
            count("unknown", "shop/cart", "http", secret),
            count("unknown", "shop/cart", "http", rest),
            count("shop/web", "shop/cart", "http", secret),
            count("shop/web", "shop/cart", "http", rest),
            count("shop/web", "shop/store", "line", "AccessPolicy shop/store /spec/default"),
        ];
        ensure!(counts == [2, 4, 0, 40, 5], "{counts:?}: {audits}");
        Ok(())
    })
    .await?;
    let metrics = shop.chancery.text("/metrics").await?;
    let line = metrics.lines().find(|line| line.starts_with("chancery_audit_denied_total{") && line.contains(secret));
    ensure!(line.is_some_and(|line| line.ends_with(" 2") && line.contains("caller=\"unknown\"")), "{metrics}");
    let log = shop.chancery.log();
    ensure!(log.contains("an audit would refuse") && log.contains(secret), "nothing in the log");
    Ok(())
}
