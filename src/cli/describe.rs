//! `chancery describe`: what holds for a service or a workload, and which line says so.
//!
//! Owns: the question, the columns. May use: the admin client, `admin::effective` for rules without a server, tables.
//! Never: decides what holds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use translators::describe::{self, Subject};
use translators::mesh::resolve;
use translators::name::QualifiedName;

use super::client::Ask;
use super::table;
use crate::admin::effective;
use crate::admin::view::{Effective, EffectiveValue, Rule};
use crate::escape::escaped;
use crate::sources::files;

/// Arguments of `chancery describe`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Every value is shown with the object, the pointer and the line that it comes from, or `built in`. `none` is also without
limit. With -f no control plane is asked, and no proxies are counted.

Examples:
  chancery describe service shop/cart
  chancery describe service shop/cart -f rules/ -o wide
  chancery describe workload front/web -o json
  curl 'http://127.0.0.1:18080/api/v1/_effective?service=shop/cart'

Exit code: 0 if it is in force, 2 if it is not or nobody could tell.")]
pub struct Args {
    /// What is described
    #[arg(value_enum)]
    kind: Kind,
    /// Which one
    #[arg(value_name = "NS/NAME")]
    name: QualifiedName,
    /// A directory of rules, or one file, instead of a control plane
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    file: Option<PathBuf>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A MeshService: modes, access, routes and settings of each port.
    Service,
    /// A Workload: who its proxies are, what they serve and call.
    Workload,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (word, subject) = match args.kind {
        Kind::Service => ("service", Subject::Service(args.name.clone())),
        Kind::Workload => ("workload", Subject::Workload(args.name.clone())),
    };
    let Some(file) = &args.file else {
        return args.ask.show(&format!("/api/v1/_effective?{word}={}", args.name), render, |_: &Effective| true).await;
    };
    let shown = args.ask.output.write(&offline(file, &subject)?, render)?;
    std::io::stdout().write_all(shown.as_bytes()).context("cannot print the description")?;
    Ok(ExitCode::SUCCESS)
}

/// What holds by the rules at `path`.
fn offline(path: &Path, subject: &Subject) -> anyhow::Result<Effective> {
    let objects = files::read_once(path)?.objects;
    let mesh = resolve::resolve(&objects).mesh;
    Ok(effective(&mesh, subject, &|rule| objects.get(&rule.object)?.location(&rule.pointer))?)
}

fn render(answer: &Effective, wide: bool) -> String {
    let mut out = escaped(&from(Some(&answer.subject))).into_owned() + "\n";
    for (workload, connected) in answer.proxies.iter().flatten() {
        let (total, in_sync) = (connected.total, connected.in_sync);
        out += &escaped(&format!("proxies of {workload}: {total} connected, {in_sync} in sync"));
        out.push('\n');
    }
    for section in &answer.sections {
        let row = |value: &EffectiveValue| {
            let shown = describe::shown(&value.value);
            [value.name.clone(), table::cut(&shown, 80, wide), from(value.from.as_ref())]
        };
        let title = escaped(&section.title).to_uppercase();
        out += &format!("\n{}", table::render([&title, "VALUE", "FROM"], section.values.iter().map(row)));
    }
    out
}

/// `TrafficRoute shop/cart /spec/http/0 (rules.yaml:14:3)`.
fn from(rule: Option<&Rule>) -> String {
    let Some(rule) = rule else { return "built in".to_owned() };
    let pointer = if rule.pointer.is_empty() { String::new() } else { format!(" {}", rule.pointer) };
    let place = rule.place.as_ref().map(|place| format!(" ({}:{}:{})", place.file, place.line, place.column));
    format!("{}{pointer}{}", rule.object, place.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_where_each_value_comes_from() {
        let answer: Effective = serde_json::from_value(serde_json::json!({
            "subject": {"object": "MeshService shop/cart", "pointer": "", "file": "a.yaml", "line": 3, "column": 1},
            "sections": [{"title": "port http", "values": [
                {"name": "mtls", "value": "strict", "from": {
                    "object": "MTLSPolicy shop/strict", "pointer": "/spec/mode", "file": "a\u{1b}.yaml", "line": 9, "column": 7,
                }},
                {"name": "retry", "value": {"attempts": 1, "when": ["reset"]}, "from": null},
                {"name": "slowStart", "value": null, "from": null},
            ]}],
            "proxies": {"shop/cart-v1": {"total": 2, "inSync": 1}},
        }))
        .expect("an answer");
        assert_eq!(
            render(&answer, false),
            "\
MeshService shop/cart (a.yaml:3:1)
proxies of shop/cart-v1: 2 connected, 1 in sync

PORT HTTP  VALUE                         FROM
mtls       strict                        MTLSPolicy shop/strict /spec/mode (a\\u{1b}.yaml:9:7)
retry      {attempts: 1, when: [reset]}  built in
slowStart  none                          built in
"
        );
    }
}
