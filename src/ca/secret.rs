//! Secrets: a certificate and a trust bundle as Envoy takes them.
//!
//! Owns: the two SDS resources and their names. May use: `translators::resource`. Never: reads a certificate.

use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use translators::resource::{Kind, Resource};

/// The name under which every workload asks for its own certificate.
pub const IDENTITY: &str = "identity";
/// The name under which every workload asks for the roots that it trusts.
pub const TRUST_BUNDLE: &str = "trust-bundle";

/// The certificate and key of a workload.
pub fn certificate(name: &str, chain_pem: &str, key_pem: &str) -> Resource {
    let certificate = tls_pb::TlsCertificate {
        certificate_chain: Some(inline(chain_pem)),
        private_key: Some(inline(key_pem)),
        ..Default::default()
    };
    secret(name, tls_pb::secret::Type::TlsCertificate(certificate))
}

/// The roots that a workload trusts.
pub fn trust_bundle(roots_pem: &str) -> Resource {
    let context = tls_pb::CertificateValidationContext { trusted_ca: Some(inline(roots_pem)), ..Default::default() };
    secret(TRUST_BUNDLE, tls_pb::secret::Type::ValidationContext(context))
}

fn secret(name: &str, content: tls_pb::secret::Type) -> Resource {
    Resource::new(Kind::Secret, name, &tls_pb::Secret { name: name.to_owned(), r#type: Some(content) }, [])
}

fn inline(pem: &str) -> core_pb::DataSource {
    let specifier = core_pb::data_source::Specifier::InlineBytes(pem.as_bytes().to_vec());
    core_pb::DataSource { specifier: Some(specifier), ..Default::default() }
}
