//! The leaves on disk: what makes a restart send nothing as changed.
//!
//! Owns: `ca/leaves/`, one file for each workload. May use: `durable`, x509-parser. Never: decides that a leaf
//! is to be renewed; a file that does not fit is passed over, and the workload gets a new leaf.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use translators::name::{QualifiedName, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::authority::Authority;
use super::leaf::{Leaf, hex};
use crate::durable;

/// A leaf and what it was issued for.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) identity: SpiffeId,
    pub(super) ttl: Duration,
    pub(super) renew_at: SystemTime,
    pub(super) leaf: Leaf,
}

/// The directory of leaves of one authority.
#[derive(Debug)]
pub(super) struct LeafStore {
    dir: PathBuf,
    issuer: String,
}

/// A file of the directory.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    identity: SpiffeId,
    issuer: String,
    ttl: Duration,
    renew_at: Duration,
    chain: String,
    key: String,
}

// === impl LeafStore ===

impl LeafStore {
    /// The leaves of `authority` in the data directory `data_dir`.
    pub(super) fn new(data_dir: &Path, authority: &Authority) -> Self {
        let fingerprint = digest::digest(&digest::SHA256, authority.certificate());
        Self { dir: data_dir.join("ca/leaves"), issuer: hex(fingerprint.as_ref()) }
    }

    /// The leaf of `workload`, if there is one of this authority and it is valid at `now`.
    pub(super) fn load(&self, workload: &QualifiedName, now: SystemTime) -> Option<Stored> {
        let document: Document = serde_json::from_slice(&fs::read(self.path(workload)).ok()?).ok()?;
        let stored = document.into_leaf(&self.issuer)?;
        let valid = stored.leaf.not_before <= now && now < stored.leaf.not_after;
        valid.then_some(stored)
    }

    /// Keeps the leaf of `workload`.
    pub(super) fn save(&self, workload: &QualifiedName, stored: &Stored) -> io::Result<()> {
        let document = Document {
            identity: stored.identity.clone(),
            issuer: self.issuer.clone(),
            ttl: stored.ttl,
            renew_at: stored.renew_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            chain: stored.leaf.chain_pem.clone(),
            key: stored.leaf.key_pem.clone(),
        };
        durable::create_private_dir(&self.dir)?;
        durable::overwrite(&self.path(workload), &serde_json::to_vec(&document)?)
    }

    /// Forgets the leaf of `workload`.
    pub(super) fn remove(&self, workload: &QualifiedName) -> io::Result<()> {
        match fs::remove_file(self.path(workload)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what no restart can use any more: files of expired leaves and of another root.
    pub(super) fn sweep(&self, now: SystemTime) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let leaf = serde_json::from_slice::<Document>(&fs::read(&path)?).ok();
            let usable = leaf.and_then(|document| document.into_leaf(&self.issuer));
            if usable.is_none_or(|stored| stored.leaf.not_after <= now) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn path(&self, workload: &QualifiedName) -> PathBuf {
        // Labels have no dots, so that the name of a file belongs to one workload.
        self.dir.join(format!("{}.{}.json", workload.namespace, workload.name))
    }
}

// === impl Document ===

impl Document {
    fn into_leaf(self, issuer: &str) -> Option<Stored> {
        let certificate = CertificateDer::from_pem_slice(self.chain.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        let key = rcgen::KeyPair::from_pem(&self.key).ok()?;
        let same_key = parsed.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key);
        let names = parsed.subject_alternative_name().ok()??;
        let same_identity = names.value.general_names == [GeneralName::URI(self.identity.as_str())];
        let leaf = Leaf {
            serial: hex(parsed.raw_serial()),
            not_before: parsed.validity().not_before.to_datetime().into(),
            not_after: parsed.validity().not_after.to_datetime().into(),
            chain_pem: self.chain,
            key_pem: self.key,
        };
        let renew_at = SystemTime::UNIX_EPOCH.checked_add(self.renew_at)?;
        (self.issuer == issuer && same_key && same_identity && renew_at <= leaf.not_after).then_some(Stored {
            identity: self.identity,
            ttl: self.ttl,
            renew_at,
            leaf,
        })
    }
}
