//! Access rules: the RBAC filters of every inbound chain.
//!
//! Owns: deny before allow before the default. May use: `text` for patterns. Never: the plaintext chain left
//! out: there a caller has no identity, and rules that name one do not match.

use std::collections::BTreeSet;

use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::config::rbac::v3 as rbac_pb;
use proto::envoy::extensions::filters::http::rbac::v3 as http_rbac_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::extensions::filters::network::rbac::v3 as network_rbac_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::http::http_filter;
use super::permission::{connections, header, requests};
use super::tcp::network_filter;
use super::{external, jwt, text, wire};
use crate::mesh::{Access, AccessDefault, AccessEntry, Caller, Network, Operation};
use crate::name::TrustDomain;

use rbac_pb::principal::Identifier;
use rbac_pb::rbac::Action;

/// The filter of HTTP chains, and the namespace of what it says of a request.
pub(super) const HTTP: &str = "envoy.filters.http.rbac";

/// The prefix of what the filter says that would refuse.
pub(super) const AUDIT_DENY: &str = "audit_deny_";
/// The prefix of what the filter says that would admit.
pub(super) const AUDIT_ALLOW: &str = "audit_allow_";

/// One RBAC filter: what it does with whom its entries name.
struct Filter<'a> {
    action: Action,
    /// The start of the names of its statistics, and of an audit's metadata.
    prefix: &'static str,
    entries: &'a [AccessEntry],
    /// What is admitted in any case.
    checks: Option<&'a AccessEntry>,
    /// Whether it only says what it would do.
    is_audit: bool,
}

/// On HTTP chains a denial is Envoy's 403. Who is asked about requests is asked of those that nothing else refuses.
pub(super) fn http(access: &Access, trust_domain: &TrustDomain) -> Vec<hcm_pb::HttpFilter> {
    let filter = |Filter { action, prefix, entries, checks, is_audit }| {
        let admitted = checks.filter(|_| action == Action::Allow);
        let spared = checks.filter(|_| action == Action::Deny).map(|checks| asking(checks, trust_domain));
        let policies = policies(entries.iter().chain(admitted), |entry| {
            Some(sparing(policy(entry, trust_domain, requests(&entry.to))?, spared.as_ref()))
        });
        let prefix = prefix.to_owned();
        let config = if is_audit {
            let filter = |shadow_rules, shadow_rules_stat_prefix| http_rbac_pb::Rbac {
                shadow_rules,
                shadow_rules_stat_prefix,
                ..Default::default()
            };
            let head = filter(Some(rules(action, None)), prefix);
            wire::in_order(&head, policies.map(|one| filter(Some(rules(action, Some(one))), String::new())))
        } else {
            let filter =
                |rules, rules_stat_prefix| http_rbac_pb::Rbac { rules, rules_stat_prefix, ..Default::default() };
            let head = filter(Some(rules(action, None)), prefix);
            wire::in_order(&head, policies.map(|one| filter(Some(rules(action, Some(one))), String::new())))
        };
        http_filter(HTTP, config)
    };
    let (enforced, audited): (Vec<_>, Vec<_>) = filters(access).partition(|filter| !filter.is_audit);
    let asking = external::filters(access, trust_domain);
    enforced.into_iter().map(filter).chain(asking).chain(audited.into_iter().map(filter)).collect()
}

/// On chains of bytes a denial closes the connection.
pub(super) fn network(access: &Access, trust_domain: &TrustDomain, stat_prefix: &str) -> Vec<listener_pb::Filter> {
    let filter = |Filter { action, prefix, entries, is_audit, .. }: Filter<'_>| {
        let policies = policies(entries.iter(), |entry| policy(entry, trust_domain, connections(entry)));
        let config = if is_audit {
            let filter = |shadow_rules| network_rbac_pb::Rbac { shadow_rules, ..Default::default() };
            let head = network_rbac_pb::Rbac {
                stat_prefix: stat_prefix.to_owned(),
                shadow_rules_stat_prefix: prefix.to_owned(),
                ..filter(Some(rules(action, None)))
            };
            wire::in_order(&head, policies.map(|one| filter(Some(rules(action, Some(one))))))
        } else {
            let filter = |rules, stat_prefix| network_rbac_pb::Rbac { rules, stat_prefix, ..Default::default() };
            let head = filter(Some(rules(action, None)), format!("{stat_prefix}/{prefix}"));
            wire::in_order(&head, policies.map(|one| filter(Some(rules(action, Some(one))), String::new())))
        };
        network_filter("envoy.filters.network.rbac", config)
    };
    filters(access).map(filter).collect()
}

