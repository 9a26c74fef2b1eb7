//! Arbitrary meshes: closed, as resolution makes them, and otherwise as odd as the types allow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use translators::mesh::*;
use translators::name::*;

use telemetry::{TelemetryPart, telemetry};

#[path = "telemetry.rs"]
mod telemetry;

pub fn name(text: &str) -> QualifiedName {
    text.parse().expect("a name")
}

pub fn rule(object: &str, pointer: &str) -> RuleRef {
    RuleRef::new(ObjectKey::new(ObjectKind::MeshService, name(object)), pointer)
}

/// A mesh before its parts are joined by index.
#[derive(Debug, Clone)]
struct Parts {
    services: Vec<Vec<PortPart>>,
    statics: Vec<Option<Vec<StaticEndpoint>>>,
    names: Vec<Option<DnsEndpoints>>,
    outside: Vec<Option<Outside>>,
    workloads: Vec<WorkloadPart>,
}

#[derive(Debug, Clone)]
struct PortPart {
    protocol: Protocol,
    server_first: bool,
    mode: MtlsMode,
    access: Access,
    outbound: Outbound,
    /// How the callers of a namespace make their calls.
    outbound_of: Option<Outbound>,
    inbound: Inbound,
    /// What holds for one workload.
    apart: Option<Apart>,
    rules: Vec<RulePart>,
    own_route: bool,
}

#[derive(Debug, Clone)]
struct RulePart {
    matches: Vec<HttpMatch>,
    to: Vec<(Index, Index, BTreeMap<String, String>, u32)>,
    /// Which connections it takes, where it is about those.
    connections: (BTreeSet<HostMatch>, BTreeSet<Network>),
    itself: Option<HttpAction>,
    changes: Changes,
    copied: Option<(Index, Index, BTreeMap<String, String>, u32)>,
    checks: Checks,
    sticky_by: Option<HashOn>,
    timeout: Option<Duration>,
    retry: Retry,
}

#[derive(Debug, Clone)]
struct WorkloadPart {
    labels: BTreeMap<String, String>,
    locality: Option<Arc<Locality>>,
    serves: Vec<(Index, Index)>,
    calls: Vec<(Index, Index)>,
    /// What is said of its calls, and of what it serves.
    telemetry: (Option<TelemetryPart>, Option<TelemetryPart>),
    edges: Vec<SocketPart>,
}

/// A socket of a gateway: its hosts, the listeners that end TLS if any does, who gets in and what is taken.
type SocketPart = (Vec<EdgePart>, Option<Vec<TlsPart>>, (Access, Inbound));

/// A listener that ends TLS: its name in handshakes, its version, and whether clients are asked, and services told.
type TlsPart = (HostMatch, TlsVersion, Option<(bool, bool)>);

/// A host of a socket: told to go elsewhere, or with rules and how their calls are made.
#[derive(Debug, Clone)]
struct EdgePart {
    host: HostMatch,
    redirect: Option<EdgeRedirect>,
    rules: Vec<(RulePart, Outbound)>,
}

pub fn mesh() -> impl Strategy<Value = Mesh> {
    let service = prop::collection::vec(port(), 1..3);
    let statics = prop::option::weighted(0.3, prop::collection::vec(static_endpoint(), 0..3));
    let version = prop::sample::select(vec![TlsVersion::V12, TlsVersion::V13]);
    let tls = prop::collection::vec((host_match(), version, prop::option::of(any::<(bool, bool)>())), 1..3);
    let edges = (prop::collection::vec(edge_hosts(), 0..3), prop::option::weighted(0.5, tls), (access(), inbound()));
    let edges = prop::collection::vec(edges, 0..3);
    let workload = ((labels(), locality()), index_pairs(), index_pairs(), (telemetry(), telemetry()), edges);
    let workload = workload.prop_map(|((labels, locality), serves, calls, telemetry, edges)| WorkloadPart {
        labels,
        locality,
        serves,
        calls,
        telemetry,
        edges,
    });
    let parts = (
        prop::collection::vec(service, 1..4),
        prop::collection::vec(statics, 3),
        prop::collection::vec(prop::option::weighted(0.2, dns()), 3),
        prop::collection::vec(prop::option::weighted(0.2, outside()), 3),
        prop::collection::vec(workload, 1..4),
    );
    parts.prop_map(|(services, statics, names, outside, workloads)| {
        assemble(Parts { services, statics, names, outside, workloads })
    })
}

fn host_match() -> impl Strategy<Value = HostMatch> {
    prop_oneof![
        "[a-z]{1,3}\\.[a-z]{1,3}".prop_map(HostMatch::Exact),
        "[a-z]{1,3}\\.[a-z]{1,3}".prop_map(HostMatch::Under),
        Just(HostMatch::Any)
    ]
}

fn edge_hosts() -> impl Strategy<Value = EdgePart> {
    let redirect = (prop::sample::select(vec![Scheme::Http, Scheme::Https]), 1u16..)
        .prop_map(|(scheme, port)| EdgeRedirect { scheme, port: port.try_into().expect("not 0") });
    let rules = prop::collection::vec((http_rule(), outbound()), 0..3);
    (host_match(), prop::option::weighted(0.3, redirect), rules).prop_map(|(host, redirect, rules)| EdgePart {
        host,
        redirect,
        rules,
    })
}

