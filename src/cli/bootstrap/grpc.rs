//! The files of a gRPC client without a proxy, and its bootstrap.
//!
//! Owns: what the files are called, and their replacement. May use: `ca`, `durable`, `identity::credential`. Never:
//! prints a key, or changes a file in place: clients read them again while they run.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use translators::name::QualifiedName;
use translators::xds::bootstrap::CertificateFiles;

use crate::ca::{Authorities, further};
use crate::durable;
use crate::identity::{Credential, ProxyCredential, credential};

/// What the client proves itself by to the control plane.
const CREDENTIAL: &str = "credential";

/// Who its workload is in the mesh.
const CERTIFICATE: &str = "certificate";

/// Puts the credential into its files in `dir`.
pub(super) fn write_credential(
    dir: &Path,
    issued: &Credential,
    authorities: &Authorities,
) -> anyhow::Result<CertificateFiles> {
    write(dir, CREDENTIAL, &issued.chain_pem, &issued.key_pem, authorities.control.certificate_pem())
}

/// The credential in the files of `dir`, if there is one.
pub(super) fn read_credential(dir: &Path) -> anyhow::Result<Option<ProxyCredential>> {
    let path = dir.join(format!("{CREDENTIAL}.pem"));
    let pem = match fs::read(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    };
    let foreign = || anyhow!("{}: is not a credential; name another directory, or remove this file", path.display());
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| foreign())?;
    credential::read(&certificate).map(Some).map_err(|_| foreign())
}

/// Issues a certificate of the workload's identity into its files in `dir`, and says how long it is valid.
pub(super) fn issue_certificate(
    dir: &Path,
    workload: &QualifiedName,
    data_dir: &Path,
    authorities: &Authorities,
    now: SystemTime,
    notes: &mut impl Write,
) -> anyhow::Result<CertificateFiles> {
    let issued = further::certificate(&authorities.mesh, data_dir, workload, now)?;
    let (identity, leaf) = issued.ok_or_else(|| {
        anyhow!(
            "the control plane of {} has no certificate for {workload} yet: run `chancery serve` with this data \
             directory and rules that hold the Workload",
            data_dir.display()
        )
    })?;
    let files = write(dir, CERTIFICATE, &leaf.chain_pem, &leaf.key_pem, authorities.mesh.certificate_pem())?;
    let until = OffsetDateTime::from(leaf.not_after).format(&Rfc3339)?;
    writeln!(notes, "note: the certificate of {identity} is valid until {until}: run the command again before")
        .context("how long the certificate is valid could not be printed")?;
    Ok(files)
}

/// Writes `NAME.pem`, `NAME.key` and `NAME-roots.pem`. The key goes first: a client takes none that does not fit.
fn write(dir: &Path, name: &str, chain: &str, key: &str, roots: &str) -> anyhow::Result<CertificateFiles> {
    let unwritten = |path: &Path| format!("{}: cannot be written", path.display());
    durable::create_private_dir(dir).with_context(|| unwritten(dir))?;
    let dir = fs::canonicalize(dir).with_context(|| unwritten(dir))?;
    let put = |file: String, contents: &str| -> anyhow::Result<String> {
        let path = dir.join(file);
        durable::replace(&path, contents.as_bytes()).with_context(|| unwritten(&path))?;
        Ok(path.display().to_string())
    };
    Ok(CertificateFiles {
        key: put(format!("{name}.key"), key)?,
        certificate: put(format!("{name}.pem"), chain)?,
        roots: put(format!("{name}-roots.pem"), roots)?,
    })
}
