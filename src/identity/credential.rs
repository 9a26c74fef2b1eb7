//! Credentials: the client certificates of proxies.
//!
//! A credential names its proxy in one URI:
//!
//! ```text
//! chancery://proxy/<node id>?workload=<namespace>/<name>&issued=<milliseconds since 1970>
//! ```
//!
//! The node id is percent-encoded but for unreserved characters; `workload=…&` is left out where there is
//! none. A text has this form in one way only: what would not be written like this is not read.
//!
//! Owns: that form, issuing and reading. May use: `ca::leaf`, x509-parser. Never: decides whether a
//! credential is still in force.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use translators::name::QualifiedName;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::node::NodeId;
use crate::ca::Authority;
use crate::ca::leaf::{self, IssueError, Profile};

const PREFIX: &str = "chancery://proxy/";

/// What a credential says of its proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The workload that it is an instance of; none for a proxy that only raw snapshots serve.
    pub workload: Option<QualifiedName>,
    /// Its node id.
    pub node_id: NodeId,
    /// When the credential was issued, in milliseconds since 1970; what revocation goes by.
    pub issued: u64,
}

/// A credential with its key, as `chancery bootstrap` hands it out.
#[derive(Clone)]
pub struct Credential {
    /// The certificate chain.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// A credential as a peer showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyCredential {
    /// The workload that the proxy is an instance of.
    pub workload: Option<QualifiedName>,
    /// Its node id.
    pub node_id: NodeId,
    /// When the credential was issued, in milliseconds since 1970.
    pub issued: u64,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why a certificate names no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not a certificate.
    #[error("not an X.509 certificate")]
    Certificate,
    /// Other names than one URI.
    #[error("the certificate must have exactly one name, a URI")]
    Names,
    /// A URI of another form.
    #[error("{0:?} must read chancery://proxy/<node id>?workload=<namespace>/<name>&issued=<milliseconds>")]
    Uri(String),
}

/// Issues the credential of `subject`.
pub fn issue(control: &Authority, subject: &Subject, ttl: Duration, now: SystemTime) -> Result<Credential, IssueError> {
    let leaf = leaf::issue(control, Profile::Proxy(&subject.to_uri()), ttl, now)?;
    Ok(Credential { chain_pem: leaf.chain_pem, key_pem: leaf.key_pem, not_after: leaf.not_after })
}

/// Reads what the certificate `peer` says of its proxy; whether to believe it is not decided here.
pub fn read(peer: &CertificateDer<'_>) -> Result<ProxyCredential, CredentialError> {
    let (_, certificate) = X509Certificate::from_der(peer).map_err(|_| CredentialError::Certificate)?;
    let names = certificate.subject_alternative_name().map_err(|_| CredentialError::Names)?;
    let Some([GeneralName::URI(uri)]) = names.map(|names| names.value.general_names.as_slice()) else {
        return Err(CredentialError::Names);
    };
    let subject = Subject::from_uri(uri).ok_or_else(|| CredentialError::Uri((*uri).to_owned()))?;
    Ok(ProxyCredential {
        workload: subject.workload,
        node_id: subject.node_id,
        issued: subject.issued,
        serial: leaf::hex(certificate.raw_serial()),
        not_after: certificate.validity().not_after.to_datetime().into(),
    })
}

// === impl Subject ===

impl Subject {
    fn to_uri(&self) -> String {
        let node = percent_encoded(self.node_id.as_str());
        let workload = self.workload.as_ref().map(|workload| format!("workload={workload}&")).unwrap_or_default();
        format!("{PREFIX}{node}?{workload}issued={}", self.issued)
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (node, query) = uri.strip_prefix(PREFIX)?.split_once('?')?;
        let (workload, issued) = match query.split_once('&') {
            Some((workload, issued)) => (Some(workload.strip_prefix("workload=")?.parse().ok()?), issued),
            None => (None, query),
        };
        let subject = Self {
            workload,
            node_id: percent_decoded(node)?.parse().ok()?,
            issued: issued.strip_prefix("issued=")?.parse().ok()?,
        };
        (subject.to_uri() == uri).then_some(subject)
    }
}

fn percent_encoded(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        decoded.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        decoded.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

/// Shows no key.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credential, valid until {}", OffsetDateTime::from(self.not_after))
    }
}
