//! TLSCertificates: where they come from, and looking one up by name.
//!
//! Owns: what a TLSCertificate says by itself. May use: `rules`, `facts`. Never: reads a file.

use std::collections::BTreeSet;

use super::claims::Unclaimed;
use super::facts::Fact;
use super::hosts::host;
use super::report::Report;
use super::stage::{Change, Stage};
use crate::finding::Code;
use crate::mesh::{Certificate, CertificateSource, HostMatch};
use crate::name::QualifiedName;
use crate::rules::certificate::{CertificateSpec, SourceSpec};
use crate::suggest;

/// The certificates that may be referred to.
pub(super) type Certificates = Stage<Certificate, Unclaimed>;

// === impl Certificates ===

impl Certificates {
    /// The certificate `name`, which is of the object's own namespace; a finding at `pointer` when there is none.
    pub(super) fn certificate(
        &self,
        name: &QualifiedName,
        pointer: &str,
        report: &mut Report<'_>,
    ) -> Option<std::sync::Arc<Certificate>> {
        let home = &report.object.key.name.namespace;
        if name.namespace != *home {
            let message = format!("a gateway of {home} cannot show the certificate {name}");
            let hint = format!("write the TLSCertificate in the namespace {home}");
            report.error(Code::Foreign, pointer, message).hint = Some(hint);
            return None;
        }
        report.reads.push(Fact::Certificate(name.clone()));
        let found = self.get(name);
        if found.is_none() {
            report.reads.push(Fact::Certificates(name.namespace.clone()));
            let choices: Vec<String> = self.within(&name.namespace).map(|(near, _)| near.name.to_string()).collect();
            let finding = report.error(Code::NotFound, pointer, format!("there is no certificate {name}"));
            finding.hint = suggest::did_you_mean(name.name.as_str(), &choices);
            finding.choices = choices;
        }
        found.cloned()
    }
}

/// What those who refer to certificates may have read otherwise before `change`.
pub(super) fn facts(change: &Change<Certificate>) -> Vec<Fact> {
    let mut facts = Vec::new();
    if change.is_new() {
        facts.push(Fact::Certificate(change.name.clone()));
    }
    if change.before.is_some() != change.after.is_some() {
        facts.push(Fact::Certificates(change.name.namespace.clone()));
    }
    facts
}

/// What `spec` says.
pub(super) fn certificate(spec: &CertificateSpec, report: &mut Report<'_>) -> Certificate {
    let source = match &spec.source {
        SourceSpec::File(files) => {
            path(&files.cert, "/spec/source/file/cert", report);
            path(&files.key, "/spec/source/file/key", report);
            CertificateSource::File { cert: files.cert.clone(), key: files.key.clone() }
        }
        SourceSpec::Inline(texts) => {
            if !texts.cert.contains("-----BEGIN CERTIFICATE-----") {
                report.error(Code::InvalidValue, "/spec/source/inline/cert", "the text holds no certificate as PEM");
            }
            if !texts.key.reveal().contains("PRIVATE KEY-----") {
                report.error(Code::InvalidValue, "/spec/source/inline/key", "the text holds no private key as PEM");
            }
            CertificateSource::Inline { cert: texts.cert.as_str().into(), key: texts.key.clone() }
        }
        SourceSpec::Issued(issued) => {
            if issued.dns_names.is_empty() {
                report.error(
                    Code::InvalidValue,
                    "/spec/source/issued/dnsNames",
                    "a certificate is for one host at least",
                );
            }
            let mut names = BTreeSet::new();
            for (n, text) in issued.dns_names.iter().enumerate() {
                let at = format!("/spec/source/issued/dnsNames/{n}");
                match host(text, &at, report) {
                    Some(HostMatch::Any) => {
                        report.error(Code::InvalidValue, &at, "a certificate names its hosts: * is no name");
                    }
                    Some(name) => _ = names.insert(name.to_string()),
                    None => {}
                }
            }
            CertificateSource::Issued(names)
        }
    };
    Certificate { name: report.object.key.name.clone(), origin: report.origin(""), source }
}

/// Relative to what, nobody could tell.
fn path(path: &str, at: &str, report: &mut Report<'_>) {
    if !path.starts_with('/') {
        // Somebody may have written a key where its file belongs.
        let shown = if path.contains("-----") { "the text".to_owned() } else { format!("{path:?}") };
        report.error(Code::InvalidValue, at, format!("{shown} is no absolute path"));
    }
}
