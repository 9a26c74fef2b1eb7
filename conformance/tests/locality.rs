//! Where endpoints are, through real Envoys: callers go to their zone, their region, a list of regions and the rest, in this
//! order, and to the next only when the former are not well.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::{INVENTORY, SOON, Shop, rule};
use conformance::harness::{App, Chancery, Echo, EnvoyProxy, eventually};
use reqwest::Client;

/// How many requests ask who answers.
const MANY: u32 = 100;

/// Who answers so many requests, each over a connection of its own, and how many of them.
async fn answering(client: &Client, address: SocketAddr) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut answers = BTreeMap::new();
    for _ in 0..MANY {
        let response = client.get(format!("http://{address}/")).send().await?;
        let who = match response.status().as_u16() {
            200 => response.json::<Echo>().await?.version,
            status => status.to_string(),
        };
        *answers.entry(who).or_default() += 1;
    }
    Ok(answers)
}

/// Waits until only `who` answers.
async fn only(client: &Client, address: SocketAddr, who: &str) -> anyhow::Result<()> {
    eventually(SOON, "one alone answers", async || {
        let answers = answering(client, address).await?;
        ensure!(answers == [(who.to_owned(), MANY)].into(), "not {who}: {answers:?}");
        Ok(())
    })
    .await
}

fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().pool_max_idle_per_host(0).build()?)
}

/// A service of these servers, and those who call it from some place.
struct Country {
    servers: BTreeMap<&'static str, App>,
    callers: BTreeMap<&'static str, (Port, EnvoyProxy)>,
    chancery: Chancery,
}

const QUICK: &str = "healthCheck: {tcp: {}, interval: 200ms, unhealthyThreshold: 1}, retry: {attempts: 0}";

fn policy(locality: &str) -> String {
    let outbound = format!("{{{QUICK}, locality: {locality}}}");
    rule("TrafficPolicy", "cart", &format!("target: {{service: cart}}\noutbound: {outbound}"))
}

