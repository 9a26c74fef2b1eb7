//! Connections told apart: by the host that a client names in its handshake, and by where it comes from.
//!
//! Owns: which filter chain of a listener takes a connection. May use: `listener` for the inspector, `tcp`. Never: what a
//! chain does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::extensions::matching::common_inputs::network::v3 as input_pb;
use proto::envoy::extensions::matching::input_matchers::ip::v3 as ip_pb;
use proto::google::protobuf as google_pb;
use proto::xds::core::v3 as extension_pb;
use proto::xds::r#type::matcher::v3 as matcher_pb;

use super::{listener, tcp, wire};
use crate::mesh::{HostMatch, Network, TcpRule};

use matcher_pb::matcher::matcher_list::predicate::{MatchType, PredicateList, SinglePredicate, single_predicate};
use matcher_pb::matcher::matcher_list::{FieldMatcher, Predicate};
use matcher_pb::matcher::{MatcherList, MatcherType, OnMatch, on_match};

/// How long a client may take until it has said which host it asks for.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The name of the chain that closes what another one's rules leave over.
pub(super) const REFUSED: &str = "refused";

/// Which connections one chain takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    /// The name of the chain.
    pub(super) chain: &'a str,
    /// The hosts that clients name; empty is anything, TLS or not.
    pub(super) names: &'a BTreeSet<HostMatch>,
    /// The addresses that they come from; empty is any.
    pub(super) networks: &'a BTreeSet<Network>,
}

/// What is tried first is less; what needs no name comes last.
type Order<'a> = (Reverse<(u8, usize)>, Option<&'a HostMatch>);

// === impl Way ===

impl<'a> Way<'a> {
    /// The way of `rule`, the chain of which is called as it is.
    pub(super) fn of(rule: &'a TcpRule) -> Self {
        Self { chain: &rule.name, names: &rule.names, networks: &rule.networks }
    }
}