/// Which identities the handshake of a chain takes. What a caller may do with a request is decided per request.
/// On chains of bytes Envoy decides when the first byte of the caller comes, and until then passes on what the
/// application says; so whom no entry admits must not get past the handshake. (A caller that only a deny entry
/// names does: there is no matcher for everybody else.)
pub(super) fn callers(access: &Access, trust_domain: &TrustDomain, is_http: bool) -> Vec<matcher_pb::StringMatcher> {
    let everybody = || wire::prefix(format!("spiffe://{trust_domain}/"));
    if is_http {
        return vec![everybody()];
    }
    if access.deny.iter().any(takes_everybody) {
        return vec![nobody(trust_domain)];
    }
    let allow = access.allow.iter().filter(|entry| !connections(entry).is_empty());
    match access.default.value {
        AccessDefault::Allow => vec![everybody()],
        AccessDefault::Deny if allow.clone().any(admits_strangers) => vec![everybody()],
        AccessDefault::Deny => {
            let callers: Vec<_> = allow.flat_map(|entry| identities(&entry.from, trust_domain)).collect();
            if callers.is_empty() { vec![nobody(trust_domain)] } else { callers }
        }
    }
}

/// Which connections of bytes without an identity are not refused whatever comes over them. As with [`callers`],
/// whom no entry admits must not get as far as the application.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Strangers {
    /// None.
    Refused,
    /// All but those from there.
    AllBut(BTreeSet<Network>),
    /// Those from the first, though not those of them from the second.
    Only(BTreeSet<Network>, BTreeSet<Network>),
}

/// Which connections without an identity may come.
pub(super) fn strangers(access: &Access) -> Strangers {
    if access.deny.iter().any(takes_everybody) {
        return Strangers::Refused;
    }
    let denied = networks(&access.deny);
    if access.default.value == AccessDefault::Allow || access.allow.iter().any(takes_everybody) {
        return Strangers::AllBut(denied);
    }
    let mut admitted = networks(&access.allow);
    admitted.retain(|network| !denied.iter().any(|denied| denied.contains(*network)));
    if admitted.is_empty() { Strangers::Refused } else { Strangers::Only(admitted, denied) }
}

/// From where these entries match every connection.
pub(super) fn networks(entries: &[AccessEntry]) -> BTreeSet<Network> {
    let of_connections = entries.iter().filter(|entry| !connections(entry).is_empty());
    let networks = of_connections.flat_map(|entry| &entry.from).filter_map(|caller| match caller {
        Caller::Ip(network) => Some(*network),
        Caller::Any | Caller::Identities(_) | Caller::Namespace(_) | Caller::Pattern(_) => None,
    });
    networks.collect()
}

/// Whether the entry matches every connection.
fn takes_everybody(entry: &AccessEntry) -> bool {
    is_anybody(&entry.from) && !connections(entry).is_empty()
}

/// Whether an entry about connections matches some without an identity.
fn admits_strangers(entry: &AccessEntry) -> bool {
    is_anybody(&entry.from) || entry.from.iter().any(|caller| matches!(caller, Caller::Ip(_)))
}

/// An identity without a path, which no certificate has.
fn nobody(trust_domain: &TrustDomain) -> matcher_pb::StringMatcher {
    wire::exact(format!("spiffe://{trust_domain}/"))
}

/// The filters that these rules need: one that refuses what an entry names, and, where the default refuses, one
/// that admits nothing but what an entry names. Those that audit come after: what is refused anyway is no news.
fn filters(access: &Access) -> impl Iterator<Item = Filter<'_>> {
    let checks = access.checks.as_deref();
    let denying = move |prefix, entries, is_audit| Filter { action: Action::Deny, prefix, entries, checks, is_audit };
    let admitting =
        move |prefix, entries, is_audit| Filter { action: Action::Allow, prefix, entries, checks, is_audit };
    let deny = (!access.deny.is_empty()).then(|| denying("deny", &access.deny, false));
    let allow = match access.default.value {
        AccessDefault::Allow => None,
        AccessDefault::Deny => Some(admitting("allow", &access.allow, false)),
    };
    let audit = access.audit.as_ref();
    let audit_deny = audit.filter(|audit| !audit.deny.is_empty()).map(|audit| denying(AUDIT_DENY, &audit.deny, true));
    let audit_allow = audit.filter(|_| access.would_close()).map(|audit| admitting(AUDIT_ALLOW, &audit.allow, true));
    [deny, allow, audit_deny, audit_allow].into_iter().flatten()
}

