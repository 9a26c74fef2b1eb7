//! `chancery edges`: who calls what, how often, how well, and over what.
//!
//! Owns: the columns. May use: the admin client, tables. Never: counts.

use std::process::ExitCode;

use super::client::Ask;
use super::table;
use crate::admin::view::{Edge, Edges};

/// Lists who calls what, as the proxies report it.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if the control plane answered, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.ask.show("/api/v1/edges", render, |_: &Edges| true).await
}

fn render(answer: &Edges, wide: bool) -> String {
    if answer.edges.is_empty() {
        return "no proxy has reported a request\n".to_owned();
    }
    let cells = |edge: &Edge| {
        let version = if edge.version.is_empty() { table::NONE.to_owned() } else { edge.version.clone() };
        let (success, mtls) = (table::per_cent(edge.success_rate), table::per_cent(edge.mtls_share));
        [edge.caller.clone(), edge.service.clone(), version, edge.requests.to_string(), success, mtls]
    };
    let header = ["CALLER", "SERVICE", "VERSION", "REQUESTS", "SUCCESS", "MTLS"];
    if !wide {
        return table::render(header, answer.edges.iter().map(cells));
    }
    let [a, b, c, d, e, f] = header;
    let rows = answer.edges.iter().map(|edge| {
        let [a, b, c, d, e, f] = cells(edge);
        let identity = edge.caller_identity.clone().unwrap_or_else(|| table::NONE.to_owned());
        [a, identity, b, edge.port.clone(), edge.protocol.clone(), c, d, e, f, edge.last_seen.clone()]
    });
    table::render([a, "IDENTITY", b, "PORT", "PROTOCOL", c, d, e, f, "LAST SEEN"], rows)
}

#[cfg(test)]
mod tests;
