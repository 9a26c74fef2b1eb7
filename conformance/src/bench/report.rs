//! The report: JSON for machines, a table for people, Markdown for the README.
//!
//! Owns: the shape of each. May use: outcomes and verdicts. Never: measures.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::lab::Scale;
use super::outcome::Outcome;
use super::statistics::Spread;
use super::targets::{Met, Verdict, judge, met};

mod markdown;

/// Where and of what a report is.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Its cores.
    pub cores: usize,
    /// Its processor, as it names itself.
    pub processor: String,
    /// Its kernel.
    pub kernel: String,
    /// Its memory, in GiB.
    pub memory_gib: f64,
    /// The version of Chancery.
    pub chancery: &'static str,
    /// The version of the Go peer.
    pub go_control_plane: &'static str,
    /// The version of Go.
    pub go: String,
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Whether it was a quick run, whose sizes are not those of the targets.
    pub quick: bool,
    /// Rounds.
    pub rounds: usize,
    /// How much was done.
    #[serde(skip)]
    pub scale: Scale,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// By workload what was measured.
    pub workloads: BTreeMap<&'static str, Outcome>,
    /// By workload the ratios and other values that targets are about.
    pub ratios: BTreeMap<&'static str, BTreeMap<String, Spread>>,
    /// Every target of the workloads that ran.
    pub targets: Vec<Verdict>,
    /// How many are met.
    pub targets_met: Met,
    /// What could not be had; the run has failed if there is anything.
    pub missing: Vec<String>,
}

// === impl Machine ===

impl Machine {
    /// This one.
    pub async fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&file("/proc/meminfo"), "MemTotal");
        let kib: f64 = memory.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let go = tokio::process::Command::new("go").arg("version").output().await;
        let go = go.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: field(&file("/proc/cpuinfo"), "model name"),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: kib / 1024.0 / 1024.0,
            chancery: env!("CARGO_PKG_VERSION"),
            go_control_plane: super::go::version(),
            go,
        }
    }
}

// === impl Report ===

impl Report {
    /// The report of these outcomes.
    pub fn new(machine: Machine, scale: Scale, seconds: f64, workloads: BTreeMap<&'static str, Outcome>) -> Self {
        let (targets, missing) = judge(&workloads);
        Self {
            machine,
            quick: scale.quick,
            rounds: scale.rounds,
            scale,
            seconds,
            ratios: workloads.iter().map(|(id, outcome)| (*id, outcome.values.clone())).collect(),
            workloads,
            targets_met: met(&targets),
            targets,
            missing,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let Machine { cores, processor, kernel, memory_gib, chancery, go_control_plane, go } = &self.machine;
        // Nothing fails to be written to a String.
        _ = writeln!(text, "chancery {chancery}, go-control-plane {go_control_plane} ({go})");
        _ = writeln!(text, "{cores} cores ({processor}), {memory_gib:.0} GiB, Linux {kernel}");
        let size = if self.quick { "quick: smaller than the sizes of the targets" } else { "full" };
        _ = writeln!(text, "{size}; {} rounds, {:.0} s", self.rounds, self.seconds);
        for (id, outcome) in ordered(&self.workloads) {
            _ = writeln!(text, "\n{id}  {}", outcome.what);
            servers(&mut text, outcome);
            if let Some(best) = outcome.go_best {
                _ = writeln!(text, "  go-best is {best}");
            }
            for (name, spread) in &outcome.values {
                _ = writeln!(text, "  {name:<24} {}", with_spread(*spread));
            }
            for note in &outcome.notes {
                _ = writeln!(text, "  note: {note}");
            }
        }
        _ = writeln!(text, "\n{:<5} {:<68} {:>10} {:>10} {:>10}", "", "target", "measured", "must", "ambition");
        let mut verdicts: Vec<&Verdict> = self.targets.iter().collect();
        verdicts.sort_by_key(|verdict| order(verdict.id));
        for verdict in verdicts {
            let ambition = verdict.ambition.as_deref().unwrap_or("-");
            let mark = match (verdict.met_must, verdict.met_ambition) {
                (Some(false), _) => "missed",
                (_, Some(true)) => "ambition met",
                (Some(true), _) => "met",
                (None, _) => "",
            };
            let must = verdict.must.as_deref().unwrap_or("-");
            let Verdict { id, what, .. } = verdict;
            let measured = verdict.measured.map_or_else(|| "void".to_owned(), figure);
            _ = writeln!(text, "{id:<5} {what:<68} {measured:>10} {must:>10} {ambition:>10}  {mark}");
        }
        let Met { must, musts, ambition, ambitions } = self.targets_met;
        _ = writeln!(text, "\n{must} of {musts} targets met, {ambition} of {ambitions} ambitions");
        for missing in &self.missing {
            _ = writeln!(text, "missing: {missing}");
        }
        text
    }
}

fn servers(text: &mut String, outcome: &Outcome) {
    let mut measures: Vec<&str> = outcome.servers.values().flat_map(|of| of.keys().copied()).collect();
    measures.sort_by_key(|measure| column(measure));
    measures.dedup();
    if measures.is_empty() {
        return;
    }
    _ = write!(text, "  {:<14}", "");
    for measure in &measures {
        _ = write!(text, " {:>24}", heading(measure));
    }
    _ = writeln!(text);
    for (server, of) in &outcome.servers {
        _ = write!(text, "  {server:<14}");
        for measure in &measures {
            _ = write!(text, " {:>24}", of.get(measure).map_or_else(String::new, |spread| with_spread(*spread)));
        }
        _ = writeln!(text);
    }
}

/// The measures of servers in the order of their columns, and what each is called.
const COLUMNS: &[(&str, &str)] = &[
    ("cpu", "CPU-s"),
    ("cpu total", "CPU-s in all"),
    ("p50", "p50 ms"),
    ("p99", "p99 ms"),
    ("last", "last ms"),
    ("resources", "resources / push"),
    ("bytes", "bytes / push"),
    ("idle", "idle MiB"),
    ("peak", "peak MiB"),
    ("stream", "KiB / stream"),
    ("change", "CPU-ms / change"),
];

fn column(measure: &str) -> (usize, &str) {
    (COLUMNS.iter().position(|(name, _)| *name == measure).unwrap_or(COLUMNS.len()), measure)
}

fn heading(measure: &str) -> &str {
    COLUMNS.iter().find(|(name, _)| *name == measure).map_or(measure, |(_, heading)| heading)
}

fn ordered<'a>(workloads: &'a BTreeMap<&'static str, Outcome>) -> Vec<(&'static str, &'a Outcome)> {
    let mut all: Vec<_> = workloads.iter().map(|(id, outcome)| (*id, outcome)).collect();
    all.sort_by_key(|(id, _)| order(id));
    all
}