pub(super) type NamedPolicy = (String, rbac_pb::Policy);

/// The entries that can match at all, by the text of their origin.
pub(super) fn policies<'a>(
    entries: impl Iterator<Item = &'a AccessEntry>,
    policy: impl Fn(&AccessEntry) -> Option<rbac_pb::Policy>,
) -> impl Iterator<Item = NamedPolicy> {
    let named: std::collections::BTreeMap<_, _> =
        entries.filter_map(|entry| Some((entry.origin.to_string(), policy(entry)?))).collect();
    named.into_iter()
}

pub(super) fn rules(action: Action, policy: Option<NamedPolicy>) -> rbac_pb::Rbac {
    rbac_pb::Rbac { action: action.into(), policies: policy.into_iter().collect(), ..Default::default() }
}

/// `None` where no caller or no operation is left: such an entry matches nothing.
pub(super) fn policy(
    entry: &AccessEntry,
    trust_domain: &TrustDomain,
    permissions: Vec<rbac_pb::Permission>,
) -> Option<rbac_pb::Policy> {
    let mut principals = principals(&entry.from, trust_domain);
    let matches = !principals.is_empty() && !permissions.is_empty();
    if let Some(jwt) = &entry.jwt {
        let caller = principal(Identifier::OrIds(rbac_pb::principal::Set { ids: principals }));
        let ids = [caller].into_iter().chain(jwt::principals(jwt)).collect();
        principals = vec![principal(Identifier::AndIds(rbac_pb::principal::Set { ids }))];
    }
    matches.then(|| rbac_pb::Policy { permissions, principals, ..Default::default() })
}

/// The principal of requests that ask whether an endpoint is well, from those who may.
fn asking(checks: &AccessEntry, trust_domain: &TrustDomain) -> rbac_pb::Principal {
    let any = |ids| principal(Identifier::OrIds(rbac_pb::principal::Set { ids }));
    let callers = any(principals(&checks.from, trust_domain));
    let request = |operation: &Operation| {
        let methods = operation.methods.iter().map(|name| {
            let method = header(":method", wire::exact(name));
            principal(Identifier::Header(method))
        });
        let paths = operation.paths.iter().map(|path| {
            let path = matcher_pb::path_matcher::Rule::Path(wire::exact(path));
            principal(Identifier::UrlPath(matcher_pb::PathMatcher { rule: Some(path) }))
        });
        let ids = vec![any(methods.collect()), any(paths.collect())];
        principal(Identifier::AndIds(rbac_pb::principal::Set { ids }))
    };
    let requests = any(checks.to.iter().map(request).collect());
    principal(Identifier::AndIds(rbac_pb::principal::Set { ids: vec![callers, requests] }))
}

/// `policy`, but for whom `spared` names.
fn sparing(policy: rbac_pb::Policy, spared: Option<&rbac_pb::Principal>) -> rbac_pb::Policy {
    let Some(spared) = spared else { return policy };
    let other = principal(Identifier::NotId(Box::new(spared.clone())));
    let named = principal(Identifier::OrIds(rbac_pb::principal::Set { ids: policy.principals }));
    let both = principal(Identifier::AndIds(rbac_pb::principal::Set { ids: vec![named, other] }));
    rbac_pb::Policy { principals: vec![both], ..policy }
}

fn principals(from: &[Caller], trust_domain: &TrustDomain) -> Vec<rbac_pb::Principal> {
    if is_anybody(from) {
        return vec![principal(Identifier::Any(true))];
    }
    let networks = from.iter().filter_map(|caller| match caller {
        // The other end of the connection itself: no header and no proxy protocol can say otherwise.
        Caller::Ip(network) => Some(principal(Identifier::DirectRemoteIp(wire::range(*network)))),
        Caller::Any | Caller::Identities(_) | Caller::Namespace(_) | Caller::Pattern(_) => None,
    });
    identities(from, trust_domain).map(authenticated).chain(networks).collect()
}

