//! Disk: files that are there whole or not at all.
//!
//! Owns: atomic, durable writing and its permissions. May use: std. Never: knows what a file means.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("{path}: {action} failed")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("{path}: not the JSON that is expected here")]
    Json {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Writes `bytes` to `path` with `mode`: written beside it, synced, renamed into place, the folder synced.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    let failed = |action| move |source| DiskError::Io { path: path.display().to_string(), action, source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".writing-")
        .make_in(dir, |path| std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path))
        .map_err(failed("creating a file beside it"))?;
    temporary.write_all(bytes).map_err(failed("writing"))?;
    temporary.as_file().sync_all().map_err(failed("syncing"))?;
    temporary.persist(path).map_err(|error| failed("renaming into place")(error.error))?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("syncing the folder"))
}

/// Writes `value` as JSON, readable by the owner alone.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), DiskError> {
    let json = serde_json::to_vec_pretty(value)
        .map_err(|source| DiskError::Json { path: path.display().to_string(), source })?;
    write(path, &json, 0o600)
}

/// Reads JSON; `None` where there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Io { path: path.display().to_string(), action: "reading", source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| DiskError::Json { path: path.display().to_string(), source })
}
