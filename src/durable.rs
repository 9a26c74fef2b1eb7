//! Durable files: written whole or not at all, readable by their owner only.
//!
//! What root makes belongs to whom the directory above it belongs to: an administrator runs `chancery bootstrap`
//! for a service that runs as a user of its own, and for an Envoy of another.
//!
//! Owns: how a file of the data directory is replaced, and whose it is. May use: the file system. Never: knows what a file
//! means, or changes what one holds otherwise than by adding to its end.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::fs::OFlags;
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

/// Writes `contents` over what `path` holds (mode 0600), without waiting for the disk: after a crash the file may be the
/// old one, the new one, a mixture of them, or gone. For what can be made again, and is looked at before it is believed.
pub fn overwrite(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A file that is made anew, or emptied first, costs the file system many times what this does.
    let mut file = open_to_write(path)?;
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)
}

/// Adds `contents` to the end of `path`, which is there; once this returns, they survive a power cut. One before may
/// leave a part of them.
pub fn append(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.write_all(contents)?;
    file.sync_data()
}

/// Moves `from` to `to` in the same directory; once this returns, the move survives a power cut.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Creates `path` and what is missing above it, for the owner only (mode 0700).
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    create_private_dir(parent(path))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        created => created.and_then(|()| hand_over(&File::open(path)?, parent(path))),
    }
}

/// Opens and locks the file `path`, waiting for its present holder; the lock ends with the returned value.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = open_lock(path)?;
    file.lock()?;
    Ok(file)
}

/// Opens the file `path`, which is there to be locked only.
pub fn open_lock(path: &Path) -> io::Result<File> {
    open_to_write(path)
}

fn open_to_write(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // Whoever owns the directory cannot have root write to, or give away, what lies elsewhere.
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(path)?;
    hand_over(&file, parent(path))?;
    Ok(file)
}

fn written_beside(path: &Path, contents: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(parent(path))?;
    hand_over(file.as_file(), parent(path))?;
    file.write_all(contents)?;
    Ok(file)
}

/// Gives what root has made to the owner of the directory that it is in.
fn hand_over(made: &File, directory: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (made_by, owner) = (made.metadata()?, fs::metadata(directory)?);
    if (made_by.uid(), made_by.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    fchown(made, Some(owner.uid()), Some(owner.gid()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed() {
        let data = tempfile::tempdir().expect("a directory");
        let (elsewhere, link) = (data.path().join("elsewhere"), data.path().join("link"));
        fs::write(&elsewhere, "theirs").expect("written");
        std::os::unix::fs::symlink(&elsewhere, &link).expect("linked");

        overwrite(&link, b"ours").expect_err("a link");
        lock(&link).expect_err("a link");
        assert_eq!(fs::read_to_string(&elsewhere).expect("it is there"), "theirs");
    }

    #[test]
    fn what_is_written_over_a_longer_text_is_all_that_is_there() {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().join("file");
        overwrite(&path, b"longer").expect("written");
        overwrite(&path, b"text").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "text");
    }

    #[test]
    fn what_is_made_is_private_and_belongs_to_the_owner_of_its_directory() {
        let data = tempfile::tempdir().expect("a directory");
        // Root can give the directory away; another user keeps it, and the same must hold.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(data.path(), Some(65532), Some(65533)).expect("root may do that");
        }
        let data_owner = fs::metadata(data.path()).expect("it is there");
        let inner = data.path().join("ca/leaves");
        create_private_dir(&inner).expect("created");
        create_private_dir(&inner).expect("there already");
        replace(&inner.join("durable"), b"1").expect("written");
        overwrite(&inner.join("cached"), b"2").expect("written");
        drop(lock(&inner.join("lock")).expect("locked"));

        let seen = ["ca", "ca/leaves", "ca/leaves/durable", "ca/leaves/cached", "ca/leaves/lock"].map(|name| {
            let metadata = fs::metadata(data.path().join(name)).expect("it is there");
            (name, metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        });
        let (user, group) = (data_owner.uid(), data_owner.gid());
        let expected = [
            ("ca", user, group, 0o700),
            ("ca/leaves", user, group, 0o700),
            ("ca/leaves/durable", user, group, 0o600),
            ("ca/leaves/cached", user, group, 0o600),
            ("ca/leaves/lock", user, group, 0o600),
        ];
        assert_eq!(seen, expected);
    }
}