fn index_pairs() -> impl Strategy<Value = Vec<(Index, Index)>> {
    prop::collection::vec(any::<(Index, Index)>(), 0..4)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("version|track", "v1|v2|100%", 0..3)
}

fn locality() -> impl Strategy<Value = Option<Arc<Locality>>> {
    let any = ("[ab]", "[12]?", "x?");
    prop::option::of(any.prop_map(|(region, zone, subzone)| Arc::new(Locality { region, zone, subzone })))
}

fn nearness() -> impl Strategy<Value = Nearness> {
    let prefer = prop::sample::select(vec![Prefer::None, Prefer::Region, Prefer::Zone]);
    let failover = ("[abc]", "[abc]").prop_map(|(from, to)| Failover { from, to });
    (prefer, prop::collection::vec(failover, 0..3), 100u32..300).prop_map(|(prefer, failover, factor)| Nearness {
        prefer: Sourced::from_rule(prefer, rule("a/calls", "/spec/outbound/locality")),
        failover: Sourced::built_in(failover),
        overprovisioning: Sourced::built_in(factor),
    })
}

fn static_endpoint() -> impl Strategy<Value = StaticEndpoint> {
    let weight = prop_oneof![4 => 0u32..3, 1 => Just(u32::MAX)];
    (any::<u8>(), weight, labels(), locality()).prop_map(|(last, weight, labels, locality)| StaticEndpoint {
        address: Ipv4Addr::new(127, 0, 0, last).into(),
        ports: std::sync::Arc::new([("p0".to_owned(), 80.try_into().expect("not 0"))].into()),
        weight,
        labels,
        locality,
    })
}

fn dns() -> impl Strategy<Value = DnsEndpoints> {
    let mode = prop::sample::select(vec![DnsMode::Strict, DnsMode::Logical]);
    let families = vec![DnsFamily::V4Preferred, DnsFamily::V4Only, DnsFamily::V6Only, DnsFamily::All];
    let refresh = prop::option::of((1u64..9000).prop_map(Duration::from_millis));
    (mode, prop::sample::select(families), refresh).prop_map(|(mode, family, refresh)| DnsEndpoints {
        hostname: "localhost".to_owned(),
        ports: Arc::new([("p0".to_owned(), 80.try_into().expect("not 0"))].into()),
        mode,
        family,
        refresh,
    })
}

fn outside() -> impl Strategy<Value = Outside> {
    let authorities = prop_oneof![
        Just(Authorities::System),
        Just(Authorities::File("/etc/ssl/ca.pem".to_owned())),
        Just(Authorities::Inline("-----BEGIN CERTIFICATE-----".to_owned())),
    ];
    let oldest = prop::sample::select(vec![TlsVersion::V12, TlsVersion::V13]);
    let name = prop::sample::select(vec!["api.example", "10.0.0.1"]).prop_map(str::to_owned);
    let tls = (name, authorities, oldest);
    let tls = tls.prop_map(|(name, authorities, oldest)| Originate { name, authorities, oldest });
    (prop::option::of(Just("api.example".to_owned())), prop::option::of(tls))
        .prop_map(|(host, tls)| Outside { host, tls })
}

fn port() -> impl Strategy<Value = PortPart> {
    let protocol =
        prop::sample::select(vec![Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tcp, Protocol::Tls]);
    let rules = prop::collection::vec(http_rule(), 0..3);
    let apart = (mode(), any::<bool>(), access(), inbound()).prop_map(|(mode, used, access, inbound)| Apart {
        mtls: Sourced::from_rule(mode, rule("a/labels", "/spec/mode")),
        callers_use_mtls: used,
        access,
        inbound: Arc::new(inbound),
    });
    let apart = apart.boxed();
    let outbound = || outbound().boxed();
    let calls = (outbound(), prop::option::weighted(0.3, outbound()), inbound(), prop::option::weighted(0.3, apart));
    (protocol, any::<bool>(), mode(), access(), calls, rules, any::<bool>()).prop_map(
        |(protocol, server_first, mode, access, (outbound, outbound_of, inbound, apart), rules, own_route)| PortPart {
            apart,
            protocol,
            server_first,
            mode,
            access,
            outbound,
            outbound_of,
            inbound,
            rules,
            own_route,
        },
    )
}

fn hash_on() -> impl Strategy<Value = HashOn> {
    prop_oneof![
        "x-[a-f]".prop_map(HashOn::Header),
        "[a-z]{1,9}".prop_map(HashOn::Cookie),
        Just(HashOn::Ip),
        Just(HashOn::Caller)
    ]
}

