//! A directory of YAML and JSON documents, watched.
//!
//! Owns: when which files are read again, and what they hold. May use: `translators::rules`.
//! Never: resolves a reference or remembers what an object was before; that is `translate`'s.
//!
//! A change of one file costs that file: the operating system says which it was. Should a notification be lost, the
//! whole directory is looked through every few seconds, and what looks different is read. Where links lead to files
//! (as in a mounted ConfigMap) any notification is a reason to look through all. A file that is empty for a moment,
//! as some editors leave it, is given time to be filled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use translators::finding::Finding;
use translators::name::ObjectKey;
use translators::rules::Objects;

mod listing;
mod notices;
mod reader;

use notices::Watch;
use reader::Reader;

/// How often the directory is looked through though nothing was noticed.
const REREAD: Duration = Duration::from_secs(3);
/// How long a file that had content may be empty before that is believed.
const EMPTY_GRACE: Duration = Duration::from_millis(400);

/// What the files hold.
#[derive(Debug, Clone, Default)]
pub struct FileState {
    /// Whether the directory has been read.
    pub synced: bool,
    /// The objects that could be read.
    pub objects: Objects,
    /// What could not be read.
    pub findings: Vec<Finding>,
    /// Documents that could not be read: their file, and their object where it can be told.
    pub broken: Vec<(Arc<str>, Option<ObjectKey>)>,
}

/// Watches `dir` and keeps `state` current until stopped.
pub async fn run(dir: PathBuf, state: watch::Sender<Arc<FileState>>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut watch = Watch::new(dir.clone());
    let notices = watch.notices();
    let mut reader = Reader::new(dir);
    let mut look_through_at = Instant::now();
    loop {
        let look_through = watch.renew() || Instant::now() >= look_through_at;
        let noticed = notices.take(std::time::Instant::now());
        let (read, changed) = tokio::task::spawn_blocking(move || {
            let before = reader.cost();
            let mut changed = false;
            if look_through || noticed.everything {
                changed |= reader.read_all();
            }
            changed |= reader.read(&noticed.complete, false);
            changed |= reader.read(&noticed.quiet, true);
            if changed {
                let (files, documents) = reader.cost().since(before);
                debug!(files, documents, "rules read");
            }
            (reader, changed)
        })
        .await?;
        reader = read;
        if changed && reader.is_readable() {
            state.send_replace(Arc::new(reader.state()));
        }
        if look_through {
            look_through_at = Instant::now() + REREAD;
        }
        if reader.awaits_content() {
            look_through_at = look_through_at.min(Instant::now() + EMPTY_GRACE);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(look_through_at) => {}
            () = notices.due() => {}
        }
    }
}

/// Reads `path` (a directory, or one file) once.
pub fn read_once(path: &Path) -> anyhow::Result<FileState> {
    let mut reader = Reader::new(path.to_owned());
    reader.read_all();
    match reader.problem() {
        Some(problem) => anyhow::bail!(problem.to_owned()),
        None => Ok(reader.state()),
    }
}

#[cfg(test)]
mod tests;
