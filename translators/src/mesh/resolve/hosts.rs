//! Hosts: reading the patterns of them.
//!
//! Owns: what a valid pattern is. May use: `mesh`. Never: knows what it is for.

use std::net::Ipv6Addr;

use super::report::Report;
use crate::finding::Code;
use crate::mesh::HostMatch;

/// The hosts that `text`, written at `at`, stands for.
pub(super) fn host(text: &str, at: &str, report: &mut Report<'_>) -> Option<HostMatch> {
    let lower = text.to_ascii_lowercase();
    let found = match lower.strip_prefix("*.") {
        _ if lower == "*" => Some(HostMatch::Any),
        Some(under) => is_domain(under).then(|| HostMatch::Under(under.to_owned())),
        None => (is_domain(&lower) || is_bracketed(&lower)).then(|| HostMatch::Exact(lower.clone())),
    };
    if found.is_none() {
        let message = format!("{text:?} is no host: write example.com, *.example.com, an address or *");
        let finding = report.error(Code::InvalidValue, at, message);
        if text.parse::<Ipv6Addr>().is_ok() {
            finding.hint = Some(format!("write [{text}]"));
        } else if let Some((host, _)) = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            finding.hint = Some(format!("a host has no port: write {host}"));
        }
    }
    found
}

fn is_domain(text: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c));
    text.split('.').all(label)
}

/// An IPv6 address, as it stands in a URL.
fn is_bracketed(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}
