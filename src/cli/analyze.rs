//! `chancery analyze`: every finding, of rules in files or of a running mesh.
//!
//! Owns: which findings are shown, and when the exit code is 1. May use: `validate` for rules in files, the admin client.
//! Never: finds anything itself.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::client::Ask;
use super::validate::{self, FailOn};
use crate::admin;
use crate::admin::view::Findings;
use crate::escape::escaped;

/// Arguments of `chancery analyze`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
With -f: what `chancery validate` says of these files. Without: what is wrong with the rules that the control plane runs on,
and what only a running mesh shows: callers in plaintext where mTLS is strict (MX0406), namespaces that no AccessPolicy covers
(MX0408), objects of which no connected proxy has anything (MX0505), services that nobody calls (MX0506). While no proxy is connected, MX0505 is not looked for.

Each finding is one line, in the order of files and lines:
file:line:column: CODE severity object pointer: message; choices; hint

Examples:
  chancery analyze
  chancery analyze --fail-on warning --suppress MX0506
  chancery analyze -f rules/ -o json
  curl http://127.0.0.1:18080/api/v1/_analyze

Exit code: 0 if no finding is as bad as --fail-on says, 1 if one is, 2 if nobody could tell.")]
pub struct Args {
    /// A directory of rules, or one file, instead of a control plane
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    file: Option<PathBuf>,
    /// The least severity that makes the exit code 1
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// Findings that are not shown and do not count, by their code
    #[arg(long, value_name = "CODE")]
    suppress: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let write = |answer: &Findings| args.ask.output.write(&args.shown(answer), |shown, _| render(shown));
    let verdict = |answer: &Findings| {
        let count = |severity| args.shown(answer).findings.iter().filter(|one| one.severity == severity).count();
        !args.fail_on.fails(count("error"), count("warning"))
    };
    let Some(file) = &args.file else { return args.ask.server.show("/api/v1/_analyze", write, verdict).await };
    let (_, findings) = validate::findings(file)?;
    let answer = Findings { findings: findings.iter().map(admin::finding).collect() };
    std::io::stdout().write_all(write(&answer)?.as_bytes()).context("cannot print the findings")?;
    Ok(if verdict(&answer) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

// === impl Args ===

impl Args {
    fn shown(&self, answer: &Findings) -> Findings {
        let wanted = |code: &str| !self.suppress.iter().any(|suppressed| suppressed.eq_ignore_ascii_case(code));
        Findings { findings: answer.findings.iter().filter(|finding| wanted(&finding.code)).cloned().collect() }
    }
}

fn render(answer: &Findings) -> String {
    if answer.findings.is_empty() {
        return "nothing is wrong with the rules\n".to_owned();
    }
    answer.findings.iter().map(|finding| escaped(&finding.text).into_owned() + "\n").collect()
}
