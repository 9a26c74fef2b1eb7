//! Arbitrary telemetry: every kind of log, condition, tag and provider.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use translators::mesh::*;
use translators::name::QualifiedName;

use super::rule;

/// What is said, before it is known who is told.
#[derive(Debug, Clone)]
pub struct TelemetryPart {
    logs: Vec<(SinkPart, LogWhen, Percent)>,
    tracer: Option<Index>,
    percent: Percent,
    tags: BTreeMap<String, TagValue>,
    labels: BTreeMap<String, TagValue>,
    drop: BTreeSet<Dropped>,
}

#[derive(Debug, Clone)]
enum SinkPart {
    Here(LogSink),
    Otlp(Index, LogFormat),
}

/// Half of them say nothing.
pub fn telemetry() -> impl Strategy<Value = Option<TelemetryPart>> {
    let percent = || select(vec![0, 1, 12_500, 1_000_000]).prop_map(|millionths| Percent { millionths });
    let format = || {
        prop_oneof![
            Just(LogFormat::Json),
            Just(LogFormat::Text),
            Just(LogFormat::Template("%RESPONSE_CODE%".to_owned())),
        ]
    };
    let sink = prop_oneof![
        format().prop_map(|format| SinkPart::Here(LogSink::Stdout(format))),
        format().prop_map(|format| SinkPart::Here(LogSink::File("/tmp/log".to_owned(), format))),
        Just(SinkPart::Here(LogSink::ControlPlane)),
        (any::<Index>(), format()).prop_map(|(provider, format)| SinkPart::Otlp(provider, format)),
    ];
    let comparison = || {
        select(vec![
            Comparison::Is,
            Comparison::Not,
            Comparison::AtLeast,
            Comparison::AtMost,
            Comparison::Above,
            Comparison::Below,
        ])
    };
    let status = prop::option::weighted(0.3, (comparison(), 100u16..600));
    let duration = prop::option::weighted(0.3, (comparison(), (0u64..9000).prop_map(Duration::from_millis)));
    let headers = prop::collection::btree_map("x-[ab]", "[ -~]{1,5}".prop_map(TextMatch::Exact), 0..2);
    let when = (status, duration, headers, any::<bool>()).prop_map(|(status, duration, headers, errors)| LogWhen {
        status,
        duration,
        headers,
        errors,
    });
    let value = || {
        prop_oneof![
            "[ -~]{1,9}".prop_map(TagValue::Literal),
            "x-[ab]".prop_map(TagValue::Header),
            "[A-Z]{1,5}".prop_map(TagValue::Environment),
        ]
    };
    let values = |names: &'static str| prop::collection::btree_map(names, value(), 0..3);
    let dropped = select(vec![Dropped::Requests, Dropped::Audited, Dropped::Caller, Dropped::Version, Dropped::Flags]);
    let part = (
        prop::collection::vec((sink, when, percent()), 0..3),
        prop::option::of(any::<Index>()),
        percent(),
        values("[a-z]{1,5}"),
        values("[a-z]_[a-z]{1,5}"),
        prop::collection::btree_set(dropped, 0..3),
    );
    let part = part.prop_map(|(logs, tracer, percent, tags, labels, drop)| TelemetryPart {
        logs,
        tracer,
        percent,
        tags,
        labels,
        drop,
    });
    prop::option::of(part)
}

/// Providers of both languages at addresses, and one that is a port of the mesh.
pub fn providers(port: &(QualifiedName, String)) -> BTreeMap<String, Arc<TelemetryProvider>> {
    let address = |host: &str, tls: bool| {
        let tls = tls.then_some(Authorities::System);
        CollectorAt::Address { host: host.to_owned(), port: 4317.try_into().expect("not 0"), tls }
    };
    let service = CollectorAt::Service { service: port.0.clone(), port: Some(port.1.clone()) };
    let zipkin = || Language::Zipkin("/spans".to_owned());
    [
        ("far", Language::Otlp, address("collector.example", true)),
        ("near", Language::Otlp, service),
        ("old", zipkin(), address("::1", false)),
    ]
    .into_iter()
    .map(|(name, language, at)| {
        let origin = rule("mesh-system/default", "/spec/telemetryProviders");
        (name.to_owned(), Arc::new(TelemetryProvider { origin, name: name.to_owned(), language, at }))
    })
    .collect()
}

// === impl TelemetryPart ===

impl TelemetryPart {
    /// The same where `providers` may be told, one of which is `port`.
    pub fn assembled(
        &self,
        providers: &BTreeMap<String, Arc<TelemetryProvider>>,
        port: &(QualifiedName, String),
    ) -> Telemetry {
        let collector = |which: &Index, of_logs: bool| {
            let fits = providers.values().filter(|one| !of_logs || one.language == Language::Otlp);
            let fits: Vec<_> = fits.collect();
            let provider = Arc::clone(fits[which.index(fits.len())]);
            let port = matches!(provider.at, CollectorAt::Service { .. }).then(|| port.clone());
            Collector { provider, port }
        };
        let log = |(sink, when, sample): &(SinkPart, LogWhen, Percent)| AccessLog {
            to: match sink {
                SinkPart::Here(sink) => sink.clone(),
                SinkPart::Otlp(which, format) => LogSink::Otlp(collector(which, true), format.clone()),
            },
            when: when.clone(),
            sample: *sample,
        };
        let said = |values: &BTreeMap<String, TagValue>| {
            let origin = || rule("a/telemetry", "/spec");
            values.iter().map(|(name, value)| (name.clone(), Sourced::from_rule(value.clone(), origin()))).collect()
        };
        Telemetry {
            access_logs: Sourced::built_in(self.logs.iter().map(log).collect()),
            provider: Sourced::built_in(self.tracer.as_ref().map(|which| collector(which, false))),
            percent: Sourced::built_in(self.percent),
            tags: said(&self.tags),
            labels: said(&self.labels),
            drop: Sourced::built_in(self.drop.clone()),
        }
    }
}