/// `listener`, whose chains are taken by `ways`: those of the host that says most first, and of these the first. What none
/// takes has no chain, and is closed.
pub(super) fn told_apart(listener: listener_pb::Listener, ways: &[Way<'_>]) -> listener_pb::Listener {
    let none = None;
    let mut groups: BTreeMap<Order<'_>, Vec<Way<'_>>> = BTreeMap::new();
    for way in ways {
        let names = way.names.iter().map(Some).chain(way.names.is_empty().then_some(none));
        for name in names {
            let of_name = groups.entry((Reverse(specificity(name)), name)).or_default();
            // Behind one that takes everything nothing is reached.
            if of_name.last().is_none_or(|last| !last.networks.is_empty()) {
                of_name.push(*way);
            }
        }
    }
    let reached: BTreeSet<&str> = groups.values().flatten().map(|way| way.chain).collect();
    let named = groups.keys().any(|(_, name)| name.is_some());
    let of_listener = listener.filter_chains.into_iter().filter(|chain| reached.contains(chain.name.as_str()));
    let refusing = reached.contains(REFUSED).then(refused);
    let mut listener = listener_pb::Listener { filter_chains: of_listener.chain(refusing).collect(), ..listener };
    if named {
        listener.listener_filters = vec![listener::inspector()];
        listener.listener_filters_timeout = Some(wire::duration(HANDSHAKE));
    }
    let plain = groups.values().flatten().all(|way| way.networks.is_empty());
    let matched = |name: &Option<&HostMatch>| matches!(name, Some(HostMatch::Exact(_) | HostMatch::Under(_)));
    if !named && plain {
        return listener;
    }
    if plain && groups.keys().all(|(_, name)| matched(name)) {
        for chain in &mut listener.filter_chains {
            let of_chain = groups.iter().filter(|(_, ways)| ways.iter().any(|way| way.chain == chain.name));
            chain.filter_chain_match = Some(listener_pb::FilterChainMatch {
                server_names: of_chain.filter_map(|((_, name), _)| Some(name.as_ref()?.to_string())).collect(),
                transport_protocol: "tls".into(),
                ..Default::default()
            });
        }
        return listener;
    }
    // Only a matcher knows every name from none, and tries one address after the other.
    let (mut matchers, mut refuses, mut otherwise) = (Vec::new(), false, None);
    for ((_, name), ways) in &groups {
        for way in ways {
            match predicate(*name, way.networks) {
                Some(predicate) => matchers.push(field(predicate, way.chain)),
                None => otherwise = Some(way.chain),
            }
        }
        let is_open = ways.last().is_some_and(|last| !last.networks.is_empty());
        if let Some(predicate) = predicate(*name, &BTreeSet::new()).filter(|_| is_open) {
            matchers.push(field(predicate, REFUSED));
            refuses = true;
        }
    }
    if refuses && !reached.contains(REFUSED) {
        listener.filter_chains.push(refused());
    }
    let list = (!matchers.is_empty()).then_some(MatcherType::MatcherList(MatcherList { matchers }));
    let on_no_match = otherwise.map(|chain| Box::new(chosen(chain)));
    listener.filter_chain_matcher = Some(matcher_pb::Matcher { matcher_type: list, on_no_match });
    listener
}

/// The chain that closes.
fn refused() -> listener_pb::FilterChain {
    listener_pb::FilterChain { name: REFUSED.into(), filters: vec![tcp::refusal()], ..Default::default() }
}

/// What is tried first is greater.
fn specificity(name: Option<&HostMatch>) -> (u8, usize) {
    match name {
        None => (0, 0),
        Some(HostMatch::Any) => (1, 0),
        Some(HostMatch::Under(domain)) => (2, domain.len()),
        Some(HostMatch::Exact(host)) => (3, host.len()),
    }
}

/// That a connection is for `name` and from one of `networks`; `None` is every connection.
fn predicate(name: Option<&HostMatch>, networks: &BTreeSet<Network>) -> Option<Predicate> {
    let by_network = (!networks.is_empty()).then(|| from(networks));
    let mut parts: Vec<Predicate> = name.map(by_name).into_iter().chain(by_network).collect();
    match parts.len() {
        0 | 1 => parts.pop(),
        _ => Some(Predicate { match_type: Some(MatchType::AndMatcher(PredicateList { predicate: parts })) }),
    }
}

fn by_name(name: &HostMatch) -> Predicate {
    use matcher_pb::regex_matcher::{EngineType, GoogleRe2};
    use matcher_pb::string_matcher::MatchPattern;
    let pattern = match name {
        HostMatch::Exact(host) => MatchPattern::Exact(host.clone()),
        HostMatch::Under(domain) => MatchPattern::Suffix(format!(".{domain}")),
        HostMatch::Any => MatchPattern::SafeRegex(matcher_pb::RegexMatcher {
            regex: ".+".into(),
            engine_type: Some(EngineType::GoogleRe2(GoogleRe2::default())),
        }),
    };
    let value = matcher_pb::StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    let input = extension("server_name", &input_pb::ServerNameInput {});
    single(input, single_predicate::Matcher::ValueMatch(value))
}

/// The other end of the connection, never what a header says.
fn from(networks: &BTreeSet<Network>) -> Predicate {
    let ip = ip_pb::Ip {
        cidr_ranges: networks.iter().map(|network| wire::range(*network)).collect(),
        stat_prefix: "connections".into(),
    };
    let input = extension("source", &input_pb::DirectSourceIpInput {});
    single(input, single_predicate::Matcher::CustomMatch(extension("envoy.matching.matchers.ip", &ip)))
}

fn single(input: extension_pb::TypedExtensionConfig, matcher: single_predicate::Matcher) -> Predicate {
    let single = SinglePredicate { input: Some(input), matcher: Some(matcher) };
    Predicate { match_type: Some(MatchType::SinglePredicate(single)) }
}

fn field(predicate: Predicate, chain: &str) -> FieldMatcher {
    FieldMatcher { predicate: Some(predicate), on_match: Some(chosen(chain)) }
}

fn chosen(chain: &str) -> OnMatch {
    let name = google_pb::StringValue { value: chain.to_owned() };
    OnMatch { on_match: Some(on_match::OnMatch::Action(extension("chain", &name))), ..Default::default() }
}

fn extension<M: prost::Message + prost::Name>(name: &str, config: &M) -> extension_pb::TypedExtensionConfig {
    extension_pb::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(wire::any(config)) }
}
