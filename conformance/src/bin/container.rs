//! Container: the image of `deploy/` is a control plane, run as it is meant to be.
//!
//! Owns: building the static binary and the image, running it without a privilege, and the verdict on each step. May
//! use: cargo, docker, a stock Envoy. Never: leaves a container, a volume or an image of its own behind.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chancery::ports::Port;
use clap::Parser;
use conformance::harness::shop::{SOON, cart_alone};
use conformance::harness::{App, Chancery, Echo, EnvoyProxy, EnvoySource, build_chancery, eventually, root};
use tokio::process::Command;

/// Builds the image of deploy/ and runs a control plane and a proxy with it
#[derive(Debug, Parser)]
struct Args {
    /// Build the binary as it would be shipped, which takes longer
    #[arg(long)]
    release: bool,
}

/// The user that the image says, and so the owner of all that it writes.
const USER: &str = "65532/65532";
/// How long docker waits between SIGTERM and SIGKILL.
const STOP: Duration = Duration::from_secs(15);

/// What was made in docker under one name: an image, a volume and a container. They go with the value.
#[derive(Debug)]
struct Made {
    name: String,
}

/// The verdicts so far.
#[derive(Debug, Default)]
struct Verdicts {
    passed: u32,
    failed: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut verdicts = Verdicts::default();
    // What comes after a step needs what it made. An error between two steps is a failure as well.
    if let Err(error) = check(&args, &mut verdicts).await {
        println!("  {}", format!("{error:#}").replace('\n', "\n  "));
        verdicts.failed = verdicts.failed.max(1);
    }
    println!("{} passed, {} failed", verdicts.passed, verdicts.failed);
    Ok(if verdicts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(args: &Args, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    let binary = verdicts.on("the static binary is built", build(args.release)).await?;
    verdicts.on("it needs no interpreter", async { needs_no_interpreter(&std::fs::read(&binary)?) }).await?;

    let made = Made { name: format!("chancery-container-{}", std::process::id()) };
    verdicts.on("the image is built", made.build_image(&binary)).await?;

    let (app, listen) = (App::http("v1").await?, Port::reserve()?);
    let rules = cart_alone("cart", listen.loopback(), app.address());
    let chancery = Chancery::prepare(&[("shop.yaml", &rules)], &[])?;
    let started = verdicts.on("it runs without a privilege and is ready", made.run(&chancery)).await;
    if started.is_err() {
        println!("{}", made.log().await);
    }
    started?;

    let admin = Port::reserve()?;
    let bootstrap = verdicts.on("its own command prints a bootstrap", made.bootstrap(&chancery, &admin)).await?;
    let source = EnvoySource::from_environment().await?;
    let mut envoy = EnvoyProxy::run(&source, admin, &bootstrap)?;
    verdicts.on("an envoy is live with it", envoy.live()).await?;
    verdicts.on("the envoy is in sync", chancery.in_sync(1)).await?;
    verdicts.on("its own command shows so", made.shows_the_proxy()).await?;
    verdicts.on("traffic is answered through the envoy", answered(&format!("http://{}/a", listen.loopback()))).await?;
    verdicts.on("its data is its own, and private", made.data_is_private()).await?;
    verdicts.on("it stops when asked, with exit code 0", made.stop()).await
}

/// Builds the binary as the Dockerfile says, and says where it is.
async fn build(release: bool) -> anyhow::Result<PathBuf> {
    let triple = host_triple().await?;
    let arguments = ["--target", &triple, "--release"];
    let arguments = if release { &arguments[..] } else { &arguments[..2] };
    build_chancery(arguments, &[("RUSTFLAGS", "-C target-feature=+crt-static")]).await
}

/// The machine that this is, as rustc names it.
async fn host_triple() -> anyhow::Result<String> {
    let said = said_by(Command::new("rustc").arg("-vV")).await?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Reads the program headers of a 64-bit little-endian ELF file: one of the type PT_INTERP names a dynamic linker.
fn needs_no_interpreter(elf: &[u8]) -> anyhow::Result<()> {
    const INTERPRETER: usize = 3;
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size).context("the file is cut short")?;
        anyhow::Ok(bytes.iter().rev().fold(0, |number: usize, byte| number << 8 | usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        ensure!(number(table + index * size, 4)? != INTERPRETER, "it is linked dynamically");
    }
    Ok(())
}

async fn answered(url: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    eventually(SOON, "an answer", async || {
        let answer = http.get(url).send().await?.error_for_status()?;
        let echo: Echo = answer.json().await?;
        ensure!((&*echo.version, &*echo.path) == ("v1", "/a"), "{echo:?}");
        Ok(())
    })
    .await
}

/// What a command prints, if it ends well.
async fn said_by(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot run {:?}", command.as_std().get_program()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}: {}", command.as_std(), output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    said_by(Command::new("docker").args(arguments)).await
}

// === impl Verdicts ===

impl Verdicts {
    async fn on<T: Debug>(&mut self, what: &str, step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let started = Instant::now();
        let result = step.await;
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{what}: {word} ({:.1} s)", started.elapsed().as_secs_f64());
        *if result.is_ok() { &mut self.passed } else { &mut self.failed } += 1;
        result
    }
}

// === impl Made ===

impl Made {
    /// The image's first stage, which docker would keep nameless.
    fn first_stage(&self) -> String {
        format!("{}-empty", self.name)
    }

    async fn build_image(&self, binary: &Path) -> anyhow::Result<()> {
        let context = tempfile::tempdir()?;
        std::fs::copy(binary, context.path().join("chancery"))?;
        let context = context.path().to_str().context("temporary directories are UTF-8")?;
        let dockerfile = root().join("deploy/Dockerfile");
        let dockerfile = dockerfile.to_str().context("the workspace's path is UTF-8")?;
        docker(&["build", "--file", dockerfile, "--target", "empty", "--tag", &self.first_stage(), context]).await?;
        docker(&["build", "--file", dockerfile, "--tag", &self.name, context]).await.map(drop)
    }

    /// Runs the control plane as the Dockerfile says, and waits until it is ready.
    async fn run(&self, chancery: &Chancery) -> anyhow::Result<()> {
        let rules = format!("{}:/rules:ro", chancery.rules_directory().display());
        let data = format!("{}:/data", self.name);
        let xds = format!("CHANCERY_XDS_ADDRESS={}", chancery.xds_address());
        let admin = format!("CHANCERY_ADMIN_ADDRESS={}", chancery.admin_address());
        let confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
        let mut arguments = vec!["run", "--detach", "--name", &self.name, "--network", "host"];
        arguments.extend(confined);
        arguments.extend(["--volume", &rules, "--volume", &data, "--env", &xds, "--env", &admin, &self.name]);
        docker(&arguments).await?;
        eventually(SOON, "a control plane that is ready", async || chancery.text("/readyz").await).await.map(drop)
    }

    async fn bootstrap(&self, chancery: &Chancery, admin: &Port) -> anyhow::Result<String> {
        let (xds, admin) = (chancery.xds_address().to_string(), admin.number().to_string());
        let workload = ["bootstrap", "--workload", "shop/cart", "--xds-address", &xds, "--admin-port", &admin];
        docker(&[&["exec", &self.name, "/chancery"], workload.as_slice()].concat()).await
    }

    async fn shows_the_proxy(&self) -> anyhow::Result<()> {
        let said = docker(&["exec", &self.name, "/chancery", "proxies"]).await?;
        ensure!(said.contains("shop/cart"), "{said}");
        Ok(())
    }

    /// Every file of its data belongs to its user, and nobody else may read one.
    async fn data_is_private(&self) -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let archive = directory.path().join("data.tar");
        let archive = archive.to_str().context("temporary directories are UTF-8")?;
        std::fs::write(archive, "")?;
        let mut copy = Command::new("docker");
        copy.args(["cp", "--archive", &format!("{}:/data", self.name), "-"]).stdout(std::fs::File::create(archive)?);
        let copied = copy.stdin(Stdio::null()).kill_on_drop(true).status().await?;
        ensure!(copied.success(), "docker cp: {copied}");
        let list = said_by(Command::new("tar").args(["--numeric-owner", "-tvf", archive])).await?;
        let wrong: Vec<&str> = list.lines().filter(|line| !is_private(line)).collect();
        ensure!(wrong.is_empty() && list.contains("data/ca/"), "not private:\n{}\nof:\n{list}", wrong.join("\n"));
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let seconds = STOP.as_secs().to_string();
        docker(&["stop", "--time", &seconds, &self.name]).await?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.name]).await?;
        if code.trim() != "0" {
            bail!("it ended with {}:\n{}", code.trim(), self.log().await);
        }
        Ok(())
    }

