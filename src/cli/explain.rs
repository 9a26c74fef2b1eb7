//! `chancery explain`: what a kind or a field of the rule language means, offline.
//!
//! Owns: how an explanation looks. May use: `translators::explain`. Never: says anything of a field itself.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use translators::explain::{self, Explanation, KindSummary, Presence};
use translators::json::to_yaml;

use super::{client, table};

/// How wide a paragraph is.
const WIDTH: usize = 100;

/// Arguments of `chancery explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Fields of the items of a list are named like those of a mapping; `*` or any name is one of a map. `spec` may be left out.

Examples:
  chancery explain                                  the kinds
  chancery explain TrafficRoute                     a kind, and its fields
  chancery explain TrafficRoute.spec.http.timeout   a field: type, default and who decides about it, an example
  chancery explain trafficpolicy.outbound -o json

Exit code: 0 if there is such a kind and field, 1 if not.")]
pub struct Args {
    /// A kind, or a field of it
    #[arg(value_name = "KIND[.FIELD...]")]
    field: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shown = match args.field.as_deref().map(explain::explain) {
        None => args.output.show(&explain::kinds(), |kinds| self::kinds(kinds))?,
        Some(Ok(explanation)) => args.output.show(&explanation, text)?,
        Some(Err(unknown)) => {
            eprintln!("error: {}", crate::escape::escaped(&unknown.to_string()));
            return Ok(ExitCode::from(1));
        }
    };
    std::io::stdout().write_all(shown.as_bytes()).context("cannot print the explanation")?;
    Ok(ExitCode::SUCCESS)
}

// === impl Output ===

impl Output {
    fn show<T: Serialize>(self, what: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<String> {
        match self {
            Self::Text => Ok(text(what)),
            Self::Json => client::json(what),
            Self::Yaml => client::yaml(what),
        }
    }
}

fn kinds(kinds: &[KindSummary]) -> String {
    table::render(["KIND", "WHAT"], kinds.iter().map(|kind| [kind.kind.to_string(), kind.meaning.clone()]))
}

fn text(shown: &Explanation) -> String {
    let mut out = format!("{}\n\n{}\n", shown.field, wrapped(&shown.meaning, "  "));
    let mut facts = vec![("type", shown.r#type.clone()), ("needed", presence(shown.presence).to_owned())];
    facts.extend(shown.default.iter().map(|default| ("default", default.clone())));
    let from = shown.default_from.join(", then ");
    facts.extend((!from.is_empty()).then_some(("from", from)));
    for (name, fact) in facts {
        let indented = wrapped(&fact, "           ");
        out += &format!("{name:<9}  {}", indented.trim_start());
    }
    if !shown.choices.is_empty() {
        let rows = shown.choices.iter().map(|choice| [choice.value.clone(), choice.meaning.clone()]);
        out += &format!("\n{}", table::render(["VALUE", "MEANS"], rows));
    }
    if !shown.fields.is_empty() {
        let rows = shown.fields.iter().map(|field| {
            [field.name.clone(), presence(field.presence).to_owned(), field.r#type.clone(), field.meaning.clone()]
        });
        out += &format!("\n{}", table::render(["FIELD", "NEEDED", "TYPE", "WHAT"], rows));
    }
    out += "\nexample\n";
    to_yaml(&shown.example).lines().for_each(|line| out += &format!("  {line}\n"));
    out
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Required => "yes",
        Presence::Optional => "no",
        Presence::OneOf => "one of",
    }
}

/// Paragraphs of a width that can be read, each line behind `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > WIDTH {
            out += &format!("{indent}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    out + &format!("{indent}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_explained_as_it_is_defined() {
        let shown = explain::explain("trafficroute.http.timeout").expect("a field");
        assert_eq!(
            text(&shown),
            "TrafficRoute.spec.http.timeout\n\n  How long a request may take as a whole; left out, as policies say. `0s` is without \
             limit, `null`\n  the built-in value.\n\ntype       duration (600ms, 2s, 1m30s, 24h)\nneeded     no\ndefault    as \
             policies say\nfrom       TrafficPolicy.spec.outbound.timeouts.request, then a TrafficPolicy with a wider\n           \
             target (port, service, namespace, mesh), then Mesh.spec.defaults.timeout, then built in: 15s\n\nexample\n  apiVersion: \
             chancery.dev/v1alpha1\n  kind: TrafficRoute\n  metadata:\n    name: cart\n    namespace: shop\n  spec:\n    for:\n      \
             service: cart\n    http:\n    - timeout: 2s\n      to:\n      - service: cart\n"
        );
    }
}
