//! W7: translation on one core, as the control plane drives it, without files, clients or clocks of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::fold::Inputs;
use chancery::sources::files::FileState;
use chancery::translate::Translator;
use translators::rules::{Objects, parse};
use translators::version::EnvoyVersion;
use translators::xds::Features;

use crate::bench::lab::{ENDPOINTS_EACH, Lab, progress};
use crate::bench::outcome::Outcome;
use crate::bench::rules::{ROUTE_FILE, Rules, route, service_file};
use crate::bench::statistics::Spread;

/// Changes of each kind in a round.
const CHANGES: u32 = 50;

/// What a round measured, in CPU time: one core is what is asked for, whoever else wants it.
pub(super) struct Round {
    /// All of it, from nothing.
    pub full: Duration,
    /// One endpoint changed: the median.
    pub endpoint: Duration,
    /// One route rule changed: the median.
    pub route: Duration,
}

/// Translation from nothing, and of one change.
pub async fn w7(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let services = if lab.scale.quick { 2_000 } else { 20_000 };
    let rounds = lab.scale.rounds;
    let measured = tokio::task::spawn_blocking(move || rounds_of(services, rounds)).await??;
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let of = |value: &dyn Fn(&Round) -> f64| Spread::of(&measured.iter().map(value).collect::<Vec<_>>());
    let mut outcome = Outcome {
        what: format!(
            "{services} services x {ENDPOINTS_EACH} endpoints in one group, translated in the process on one core"
        ),
        ..Outcome::default()
    };
    outcome.value("services/s", of(&|round| services as f64 / round.full.as_secs_f64()));
    outcome.value("change us", of(&|round| micros(round.endpoint)));
    outcome.value("route change us", of(&|round| micros(round.route)));
    Ok(outcome)
}

/// Measures so many rounds.
pub(super) fn rounds_of(services: usize, rounds: usize) -> anyhow::Result<Vec<Round>> {
    let rules = Rules::one_group(services, ENDPOINTS_EACH);
    let mut objects = Objects::new();
    for (name, text) in rules.files() {
        enter(&mut objects, &name, &text)?;
    }
    enter(&mut objects, ROUTE_FILE, &route(0, 0))?;
    let measure = |number| {
        progress(&format!("translation: round {number} of {rounds}"));
        round(&rules, &objects)
    };
    // One core is one thread, however many the machine has.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    one.install(|| (1..=rounds).map(measure).collect())
}

fn round(rules: &Rules, objects: &Objects) -> anyhow::Result<Round> {
    let features = BTreeSet::from([Features::of_version(EnvoyVersion::NEWEST)]);
    let (mut translator, _records) = Translator::open(None);
    let mut objects = objects.clone();
    let mut translate = |objects: &Objects| {
        let files = FileState { synced: true, objects: objects.clone(), ..FileState::default() };
        let inputs = Inputs { files: Arc::new(files), instances: Default::default() };
        let began = cpu();
        let translation = translator.translate(&inputs, &features, 0);
        let took = cpu().saturating_sub(began);
        // What was there before is let go outside of the measurement, as readers do.
        translation.map(|translation| (translation, took)).context("nothing was translated")
    };
    let (first, full) = translate(&objects)?;
    ensure!(first.groups.len() == 1, "there is one group");
    let mut changes = |text: &dyn Fn(u32) -> (String, String)| {
        let mut times = Vec::new();
        for number in 1..=CHANGES {
            let (name, text) = text(number);
            enter(&mut objects, &name, &text)?;
            times.push(translate(&objects)?.1);
        }
        times.sort_unstable();
        anyhow::Ok(times[times.len() / 2])
    };
    let endpoint = changes(&|number| (service_file(1), rules.service(1, number)))?;
    let route = changes(&|number| (ROUTE_FILE.to_owned(), route(0, number)))?;
    Ok(Round { full, endpoint, route })
}

/// The CPU time of this thread, which is the only one that translates.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

fn enter(objects: &mut Objects, name: &str, text: &str) -> anyhow::Result<()> {
    let parsed = parse(name, text);
    ensure!(parsed.findings.is_empty(), "{name}: {:?}", parsed.findings);
    for object in parsed.objects {
        objects.insert(object.key.clone(), object);
    }
    Ok(())
}
