//! Mesh: the processes and applications of a run.
//!
//! Owns: the order in which they start. May use: the `chancery` binary, a stock Envoy, the demo's applications.
//! Never: waits by the clock: each step waits for what the former has to bring about.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::select_all;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::Instant;

use crate::demo::cart::Cart;
use crate::demo::control_plane::{ControlPlane, peak_mib};
use crate::demo::layout::{Addresses, Layout};
use crate::demo::load::Load;
use crate::demo::process::Process;
use crate::demo::{LOOK, Options, PROXIES, VERSIONS, http, store};
use crate::envoy::EnvoyBinary;
use crate::task::Tasks;

/// Every address of a run, by name.
pub(super) const ADDRESSES: [&str; 17] = [
    "control-plane.xds",
    "control-plane.admin",
    "web.app",
    "web.listen",
    "web.cart",
    "web.admin",
    "cart-v1.app",
    "cart-v1.listen",
    "cart-v1.store",
    "cart-v1.admin",
    "cart-v2.app",
    "cart-v2.listen",
    "cart-v2.store",
    "cart-v2.admin",
    "store.app",
    "store.listen",
    "store.admin",
];

/// The workloads that have an Envoy, with the names of their tasks.
const WORKLOADS: [(&str, &str); PROXIES as usize] = [
    ("store", "envoy of store"),
    ("cart-v1", "envoy of cart-v1"),
    ("cart-v2", "envoy of cart-v2"),
    ("web", "envoy of web"),
];

/// The mesh of a run. Its directory goes with it.
#[derive(Debug)]
pub(super) struct Mesh {
    /// Where everything is.
    pub(super) layout: Layout,
    /// web's application.
    pub(super) load: Load,
    /// The way to ask the control plane.
    pub(super) control_plane: ControlPlane,
    addresses: Addresses,
    chancery: PathBuf,
    started: Instant,
    processes: Vec<Process>,
}

// === impl Mesh ===

impl Mesh {
    /// The directories, the rules in them, and the addresses; nothing runs yet.
    pub(super) fn prepare(options: &Options) -> anyhow::Result<Self> {
        let layout = Layout::create(options.directory.as_deref(), options.keep)?;
        let addresses = Addresses::reserve(&ADDRESSES)?;
        layout.write_rules(&addresses)?;
        let load = Load::new(addresses.of("web.cart")?)?;
        let control_plane = ControlPlane::new(addresses.of("control-plane.admin")?)?;
        let (chancery, started) = (options.chancery.clone(), Instant::now());
        Ok(Self { layout, load, control_plane, addresses, chancery, started, processes: Vec::new() })
    }

    /// Starts everything and waits until every version of the cart has answered.
    pub(super) async fn start(&mut self, envoy: &EnvoyBinary, tasks: &mut Tasks) -> anyhow::Result<()> {
        self.start_applications(tasks).await?;
        self.started = Instant::now();
        self.start_control_plane(tasks)?;
        let ready = async {
            while !self.control_plane.is_ready().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.unless_ended(ready).await?;
        for (workload, name) in WORKLOADS {
            let bootstrap = self.bootstrap(workload).await.with_context(|| format!("no bootstrap for {workload}"))?;
            let mut command = Command::new(&envoy.path);
            command.arg("--config-path").arg(bootstrap);
            command.args(["--disable-hot-restart", "--concurrency", "1", "--drain-time-s", "30"]);
            self.processes.push(Process::start(tasks, name, command, self.log(workload))?);
        }
        self.unless_ended(self.load.warm_up(&VERSIONS)).await
    }

    /// From the start of the control plane to the first request that succeeded.
    pub(super) fn first_request(&self) -> Option<Duration> {
        Some(self.load.counts().first_success?.duration_since(self.started))
    }

    /// The most memory that the control plane has had.
    pub(super) fn control_plane_peak_mib(&self) -> anyhow::Result<f64> {
        let control_plane = self.processes.first().context("the control plane was started first")?;
        peak_mib(control_plane.pid())
    }

    /// Where web's application can be asked by hand.
    pub(super) fn web(&self) -> anyhow::Result<SocketAddr> {
        self.addresses.of("web.app")
    }

    /// What is known of a start that came to nothing.
    pub(super) fn explain(&self) -> String {
        let failure = self.load.counts().last_failure.map(|failure| format!("; the last attempt: {failure}"));
        let ends = self.processes.iter().map(Process::tail).collect::<String>();
        failure.unwrap_or_default() + &ends
    }

    async fn start_applications(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        tasks.spawn("store", store::serve(self.bind("store.app").await?, tasks.stop_token()));
        for (version, app, store) in [("v1", "cart-v1.app", "cart-v1.store"), ("v2", "cart-v2.app", "cart-v2.store")] {
            let cart = Cart { version, store: store::Client::new(self.addresses.of(store)?) };
            tasks.spawn("cart", http::serve(self.bind(app).await?, cart.router(), tasks.stop_token()));
        }
        tasks.spawn("web", http::serve(self.bind("web.app").await?, self.load.clone().router(), tasks.stop_token()));
        Ok(())
    }

    fn start_control_plane(&mut self, tasks: &mut Tasks) -> anyhow::Result<()> {
        let mut command = Command::new(&self.chancery);
        command.arg("serve").arg("--rules").arg(self.layout.rules()).arg("--data-dir").arg(self.layout.data());
        command.args(["--xds-address", &self.addresses.of("control-plane.xds")?.to_string()]);
        command.args(["--admin-address", &self.addresses.of("control-plane.admin")?.to_string()]);
        self.processes.push(Process::start(tasks, "control plane", command, self.log("control-plane"))?);
        Ok(())
    }

    /// The Envoy bootstrap of a workload, as `chancery bootstrap` prints it.
    async fn bootstrap(&self, workload: &str) -> anyhow::Result<PathBuf> {
        let mut command = Command::new(&self.chancery);
        command.args(["bootstrap", "--workload", &format!("shop/{workload}"), "--stats-interval", "1s"]);
        command.args(["--xds-address", &self.addresses.of("control-plane.xds")?.to_string()]);
        command.args(["--admin-port", &self.addresses.of(&format!("{workload}.admin"))?.port().to_string()]);
        command.arg("--data-dir").arg(self.layout.data()).stdin(Stdio::null()).kill_on_drop(true);
        let printed = command.output().await.context("cannot run chancery bootstrap")?;
        let said = String::from_utf8_lossy(&printed.stderr);
        ensure!(printed.status.success(), "chancery bootstrap failed ({}): {}", printed.status, said.trim());
        let path = self.layout.root().join(format!("envoy-{workload}.yaml"));
        write_private(&path, &printed.stdout).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    async fn bind(&self, name: &str) -> anyhow::Result<TcpListener> {
        let address = self.addresses.of(name)?;
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.layout.logs().join(format!("{name}.log"))
    }

    /// Waits for `step`, but no longer than all processes run.
    async fn unless_ended(&self, step: impl Future<Output = ()>) -> anyhow::Result<()> {
        let ended = select_all(self.processes.iter().map(|process| Box::pin(process.ended())));
        tokio::select! {
            () = step => Ok(()),
            (error, _, _) = ended => Err(error),
        }
    }
}

/// A bootstrap has the proxy's credential in it.
fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, text)
}
