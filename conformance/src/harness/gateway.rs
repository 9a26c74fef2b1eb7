//! Gateway: the shop with a gateway of its own.
//!
//! Owns: the proxy of the gateway, and requests from outside. May use: the rest of the harness. Never: asserts anything.

use anyhow::ensure;
use chancery::ports::Port;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};

use super::envoy::EnvoyProxy;
use super::shop::{SOON, Shop, rule};
use super::wait::eventually;

/// The shop, and a gateway of it.
#[derive(Debug)]
pub struct Gateway {
    /// The shop.
    pub shop: Shop,
    /// Who asks from outside, and follows no redirect.
    pub client: Client,
    /// The proxy of the gateway.
    pub envoy: EnvoyProxy,
}

// === impl Gateway ===

impl Gateway {
    /// With these listeners and further policies.
    pub async fn start(listeners: &str, policies: &str) -> anyhow::Result<Self> {
        Self::start_with(listeners, policies, &[]).await
    }

    /// The same with further arguments of `serve`.
    pub async fn start_with(listeners: &str, policies: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let gateway = rule("Workload", "edge", "labels: {role: edge}")
            + &rule("EdgeGateway", "edge", &format!("workload: {{labels: {{role: edge}}}}\nlisteners:\n{listeners}"))
            + policies;
        let shop = Shop::start(&gateway, arguments).await?;
        let envoy = EnvoyProxy::start(&shop.chancery, "shop/edge", &[]).await?;
        shop.chancery.in_sync(5).await?;
        let client = Client::builder().no_proxy().redirect(Policy::none()).build()?;
        Ok(Self { shop, client, envoy })
    }

    /// Waits until the services of the host `shop.test` can be reached by this port.
    pub async fn ready(&self, port: &Port) -> anyhow::Result<()> {
        eventually(SOON, "the gateway answers", async || {
            let status = self.ask(port, "shop.test", "/").send().await?.status();
            ensure!(status != 503, "{status}");
            Ok(())
        })
        .await
    }

    /// A GET from outside, for `host`.
    pub fn ask(&self, port: &Port, host: &str, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", port.loopback())).header("host", host)
    }
}
