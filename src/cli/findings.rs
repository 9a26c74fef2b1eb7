//! `chancery findings`: what is wrong with the rules that the control plane runs on.
//!
//! Owns: the columns. May use: the admin client, tables. Never: checks a rule.

use std::process::ExitCode;

use super::client::Ask;
use super::table;
use crate::admin::view::{Finding, Findings};

/// Lists what is wrong with the rules; exit code 1 if there is an error.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if no finding is an error, 1 if one is, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let verdict = |answer: &Findings| answer.findings.iter().all(|finding| finding.severity != "error");
    args.ask.show("/api/v1/findings", render, verdict).await
}

fn render(answer: &Findings, wide: bool) -> String {
    if answer.findings.is_empty() {
        return "nothing is wrong with the rules\n".to_owned();
    }
    let rows = answer.findings.iter().map(|finding| {
        [
            finding.code.clone(),
            finding.severity.clone(),
            finding.object.clone().unwrap_or_else(|| table::NONE.to_owned()),
            place(finding),
            table::cut(&message(finding), 100, wide),
        ]
    });
    table::render(["CODE", "SEVERITY", "OBJECT", "WHERE", "MESSAGE"], rows)
}

/// `file:line:column`, else the pointer.
fn place(finding: &Finding) -> String {
    match &finding.location {
        Some(place) => format!("{}:{}:{}", place.file, place.line, place.column),
        None if finding.pointer.is_empty() => table::NONE.to_owned(),
        None => finding.pointer.clone(),
    }
}

fn message(finding: &Finding) -> String {
    let mut message = finding.message.clone();
    if !finding.choices.is_empty() {
        message += &format!("; choices: {}", finding.choices.join(", "));
    }
    if let Some(hint) = &finding.hint {
        message += &format!("; {hint}");
    }
    message
}

#[cfg(test)]
mod tests;
