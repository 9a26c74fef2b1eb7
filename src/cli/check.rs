//! `chancery check`: what may be wrong with a running control plane and its proxies, and what to do.
//!
//! Owns: how the checks are printed, and which outcome is a failure. May use: the admin client. Never: makes a check; the
//! control plane does.

use std::process::ExitCode;

use super::client::{Server, json};
use crate::admin::view::{Check, Checks, Outcome};
use crate::escape::escaped;

/// Checks the control plane and its proxies; exit code 1 if a check fails.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 if no check fails, 1 if one does, 2 if nobody could tell.")]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// What counts as a failure.
    #[arg(long, value_enum, default_value_t = FailOn::Failure, value_name = "OUTCOME")]
    fail_on: FailOn,
    /// How to show the checks.
    #[arg(short, long, value_enum, default_value_t = Output::Full)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Checks that fail.
    Failure,
    /// Those that warn too.
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Every check.
    Full,
    /// Those with which something is wrong.
    Short,
    /// The API's answer.
    Json,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let write = |answer: &Checks| match args.output {
        Output::Full => Ok(render(answer, false)),
        Output::Short => Ok(render(answer, true)),
        Output::Json => json(answer),
    };
    args.server.show("/api/v1/_check", write, |answer: &Checks| is_well(answer, args.fail_on)).await
}

fn is_well(answer: &Checks, fail_on: FailOn) -> bool {
    answer.failures == 0 && (fail_on == FailOn::Failure || answer.warnings == 0)
}

/// A paragraph for each group, and how many checks there were.
fn render(answer: &Checks, short: bool) -> String {
    let shown = answer.checks.iter().filter(|check| !short || check.outcome != Outcome::Ok);
    let width = answer.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    let (mut text, mut group) = (String::new(), "");
    for check in shown {
        if check.group != group {
            group = &check.group;
            text += &format!("{}\n", escaped(group));
        }
        text += &line(check, width);
    }
    let verdict = match (answer.failures, answer.warnings) {
        (0, 0) => "all is well".to_owned(),
        (failures, warnings) => format!("{failures} failed, {warnings} warned"),
    };
    text + &format!("{} checks: {verdict}\n", answer.checks.len())
}

fn line(check: &Check, width: usize) -> String {
    let mark = match check.outcome {
        Outcome::Ok => "ok  ",
        Outcome::Warn => "warn",
        Outcome::Fail => "FAIL",
    };
    let hint = check.hint.iter().map(|hint| format!("        -> {}\n", escaped(hint)));
    format!("  {mark}  {:<width$}  {}\n", escaped(&check.name), escaped(&check.detail)) + &hint.collect::<String>()
}

#[cfg(test)]
mod tests;
