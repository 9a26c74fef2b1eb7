//! Routing: which rule takes a request or a connection, and what becomes of it.
//!
//! Owns: rules, matches, actions, changes, retries and destinations as they are resolved. May use: `name`, and the scalars
//! of `rules`. Never: Envoy's types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{HashOn, Source, Sourced};
use crate::name::{Label, QualifiedName, RuleRef};
pub use crate::rules::route::Scheme;
pub use crate::rules::scalar::Percent;

/// Which callers a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consumer {
    /// Every caller for whose namespace there is no route of its own.
    Everyone,
    /// The callers of this namespace.
    Namespace(Label),
}

/// The HTTP routing of one port: the first rule that matches decides; no match is a 404.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpRoute {
    /// The TrafficRoute; `None` when no rule says anything and all requests go to the service itself.
    pub origin: Option<RuleRef>,
    /// The rules, in order.
    pub rules: Vec<HttpRule>,
}

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpRule {
    /// The rule as written: `/spec/http/N`.
    pub origin: Option<RuleRef>,
    /// Its name: as written, or `rule-N`, or `default`.
    pub name: String,
    /// The alternatives; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What is done with a request.
    #[serde(flatten)]
    pub action: HttpAction,
    /// What is changed on the way.
    #[serde(flatten)]
    pub changes: Changes,
    /// Who gets a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// What is done to requests before they are sent on.
    #[serde(flatten)]
    pub checks: Checks,
    /// In what the requests are alike that stay at one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<HashOn>,
    /// How long a request may take as a whole; `None` is without limit.
    pub timeout: Sourced<Option<Duration>>,
    /// What is repeated.
    pub retry: Sourced<Retry>,
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpAction {
    /// It goes to one of these; never empty, and not all weights are 0.
    To(Vec<WeightedDestination>),
    /// Its sender is told to go elsewhere.
    Redirect(Redirect),
    /// It is answered at once.
    Respond(Respond),
}

/// Where the sender of a request is told to go; `None` stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host.
    pub host: Option<String>,
    /// The port.
    pub port: Option<NonZeroU16>,
    /// The path.
    pub path: Option<PathChange>,
    /// The status: 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// An answer without a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Respond {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// What is changed of a request on its way, and of its response.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Changes {
    /// The host of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// The headers of the request.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request: HeaderChanges,
    /// The headers of the response.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response: HeaderChanges,
}

/// How a path becomes another. The query stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathChange {
    /// The whole of it.
    Whole(String),
    /// The prefix that every alternative of the rule's match names.
    Prefix(String),
    /// Every part that a pattern takes.
    Regex {
        /// RE2.
        pattern: String,
        /// What takes its place.
        substitution: String,
    },
}

/// Changes of headers, by lower-case name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HeaderChanges {
    /// There with this value alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// There with this value beside others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Not there.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
}

/// Who gets a copy of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// Where the copies go.
    pub to: Destination,
    /// Of how many requests.
    pub percent: Percent,
}

/// What is done to requests before they are sent on, in this order. Most rules do nothing of it, so it takes little room.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// Which pages of other origins may read answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Box<Cors>>,
    /// What goes wrong on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Box<Fault>>,
    /// How many are sent at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Box<RateLimit>>,
}

/// Which pages of other origins may read answers in a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cors {
    /// The origins; `Present` is any.
    pub origins: Vec<TextMatch>,
    /// The methods.
    pub methods: Vec<String>,
    /// The headers that they may send.
    pub headers: Vec<String>,
    /// The headers that they may read.
    pub expose: Vec<String>,
    /// How long that is remembered, in whole seconds.
    pub max_age: Option<Duration>,
    /// Whether cookies are sent.
    pub credentials: bool,
}

/// What goes wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// How many requests wait, and for how long.
    pub delay: Option<(Percent, Duration)>,
    /// How many requests fail, and with which status.
    pub abort: Option<(Percent, u16)>,
    /// Only requests with all of these.
    pub headers: BTreeMap<String, TextMatch>,
}

/// A bucket of `requests`, refilled evenly over `per`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// What it holds.
    pub requests: NonZeroU32,
    /// How long an empty one takes to be full.
    pub per: Duration,
    /// What has a bucket of its own; `None` is one bucket for all.
    pub key: Option<RateKey>,
}

