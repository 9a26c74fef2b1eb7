//! `chancery validate`: the findings of rules, without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use translators::finding::{Finding, Severity};
use translators::mesh::{self, resolve};

use crate::clock::Clock;
use crate::materials;
use crate::sources::files;

/// Arguments of `chancery validate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each finding is one line: file:line:column: CODE severity object pointer: message; choices; hint

Examples:
  chancery validate -f rules/
  chancery validate -f rules/ --fail-on warning
  chancery validate -f shop.yaml -o json")]
pub struct Args {
    /// A directory of rules, or one file
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    file: PathBuf,
    /// The least severity that makes the exit code 1
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Error,
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command: exit 0 when the rules are valid, 1 when they are not.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let state = files::read_once(&args.file)?;
    let mut findings = state.findings.clone();
    let resolution = resolve::resolve(&state.objects);
    findings.append(&mut resolution.all_findings());
    let seen = materials::seen(&resolution.mesh, Clock::System.now());
    findings.append(&mut mesh::findings(&resolution.mesh, &state.objects, &seen));
    findings.sort();
    match args.output {
        Output::Text => findings.iter().for_each(|finding| println!("{finding}")),
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
    }
    let errors = count(&findings, Severity::Error);
    let warnings = count(&findings, Severity::Warning);
    eprintln!("{} objects, {errors} errors, {warnings} warnings", state.objects.len());
    let failed = errors > 0 || (args.fail_on == FailOn::Warning && warnings > 0);
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}
