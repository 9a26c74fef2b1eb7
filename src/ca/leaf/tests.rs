//! Leaves as others read them.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::*;
use crate::ca::authority::Purpose;

const NOW: u64 = 1_900_000_000;

fn authority() -> Authority {
    let data = tempfile::tempdir().expect("a directory");
    Authority::open_or_create(data.path(), Purpose::Mesh).expect("created")
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).expect("a root");
    Arc::new(roots)
}

fn der(leaf: &Leaf) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).expect("PEM")
}

fn ids() -> impl Strategy<Value = SpiffeId> {
    ("[a-z0-9._-]{1,40}", proptest::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,30}", 1..6))
        .prop_map(|(domain, path)| format!("spiffe://{domain}/{}", path.join("/")).parse().expect("an id"))
}

/// Ten seconds to thirty years: some are longer than the root's own life.
fn ttls() -> impl Strategy<Value = Duration> {
    prop_oneof![10..100_000_u64, 100_000..1_000_000_000_u64].prop_map(Duration::from_secs)
}

/// What a workload leaf says beside its key and its time, as text, sorted.
fn extensions(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut texts: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|extension| {
            let text = match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(basic) => format!("ca {}", basic.ca),
                ParsedExtension::KeyUsage(usage) => format!("usage {usage}"),
                ParsedExtension::ExtendedKeyUsage(usage) => format!(
                    "extended server {} client {} any {} other {:?}",
                    usage.server_auth, usage.client_auth, usage.any, usage.other
                ),
                ParsedExtension::SubjectAlternativeName(names) => format!("names {:?}", names.general_names),
                ParsedExtension::AuthorityKeyIdentifier(_) => "authority key".to_owned(),
                ParsedExtension::SubjectKeyIdentifier(_) => "subject key".to_owned(),
                other => format!("{other:?}"),
            };
            format!("{text}{}", if extension.critical { " critical" } else { "" })
        })
        .collect();
    texts.sort();
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_workload_leaf_is_what_spiffe_asks_for(
        leaves in proptest::collection::vec((ids(), ttls(), 0..1_000_000_000_u32), 1..6),
    ) {
        let authority = authority();
        let server = WebPkiServerVerifier::builder_with_provider(roots(&authority), provider()).build().expect("a root");
        let client = WebPkiClientVerifier::builder_with_provider(roots(&authority), provider()).build().expect("a root");
        let mut serials = BTreeSet::new();
        for (id, ttl, nanos) in &leaves {
            let now = SystemTime::now() + Duration::from_nanos((*nanos).into());
            let leaf = issue(&authority, Profile::Workload(id), *ttl, now).expect("issued");
            let bytes = der(&leaf);
            let (rest, parsed) = X509Certificate::from_der(&bytes).expect("parses");
            prop_assert!(rest.is_empty());
            prop_assert!(serials.insert(parsed.raw_serial().to_vec()));
            prop_assert_eq!(&leaf.serial, &hex(parsed.raw_serial()));
            let names = [GeneralName::URI(id.as_str())];
            let mut expected = vec![
                "authority key".to_owned(),
                "ca false critical".to_owned(),
                "extended server true client true any false other []".to_owned(),
                format!("names {names:?} critical"),
                "usage Digital Signature critical".to_owned(),
            ];
            let mut found = extensions(&parsed);
            found.retain(|text| text != "subject key");
            expected.sort();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(parsed.subject().to_string(), "");

            let not_after = OffsetDateTime::from(now + *ttl).min(authority.not_after());
            prop_assert_eq!(parsed.validity().not_after.timestamp(), not_after.unix_timestamp());
            prop_assert!(OffsetDateTime::from(leaf.not_after) <= authority.not_after());
            let not_before = OffsetDateTime::from(now - BACKDATE).max(authority.not_before());
            prop_assert_eq!(parsed.validity().not_before.timestamp(), not_before.unix_timestamp());

            let at = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"));
            prop_assert!(client.verify_client_cert(&bytes, &[], at).is_ok());
            // Names are not what rustls can check here: it has no URIs. Any other fault shows as another error.
            let name = "x.example".try_into().expect("a name");
            let error = rustls::client::danger::ServerCertVerifier::verify_server_cert(&*server, &bytes, &[], &name, &[], at)
                .expect_err("no such name");
            let error = format!("{error:?}");
            prop_assert!(error.contains("NotValidForName"), "{}", error);
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    crate::identity::tls::provider()
}

#[test]
fn an_expired_or_future_root_signs_nothing() {
    let authority = authority();
    let expired = IssueError::IssuerExpired { not_after: authority.not_after() };
    let names = ["chancery".to_owned()];
    for now in [SystemTime::from(authority.not_after()), SystemTime::from(authority.not_before()) - BACKDATE] {
        let result = issue(&authority, Profile::Server(&names), Duration::from_secs(10), now);
        assert_eq!(result.map(|leaf| leaf.serial), Err(expired.clone()));
    }
}

#[test]
fn a_server_certificate_has_names_and_addresses() {
    let authority = authority();
    let names = ["chancery", "10.0.0.1", "::1"].map(str::to_owned);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let leaf = issue(&authority, Profile::Server(&names), Duration::from_secs(86400), now).expect("issued");
    let bytes = der(&leaf);
    let (_, parsed) = X509Certificate::from_der(&bytes).expect("parses");
    let v6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let names = [GeneralName::DNSName("chancery"), GeneralName::IPAddress(&[10, 0, 0, 1]), GeneralName::IPAddress(&v6)];
    let mut found = extensions(&parsed);
    found.retain(|text| text != "subject key");
    let expected = [
        "authority key".to_owned(),
        "ca false critical".to_owned(),
        "extended server true client false any false other []".to_owned(),
        format!("names {names:?} critical"),
        "usage Digital Signature critical".to_owned(),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_name_that_is_not_ascii_is_refused() {
    let names = ["caf\u{e9}".to_owned()];
    let result = issue(&authority(), Profile::Server(&names), Duration::from_secs(10), SystemTime::now());
    assert_eq!(result.map(|leaf| leaf.serial), Err(IssueError::Name("caf\u{e9}".to_owned())));
}

#[test]
fn debug_shows_no_key() {
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an id");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let leaf = issue(&authority(), Profile::Workload(&id), Duration::from_secs(10), now).expect("issued");
    let expected = format!("certificate {}, valid until 2030-03-17 17:46:50.0 +00:00:00", leaf.serial);
    assert_eq!(format!("{leaf:?}"), expected);
}
