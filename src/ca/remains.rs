//! What shows that a data directory was in use, and so must have had its authorities.
//!
//! Owns: which files count. May use: the file system, for reading. Never: counts what is there before the
//! authorities are (locks, empty folders), or removes anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::authority::Purpose;

/// What is only ever written once both authorities exist.
const STATE: [&str; 4] = ["instances.json", "last-good.jsonl", "identity/revoked.json", "ca/leaves"];

/// What a data directory that lost the authority for `purpose` still holds of its use; nothing if it may be
/// a fresh one. With state goes the other authority: begun anew is the whole directory, so that no credential
/// outlives the list of those that are revoked.
pub(super) fn of(data_dir: &Path, purpose: Purpose) -> Vec<PathBuf> {
    let state = STATE.iter().map(|name| data_dir.join(name)).filter(|path| holds_something(path));
    let mut remains: Vec<PathBuf> = state.collect();
    if !remains.is_empty() {
        let other = match purpose {
            Purpose::Mesh => ["ca/control.pem", "ca/control.key"],
            Purpose::Control => ["ca/mesh.pem", "ca/mesh.key"],
        };
        remains.extend(other.iter().map(|name| data_dir.join(name)).filter(|path| holds_something(path)));
    }
    remains
}

/// Whether there is a file, or a folder that is not empty; what cannot be looked into holds something.
fn holds_something(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