async fn country(
    locality: &str,
    servers: &[(&'static str, &str)],
    callers: &[(&'static str, &str)],
) -> anyhow::Result<Country> {
    let mut apps = BTreeMap::new();
    let mut list = String::new();
    for (name, place) in servers {
        let app = App::http(name).await?;
        let address = app.address();
        list += &format!("- {{address: {}, port: {}{place}}}\n    ", address.ip(), address.port());
        apps.insert(*name, app);
    }
    let mut rules = rule(
        "MeshService",
        "cart",
        &format!("ports: [{{name: http, port: 80, protocol: http}}]\nendpoints:\n  static:\n    {}", list.trim_end()),
    );
    let mut ports = Vec::new();
    for (name, place) in callers {
        let port = Port::reserve()?;
        rules +=
            &rule("Workload", name, &format!("calls: [{{service: cart, listen: \"{}\"}}]{place}", port.loopback()));
        ports.push((*name, port));
    }
    let chancery = Chancery::start(&[(INVENTORY, &rules), ("policy.yaml", &policy(locality))], &[]).await?;
    let mut running = BTreeMap::new();
    for (name, port) in ports {
        let envoy = EnvoyProxy::start(&chancery, &format!("shop/{name}"), &[]).await?;
        running.insert(name, (port, envoy));
    }
    chancery.in_sync(callers.len()).await?;
    Ok(Country { servers: apps, callers: running, chancery })
}

impl Country {
    fn caller(&self, name: &str) -> SocketAddr {
        self.callers[name].0.loopback()
    }
}

const SERVERS: [(&str, &str); 5] = [
    ("here", ", locality: {region: north, zone: north-1}"),
    ("near", ", locality: {region: north, zone: north-2}"),
    ("listed", ", locality: {region: south, zone: south-1}"),
    ("far", ", locality: {region: west}"),
    ("anywhere", ""),
];

#[tokio::test]
async fn callers_go_to_their_zone_their_region_the_list_and_the_rest_in_this_order() -> anyhow::Result<()> {
    let callers = [
        ("web-1", "\nlocality: {region: north, zone: north-1}"),
        ("web-2", "\nlocality: {region: north, zone: north-2, subzone: rack-7}"),
        ("web-0", ""),
    ];
    let locality = "{prefer: zone, failover: [{from: north, to: south}]}";
    let mut country = country(locality, &SERVERS, &callers).await?;
    let client = client()?;
    let (first, second) = (country.caller("web-1"), country.caller("web-2"));
    only(&client, first, "here").await?;
    only(&client, second, "near").await?;
    let answers = answering(&client, country.caller("web-0")).await?;
    ensure!(answers.len() == SERVERS.len(), "who does not know where it is prefers none: {answers:?}");

    country.servers.remove("here");
    only(&client, first, "near").await?;
    only(&client, second, "near").await?;
    country.servers.remove("near");
    only(&client, first, "listed").await?;
    only(&client, second, "listed").await?;
    country.servers.remove("listed");
    eventually(SOON, "the rest answers", async || {
        let answers = answering(&client, first).await?;
        ensure!(answers.keys().eq(["anywhere", "far"]), "{answers:?}");
        Ok(())
    })
    .await?;

    // A proxy says where it is.
    let (_, envoy) = &country.callers["web-2"];
    let dump = envoy.config_dump().await?;
    let node = &dump["configs"][0]["bootstrap"]["node"]["locality"];
    assert_eq!(*node, serde_json::json!({"region": "north", "zone": "north-2", "sub_zone": "rack-7"}));
    Ok(())
}

#[tokio::test]
async fn what_is_preferred_changes_under_running_proxies() -> anyhow::Result<()> {
    let callers = [("web-1", "\nlocality: {region: north, zone: north-1}")];
    let country = country("{prefer: region}", &SERVERS, &callers).await?;
    let (client, here) = (client()?, country.caller("web-1"));
    for (locality, expected) in [
        ("{prefer: region}", &["here", "near"][..]),
        ("{prefer: none}", &["anywhere", "far", "here", "listed", "near"]),
        ("{prefer: zone}", &["here"]),
        ("null", &["anywhere", "far", "here", "listed", "near"]),
    ] {
        country.chancery.write_rules("policy.yaml", &policy(locality))?;
        eventually(SOON, "those who are preferred answer", async || {
            let answers = answering(&client, here).await?;
            ensure!(answers.keys().eq(expected), "{locality}: {answers:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_share_goes_to_the_next_when_too_few_are_well() -> anyhow::Result<()> {
    let servers = [
        ("one", ", locality: {region: north, zone: north-1}"),
        ("two", ", locality: {region: north, zone: north-1}"),
        ("next", ", locality: {region: north, zone: north-2}"),
    ];
    // Half of them are well.
    for (factor, share) in [("1.4", 10..60), ("2", 0..1), ("1", 25..80)] {
        let callers = [("web-1", "\nlocality: {region: north, zone: north-1}")];
        let locality = format!("{{prefer: zone, overprovisioning: {factor}}}");
        let mut country = country(&locality, &servers, &callers).await?;
        let (client, here) = (client()?, country.caller("web-1"));
        eventually(SOON, "both answer", async || {
            let answers = answering(&client, here).await?;
            ensure!(answers.keys().eq(["one", "two"]), "{answers:?}");
            Ok(())
        })
        .await?;
        country.servers.remove("two");
        eventually(SOON, "a share goes on", async || {
            let answers = answering(&client, here).await?;
            let next = answers.get("next").copied().unwrap_or_default();
            let all = answers.get("one").copied().unwrap_or_default() + next;
            ensure!(all == MANY && share.contains(&next), "{factor}: {answers:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn localities_of_one_priority_share_by_the_weights_of_their_endpoints() -> anyhow::Result<()> {
    let servers = [
        ("small", ", weight: 1, locality: {region: south, zone: a}"),
        ("large", ", weight: 9, locality: {region: south, zone: b}"),
    ];
    let callers = [("web-1", "\nlocality: {region: south, zone: c}")];
    let country = country("{prefer: zone}", &servers, &callers).await?;
    let (client, here) = (client()?, country.caller("web-1"));
    eventually(SOON, "each its share", async || {
        let answers = answering(&client, here).await?;
        let large = answers.get("large").copied().unwrap_or_default();
        ensure!((78..100).contains(&large), "{answers:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_proxies_of_workloads_are_where_their_workload_is() -> anyhow::Result<()> {
    let shop = Shop::start(&policy("{prefer: zone}"), &[]).await?;
    let text = std::fs::read_to_string(shop.chancery.rules_directory().join(INVENTORY))?;
    let at = |text: &str, what: &str, zone: &str| {
        text.replace(what, &format!("locality: {{region: north, zone: {zone}}}, {what}"))
    };
    let placed = at(&at(&text, "labels: {version: v1}", "a"), "labels: {version: v2}", "b");
    let web = format!("{{name: web, namespace: shop}}\nspec: {{{}", "serves");
    ensure!(placed.contains(&web), "web serves: {placed}");
    let client = client()?;
    for (zone, version) in [("a", "v1"), ("b", "v2")] {
        let placed =
            placed.replace(&web, &web.replace("serves", &format!("locality: {{region: north, zone: {zone}}}, serves")));
        shop.chancery.write_rules(INVENTORY, &placed)?;
        only(&client, shop.web_cart(), version).await?;
    }
    // The one proxy in the zone ends.
    let here = shop.web_cart();
    let [_web, _v1, v2, _store] = shop.envoys;
    v2.terminate().await?;
    only(&client, here, "v1").await
}
