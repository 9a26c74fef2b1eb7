//! Authorities: a root certificate and its key, created once and never silently, nor silently replaced.
//!
//! Owns: `ca/<purpose>.pem`, `ca/<purpose>.key` and the lock under which they are created. May use: `durable`,
//! rcgen, x509-parser. Never: shows a key, or makes a new root beside a damaged one.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData};
use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::info;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::remains;
use crate::durable;

pub use error::AuthorityError;

mod error;

/// How far before its creation a certificate becomes valid, for clocks that are behind ours.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

const ROOT_VALIDITY: time::Duration = time::Duration::days(3650);

/// What an authority's signature means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It signs the identities of workloads.
    Mesh,
    /// It signs the control plane's own certificate and the credentials of proxies.
    Control,
}

/// The two built-in authorities of a data directory. They are apart so that a credential is never an
/// identity in the mesh, nor an identity a credential.
#[derive(Debug)]
pub struct Authorities {
    /// Signs workload leaves.
    pub mesh: Authority,
    /// Signs the control plane's certificate and the proxies' credentials.
    pub control: Authority,
}

/// One root with its key.
pub struct Authority {
    purpose: Purpose,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    issuer: rcgen::Issuer<'static, KeyPair>,
    file: PathBuf,
    is_new: bool,
}

// === impl Purpose ===

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Control => "control",
        }
    }
}

// === impl Authorities ===

impl Authorities {
    /// Opens the authorities of the data directory `data_dir`; creates those that do not exist at all.
    pub fn open_or_create(data_dir: &Path) -> Result<Self, AuthorityError> {
        Ok(Self {
            mesh: Authority::open_or_create(data_dir, Purpose::Mesh)?,
            control: Authority::open_or_create(data_dir, Purpose::Control)?,
        })
    }

    /// Those that were created just now.
    pub fn created(&self) -> impl Iterator<Item = &Authority> {
        [&self.mesh, &self.control].into_iter().filter(|authority| authority.is_new)
    }

    /// Logs a line for each that was created.
    pub fn log_created(&self) {
        for authority in self.created() {
            info!(
                purpose = authority.purpose.as_str(),
                file = %authority.file.display(),
                sha256 = authority.fingerprint(),
                not_after = authority.not_after.format(&Rfc3339).expect("a certificate's year has four digits"),
                "certificate authority created"
            );
        }
    }
}

// === impl Authority ===

impl Authority {
    /// Opens the authority for `purpose` in `data_dir`; creates it if neither of its files exists, nor anything
    /// else that shows that they once did.
    pub fn open_or_create(data_dir: &Path, purpose: Purpose) -> Result<Self, AuthorityError> {
        let dir = data_dir.join("ca");
        let unprepared = |source| AuthorityError::Directory { path: dir.clone(), source };
        durable::create_private_dir(&dir).map_err(unprepared)?;
        let _lock = durable::lock(&dir.join("lock")).map_err(unprepared)?;

        let files = Files::new(&dir, purpose);
        files.finish_interrupted_creation()?;
        let is_new = match (files.certificate.try_exists(), files.key.try_exists()) {
            (Ok(false), Ok(false)) => {
                let remains = remains::of(data_dir, purpose);
                if !remains.is_empty() {
                    return Err(AuthorityError::Lost { certificate: files.certificate, key: files.key, remains });
                }
                files.create(purpose)?;
                true
            }
            (Ok(true), Ok(false)) => return Err(files.incomplete(&files.key, &files.certificate)),
            (Ok(false), Ok(true)) => return Err(files.incomplete(&files.certificate, &files.key)),
            (Ok(true), Ok(true)) => false,
            (Err(source), _) => return Err(AuthorityError::Unreadable { path: files.certificate, source }),
            (_, Err(source)) => return Err(AuthorityError::Unreadable { path: files.key, source }),
        };
        Ok(Self { is_new, ..files.open(purpose)? })
    }