/// `W2` is before `W10`.
fn order(id: &str) -> (usize, &str) {
    (id.trim_matches(char::is_alphabetic).parse().unwrap_or(usize::MAX), id)
}

fn with_spread(Spread { median, min, max }: Spread) -> String {
    if min == max { figure(median) } else { format!("{} ({}..{})", figure(median), figure(min), figure(max)) }
}

/// A number in as many digits as say something.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        unit if unit >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn report_of(workloads: BTreeMap<&'static str, Outcome>) -> Report {
        let machine = Machine {
            cores: 2,
            processor: "p".into(),
            kernel: "6".into(),
            memory_gib: 8.0,
            chancery: "0",
            go_control_plane: "v0",
            go: "go".into(),
        };
        Report::new(machine, Scale::quick(), 1.0, workloads)
    }

    pub(super) fn outcome(name: &str, value: f64) -> Outcome {
        let mut outcome = Outcome { what: "x".into(), ..Outcome::default() };
        outcome.number(name, value);
        outcome
    }

    fn report() -> Report {
        report_of([("W12", outcome("pushes", 0.0)), ("W4", outcome("proxies/s", 1.0))].into())
    }

    #[test]
    fn the_json_has_ratios_targets_and_how_many_are_met() {
        let json = serde_json::to_value(report()).expect("JSON");
        assert_eq!(json["ratios"]["W12"]["pushes"], serde_json::json!({"median": 0.0, "min": 0.0, "max": 0.0}));
        let expected = serde_json::json!({
            "id": "W4", "what": "proxies of 10 services a second", "must": ">= 2000", "ambition": ">= 5000", "measured": 1.0,
            "met_must": false, "met_ambition": false,
        });
        assert_eq!(json["targets"][0], expected);
        assert_eq!(json["targets_met"], serde_json::json!({"must": 1, "musts": 2, "ambition": 0, "ambitions": 1}));
        assert_eq!(json["machine"]["cores"], 2);
        assert_eq!((&json["quick"], &json["missing"]), (&true.into(), &serde_json::json!([])));
    }

    #[test]
    fn the_table_has_the_workloads_in_their_order_and_every_target() {
        let table = report().table();
        let (w4, w12) = (table.find("\nW4 "), table.find("\nW12 "));
        assert!(w4.is_some() && w4 < w12, "{table}");
        assert!(table.contains("1 of 2 targets met, 0 of 1 ambitions"), "{table}");
        assert!(table.contains("missed"), "{table}");
    }
}