/// What has a bucket of its own for each of its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RateKey {
    /// The identity of a caller.
    Caller,
    /// The address that a request comes from.
    Ip,
    /// The header of this lower-case name.
    Header(String),
}

/// One alternative of a match: every part must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct HttpMatch {
    /// The path; `None` is any.
    pub path: Option<PathMatch>,
    /// What the path begins with beside that, as [`PathMatch::Prefix`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The methods; empty is any.
    pub methods: BTreeSet<String>,
    /// The headers, by lower-case name.
    pub headers: BTreeMap<String, TextMatch>,
    /// The parameters of the query.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, TextMatch>,
    /// Who sends it; `None` is anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Arc<BTreeSet<Source>>>,
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments; with a trailing slash a prefix of the text.
    Prefix(String),
    /// RE2 over the whole path without the query.
    Regex(String),
    /// Segments, some of which are any.
    Template(String),
}

/// How the value of a header or a parameter is matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TextMatch {
    /// The whole value.
    Exact(String),
    /// The start of the value.
    Prefix(String),
    /// RE2 over the whole value.
    Regex(String),
    /// The header is there.
    Present,
    /// The header is not there.
    Absent,
}

/// A destination and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share among its siblings.
    pub weight: u32,
    /// The host that requests to it are for, unless their rule says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which headers of requests to it, and of their answers, are changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Box<(HeaderChanges, HeaderChanges)>>,
}

/// A port of a service, or those of its endpoints that carry some labels: one cluster of a caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Destination {
    /// The service.
    pub service: QualifiedName,
    /// The name of its port.
    pub port: String,
    /// The labels that an endpoint must carry; empty is all endpoints.
    pub labels: BTreeMap<String, String>,
    /// Whether requests that are alike stay at one endpoint, whatever the policy of balancing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}

/// What is repeated, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// Repetitions after the first try; 0 is none.
    pub attempts: u32,
    /// The conditions, without duplicates, in the order of [`RetryCondition`].
    pub when: BTreeSet<RetryCondition>,
    /// How long one try may take.
    pub per_try_timeout: Option<Duration>,
    /// The first pause between tries; the longest is ten times that.
    pub backoff: Option<Duration>,
}

/// When a request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryCondition {
    /// No connection.
    ConnectFailure,
    /// The endpoint refused the stream.
    RefusedStream,
    /// No response: reset, disconnect, or a try that timed out.
    Reset,
    /// 502, 503, 504.
    GatewayError,
    /// Any 5xx, or no response.
    #[serde(rename = "5xx")]
    ServerError,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// This HTTP status.
    Status(u16),
    /// The gRPC status of this name.
    Grpc(GrpcStatus),
}

/// The gRPC statuses that Envoy can repeat on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum GrpcStatus {
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

// === impl RateLimit ===

impl RateLimit {
    /// The shortest time that a bucket may take: Envoy refills it no more often.
    pub const SHORTEST: Duration = Duration::from_millis(50);
}

// === impl HttpRule ===

impl HttpRule {
    /// Where requests go; nothing if they go nowhere.
    pub fn to(&self) -> &[WeightedDestination] {
        match &self.action {
            HttpAction::To(to) => to,
            HttpAction::Redirect(_) | HttpAction::Respond(_) => &[],
        }
    }

    /// Whatever gets requests or copies of them.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let to = self.to().iter().map(|to| &to.destination);
        to.chain(self.mirror.as_ref().map(|mirror| &mirror.to))
    }
}

// === impl WeightedDestination ===

impl WeightedDestination {
    /// The only destination, with nothing said about it.
    pub fn only(destination: Destination) -> Self {
        Self { destination, weight: 1, host: None, headers: None }
    }

    /// Whether nothing is said but where to.
    pub fn is_plain(&self) -> bool {
        self.host.is_none() && self.headers.is_none()
    }
}

// === impl HeaderChanges ===

impl HeaderChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

// === impl Consumer ===

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::Namespace(namespace) => namespace.fmt(f),
        }
    }
}

impl Serialize for Consumer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Destination ===

/// `shop/cart/http`, or `shop/cart/http/track=a,version=v1`; at the end `+sticky` where it is.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.port)?;
        for (n, (key, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { "/" } else { "," })?;
        }
        if self.sticky {
            f.write_str("+sticky")?;
        }
        Ok(())
    }
}
