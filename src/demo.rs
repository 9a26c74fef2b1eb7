//! Demo: a moving mesh on loopback, in one command.
//!
//! Owns: the control plane, the stock Envoys and the applications of a run, from start to end. May use: the
//! `chancery` binary as a user would (`serve`, `bootstrap`, the admin address), `envoy`, `ports`, `task`. Never:
//! reaches into the control plane from inside, or leaves a process or a temporary directory behind.
//!
//! ```text
//! load loop ──▶ Envoy web ══mTLS══▶ Envoy cart-v1 ──▶ cart v1 ──▶ Envoy cart-v1 ══mTLS══▶ Envoy store ──▶ store
//!                          ╚═mTLS══▶ Envoy cart-v2 ──▶ cart v2 ──▶ Envoy cart-v2 ══════════════╝
//! ```

mod cart;
mod control_plane;
mod http;
mod layout;
mod load;
mod mesh;
mod process;
mod store;
mod summary;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::Environment;
use crate::demo::mesh::Mesh;
use crate::demo::view::{Output, View};
use crate::envoy::{EnvoyBinary, EnvoyRequest, Found, locate};
use crate::task::Tasks;

pub use summary::Summary;

/// The stock Envoys of a run: web, cart-v1, cart-v2, store.
const PROXIES: u64 = 4;
/// The versions of the cart.
const VERSIONS: [&str; 2] = ["v1", "v2"];
/// How long the mesh may take from the first process to the first request of every version.
const START: Duration = Duration::from_secs(60);
/// How long the last reports of the proxies may take.
const LAST_REPORTS: Duration = Duration::from_secs(5);
/// How long everything may take to end, after the children's own grace.
const END: Duration = Duration::from_secs(10);
/// How often the proxies report, and the view is renewed.
const SECOND: Duration = Duration::from_secs(1);
/// How often a condition is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(25);

/// What the user wants to see.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Envoy to use, if the user names one.
    pub envoy: Option<PathBuf>,
    /// How long to run; without it until the user stops it.
    pub duration: Option<Duration>,
    /// Whether standard output is kept for the summary.
    pub quiet_stdout: bool,
    /// Where to put rules, data and logs; a temporary directory without it.
    pub directory: Option<PathBuf>,
    /// Whether a temporary directory stays.
    pub keep: bool,
    /// Requests a second.
    pub rate: u32,
    /// The `chancery` binary.
    pub chancery: PathBuf,
}

/// Runs the demo to its end; `None` if it was stopped before its mesh was up.
pub async fn run(options: &Options, environment: &Environment) -> anyhow::Result<Option<Summary>> {
    let mut tasks = Tasks::default();
    let stop = stop_on_signal(&mut tasks)?;
    let mut view = View::new(if options.quiet_stdout { Output::Stderr } else { Output::Stdout });
    let request = EnvoyRequest { explicit: options.envoy.clone(), version: None };
    let envoy = tokio::select! {
        located = locate(&request, environment) => located?,
        () = stop.cancelled() => return Ok(None),
    };
    view.say(&format!("envoy {}: {}{}", envoy.version, envoy.path.display(), origin(&envoy)));
    run_mesh(options, &envoy, tasks, &stop, &mut view).await
}

async fn run_mesh(
    options: &Options,
    envoy: &EnvoyBinary,
    mut tasks: Tasks,
    stop: &CancellationToken,
    view: &mut View,
) -> anyhow::Result<Option<Summary>> {
    // Its directory goes when it does, and that is after the last process has ended.
    let mut mesh = Mesh::prepare(options)?;
    view.say(&format!("starting the control plane, {PROXIES} envoys and their applications"));
    let started = tokio::select! {
        started = tokio::time::timeout(START, mesh.start(envoy, &mut tasks)) => Some(started),
        () = stop.cancelled() => None,
    };
    let started = match started {
        Some(Ok(started)) => started.map(|()| true),
        Some(Err(_elapsed)) => Err(anyhow!("the mesh did not start within {START:?}{}", mesh.explain())),
        None => Ok(false),
    };
    let (running, mut outcome) = match started {
        Ok(running) => (running, Ok(None)),
        Err(error) => (false, Err(error)),
    };
    let session = async {
        if running {
            outcome = session(options, &mesh, view, stop).await.map(Some);
        }
    };
    let ended = tasks.run(session, process::GRACE + END).await;
    // Why it came to nothing says more than how what had been started ended.
    let summary = outcome?;
    ended?;
    Ok(summary)
}

