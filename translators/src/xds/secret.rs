//! Secrets: a workload's certificate, and whom it trusts.
//!
//! Owns: their constant names and their shape. May use: the `proto` crate. Never: prints a key; whose secret
//! goes to whom is the stream's business.

use prost::Message;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::extensions::transport_sockets::tls::v3 as tls_pb;

use crate::resource::{Kind, Resource};

/// The secret of the workload's own certificate and key. The name is the same for all workloads, so that
/// clusters and listeners are too; each stream serves its own.
pub const IDENTITY: &str = "identity";

/// The secret of the certificate authorities that a workload trusts.
pub const TRUST_BUNDLE: &str = "trust-bundle";

/// The secret `name`: a certificate chain, leaf first, and its key, both PEM.
pub fn certificate(name: &str, chain_pem: &str, key_pem: &str) -> Resource {
    let certificate = tls_pb::TlsCertificate {
        certificate_chain: Some(inline(chain_pem)),
        private_key: Some(inline(key_pem)),
        ..Default::default()
    };
    secret(name, tls_pb::secret::Type::TlsCertificate(certificate))
}

/// The secret [`TRUST_BUNDLE`]: authorities, PEM.
pub fn trust_bundle(pem: &str) -> Resource {
    let context = tls_pb::CertificateValidationContext { trusted_ca: Some(inline(pem)), ..Default::default() };
    secret(TRUST_BUNDLE, tls_pb::secret::Type::ValidationContext(context))
}

fn secret(name: &str, content: tls_pb::secret::Type) -> Resource {
    let secret = tls_pb::Secret { name: name.to_owned(), r#type: Some(content) };
    Resource::from_bytes(Kind::Secret, name.into(), &secret.encode_to_vec(), [].into())
}

/// PEM in the message itself.
pub(super) fn inline(pem: &str) -> core_pb::DataSource {
    core_pb::DataSource {
        specifier: Some(core_pb::data_source::Specifier::InlineString(pem.to_owned())),
        ..Default::default()
    }
}
