//! View: what a running demo shows, a line each second.
//!
//! Owns: the difference between two moments and its words. May use: `load`, `control_plane`, `escape`. Never: writes to
//! standard output while that is kept for the summary.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use tokio::time::Instant;

use crate::demo::control_plane::Status;
use crate::demo::load::Counts;
use crate::demo::summary::share;
use crate::demo::{PROXIES, VERSIONS};
use crate::escape::escaped;

/// Where the run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Standard output: it is all that is shown.
    Stdout,
    /// Standard error: standard output is for the summary.
    Stderr,
}

/// The view of one run.
#[derive(Debug)]
pub(super) struct View {
    output: Output,
    /// Whether the last line can be written over.
    terminal: bool,
    start: Instant,
    last: Moment,
    /// The findings, refusals and failures that have been shown.
    notes: BTreeSet<String>,
    mtls: Option<f64>,
}

/// What was known a second ago.
#[derive(Debug, Clone)]
struct Moment {
    at: Instant,
    counts: Counts,
    requests: (u64, u64),
}

// === impl View ===

impl View {
    pub(super) fn new(output: Output) -> Self {
        let terminal = match output {
            Output::Stdout => std::io::stdout().is_terminal(),
            Output::Stderr => std::io::stderr().is_terminal(),
        };
        let start = Instant::now();
        let last = Moment { at: start, counts: Counts::default(), requests: (0, 0) };
        Self { output, terminal, start, last, notes: BTreeSet::new(), mtls: None }
    }

    /// From now on the run is shown.
    pub(super) fn begin(&mut self) {
        self.start = Instant::now();
        self.last.at = self.start;
    }

    /// Shows a line that stays.
    pub(super) fn say(&self, line: &str) {
        self.write(&format!("{}{}\n", self.over(), escaped(line)));
    }

    /// Shows where the run stands.
    pub(super) fn show(&mut self, counts: Counts, status: Result<Status, anyhow::Error>) {
        let now = Instant::now();
        let (notes, sync) = match status {
            Ok(status) => {
                self.enter_mtls(status.requests());
                let sync = format!("in sync {}/{PROXIES}", status.in_sync);
                (status.findings.into_iter().chain(status.nacks).collect(), sync)
            }
            Err(error) => (BTreeSet::from([format!("{error:#}")]), format!("in sync ?/{PROXIES}")),
        };
        let mut notes: BTreeSet<String> = notes;
        if counts.failed > self.last.counts.failed {
            notes.extend(counts.last_failure.iter().map(|failure| format!("a request failed: {failure}")));
        }
        for note in notes.difference(&self.notes) {
            self.say(note);
        }
        for gone in self.notes.difference(&notes) {
            self.say(&format!("no more: {gone}"));
        }
        let line = self.line(&counts, now, &sync, notes.len());
        self.write(&format!("{}{line}{}", self.over(), if self.terminal { "" } else { "\n" }));
        self.notes = notes;
        self.last.at = now;
        self.last.counts = counts;
    }

    /// Ends the line that was written over.
    pub(super) fn end(&self) {
        if self.terminal {
            self.write("\n");
        }
    }

    fn line(&self, counts: &Counts, now: Instant, sync: &str, notes: usize) -> String {
        let requests = counts.requests - self.last.counts.requests;
        let succeeded = counts.succeeded() - self.last.counts.succeeded();
        let seconds = now.duration_since(self.last.at).as_secs_f64().max(0.001);
        let elapsed = now.duration_since(self.start).as_secs();
        let split = VERSIONS.map(|version| {
            let of = |counts: &Counts| counts.by_version.get(version).copied().unwrap_or_default();
            let part = of(counts) - of(&self.last.counts);
            let percent =
                if succeeded == 0 { "-".to_owned() } else { format!("{:.0}", share(part, succeeded) * 100.0) };
            format!("{version} {percent} %")
        });
        let success = match requests {
            0 => "-".to_owned(),
            requests => format!("{:.2}", share(succeeded, requests) * 100.0),
        };
        let mtls = self.mtls.map_or("-".to_owned(), |mtls| format!("{:.0}", mtls * 100.0));
        let findings = if notes == 0 { String::new() } else { format!("   {notes} to look at") };
        let rate = requests as f64 / seconds;
        format!(
            "{elapsed:>4} s   {rate:>4.0} req/s   {success} % ok   {}   mTLS {mtls} %   {sync}{findings}",
            split.join("   ")
        )
    }

    /// The share of what the proxies have reported since they last reported anything.
    fn enter_mtls(&mut self, (requests, mtls): (u64, u64)) {
        let (requests_before, mtls_before) = self.last.requests;
        if requests > requests_before {
            self.mtls = Some(share(mtls.saturating_sub(mtls_before), requests - requests_before));
        }
        self.last.requests = (requests, mtls);
    }

    fn over(&self) -> &'static str {
        if self.terminal { "\r\x1b[2K" } else { "" }
    }

    fn write(&self, text: &str) {
        // Who no longer looks does not end the run.
        _ = match self.output {
            Output::Stdout => std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()),
            Output::Stderr => std::io::stderr().write_all(text.as_bytes()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn counts(requests: u64, failed: u64, v1: u64, v2: u64) -> Counts {
        let by_version = BTreeMap::from([("v1".to_owned(), v1), ("v2".to_owned(), v2)]);
        Counts { requests, failed, by_version, ..Counts::default() }
    }

    #[test]
    fn a_line_is_about_the_last_second() {
        let mut view = View { terminal: false, ..View::new(Output::Stderr) };
        view.last.counts = counts(1000, 0, 1000, 0);
        view.enter_mtls((1000, 1000));
        view.enter_mtls((1200, 1100));
        let line = view.line(&counts(1200, 2, 1158, 40), view.start + Duration::from_secs(1), "in sync 4/4", 0);
        assert_eq!(line, "   1 s    200 req/s   99.00 % ok   v1 80 %   v2 20 %   mTLS 50 %   in sync 4/4");
    }

    #[test]
    fn what_is_not_known_is_not_stated() {
        let view = View { terminal: false, ..View::new(Output::Stderr) };
        let line = view.line(&Counts::default(), view.start, "in sync ?/4", 1);
        assert_eq!(line, "   0 s      0 req/s   - % ok   v1 - %   v2 - %   mTLS - %   in sync ?/4   1 to look at");
    }
}
