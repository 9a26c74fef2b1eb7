//! Durable files: written whole or not at all, readable by their owner only.
//!
//! Owns: how a file of the data directory is replaced. May use: the file system. Never: knows what a file
//! means, or changes one in place.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

/// Why a record of JSON could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("the file cannot be read or written")]
    Io(#[from] io::Error),
    /// The file does not hold what it should.
    #[error("the file does not hold the JSON that is expected there")]
    Json(#[from] serde_json::Error),
}

/// Replaces `path` with `value` as JSON, as [`replace`] does.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    Ok(replace(path, &serde_json::to_vec_pretty(value)?)?)
}

/// Reads the JSON of `path`; `None` where there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces `path` with `contents` (mode 0600); once this returns, the contents survive a power cut.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let file = written_beside(path, contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_parent(path)
}

/// As [`replace`], without waiting for the disk: after a power cut the file may be the old one, or empty.
/// For what can be made again.
pub fn replace_cached(path: &Path, contents: &[u8]) -> io::Result<()> {
    written_beside(path, contents)?.persist(path).map(drop).map_err(|error| error.error)
}

/// Moves `from` to `to` in the same directory; once this returns, the move survives a power cut.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Creates `path` and what is missing above it, for the owner only (mode 0700).
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens and locks the file `path`, waiting for its present holder; the lock ends with the returned value.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}

fn written_beside(path: &Path, contents: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(parent(path))?;
    file.write_all(contents)?;
    Ok(file)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
