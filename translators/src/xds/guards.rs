//! Guards: what in a resource protects, so that nothing takes it away unsaid.
//!
//! Owns: which parts those are. May use: proto-JSON. Never: knows whether they are right.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The packages of filters that let pass or refuse, and of TLS.
const PACKAGES: [&str; 6] = [
    "envoy.extensions.filters.http.rbac.",
    "envoy.extensions.filters.network.rbac.",
    "envoy.extensions.filters.http.jwt_authn.",
    "envoy.extensions.filters.http.ext_authz.",
    "envoy.extensions.filters.network.ext_authz.",
    "envoy.extensions.transport_sockets.tls.",
];
/// What turns a filter off for a route.
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// What protects in a resource, and how often it is there.
#[derive(Debug, Default)]
pub(super) struct Guards {
    guards: BTreeMap<(String, String), usize>,
    /// What routes say otherwise of filters that protect.
    overrides: BTreeMap<(String, String), usize>,
    /// The filter chains, and how many of them have nothing that protects.
    open_chains: usize,
}

// === impl Guards ===

impl Guards {
    /// Those of `message`.
    pub(super) fn of(message: &Map<String, Value>) -> Self {
        let mut guards = Self::default();
        guards.object(message);
        let chains = message.get("filter_chains").and_then(Value::as_array).into_iter().flatten();
        let is_open = |chain: &&Value| {
            let mut within = Self::default();
            within.visit(chain);
            within.guards.is_empty()
        };
        guards.open_chains = chains.filter(is_open).count();
        guards
    }

    /// What of these is no more in `after`, or not as it was: types, each once.
    pub(super) fn lost(&self, after: &Self) -> Vec<String> {
        let fewer =
            |(guard, count): &(&(String, String), &usize)| after.guards.get(*guard).is_none_or(|now| now < count);
        let more =
            |(guard, count): &(&(String, String), &usize)| self.overrides.get(*guard).is_none_or(|then| then < count);
        let gone = self.guards.iter().filter(fewer).map(|((name, _), _)| name.clone());
        let turned = after.overrides.iter().filter(more).map(|((name, _), _)| name.clone());
        let mut lost: Vec<String> = gone.chain(turned).collect();
        if !self.guards.is_empty() && after.open_chains > self.open_chains {
            lost.push("a filter chain without any of the others' protection".to_owned());
        }
        lost.sort();
        lost.dedup();
        lost
    }

    fn visit(&mut self, value: &Value) {
        match value {
            Value::Object(members) => self.object(members),
            Value::Array(items) => items.iter().for_each(|item| self.visit(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn object(&mut self, members: &Map<String, Value>) {
        if let Some(config) = members.get("typed_config")
            && let Some(name) = protecting(config)
        {
            // All of it: a filter can be turned off beside its configuration.
            let all = serde_json::to_string(members).unwrap_or_default();
            *self.guards.entry((name.to_owned(), all)).or_default() += 1;
            return;
        }
        for (name, value) in members {
            match (name.as_str(), value) {
                ("typed_per_filter_config", Value::Object(configs)) => {
                    for (filter, config) in configs {
                        let of_guard = protecting(config).or_else(|| type_of(config).filter(|of| *of == FILTER_CONFIG));
                        if of_guard.is_some() {
                            *self.overrides.entry((filter.clone(), config.to_string())).or_default() += 1;
                        }
                    }
                }
                _ => self.visit(value),
            }
        }
    }
}

fn type_of(any: &Value) -> Option<&str> {
    any.get("@type")?.as_str()?.rsplit('/').next()
}

/// The type of `any`, if it is one that protects.
fn protecting(any: &Value) -> Option<&str> {
    type_of(any).filter(|name| PACKAGES.iter().any(|package| name.starts_with(package)))
}