/// Half of them as where no policy says anything.
fn outbound() -> impl Strategy<Value = Outbound> {
    let span = || (0u64..90_000).prop_map(Duration::from_millis);
    let percent = || (0u32..=1_000_000).prop_map(|millionths| Percent { millionths });
    let count = || prop::option::of((1u32..9).prop_map(|count| count.try_into().expect("not 0")));
    let seconds = || prop::option::of((1u64..900).prop_map(Duration::from_secs));
    let policy = prop::sample::select(vec![
        BalancingPolicy::RoundRobin,
        BalancingPolicy::LeastRequest,
        BalancingPolicy::RingHash,
        BalancingPolicy::Maglev,
        BalancingPolicy::Random,
    ]);
    let keepalive =
        (seconds(), seconds(), count()).prop_map(|(time, interval, probes)| Keepalive { time, interval, probes });
    let outliers =
        (count(), count(), prop::option::of(percent()), (1u64..900_000).prop_map(Duration::from_millis), percent());
    let outliers = outliers.prop_map(|(five, gateway, rate, eject_for, most)| Outliers {
        consecutive_5xx: Sourced::built_in(five),
        consecutive_gateway_errors: Sourced::built_in(gateway),
        success_rate: Sourced::built_in(rate),
        eject_for: Sourced::built_in(eject_for),
        max_ejected: Sourced::built_in(most),
    });
    let breaker = (1u32.., 1u32.., 1u32.., prop::option::of(any::<u32>()));
    let breaker = breaker.prop_map(|(connections, pending, requests, retries)| Breaker {
        max_connections: Sourced::built_in(connections),
        max_pending_requests: Sourced::built_in(pending),
        max_requests: Sourced::built_in(requests),
        max_retries: Sourced::built_in(retries),
    });
    let times = (span(), prop::array::uniform5(prop::option::of(span())));
    let health = (0..3u8, span(), span(), count()).prop_map(|(kind, interval, timeout, healthy)| HealthCheck {
        kind: match kind {
            0 => HealthCheckKind::Http("/healthz".to_owned()),
            1 => HealthCheckKind::Grpc("a.B".to_owned()),
            _ => HealthCheckKind::Tcp,
        },
        interval: interval + Duration::from_millis(1),
        timeout: timeout + Duration::from_millis(1),
        healthy: healthy.unwrap_or(HealthCheck::default().healthy),
        ..HealthCheck::default()
    });
    let announced = prop::option::of(prop::sample::select(vec![ProxyProtocol::V1, ProxyProtocol::V2]));
    let to_endpoints = (prop::option::of(keepalive), prop::option::of(health), announced, nearness());
    let balancing = (policy, prop::option::of(hash_on()), to_endpoints);
    let any = (times, (percent(), any::<u32>()), balancing, outliers, breaker);
    let any =
        any.prop_map(|((connect, times), (budget, least), (policy, hash_on, to_endpoints), outliers, breaker)| {
            let (keepalive, health_check, proxy_protocol, locality) = to_endpoints;
            let [request, idle, max_stream, max_connection, slow_start] = times.map(Sourced::built_in);
            Outbound {
                connect_timeout: Sourced::built_in(connect),
                request_timeout: request,
                idle_timeout: idle,
                max_stream,
                max_connection,
                retry_percent: Sourced::built_in(budget),
                retry_min_concurrent: Sourced::built_in(least),
                balancing: Sourced::from_rule(policy, rule("a/calls", "/spec/outbound")),
                hash_on: Sourced::built_in(hash_on),
                slow_start,
                outliers,
                breaker,
                keepalive: Sourced::built_in(keepalive),
                health_check: Sourced::built_in(health_check),
                proxy_protocol: Sourced::built_in(proxy_protocol),
                locality,
                ..Outbound::default()
            }
        });
    prop_oneof![Just(Outbound::default()), any]
}

/// Half of them without any limit.
fn inbound() -> impl Strategy<Value = Inbound> {
    let count = || prop::option::of((1u32..).prop_map(|count| count.try_into().expect("not 0")));
    let span = || (1u64..90_000).prop_map(Duration::from_millis);
    let adaptive = (1u32..9, 9u32.., span(), span()).prop_map(|(least, most, update, measure)| Adaptive {
        min_concurrent: least.try_into().expect("not 0"),
        max_concurrent: most.try_into().expect("not 0"),
        update,
        measure,
    });
    let any = (checks(), count(), prop::option::of(span()), count(), prop::option::of(adaptive));
    let any = any.prop_map(|(checks, connections, timeout, buffer, adaptive)| Inbound {
        rate_limit: Sourced::built_in(checks.rate_limit.map(|limit| *limit)),
        fault: Sourced::built_in(checks.fault.map(|fault| *fault)),
        max_connections: Sourced::built_in(connections),
        request_timeout: Sourced::from_rule(timeout, rule("a/calls", "/spec/inbound")),
        buffer_limit: Sourced::built_in(buffer),
        adaptive_concurrency: Sourced::built_in(adaptive),
    });
    prop_oneof![Just(Inbound::default()), any]
}

pub fn mode() -> impl Strategy<Value = MtlsMode> {
    prop::sample::select(vec![MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disabled])
}

