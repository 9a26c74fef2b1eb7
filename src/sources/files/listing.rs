//! Which files below a directory count, and whether one looks as it did.
//!
//! Owns: names, links, and what is read of the file system. May use: std. Never: parses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The largest file that is read.
const MAX_BYTES: u64 = 64 << 20;
/// How deep the directory is searched.
const MAX_DEPTH: usize = 8;
/// File systems tell times that are closer together than this from each other badly.
const COARSE: Duration = Duration::from_secs(2);

/// The rule files below a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// By the name it is reported under: where each is, and how it looks, unless that cannot be told.
    pub(super) files: BTreeMap<Arc<str>, (PathBuf, Option<Stamp>)>,
    /// Whether links lead to files: then a file may change elsewhere.
    pub(super) links: bool,
}

/// How a file looks from outside: one that looks the same holds the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Every rule file below `path`, or `path` itself.
pub(super) fn list(path: &Path) -> Result<Listing, String> {
    let mut listing = Listing::default();
    if path.is_dir() {
        listing.collect(path, 0, &mut BTreeSet::new())?;
    } else {
        // Somebody named this one file, so its problem is the whole problem.
        let metadata = regular(path).and_then(|metadata| fs::File::open(path).map(|_| metadata));
        let metadata = metadata.map_err(|error| format!("{}: {error}", path.display()))?;
        listing.files.insert(name(path), (path.to_owned(), Stamp::of(&metadata)));
    }
    Ok(listing)
}

/// The name that a file is reported under.
pub(super) fn name(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

/// Whether the file `relative` to the directory counts.
pub(super) fn counts(relative: &Path) -> bool {
    is_rules(relative) && !is_hidden(relative) && relative.components().count() <= MAX_DEPTH + 1
}

/// Whether a file of this name holds rules.
pub(super) fn is_rules(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// Whether a part of the path begins with a dot.
fn is_hidden(relative: &Path) -> bool {
    relative.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// How the file looks now.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    Stamp::of(&fs::metadata(path).ok()?)
}

/// The text of a regular file; what is no UTF-8 in it becomes a finding of the parser, at its place.
pub(super) fn text(path: &Path) -> io::Result<String> {
    regular(path)?;
    Ok(String::from_utf8(fs::read(path)?)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Opening a pipe or a device may wait for ever.
fn regular(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    Ok(metadata)
}

// === impl Listing ===

impl Listing {
    /// Each directory is looked into once, however many links lead to it.
    fn collect(&mut self, dir: &Path, depth: usize, visited: &mut BTreeSet<(u64, u64)>) -> Result<(), String> {
        let problem = |error: io::Error| format!("{}: {error}", dir.display());
        let metadata = fs::metadata(dir).map_err(problem)?;
        if !visited.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        let mut below: BTreeSet<PathBuf> = BTreeSet::new();
        for entry in fs::read_dir(dir).map_err(problem)? {
            let entry = entry.map_err(problem)?;
            if is_hidden(Path::new(&entry.file_name())) {
                continue;
            }
            let (path, kind) = (entry.path(), entry.file_type().map_err(problem)?);
            self.links |= kind.is_symlink();
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                below.insert(path);
            } else if is_rules(&path) {
                match fs::metadata(&path) {
                    // It went while we looked.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
                    metadata => {
                        self.files.insert(name(&path), (path, metadata.ok().as_ref().and_then(Stamp::of)));
                    }
                }
            }
        }
        for dir in below.iter().filter(|_| depth < MAX_DEPTH) {
            self.collect(dir, depth + 1, visited)?;
        }
        Ok(())
    }
}

// === impl Stamp ===

impl Stamp {
    /// `None` for what was written a moment ago: it may be written again and look the same.
    fn of(metadata: &Metadata) -> Option<Self> {
        let age = SystemTime::now().duration_since(metadata.modified().ok()?).ok()?;
        (age > COARSE).then(|| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
