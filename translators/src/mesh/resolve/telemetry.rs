//! TelemetryPolicies: what proxies say, merged down the ladder, field by field.
//!
//! Owns: what a policy says, and what policies come to for each workload. May use: `rules`, `reach`, `providers`. Never: lets
//! a provider be told of being told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::matches::{headers, is_token};
use super::providers::{self, Providers};
use super::reach::{ByReach, Reach};
use super::report::Report;
use super::services::Services;
use super::stage::Change;
use super::template;
use crate::finding::Code;
use crate::mesh::{
    AccessLog, Collector, Dropped, LogFormat, LogSink, LogWhen, Observed, Percent, Sourced, TagValue, Telemetry,
    Workload,
};
use crate::name::{ObjectKey, QualifiedName, RuleRef};
use crate::rules::escaped;
use crate::rules::scalar::{Setting, Span};
use crate::rules::telemetry::{AccessLogSpec, LogFormatSpec, LogSinkSpec, LogWhenSpec, TagSpec, TelemetrySpec};
use crate::telemetry_names as names;

/// More labels than these would be a counter for every request.
const MOST_LABELS: usize = 8;

/// What a TelemetryPolicy says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub reach: Reach,
    layer: Layer,
}

/// What one policy says of requests.
#[derive(Debug, PartialEq, Eq)]
struct Layer {
    key: ObjectKey,
    access_logs: Setting<Vec<AccessLog>>,
    provider: Setting<Collector>,
    percent: Setting<Percent>,
    tags: Setting<Values>,
    labels: Setting<Values>,
    drop: Setting<std::collections::BTreeSet<Dropped>>,
}

/// Values by name; `None` takes one away.
type Values = BTreeMap<String, Option<TagValue>>;

/// What policies may refer to.
pub(super) struct Known<'a> {
    pub services: &'a Services,
    pub providers: &'a Providers,
}

/// The policies, by what they are for.
#[derive(Debug, Default)]
pub(super) struct Policies(ByReach<Arc<Policy>>);

// === impl Policy ===

impl Policy {
    /// What `spec` says.
    pub(super) fn of(spec: &TelemetrySpec, known: &Known<'_>, report: &mut Report<'_>) -> Option<Self> {
        let TelemetrySpec { target, access_logs, tracing, metrics } = spec;
        if access_logs.is_inherit() && tracing.is_inherit() && metrics.is_inherit() {
            report.error(Code::MissingField, "/spec", "nothing is said: give accessLogs, tracing or metrics");
        }
        let mut log = |(index, written): (usize, &AccessLogSpec)| {
            access_log(written, known, &format!("/spec/accessLogs/{index}"), report)
        };
        let access_logs = access_logs.as_ref().map(|list| list.iter().enumerate().filter_map(&mut log).collect());
        let provider = tracing.within(|tracing| tracing.provider.clone());
        let provider = match provider {
            Setting::Inherit => Setting::Inherit,
            Setting::BuiltIn => Setting::BuiltIn,
            Setting::Given(name) => {
                let pointer = "/spec/tracing/provider";
                let found = providers::provider(known.providers, Some(&name), |_| true, pointer, report);
                let found = found.and_then(|found| providers::collector(found, known.services, pointer, report));
                found.map_or(Setting::Inherit, Setting::Given)
            }
        };
        let tags = tracing.within(|tracing| tracing.tags.clone());
        let tags = tags.map(|tags| values(&tags, "/spec/tracing/tags", check_tag, report));
        let labels = metrics.within(|metrics| metrics.labels.clone());
        if let Setting::Given(labels) = &labels
            && labels.len() > MOST_LABELS
        {
            let message = format!("these are more than {MOST_LABELS} labels");
            report.error(Code::InvalidValue, "/spec/metrics/labels", message);
        }
        let labels = labels.map(|labels| values(&labels, "/spec/metrics/labels", check_label, report));
        let layer = Layer {
            key: report.object.key.clone(),
            access_logs,
            provider,
            percent: tracing.within(|tracing| tracing.percent),
            tags,
            labels,
            drop: metrics.within(|metrics| metrics.drop.clone()),
        };
        Some(Self { reach: Reach::of(target, known.services, report)?, layer })
    }
}

