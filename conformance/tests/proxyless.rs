//! gRPC clients without a proxy: real ones, of C-core and of grpc-js, through the sidecars of the cart.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{Answered, App, Chancery, EnvoyProxy, GrpcClient, Library, eventually};
use futures::future::try_join_all;

/// The file of the services and workloads.
const INVENTORY: &str = "inventory.yaml";
/// The file that tests edit.
const TRAFFIC: &str = "traffic.yaml";
/// The file of security.
const POLICIES: &str = "policies.yaml";

/// Calls at a time, of which the share of each version is counted.
const SAMPLE: usize = 200;

/// A control plane, and the cart in two versions behind an Envoy each.
struct Mesh {
    chancery: Chancery,
    plaintext: Port,
    _apps: [App; 2],
    listen: [Port; 2],
    envoys: Vec<EnvoyProxy>,
}

// === impl Mesh ===

impl Mesh {
    /// Starts the mesh with these routes, and the proxies of the first `versions` of the cart.
    async fn start(traffic: &str, policies: &str, versions: usize) -> anyhow::Result<Self> {
        let apps = [App::grpc("v1").await?, App::grpc("v2").await?];
        let listen = [Port::reserve()?, Port::reserve()?];
        let (plaintext, unused) = (Port::reserve()?, Port::reserve()?);
        let cart = |n: usize| {
            let serves = format!(
                "labels: {{version: v{version}}}\n\
                 serves: [{{service: cart, port: grpc, listen: \"{listen}\", app: \"{app}\"}}]",
                version = n + 1,
                listen = listen[n].loopback(),
                app = apps[n].address()
            );
            rule("Workload", &format!("cart-v{}", n + 1), &serves)
        };
        let web = format!(
            "match: {{nodeId: \"web-*\"}}\ncalls: [{{service: cart, port: grpc, listen: \"{}\"}}]",
            unused.loopback()
        );
        let ports = "ports: [{name: grpc, port: 8080, protocol: grpc}]";
        let inventory = rule("MeshService", "cart", ports) + &rule("Workload", "web", &web) + &cart(0) + &cart(1);
        let address = plaintext.loopback().to_string();
        let rules = [(INVENTORY, inventory.as_str()), (TRAFFIC, traffic), (POLICIES, policies)];
        let chancery = Chancery::start(&rules, &["--xds-plaintext-address", &address]).await?;
        let mut mesh = Self { chancery, plaintext, _apps: apps, listen, envoys: Vec::new() };
        for n in 1..=versions {
            mesh.run(n).await?;
        }
        mesh.chancery.in_sync(versions).await?;
        Ok(mesh)
    }

    /// Starts the proxy of this version of the cart.
    async fn run(&mut self, version: usize) -> anyhow::Result<()> {
        let envoy = EnvoyProxy::start(&self.chancery, &format!("shop/cart-v{version}"), &[]).await?;
        self.envoys.push(envoy);
        Ok(())
    }

    /// A client of the cart. What the library can do decides how it reaches the control plane; `files` are the
    /// directory of its certificates.
    async fn dial(&self, library: Library, target: &str, files: Option<&Path>) -> anyhow::Result<GrpcClient> {
        let bootstrap = self.bootstrap(library, files).await?;
        GrpcClient::start(library, &bootstrap, target, files.is_some()).await
    }