pub fn access() -> impl Strategy<Value = Access> {
    let entries = |list: &'static str| {
        prop::collection::vec((callers(), operations(), prop::option::weighted(0.2, token()), external()), 0..3)
            .prop_map(move |entries| {
                let entry = |(n, (from, to, jwt, external))| AccessEntry {
                    origin: rule("a/rules", &format!("/spec/{list}/{n}")),
                    from,
                    to,
                    jwt,
                    external,
                };
                entries.into_iter().enumerate().map(entry).collect::<Vec<_>>()
            })
    };
    let default = || {
        let origin = prop::option::of(Just(rule("a/rules", "/spec/default")));
        (prop::sample::select(vec![AccessDefault::Allow, AccessDefault::Deny]), origin)
            .prop_map(|(value, origin)| Sourced { value, origin })
    };
    let audit = (entries("audit/deny"), entries("audit/allow"), default()).prop_map(|(deny, allow, default)| Audit {
        deny,
        allow,
        default,
    });
    let id = "spiffe://cluster\\.local/ns/[ab]/sa/[a-z.]{1,5}x".prop_map(|id| id.parse().expect("an identity"));
    let checks = prop::collection::btree_set(id, 1..3).prop_map(|ids| AccessEntry {
        origin: rule("a/calls", "/spec/outbound/healthCheck"),
        from: vec![Caller::Identities(ids)],
        to: vec![Operation {
            methods: ["GET".to_owned()].into(),
            paths: ["/healthz".to_owned()].into(),
            ..Operation::default()
        }],
        jwt: None,
        external: None,
    });
    let checks = prop::option::weighted(0.3, checks.prop_map(Box::new));
    (entries("deny"), entries("allow"), default(), checks, prop::option::weighted(0.3, audit))
        .prop_map(|(deny, allow, default, checks, audit)| Access { deny, allow, default, checks, audit })
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let id = "spiffe://cluster\\.local/ns/[ab]/sa/[a-z.]{1,5}x".prop_map(|id| id.parse().expect("an identity"));
    let caller = prop_oneof![
        Just(Caller::Any),
        prop::collection::btree_set(id, 0..3).prop_map(Caller::Identities),
        "[ab]".prop_map(|namespace| Caller::Namespace(namespace.parse().expect("a label"))),
        any::<String>().prop_map(Caller::Pattern),
        network().prop_map(Caller::Ip),
    ];
    prop::collection::vec(caller, 0..3)
}

/// Of two providers, each of which has its keys elsewhere.
fn token() -> impl Strategy<Value = Jwt> {
    let provider = |name: &str, keys| JwtProvider {
        origin: rule("mesh-system/default", "/spec/jwtProviders/0"),
        name: name.into(),
        issuer: "https://issuer".into(),
        audiences: ["a".to_owned(), "b".to_owned()].into(),
        keys,
        header: (name == "p").then(|| "x-token".to_owned()),
        forward: name == "q",
    };
    let url = |tls: bool| KeysUrl {
        tls: tls.then(|| Authorities::Inline("pem".into())),
        host: "keys".into(),
        port: 443.try_into().expect("not 0"),
        url: "https://keys/k".into(),
    };
    let provider = prop::sample::select(vec![
        Arc::new(provider("p", JwtKeys::Inline("{}".into()))),
        Arc::new(provider("q", JwtKeys::Remote(url(true)))),
        Arc::new(provider("r", JwtKeys::Remote(url(false)))),
    ]);
    let values = prop::collection::btree_set(any::<String>(), 1..3);
    (provider, prop::collection::btree_map(any::<String>(), values, 0..3))
        .prop_map(|(provider, claims)| Jwt { provider, claims })
}

/// The first service, which is always there: the one that access rules ask.
pub const ASKED: &str = "a/s0";

fn external() -> impl Strategy<Value = Option<Arc<External>>> {
    let external = (any::<bool>(), 1u64..5000, any::<bool>()).prop_map(|(by_grpc, millis, fail_open)| {
        let timeout = Duration::from_millis(millis);
        Arc::new(External { service: name(ASKED), port: "p0".to_owned(), by_grpc, timeout, fail_open })
    });
    prop::option::weighted(0.3, external)
}

fn network() -> impl Strategy<Value = Network> {
    let v4 = (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| (Ipv4Addr::from_bits(bits).into(), length));
    let v6 = (any::<u128>(), 0u8..=128).prop_map(|(bits, length)| (Ipv6Addr::from_bits(bits).into(), length));
    prop_oneof![v4, v6].prop_map(|(address, length)| Network { address, length }.first())
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let methods = prop::collection::btree_set("GET|POST|M-SEARCH", 0..3);
    let paths = prop::collection::btree_set("/|/a|/a/\\*|\\*|/\\*/x|.*", 0..3);
    let host = prop_oneof![
        ".*".prop_map(HostMatch::Exact),
        "[a-z]{1,3}\\.[a-z]{1,3}".prop_map(HostMatch::Under),
        Just(HostMatch::Any)
    ];
    let hosts = prop::collection::btree_set(host, 0..3);
    let headers = prop::collection::btree_map("x-[ab]", text(), 0..3);
    let call = ("[a-c.]{1,5}", prop::option::of("[A-Z][a-z]{0,3}"));
    let grpc = prop::collection::btree_set(call.prop_map(|(service, method)| GrpcMethod { service, method }), 0..3);
    let operation = (methods, paths, hosts, headers, grpc)
        .prop_map(|(methods, paths, hosts, headers, grpc)| Operation { methods, paths, hosts, headers, grpc });
    prop::collection::vec(operation, 0..3)
}

