//! The credential file: one SDS secret that Envoy watches.
//!
//! Owns: the form of that file and its replacement. May use: `durable`, `identity::credential`. Never:
//! changes the file in place: Envoy acts when one is moved over it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;

use crate::durable;
use crate::identity::{Credential, ProxyCredential, credential};
use translators::xds::bootstrap as envoy;

/// The parts of the file that are read back.
#[derive(Deserialize)]
struct Document {
    resources: Vec<Secret>,
}

#[derive(Deserialize)]
struct Secret {
    tls_certificate: Certificate,
}

#[derive(Deserialize)]
struct Certificate {
    certificate_chain: Inline,
}

#[derive(Deserialize)]
struct Inline {
    inline_string: String,
}

/// Refuses a name by which Envoy could not tell the format of the file.
pub(super) fn check_extension(path: &Path) -> anyhow::Result<()> {
    let known =
        path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    ensure!(known, "{}: must end in .yaml, .yml or .json: Envoy tells the format by it", path.display());
    Ok(())
}

/// Puts `issued` into the file; whoever watches it sees the old credential or the new one.
pub(super) fn write(path: &Path, issued: &Credential) -> anyhow::Result<envoy::Credential> {
    let document = json!({
        "resources": [{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": envoy::CREDENTIAL,
            "tls_certificate": {
                "certificate_chain": { "inline_string": issued.chain_pem },
                "private_key": { "inline_string": issued.key_pem },
            },
        }],
    });
    // JSON is YAML too.
    let text = serde_json::to_string_pretty(&document)? + "\n";
    durable::replace(path, text.as_bytes()).with_context(|| format!("{}: cannot be written", path.display()))?;
    let absolute = fs::canonicalize(directory(path)).map(|dir| dir.join(path.file_name().unwrap_or_default()));
    let absolute = absolute.with_context(|| format!("{}: has no directory", path.display()))?;
    Ok(envoy::Credential::File { path: absolute.display().to_string() })
}

/// The credential in the file, if there is a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<ProxyCredential>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    };
    let foreign = || anyhow!("{}: is not a credential file; name another file, or remove this one", path.display());
    // The parser's own words could quote the key.
    let document: Document = serde_json::from_str(&text).map_err(|_| foreign())?;
    let [secret] = document.resources.as_slice() else { bail!(foreign()) };
    let chain = &secret.tls_certificate.certificate_chain.inline_string;
    let certificate = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|_| foreign())?;
    credential::read(&certificate).map(Some).map_err(|_| foreign())
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}
