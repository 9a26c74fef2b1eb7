//! Looking at a certificate and its key: whether a proxy can show them.
//!
//! Owns: what is good, and why something else is not. May use: rustls, x509-parser. Never: repeats a word of a key.

use std::time::{Duration, SystemTime};

use ring::digest;
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use translators::mesh::{CertificateSource, Seen, Shown};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// A certificate that ends within this is worth a word.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);
/// Nobody's certificates take more.
const LARGEST: u64 = 1024 * 1024;

/// What stands where a certificate comes from.
pub(super) struct Read {
    /// The certificate and what leads to its authority, PEM.
    pub(super) chain: String,
    /// Its key, PEM.
    pub(super) key: String,
    /// A digest of both.
    pub(super) sum: Vec<u8>,
}

/// What stands there now; `None` where nothing does, since it is issued.
pub(super) fn read(source: &CertificateSource) -> Option<Result<Read, Seen>> {
    match source {
        CertificateSource::File { cert, key } => {
            let both = file(cert, "cert").and_then(|cert| Ok((cert, file(key, "key")?)));
            Some(both.map(|(cert, key)| Read::of(cert, key)))
        }
        CertificateSource::Inline { cert, key } => Some(Ok(Read::of(cert.to_string(), key.reveal().to_owned()))),
        CertificateSource::Issued(_) => None,
    }
}

/// What the certificate says, where a proxy can show it.
pub(super) fn checked(read: &Read, now: SystemTime) -> Result<Shown, Seen> {
    let chain = certificates(&read.chain)?;
    let key = PrivateKeyDer::from_pem_slice(read.key.as_bytes());
    let key = key.map_err(|_| bad("key", "it holds no private key as PEM".to_owned()))?;
    let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
    let (_, parsed) =
        X509Certificate::from_der(&leaf).map_err(|_| bad("cert", "the first certificate is damaged".into()))?;
    let algorithm = parsed.public_key().algorithm.algorithm.to_id_string();
    // RSA, and ECDSA.
    if !["1.2.840.113549.1.1.1", "1.2.840.10045.2.1"].contains(&algorithm.as_str()) {
        return Err(bad("cert", "its key is neither RSA nor ECDSA: Envoy shows no other".to_owned()));
    }
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => bad("key", "it is the key of another certificate".to_owned()),
        // What the library says of a key is not repeated.
        _ => bad("key", "the key cannot be used: RSA of 2048 bits or more, ECDSA P-256 and P-384 can".to_owned()),
    })?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let now = OffsetDateTime::from(now);
    let (from, until) = (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
    let said = |moment: OffsetDateTime| moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string());
    let ending = if until <= now {
        Some(format!("it has expired at {}", said(until)))
    } else if now < from {
        Some(format!("it is not valid before {}", said(from)))
    } else if until < now + SOON {
        Some(format!("it expires at {}", said(until)))
    } else {
        None
    };
    Ok(Shown { names: names.collect(), ending })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Seen> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|_| bad("cert", "it is no PEM".to_owned()))?;
    match all.iter().position(|one| X509Certificate::from_der(one).is_err()) {
        Some(damaged) => Err(bad("cert", format!("certificate {} is damaged", damaged + 1))),
        None if all.is_empty() => Err(bad("cert", "it holds no certificate as PEM".to_owned())),
        None => Ok(all),
    }
}

fn file(path: &str, member: &'static str) -> Result<String, Seen> {
    let unreadable = |reason: String| bad(member, format!("{path} cannot be read: {reason}"));
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > LARGEST {
        return Err(unreadable(format!("{size} bytes are no certificate")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn bad(member: &'static str, reason: String) -> Seen {
    Seen::Bad { member, reason }
}

// === impl Read ===

impl Read {
    fn of(chain: String, key: String) -> Self {
        let mut sum = digest::Context::new(&digest::SHA256);
        sum.update(chain.as_bytes());
        sum.update(&[0]);
        sum.update(key.as_bytes());
        Self { sum: sum.finish().as_ref().to_vec(), chain, key }
    }
}