fn http_rule() -> impl Strategy<Value = RulePart> {
    let to = prop::collection::vec((any::<Index>(), any::<Index>(), labels(), 1u32..100), 1..3);
    let timeout = prop::option::of((1u64..9).prop_map(Duration::from_secs));
    let itself = prop::option::weighted(0.2, itself());
    let copied = prop::option::weighted(0.2, (any::<Index>(), any::<Index>(), labels(), 0u32..=1_000_000));
    let more = (itself, changes(), copied, checks(), prop::option::weighted(0.2, hash_on()));
    let connections = (prop::collection::btree_set(host_match(), 0..3), prop::collection::btree_set(network(), 0..2));
    let more = (more, connections);
    (prop::collection::vec(http_match(), 0..3), to, timeout, retry(), more).prop_map(
        |(matches, to, timeout, retry, ((itself, changes, copied, checks, sticky_by), connections))| RulePart {
            connections,
            matches,
            to,
            itself,
            changes,
            copied,
            checks,
            sticky_by,
            timeout,
            retry,
        },
    )
}

/// What a rule answers by itself.
fn itself() -> impl Strategy<Value = HttpAction> {
    let scheme = prop::option::of(prop::sample::select(vec![Scheme::Http, Scheme::Https]));
    let port = prop::option::of((1u16..).prop_map(|port| port.try_into().expect("not 0")));
    let (host, code) = (prop::option::of("[a-z]{1,9}"), prop::sample::select(vec![301u16, 302, 303, 307, 308]));
    prop_oneof![
        (scheme, host, port, prop::option::of(path_change()), code)
            .prop_map(|(scheme, host, port, path, code)| Redirect { scheme, host, port, path, code })
            .prop_map(HttpAction::Redirect),
        (200u16..600, "\\PC{0,40}").prop_map(|(status, body)| HttpAction::Respond(Respond { status, body })),
    ]
}

fn changes() -> impl Strategy<Value = Changes> {
    let headers = || {
        let values = || prop::collection::btree_map("x-[a-f]", "[ -~]{0,9}", 0..3);
        let changes = (values(), values(), prop::collection::btree_set("x-[a-f]", 0..3))
            .prop_map(|(set, add, remove)| HeaderChanges { set, add, remove });
        prop_oneof![3 => Just(HeaderChanges::default()), 1 => changes]
    };
    (prop::option::weighted(0.2, "[a-z.]{1,9}"), prop::option::weighted(0.3, path_change()), headers(), headers())
        .prop_map(|(host, path, request, response)| Changes { host, path, request, response })
}

fn checks() -> impl Strategy<Value = Checks> {
    let percent = || (0u32..=1_000_000).prop_map(|millionths| Percent { millionths });
    let pause = || (1u64..90_000).prop_map(Duration::from_millis);
    let origin = prop_oneof![
        Just(TextMatch::Present),
        "https://[a-z.]{1,9}".prop_map(TextMatch::Exact),
        "https://[a-z.]{0,3}".prop_map(TextMatch::Prefix),
        Just(TextMatch::Regex("https://.*".into())),
    ];
    let names = || prop::collection::vec("x-[a-f]", 0..3);
    let cors = (prop::collection::vec(origin, 1..3), names(), names(), prop::option::of(0u64..900), any::<bool>())
        .prop_map(|(origins, headers, expose, age, credentials)| Cors {
            origins,
            methods: vec!["GET".into()],
            headers,
            expose,
            max_age: age.map(Duration::from_secs),
            credentials,
        });
    let header = || prop::option::of("x-[ab]");
    let fault = (prop::option::of((percent(), pause())), prop::option::of((percent(), 200u16..600)), header())
        .prop_map(|(delay, abort, header)| {
            let headers = header.into_iter().map(|name| (name, TextMatch::Present)).collect();
            Fault { delay, abort, headers }
        });
    let key = prop_oneof![Just(RateKey::Caller), Just(RateKey::Ip), "x-[ab]".prop_map(RateKey::Header)];
    let limit = (1u32.., (50u64..90_000).prop_map(Duration::from_millis), prop::option::of(key))
        .prop_map(|(requests, per, key)| RateLimit { requests: requests.try_into().expect("not 0"), per, key });
    let few = 0.2;
    (prop::option::weighted(few, cors), prop::option::weighted(few, fault), prop::option::weighted(few, limit))
        .prop_map(|(cors, fault, rate_limit)| Checks {
            cors: cors.map(Box::new),
            fault: fault.map(Box::new),
            rate_limit: rate_limit.map(Box::new),
        })
}