/// Names and values of tags or labels.
fn values(
    written: &BTreeMap<String, Option<TagSpec>>,
    at: &str,
    wrong: impl Fn(&str) -> Option<String>,
    report: &mut Report<'_>,
) -> Values {
    let mut value = |(name, value): (&String, &Option<TagSpec>)| {
        let pointer = format!("{at}/{}", escaped(name));
        if let Some(message) = wrong(name) {
            report.error(Code::InvalidValue, &pointer, message);
        }
        let value = value.as_ref().map(|value| match value {
            TagSpec::Literal(text) => {
                if text.is_empty() || text.chars().any(char::is_control) {
                    report.error(Code::InvalidValue, &pointer, "a value is a text of one line");
                }
                TagValue::Literal(text.clone())
            }
            TagSpec::Header(header) => {
                if !is_token(header) || header.contains(['%', '|', '\'', '`', '&', '#']) {
                    let message = format!("{header:?} is no name of a header");
                    report.error(Code::InvalidValue, format!("{pointer}/header"), message);
                }
                TagValue::Header(header.to_ascii_lowercase())
            }
            TagSpec::Environment(variable) => {
                if !is_identifier(variable) {
                    let message = format!("{variable:?} is no variable of an environment");
                    report.error(Code::InvalidValue, format!("{pointer}/environment"), message);
                }
                TagValue::Environment(variable.clone())
            }
        });
        (name.clone(), value)
    };
    written.iter().map(&mut value).collect()
}

fn check_tag(name: &str) -> Option<String> {
    let valid = !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
    (!valid).then(|| format!("{name:?} is no name of a tag"))
}

fn check_label(name: &str) -> Option<String> {
    if !is_identifier(name) {
        return Some(format!("{name:?} is no name of a label: it has letters, digits and underscores"));
    }
    names::LABELS.contains(&name).then(|| format!("the counter has a label {name} already"))
}

fn is_identifier(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn access_log(written: &AccessLogSpec, known: &Known<'_>, at: &str, report: &mut Report<'_>) -> Option<AccessLog> {
    let AccessLogSpec { to, path, provider, format, template, when, sample } = written;
    let mut superfluous = |field: &str, is_written: bool, belongs: &str| {
        if is_written {
            let message = format!("{field} belongs to {belongs}");
            report.error(Code::InvalidValue, format!("{at}/{field}"), message).hint = Some("leave it out".to_owned());
        }
    };
    if *to != LogSinkSpec::File {
        superfluous("path", path.is_some(), "`to: file`");
    }
    if *to != LogSinkSpec::Otlp {
        superfluous("provider", provider.is_some(), "`to: otlp`");
    }
    if *to == LogSinkSpec::ControlPlane {
        superfluous("format", format.is_some(), "other logs: the control plane gets every field");
    }
    if *format != Some(LogFormatSpec::Template) {
        superfluous("template", template.is_some(), "`format: template`");
    }
    let format = match format {
        None | Some(LogFormatSpec::Json) => LogFormat::Json,
        Some(LogFormatSpec::Text) => LogFormat::Text,
        Some(LogFormatSpec::Template) => match template {
            None => {
                report.error(Code::MissingField, at, "missing field \"template\"");
                LogFormat::Text
            }
            Some(line) => {
                if let Err((message, hint)) = template::check(line) {
                    report.error(Code::InvalidValue, format!("{at}/template"), message).hint = hint;
                }
                LogFormat::Template(line.clone())
            }
        },
    };
    let when = when.as_ref().map(|when| self::when(when, &format!("{at}/when"), report)).unwrap_or_default();
    let to = match to {
        LogSinkSpec::Stdout => LogSink::Stdout(format),
        LogSinkSpec::ControlPlane => LogSink::ControlPlane,
        LogSinkSpec::File => {
            let Some(path) = path else {
                report.error(Code::MissingField, at, "missing field \"path\"");
                return None;
            };
            if !path.starts_with('/') || path.ends_with('/') || path.chars().any(char::is_control) {
                let message = format!("{path:?} is no absolute path of a file");
                report.error(Code::InvalidValue, format!("{at}/path"), message);
            }
            LogSink::File(path.clone(), format)
        }
        LogSinkSpec::Otlp => {
            let pointer = format!("{at}/provider");
            let logs = |provider: &crate::mesh::TelemetryProvider| provider.language == crate::mesh::Language::Otlp;
            let provider = providers::provider(known.providers, provider.as_ref(), logs, &pointer, report)?;
            LogSink::Otlp(providers::collector(provider, known.services, &pointer, report)?, format)
        }
    };
    Some(AccessLog { to, when, sample: sample.unwrap_or(Percent::ALL) })
}

fn when(written: &LogWhenSpec, at: &str, report: &mut Report<'_>) -> LogWhen {
    LogWhen {
        status: written.status.map(|is| (is.comparison, is.status)),
        duration: written.duration.map(|is| {
            let Span(span) = is.span;
            (is.comparison, span)
        }),
        headers: headers(&written.headers, &format!("{at}/headers"), report),
        errors: written.errors,
    }
}

// === impl Policies ===

impl Policies {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes up changes of TelemetryPolicies.
    pub(super) fn follow(&mut self, changes: &[Change<Policy>]) {
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            self.0.remove(&kept.value.reach);
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            self.0.put(&kept.value.reach, Arc::clone(&kept.value));
        }
    }

    /// What the proxies of `workload` say; `None` where no policy says anything.
    pub(super) fn observed(&self, workload: &Workload, providers: &Providers) -> Option<Observed> {
        let calls = above(Telemetry::built_in(), self.0.of_workload(workload));
        let serves = workload.serves.iter().map(|serve| {
            let telemetry = above(&calls, self.0.of_port(&serve.service, &serve.port));
            // Telling a provider of what it was told would never end.
            let tells = telemetry.collectors().next().is_some() && providers::is_told(providers, &serve.service);
            if tells { Arc::new(telemetry.untold()) } else { telemetry }
        });
        let observed = Observed { serves: serves.collect(), calls };
        let built_in = Telemetry::built_in();
        let says_nothing = [&observed.calls].into_iter().chain(&observed.serves).all(|one| Arc::ptr_eq(one, built_in));
        (!says_nothing).then_some(observed)
    }
}

