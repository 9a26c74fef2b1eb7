//! The command line: arguments to a subcommand.
//!
//! Owns: the list of commands, exit codes (0 yes, 1 no, 2 could not tell) and how an error is shown. May
//! use: every module. Never: does a command's work; there is one file for each below.

use std::process::ExitCode;

use std::time::Duration;

use clap::{Parser, Subcommand};
use translators::rules::scalar::Span;

pub mod analyze;
pub mod bootstrap;
pub mod check;
pub mod client;
pub mod demo;
pub mod describe;
pub mod edges;
pub mod explain;
pub mod findings;
pub mod loads;
pub mod logs;
pub mod nacks;
pub mod proxies;
pub mod serve;
pub mod table;
pub mod translate;
pub mod validate;

/// An Envoy-compatible xDS control plane: rules in, mTLS mesh out.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  chancery demo                                    a moving mesh on this machine
  chancery validate -f rules/                      what is wrong with these rules?
  chancery explain TrafficRoute.spec.http          what can be written there?
  chancery describe service shop/cart -f rules/    what holds for it, and which line says so?
  chancery serve --rules rules/ --data-dir data/   the control plane
  chancery bootstrap --workload shop/cart-v1 --data-dir data/ > envoy.yaml
  chancery analyze                                 what do the rules and the running mesh not agree about?
  chancery check                                   is anything wrong, and what is to be done?
  chancery proxies                                 who is connected, and in sync?";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a moving mesh on loopback: control plane, stock Envoys, applications and load
    Demo(demo::Args),
    /// Run the control plane
    Serve(serve::Args),
    /// Print a complete Envoy bootstrap with a credential of its own
    Bootstrap(bootstrap::Args),
    /// Print, offline, what the proxies of a workload or an EnvoySnapshot would get
    Translate(translate::Args),
    /// List the findings of rules; exit 1 if there are errors
    Validate(validate::Args),
    /// List every finding, of rules in files or of a running mesh
    Analyze(analyze::Args),
    /// Explain a kind or a field of the rule language: type, meaning, default, example
    Explain(explain::Args),
    /// Describe what holds for a service or a workload, each value with the line that it comes from
    Describe(describe::Args),
    /// Check the control plane and its proxies: what may be wrong, and what to do
    Check(check::Args),
    /// List the connected proxies and whether they are in sync
    Proxies(proxies::Args),
    /// List what proxies have refused, and the rule behind it
    Nacks(nacks::Args),
    /// List who calls what: requests, success rate, share over mTLS
    Edges(edges::Args),
    /// List what proxies have sent to which cluster, by their load reports
    Loads(loads::Args),
    /// List what proxies have logged to the control plane, as TelemetryPolicies ask them to
    Logs(logs::Args),
    /// List the findings of a running control plane
    Findings(findings::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    let result = runtime.block_on(run(command));
    // Blocking work that is still under way must not hold the process.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// Reads a duration as the rule language writes it: `600ms`, `1m30s`, `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse().map(|Span(duration)| duration).map_err(|error| format!("{error}"))
}

/// Reads a version of Envoy: `1.40`.
fn envoy_version(text: &str) -> Result<(u32, u32), String> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err("a version of Envoy is MAJOR.MINOR, such as 1.40".to_owned()),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Bootstrap(args) => bootstrap::run(args).await,
        Command::Translate(args) => translate::run(args).await,
        Command::Validate(args) => validate::run(args).await,
        Command::Analyze(args) => analyze::run(args).await,
        Command::Describe(args) => describe::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Proxies(args) => proxies::run(args).await,
        Command::Nacks(args) => nacks::run(args).await,
        Command::Edges(args) => edges::run(args).await,
        Command::Loads(args) => loads::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Findings(args) => findings::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_each_question_ends_with_its_exit_codes() {
        let help = |name: &str| {
            let mut cli = super::Cli::command();
            let command = cli.find_subcommand_mut(name).expect("a command");
            command.render_long_help().to_string().trim_end().lines().last().unwrap_or_default().to_owned()
        };
        let expected = [
            "Exit code: 0 if no proxy refuses anything, 1 if one does, 2 if nobody could tell.",
            "Exit code: 0 if every connected proxy is in sync, 1 if one is not, 2 if nobody could tell.",
            "Exit code: 0 if no finding is an error, 1 if one is, 2 if nobody could tell.",
            "Exit code: 0 if the control plane answered, 2 if nobody could tell.",
            "Exit code: 0 if the control plane answered, 2 if nobody could tell.",
            "Exit code: 0 if the control plane answered, 2 if nobody could tell.",
            "Exit code: 0 if no check fails, 1 if one does, 2 if nobody could tell.",
            "Exit code: 0 if no finding is as bad as --fail-on says, 1 if one is, 2 if nobody could tell.",
            "Exit code: 0 if it is in force, 2 if it is not or nobody could tell.",
            "Exit code: 0 if there is such a kind and field, 1 if not.",
        ];
        let commands =
            ["nacks", "proxies", "findings", "edges", "loads", "logs", "check", "analyze", "describe", "explain"];
        assert_eq!(commands.map(help), expected);
    }
}
