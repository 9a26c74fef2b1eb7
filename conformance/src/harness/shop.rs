//! Shop: the mesh that most behaviour tests use.
//!
//! Owns: a control plane, `web` that calls, `cart` in two versions and a server-first `store` that serve, an
//! Envoy for each, and their addresses. May use: the rest of the harness. Never: asserts anything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;

use super::app::{App, Echo};
use super::chancery::Chancery;
use super::envoy::EnvoyProxy;
use super::wait::eventually;

/// The file of the services and workloads.
pub const INVENTORY: &str = "inventory.yaml";
/// The file that a test writes.
pub const POLICIES: &str = "policies.yaml";
/// How long a change may take to be seen.
pub const SOON: Duration = Duration::from_secs(20);

/// A client that opens a connection for each request.
pub fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?)
}

/// The `endpoints` of a service that are these, of these versions, or of none.
pub fn listed(endpoints: &[(SocketAddr, &str)]) -> String {
    let one = |(at, version): &(SocketAddr, &str)| {
        let labels = if version.is_empty() { String::new() } else { format!(", labels: {{version: {version}}}") };
        format!("{{address: {}, port: {}{labels}}}", at.ip(), at.port())
    };
    let endpoints: Vec<String> = endpoints.iter().map(one).collect();
    format!("endpoints: {{static: [{}]}}\n", endpoints.join(", "))
}

/// The running mesh.
#[derive(Debug)]
pub struct Shop {
    /// The control plane.
    pub chancery: Chancery,
    /// The application `cart` v1.
    pub v1: App,
    /// The application `cart` v2.
    pub v2: App,
    /// The application `store`.
    pub store: App,
    /// The Envoys of web, cart-v1, cart-v2 and store.
    pub envoys: [EnvoyProxy; 4],
    ports: Ports,
    client: reqwest::Client,
}

#[derive(Debug)]
struct Ports {
    web: Port,
    web_cart: Port,
    web_store: Port,
    cart_v1: Port,
    cart_v2: Port,
    store: Port,
}

/// The answer of the cart: its status, and what the application says reached it.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

// === impl Shop ===

impl Shop {
    /// Starts the mesh with these policies and further arguments of `serve`, and waits until all is in sync and web
    /// reaches the cart by some way (or is refused by it).
    pub async fn start(policies: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(policies, arguments, &[]).await
    }

    /// The same with Envoys whose bootstraps were printed with further arguments.
    pub async fn start_with(policies: &str, arguments: &[&str], bootstrap: &[&str]) -> anyhow::Result<Self> {
        let (v1, v2, store) = (App::http("v1").await?, App::http("v2").await?, App::server_first("store").await?);
        let ports = Ports::reserve()?;
        let inventory = inventory(&ports, [&v1, &v2, &store]);
        let chancery = Chancery::start(&[(INVENTORY, &inventory), (POLICIES, policies)], arguments).await?;
        let envoys = [
            EnvoyProxy::start(&chancery, "shop/web", bootstrap).await?,
            EnvoyProxy::start(&chancery, "shop/cart-v1", bootstrap).await?,
            EnvoyProxy::start(&chancery, "shop/cart-v2", bootstrap).await?,
            EnvoyProxy::start(&chancery, "shop/store", bootstrap).await?,
        ];
        chancery.in_sync(4).await?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let shop = Self { chancery, v1, v2, store, envoys, ports, client };
        eventually(SOON, "web reaches the cart", async || {
            let answer = shop.get("/cart").await?;
            ensure!(answer.status != 503, "{answer:?}");
            Ok(())
        })
        .await?;
        Ok(shop)
    }

    /// Where web's application reaches the cart.
    pub fn web_cart(&self) -> SocketAddr {
        self.ports.web_cart.loopback()
    }

    /// Where web's application reaches the store.
    pub fn web_store(&self) -> SocketAddr {
        self.ports.web_store.loopback()
    }

    /// Where the proxy of cart v1 listens.
    pub fn cart_v1(&self) -> SocketAddr {
        self.ports.cart_v1.loopback()
    }

    /// Where the proxy of the store listens.
    pub fn store_proxy(&self) -> SocketAddr {
        self.ports.store.loopback()
    }

    /// A GET of `path` from web to the cart.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(self.web_cart(), path, &[]).await
    }

    /// A GET of `path` at `address` with these headers, on a connection that may be kept.
    pub async fn ask(&self, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let mut request = self.client.get(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        Ok(Answer { status: response.status().as_u16(), body: response.text().await? })
    }

    /// Writes the policies anew.
    pub fn write_policies(&self, policies: &str) -> anyhow::Result<()> {
        self.chancery.write_rules(POLICIES, policies)
    }
}

// === impl Answer ===

impl Answer {
    /// What the application says reached it.
    pub fn echo(&self) -> anyhow::Result<Echo> {
        serde_json::from_str(&self.body).with_context(|| format!("the application did not answer: {self:?}"))
    }
}

// === impl Ports ===

impl Ports {
    fn reserve() -> std::io::Result<Self> {
        Ok(Self {
            web: Port::reserve()?,
            web_cart: Port::reserve()?,
            web_store: Port::reserve()?,
            cart_v1: Port::reserve()?,
            cart_v2: Port::reserve()?,
            store: Port::reserve()?,
        })
    }
}

fn inventory(ports: &Ports, [v1, v2, store]: [&App; 3]) -> String {
    let object = |kind: &str, name: &str, spec: String| {
        format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{{spec}}}\n---\n"
        )
    };
    let call = |service: &str, port: &str, listen: &Port| {
        format!("{{service: {service}, port: {port}, listen: \"{}\"}}", listen.loopback())
    };
    let serve = |service: &str, port: &str, listen: &Port, app: SocketAddr| {
        format!("serves: [{{service: {service}, port: {port}, listen: \"{}\", app: \"{app}\"}}]", listen.loopback())
    };
    let calls =
        format!("calls: [{}, {}]", call("cart", "http", &ports.web_cart), call("store", "line", &ports.web_store));
    let nobody = v1.address();
    [
        object("MeshService", "web", "ports: [{name: http, port: 80, protocol: http}]".into()),
        object("MeshService", "cart", "ports: [{name: http, port: 80, protocol: http}]".into()),
        object("MeshService", "store", "ports: [{name: line, port: 70, protocol: tcp, serverFirst: true}]".into()),
        object("Workload", "web", format!("{}, {calls}", serve("web", "http", &ports.web, nobody))),
        object(
            "Workload",
            "cart-v1",
            format!("labels: {{version: v1}}, {}", serve("cart", "http", &ports.cart_v1, v1.address())),
        ),
        object(
            "Workload",
            "cart-v2",
            format!("labels: {{version: v2}}, {}", serve("cart", "http", &ports.cart_v2, v2.address())),
        ),
        object("Workload", "store", serve("store", "line", &ports.store, store.address())),
    ]
    .concat()
}

/// The service `cart` alone, and the `workload` that serves it.
pub fn cart_alone(workload: &str, listen: SocketAddr, app: SocketAddr) -> String {
    let serves = format!("serves: [{{service: cart, port: http, listen: \"{listen}\", app: \"{app}\"}}]");
    rule("MeshService", "cart", "ports: [{name: http, port: 80, protocol: http}]")
        + &rule("Workload", workload, &serves)
}

/// One object of the namespace `shop`, to be joined with others by [`str::to_owned`] and `+`.
pub fn rule(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{}---\n",
        spec.lines().map(|line| format!("  {line}\n")).collect::<String>()
    )
}
