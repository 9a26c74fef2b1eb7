//! `bench`: Chancery beside its peers.
//!
//! Owns: the arguments and the end. May use: `conformance::bench`. Never: fails for being slow.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use conformance::bench::floor::Form;
use conformance::bench::lab::{Lab, Scale, progress};
use conformance::bench::outcome::Outcome;
use conformance::bench::report::{Machine, Report};
use conformance::bench::{floor, naive, workloads};
use tokio::signal::unix::{SignalKind, signal};

/// So many connections and files each process of a full run has at most, with room to spare.
const DESCRIPTORS: u64 = 16_384;

/// Gives memory back after a burst: the peers in this binary are to be no worse off than Chancery.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p conformance --bin bench                      every workload at its full size
  cargo run --release -p conformance --bin bench -- --quick           the same, smaller, within three minutes
  cargo run --release -p conformance --bin bench -- --only W1,W13     two of them
  cargo run --release -p conformance --bin bench -- -o markdown --json bench.json
                                                                      the sections of the README, and everything as JSON

Exit code: 0 if everything could be measured, whatever it came to; 1 if a run is void (a client got wrong, missing or
backward data) or a value could not be had; 2 if the bench could not run; 130 if it was interrupted.";

/// Measures Chancery beside its peers: an ideal fan-out, go-control-plane, a naive tonic server
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Args {
    /// Fewer clients, services and rounds
    #[arg(long)]
    quick: bool,
    /// Only these workloads [default: all]
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = workload)]
    only: Vec<&'static str>,
    /// Rounds of each comparison [default: 5; 3 if quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// The format of the report, on standard output
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Write the report as JSON into this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    peer: Option<Peer>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    /// The sections of the README
    Markdown,
}

/// What the bench starts itself as.
#[derive(Debug, Subcommand)]
enum Peer {
    /// Serve the load assignments of a file as cheaply as can be (the bench starts it)
    #[command(hide = true)]
    ServeFloor {
        file: PathBuf,
        /// With one task for each connection instead of one for each stream
        #[arg(long)]
        of_connections: bool,
    },
    /// Serve the load assignments of a file with a straightforward tonic server (the bench starts it)
    #[command(hide = true)]
    ServeNaive { file: PathBuf },
}

fn workload(id: &str) -> Result<&'static str, String> {
    let known = || workloads::ALL.iter().map(|(id, _)| *id);
    let found = known().find(|known| known.eq_ignore_ascii_case(id));
    found.ok_or_else(|| format!("there are {}", known().collect::<Vec<_>>().join(", ")))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.peer {
        Some(Peer::ServeFloor { file, of_connections }) => {
            let form = if of_connections { Form::Connections } else { Form::Streams };
            floor::run(&file, form).await.map(|()| ExitCode::SUCCESS)
        }
        Some(Peer::ServeNaive { file }) => naive::run(&file).await.map(|()| ExitCode::SUCCESS),
        None => until_interrupted(bench(&args)).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// Runs `bench`; when interrupted, drops it, and with it every process and file that it has.
async fn until_interrupted(bench: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = bench => done,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(130)),
    }
}

async fn bench(args: &Args) -> anyhow::Result<ExitCode> {
    // Our allocator does without them, which servers that are started from here would inherit.
    rustix::thread::disable_transparent_huge_pages(false)?;
    if let Some(descriptors @ ..DESCRIPTORS) = chancery::descriptors::raise().context("the limit of open files")? {
        progress(&format!("no more than {descriptors} files and connections may be open: `ulimit -Hn {DESCRIPTORS}`"));
    }
    let began = Instant::now();
    let mut scale = if args.quick { Scale::quick() } else { Scale::full() };
    if let Some(rounds) = args.rounds.map(usize::from) {
        scale.rounds = rounds;
    }
    // Before anything is measured for nothing.
    let create = |path: &PathBuf| std::fs::File::create(path).with_context(|| path.display().to_string());
    let mut file = args.json.as_ref().map(create).transpose()?;
    let mut lab = Lab::new(scale)?;
    let mut outcomes = BTreeMap::new();
    let mut void = Vec::new();
    for (id, about) in workloads::ALL {
        if !args.only.is_empty() && !args.only.contains(id) {
            continue;
        }
        progress(&format!("{id}: {about} ({:.0} s so far)", began.elapsed().as_secs_f64()));
        match workloads::run(id, &mut lab).await.with_context(|| format!("{id} could not be measured")) {
            Ok(outcome) => {
                outcomes.insert(*id, outcome);
            }
            Err(error) => {
                progress(&format!("{error:#}"));
                // Its targets are missed.
                let outcome = Outcome { what: format!("void: {about}"), ..Outcome::default() };
                outcomes.insert(*id, outcome);
                void.push(format!("{error:#}"));
            }
        }
    }
    let mut report = Report::new(Machine::read().await, scale, began.elapsed().as_secs_f64(), outcomes);
    report.missing.extend(void);
    let json = serde_json::to_string_pretty(&report)?;
    if let (Some(file), Some(path)) = (&mut file, &args.json) {
        file.write_all(format!("{json}\n").as_bytes()).with_context(|| path.display().to_string())?;
    }
    match args.output {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{json}"),
        Format::Markdown => print!("{}", report.markdown()),
    }
    Ok(if report.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