fn path_change() -> impl Strategy<Value = PathChange> {
    prop_oneof![
        "/[ -~]{0,9}".prop_map(PathChange::Whole),
        "/|/new|/new/".prop_map(PathChange::Prefix),
        Just(PathChange::Regex { pattern: "^/a(.*)$".into(), substitution: "\\1".into() }),
    ]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        "/|/a|/a/b".prop_map(PathMatch::Exact),
        "/|/a|/a/|/a\\?b".prop_map(PathMatch::Prefix),
        Just(PathMatch::Regex("/a/[0-9]+".into())),
        "/\\{id\\}|/a/\\*\\*|/a/\\*/b".prop_map(PathMatch::Template),
    ];
    let methods = prop::collection::btree_set("GET|POST|M-SEARCH", 0..3);
    let texts = |name: &'static str| prop::collection::btree_map(name, text(), 0..3);
    let within = prop::option::weighted(0.2, "/p|/p/|/a\\.b");
    let source = prop_oneof![
        "[ab]".prop_map(|namespace| Source::Namespace(namespace.parse().expect("a label"))),
        "[ab]/s[01]".prop_map(|service| Source::Service(name(&service))),
        "[ab]/w[01]".prop_map(|of| Source::Identity(SpiffeId::of_workload(&TrustDomain::built_in(), &name(&of)))),
        network().prop_map(Source::Ip),
    ];
    let from = prop::option::weighted(0.3, prop::collection::btree_set(source, 1..3).prop_map(Arc::new));
    (prop::option::of(path), within, methods, texts("x-[ab]"), texts("[ab]"), from).prop_map(
        |(path, within, methods, headers, query, from)| HttpMatch { path, within, methods, headers, query, from },
    )
}

/// How a header or a parameter is matched.
fn text() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        any::<String>().prop_map(TextMatch::Exact),
        "|a|ab".prop_map(TextMatch::Prefix),
        Just(TextMatch::Regex("a.*".into())),
        Just(TextMatch::Present),
        Just(TextMatch::Absent),
    ]
}

fn retry() -> impl Strategy<Value = Retry> {
    let condition = prop::sample::select(vec![
        RetryCondition::ConnectFailure,
        RetryCondition::RefusedStream,
        RetryCondition::Reset,
        RetryCondition::GatewayError,
        RetryCondition::ServerError,
        RetryCondition::Retriable4xx,
        RetryCondition::Status(429),
        RetryCondition::Status(503),
        RetryCondition::Grpc(GrpcStatus::Unavailable),
    ]);
    let pause = || prop::option::of((0u64..500).prop_map(Duration::from_millis));
    (0u32..4, prop::collection::btree_set(condition, 0..4), pause(), pause())
        .prop_map(|(attempts, when, per_try_timeout, backoff)| Retry { attempts, when, per_try_timeout, backoff })
}

fn assemble(parts: Parts) -> Mesh {
    let names: Vec<_> = (0..parts.services.len()).map(|n| name(&format!("{}/s{n}", ["a", "b"][n % 2]))).collect();
    let at = |(service, port): &(Index, Index)| {
        let service = service.index(names.len());
        (names[service].clone(), format!("p{}", port.index(parts.services[service].len())))
    };
    let workloads: BTreeMap<_, _> = parts.workloads.iter().enumerate().map(|(n, part)| workload(n, part, at)).collect();
    let services = parts.services.iter().enumerate().map(|(n, ports)| {
        let ports = ports.iter().enumerate().map(|(n, part)| assembled_port(n, part, at)).collect();
        let backing = match (&parts.statics[n], &parts.names[n]) {
            (_, Some(dns)) => Backing::Dns(Arc::new(dns.clone())),
            (Some(endpoints), None) => Backing::Static(endpoints.as_slice().into()),
            (None, None) => Backing::Workloads(servings(&names[n], &workloads)),
        };
        let identities = [SpiffeId::of_workload(&TrustDomain::built_in(), &names[n])].into();
        let origin = rule(&names[n].to_string(), "");
        (
            names[n].clone(),
            Arc::new(Service {
                name: names[n].clone(),
                origin,
                ports,
                backing,
                outside: parts.outside[n].clone().map(Arc::new),
                identities,
            }),
        )
    });
    let told = (names[0].clone(), "p0".to_owned());
    let providers = telemetry::providers(&told);
    let observed = workloads.values().zip(&parts.workloads).filter_map(|(workload, part)| {
        let said = |part: &Option<TelemetryPart>| match part {
            Some(part) => Arc::new(part.assembled(&providers, &told)),
            None => Arc::clone(Telemetry::built_in()),
        };
        let (calls, serves) = &part.telemetry;
        let serves = vec![said(serves); workload.serves.len()];
        let is_said = part.telemetry.0.is_some() || part.telemetry.1.is_some();
        is_said.then(|| (workload.name.clone(), Arc::new(Observed { calls: said(calls), serves })))
    });
    let observed = observed.collect();
    Mesh {
        observed,
        telemetry_providers: Arc::new(providers),
        trust_domain: Sourced::built_in(TrustDomain::built_in()),
        leaf_ttl: Sourced::built_in(Duration::from_secs(86400)),
        connect_timeout: Sourced::built_in(Duration::from_secs(5)),
        services: services.collect(),
        workloads: workloads.into(),
        patches: Default::default(),
        snapshots: Default::default(),
    }
}

