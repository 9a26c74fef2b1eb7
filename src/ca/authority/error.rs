//! Why there is no authority, and what to do about it.
//!
//! Owns: the error and its texts. May use: nothing. Never: shows a key.

use std::io;
use std::path::PathBuf;

/// Why an authority could not be opened or created. Nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The directory could not be made or locked.
    #[error("{path}: cannot be prepared for certificates; it must be a directory that this user may write")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One file of a pair is there, the other is not.
    #[error(
        "{missing}: missing while {present} exists; restore it from a backup, or move {present} away to start a new \
         root (every certificate of the old one then stops being trusted)"
    )]
    Incomplete {
        /// The file that is not there.
        missing: PathBuf,
        /// The file that is.
        present: PathBuf,
    },
    /// Neither file of a pair is there, but what was made with it is.
    #[error(
        "{certificate} and {key}: missing, but the data directory was in use; restore its ca folder from a backup, \
         or remove {} to begin anew (every certificate of the old root then stops being trusted)", shown(.remains)
    )]
    Lost {
        /// The certificate that is not there.
        certificate: PathBuf,
        /// The key that is not there.
        key: PathBuf,
        /// What is still there.
        remains: Vec<PathBuf>,
    },
    /// A file could not be read.
    #[error("{path}: cannot be read; it must be a file that this user may read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key that others than its owner can read.
    #[error("{path}: mode {mode:04o} lets others read the private key; run: chmod 600 {path}")]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file with other content than it should have.
    #[error("{path}: {expected}; restore it from a backup")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A key that does not belong to the certificate beside it.
    #[error("{key}: not the key of {certificate}; restore the two from the same backup")]
    Foreign {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A new pair could not be written.
    #[error("{path}: cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new pair could not be made.
    #[error("a new root certificate could not be made")]
    Generate(#[source] rcgen::Error),
}

/// Paths as they are listed in a message.
fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
