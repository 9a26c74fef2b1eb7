//! Go: the peer that is built with go-control-plane.
//!
//! Owns: its sources as this crate carries them, and the binary in the user's cache. May use: the `go` of this machine,
//! through the user's own configuration of it. Never: takes another version than go.mod and go.sum pin.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;
use translators::resource::Version;

use crate::harness::kept;

/// The module: file name, text.
const MODULE: [(&str, &str); 3] = [
    ("go.mod", include_str!("../../peers/go-control-plane/go.mod")),
    ("go.sum", include_str!("../../peers/go-control-plane/go.sum")),
    ("main.go", include_str!("../../peers/go-control-plane/main.go")),
];
const MISSING: &str = "the benchmarks need Go for one of their peers: install Go 1.26 or newer and have `go` on PATH";

/// The release of go-control-plane that go.mod pins.
pub fn version() -> &'static str {
    let line = MODULE[0].1.lines().find_map(|line| line.trim().strip_prefix("github.com/envoyproxy/go-control-plane "));
    line.unwrap_or("unknown")
}

/// The peer's binary, built first if the cache does not have one of exactly these sources.
pub async fn binary() -> anyhow::Result<PathBuf> {
    let sources: String = MODULE.iter().flat_map(|(name, text)| [*name, "\n", *text]).collect();
    let version = format!("{}-{}", version(), Version::of(sources.as_bytes()));
    Ok(kept("go-control-plane", &version, build).await?.join("go-control-plane"))
}

async fn build(ready: &Path) -> anyhow::Result<()> {
    eprintln!("building the Go peer on go-control-plane {} (about a minute, once)", version());
    let work = tempfile::tempdir()?;
    for (name, text) in MODULE {
        std::fs::write(work.path().join(name), text)?;
    }
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-trimpath", "-o"]).arg(ready.join("go-control-plane")).arg(".");
    go.current_dir(work.path());
    // Standard output belongs to our caller.
    let status = go.stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true).status().await;
    let status = match status {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(MISSING),
        Err(error) => return Err(error).context(MISSING),
    };
    ensure!(status.success(), "the Go peer could not be built ({status}); {MISSING}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peer_is_pinned() {
        assert_eq!(super::version(), "v0.14.0");
        let sums = super::MODULE[1].1;
        assert!(sums.contains("github.com/envoyproxy/go-control-plane v0.14.0 h1:"), "its hash");
    }
}