fn assembled_port(n: usize, part: &PortPart, at: impl Fn(&(Index, Index)) -> (QualifiedName, String)) -> Port {
    let rules = part.rules.iter().enumerate().map(|(n, rule)| assembled_rule(n, rule, &at));
    let route = Arc::new(HttpRoute { origin: None, rules: rules.collect() });
    let namespace: Label = "a".parse().expect("a label");
    let own = Consumer::Namespace(namespace.clone());
    let routes: BTreeMap<_, _> = if part.protocol.is_http() {
        [(Consumer::Everyone, route.clone())].into_iter().chain(part.own_route.then_some((own, route))).collect()
    } else {
        BTreeMap::new()
    };
    let tcp_route = || {
        let rules = part.rules.iter().enumerate().map(|(n, rule)| tcp_rule(n, rule, &at));
        Arc::new(TcpRoute { origin: self::rule("a/bytes", ""), rules: rules.collect() })
    };
    let is_routed = !part.protocol.is_http() && !part.rules.is_empty();
    Port {
        name: format!("p{n}"),
        number: u16::try_from(8000 + n).expect("small").try_into().expect("not 0"),
        protocol: part.protocol,
        server_first: part.server_first,
        callers_use_mtls: true,
        mtls: Sourced::built_in(part.mode),
        access: part.access.clone(),
        outbound: Arc::new(part.outbound.clone()),
        outbound_of: part.outbound_of.iter().map(|calls| (namespace.clone(), Arc::new(calls.clone()))).collect(),
        inbound: Arc::new(part.inbound.clone()),
        apart: part.apart.clone().map(|own| Box::new([(name("a/w0"), own)].into())),
        routes,
        tcp_routes: is_routed.then(|| (Consumer::Everyone, tcp_route())).into_iter().collect(),
    }
}

/// The destinations of a rule for requests, for connections.
fn tcp_rule(n: usize, part: &RulePart, at: impl Fn(&(Index, Index)) -> (QualifiedName, String)) -> TcpRule {
    let to = part.to.iter().map(|(service, port, labels, weight)| {
        let (service, port) = at(&(*service, *port));
        let destination = Destination { service, port, labels: labels.clone(), sticky: false };
        WeightedDestination { weight: *weight, ..WeightedDestination::only(destination) }
    });
    let (names, networks) = part.connections.clone();
    TcpRule {
        origin: rule("a/bytes", &format!("/spec/tcp/{n}")),
        name: format!("rule-{n}"),
        names,
        networks,
        to: to.collect(),
    }
}

fn assembled_rule(n: usize, rule: &RulePart, at: impl Fn(&(Index, Index)) -> (QualifiedName, String)) -> HttpRule {
    HttpRule {
        origin: None,
        name: format!("rule-{n}"),
        matches: rule.matches.clone(),
        action: rule.itself.clone().unwrap_or_else(|| {
            let to = rule.to.iter().map(|(service, port, labels, weight)| {
                let (service, port) = at(&(*service, *port));
                let sticky = rule.sticky_by.is_some();
                let destination = Destination { service, port, labels: labels.clone(), sticky };
                let (request, response) = (&rule.changes.request, &rule.changes.response);
                WeightedDestination {
                    weight: *weight,
                    host: (weight % 3 == 1).then(|| "api.example".to_owned()),
                    headers: (weight % 2 == 1).then(|| Box::new((request.clone(), response.clone()))),
                    ..WeightedDestination::only(destination)
                }
            });
            HttpAction::To(to.collect())
        }),
        changes: rule.changes.clone(),
        checks: rule.checks.clone(),
        sticky_by: rule.sticky_by.clone(),
        mirror: rule.copied.as_ref().map(|(service, port, labels, millionths)| {
            let (service, port) = at(&(*service, *port));
            let to = Destination { service, port, labels: labels.clone(), sticky: false };
            Mirror { to, percent: Percent { millionths: *millionths } }
        }),
        timeout: Sourced::built_in(rule.timeout),
        retry: Sourced::built_in(rule.retry.clone()),
    }
}

fn workload(
    n: usize,
    part: &WorkloadPart,
    at: impl Fn(&(Index, Index)) -> (QualifiedName, String),
) -> (QualifiedName, Arc<Workload>) {
    let name = name(&format!("{}/w{n}", ["a", "b"][n % 2]));
    let listen = |port: usize| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), u16::try_from(port).expect("small"));
    let serves = part.serves.iter().enumerate().map(|(i, pair)| {
        let (service, port) = at(pair);
        Serve { origin: rule("a/w", "/spec/serves"), service, port, listen: listen(9000 + i), app: listen(19000 + i) }
    });
    let calls = part.calls.iter().enumerate().map(|(i, pair)| {
        let (service, port) = at(pair);
        Call { origin: rule("a/w", "/spec/calls"), service, port, listen: listen(7000 + i) }
    });
    let workload = Workload {
        name: name.clone(),
        origin: rule("a/w", ""),
        identity: SpiffeId::of_workload(&TrustDomain::built_in(), &name),
        labels: part.labels.clone(),
        locality: part.locality.clone(),
        matches: None,
        serves: serves.collect(),
        calls: calls.collect(),
        edges: part
            .edges
            .iter()
            .enumerate()
            .map(|(n, (hosts, tls, said))| Arc::new(edge(n, hosts, tls.as_deref(), said, &at)))
            .collect(),
    };
    (name, Arc::new(workload))
}

