//! Rules for TLS that the application itself ends, through real Envoys: the host that a client names decides where it goes.

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{App, Authority, Chancery, ClientIdentity, Echo, EnvoyProxy, TlsConnection, eventually};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Which application answers a client that names `host`.
async fn reached(port: &Port, host: Option<&str>) -> anyhow::Result<String> {
    let none = ClientIdentity::None;
    let open = match host {
        Some(host) => TlsConnection::open_to(port.loopback(), host, none).await?,
        None => TlsConnection::open(port.loopback(), none, &[]).await?,
    };
    let (_, body) = open.exchange("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await?;
    Ok(serde_json::from_str::<Echo>(&body)?.version)
}

#[tokio::test]
async fn a_client_reaches_what_is_there_for_the_host_that_it_names() -> anyhow::Result<()> {
    let authority = Authority::new("outside")?;
    let mut apps = BTreeMap::new();
    for name in ["v1", "v2", "archive", "rest"] {
        apps.insert(name, App::https(&authority, name, None).await?);
    }
    let ports: Vec<Port> = (0..4).map(|_| Port::reserve()).collect::<Result<_, _>>()?;
    let [v1, v2, calls_db, calls_archive] = &ports[..] else { anyhow::bail!("four ports") };
    let tls = "{name: tls, port: 443, protocol: tls}";
    let archive = format!(
        "ports: [{tls}, {{name: rest, port: 444, protocol: tcp}}]\nendpoints: {{static: [{{address: 127.0.0.1, ports: {{tls: {}, rest: {}}}}}]}}",
        apps["archive"].address().port(),
        apps["rest"].address().port()
    );
    let serves = |name: &str, listen: &Port| {
        let serve =
            format!("{{service: db, port: tls, listen: \"{}\", app: \"{}\"}}", listen.loopback(), apps[name].address());
        rule("Workload", &format!("db-{name}"), &format!("labels: {{version: {name}}}\nserves: [{serve}]"))
    };
    let call =
        |service: &str, listen: &Port| format!("{{service: {service}, port: tls, listen: \"{}\"}}", listen.loopback());
    let inventory = rule("MeshService", "db", &format!("ports: [{tls}]"))
        + &rule("MeshService", "archive", &archive)
        + &serves("v1", v1)
        + &serves("v2", v2)
        + &rule("Workload", "web", &format!("calls: [{}, {}]", call("db", calls_db), call("archive", calls_archive)))
        + &rule("MTLSPolicy", "strict", "target: {service: db}\nmode: strict");
    let rules = rule(
        "TrafficRoute",
        "db",
        "for: {service: db}
tls:
- {match: [{sni: \"*.db.test\"}, {sni: one.test}], to: [{service: db, version: v1}]}
- {match: [{sni: two.db.test}], to: [{service: db, version: v2}]}
- {match: [{sni: \"*.old.db.test\"}], to: [{service: archive, port: tls}]}",
    ) + &rule(
        "TrafficRoute",
        "archive",
        "for: {service: archive}
tls:
- {match: [{sni: \"*\"}], to: [{service: archive, port: tls}]}
- {to: [{service: archive, port: rest}]}",
    );
    let chancery = Chancery::start(&[("rules.yaml", &(inventory + &rules))], &[]).await?;
    let _envoys = [
        EnvoyProxy::start(&chancery, "shop/db-v1", &[]).await?,
        EnvoyProxy::start(&chancery, "shop/db-v2", &[]).await?,
        EnvoyProxy::start(&chancery, "shop/web", &[]).await?,
    ];
    chancery.in_sync(3).await?;
    for host in ["one.test", "two.db.test"] {
        eventually(SOON, "the database answers", async || reached(calls_db, Some(host)).await).await?;
    }
    // The most specific one decides, wherever its rule stands.
    for (host, by) in [
        ("one.test", "v1"),
        ("a.db.test", "v1"),
        ("a.b.db.test", "v1"),
        ("two.db.test", "v2"),
        ("x.two.db.test", "v1"),
        ("x.old.db.test", "archive"),
        ("old.db.test", "v1"),
    ] {
        assert_eq!(reached(calls_db, Some(host)).await?, by, "{host}");
    }
    // What no rule takes is closed, and so is what names nothing or is no TLS.
    for host in [Some("db.test"), Some("two.test"), None] {
        let answer = reached(calls_db, host).await;
        ensure!(answer.is_err(), "{host:?}: {answer:?}");
    }
    let mut plain = TcpStream::connect(calls_db.loopback()).await?;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: one.test\r\n\r\n").await?;
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
    // A rule that names none takes the rest.
    assert_eq!(reached(calls_archive, Some("any.test")).await?, "archive");
    assert_eq!(reached(calls_archive, None).await?, "rest");
    Ok(())
}
