//! Kept: peers that are put together once, in the user's cache.
//!
//! Owns: that one process does it while others wait, and that what is there is whole. May use: a lock file. Never:
//! knows what a peer is made of.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use chancery::config::Environment;

/// The directory of this version of a peer; where it is not there, `put_together` fills an empty one first.
pub async fn kept(
    peer: &str,
    version: &str,
    put_together: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let cache = Environment::read().cache().context("there is no cache to keep peers in: set HOME")?;
    let cache = cache.join("chancery/peers").join(peer);
    let place = cache.join(version);
    if place.exists() {
        return Ok(place);
    }
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let _lock = lock(cache.join("lock")).await?;
    // Whoever had the lock before may just have done it.
    if !place.exists() {
        let work = tempfile::Builder::new().prefix(".obtaining-").tempdir_in(&cache)?;
        let ready = work.path().join("ready");
        std::fs::create_dir(&ready)?;
        put_together(&ready).await?;
        std::fs::rename(&ready, &place).with_context(|| place.display().to_string())?;
        eprintln!("{peer} {version} is in {}", place.display());
    }
    Ok(place)
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
