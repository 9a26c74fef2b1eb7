//! The report as the README has it: speed, what a proxy costs, the footprint.
//!
//! Owns: the words and the form of those sections. May use: the report. Never: has a figure of its own.

use std::fmt::Write;

use super::{Machine, Report, figure, order};
use crate::bench::lab::ENDPOINTS_EACH;
use crate::bench::outcome::Outcome;
use crate::bench::server::Contender;
use crate::bench::targets::{Met, Verdict};

/// What every reader of the table has to know.
const ABOUT: &str = "\
Chancery runs whole: a change is a rule file that is renamed into place. Beside it, in the same rounds, run go-control-plane";
const PEERS: &str = "\
(its linear and its snapshot cache; the better one counts), a naive tonic server, and two floors that send pre-encoded
frames and check nothing: one in which each stream is a response body of its own, as in any gRPC server, against which the
targets are, and one (`floor-conn`) in which one task serves all streams of a connection. All serve the same load
assignments, of which clients check every byte: a wrong, missing, repeated or older one makes the run void. Clients share 16
connections (20 in W10), those with mTLS have one each. Times and CPU of a server are its own; ratios are medians of those of each
round. W7, and by how much a change of W3 is cheaper, are of the translation alone, in the process of the bench. In W4 and W5
each client is of a workload of its own, with listeners and a certificate of its own, which calls the services that the row
names. The seconds of W11 begin with the first connection to the server that is ready again. Resources are written from where
they lie; what is written in pieces below 4 KiB, as a push of W1 is, is copied once, to be written together with what is
due to the other streams of its connection. `replicas` opens 12,000 connections: `ulimit -Hn` has to be 16,384.";

/// Who is in the figures of W1, in which order and by which name.
const FIGURES: &[(Contender, &str)] = &[
    (Contender::Chancery, "Chancery"),
    (Contender::ChanceryTls, "with mTLS"),
    (Contender::Floor, "floor"),
    (Contender::FloorOfConnections, "floor-conn"),
    (Contender::Naive, "naive"),
    (Contender::GoSnapshot, "Go snapshot"),
    (Contender::GoLinear, "Go linear"),
];

/// The rows of what a proxy costs, and what the two values of each are called.
const COSTS: &[(&str, &str)] = &[
    ("memory, KiB", "KiB a proxy"),
    ("CPU of a push, us", "us a push"),
    ("bytes of a push, without HTTP/2's own", "bytes a push"),
    ("CPU of a cold start, us", "us a cold start"),
    ("bytes of a cold start, without HTTP/2's own, KB", "KB a cold start"),
];

// === impl Report ===

