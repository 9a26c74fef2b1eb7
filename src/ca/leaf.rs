//! Leaves: the certificates that an authority signs, of three profiles.
//!
//! Owns: what each certificate says and how long it is valid. May use: `ca::authority`, rcgen. Never: stores
//! a certificate, or takes anything from a request but the profile.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use time::OffsetDateTime;
use translators::name::SpiffeId;

use super::authority::{self, Authority, BACKDATE};

/// What a leaf is for.
#[derive(Debug, Clone, Copy)]
pub enum Profile<'a> {
    /// The identity of a workload: exactly one URI, for both ends of a connection.
    Workload(&'a SpiffeId),
    /// The control plane's own certificate: the names and addresses that proxies reach it at.
    Server(&'a [String]),
    /// The credential of a proxy: one URI, for clients only.
    Proxy(&'a str),
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate, followed by what leads to the root (nothing: the root signs leaves).
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// Since when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why no certificate was signed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IssueError {
    /// The root is not valid for as long as even a short leaf needs.
    #[error("the root certificate expires at {not_after}: nothing valid can be signed; replace the root")]
    IssuerExpired {
        /// When it does.
        not_after: OffsetDateTime,
    },
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate: ASCII host names, addresses and URIs can")]
    Name(String),
    /// Signing failed.
    #[error("signing failed")]
    Sign(#[source] rcgen::Error),
}

/// Makes a key and signs its certificate: valid from [`BACKDATE`] before `now` until `ttl` after it, never
/// beyond the authority's own validity.
pub fn issue(authority: &Authority, profile: Profile<'_>, ttl: Duration, now: SystemTime) -> Result<Leaf, IssueError> {
    let (not_before, not_after) = validity(authority, ttl, now)?;
    let serial = authority::random_serial();
    let mut params = CertificateParams::default();
    params.not_before = not_before;
    params.not_after = not_after;
    params.serial_number = Some(serial.clone());
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = profile.names()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = profile.usages();
    params.use_authority_key_identifier_extension = true;

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(IssueError::Sign)?;
    let certificate = authority.sign(&params, &key).map_err(IssueError::Sign)?;
    Ok(Leaf {
        chain_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        serial: hex(&serial.to_bytes()),
        not_before: not_before.into(),
        not_after: not_after.into(),
    })
}

/// A serial number as it is shown: hexadecimal, without leading zero bytes.
pub fn hex(serial: &[u8]) -> String {
    let significant = serial.iter().position(|byte| *byte != 0).map_or(&serial[..0], |first| &serial[first..]);
    significant.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn validity(
    authority: &Authority,
    ttl: Duration,
    now: SystemTime,
) -> Result<(OffsetDateTime, OffsetDateTime), IssueError> {
    let expired = IssueError::IssuerExpired { not_after: authority.not_after() };
    let now = OffsetDateTime::from(now);
    let whole_seconds = |moment: OffsetDateTime| moment - time::Duration::nanoseconds(moment.nanosecond().into());
    let wanted_end = time::Duration::try_from(ttl).ok().and_then(|ttl| now.checked_add(ttl));
    let not_after = whole_seconds(wanted_end.map_or(authority.not_after(), |end| end.min(authority.not_after())));
    let not_before = whole_seconds((now - BACKDATE).max(authority.not_before()));
    if not_after > now && not_before <= now { Ok((not_before, not_after)) } else { Err(expired) }
}

// === impl Profile ===

impl Profile<'_> {
    fn names(self) -> Result<Vec<SanType>, IssueError> {
        let text = |name: &str| Ia5String::try_from(name).map_err(|_| IssueError::Name(name.to_owned()));
        match self {
            Self::Workload(id) => Ok(vec![SanType::URI(text(id.as_str())?)]),
            Self::Proxy(uri) => Ok(vec![SanType::URI(text(uri)?)]),
            Self::Server(names) => names
                .iter()
                .map(|name| match name.parse::<IpAddr>() {
                    Ok(address) => Ok(SanType::IpAddress(address)),
                    Err(_) => Ok(SanType::DnsName(text(name)?)),
                })
                .collect(),
        }
    }

    fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Workload(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Self::Server(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Proxy(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// Shows no key.
impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = OffsetDateTime::from(self.not_after);
        write!(f, "certificate {}, valid until {until}", self.serial)
    }
}

#[cfg(test)]
mod tests;
