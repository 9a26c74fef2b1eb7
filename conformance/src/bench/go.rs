//! Go: the peer that is built with go-control-plane.
//!
//! Owns: its sources as this crate carries them, and the binary in the user's cache. May use: the `go` of this machine,
//! through the user's own configuration of it. Never: takes another version than go.mod and go.sum pin.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use chancery::config::Environment;
use tokio::process::Command;
use translators::resource::Version;

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
    let cache = Environment::read().cache().context("there is no cache to build the Go peer into: set HOME")?;
    let cache = cache.join("chancery/peers/go-control-plane");
    let sources: String = MODULE.iter().flat_map(|(name, text)| [*name, "\n", *text]).collect();
    let place = cache.join(format!("{}-{}", version(), Version::of(sources.as_bytes())));
    let binary = place.join("go-control-plane");
    if binary.exists() {
        return Ok(binary);
    }
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let _lock = lock(cache.join("lock")).await?;
    // Whoever had the lock before may just have done it.
    if !binary.exists() {
        build(&cache, &place).await?;
    }
    Ok(binary)
}

async fn build(cache: &Path, place: &Path) -> anyhow::Result<()> {
    eprintln!("building the Go peer on go-control-plane {} (about a minute, once)", version());
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(cache)?;
    for (name, text) in MODULE {
        std::fs::write(work.path().join(name), text)?;
    }
    let ready = work.path().join("ready");
    std::fs::create_dir(&ready)?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-trimpath", "-o", "ready/go-control-plane", "."]).current_dir(work.path());
    // Standard output belongs to our caller.
    let status = go.stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true).status().await;
    let status = match status {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(MISSING),
        Err(error) => return Err(error).context(MISSING),
    };
    ensure!(status.success(), "the Go peer could not be built ({status}); {MISSING}");
    std::fs::rename(&ready, place).with_context(|| place.display().to_string())
}

/// Waits for the lock; it is given back when the file is closed, also by a process that dies.
async fn lock(path: PathBuf) -> anyhow::Result<File> {
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        std::io::Result::Ok(file)
    });
    Ok(locked.await??)
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
