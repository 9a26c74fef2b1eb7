//! Telemetry: what proxies say of requests, and to whom.
//!
//! Owns: logs, traces and labels as they hold for one port or for the calls of one workload, every field with its origin.
//! May use: `name`, `route`. Never: Envoy's types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Authorities, Percent, Sourced, TextMatch};
use crate::name::{QualifiedName, RuleRef};

/// What the proxies of a workload say, as far as policies say anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// Of what it calls.
    pub calls: Arc<Telemetry>,
    /// Of what it serves, in the order of its `serves`.
    pub serves: Vec<Arc<Telemetry>>,
}

/// What is said of the requests of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Telemetry {
    /// Where they are logged.
    pub access_logs: Sourced<Vec<AccessLog>>,
    /// Where their spans go; `None` is nowhere.
    pub provider: Sourced<Option<Collector>>,
    /// How many of those that come without a trace begin one.
    pub percent: Sourced<Percent>,
    /// What spans say beside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Sourced<TagValue>>,
    /// Further labels of the counter of requests.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Sourced<TagValue>>,
    /// What is not counted.
    pub drop: Sourced<BTreeSet<Dropped>>,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessLog {
    /// Where it goes.
    pub to: LogSink,
    /// Which requests.
    #[serde(skip_serializing_if = "LogWhen::is_all")]
    pub when: LogWhen,
    /// How many of them.
    pub sample: Percent,
}

/// Where a log goes, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogSink {
    /// The standard output of the proxy.
    Stdout(LogFormat),
    /// A file beside the proxy.
    File(String, LogFormat),
    /// A provider.
    Otlp(Collector, LogFormat),
    /// The control plane.
    ControlPlane,
}

/// How an entry is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// As JSON.
    Json,
    /// As a line.
    Text,
    /// With Envoy's commands, each of which it knows.
    Template(String),
}

/// Which requests are logged; all conditions hold for them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LogWhen {
    /// Their status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<(Comparison, u16)>,
    /// How long they took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<(Comparison, Duration)>,
    /// Their headers, by names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextMatch>,
    /// Only those that failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub errors: bool,
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Comparison {
    /// The same.
    Is,
    /// Another one.
    Not,
    /// This or more.
    AtLeast,
    /// This or less.
    AtMost,
    /// More.
    Above,
    /// Less.
    Below,
}

/// The value of a tag or label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TagValue {
    /// Always the same.
    Literal(String),
    /// What the header of this lower-case name says.
    Header(String),
    /// What this variable of the proxy's environment says.
    Environment(String),
}

/// What is not counted of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dropped {
    /// Requests at all.
    Requests,
    /// Whom an audit would refuse.
    Audited,
    /// Who called.
    Caller,
    /// Which version answered.
    Version,
    /// Why the proxy cut a request short; on tcp ports, where nothing else tells a failure, it stays.
    Flags,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TelemetryProvider {
    /// `/spec/telemetryProviders/N` of the Mesh.
    pub origin: RuleRef,
    /// Its name.
    pub name: String,
    /// What it understands.
    pub language: Language,
    /// Where it is.
    pub at: CollectorAt,
}

/// What a collector understands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Language {
    /// OpenTelemetry over gRPC.
    Otlp,
    /// Spans of Zipkin as JSON, sent to this path.
    Zipkin(String),
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CollectorAt {
    /// At an address.
    Address {
        /// A name, or an address without brackets.
        host: String,
        /// The port.
        port: NonZeroU16,
        /// Who vouches for it, by TLS; `None` is without.
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Authorities>,
    },
    /// Behind a service of the mesh.
    Service {
        /// The service.
        service: QualifiedName,
        /// The name of its port; `None` is its only one.
        port: Option<String>,
    },
}

/// A provider, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Collector {
    /// Who is told.
    pub provider: Arc<TelemetryProvider>,
    /// The service and the name of its port, of a provider that is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<(QualifiedName, String)>,
}

// === impl Telemetry ===

impl Default for Telemetry {
    /// Every built-in default.
    fn default() -> Self {
        Self {
            access_logs: Sourced::built_in(Vec::new()),
            provider: Sourced::built_in(None),
            percent: Sourced::built_in(Percent::ALL),
            tags: BTreeMap::new(),
            labels: BTreeMap::new(),
            drop: Sourced::built_in(BTreeSet::new()),
        }
    }
}

impl Telemetry {
    /// What is said where no policy says anything.
    pub fn built_in() -> &'static Arc<Self> {
        static BUILT_IN: LazyLock<Arc<Telemetry>> = LazyLock::new(Arc::default);
        &BUILT_IN
    }

    /// Where the values come from that are not built in, providers included.
    pub fn origins(&self) -> impl Iterator<Item = &RuleRef> {
        let Self { access_logs, provider, percent, tags, labels, drop } = self;
        let named = tags.values().chain(labels.values()).filter_map(|value| value.origin.as_ref());
        let fields = [&access_logs.origin, &provider.origin, &percent.origin, &drop.origin];
        let providers = self.collectors().map(|collector| &collector.provider.origin);
        fields.into_iter().flatten().chain(named).chain(providers)
    }

    /// Every provider that is told something.
    pub fn collectors(&self) -> impl Iterator<Item = &Collector> {
        let of_logs = self.access_logs.value.iter().filter_map(|log| match &log.to {
            LogSink::Otlp(collector, _) => Some(collector),
            LogSink::Stdout(_) | LogSink::File(..) | LogSink::ControlPlane => None,
        });
        of_logs.chain(&self.provider.value)
    }

    /// Whether anything is logged in the language of OpenTelemetry.
    pub fn logs_by_otlp(&self) -> bool {
        self.access_logs.value.iter().any(|log| matches!(log.to, LogSink::Otlp(..)))
    }

    /// The same, but that no provider is told anything.
    pub fn untold(&self) -> Self {
        let mut untold = self.clone();
        untold.access_logs.value.retain(|log| !matches!(log.to, LogSink::Otlp(..)));
        untold.provider.value = None;
        untold
    }
}

// === impl LogWhen ===

impl LogWhen {
    /// Whether it takes every request.
    fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Comparison ===

impl fmt::Display for Comparison {
    /// The sign; none where both are the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Is => "",
            Self::Not => "!=",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::Below => "<",
        })
    }
}