    /// The bootstrap of a client. grpc-js knows no TLS towards the control plane.
    async fn bootstrap(&self, library: Library, files: Option<&Path>) -> anyhow::Result<String> {
        let data = self.chancery.data_directory().display().to_string();
        let address = match (library, files) {
            (Library::Core, Some(_)) => self.chancery.xds_address().to_string(),
            (Library::Core, None) | (Library::JavaScript, _) => self.plaintext.loopback().to_string(),
        };
        let mut all = vec!["bootstrap", "--workload", "shop/web", "--grpc", "--data-dir", &data];
        all.extend(["--xds-address", &address]);
        if self.plaintext.loopback().to_string() == address {
            all.push("--xds-plaintext");
        }
        let files = files.map(|files| files.display().to_string());
        all.extend(files.iter().flat_map(|files| ["--certificates", files]));
        let output = self.chancery.run(&all).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        ensure!(files.is_none() || said.contains("spiffe://cluster.local/ns/shop/sa/web is valid until"), "{said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn refuses_nothing(&self) -> anyhow::Result<()> {
        let nacks = self.chancery.json("/api/v1/nacks").await?;
        ensure!(nacks["nacks"].as_array().is_some_and(Vec::is_empty), "{nacks:#}");
        Ok(())
    }
}

fn split(v1: u32, v2: u32) -> String {
    let to = format!("[{{service: cart, version: v1, weight: {v1}}}, {{service: cart, version: v2, weight: {v2}}}]");
    let shop = "match: [{path: {prefix: /shop.Cart}, headers: {x-none: {absent: true}}}]";
    let spec = format!("for: {{service: cart}}\nhttp:\n- {shop}\n  to: {to}\n- to: [{{service: cart, version: v1}}]\n");
    rule("TrafficRoute", "cart", &spec)
}

/// Waits until every call is answered, and this many per cent of them by v2.
async fn share_of_v2(client: &mut GrpcClient, percent: RangeInclusive<usize>) -> anyhow::Result<()> {
    eventually(SOON * 3, &format!("{percent:?} % by v2"), async || {
        let answers = client.next(SAMPLE).await?;
        let of = |version: &str| answers.iter().filter(|answer| answer.version() == Some(version)).count();
        let (v1, v2) = (of("v1"), of("v2"));
        ensure!(v1 + v2 == SAMPLE, "{v1} by v1, {v2} by v2, and {:?}", errors(&answers).first());
        ensure!(percent.contains(&(v2 * 100 / SAMPLE)), "{v1} by v1, {v2} by v2");
        Ok(())
    })
    .await
}

fn errors(answers: &[Answered]) -> Vec<&str> {
    answers.iter().filter_map(Answered::error).collect()
}

#[tokio::test]
async fn the_split_follows_a_change_of_weights() -> anyhow::Result<()> {
    let mesh = Mesh::start(&split(90, 10), "", 2).await?;
    let targets = ["xds:///cart.shop", "xds:///cart.shop:8080"];
    let kinds = [Library::Core, Library::JavaScript].into_iter().flat_map(|library| targets.map(|to| (library, to)));
    let mut clients = try_join_all(kinds.map(|(library, target)| mesh.dial(library, target, None))).await?;
    for client in &mut clients {
        share_of_v2(client, 2..=22).await?;
    }
    let before: Vec<usize> = clients.iter().map(|client| client.answers().len()).collect();
    mesh.chancery.write_rules(TRAFFIC, &split(25, 75))?;
    for client in &mut clients {
        share_of_v2(client, 60..=90).await?;
    }
    for (client, before) in clients.iter().zip(before) {
        assert_eq!(errors(&client.answers()[before..]), Vec::<&str>::new(), "no call fails on the way");
    }
    mesh.refuses_nothing().await?;

    let proxies = mesh.chancery.in_sync(6).await?;
    let proxies = proxies["proxies"].as_array().context("a list")?;
    let named = |start: &str| {
        let of_web = proxies.iter().filter(|proxy| proxy["workload"] == "shop/web");
        of_web.filter(|proxy| proxy["envoy"].as_str().is_some_and(|envoy| envoy.starts_with(start))).count()
    };
    assert_eq!((named("gRPC C-core"), named("gRPC Node Pure JS")), (2, 2), "{proxies:#?}");
    Ok(())
}

#[tokio::test]
async fn endpoints_come_and_go() -> anyhow::Result<()> {
    let mut mesh = Mesh::start("", "", 1).await?;
    let libraries = [Library::Core, Library::JavaScript];
    let mut clients = try_join_all(libraries.map(|library| mesh.dial(library, "xds:///cart.shop", None))).await?;
    for client in &mut clients {
        share_of_v2(client, 0..=0).await?;
    }
    mesh.run(2).await?;
    for client in &mut clients {
        share_of_v2(client, 40..=60).await?;
    }
    let before: Vec<usize> = clients.iter().map(|client| client.answers().len()).collect();
    // The workload does not serve the cart any more; its proxy drains.
    let serves = format!("listen: \"{}\"", mesh.listen[0].loopback());
    let inventory = std::fs::read_to_string(mesh.chancery.rules_directory().join(INVENTORY))?;
    let lines = inventory.lines().filter(|line| !line.contains(&serves));
    mesh.chancery.write_rules(INVENTORY, &lines.map(|line| format!("{line}\n")).collect::<String>())?;
    for client in &mut clients {
        share_of_v2(client, 100..=100).await?;
    }
    for (client, before) in clients.iter().zip(before) {
        assert_eq!(errors(&client.answers()[before..]), Vec::<&str>::new(), "no call fails on the way");
    }
    mesh.refuses_nothing().await
}

#[tokio::test]
async fn who_has_a_certificate_comes_by_mtls_and_is_known_by_it() -> anyhow::Result<()> {
    let access = "{target: {service: cart}, default: deny, allow: [{from: [{serviceAccount: web}]}]}";
    let mode = |mode: &str| {
        rule("MTLSPolicy", "mode", &format!("{{target: {{scope: namespace}}, mode: {mode}}}"))
            + &rule("AccessPolicy", "cart", access)
    };
    let mesh = Mesh::start(&split(50, 50), &mode("permissive"), 2).await?;
    let directories = [tempfile::tempdir()?, tempfile::tempdir()?];
    let libraries = [Library::Core, Library::JavaScript];
    let dialled = libraries.iter().zip(&directories);
    let dialled = dialled.map(|(library, files)| mesh.dial(*library, "xds:///cart.shop", Some(files.path())));
    let mut clients = try_join_all(dialled).await?;
    for client in &mut clients {
        share_of_v2(client, 35..=65).await?;
    }
    // From both to mTLS alone: nobody who came by mTLS notices.
    let before: Vec<usize> = clients.iter().map(|client| client.answers().len()).collect();
    mesh.chancery.write_rules(POLICIES, &mode("strict"))?;
    for client in &mut clients {
        share_of_v2(client, 35..=65).await?;
    }
    mesh.refuses_nothing().await?;
    for (client, before) in clients.iter().zip(before) {
        let answers = client.answers();
        assert_eq!(errors(&answers[before..]), Vec::<&str>::new(), "no call fails on the way");
        let Some(Answered::Echo(echo)) = answers.last() else { anyhow::bail!("{:?}", answers.last()) };
        let caller = &echo.headers["x-forwarded-client-cert"];
        assert!(caller.ends_with("URI=spiffe://cluster.local/ns/shop/sa/web"), "{caller}");
    }

    // Who may, but comes in plaintext, is not let in.
    for (library, files) in libraries.into_iter().zip(&directories) {
        let bootstrap = mesh.bootstrap(library, Some(files.path())).await?;
        let mut plain = GrpcClient::start(library, &bootstrap, "xds:///cart.shop", false).await?;
        let refused = plain.next(20).await?;
        assert_eq!(errors(&refused).len(), 20, "{refused:?}");
        assert!(errors(&refused).iter().all(|error| error.starts_with("UNAVAILABLE: ")), "{refused:?}");
    }
    // Its certificates were renewed by that, under the same name.
    let core = libraries.into_iter().zip(&directories).next().context("the first")?;
    let node = |bootstrap: &str| -> anyhow::Result<String> {
        Ok(serde_json::from_str::<serde_json::Value>(bootstrap)?["node"]["id"].to_string())
    };
    let again =
        [mesh.bootstrap(core.0, Some(core.1.path())).await?, mesh.bootstrap(core.0, Some(core.1.path())).await?];
    assert_eq!(node(&again[0])?, node(&again[1])?);
    for client in &mut clients {
        share_of_v2(client, 35..=65).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_called_fails() -> anyhow::Result<()> {
    let mesh = Mesh::start("", "", 1).await?;
    for library in [Library::Core, Library::JavaScript] {
        let mut client = mesh.dial(library, "xds:///store.shop", None).await?;
        let is_said = |error: &str| error.starts_with("UNAVAILABLE: ") && error.contains("does not exist");
        // State of the world leaves out what there is not: C-core takes that at once, or from its own timer of 15 s; calls
        // of grpc-js wait for what may come, until their deadline.
        if library == Library::JavaScript {
            let answers = client.next(2).await?;
            assert_eq!(errors(&answers).len(), 2, "{answers:?}");
            continue;
        }
        eventually(SOON * 3, "an error that says it", async || {
            let answers = client.next(1).await?;
            ensure!(errors(&answers).into_iter().any(is_said), "{answers:?}");
            Ok(())
        })
        .await?;
    }
    mesh.refuses_nothing().await
}