    /// The root certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The root certificate as PEM: what those who trust this authority hold.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Since when the root is valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// Until when the root is valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether it was created when it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The SHA-256 fingerprint of the root, as openssl shows it.
    fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// Signs what `params` describe for the holder of `key`.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, rcgen::Error> {
        params.signed_by(key, &self.issuer)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authority, valid until {}", self.purpose.as_str(), self.not_after)
    }
}

/// A serial number: 128 random bits.
pub(super) fn random_serial() -> rcgen::SerialNumber {
    rcgen::SerialNumber::from_slice(&rand::random::<[u8; 16]>())
}

/// The files of one authority. A new pair is written under the `.new` names first, so that a creation that
/// is interrupted between the two renames is finished by the next start.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    new_certificate: PathBuf,
    new_key: PathBuf,
}

// === impl Files ===

impl Files {
    fn new(dir: &Path, purpose: Purpose) -> Self {
        let file = |extension: &str| dir.join(format!("{}.{extension}", purpose.as_str()));
        Self { certificate: file("pem"), key: file("key"), new_certificate: file("pem.new"), new_key: file("key.new") }
    }

    fn incomplete(&self, missing: &Path, present: &Path) -> AuthorityError {
        AuthorityError::Incomplete { missing: missing.to_owned(), present: present.to_owned() }
    }

    fn finish_interrupted_creation(&self) -> Result<(), AuthorityError> {
        let interrupted = self.key.exists() && !self.certificate.exists() && !self.new_key.exists();
        if interrupted && self.new_certificate.exists() {
            self.publish(&self.new_certificate, &self.certificate)
        } else {
            Ok(())
        }
    }

    fn create(&self, purpose: Purpose) -> Result<(), AuthorityError> {
        let (certificate, key) = new_root(purpose).map_err(AuthorityError::Generate)?;
        let write = |path: &Path, pem: &str| {
            durable::replace(path, pem.as_bytes())
                .map_err(|source| AuthorityError::Write { path: path.to_owned(), source })
        };
        write(&self.new_certificate, &certificate)?;
        write(&self.new_key, &key)?;
        self.publish(&self.new_key, &self.key)?;
        self.publish(&self.new_certificate, &self.certificate)
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<(), AuthorityError> {
        durable::rename(from, to).map_err(|source| AuthorityError::Write { path: to.to_owned(), source })
    }

    fn open(self, purpose: Purpose) -> Result<Authority, AuthorityError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Unreadable { path, source }
        };
        let mode = fs::metadata(&self.key).map_err(unreadable(&self.key))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(AuthorityError::Exposed { path: self.key, mode });
        }
        let certificate_pem = fs::read_to_string(&self.certificate).map_err(unreadable(&self.certificate))?;
        let key_pem = fs::read_to_string(&self.key).map_err(unreadable(&self.key))?;

        let not_a = |path: &Path, expected| AuthorityError::Malformed { path: path.to_owned(), expected };
        let not_a_root = || not_a(&self.certificate, "must hold one PEM certificate of an authority");
        let not_a_key = |_| not_a(&self.key, "must hold one PEM private key for ECDSA P-256 with SHA-256");
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| not_a_root())?;
        let key = KeyPair::from_pem_and_sign_algo(&key_pem, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(not_a_key)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| not_a_root())?;
        if !parsed.is_ca() {
            return Err(not_a_root());
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Foreign { certificate: self.certificate, key: self.key });
        }
        let (not_before, not_after) =
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key).map_err(|_| not_a_root())?;
        let file = self.certificate;
        Ok(Authority { purpose, certificate, certificate_pem, not_before, not_after, issuer, file, is_new: false })
    }
}

fn new_root(purpose: Purpose) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let now = OffsetDateTime::from(SystemTime::now());
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now + ROOT_VALIDITY;
    params.serial_number = Some(random_serial());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "chancery");
    params.distinguished_name.push(DnType::CommonName, format!("chancery {} authority", purpose.as_str()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests;