impl Report {
    /// The sections of the README about what ran.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.speed(&mut text);
        if let Some(outcome) = self.workloads.get("replicas") {
            self.replicas(&mut text, outcome);
        }
        if let Some(outcome) = self.workloads.get("size") {
            footprint(&mut text, outcome);
        }
        text
    }

    fn speed(&self, text: &mut String) {
        let Machine { cores, processor, kernel, go_control_plane, go, .. } = &self.machine;
        let go = go.trim_start_matches("go version ");
        let (size, quick) = if self.scale.quick { ("quick", " --quick") } else { ("full", "") };
        let (rounds, minutes) = (self.scale.rounds, self.seconds / 60.0);
        // Nothing fails to be written to a String.
        _ = writeln!(text, "### Speed\n");
        _ = writeln!(text, "A {size} run on {cores} cores ({processor}), Linux {kernel}, {go},");
        _ = writeln!(text, "{rounds} rounds, {minutes:.0} minutes, clients on the same cores:\n");
        _ = writeln!(text, "    cargo run --release -p conformance --bin bench --{quick} -o markdown\n");
        _ = writeln!(text, "{ABOUT} {go_control_plane}\n{PEERS}\n");
        _ = writeln!(text, "| | what | measured | must | ambition |\n|---|---|---|---|---|");
        let mut verdicts: Vec<&Verdict> = self.targets.iter().collect();
        verdicts.sort_by_key(|verdict| order(verdict.id));
        for Verdict { id, what, must, ambition, measured, met_must, met_ambition } in verdicts {
            let mark = match (met_must, met_ambition) {
                (Some(false), _) => " **missed**",
                (_, Some(true)) => " (ambition)",
                _ => "",
            };
            let bound = |bound: &Option<String>| bound.clone().unwrap_or_else(|| "-".to_owned());
            let (must, ambition) = (bound(must), bound(ambition));
            let measured = measured.map_or_else(|| "void".to_owned(), grouped);
            _ = writeln!(text, "| {id} | {what} | {measured}{mark} | {must} | {ambition} |");
        }
        let Met { must, musts, ambition, ambitions } = self.targets_met;
        _ = writeln!(text, "\n{must} of {musts} targets met, {ambition} of {ambitions} ambitions.");
        if let Some(outcome) = self.workloads.get("W1") {
            self.figures(text, outcome);
        }
        self.tls(text);
    }

    fn figures(&self, text: &mut String, outcome: &Outcome) {
        let measure = |contender: Contender, measure| Some(outcome.servers.get(contender.name())?.get(measure)?.median);
        let of = |(contender, name): &(Contender, &str)| {
            // CPU seconds for 1,000 pushes are CPU milliseconds for one.
            let (cpu, p99) = (measure(*contender, "cpu")? * 1e3, measure(*contender, "p99")?);
            Some(format!("{name} {} us and {} ms", grouped(cpu), grouped(p99)))
        };
        let (clients, services) = (count(self.scale.clients as f64), count(self.scale.services as f64));
        let bytes = measure(Contender::Chancery, "bytes").unwrap_or_default();
        _ = writeln!(
            text,
            "\nW1 in figures: {clients} clients, each subscribed to {services} services of {ENDPOINTS_EACH} endpoints; a push is {} bytes. CPU of the \
             server for\none push to one client, and the 99th percentile of the time from the change to the client:",
            grouped(bytes)
        );
        _ = writeln!(text, "{}.", FIGURES.iter().filter_map(of).collect::<Vec<_>>().join(",\n"));
    }

    /// What mTLS costs beside plaintext, in the workloads that both take part in.
    fn tls(&self, text: &mut String) {
        let row = |id: &'static str, what: &str| {
            let servers = &self.workloads.get(id)?.servers;
            let median = |contender: Contender| Some(servers.get(contender.name())?.get(what)?.median);
            Some((id, median(Contender::Chancery)?, median(Contender::ChanceryTls)?))
        };
        let rows: Vec<_> = ["W1", "W1s", "W2", "W9", "W13"].into_iter().filter_map(|id| row(id, "cpu")).collect();
        if rows.is_empty() {
            return;
        }
        _ = writeln!(
            text,
            "\nmTLS beside plaintext, CPU of the server in us for a push to a client (W2: for a client that connects):\n"
        );
        _ = writeln!(text, "| | plaintext | mTLS |\n|---|---|---|");
        for (id, plaintext, tls) in rows {
            // CPU seconds for 1,000 pushes are milliseconds for one; those of W2 are of all clients together.
            let each = if id == "W2" { 1e6 / self.scale.clients as f64 } else { 1e3 };
            _ = writeln!(text, "| {id} | {} | {} |", grouped(plaintext * each), grouped(tls * each));
        }
    }

    fn replicas(&self, text: &mut String, outcome: &Outcome) {
        let value = |name: &str| outcome.values.get(name).map_or(f64::NAN, |spread| spread.median);
        let [half, one, two] = [1, 2, 4].map(|times| count((times * self.scale.clients / 2) as f64));
        let services = self.scale.services / 10;
        _ = writeln!(text, "\n### What a proxy costs, and 100,000 of them\n");
        _ = writeln!(
            text,
            "`cargo run --release -p conformance --bin bench -- --only replicas` draws lines through fleets of {half}, {one} and {two} proxies\n({services} services of \
             {ENDPOINTS_EACH} endpoints each), holds four control planes with fleets of their own against them (measured memory {:.2} \
             times, CPU of a change\n{:.2} times what the line says), and then ends one of the four, whose proxies get {:.1} % of \
             a cold start from the others.\n",
            value("memory/model"),
            value("cpu/model"),
            value("bytes/cold") * 100.0
        );
        _ = writeln!(text, "| for each proxy | plaintext | mTLS |\n|---|---|---|");
        for (row, name) in COSTS {
            let [plain, mtls] = ["plain", "mTLS"].map(|kind| grouped(value(&format!("{name}, {kind}"))));
            _ = writeln!(text, "| {row} | {plain} | {mtls} |");
        }
        _ = writeln!(text, "\nFrom that line, 100,000 proxies over mTLS on N replicas:\n");
        for note in &outcome.notes {
            if let Some(on) = note.strip_prefix("mTLS: 100000 proxies on ") {
                _ = writeln!(text, "- {on}");
            }
        }
    }
}

