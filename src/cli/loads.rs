//! `chancery loads`: what proxies have sent to whom, and how that went.
//!
//! Owns: the columns. May use: the admin client, tables. Never: adds up; each row is of one report.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::client::Ask;
use super::table;
use crate::admin::view::{Load, Loads, LocalityLoad};

/// Lists what each proxy has sent to which cluster and locality, as it reported last.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if the control plane answered, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let table = |answer: &Loads, wide: bool| render(answer, wide, SystemTime::now());
    args.ask.show("/api/v1/loads", table, |_: &Loads| true).await
}

/// A row for each locality that was sent a request; `wide` also lists clusters that none was sent.
fn render(answer: &Loads, wide: bool, now: SystemTime) -> String {
    if answer.reporters == 0 {
        return "no proxy reports its load; `load_stats_config` in its bootstrap makes it, as `chancery bootstrap` \
                writes it\n"
            .to_owned();
    }
    let rows: Vec<_> = answer.loads.iter().flat_map(|load| rows(load, wide)).collect();
    if rows.is_empty() {
        return format!("{} proxies report their load; none has sent a request\n", answer.reporters);
    }
    let cells = |load: &Load, of: &LocalityLoad| {
        let numbers = [of.requests, of.errors, of.in_progress, load.dropped].map(|number| number.to_string());
        let [requests, errors, active, dropped] = numbers;
        let over = Duration::try_from_secs_f64(load.seconds).map_or_else(|_| table::NONE.to_owned(), table::span);
        let (node, cluster) = (load.node.clone(), load.cluster.clone());
        [
            node,
            cluster,
            table::or_none(&of.locality),
            requests,
            errors,
            active,
            dropped,
            over,
            table::age(&load.at, now),
        ]
    };
    let header = ["NODE", "CLUSTER", "LOCALITY", "REQUESTS", "ERRORS", "IN PROGRESS", "DROPPED", "IN", "REPORTED"];
    if !wide {
        return table::render(header, rows.iter().map(|(load, of)| cells(load, of)));
    }
    let [a, b, c, d, e, f, g, h, i] = header;
    let rows = rows.iter().map(|(load, of)| {
        let [a, b, c, d, e, f, g, h, i] = cells(load, of);
        let service = if load.service.is_empty() { table::NONE.to_owned() } else { load.service.clone() };
        [a, load.workload.clone(), b, service, c, of.priority.to_string(), d, e, f, g, h, i]
    });
    table::render([a, "WORKLOAD", b, "SERVICE", c, "PRIORITY", d, e, f, g, h, i], rows)
}

fn rows(load: &Load, wide: bool) -> Vec<(&Load, LocalityLoad)> {
    let nothing =
        LocalityLoad { locality: String::new(), priority: 0, requests: 0, successes: 0, errors: 0, in_progress: 0 };
    let idle = load.localities.is_empty() && (wide || load.dropped > 0);
    load.localities.iter().cloned().chain(idle.then_some(nothing)).map(|of| (load, of)).collect()
}

#[cfg(test)]
mod tests;