    /// What the container has said.
    async fn log(&self) -> String {
        let logs = Command::new("docker").args(["logs", &self.name]).stdin(Stdio::null()).output().await;
        logs.map(|logs| String::from_utf8_lossy(&logs.stderr).into_owned()).unwrap_or_default()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let (name, first_stage) = (&*self.name, &*self.first_stage());
        for arguments in [["rm", "--force", name], ["volume", "rm", name], ["rmi", name, first_stage]] {
            let mut docker = std::process::Command::new("docker");
            // What was not made yet cannot be removed.
            _ = docker.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// Whether a line of `tar -tv` is of the image's user and, unless it is a directory, for that user alone.
fn is_private(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (mode, owner) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    owner == USER && (mode.starts_with('d') || mode.ends_with("------"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_test_is_linked_dynamically_and_its_first_header_alone_is_not() {
        let own = std::fs::read(std::env::current_exe().expect("it has a file")).expect("it can be read");
        assert!(needs_no_interpreter(&own).is_err());
        let mut without = own;
        without[56..58].fill(0);
        assert!(needs_no_interpreter(&without).is_ok());
        assert!(needs_no_interpreter(b"#!/bin/sh").is_err());
    }

    #[test]
    fn private_is_what_its_owner_alone_may_read() {
        assert!(is_private("-rw------- 65532/65532   241 2026-01-01 00:00 data/ca/mesh.key.pem"));
        assert!(is_private("drwx------ 65532/65532     0 2026-01-01 00:00 data/ca/"));
        assert!(!is_private("-rw-r--r-- 65532/65532   241 2026-01-01 00:00 data/ca/mesh.key.pem"));
        assert!(!is_private("-rw------- 0/0   241 2026-01-01 00:00 data/ca/mesh.key.pem"));
    }
}
