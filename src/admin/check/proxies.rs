//! The group `proxies`: whether each has what it should have, and says what it should say.
//!
//! Owns: those checks. May use: the facts. Never: asks a proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use translators::name::RuleRef;

use super::{Facts, Found, Rule, none_of};
use crate::report::Proxy;

pub(super) const CHECKS: [Rule; 7] = [
    ("proxies", "connected", connected),
    ("proxies", "refusals", refusals),
    ("proxies", "in sync", in_sync),
    ("proxies", "node ids", node_ids),
    ("proxies", "size of responses", sizes),
    ("proxies", "metrics", metrics),
    ("proxies", "load reports", loads),
];

/// A proxy answers in this time: an Envoy waits 15 s for endpoints before it accepts a cluster without them.
const ANSWERS: Duration = Duration::from_secs(30);
/// A proxy reports in this time after it has connected.
const REPORTS: Duration = Duration::from_secs(60);

fn connected(facts: &Facts) -> Found {
    match facts.proxies.len() {
        0 => Found::doubtful(
            "no proxy is connected",
            "`chancery bootstrap --workload NS/NAME` makes the configuration of one",
        ),
        1 => Found::Well("1 stream of proxies".to_owned()),
        many => Found::Well(format!("{many} streams of proxies")),
    }
}

fn refusals(facts: &Facts) -> Found {
    let mut those = Vec::new();
    for proxy in &facts.proxies {
        for (kind, of) in &proxy.types {
            for rejection in &of.rejections {
                let resources: Vec<&str> = rejection.resources.iter().map(|name| &**name).collect();
                let rules: Vec<String> = rejection.rules.iter().map(|rule| written(facts, rule)).collect();
                let from = if rules.is_empty() { String::new() } else { format!(" <- {}", rules.join(", ")) };
                let (node, service, what) = (&proxy.node, kind.service(), resources.join(", "));
                those.push(format!("{node} {service} {what}: {}{from}", rejection.reason));
            }
        }
    }
    none_of("no proxy refuses anything", ("refusal", "refusals"), &those, |detail| {
        Found::bad(detail, "mend the rule behind each; `chancery nacks` lists them")
    })
}

fn written(facts: &Facts, rule: &RuleRef) -> String {
    match (facts.status.locate)(rule) {
        Some(place) => format!("{} ({}:{})", rule.object, place.file, place.line),
        None => rule.object.to_string(),
    }
}

/// What it refuses counts elsewhere.
fn in_sync(facts: &Facts) -> Found {
    let late = facts.proxies.iter().flat_map(|proxy| {
        proxy.types.iter().filter_map(move |(kind, of)| {
            let waited = facts.instant.saturating_duration_since(of.unanswered?);
            (waited > ANSWERS).then(|| format!("{} {} for {} s", proxy.node, kind.service(), waited.as_secs()))
        })
    });
    let those: Vec<String> = late.collect();
    let words = ("response is not answered", "responses are not answered");
    none_of("every proxy answers what it is sent", words, &those, |detail| {
        Found::doubtful(
            detail,
            "the proxy is stuck, or waits for something else: its own log and /config_dump say for what",
        )
    })
}

fn node_ids(facts: &Facts) -> Found {
    let mut addresses: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    for proxy in &facts.proxies {
        addresses.entry(&proxy.node).or_default().insert(proxy.address);
    }
    let twice = addresses.into_iter().filter(|(_, addresses)| addresses.len() > 1);
    let those = twice.map(|(node, addresses)| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("{node} at {}", addresses.join(", "))
    });
    let those: Vec<String> = those.collect();
    let words = ("node id is used from several addresses at once", "node ids are used from several addresses at once");
    none_of("each node id is used from one address", words, &those, |detail| {
        Found::doubtful(detail, "give each proxy a node id of its own: `chancery bootstrap --node-id`")
    })
}

fn sizes(facts: &Facts) -> Found {
    let large = facts.proxies.iter().flat_map(|proxy| {
        let large = proxy.types.iter().filter(|(_, of)| of.large > 0);
        large.map(move |(kind, of)| {
            format!("{} {} ({} responses, {})", proxy.node, kind.service(), of.large, proxy.protocol)
        })
    });
    let those: Vec<String> = large.collect();
    let words = ("stream had responses above 4 MiB", "streams had responses above 4 MiB");
    none_of("every response is below the 4 MiB that gRPC clients take", words, &those, |detail| {
        let hint = "a client that is not told otherwise takes no more: let it ask for changes only (DELTA_GRPC), whose \
                    responses are split, or raise its limit";
        Found::doubtful(detail, hint)
    })
}

fn metrics(facts: &Facts) -> Found {
    silent(facts, &facts.metrics, "its metrics", "their metrics", "stats_sinks")
}

fn loads(facts: &Facts) -> Found {
    silent(facts, &facts.loads, "its load", "their load", "load_stats_config")
}

/// Envoys with a bootstrap of ours that do not report, though they are connected long enough.
fn silent(facts: &Facts, reporters: &BTreeSet<Arc<str>>, its: &str, their: &str, field: &str) -> Found {
    let age = |proxy: &Proxy| facts.now.duration_since(proxy.connected).unwrap_or_default();
    let ours = |proxy: &&Proxy| proxy.proven && proxy.owner.workload().is_some() && !proxy.envoy.is_empty();
    let silent = facts.proxies.iter().filter(ours).filter(|proxy| age(proxy) > REPORTS);
    let silent = silent.filter(|proxy| !reporters.contains(proxy.node.as_str()));
    let silent: BTreeSet<&str> = silent.map(|proxy| proxy.node.as_str()).collect();
    let those: Vec<String> = silent.into_iter().map(str::to_owned).collect();
    let words = (format!("proxy does not report {its}"), format!("proxies do not report {their}"));
    let well = format!("every proxy with a certificate reports {its}");
    none_of(&well, (&words.0, &words.1), &those, |detail| {
        Found::doubtful(detail, format!("its bootstrap has no {field}: make it again with `chancery bootstrap`"))
    })
}
