//! `chancery logs`: what proxies have logged to the control plane.
//!
//! Owns: the columns. May use: the admin client, tables. Never: keeps an entry.

use std::process::ExitCode;

use super::client::Ask;
use super::table;
use crate::admin::view::{Log, Logs};

/// Lists the newest requests that proxies have logged, the newest first: those of TelemetryPolicies with `to: control-plane`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if the control plane answered, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.ask.show("/api/v1/logs", render, |_: &Logs| true).await
}

fn render(answer: &Logs, wide: bool) -> String {
    if answer.logs.is_empty() {
        return "no proxy has logged a request; a TelemetryPolicy with `accessLogs: [{to: control-plane}]` makes them\n"
            .to_owned();
    }
    let cells = |log: &Log| {
        let status = if log.status == 0 { table::NONE.to_owned() } else { log.status.to_string() };
        let took = format!("{:.1}ms", log.duration_ms);
        [
            log.time.clone(),
            log.node.clone(),
            log.listener.clone(),
            table::or_none(&log.method),
            table::or_none(&log.path),
            status,
            took,
        ]
    };
    let header = ["TIME", "NODE", "LISTENER", "METHOD", "PATH", "STATUS", "TOOK"];
    if !wide {
        return table::render(header, answer.logs.iter().map(cells));
    }
    let [a, b, c, d, e, f, g] = header;
    let rows = answer.logs.iter().map(|log| {
        let [a, b, c, d, e, f, g] = cells(log);
        let [host, caller, source, upstream, details] =
            [&log.host, &log.caller, &log.source, &log.upstream, &log.details].map(|text| table::or_none(text));
        [a, b, c, d, host, e, f, g, caller, source, upstream, details]
    });
    table::render([a, b, c, d, "HOST", e, f, g, "CALLER", "SOURCE", "UPSTREAM", "DETAILS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_row() {
        let log = Log {
            time: "2026-01-01T00:00:00Z".into(),
            node: "cart-a".into(),
            workload: Some("shop/cart".into()),
            listener: "in/shop/cart/http".into(),
            method: "GET".into(),
            host: "cart".into(),
            path: "/a".into(),
            status: 503,
            request_id: "r".into(),
            details: "via_upstream".into(),
            duration_ms: 1.25,
            caller: String::new(),
            source: "127.0.0.1:1".into(),
            upstream: "127.0.0.1:2".into(),
        };
        let answer = Logs { logs: vec![log], received: 1 };
        let narrow = render(&answer, false);
        let row = narrow.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["2026-01-01T00:00:00Z", "cart-a", "in/shop/cart/http", "GET", "/a", "503", "1.2ms"]);
        assert!(render(&answer, true).contains("via_upstream"));
        assert!(render(&Logs { logs: Vec::new(), received: 0 }, false).contains("no proxy has logged"));
    }
}
