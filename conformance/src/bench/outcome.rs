//! Outcomes: what a workload measured, per server and round, and the ratios that follow.
//!
//! Owns: samples by server and measure, ratios per round. May use: `statistics`. Never: compares rounds of different
//! times where it can compare within one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::server::Contender;
use super::statistics::Spread;

/// Samples of a comparison: by server and measure one value for each round.
#[derive(Debug, Clone, Default)]
pub struct Samples(BTreeMap<(Contender, &'static str), Vec<f64>>);

/// What a workload measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// What was done, with its sizes.
    pub what: String,
    /// By server and measure.
    pub servers: BTreeMap<&'static str, BTreeMap<&'static str, Spread>>,
    /// Ratios and other values, by the names that the targets use.
    pub values: BTreeMap<String, Spread>,
    /// Which of the two modes of go-control-plane was the better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_best: Option<&'static str>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

// === impl Samples ===

impl Samples {
    /// Enters the value of a round.
    pub fn enter(&mut self, contender: Contender, measure: &'static str, value: f64) {
        self.0.entry((contender, measure)).or_default().push(value);
    }

    /// The spread of a measure.
    pub fn spread(&self, contender: Contender, measure: &'static str) -> Option<Spread> {
        Spread::of(self.0.get(&(contender, measure))?)
    }

    /// The better of the two modes of go-control-plane by a measure of which less is better.
    pub fn go_best(&self, measure: &'static str) -> Option<Contender> {
        let median = |contender| Some((self.spread(contender, measure)?.median, contender));
        let modes = [Contender::GoLinear, Contender::GoSnapshot].into_iter().filter_map(median);
        modes.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, contender)| contender)
    }

    /// The ratios of a measure of two servers, round by round.
    pub fn ratio(&self, measure: &'static str, above: Contender, below: Contender) -> Option<Spread> {
        let (above, below) = (self.0.get(&(above, measure))?, self.0.get(&(below, measure))?);
        let ratios: Vec<f64> = above.iter().zip(below).map(|(above, below)| above / below).collect();
        Spread::of(&ratios).filter(|spread| spread.median.is_finite())
    }

    /// The outcome with every measure of every server.
    pub fn outcome(&self, what: impl Into<String>) -> Outcome {
        let mut outcome = Outcome { what: what.into(), ..Outcome::default() };
        for (contender, measure) in self.0.keys() {
            if let Some(spread) = self.spread(*contender, measure) {
                outcome.servers.entry(contender.name()).or_default().insert(measure, spread);
            }
        }
        outcome
    }
}

// === impl Outcome ===

impl Outcome {
    /// Leaves only these measures of servers.
    #[must_use]
    pub fn only(mut self, measures: &[&str]) -> Self {
        self.servers.values_mut().for_each(|of| of.retain(|measure, _| measures.contains(measure)));
        self
    }

    /// Enters a value that was had.
    pub fn value(&mut self, name: impl Into<String>, spread: Option<Spread>) {
        if let Some(spread) = spread {
            self.values.insert(name.into(), spread);
        }
    }

    /// Enters a single value.
    pub fn number(&mut self, name: impl Into<String>, value: f64) {
        self.value(name, Spread::of(&[value]));
    }

    /// Enters the ratios of these measures of Chancery to the floor, to the mode of go-control-plane that is better by that
    /// measure, and to the naive server, as far as they took part.
    pub fn compare(&mut self, samples: &Samples, measures: &[&'static str]) {
        self.go_best = samples.go_best("cpu").map(Contender::name);
        for measure in measures {
            let best = samples.go_best(measure);
            let others = [
                (Some(Contender::Floor), "floor"),
                (Some(Contender::FloorOfConnections), "floor-conn"),
                (best, "go-best"),
                (Some(Contender::GoLinear), "go-linear"),
                (Some(Contender::GoSnapshot), "go-snapshot"),
                (Some(Contender::Naive), "naive"),
            ];
            for (other, name) in others {
                let Some(other) = other else { continue };
                self.value(format!("{measure}/{name}"), samples.ratio(measure, Contender::Chancery, other));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round_and_go_is_taken_at_its_best() {
        let mut samples = Samples::default();
        for (chancery, floor, linear, snapshot) in
            [(2.0, 1.0, 50.0, 20.0), (6.0, 2.0, 30.0, 30.0), (8.0, 4.0, 60.0, 16.0)]
        {
            samples.enter(Contender::Chancery, "cpu", chancery);
            samples.enter(Contender::Floor, "cpu", floor);
            samples.enter(Contender::GoLinear, "cpu", linear);
            samples.enter(Contender::GoSnapshot, "cpu", snapshot);
        }
        let mut outcome = samples.outcome("x");
        outcome.compare(&samples, &["cpu", "absent"]);
        assert_eq!(outcome.go_best, Some("go-snapshot"));
        assert_eq!(outcome.values["cpu/floor"], Spread { median: 2.0, min: 2.0, max: 3.0 });
        assert_eq!(outcome.values["cpu/go-best"], Spread { median: 0.2, min: 0.1, max: 0.5 });
        let names: Vec<_> = outcome.values.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu/floor", "cpu/go-best", "cpu/go-linear", "cpu/go-snapshot"]);
        assert_eq!(outcome.servers["floor"]["cpu"].median, 2.0);
    }
}
