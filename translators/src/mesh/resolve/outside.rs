//! Services outside of the mesh: what a MeshService says of them.
//!
//! Owns: endpoints by name, the host of requests, how TLS is begun. May use: `rules`. Never: looks at a second object.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use x509_parser::pem::Pem;

use super::report::Report;
use super::services::DeclaredPort;
use crate::finding::Code;
use crate::mesh::{Authorities, DnsEndpoints, Originate, Outside, Protocol, TlsVersion};
use crate::rules::escaped;
use crate::rules::scalar::Span;
use crate::rules::service::{DnsSpec, Endpoints, ServiceSpec};
use crate::rules::tls::{CaSpec, OriginateSpec};
use crate::suggest;

/// What `spec` says of a service that is not of the mesh; `None` for one that is.
pub(super) fn outside(spec: &ServiceSpec, report: &mut Report<'_>) -> Option<Outside> {
    let is_outside = spec.external == Some(true);
    if let (Some(_), false) = (&spec.tls, is_outside) {
        let message =
            "TLS is begun towards services outside of the mesh alone: within, callers come by mTLS of themselves";
        report.error(Code::InvalidValue, "/spec/tls", message).hint =
            Some("write external: true, or leave it out".to_owned());
    }
    if !is_outside {
        return None;
    }
    for (index, _) in spec.ports.iter().enumerate().filter(|(_, port)| port.protocol == Protocol::Tls) {
        if spec.tls.is_some() {
            let message = "callers begin TLS on this port themselves, and so would their proxies";
            report.error(Code::Conflict, format!("/spec/ports/{index}/protocol"), message).hint =
                Some("write protocol: tcp, or leave tls out".to_owned());
        }
    }
    let hostname = match &spec.endpoints {
        Some(Endpoints::Dns(dns)) => Some(dns.hostname.clone()),
        Some(Endpoints::Static(_)) => None,
        None => {
            let message = "no workload serves a service outside of the mesh: give dns or static";
            report.error(Code::MissingField, "/spec/endpoints", message);
            None
        }
    };
    let sni = spec.tls.as_ref().and_then(|tls| tls.sni.clone());
    let tls = spec.tls.as_ref().and_then(|tls| originate(tls, hostname.as_ref(), report));
    Some(Outside { host: sni.or(hostname), tls })
}

fn originate(written: &OriginateSpec, hostname: Option<&String>, report: &mut Report<'_>) -> Option<Originate> {
    if let Some(sni) = written.sni.as_ref().filter(|sni| !is_hostname(sni)) {
        report.error(Code::InvalidValue, "/spec/tls/sni", format!("{sni:?} is no name of a host"));
    }
    let Some(name) = written.sni.as_ref().or(hostname) else {
        let message = "nothing says which name the server's certificate has: give sni";
        report.error(Code::MissingField, "/spec/tls/sni", message);
        return None;
    };
    let authorities = authorities(written.ca.as_ref().unwrap_or(&CaSpec::System), "/spec/tls/ca", report);
    Some(Originate { name: name.clone(), authorities, oldest: written.min_version.unwrap_or(TlsVersion::V12) })
}

/// Who vouches for certificates, written at `at`.
pub(super) fn authorities(written: &CaSpec, at: &str, report: &mut Report<'_>) -> Authorities {
    match written {
        CaSpec::System => Authorities::System,
        CaSpec::File(path) => {
            if !path.starts_with('/') {
                let message = format!("{path:?} is no absolute path: a proxy knows no other");
                report.error(Code::InvalidValue, format!("{at}/file"), message);
            }
            Authorities::File(path.clone())
        }
        CaSpec::Inline(pem) => {
            if let Err(reason) = certificates(pem) {
                let message = format!("{reason}: write certificates in PEM, -----BEGIN CERTIFICATE----- and so on");
                report.error(Code::InvalidValue, format!("{at}/inline"), message);
            }
            Authorities::Inline(pem.clone())
        }
    }
}

/// What `written` says of the endpoints of `ports`.
pub(super) fn dns(written: &DnsSpec, ports: &[DeclaredPort], report: &mut Report<'_>) -> DnsEndpoints {
    let at = "/spec/endpoints/dns";
    if written.hostname.parse::<std::net::IpAddr>().is_ok() {
        let message = format!("{:?} is an address", written.hostname);
        report.error(Code::InvalidValue, format!("{at}/hostname"), message).hint =
            Some("write endpoints: {static: [{address: ..., port: ...}]}".to_owned());
    } else if !is_hostname(&written.hostname) {
        let message = format!("{:?} is no name of a host", written.hostname);
        report.error(Code::InvalidValue, format!("{at}/hostname"), message);
    }
    if written.refresh.is_some_and(|Span(span)| span < Duration::from_millis(1)) {
        report.error(Code::InvalidValue, format!("{at}/refresh"), "a name is asked for every 1ms at most");
    }
    let known: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    for name in written.ports.keys().filter(|name| !known.contains(&name.as_str())) {
        let pointer = format!("{at}/ports/{}", escaped(name));
        let finding = report.error(Code::NotFound, pointer, format!("the service has no port {name:?}"));
        finding.hint = suggest::did_you_mean(name, &known);
        finding.choices = known.iter().map(|&name| name.to_owned()).collect();
    }
    let number = |port: &DeclaredPort| written.ports.get(&port.name).copied().unwrap_or(port.number);
    let ports: BTreeMap<String, NonZeroU16> = ports.iter().map(|port| (port.name.clone(), number(port))).collect();
    DnsEndpoints {
        hostname: written.hostname.clone(),
        ports: Arc::new(ports),
        mode: written.mode.unwrap_or_default(),
        family: written.family.unwrap_or_default(),
        refresh: written.refresh.map(|Span(span)| span),
    }
}

/// Whether `pem` holds certificates and nothing else; otherwise why not.
fn certificates(pem: &str) -> Result<(), String> {
    let mut count = 0;
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|_| "this is no PEM".to_owned())?;
        if block.label != "CERTIFICATE" {
            return Err(format!("a {} is no certificate", block.label));
        }
        block.parse_x509().map_err(|_| format!("what comes as number {} is no certificate", count + 1))?;
        count += 1;
    }
    if count == 0 { Err("there is no certificate".to_owned()) } else { Ok(()) }
}

/// Whether it is a name that a name server may know: labels of letters, digits, hyphens and underscores.
pub(super) fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}
