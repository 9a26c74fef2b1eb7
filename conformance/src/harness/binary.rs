//! Binary: the `chancery` that is tested.
//!
//! Owns: building it, once per test process, in the profile of the tests. May use: the cargo that built the tests.
//! Never: tests a binary that is older than the sources.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

static BINARY: OnceCell<PathBuf> = OnceCell::const_new();

/// What cargo tells a test of its crate. A build script that looks at it, as ring's does, would be run again and
/// everything above it be built anew, once here and once more in the next build outside.
const OF_THE_CRATE: [&str; 7] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// The workspace.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the crate is a folder of the workspace")
}

/// The `chancery` binary, built first if need be.
pub async fn chancery_binary() -> anyhow::Result<&'static Path> {
    let arguments: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    BINARY.get_or_try_init(|| build_chancery(arguments, &[])).await.map(PathBuf::as_path)
}

/// Builds `chancery` with these further arguments of `cargo build`, in this environment, and says where it is.
pub async fn build_chancery(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "chancery", "--bin", "chancery", "--message-format", "json-render-diagnostics"]);
    cargo.args(arguments).envs(environment.iter().copied());
    for name in OF_THE_CRATE {
        cargo.env_remove(name);
    }
    // Its progress and its errors are for whoever waits; only what it says in JSON is read.
    cargo.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = cargo.spawn().context("cannot run cargo")?.wait_with_output().await.context("cannot run cargo")?;
    ensure!(output.status.success(), "chancery cannot be built ({})", output.status);
    let messages = String::from_utf8(output.stdout).context("cargo's messages are UTF-8")?;
    let mut executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "chancery";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    executables.next_back().context("cargo named no executable")
}
