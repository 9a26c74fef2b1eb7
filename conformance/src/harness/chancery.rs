//! Chancery: the control plane under test, as a process.
//!
//! Owns: its rules and data directories, its ports through restarts, its log. May use: the `chancery` binary and its
//! admin address. Never: anything that a user could not do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use serde_json::Value;
use tempfile::TempDir;

use super::binary::chancery_binary;
use super::child::Child;
use super::wait::eventually;

/// How long the control plane may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// A control plane.
#[derive(Debug)]
pub struct Chancery {
    child: Option<Child>,
    directory: TempDir,
    xds: Port,
    admin: Port,
    arguments: Vec<String>,
    http: reqwest::Client,
}

// === impl Chancery ===

impl Chancery {
    /// Starts a control plane with these rule files (name, text) and further arguments of `serve`, and waits until
    /// it is ready.
    pub async fn start(rules: &[(&str, &str)], arguments: &[&str]) -> anyhow::Result<Self> {
        let mut chancery = Self::prepare(rules, arguments)?;
        chancery.restart().await?;
        Ok(chancery)
    }

    /// The same without the process: rules can be written, bootstraps issued; [`Self::restart`] starts it.
    pub fn prepare(rules: &[(&str, &str)], arguments: &[&str]) -> anyhow::Result<Self> {
        let chancery = Self {
            child: None,
            directory: tempfile::Builder::new().prefix("chancery-conformance-").tempdir()?,
            xds: Port::reserve()?,
            admin: Port::reserve()?,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?,
        };
        std::fs::create_dir(chancery.rules_directory())?;
        for (name, text) in rules {
            chancery.write_rules(name, text)?;
        }
        Ok(chancery)
    }

    /// Where its rules are.
    pub fn rules_directory(&self) -> PathBuf {
        self.directory.path().join("rules")
    }

    /// Where its own data is.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where proxies reach it.
    pub fn xds_address(&self) -> SocketAddr {
        self.xds.loopback()
    }

    /// Where its operator reaches it.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.loopback()
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// What it has said since the first start.
    pub fn log(&self) -> String {
        self.child.as_ref().map(Child::log).unwrap_or_default()
    }

    /// Writes a rule file in one step, as careful editors do.
    pub fn write_rules(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (new, path) = (self.directory.path().join(format!("new-{name}")), self.rules_directory().join(name));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path).with_context(|| path.display().to_string())
    }

    /// Replaces a passage of a rule file that occurs in it once.
    pub fn edit_rules(&self, name: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.rules_directory().join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(text.matches(from).count() == 1, "{from:?} does not occur once in {name}");
        self.write_rules(name, &text.replace(from, to))
    }

    /// Removes a rule file.
    pub fn remove_rules(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_file(self.rules_directory().join(name)).with_context(|| name.to_owned())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Asks it to end, waits until it has, and says whether it ended well.
    pub async fn terminate(&mut self) -> anyhow::Result<bool> {
        let mut child = self.child.take().context("it does not run")?;
        Ok(child.terminate().await?.success())
    }

    /// Starts it, again on the same addresses and directories, and waits until it is ready. One that runs is killed.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut command = std::process::Command::new(chancery_binary().await?);
        command.arg("serve").arg("--rules").arg(self.rules_directory()).arg("--data-dir").arg(self.data_directory());
        command.args(["--xds-address", &self.xds_address().to_string()]);
        command.args(["--admin-address", &self.admin_address().to_string()]).args(&self.arguments);
        let mut child = Child::start(command, self.directory.path().join("chancery.log"))?;
        let (http, url) = (&self.http, format!("http://{}/readyz", self.admin_address()));
        let ready = async || {
            child.check_running()?;
            http.get(&url).send().await?.error_for_status()?;
            Ok(())
        };
        let ready = eventually(READY, "a control plane that is ready", ready).await;
        ready.with_context(|| format!("the control plane's log:\n{}", child.log()))?;
        self.child = Some(child);
        Ok(())
    }

    /// An answer of its admin address, as text.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.http.get(format!("http://{}{path}", self.admin_address())).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// An answer of its admin address, as JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.text(path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text:?}"))
    }

    /// Waits until this many proxies are connected and all of them in sync.
    pub async fn in_sync(&self, proxies: usize) -> anyhow::Result<Value> {
        eventually(READY, &format!("{proxies} proxies in sync"), async || {
            let answer = self.json("/api/v1/proxies").await?;
            let list = answer["proxies"].as_array().context("there are proxies")?;
            let in_sync = list.iter().filter(|proxy| proxy["inSync"] == true).count();
            ensure!(list.len() == proxies && in_sync == proxies, "{answer:#}");
            Ok(answer)
        })
        .await
    }

    /// Runs a command of the binary.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::new(chancery_binary().await?);
        Ok(command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await?)
    }

    /// What `chancery bootstrap` prints for a workload of this control plane.
    pub async fn bootstrap(&self, workload: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let (data, xds) = (self.data_directory(), self.xds_address().to_string());
        let data = data.to_str().context("temporary directories are UTF-8")?;
        let mut all = vec!["bootstrap", "--workload", workload, "--data-dir", data, "--xds-address", &xds];
        all.extend(arguments);
        let output = self.run(&all).await?;
        ensure!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}
