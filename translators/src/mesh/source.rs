//! Sources: who sends a request, as far as rules tell senders apart.
//!
//! Owns: which callers a rule is about, and a route as callers of one kind follow it. May use: `name`, `route`. Never: Envoy's
//! types.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::{HttpMatch, HttpRoute, HttpRule, Network, Workload};
use crate::name::{Label, QualifiedName, SpiffeId};

/// Who sends requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The workloads of a namespace.
    Namespace(Label),
    /// The workloads that serve a service.
    Service(QualifiedName),
    /// The workloads of an identity.
    Identity(SpiffeId),
    /// Clients of a gateway that connect from there.
    Ip(Network),
}

/// What of the sources that a route tells apart some callers are; `None` where it tells none apart.
pub type Senders = Option<Arc<BTreeSet<Source>>>;

// === impl Source ===

impl Source {
    /// Whether the calls of `workload` come from there.
    pub fn takes(&self, workload: &Workload) -> bool {
        match self {
            Self::Namespace(namespace) => workload.name.namespace == *namespace,
            Self::Service(service) => workload.serves.iter().any(|serve| serve.service == *service),
            Self::Identity(identity) => workload.identity == *identity,
            Self::Ip(_) => false,
        }
    }
}

// === impl HttpMatch ===

impl HttpMatch {
    /// Whether it takes anything of senders who are these.
    fn is_for(&self, senders: &BTreeSet<Source>) -> bool {
        self.from.as_ref().is_none_or(|from| !from.is_disjoint(senders))
    }
}

// === impl HttpRule ===

impl HttpRule {
    /// Who is told apart by it.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.matches.iter().filter_map(|one| one.from.as_deref()).flatten()
    }

    /// The rule as `senders` follow it; `None` where it is not about them.
    pub fn followed_by(&self, senders: &Senders) -> Option<Cow<'_, Self>> {
        let Some(senders) = senders.as_ref().filter(|_| self.sources().next().is_some()) else {
            return Some(Cow::Borrowed(self));
        };
        let about = self.matches.iter().filter(|one| one.is_for(senders));
        let matches: Vec<HttpMatch> = about.map(|one| HttpMatch { from: None, ..one.clone() }).collect();
        (!matches.is_empty()).then(|| Cow::Owned(Self { matches, ..self.clone() }))
    }

    /// Whether it is about the calls of `workload`.
    pub fn is_about(&self, workload: &Workload) -> bool {
        let is_one = |from: &BTreeSet<Source>| from.iter().any(|source| source.takes(workload));
        self.matches.is_empty() || self.matches.iter().any(|one| one.from.as_deref().is_none_or(is_one))
    }
}

// === impl HttpRoute ===

impl HttpRoute {
    /// What the callers of `workload` are of the sources that it tells apart.
    pub fn senders(&self, workload: &Workload) -> Senders {
        let mut sources = self.rules.iter().flat_map(HttpRule::sources).peekable();
        sources.peek()?;
        Some(Arc::new(sources.filter(|source| source.takes(workload)).cloned().collect()))
    }
}
