//! Envoy: a stock Envoy, native or in docker, and its own admin interface.
//!
//! Owns: where Envoys come from, and one running Envoy. May use: `chancery::envoy` to find a binary, docker. Never:
//! a configuration that the control plane did not make.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::config::Environment;
use chancery::envoy::{EnvoyRequest, locate};
use chancery::ports::Port;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::chancery::Chancery;
use super::child::Child;
use super::wait::eventually;

/// How long an Envoy may take to be live.
const LIVE: Duration = Duration::from_secs(30);

/// Where Envoys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvoySource {
    /// A binary.
    Native(PathBuf),
    /// A container image, run in the host's network.
    Docker(String),
}

/// A running Envoy. It ends when the value is dropped.
#[derive(Debug)]
pub struct EnvoyProxy {
    child: Child,
    container: Option<String>,
    admin: Port,
    directory: TempDir,
    http: reqwest::Client,
}

// === impl EnvoySource ===

impl EnvoySource {
    /// What the environment says: `CHANCERY_ENVOY_IMAGE`, else a binary as `chancery demo` finds it.
    pub async fn from_environment() -> anyhow::Result<Self> {
        static SOURCE: OnceCell<EnvoySource> = OnceCell::const_new();
        let source = SOURCE.get_or_try_init(async || {
            let environment = Environment::read();
            match &environment.envoy_image {
                Some(image) => anyhow::Ok(Self::Docker(image.clone())),
                None => Ok(Self::Native(locate(&EnvoyRequest::default(), &environment).await?.path)),
            }
        });
        source.await.cloned()
    }

    /// A binary of exactly this release.
    pub async fn release(version: &str) -> anyhow::Result<Self> {
        Ok(Self::Native(locate(&EnvoyRequest::version(version), &Environment::read()).await?.path))
    }

    /// Whether Envoy itself takes this configuration; its own words if not.
    pub async fn validate(&self, config: &Path) -> anyhow::Result<Result<(), String>> {
        let name = container_name();
        let mut command = tokio::process::Command::from(self.command(config, &name)?);
        command.args(["--mode", "validate"]).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.context("cannot run envoy")?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok(if output.status.success() { Ok(()) } else { Err(said.trim().to_owned()) })
    }

    /// Envoy with this configuration file, whose directory a container sees under the same path.
    fn command(&self, config: &Path, container: &str) -> anyhow::Result<Command> {
        let mut command = match self {
            Self::Native(binary) => Command::new(binary),
            Self::Docker(image) => {
                let directory = config.parent().context("a configuration is in a directory")?.display();
                let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
                let mut docker = Command::new("docker");
                docker.args(["run", "--rm", "--network", "host", "--name", container]);
                docker.args(["--user", &format!("{user}:{group}"), "--volume", &format!("{directory}:{directory}")]);
                docker.arg(image);
                docker
            }
        };
        command.arg("--config-path").arg(config).arg("--disable-hot-restart").args(["--concurrency", "1"]);
        Ok(command)
    }
}

fn container_name() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    format!("chancery-envoy-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed))
}

// === impl EnvoyProxy ===

impl EnvoyProxy {
    /// Starts the Envoy of a workload from what `chancery bootstrap` prints, with further arguments of that, and
    /// waits until it is live: until it has its first configuration.
    pub async fn start(chancery: &Chancery, workload: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let source = EnvoySource::from_environment().await?;
        let mut proxy = Self::launch(&source, chancery, workload, arguments).await?;
        proxy.live().await?;
        Ok(proxy)
    }

    /// The same from another source, without waiting.
    pub async fn launch(
        source: &EnvoySource,
        chancery: &Chancery,
        workload: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let admin = Port::reserve()?;
        let port = admin.number().to_string();
        let all = [&["--admin-port", &port, "--stats-interval", "1s"], arguments].concat();
        let bootstrap = chancery.bootstrap(workload, &all).await?;
        Self::run(source, admin, &bootstrap)
    }

    /// Starts an Envoy from a bootstrap that names `admin` as the port of its admin interface, without waiting.
    pub fn run(source: &EnvoySource, admin: Port, bootstrap: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chancery-envoy-").tempdir()?;
        let config = directory.path().join("envoy.yaml");
        let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&config)?;
        std::io::Write::write_all(&mut file, bootstrap.as_bytes())?;
        let name = container_name();
        let mut command = source.command(&config, &name)?;
        command.args(["--drain-time-s", "30"]);
        let child = Child::start(command, directory.path().join("envoy.log"))?;
        let container = matches!(source, EnvoySource::Docker(_)).then_some(name);
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { child, container, admin, directory, http })
    }

    /// Waits until it is live.
    pub async fn live(&mut self) -> anyhow::Result<()> {
        let (child, http, url) = (&mut self.child, &self.http, format!("http://{}/ready", self.admin.loopback()));
        let live = eventually(LIVE, "an envoy that is live", async || {
            child.check_running()?;
            let answer = http.get(&url).send().await?;
            let (status, said) = (answer.status(), answer.text().await?);
            ensure!(status.is_success(), "{}", said.trim());
            Ok(())
        });
        let live = live.await;
        live.with_context(|| format!("envoy's log:\n{}", self.log()))
    }

    /// Its admin interface.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.loopback()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// Where its configuration and log are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// An answer of its admin interface.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.http.get(format!("http://{}{path}", self.admin.loopback())).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Its whole configuration, endpoints included.
    pub async fn config_dump(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.text("/config_dump?include_eds").await?)?)
    }

    /// Its counters and gauges, by name.
    pub async fn stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let text = self.text("/stats?type=Counters").await? + &self.text("/stats?type=Gauges").await?;
        let stats = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(stats.collect())
    }

    /// One counter or gauge; 0 if it has none of this name, as counters are made when they are first used.
    pub async fn stat(&self, name: &str) -> anyhow::Result<u64> {
        Ok(self.stats().await?.get(name).copied().unwrap_or_default())
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        self.child.terminate().await.map(drop)
    }
}

impl Drop for EnvoyProxy {
    fn drop(&mut self) {
        // Killing the docker client would leave its container running.
        if let Some(container) = &self.container {
            let mut remove = Command::new("docker");
            remove.args(["rm", "--force", container]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            _ = remove.status();
        }
    }
}
