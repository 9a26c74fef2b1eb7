//! `golden`: has Envoy itself validate every golden case.
//!
//! Owns: the arguments. May use: `conformance::golden`. Never: judges a configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use chancery::config::Environment;
use chancery::envoy::{EnvoyRequest, locate};
use clap::Parser;
use conformance::golden::{Verdicts, validate_all, validate_files, validate_mutated};
use conformance::harness::{EnvoySource, build_image};

/// Validates every golden case with Envoy itself
#[derive(Debug, Parser)]
struct Args {
    /// The Envoy to use [default: as chancery demo finds it]
    #[arg(long, value_name = "PATH", conflicts_with = "envoy_image")]
    envoy: Option<PathBuf>,
    /// Run Envoy in docker from this image; `auto` builds one from the binary that would be used otherwise
    #[arg(long, value_name = "IMAGE")]
    envoy_image: Option<String>,
    /// The version of Envoy to translate for
    #[arg(long, value_name = "VERSION", default_value = "1.40")]
    for_version: String,
    /// Validate so many cases that nobody wrote instead: golden cases whose words have changed places
    #[arg(long, value_name = "COUNT")]
    mutated: Option<u64>,
    /// The first number that such a case is made by; the same number makes the same case
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "mutated")]
    seed: u64,
    /// Validate the texts of rules in the files of this folder instead, such as those that a fuzzer has kept
    #[arg(long, value_name = "FOLDER", conflicts_with = "mutated")]
    texts: Option<PathBuf>,
    /// How many of them at most
    #[arg(long, value_name = "COUNT", default_value_t = 300, requires = "texts")]
    at_most: usize,
    /// Only cases whose name contains this
    #[arg(value_name = "NAME")]
    filter: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let source = source(&args).await?;
    let verdicts = match (args.mutated, &args.texts) {
        (Some(count), _) => validate_mutated(&source, &args.for_version, args.seed, count).await?,
        (None, Some(folder)) => validate_files(&source, &args.for_version, folder, args.at_most).await?,
        (None, None) => validate_all(&source, &args.for_version, args.filter.as_deref().unwrap_or_default()).await?,
    };
    let Verdicts { passed, failed } = verdicts;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn source(args: &Args) -> anyhow::Result<EnvoySource> {
    let request = EnvoyRequest { explicit: args.envoy.clone(), version: None };
    match args.envoy_image.as_deref() {
        Some("auto") => {
            let envoy = locate(&request, &Environment::read()).await?;
            Ok(EnvoySource::Docker(build_image(&envoy).await?))
        }
        Some(image) => Ok(EnvoySource::Docker(image.to_owned())),
        None if args.envoy.is_none() => EnvoySource::from_environment().await,
        None => Ok(EnvoySource::Native(locate(&request, &Environment::read()).await?.path)),
    }
}