/// What `policies` make of `below`, the last one above the others.
fn above<'a>(below: &Arc<Telemetry>, policies: impl Iterator<Item = &'a Arc<Policy>>) -> Arc<Telemetry> {
    let mut policies = policies.peekable();
    if policies.peek().is_none() {
        return Arc::clone(below);
    }
    let mut telemetry = below.as_ref().clone();
    policies.for_each(|policy| policy.layer.apply(&mut telemetry));
    Arc::new(telemetry)
}

// === impl Layer ===

impl Layer {
    /// Puts what is written in place of what there is.
    fn apply(&self, telemetry: &mut Telemetry) {
        let Telemetry { access_logs, provider, percent, tags, labels, drop } = telemetry;
        let written = |field: &str| RuleRef::new(self.key.clone(), format!("/spec/{field}"));
        access_logs.settle(self.access_logs.clone(), Vec::new, || written("accessLogs"));
        provider.settle(self.provider.clone().map(Some), || None, || written("tracing/provider"));
        percent.settle(self.percent, || Percent::ALL, || written("tracing/percent"));
        drop.settle(self.drop.clone(), Default::default, || written("metrics/drop"));
        named(tags, &self.tags, |name| written(&format!("tracing/tags/{name}")));
        named(labels, &self.labels, |name| written(&format!("metrics/labels/{name}")));
    }
}

/// As [`Layer::apply`], name by name.
fn named(
    place: &mut BTreeMap<String, Sourced<TagValue>>,
    written: &Setting<Values>,
    origin: impl Fn(std::borrow::Cow<'_, str>) -> RuleRef,
) {
    match written {
        Setting::Inherit => {}
        Setting::BuiltIn => place.clear(),
        Setting::Given(values) => {
            for (name, value) in values {
                match value {
                    Some(value) => {
                        let origin = origin(escaped(name).into());
                        place.insert(name.clone(), Sourced::from_rule(value.clone(), origin));
                    }
                    None => {
                        place.remove(name);
                    }
                }
            }
        }
    }
}

/// Warns of a policy for `workloads` with labels that none of them carries, or that one of them carries beside the labels
/// of a rival.
pub(super) fn warn<'a>(
    policy: &Policy,
    rivals: &[(&QualifiedName, &Reach)],
    workloads: impl Iterator<Item = &'a Workload>,
    report: &mut Report<'_>,
) {
    let Reach::Workloads(namespace, _) = &policy.reach else { return };
    let mut taken = workloads.filter(|workload| policy.reach.takes(workload)).peekable();
    if taken.peek().is_none() {
        let message = format!("no workload of {namespace} has these labels");
        report.warning(Code::NoEffect, "/spec/target/labels", message);
    }
    let mut between = String::new();
    for workload in taken {
        for (rival, reach) in rivals.iter().filter(|(_, reach)| reach.takes(workload)) {
            if between.is_empty() && policy.reach.rivals(reach) {
                _ = write!(between, "TelemetryPolicy {rival} takes {} too, by as many labels", workload.name);
            }
        }
    }
    if !between.is_empty() {
        report.warning(Code::Conflict, "/spec/target/labels", between).hint =
            Some("give one of them more labels, or let them say different things".to_owned());
    }
}
