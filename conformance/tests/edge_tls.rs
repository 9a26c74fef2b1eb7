//! TLS at gateways through a real Envoy: which certificate is shown to whom, who gets in, and what changes while it runs.

use std::path::Path;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::gateway::Gateway;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{App, Authority, ClientIdentity, Credential, Echo, Peer, TlsConnection, eventually};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use translators::resource::Kind;
use x509_parser::extensions::GeneralName;

/// An authority that has nothing to do with the mesh.
struct Outside {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

// === impl Outside ===

impl Outside {
    fn new() -> anyhow::Result<Self> {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate()?);
        params.distinguished_name.push(DnType::CommonName, "outside");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    fn issue(&self, names: &[&str]) -> anyhow::Result<Pair> {
        self.issue_until(names, 2100)
    }

    fn issue_until(&self, names: &[&str], year: i32) -> anyhow::Result<Pair> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let (mut params, key) = (CertificateParams::new(names)?, KeyPair::generate()?);
        params.distinguished_name.push(DnType::CommonName, "client or server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

// === impl Pair ===

impl Pair {
    fn identity(&self) -> ClientIdentity {
        ClientIdentity::Certificate { chain_pem: self.certificate.clone(), key_pem: self.key.clone() }
    }

    /// As a block of YAML that is indented by so much.
    fn inline(&self, indent: usize) -> String {
        let block = |text: &str| text.lines().map(|line| format!("{:indent$}  {line}\n", "")).collect::<String>();
        let (certificate, key) = (block(&self.certificate), block(&self.key));
        format!("{:indent$}cert: |\n{certificate}{:indent$}key: |\n{key}", "", "")
    }

    fn write(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::write(directory.join("tls.pem"), &self.certificate)?;
        Ok(std::fs::write(directory.join("tls.key"), &self.key)?)
    }
}

/// The hosts of the certificate that is shown to whoever asks for `host`, and its serial number.
async fn shown(port: &Port, host: &str) -> anyhow::Result<(Vec<String>, String)> {
    let open = TlsConnection::open_to(port.loopback(), host, ClientIdentity::None).await?;
    let certificate = open.server_certificates().first().context("a certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(certificate)?;
    let names = leaf.subject_alternative_name()?.context("names")?;
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok((names.collect(), leaf.raw_serial_as_string()))
}

/// A GET for `host` by a connection that named `named`: the head and the body of the answer.
async fn get(port: &Port, named: &str, host: &str, identity: ClientIdentity) -> anyhow::Result<(String, String)> {
    let open = TlsConnection::open_to(port.loopback(), named, identity).await?;
    let forged = "x-edge-client-cert: Hash=forged\r\nx-forwarded-client-cert: Hash=forged";
    open.exchange(&format!("GET /a HTTP/1.1\r\nhost: {host}\r\n{forged}\r\nconnection: close\r\n\r\n")).await
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn certificate(name: &str, source: &str) -> String {
    rule("TLSCertificate", name, &format!("source:\n{source}"))
}

#[tokio::test]
async fn each_host_shows_its_certificate_and_lets_in_whom_it_is_to() -> anyhow::Result<()> {
    let (outside, strangers, directory) = (Outside::new()?, Outside::new()?, tempfile::tempdir()?);
    let (file, text) = (outside.issue(&["shop.test"])?, outside.issue(&["partners.test", "guests.test"])?);
    file.write(directory.path())?;
    let (https, any, http) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
    let ca = directory.path().join("clients.pem");
    std::fs::write(&ca, &outside.pem)?;
    let (port, ca) = (https.number(), ca.display());
    let listeners = format!(
        r#"- {{name: http, address: 127.0.0.1, port: {}, protocol: http, redirectTo: shop}}
- {{name: shop, address: 127.0.0.1, port: {port}, protocol: https, hostnames: [shop.test], tls: {{certificate: file}}}}
- {{name: rest, address: 127.0.0.1, port: {port}, protocol: https, hostnames: ["*.test"], tls: {{certificate: issued, minVersion: "1.3"}}}}
- name: partners
  address: 127.0.0.1
  port: {port}
  protocol: https
  hostnames: [partners.test]
  tls: {{certificate: text, clientAuth: {{mode: require, ca: {{file: {ca}}}, forward: true}}}}
- name: guests
  address: 127.0.0.1
  port: {port}
  protocol: https
  hostnames: [guests.test]
  tls: {{certificate: text, clientAuth: {{mode: optional, ca: {{file: {ca}}}}}}}
- {{name: any, address: 127.0.0.1, port: {}, protocol: https, tls: {{certificate: issued}}}}
- {{name: moved, address: 127.0.0.1, port: {1}, protocol: https, hostnames: ["*.moved.test"], redirectTo: shop, tls: {{certificate: issued}}}}"#,
        http.number(),
        any.number(),
    );
    let files = directory.path().display();
    let policies = rule("TrafficRoute", "all", "for: {gateway: edge}\nhttp: [{to: [{service: cart}]}]")
        + &certificate("file", &format!("  file: {{cert: {files}/tls.pem, key: {files}/tls.key}}"))
        + &certificate("issued", "  issued: {dnsNames: [\"*.test\", issued.example]}")
        + &certificate("text", &format!("  inline:\n{}", text.inline(4)));
    let gateway = Gateway::start(&listeners, &policies).await?;
    eventually(SOON, "the shop answers", async || {
        let (head, body) = get(&https, "shop.test", "shop.test", ClientIdentity::None).await?;
        ensure!(status(&head) == "200", "{head} {body}");
        Ok(())
    })
    .await?;
    // By the name in the handshake, the most specific first.
    let issued = ["*.test", "issued.example"].as_slice();
    for (port, host, names) in [
        (&https, "shop.test", ["shop.test"].as_slice()),
        (&https, "x.test", issued),
        (&https, "guests.test", &["partners.test", "guests.test"]),
        (&any, "what.ever", issued),
        (&any, "a.moved.test", issued),
    ] {
        assert_eq!(shown(port, host).await?.0, names, "{host}");
    }
    for port in [&https, &any] {
        let nameless = TlsConnection::open(port.loopback(), ClientIdentity::None, &["http/1.1"]).await;
        assert!(nameless.is_err(), "who names no host gets no certificate");
    }
    assert!(shown(&https, "elsewhere.example").await.is_err(), "nobody's host");
    // A request for the host of another listener does not slip in by this one's connection.
    for (named, host, wanted) in [
        ("shop.test", "shop.test:443", "200"),
        ("shop.test", "partners.test", "421"),
        ("x.test", "shop.test", "421"),
        ("x.test", "y.test", "200"),
        ("shop.test", "elsewhere.example", "404"),
    ] {
        let (head, _) = get(&https, named, host, ClientIdentity::None).await?;
        assert_eq!(status(&head), wanted, "{named} {host}: {head}");
    }
    // Versions.
    let by_version = async |host: &str, version: &'static rustls::SupportedProtocolVersion| {
        let address = https.loopback();
        TlsConnection::open_with(address, Some(host), ClientIdentity::None, &[], &[version]).await.is_ok()
    };
    assert!(
        by_version("shop.test", &rustls::version::TLS12).await
            && by_version("shop.test", &rustls::version::TLS13).await
    );
    assert!(
        !by_version("x.test", &rustls::version::TLS12).await && by_version("x.test", &rustls::version::TLS13).await
    );
    // Certificates of clients.
    let (client, stranger) = (outside.issue(&["client.test"])?, strangers.issue(&["client.test"])?);
    let (head, body) = get(&https, "partners.test", "partners.test", client.identity()).await?;
    assert_eq!(status(&head), "200", "{head}");
    let echo: Echo = serde_json::from_str(&body)?;
    let said = echo.headers.get("x-edge-client-cert").map(String::as_str).unwrap_or_default();
    assert!(said.contains("DNS=client.test") && !said.contains("forged"), "{said}");
    for (host, identity, lets_in) in [
        ("partners.test", ClientIdentity::None, false),
        ("partners.test", stranger.identity(), false),
        ("guests.test", ClientIdentity::None, true),
        ("guests.test", client.identity(), true),
        ("guests.test", stranger.identity(), false),
    ] {
        let answer = get(&https, host, host, identity).await;
        assert_eq!(answer.is_ok_and(|(head, _)| status(&head) == "200"), lets_in, "{host}");
    }
    // Nothing is passed on of a certificate where nobody asks for that, and never what a client says of one.
    let (_, body) = get(&https, "guests.test", "guests.test", client.identity()).await?;
    let echo: Echo = serde_json::from_str(&body)?;
    assert_eq!(echo.headers.get("x-edge-client-cert"), None);
    assert!(!body.contains("forged"), "{body}");
    // To another listener.
    let answer = gateway.ask(&http, "shop.test:1234", "/a?b=c").send().await?;
    let location = answer.headers().get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
    assert_eq!((answer.status().as_u16(), location), (301, format!("https://shop.test:{port}/a?b=c").as_str()));

    // The secrets are the gateway's alone, and no key is shown anywhere.
    let other = Credential::issue(&gateway.shop.chancery, "shop/web").await?;
    let channel = other.connect(&gateway.shop.chancery).await?;
    let names = ["certificate/shop/file", "certificate/shop/issued", "certificate/shop/text"];
    let mut peer = Peer::sotw_over(channel, &other.node).await?;
    peer.ask(Kind::Secret, &names).await?;
    peer.silence().await?;
    let chancery = &gateway.shop.chancery;
    let findings = chancery.text("/api/v1/findings").await?;
    for key in [&file.key, &text.key] {
        let word = key.lines().nth(1).context("a line of the key")?;
        assert!(!chancery.log().contains(word) && !findings.contains(word));
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_changes_under_a_running_gateway_and_a_bad_one_changes_nothing() -> anyhow::Result<()> {
    let (outside, directory) = (Outside::new()?, tempfile::tempdir()?);
    let (first, second) = (outside.issue(&["shop.test"])?, outside.issue(&["other.test"])?);
    first.write(directory.path())?;
    let https = Port::reserve()?;
    let listener = |name: &str, certificate: &str| {
        format!(
            "- {{name: {name}, address: 127.0.0.1, port: {}, protocol: https, hostnames: [{name}.test], tls: {{certificate: {certificate}}}}}\n",
            https.number()
        )
    };
    let files = directory.path().display();
    let policies = rule("TrafficRoute", "all", "for: {gateway: edge}\nhttp: [{to: [{service: cart}]}]")
        + &certificate("file", &format!("  file: {{cert: {files}/tls.pem, key: {files}/tls.key}}"))
        + &certificate("issued", "  issued: {dnsNames: [issued.test]}");
    let listeners = listener("shop", "file") + &listener("issued", "issued");
    let gateway = Gateway::start_with(&listeners, &policies, &["--leaf-ttl", "10s"]).await?;
    let serial = async |host: &str| anyhow::Ok(shown(&https, host).await?.1);
    let (of_file, of_issued) = eventually(SOON, "both are shown", async || {
        anyhow::Ok((serial("shop.test").await?, serial("issued.test").await?))
    })
    .await?;
    // Half of a pair: what was there stays, and somebody is told.
    let findings = async || gateway.shop.chancery.text("/api/v1/findings").await;
    std::fs::write(directory.path().join("tls.pem"), &second.certificate)?;
    eventually(SOON, "a finding", async || {
        let found = findings().await?;
        ensure!(found.contains("MX0405") && found.contains("it is the key of another certificate"), "{found}");
        Ok(())
    })
    .await?;
    assert_eq!(serial("shop.test").await?, of_file);
    // Both of it: the new one is shown, and that it is not for the host is said.
    second.write(directory.path())?;
    eventually(SOON, "another certificate", async || {
        ensure!(shown(&https, "shop.test").await?.0 == ["other.test"], "still the former");
        let found = findings().await?;
        ensure!(found.contains("is not for shop.test") && !found.contains("another certificate"), "{found}");
        Ok(())
    })
    .await?;
    outside.issue_until(&["shop.test"], 2020)?.write(directory.path())?;
    eventually(SOON, "a finding", async || {
        let found = findings().await?;
        ensure!(found.contains("it has expired at 2020-01-01"), "{found}");
        Ok(())
    })
    .await?;
    // What the mesh issues is renewed at half of its life.
    eventually(SOON, "a renewed certificate", async || {
        ensure!(serial("issued.test").await? != of_issued, "still the first");
        Ok(())
    })
    .await?;
    let key = second.key.lines().nth(1).context("a line of the key")?;
    assert!(!gateway.shop.chancery.log().contains(key));
    Ok(())
}

#[tokio::test]
async fn tls_is_passed_on_or_ended_by_the_host_that_is_named_beside_https_on_one_port() -> anyhow::Result<()> {
    let (port, client) = (Port::reserve()?, Outside::new()?);
    let authority = Authority::new("outside")?;
    let bank = App::https(&authority, "bank", None).await?;
    let old = App::https(&authority, "old", None).await?;
    let line = App::server_first("line").await?;
    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("clients.pem");
    std::fs::write(&ca, &client.pem)?;
    let listener = |rest: &str| format!("- {{address: 127.0.0.1, port: {}, {rest}}}\n", port.number());
    let auth = format!("clientAuth: {{mode: require, ca: {{file: {}}}}}", ca.display());
    let listeners = listener("name: web, protocol: https, hostnames: [\"*.test\"], tls: {certificate: issued}")
        + &listener("name: bank, protocol: tls, hostnames: [\"*.bank.test\", shut.test], tls: {mode: passthrough}")
        + &listener(&format!(
            "name: line, protocol: tls, hostnames: [line.test, idle.test], tls: {{certificate: issued, {auth}}}"
        ));
    let outside = |name: &str, protocol: &str, app: &App| {
        let endpoint = format!("{{address: 127.0.0.1, port: {}}}", app.address().port());
        let ports = format!("[{{name: one, port: 70, protocol: {protocol}}}]");
        rule("MeshService", name, &format!("ports: {ports}\nendpoints: {{static: [{endpoint}]}}"))
    };
    let policies = outside("bank", "tls", &bank)
        + &outside("old", "tls", &old)
        + &outside("line", "tcp", &line)
        + &certificate("issued", "  issued: {dnsNames: [\"*.test\"]}")
        + &rule(
            "TrafficRoute",
            "web",
            "for: {gateway: edge, hostnames: [\"*.test\"]}\nhttp: [{to: [{service: cart}]}]",
        )
        + &rule(
            "TrafficRoute",
            "bank",
            "for: {gateway: edge, hostnames: [\"*.bank.test\"]}\ntls:\n- {to: [{service: bank}]}\n\
             - {match: [{sni: old.bank.test}, {sni: older.bank.test}], to: [{service: old}]}",
        )
        + &rule(
            "TrafficRoute",
            "line",
            "for: {gateway: edge, hostnames: [line.test]}\ntcp: [{match: [{cidr: 127.0.0.0/8}], to: [{service: line}]}]",
        );
    let _gateway = Gateway::start(&listeners, &policies).await?;
    let none = || ClientIdentity::None;
    eventually(SOON, "the gateway answers", async || {
        let (head, _) = get(&port, "a.test", "a.test", none()).await?;
        ensure!(status(&head) == "200", "{head}");
        get(&port, "a.bank.test", "a.bank.test", none()).await
    })
    .await?;
    // Passed on: the certificate is the application's.
    for (host, version) in [("a.bank.test", "bank"), ("x.y.bank.test", "bank"), ("old.bank.test", "old")] {
        let (_, body) = get(&port, host, host, none()).await?;
        assert_eq!(serde_json::from_str::<Echo>(&body)?.version, version, "{host}");
        assert_eq!(shown(&port, host).await?.0, [version], "{host}");
    }
    let (_, body) = get(&port, "a.test", "a.test", none()).await?;
    assert!(serde_json::from_str::<Echo>(&body)?.version.starts_with('v'), "{body}");
    // A host for which no rule is is no wider listener's.
    for host in ["shut.test", "idle.test"] {
        assert!(shown(&port, host).await.is_err(), "{host}");
    }
    // Ended: bytes come out of it, for those who may.
    let banner = async |identity| {
        let mut open = TlsConnection::open_to(port.loopback(), "line.test", identity).await?;
        open.line().await
    };
    assert_eq!(banner(client.issue(&["client.test"])?.identity()).await?, "line");
    assert!(banner(none()).await.is_err(), "whoever has no certificate");
    let (head, _) = get(&port, "a.test", "a.bank.test", none()).await?;
    assert_eq!(status(&head), "421", "{head}");
    Ok(())
}