/// Load, view, and the figures of the end.
async fn session(options: &Options, mesh: &Mesh, view: &mut View, stop: &CancellationToken) -> anyhow::Result<Summary> {
    let first = mesh.first_request().map_or_else(String::new, |first| format!(" after {} ms", first.as_millis()));
    view.say(&format!("the first request came through{first}"));
    view.say(&format!("the rules are in {}", mesh.layout.rules().display()));
    view.say(&format!("ask web yourself: curl http://{}/", mesh.web()?));
    view.say("edit a weight in traffic.yaml, or the mode in security.yaml (strict, permissive), and watch");
    view.say("mode disabled: callers have no identity, so that the access rules refuse them all: 403 is expected");
    view.say("Ctrl-C ends everything");
    view.begin();
    let done = CancellationToken::new();
    let until = async {
        match options.duration {
            Some(duration) => tokio::select! { () = tokio::time::sleep(duration) => {}, () = stop.cancelled() => {} },
            None => stop.cancelled().await,
        }
        done.cancel();
    };
    let show = async {
        let mut ticks = interval(SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => view.show(mesh.load.counts(), mesh.control_plane.status().await),
                () = done.cancelled() => return view.end(),
            }
        }
    };
    tokio::join!(until, show, mesh.load.run(options.rate, done.clone()));
    mesh.load.close();
    finish(mesh, stop).await
}

/// Waits for what the proxies have still to report, unless the user wants an end, and adds up.
async fn finish(mesh: &Mesh, stop: &CancellationToken) -> anyhow::Result<Summary> {
    let deadline = Instant::now() + LAST_REPORTS;
    let (counts, status, edges_match) = loop {
        let status = mesh.control_plane.status().await?;
        // Requests of others that were under way may still be answered.
        let counts = mesh.load.counts();
        let edges_match = summary::edges_match(&counts, &status);
        let complete = status.in_sync == PROXIES && edges_match;
        if complete || Instant::now() > deadline {
            break (counts, status, Some(edges_match));
        }
        if stop.is_cancelled() {
            break (counts, status, None);
        }
        tokio::time::sleep(LOOK).await;
    };
    let first = mesh.first_request().and_then(|first| u64::try_from(first.as_millis()).ok());
    Ok(Summary::new(&counts, &status, first, mesh.control_plane_peak_mib()?, edges_match))
}

/// Cancelled at the first SIGINT, SIGTERM or SIGHUP: a terminal that is closed ends the run as Ctrl-C does.
fn stop_on_signal(tasks: &mut Tasks) -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let (signalled, end) = (CancellationToken::new(), tasks.stop_token());
    let stop = signalled.clone();
    tasks.spawn("signals", async move {
        tokio::select! {
            _ = interrupt.recv() => signalled.cancel(),
            _ = terminate.recv() => signalled.cancel(),
            _ = hangup.recv() => signalled.cancel(),
            () = end.cancelled() => {}
        }
        end.cancelled().await;
        Ok(())
    });
    Ok(stop)
}

fn origin(envoy: &EnvoyBinary) -> &'static str {
    match envoy.found {
        Found::Explicit => "",
        Found::EnvoyBin => " (ENVOY_BIN)",
        Found::Path => " (on PATH)",
        Found::Cache => " (cached)",
        Found::Obtained => " (obtained just now)",
    }
}

#[cfg(test)]
mod tests;
