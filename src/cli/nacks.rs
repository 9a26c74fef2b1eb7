//! `chancery nacks`: what proxies refuse, why, and the rule that made it.
//!
//! Owns: the columns. May use: the admin client, tables. Never: interprets what a proxy says.

use std::process::ExitCode;

use super::client::Ask;
use super::table;
use crate::admin::view::{Nacks, Rule};

/// Lists what proxies refuse; exit code 1 if there is anything.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if no proxy refuses anything, 1 if one does, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.ask.show("/api/v1/nacks", render, |answer: &Nacks| answer.nacks.is_empty()).await
}

fn render(answer: &Nacks, wide: bool) -> String {
    if answer.nacks.is_empty() {
        return "no proxy refuses anything\n".to_owned();
    }
    let rows = answer.nacks.iter().map(|row| {
        [
            row.nack.since.clone(),
            row.node.clone(),
            row.r#type.clone(),
            table::or_none(&row.nack.resources.join(", ")),
            table::cut(&row.nack.reason, 80, wide),
            table::or_none(&rules(&row.nack.rules, "")),
        ]
    });
    table::render(["TIME", "PROXY", "TYPE", "RESOURCE", "REASON", "RULE"], rows)
}

/// `TrafficRoute shop/cart /spec/http/0 (rules.yaml:14), ...` after `before`; nothing for no rules.
pub(super) fn rules(rules: &[Rule], before: &str) -> String {
    let one = |rule: &Rule| {
        let pointer = if rule.pointer.is_empty() { String::new() } else { format!(" {}", rule.pointer) };
        let place = rule.place.as_ref().map(|place| format!(" ({}:{})", place.file, place.line)).unwrap_or_default();
        format!("{}{pointer}{place}", rule.object)
    };
    if rules.is_empty() {
        return String::new();
    }
    format!("{before}{}", rules.iter().map(one).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
