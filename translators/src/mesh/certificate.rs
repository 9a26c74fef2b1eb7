//! Certificates of gateways.
//!
//! Owns: where each comes from, what it is called where it is delivered, and what is wrong with what was found there. May
//! use: `name`, `rules`, `finding`. Never: reads a file, knows the time, or shows a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::{HostMatch, Mesh};
use crate::finding::{Code, Finding};
use crate::name::{ObjectKey, QualifiedName, RuleRef};
use crate::rules::certificate::PrivateKey;
use crate::rules::{Objects, Spec};

/// A certificate that a gateway shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Its name.
    pub name: QualifiedName,
    /// The TLSCertificate.
    pub origin: RuleRef,
    /// Where it comes from.
    pub source: CertificateSource,
}

/// Where a certificate and its key come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CertificateSource {
    /// Two files of the control plane's host.
    File {
        /// The path of the certificate.
        cert: String,
        /// The path of the key.
        key: String,
    },
    /// Texts, PEM.
    Inline {
        /// The certificate.
        cert: Arc<str>,
        /// The key.
        key: PrivateKey,
    },
    /// The authority of the mesh issues it for these hosts.
    Issued(BTreeSet<String>),
}

/// What was found where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It can be delivered.
    Good(Shown),
    /// It cannot; what was delivered before stays.
    Bad {
        /// The member of the source that is wrong, such as `key`.
        member: &'static str,
        /// Why, without a word of the key.
        reason: String,
    },
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// The hosts that it is for.
    pub names: BTreeSet<String>,
    /// What there is to say of the time until which it is valid, where there is something.
    pub ending: Option<String>,
}

/// What is wrong with the certificates of gateways, once somebody has looked: `seen` is by the names of the secrets.
pub fn findings(mesh: &Mesh, objects: &Objects, seen: &BTreeMap<String, Seen>) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    for edge in mesh.workloads.values().flat_map(|workload| &workload.edges) {
        let gateway = &edge.at().object;
        for (chain, tls) in edge.chains.iter().filter_map(|chain| Some((chain, chain.tls.as_ref()?))) {
            let at = listener(objects, gateway, &tls.listener);
            let certificate = &tls.certificate;
            match seen.get(&certificate.secret()) {
                Some(Seen::Bad { member, reason }) => {
                    let at = certificate.source.member(member);
                    found.insert(Finding::error(Code::BadCertificate, &certificate.origin.object, at, reason));
                }
                Some(Seen::Good(shown)) => {
                    if let Some(ending) = &shown.ending {
                        let at = certificate.source.member("cert");
                        found.insert(Finding::warning(Code::BadCertificate, &certificate.origin.object, at, ending));
                    }
                    for host in chain.names.iter().filter(|host| !shown.is_for(host)) {
                        let message = format!("the certificate {} is not for {host}", certificate.name);
                        let mut finding =
                            Finding::warning(Code::BadCertificate, gateway, format!("{at}/tls/certificate"), message);
                        finding.hint =
                            Some(format!("it is for {}", Vec::from_iter(shown.names.iter().cloned()).join(", ")));
                        found.insert(finding);
                    }
                }
                None => {}
            }
        }
    }
    let placed = |finding: Finding| {
        let object = finding.object.as_ref().and_then(|key| objects.get(key));
        let location = object.and_then(|object| object.location(&finding.pointer));
        finding.at(location)
    };
    found.into_iter().map(placed).collect()
}

/// Where a listener of a gateway is written.
fn listener(objects: &Objects, gateway: &ObjectKey, name: &str) -> String {
    let index = objects.get(gateway).and_then(|object| match &object.spec {
        Spec::EdgeGateway(spec) => spec.listeners.iter().position(|listener| listener.name.as_str() == name),
        _ => None,
    });
    format!("/spec/listeners/{}", index.unwrap_or_default())
}

// === impl Shown ===

impl Shown {
    /// Whether clients that ask for `host` take it.
    fn is_for(&self, host: &HostMatch) -> bool {
        let one_label = |domain: &str| self.names.contains(&format!("*.{domain}"));
        match host {
            HostMatch::Any => true,
            HostMatch::Under(domain) => one_label(domain),
            HostMatch::Exact(host) => {
                self.names.contains(host) || host.split_once('.').is_some_and(|(_, domain)| one_label(domain))
            }
        }
    }
}

// === impl CertificateSource ===

impl CertificateSource {
    /// Where a member of it is written.
    fn member(&self, name: &str) -> String {
        match self {
            Self::File { .. } => format!("/spec/source/file/{name}"),
            Self::Inline { .. } => format!("/spec/source/inline/{name}"),
            Self::Issued(_) => "/spec/source/issued".to_owned(),
        }
    }
}

// === impl Certificate ===

impl Certificate {
    /// What the secret is called: `certificate/front/shop-tls`.
    pub fn secret(&self) -> String {
        format!("certificate/{}", self.name)
    }
}
