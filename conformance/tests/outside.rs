//! Services outside of the mesh, through real Envoys: endpoints by name, TLS that proxies begin, the host of requests.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, client, listed, rule};
use conformance::harness::{App, Authority, Chancery, Echo, EnvoyProxy, eventually};
use reqwest::Client;
use rustls::version::TLS12;

/// A control plane, and one proxy that calls `services`, each with its `spec`.
struct Callers {
    _envoy: EnvoyProxy,
    _chancery: Chancery,
    ports: Vec<Port>,
    client: Client,
}

// === impl Callers ===

impl Callers {
    async fn start(services: &[(&str, String)], rules: &str) -> anyhow::Result<Self> {
        let ports = services.iter().map(|_| Port::reserve()).collect::<Result<Vec<_>, _>>()?;
        let call = |((name, _), port): (&(&str, String), &Port)| {
            format!("{{service: {name}, port: http, listen: \"{}\"}}", port.loopback())
        };
        let calls: Vec<String> = services.iter().zip(&ports).map(call).collect();
        let declared: String = services.iter().map(|(name, spec)| rule("MeshService", name, spec)).collect();
        let web = rule("Workload", "web", &format!("calls: [{}]", calls.join(", ")));
        let chancery = Chancery::start(&[("rules.yaml", &(declared + &web + rules))], &[]).await?;
        let envoy = EnvoyProxy::start(&chancery, "shop/web", &[]).await?;
        chancery.in_sync(1).await?;
        let client = client()?;
        Ok(Self { _envoy: envoy, _chancery: chancery, ports, client })
    }

    /// Asks the service of this number.
    async fn ask(&self, number: usize, path: &str) -> anyhow::Result<reqwest::Response> {
        let address: SocketAddr = self.ports.get(number).context("a service")?.loopback();
        Ok(self.client.get(format!("http://{address}{path}")).send().await?)
    }

    /// What the application behind it says that reached it, once it is reached.
    async fn echo(&self, number: usize, path: &str) -> anyhow::Result<Echo> {
        eventually(SOON, "it is reached", async || {
            let response = self.ask(number, path).await?;
            ensure!(response.status() == 200, "{response:?}");
            Ok(response.json().await?)
        })
        .await
    }
}

fn host(echo: &Echo) -> Option<&str> {
    echo.headers.get("host").map(String::as_str)
}

fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("      {line}\n")).collect()
}

/// An external service at `app` by name, with this TLS.
fn named(app: &App, tls: &str) -> String {
    let port = app.address().port();
    format!(
        "external: true\nports: [{{name: http, port: 443, protocol: http}}]\n\
         endpoints: {{dns: {{hostname: localhost, family: v4-only, ports: {{http: {port}}}}}}}\n{tls}"
    )
}

#[tokio::test]
async fn a_name_is_asked_for_and_requests_are_for_its_host() -> anyhow::Result<()> {
    let (app, other) = (App::http("v1").await?, App::http("other").await?);
    let dns = |mode: &str| {
        let port = app.address().port();
        format!(
            "ports: [{{name: http, port: {port}, protocol: http}}]\n\
             endpoints: {{dns: {{hostname: localhost, mode: {mode}, family: v4-only}}}}"
        )
    };
    let services =
        [("strict", dns("strict")), ("logical", dns("logical")), ("outside", named(&app, "")), ("other", cart(&other))];
    let route = "for: {service: other}\nhttp:\n\
                 - {match: [{path: {prefix: /moved}}], to: [{service: outside}]}\n\
                 - {match: [{path: {prefix: /named}}], to: [{service: outside}], rewrite: {host: named.example}}\n\
                 - {match: [{path: {prefix: /marked}}], to: [{service: other, headers: {request: {set: {x-share: one}}}}]}\n\
                 - {to: [{service: other}]}\n";
    let callers = Callers::start(&services, &rule("TrafficRoute", "other", route)).await?;
    for number in [0, 1] {
        // Within the mesh requests are for whom their caller says.
        assert!(host(&callers.echo(number, "/").await?).is_some_and(|host| host.starts_with("127.0.0.1")));
    }
    for (number, path, expected) in [(2, "/", "localhost"), (3, "/moved", "localhost"), (3, "/named", "named.example")]
    {
        assert_eq!(host(&callers.echo(number, path).await?), Some(expected), "{path}");
    }
    let marked = callers.echo(3, "/marked").await?;
    assert_eq!(marked.headers.get("x-share").map(String::as_str), Some("one"));
    assert_eq!(callers.echo(3, "/").await?.headers.get("x-share"), None);
    Ok(())
}

fn cart(app: &App) -> String {
    format!("ports: [{{name: http, port: 80, protocol: http}}]\n{}", listed(&[(app.address(), "")]))
}

#[tokio::test]
async fn a_proxy_begins_tls_with_whom_an_authority_vouches_for() -> anyhow::Result<()> {
    let (authority, stranger) = (Authority::new("outside")?, Authority::new("stranger")?);
    let app = App::https(&authority, "localhost", None).await?;
    let elsewhere = App::https(&authority, "elsewhere.example", None).await?;
    let old = App::https(&authority, "localhost", Some(&TLS12)).await?;
    let by = |authority: &Authority, more: &str| {
        format!("tls:\n  {more}\n  ca:\n    inline: |\n{}", indented(&authority.pem))
    };
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &authority.pem)?;
    let by_file = format!("tls: {{ca: {{file: {}}}}}", file.path().display());
    let services = [
        ("good", named(&app, &by(&authority, "minVersion: \"1.3\""))),
        ("by-file", named(&app, &by_file)),
        ("by-sni", named(&elsewhere, &by(&authority, "sni: elsewhere.example"))),
        ("old", named(&old, &by(&authority, "minVersion: \"1.2\""))),
        ("stranger", named(&app, &by(&stranger, "minVersion: \"1.2\""))),
        ("another-name", named(&elsewhere, &by(&authority, "minVersion: \"1.2\""))),
        ("too-old", named(&old, &by(&authority, "minVersion: \"1.3\""))),
        ("unknown-to-the-system", named(&app, "tls: {}")),
    ];
    let callers = Callers::start(&services, "").await?;
    for (number, expected) in [(0, "localhost"), (1, "localhost"), (2, "elsewhere.example"), (3, "localhost")] {
        let echo = callers.echo(number, "/").await?;
        assert_eq!((host(&echo), echo.version.as_str()), (Some(expected), expected));
    }
    for (number, (name, _)) in services.iter().enumerate().skip(4) {
        let response = callers.ask(number, "/").await?;
        assert_eq!(response.status(), 503, "{name}");
    }
    Ok(())
}