fn edge(
    n: usize,
    parts: &[EdgePart],
    tls: Option<&[TlsPart]>,
    (access, inbound): &(Access, Inbound),
    at: impl Fn(&(Index, Index)) -> (QualifiedName, String),
) -> Edge {
    let inbound = Arc::new(inbound.clone());
    let chain_of = |name: Option<String>, names, tls, carried| EdgeChain {
        name,
        names,
        tls,
        access: access.clone(),
        inbound: Arc::clone(&inbound),
        carried,
    };
    let mut hosts: BTreeMap<HostMatch, EdgeAction> = BTreeMap::new();
    for part in parts {
        let rules = part.rules.iter().enumerate().map(|(n, (rule, outbound))| EdgeRule {
            rule: assembled_rule(n, rule, &at),
            protocol: Protocol::Http,
            outbound: Arc::new(outbound.clone()),
        });
        let rules = EdgeAction::Rules(rules.collect());
        hosts.insert(part.host.clone(), part.redirect.map_or(rules, EdgeAction::Redirect));
    }
    let hosts: Vec<_> = hosts.into_iter().map(|(host, action)| EdgeHosts { hosts: [host].into(), action }).collect();
    let bytes = parts.iter().flat_map(|part| &part.rules).enumerate().map(|(n, (part, outbound))| {
        let mut rule = tcp_rule(n, part, &at);
        let names = std::mem::take(&mut rule.names);
        let carried = EdgeCarried::Bytes(Box::new(EdgeTcpRule { rule, outbound: Arc::new(outbound.clone()) }));
        chain_of(Some(format!("bytes/{n}")), names, None, carried)
    });
    let names = BTreeSet::from([HostMatch::Exact("nothing".to_owned())]);
    let nothing = chain_of(Some("nothing".to_owned()), names, None, EdgeCarried::Nothing);
    let bytes = bytes.chain([nothing]);
    let chain = |(n, (name, min_version, clients)): (usize, &TlsPart)| {
        let certificate = Certificate {
            name: self::name("a/certificate"),
            origin: rule("a/certificate", ""),
            source: CertificateSource::Issued(BTreeSet::from(["a.b".to_owned()])),
        };
        let clients = clients.map(|(required, forward)| EdgeClients {
            authorities: Authorities::File("/ca.pem".into()),
            required,
            forward,
        });
        let tls = EdgeTls {
            listener: format!("l{n}"),
            certificate: Arc::new(certificate),
            min_version: *min_version,
            clients,
        };
        let others = EdgeHosts { hosts: [HostMatch::Exact("other".into())].into(), action: EdgeAction::Misdirected };
        let carried = EdgeCarried::Hosts(hosts.iter().cloned().chain([others]).collect());
        chain_of(Some(format!("l{n}")), [name.clone()].into(), Some(tls), carried)
    };
    let chains = match tls {
        Some(tls) => tls.iter().enumerate().map(chain).chain(bytes).collect(),
        None if n % 2 == 1 => bytes.collect(),
        None => {
            vec![chain_of(None, BTreeSet::new(), None, EdgeCarried::Hosts(hosts))]
        }
    };
    Edge {
        gateway: name("a/edge"),
        origins: vec![rule("a/edge", "")],
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), u16::try_from(6000 + n).expect("small")),
        chains,
    }
}

fn servings(service: &QualifiedName, workloads: &BTreeMap<QualifiedName, Arc<Workload>>) -> Vec<Serving> {
    let of = |workload: &Arc<Workload>| {
        let serves = workload.serves.iter().filter(|serve| serve.service == *service);
        serves
            .map(|serve| Serving {
                workload: workload.name.clone(),
                labels: workload.labels.clone(),
                port: serve.port.clone(),
                listen: serve.listen,
                locality: workload.locality.clone(),
            })
            .collect::<Vec<_>>()
    };
    workloads.values().flat_map(of).collect()
}

/// Every listener of every workload, accepted, by one proxy each.
pub fn instances(mesh: &Mesh, features: translators::xds::Features) -> Vec<Instance> {
    let instance = |workload: &Arc<Workload>| Instance {
        workload: workload.name.clone(),
        node: workload.name.to_string(),
        address: Ipv4Addr::LOCALHOST.into(),
        listeners: translators::xds::plan(mesh, workload, features)
            .iter()
            .filter(|key| matches!(key, translators::xds::ResourceKey::Inbound(..)))
            .map(|key| key.name().to_string())
            .collect::<BTreeSet<_>>(),
        has_certificate: true,
    };
    mesh.workloads.values().map(instance).collect()
}