fn footprint(text: &mut String, outcome: &Outcome) {
    let value = |name: &str| grouped(outcome.values.get(name).map_or(f64::NAN, |spread| spread.median));
    _ = writeln!(text, "\n### Footprint\n");
    _ = writeln!(
        text,
        "`cargo run --release -p conformance --bin bench -- --only size`: the binary {} MiB\n\
         stripped; {} MiB of memory without rules, {} MiB with {} services of {ENDPOINTS_EACH} endpoints that one\n\
         workload calls; {} s from start until a proxy has the answer to its first request, for the clusters of all.",
        value("binary stripped MiB"),
        value("idle MiB"),
        value("MiB with services"),
        count(outcome.values.get("services").map_or(f64::NAN, |spread| spread.median)),
        value("answered s")
    );
}

/// The same of what is counted, which has no fraction.
fn count(value: f64) -> String {
    grouped(value).trim_end_matches(".0").to_owned()
}

/// A figure whose thousands are set apart.
fn grouped(value: f64) -> String {
    if value.abs() < 1_000.0 || !value.is_finite() {
        return figure(value);
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{outcome, report_of};
    use super::*;
    use crate::bench::outcome::Samples;

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0.0, 1.5, 999.0, 1_000.0, 32_257.4, 1_234_567.0, -1_000.0].map(grouped);
        assert_eq!([500.0, 1_000.0].map(count), ["500", "1,000"]);
        assert_eq!(texts, ["0", "1.50", "999.0", "1,000", "32,257", "1,234,567", "-1,000"]);
    }

    #[test]
    fn the_readme_has_every_target_and_says_what_is_met() {
        let text =
            report_of([("W12", outcome("pushes", 0.0)), ("W4", outcome("proxies/s", 1_234.0))].into()).markdown();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| W")).collect();
        let expected = [
            "| W4 | proxies of 10 services a second | 1,234 **missed** | >= 2000 | >= 5000 |",
            "| W12 | pushes | 0 | <= 0 | - |",
        ];
        assert_eq!(rows, expected);
        assert!(
            text.starts_with("### Speed\n") && text.contains("\n1 of 2 targets met, 0 of 1 ambitions.\n"),
            "{text}"
        );
        assert!(!text.contains("W1 in figures") && !text.contains("### Footprint"), "what did not run: {text}");
    }

    #[test]
    fn the_figures_of_w1_are_of_one_push() {
        let mut samples = Samples::default();
        for (measure, value) in [("cpu", 0.0125), ("p99", 18.2), ("bytes", 1_200.0)] {
            samples.enter(Contender::Chancery, measure, value);
        }
        let text = report_of([("W1", samples.outcome("x"))].into()).markdown();
        assert!(text.contains("a push is 1,200 bytes") && text.contains("\nChancery 12.5 us and 18.2 ms.\n"), "{text}");
    }

    #[test]
    fn what_mtls_costs_stands_beside_plaintext_where_both_ran() {
        let of = |contenders: &[(Contender, f64)]| {
            let mut samples = Samples::default();
            contenders.iter().for_each(|(contender, cpu)| samples.enter(*contender, "cpu", *cpu));
            samples.outcome("x")
        };
        let both = of(&[(Contender::Chancery, 0.5), (Contender::ChanceryTls, 2.5)]);
        let alone = of(&[(Contender::Chancery, 0.5)]);
        let text = report_of([("W2", both.clone()), ("W9", alone), ("W13", both)].into()).markdown();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| W") && line.ends_with("500 |")).collect();
        assert_eq!(rows, ["| W2 | 2,500 | 12,500 |", "| W13 | 500.0 | 2,500 |"], "{text}");
        assert!(!report_of([("W9", of(&[]))].into()).markdown().contains("mTLS beside"));
    }

    #[test]
    fn costs_and_footprint_are_those_of_their_workloads() {
        let mut replicas = outcome("KiB a proxy, mTLS", 53.0);
        replicas.notes =
            vec!["plain: 100000 proxies on 4 replicas: x".into(), "mTLS: 100000 proxies on 4 replicas: y".into()];
        let text = report_of([("replicas", replicas), ("size", outcome("idle MiB", 32.0))].into()).markdown();
        assert!(text.contains("\n| memory, KiB | NaN | 53.0 |\n"), "{text}");
        assert!(text.contains(":\n\n- 4 replicas: y\n"), "{text}");
        assert!(text.contains("\n### Footprint\n") && text.contains("; 32.0 MiB of memory without rules"), "{text}");
    }
}
