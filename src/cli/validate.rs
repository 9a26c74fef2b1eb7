//! `chancery validate`: the findings of rules, without a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use translators::finding::{Finding, Severity, by_place};
use translators::mesh::{self, resolve};
use translators::xds;

use crate::clock::Clock;
use crate::materials;
use crate::sources::files;

/// Arguments of `chancery validate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each finding is one line: file:line:column: CODE severity object pointer: message; choices; hint
`chancery analyze` says the same of rules, and of a running control plane what only a mesh that runs shows.

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

/// The least severity that makes the exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Errors alone.
    Error,
    /// Warnings too.
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command: exit 0 when the rules are valid, 1 when they are not.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (objects, findings) = findings(&args.file)?;
    match args.output {
        Output::Text => findings.iter().for_each(|finding| println!("{finding}")),
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
    }
    let errors = count(&findings, Severity::Error);
    let warnings = count(&findings, Severity::Warning);
    eprintln!("{objects} objects, {errors} errors, {warnings} warnings");
    Ok(if args.fail_on.fails(errors, warnings) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// How many objects there are at `path`, and what is wrong with them, in the order of files and lines.
pub fn findings(path: &Path) -> anyhow::Result<(usize, Vec<Finding>)> {
    let state = files::read_once(path)?;
    let mut findings = state.findings.clone();
    let resolution = resolve::resolve(&state.objects);
    findings.append(&mut resolution.all_findings());
    let seen = materials::seen(&resolution.mesh, Clock::System.now());
    findings.append(&mut mesh::findings(&resolution.mesh, &state.objects, &seen));
    findings.append(&mut xds::patch_findings(&resolution.mesh, &state.objects));
    findings.sort_by(by_place);
    Ok((state.objects.len(), findings))
}

// === impl FailOn ===

impl FailOn {
    /// Whether so many errors and warnings are too many.
    pub fn fails(self, errors: usize, warnings: usize) -> bool {
        errors > 0 || (self == Self::Warning && warnings > 0)
    }
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}
