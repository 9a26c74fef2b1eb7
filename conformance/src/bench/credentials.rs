//! Credentials: the client certificates of a fleet.
//!
//! Owns: minting them before a measurement, and how each client connects. May use: what `chancery bootstrap` uses.
//! Never: mints while anything is measured.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use chancery::ca::Authorities;
use chancery::identity::credential::{self, Subject};
use chancery::identity::revocation::RevocationList;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::rules::node_name;

/// How long they are valid.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// How each of so many clients connects: with a certificate that is bound to its node id. The data directory is that
/// of the control plane; a new one gets its certificate authority.
pub async fn mint(data_dir: &Path, clients: usize) -> anyhow::Result<Arc<Vec<Arc<ClientConfig>>>> {
    let authorities = Arc::new(Authorities::open_or_create(data_dir)?);
    let now = SystemTime::now();
    let list = RevocationList::new(data_dir).lock()?;
    let subjects: Vec<Subject> = (0..clients)
        .map(|client| Ok(list.subject(None, node_name(client).parse()?, now, None)))
        .collect::<anyhow::Result<_>>()?;
    drop(list);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authorities.control.certificate_pem().as_bytes())?)?;
    let roots = Arc::new(roots);
    let half = subjects.len().div_ceil(2).max(1);
    let parts: Vec<_> = subjects
        .chunks(half)
        .map(|part| {
            let (authorities, roots, part) = (Arc::clone(&authorities), Arc::clone(&roots), part.to_vec());
            tokio::task::spawn_blocking(move || {
                part.iter().map(|s| config(&authorities, &roots, s, now)).collect::<anyhow::Result<Vec<_>>>()
            })
        })
        .collect();
    let mut configs = Vec::new();
    for part in parts {
        configs.extend(part.await??);
    }
    Ok(Arc::new(configs))
}

fn config(
    authorities: &Authorities,
    roots: &Arc<RootCertStore>,
    subject: &Subject,
    now: SystemTime,
) -> anyhow::Result<Arc<ClientConfig>> {
    let issued = credential::issue(&authorities.control, subject, VALID, now)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).context("the key is not PEM")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(chain?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
