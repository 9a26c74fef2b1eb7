//! `chancery explain`: what a kind or a field of the rule language means, offline.
//!
//! Owns: how an explanation looks. May use: `translators::explain`. Never: says anything of a field itself.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use translators::explain::{self, Explanation, KindSummary, Presence};
use translators::json::to_yaml;

use super::client::Output;
use super::table;

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
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shown = match args.field.as_deref().map(explain::explain) {
        None => args.output.write(&explain::kinds(), |kinds, _| self::kinds(kinds))?,
        Some(Ok(explanation)) => args.output.write(&explanation, |shown, _| text(shown))?,
        Some(Err(unknown)) => {
            eprintln!("error: {}", crate::escape::escaped(&unknown.to_string()));
            return Ok(ExitCode::from(1));
        }
    };
    std::io::stdout().write_all(shown.as_bytes()).context("cannot print the explanation")?;
    Ok(ExitCode::SUCCESS)
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
            "\
TrafficRoute.spec.http.timeout

  How long a request may take as a whole; left out, as policies say. `0s` is without limit, `null`
  the built-in value.

type       duration (600ms, 2s, 1m30s, 24h)
needed     no
default    as policies say
from       TrafficPolicy.spec.outbound.timeouts.request, then a TrafficPolicy with a wider target
           (route, port, service, namespace, mesh), then Mesh.spec.defaults.timeout, then built in:
           15s

example
  apiVersion: chancery.dev/v1alpha1
  kind: TrafficRoute
  metadata:
    name: cart
    namespace: shop
  spec:
    for:
      service: cart
    http:
    - timeout: 2s
      to:
      - service: cart
"
        );
    }
}
