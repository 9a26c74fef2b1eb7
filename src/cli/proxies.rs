//! `chancery proxies`: who is connected, and whether each has what it should have.
//!
//! Owns: the columns. May use: the admin client, tables. Never: judges; the API says who is in sync.

use std::process::ExitCode;
use std::time::SystemTime;

use super::client::Ask;
use super::nacks::rules;
use super::table;
use crate::admin::view::{KnownBy, Proxies, Proxy, Type};

const TYPES: [&str; 5] = ["CDS", "EDS", "LDS", "RDS", "SDS"];

/// Lists the connected proxies; exit code 1 unless every one is in sync.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if every connected proxy is in sync, 1 if one is not, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let table = |answer: &Proxies, wide: bool| render(answer, wide, SystemTime::now());
    args.ask.show("/api/v1/proxies", table, |answer: &Proxies| answer.in_sync == answer.total).await
}

fn render(answer: &Proxies, wide: bool, now: SystemTime) -> String {
    if answer.proxies.is_empty() {
        return "no proxy is connected; `chancery bootstrap --workload NS/NAME` makes the configuration of one\n"
            .to_owned();
    }
    let header = ["NODE", "WORKLOAD", "SYNC", "CDS", "EDS", "LDS", "RDS", "SDS", "ENVOY", "NOTE"];
    let cells = |proxy: &Proxy| {
        let [cds, eds, lds, rds, sds] = TYPES.map(|of| proxy.types.get(of).map_or_else(none, |of| version(of, wide)));
        let (node, workload) = (proxy.node.clone(), proxy.workload.clone());
        let envoy = if proxy.envoy.is_empty() { none() } else { proxy.envoy.clone() };
        [node, workload, sync(proxy, now), cds, eds, lds, rds, sds, envoy, note(proxy, wide)]
    };
    if !wide {
        return table::render(header, answer.proxies.iter().map(cells));
    }
    let [a, b, c, d, e, f, g, h, i, j] = header;
    let wide_header = [a, b, "ADDRESS", "PROTOCOL", "CERT", c, d, e, f, g, h, i, j];
    let rows = answer.proxies.iter().map(|proxy| {
        let [a, b, c, d, e, f, g, h, i, j] = cells(proxy);
        let certificate = proxy.certificate.as_ref().map_or_else(none, |held| held.not_after.clone());
        [a, b, proxy.address.clone(), proxy.protocol.clone(), certificate, c, d, e, f, g, h, i, j]
    });
    table::render(wide_header, rows)
}

/// `ok (3s)` since the stream began, `REJECTED (5s)` since the first refusal, or `pending`.
fn sync(proxy: &Proxy, now: SystemTime) -> String {
    let first = proxy.types.values().filter_map(|of| of.nack.as_ref()).map(|nack| &nack.since).min();
    match first {
        Some(since) => format!("REJECTED ({})", table::age(since, now)),
        None if proxy.in_sync => format!("ok ({})", table::age(&proxy.connected, now)),
        None => "pending".to_owned(),
    }
}

/// What the proxy has accepted, `3f0c9a1e`; while that is not what it was sent, `3f0c9a1e>77aa01bc`;
/// before the first, `>77aa01bc`.
fn version(of: &Type, wide: bool) -> String {
    let short = |version: &Option<String>| match version {
        Some(version) if wide => version.clone(),
        Some(version) => version.chars().take(8).collect(),
        None => none(),
    };
    match &of.acked {
        _ if of.sent == of.acked => short(&of.acked),
        Some(_) => format!("{}>{}", short(&of.acked), short(&of.sent)),
        None => format!(">{}", short(&of.sent)),
    }
}

fn note(proxy: &Proxy, wide: bool) -> String {
    let known = match proxy.known_by {
        KnownBy::Certificate => None,
        KnownBy::NodeId => Some("plaintext: known by its node id alone".to_owned()),
    };
    let refused = proxy.types.iter().filter_map(|(kind, of)| {
        let nack = of.nack.as_ref()?;
        let resources = nack.resources.join(", ");
        let what = if resources.is_empty() { kind.clone() } else { format!("{kind} {resources}") };
        Some(format!("{what}: {}{}", table::cut(&nack.reason, 60, wide), rules(&nack.rules, " <- ")))
    });
    refused.chain(known).collect::<Vec<_>>().join("; ")
}

fn none() -> String {
    table::NONE.to_owned()
}

#[cfg(test)]
mod tests;
