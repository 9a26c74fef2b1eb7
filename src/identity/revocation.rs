//! Revocation: credentials that were issued before a moment are no longer in force.
//!
//! Owns: `identity/revoked.json` in the data directory: for a workload or a node, the moment before which
//! credentials are void. May use: `durable`. Never: forgets a moment, or lets one move back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use translators::name::QualifiedName;

use super::credential::{ProxyCredential, Subject};
use super::node::NodeId;
use crate::durable;

/// Which credentials are void: those issued before a moment, in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    #[serde(default)]
    workloads: BTreeMap<QualifiedName, u64>,
    #[serde(default)]
    nodes: BTreeMap<NodeId, u64>,
}

/// The list on disk.
#[derive(Debug, Clone)]
pub struct RevocationList {
    path: PathBuf,
}

/// The list, held by this process alone.
#[derive(Debug)]
pub struct LockedList {
    path: PathBuf,
    current: Revocations,
    _lock: File,
}

/// Whose earlier credentials to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Those of every proxy of a workload.
    Workload(QualifiedName),
    /// Those of one node.
    Node(NodeId),
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// It could not be read or locked.
    #[error("{path}: cannot be read; it must be a file that this user may read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what we write.
    #[error(
        "{path}: must hold {{\"workloads\": {{\"<namespace>/<name>\": <ms>}}, \"nodes\": {{\"<id>\": <ms>}}}}; restore it from a backup"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It could not be written.
    #[error("{path}: cannot be written; nothing was revoked")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

// === impl Revocations ===

impl Revocations {
    /// Whether `credential` is void.
    pub fn revoke(&self, credential: &ProxyCredential) -> bool {
        credential.issued < self.cut_off(credential.workload.as_ref(), &credential.node_id)
    }

    fn cut_off(&self, workload: Option<&QualifiedName>, node_id: &NodeId) -> u64 {
        let of_workload = workload.and_then(|workload| self.workloads.get(workload));
        of_workload.max(self.nodes.get(node_id)).copied().unwrap_or_default()
    }
}

// === impl RevocationList ===

impl RevocationList {
    /// The list of the data directory `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("identity/revoked.json") }
    }

    /// What is revoked; nothing while there is no list.
    pub fn read(&self) -> Result<Revocations, RevocationError> {
        match self.read_present() {
            Err(RevocationError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Revocations::default())
            }
            list => list,
        }
    }

    /// What is revoked; an error while there is no list.
    pub fn read_present(&self) -> Result<Revocations, RevocationError> {
        let text = fs::read(&self.path).map_err(|source| self.unreadable(source))?;
        serde_json::from_slice(&text).map_err(|source| RevocationError::Malformed { path: self.path.clone(), source })
    }

    /// Holds the list, waiting for whoever holds it: for issuing and revoking.
    pub fn lock(&self) -> Result<LockedList, RevocationError> {
        let dir = self.path.with_file_name("");
        durable::create_private_dir(&dir).map_err(|source| self.unreadable(source))?;
        let lock = durable::lock(&dir.join("lock")).map_err(|source| self.unreadable(source))?;
        Ok(LockedList { path: self.path.clone(), current: self.read()?, _lock: lock })
    }

    fn unreadable(&self, source: io::Error) -> RevocationError {
        RevocationError::Unreadable { path: self.path.clone(), source }
    }
}

// === impl LockedList ===

impl LockedList {
    /// The subject of a credential that is issued at `now`: never one that is revoked already, even if the
    /// clock went back. If it `replaces` what came before, it is later than that, even within a millisecond.
    pub fn subject(
        &self,
        workload: Option<QualifiedName>,
        node_id: NodeId,
        now: SystemTime,
        replaces: Option<&Scope>,
    ) -> Subject {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let earliest = now.max(self.current.cut_off(workload.as_ref(), &node_id));
        let issued = if replaces.is_some() { earliest.saturating_add(1) } else { earliest };
        Subject { workload, node_id, issued }
    }

    /// Revokes what was issued to `scope` before `subject`.
    pub fn revoke_before(mut self, scope: Scope, subject: &Subject) -> Result<(), RevocationError> {
        let moment = match scope {
            Scope::Workload(workload) => self.current.workloads.entry(workload).or_default(),
            Scope::Node(node_id) => self.current.nodes.entry(node_id).or_default(),
        };
        *moment = subject.issued.max(*moment);
        let text = serde_json::to_vec_pretty(&self.current).expect("names are texts, and moments numbers");
        durable::replace(&self.path, &text).map_err(|source| RevocationError::Write { path: self.path, source })
    }
}