fn is_anybody(from: &[Caller]) -> bool {
    from.is_empty() || from.contains(&Caller::Any)
}

/// The identities of the callers that have one.
fn identities(from: &[Caller], trust_domain: &TrustDomain) -> impl Iterator<Item = matcher_pb::StringMatcher> {
    from.iter().flat_map(move |caller| match caller {
        Caller::Any | Caller::Ip(_) => Vec::new(),
        Caller::Identities(ids) => ids.iter().map(|id| wire::exact(id.as_str())).collect(),
        Caller::Namespace(namespace) => vec![wire::prefix(format!("spiffe://{trust_domain}/ns/{namespace}/"))],
        Caller::Pattern(pattern) => vec![wire::regex(text::pattern(pattern))],
    })
}

/// A caller whose certificate has such a URI.
fn authenticated(principal_name: matcher_pb::StringMatcher) -> rbac_pb::Principal {
    let authenticated = rbac_pb::principal::Authenticated { principal_name: Some(principal_name) };
    principal(Identifier::Authenticated(authenticated))
}

fn principal(identifier: Identifier) -> rbac_pb::Principal {
    rbac_pb::Principal { identifier: Some(identifier) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::envoy::config::core::v3 as core_pb;
    use proto::envoy::config::rbac::v3::{Permission, Principal};
    use proto::envoy::config::route::v3 as route_pb;

    use super::super::permission::{method, permission};
    use super::*;
    use crate::mesh::{GrpcMethod, HostMatch, Sourced, TextMatch};
    use crate::name::{ObjectKey, ObjectKind, RuleRef};
    use crate::rules::scalar::Addresses;
    use rbac_pb::permission::Rule;

    fn entry(n: usize, from: Vec<Caller>, to: Vec<Operation>) -> AccessEntry {
        let object = ObjectKey::new(ObjectKind::AccessPolicy, "a/p".parse().expect("a name"));
        AccessEntry { origin: RuleRef::new(object, format!("/spec/allow/{n}")), from, to, jwt: None, external: None }
    }

    fn access(default: AccessDefault, deny: Vec<AccessEntry>, allow: Vec<AccessEntry>) -> Access {
        Access { deny, allow, default: Sourced::built_in(default), checks: None, audit: None }
    }

    fn operation(methods: &[&str], paths: &[&str]) -> Operation {
        let set = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Operation { methods: set(methods), paths: set(paths), ..Default::default() }
    }

    /// The rules of the HTTP filters, as Envoy reads them.
    fn http_rules(access: &Access) -> Vec<(String, rbac_pb::Rbac)> {
        let filters = http(access, &TrustDomain::built_in());
        let rules = filters.into_iter().map(|filter| match filter.config_type {
            Some(hcm_pb::http_filter::ConfigType::TypedConfig(any)) => {
                let filter = http_rbac_pb::Rbac::decode(any.value.as_slice()).expect("decodes");
                (filter.rules_stat_prefix, filter.rules.expect("rules"))
            }
            other => panic!("{other:?}"),
        });
        rules.collect()
    }

    fn policy_of(permissions: Vec<Permission>, principals: Vec<Principal>) -> rbac_pb::Policy {
        rbac_pb::Policy { permissions, principals, ..Default::default() }
    }

    fn rbac(action: Action, policies: Vec<(&str, rbac_pb::Policy)>) -> rbac_pb::Rbac {
        let policies = policies.into_iter().map(|(name, policy)| (name.to_owned(), policy)).collect();
        rbac_pb::Rbac { action: action.into(), policies, ..Default::default() }
    }

    #[test]
    fn deny_comes_first_and_a_denying_default_admits_only_what_is_allowed() {
        let any = || policy_of(vec![permission(Rule::Any(true))], vec![principal(Identifier::Any(true))]);
        let open = access(AccessDefault::Allow, vec![], vec![entry(0, vec![], vec![])]);
        assert_eq!(http_rules(&open), vec![]);
        let closed = access(AccessDefault::Deny, vec![], vec![]);
        assert_eq!(http_rules(&closed), vec![("allow".to_owned(), rbac(Action::Allow, vec![]))]);
        let both =
            access(AccessDefault::Deny, vec![entry(1, vec![], vec![])], vec![entry(0, vec![Caller::Any], vec![])]);
        let deny = rbac(Action::Deny, vec![("AccessPolicy a/p /spec/allow/1", any())]);
        let allow = rbac(Action::Allow, vec![("AccessPolicy a/p /spec/allow/0", any())]);
        assert_eq!(http_rules(&both), vec![("deny".to_owned(), deny), ("allow".to_owned(), allow)]);
    }

    #[test]
    fn callers_and_operations_become_matchers() {
        let id = "spiffe://cluster.local/ns/a/sa/b";
        let from = vec![
            Caller::Identities([id.parse().expect("an identity")].into()),
            Caller::Namespace("shop".parse().expect("a label")),
            Caller::Pattern("spiffe://*/x".into()),
            Caller::Ip("fd00::/16".parse::<Addresses>().expect("addresses").0),
        ];
        let to = vec![operation(&["GET"], &["/a", "/b/*", "/c/*/d"]), operation(&[], &["*"]), operation(&["PUT"], &[])];
        let found = http_rules(&access(AccessDefault::Deny, vec![], vec![entry(0, from, to)]));
        let url = |matcher| {
            let rule = Some(matcher_pb::path_matcher::Rule::Path(matcher));
            permission(Rule::UrlPath(matcher_pb::PathMatcher { rule }))
        };
        let paths = vec![url(wire::exact("/a")), url(wire::prefix("/b/")), url(wire::regex(r"\/c\/\C*\/d"))];
        let paths = permission(Rule::OrRules(rbac_pb::permission::Set { rules: paths }));
        let first = permission(Rule::AndRules(rbac_pb::permission::Set { rules: vec![method("GET"), paths] }));
        let principals = vec![
            authenticated(wire::exact(id)),
            authenticated(wire::prefix("spiffe://cluster.local/ns/shop/")),
            authenticated(wire::regex(r"spiffe\:\/\/\C*\/x")),
            principal(Identifier::DirectRemoteIp(core_pb::CidrRange {
                address_prefix: "fd00::".into(),
                prefix_len: Some(wire::number(16)),
            })),
        ];
        let policy = policy_of(vec![first, permission(Rule::Any(true)), method("PUT")], principals);
        let rules = rbac(Action::Allow, vec![("AccessPolicy a/p /spec/allow/0", policy)]);
        assert_eq!(found, vec![("allow".to_owned(), rules)]);
    }

    #[test]
    fn hosts_headers_and_calls_become_matchers() {
        let operation = Operation {
            hosts: [HostMatch::Exact("a.b".into()), HostMatch::Under("c.d".into())].into(),
            headers: [("x-a".to_owned(), TextMatch::Prefix("1".into())), ("x-b".to_owned(), TextMatch::Absent)].into(),
            grpc: [
                GrpcMethod { service: "a.B".into(), method: None },
                GrpcMethod { service: "a.B".into(), method: Some("C".into()) },
            ]
            .into(),
            ..Default::default()
        };
        let any = |rules| permission(Rule::OrRules(rbac_pb::permission::Set { rules }));
        let all = |rules| permission(Rule::AndRules(rbac_pb::permission::Set { rules }));
        let of_header = |name, value| permission(Rule::Header(header(name, value)));
        let url = |matcher| {
            let rule = Some(matcher_pb::path_matcher::Rule::Path(matcher));
            permission(Rule::UrlPath(matcher_pb::PathMatcher { rule }))
        };
        let hosts = any(vec![
            of_header(":authority", wire::regex(r"(?i)a\.b\.?(:[^@]*)?")),
            of_header(":authority", wire::regex(r"(?i)[^:]+\.c\.d\.?(:[^@]*)?")),
        ]);
        let calls = any(vec![
            all(vec![method("POST"), url(wire::prefix("/a.B/"))]),
            all(vec![method("POST"), url(wire::exact("/a.B/C"))]),
        ]);
        let absent = route_pb::HeaderMatcher {
            name: "x-b".into(),
            header_match_specifier: Some(route_pb::header_matcher::HeaderMatchSpecifier::PresentMatch(false)),
            ..Default::default()
        };
        let expected = all(vec![hosts, calls, of_header("x-a", wire::prefix("1")), permission(Rule::Header(absent))]);
        assert_eq!(requests(std::slice::from_ref(&operation)), vec![expected]);
        assert_eq!(connections(&entry(0, vec![], vec![operation])), vec![]);
    }

    #[test]
    fn what_names_nobody_or_asks_bytes_for_methods_matches_nothing() {
        let nobody = entry(0, vec![Caller::Identities(Default::default())], vec![]);
        let found = http_rules(&access(AccessDefault::Deny, vec![], vec![nobody]));
        assert_eq!(found, vec![("allow".to_owned(), rbac(Action::Allow, vec![]))]);
        let of = |to| connections(&entry(0, vec![], to));
        assert_eq!(of(vec![operation(&["GET"], &[])]), vec![]);
        assert_eq!(of(vec![operation(&["GET"], &[]), operation(&[], &[])]), vec![permission(Rule::Any(true))]);
    }

    #[test]
    fn on_chains_of_bytes_the_handshake_takes_whom_an_entry_admits() {
        let domain = TrustDomain::built_in();
        let everybody = || vec![wire::prefix("spiffe://cluster.local/")];
        let nobody = || vec![wire::exact("spiffe://cluster.local/")];
        let shop = |to| entry(0, vec![Caller::Namespace("shop".parse().expect("a label"))], to);
        let anybody = || entry(1, vec![], vec![]);
        let requests = || vec![operation(&["GET"], &[])];
        let network = |text: &str| text.parse::<Addresses>().expect("addresses").0;
        let from = |networks: &[&str]| -> Vec<_> { networks.iter().map(|text| Caller::Ip(network(text))).collect() };
        let set = |networks: &[&str]| -> BTreeSet<_> { networks.iter().map(|text| network(text)).collect() };
        let all_but = |networks| Strangers::AllBut(set(networks));
        let only = |admitted, denied| Strangers::Only(set(admitted), set(denied));
        let ten = || entry(2, from(&["10.0.0.0/8"]), vec![]);
        let both = || entry(3, from(&["10.1.0.0/16", "fd00::/16"]), vec![]);
        use AccessDefault::{Allow, Deny};
        for (access, tcp, strangers_taken) in [
            (access(Allow, vec![], vec![]), everybody(), all_but(&[])),
            (access(Allow, vec![shop(vec![])], vec![]), everybody(), all_but(&[])),
            (access(Allow, vec![anybody()], vec![]), nobody(), Strangers::Refused),
            (access(Deny, vec![], vec![]), nobody(), Strangers::Refused),
            (access(Deny, vec![], vec![anybody()]), everybody(), all_but(&[])),
            (access(Deny, vec![], vec![shop(requests())]), nobody(), Strangers::Refused),
            (
                access(Deny, vec![], vec![shop(vec![])]),
                vec![wire::prefix("spiffe://cluster.local/ns/shop/")],
                Strangers::Refused,
            ),
            (access(Allow, vec![ten()], vec![]), everybody(), all_but(&["10.0.0.0/8"])),
            (access(Deny, vec![ten()], vec![anybody()]), everybody(), all_but(&["10.0.0.0/8"])),
            (access(Deny, vec![], vec![ten()]), everybody(), only(&["10.0.0.0/8"], &[])),
            (access(Deny, vec![], vec![entry(2, from(&["10.0.0.0/8"]), requests())]), nobody(), Strangers::Refused),
            (access(Deny, vec![ten()], vec![both()]), everybody(), only(&["fd00::/16"], &["10.0.0.0/8"])),
            (
                access(Deny, vec![both()], vec![ten()]),
                everybody(),
                only(&["10.0.0.0/8"], &["10.1.0.0/16", "fd00::/16"]),
            ),
            (access(Deny, vec![ten()], vec![ten()]), everybody(), Strangers::Refused),
        ] {
            assert_eq!(callers(&access, &domain, false), tcp, "{access:?}");
            assert_eq!(callers(&access, &domain, true), everybody());
            assert_eq!(strangers(&access), strangers_taken, "{access:?}");
        }
    }

    #[test]
    fn many_policies_have_one_encoding() {
        let entries: Vec<_> = (0..9).map(|n| entry(n, vec![], vec![])).collect();
        let access = access(AccessDefault::Deny, entries.clone(), entries);
        let encoded = || {
            let network = network(&access, &TrustDomain::built_in(), "in");
            (http(&access, &TrustDomain::built_in()), network)
        };
        let first = encoded();
        for _ in 0..200 {
            assert_eq!(encoded(), first);
        }
    }
}
