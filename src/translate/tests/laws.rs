//! Following: a translator that saw every edit holds what one that sees only the last state would make of it.

use proptest::prelude::*;
use translators::name::ObjectKey;

use super::world::World;
use super::*;

const SERVICES: [&str; 4] = ["a/s0", "a/s1", "b/s2", "b/s3"];
const WORKLOADS: [&str; 4] = ["a/w0", "a/w1", "b/w2", "b/w3"];

#[derive(Debug, Clone)]
enum Edit {
    /// Writes an object: its kind, its name, what it says.
    Put(&'static str, &'static str, String),
    /// Removes one of the objects that were written.
    Remove(prop::sample::Index),
    Connect(&'static str, u8, bool),
    Disconnect(prop::sample::Index),
    Features(BTreeSet<Features>),
    /// Everybody has accepted what was published.
    Settle,
}

fn edit() -> impl Strategy<Value = Edit> {
    let service = || prop::sample::select(SERVICES.as_slice());
    let put = |kind| move |(name, spec): (&'static str, String)| Edit::Put(kind, name, spec);
    prop_oneof![
        4 => (service(), service_spec()).prop_map(put("MeshService")),
        4 => (prop::sample::select(WORKLOADS.as_slice()), workload_spec()).prop_map(put("Workload")),
        4 => (prop::sample::select(["a/r0", "a/r1", "b/r2"].as_slice()), route_spec()).prop_map(put("TrafficRoute")),
        3 => (prop::sample::select(["a/g0", "a/g1", "b/g2"].as_slice()), gateway_spec()).prop_map(put("EdgeGateway")),
        2 => (prop::sample::select(["a/c0", "b/c0"].as_slice()), certificate_spec()).prop_map(put("TLSCertificate")),
        4 => (prop::sample::select(["a/e0", "a/e1", "b/e2"].as_slice()), edge_route_spec()).prop_map(put("TrafficRoute")),
        2 => (service(), policy_spec()).prop_map(put("MTLSPolicy")),
        3 => (prop::sample::select(["a/t0", "a/t1", "b/t2"].as_slice()), traffic_spec()).prop_map(put("TrafficPolicy")),
        2 => (service(), access_spec()).prop_map(put("AccessPolicy")),
        4 => (prop::sample::select(["a/o0", "a/o1", "b/o2", "mesh-system/o3"].as_slice()), telemetry_spec())
            .prop_map(put("TelemetryPolicy")),
        4 => (prop::sample::select(["a/p0", "a/p1", "b/p2", "mesh-system/p3"].as_slice()), patch_spec())
            .prop_map(put("EnvoyPatch")),
        1 => mesh_spec().prop_map(|spec| Edit::Put("Mesh", "mesh-system/default", spec)),
        3 => any::<prop::sample::Index>().prop_map(Edit::Remove),
        3 => (prop::sample::select(WORKLOADS.as_slice()), 0..3u8, any::<bool>())
            .prop_map(|(workload, node, certificate)| Edit::Connect(workload, node, certificate)),
        1 => any::<prop::sample::Index>().prop_map(Edit::Disconnect),
        2 => prop::collection::btree_set(features_of_one(), 0..4).prop_map(Edit::Features),
        1 => Just(Edit::Settle),
    ]
}

fn features_of_one() -> impl Strategy<Value = Features> {
    prop_oneof![(36u32..42).prop_map(|minor| Features::of_envoy(1, minor)), any::<bool>().prop_map(Features::of_grpc)]
}

fn service_spec() -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec![
        "[{name: http, port: 80, protocol: http}]",
        "[{name: http, port: 80, protocol: http2}]",
        "[{name: http, port: 80, protocol: tcp}]",
        "[{name: http, port: 82, protocol: grpc}]",
        "[{name: http, port: 80, protocol: grpc}, {name: raw, port: 81, protocol: http2}]",
        "[{name: http, port: 80, protocol: http}, {name: raw, port: 81, protocol: tcp}]",
        "[{name: raw, port: 81, protocol: tcp, serverFirst: true}]",
        "[{name: http, port: 80, protocol: tls}, {name: raw, port: 81, protocol: tcp}]",
    ]);
    let listed = prop::sample::select(vec![
        "",
        "",
        ", endpoints: {static: [{address: 127.0.0.1, port: 9}]}",
        ", endpoints: {static: [{address: 127.0.0.2, port: 9, labels: {version: v1}}]}",
        ", endpoints: {static: [{address: 127.0.0.3, port: 9, locality: {region: a}}]}",
        ", endpoints: {dns: {hostname: one.example}}",
        ", endpoints: {dns: {hostname: two.example, mode: logical}}, external: true",
        ", endpoints: {dns: {hostname: two.example}}, external: true, tls: {}",
        ", endpoints: {static: [{address: 127.0.0.1, port: 9}]}, external: true, tls: {sni: three.example}",
    ]);
    (ports, listed).prop_map(|(ports, listed)| format!("{{ports: {ports}{listed}}}"))
}

fn port() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["http", "http", "http", "raw"])
}

fn workload_spec() -> impl Strategy<Value = String> {
    let serves = prop::collection::btree_set((prop::sample::select(vec!["s0", "s1", "s2"]), port()), 0..3);
    let calls = prop::collection::vec((prop::sample::select(SERVICES.as_slice()), port(), 0..6u16), 0..5);
    let labels = prop::sample::select(vec![
        "",
        ", labels: {version: v1}",
        ", labels: {version: v2}",
        ", labels: {version: v1}, locality: {region: a, zone: x}",
        ", locality: {region: a, zone: z, subzone: s}",
        ", locality: {region: b}",
    ]);
    (serves, calls, labels).prop_map(|(serves, calls, labels)| {
        let serves: Vec<String> = (0..)
            .zip(serves)
            .map(|(n, (service, port)): (u16, _)| {
                let (listen, app) = (100 + n, 200 + n);
                format!("{{service: {service}, port: {port}, listen: \"0.0.0.0:{listen}\", app: \"127.0.0.1:{app}\"}}")
            })
            .collect();
        let calls: Vec<String> = (0..)
            .zip(calls)
            .map(|(n, (service, port, listen)): (u16, _)| {
                format!("{{service: {service}, port: {port}, listen: \"127.0.0.1:{}\"}}", 300 + 10 * n + listen)
            })
            .collect();
        format!("{{serves: [{}], calls: [{}]{labels}}}", serves.join(", "), calls.join(", "))
    })
}

fn route_spec() -> impl Strategy<Value = String> {
    let to = (prop::sample::select(SERVICES.as_slice()), prop::option::of(1..3u8)).prop_map(|(service, version)| {
        let version = version.map(|version| format!(", version: v{version}")).unwrap_or_default();
        format!("{{service: {service}{version}}}")
    });
    let rule = prop::sample::select(vec![
        "http: [{name: all, to: TO, timeout: 1s}]",
        "http: [{name: all, to: TO, timeout: 2s}]",
        "http: [{to: TO, stickyBy: {header: x-user}}]",
        "http: [{to: TO, retry: {attempts: 2}, cors: {allowOrigins: [\"*\"]}}]",
        "grpc: [{match: [{service: a.B}], to: TO}]",
        "http: [{match: [{from: [{namespace: a}, {service: s1}]}], to: TO}, {to: [{service: a/s0}]}]",
        "grpc: [{match: [{from: [{serviceAccount: w0}]}], to: TO}]",
        "tcp: [{to: TO}]",
        "tcp: [{match: [{port: 80}, {port: 81, cidr: 10.0.0.0/8}], to: TO}, {to: TO}]",
        "tls: [{match: [{sni: a.b}, {sni: \"*.b\"}], to: TO}, {to: [{service: a/s1}]}]",
    ]);
    (prop::sample::select(SERVICES.as_slice()), prop::collection::vec(to, 1..3), rule).prop_map(
        |(service, to, rule)| {
            format!("{{for: {{service: {service}}}, {}}}", rule.replace("TO", &format!("[{}]", to.join(", "))))
        },
    )
}

fn gateway_spec() -> impl Strategy<Value = String> {
    let workload = prop::sample::select(vec!["{name: w0}", "{name: w1}", "{name: w2}", "{labels: {version: v1}}"]);
    let listeners = prop::sample::select(vec![
        "{name: one, port: 80, protocol: http}",
        "{name: one, port: 80, protocol: http, hostnames: [a.b]}, {name: two, port: 80, protocol: http, hostnames: [\"*.b\"], redirectTo: one}",
        "{name: one, port: 81, protocol: http}, {name: two, port: 101, protocol: http, address: 127.0.0.1, redirectTo: one}",
        "{name: one, port: 80, protocol: tcp}, {name: two, port: 81, protocol: tcp}",
        "{name: one, port: 80, protocol: tls, hostnames: [\"*.b\"], tls: {mode: passthrough}}, {name: two, port: 80, protocol: tls, tls: {certificate: c0}}",
    ]);
    let tls = "protocol: https, tls: {certificate: c0, clientAuth: {mode: optional, ca: system, forward: true}}";
    let secured = move |(listeners, secured): (&str, bool)| {
        if secured { listeners.replace("protocol: http", tls) } else { listeners.to_owned() }
    };
    let listeners = (listeners, any::<bool>()).prop_map(secured);
    (workload, listeners)
        .prop_map(|(workload, listeners)| format!("{{workload: {workload}, listeners: [{listeners}]}}"))
}

fn certificate_spec() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["{source: {issued: {dnsNames: [a.b]}}}", "{source: {file: {cert: /c, key: /k}}}"])
        .prop_map(str::to_owned)
}

/// Of requests to a gateway.
fn edge_route_spec() -> impl Strategy<Value = String> {
    let subject = prop::sample::select(vec![
        "{gateway: g0}",
        "{gateway: g0, hostnames: [a.b]}",
        "{gateway: g0, prefix: /p}",
        "{gateway: g1, hostnames: [\"*.b\"]}",
        "{gateway: g2}",
    ]);
    let rule = prop::sample::select(vec![
        "http: [{to: [{service: TO}]}]",
        "http: [{to: [{service: TO, version: v1}, {service: a/s0}], timeout: 3s}, {respond: {status: 204}}]",
        "grpc: [{to: [{service: TO}], stickyBy: {header: x-user}}]",
        "tcp: [{match: [{port: 80, cidr: 10.0.0.0/8}], to: [{service: TO}]}, {to: [{service: a/s0}, {service: TO}]}]",
        "tls: [{match: [{sni: a.b}], to: [{service: TO}]}, {to: [{service: a/s0}]}]",
        "http: [{match: [{from: [{ip: 10.0.0.0/8}]}], to: [{service: TO}]}]",
    ]);
    (subject, rule, prop::sample::select(SERVICES.as_slice()))
        .prop_map(|(subject, rule, to)| format!("{{for: {subject}, {}}}", rule.replace("TO", to)))
}

/// Of the services of its own namespace, or of another's for the callers of its own.
fn traffic_spec() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        4 => target().prop_map(str::to_owned),
        2 => prop::sample::select(SERVICES.as_slice()).prop_map(|service| format!("{{service: {service}}}")),
        1 => prop::sample::select(SERVICES.as_slice()).prop_map(|service| format!("{{service: {service}, port: http}}")),
        2 => prop::sample::select(vec!["{route: r0}", "{route: r0, rule: all}", "{route: r1}", "{route: e0, rule: rule-0}"])
            .prop_map(str::to_owned),
    ];
    let outbound = prop::sample::select(vec![
        "{timeouts: {connect: 1s}}",
        "{timeouts: {request: 4s}, retry: {attempts: 3, when: [5xx]}}",
        "{timeouts: {request: 3s, idle: 9s}, retry: {attempts: 2}}",
        "{timeouts: null, retry: null}",
        "{loadBalancing: {policy: ring-hash, hashOn: ip}}",
        "{circuitBreaker: {maxConnections: 5}}",
        "{healthCheck: {http: {path: /healthz}}}",
        "{healthCheck: {grpc: {}}, proxyProtocol: v2}",
        "{loadBalancing: {policy: maglev, hashOn: caller}}",
        "{locality: {prefer: zone, failover: [{from: a, to: b}]}}",
        "{locality: {prefer: region, overprovisioning: 2}}",
        "{locality: null}",
    ]);
    let inbound = prop::option::of(prop::sample::select(vec![
        "{rateLimit: {requests: 5, per: 1s, key: caller}}",
        "{maxConnections: 5, bufferLimit: 65536}",
        "{rateLimit: {requests: 5, per: 1s, key: ip}, fault: {abort: {status: 503}}}",
        "{fault: {abort: {status: 503}}, requestTimeout: 1s, adaptiveConcurrency: {}}",
    ]));
    (target, outbound, inbound).prop_map(|(target, outbound, inbound)| {
        let inbound = inbound.map(|inbound| format!(", inbound: {inbound}")).unwrap_or_default();
        let outbound = if target.contains("gateway") { String::new() } else { format!(", outbound: {outbound}") };
        format!("{{target: {target}{outbound}{inbound}}}")
    })
}

fn target() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{service: s0}",
        "{service: s1}",
        "{service: s2}",
        "{scope: namespace}",
        "{service: s0, port: raw}",
        "{gateway: g0}",
        "{gateway: g0, listener: two}",
        "{labels: {version: v1}}",
        "{labels: {version: v2}}",
    ])
}

fn policy_spec() -> impl Strategy<Value = String> {
    (target(), prop::sample::select(vec!["strict", "permissive", "disabled"]))
        .prop_map(|(target, mode)| format!("{{target: {target}, mode: {mode}}}"))
}

fn access_spec() -> impl Strategy<Value = String> {
    let rest = prop::sample::select(vec![
        "default: allow",
        "default: deny",
        "deny: [{from: [{service: a/s0}]}]",
        "allow: [{from: [any], to: [{paths: [\"/x\"]}]}]",
        "mode: audit, default: deny, deny: [{from: [{ip: 10.0.0.0/8}], to: [{ports: [80]}]}]",
        "allow: [{jwt: {provider: login}}]",
        "default: deny, allow: [{from: [{gateway: a/g0}, {gateway: g1}]}]",
        "default: deny, allow: [{from: [{ip: 10.0.0.0/8}]}], deny: [{from: [{ip: 10.1.0.0/16}]}]",
        "default: deny, allow: [{external: {service: a/s0, port: http}}, {from: [{namespace: a}], external: {service: b/s2, port: http, failOpen: true}}]",
        "mode: audit, deny: [{jwt: {provider: login, claims: {role: [a]}}}, {jwt: {provider: other}}]",
    ]);
    (target(), rest).prop_map(|(target, rest)| format!("{{target: {target}, {rest}}}"))
}

fn telemetry_spec() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        3 => target(),
        2 => prop::sample::select(vec!["{scope: mesh}", "{labels: {version: v1}}", "{labels: {version: v2}}"]),
    ];
    let rest = prop::sample::select(vec![
        "accessLogs: [{to: stdout}]",
        "accessLogs: [{to: file, path: /tmp/x, format: text}, {to: control-plane, sample: 1}]",
        "accessLogs: [{to: otlp, provider: one, when: {errors: true}}]",
        "accessLogs: null, tracing: null",
        "tracing: {provider: one, percent: 1, tags: {a: b}}",
        "tracing: {provider: two, tags: {a: null, b: {header: x}}}",
        "metrics: {drop: [caller], labels: {c: d}}",
    ]);
    (target, rest).prop_map(|(target, rest)| format!("{{target: {target}, {rest}}}"))
}

fn patch_spec() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        3 => target(),
        2 => prop::sample::select(vec!["{scope: mesh}", "{labels: {version: v1}}", "{labels: {version: v2}}"]),
        2 => prop::sample::select(vec!["{service: a/s0}", "{service: b/s2}", "{service: b/s3, port: http}"]),
    ];
    let edit = prop::sample::select(vec![
        "{resource: cluster, match: {direction: outbound}, op: merge, value: {per_connection_buffer_limit_bytes: 9}}",
        "{resource: cluster, match: {direction: outbound, name: \"*s1*\"}, op: remove}",
        "{resource: cluster, match: {direction: outbound}, op: add, value: {name: x}}",
        "{resource: cluster, op: add, value: {name: y, connect_timeout: 3s}}",
        "{resource: endpoint, match: {direction: outbound}, op: merge, value: {policy: {overprovisioning_factor: 200}}}",
        "{resource: listener, match: {direction: inbound}, op: replace, value: {stat_prefix: x}}",
        "{resource: filterChain, match: {name: \"*plaintext\"}, op: remove}",
        "{resource: httpFilter, match: {direction: outbound, name: \"*router\"}, op: insertBefore, value: {name: lua}}",
        "{resource: virtualHost, match: {direction: outbound}, op: merge, value: {include_request_attempt_count: true}}",
        "{resource: route, match: {name: rule-0, direction: outbound}, op: merge, value: {stat_prefix: x}}",
    ]);
    let rest = prop::sample::select(vec!["", "", ", envoy: \">=1.38\"", ", envoy: \"<1.40, >1.36\"", ", priority: 1"]);
    (target, prop::collection::vec(edit, 1..4), rest)
        .prop_map(|(target, edits, rest)| format!("{{target: {target}, patches: [{}]{rest}}}", edits.join(", ")))
}

fn mesh_spec() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "{trustDomain: one.example}",
        "{trustDomain: two.example, defaults: {connectTimeout: 2s}}",
        "{defaults: {mtls: permissive}}",
        "{defaults: {timeout: 3s, access: deny}}",
        "{telemetryProviders: [{name: one, otlp: {address: \"a:1\"}}, {name: two, zipkin: {address: \"a:2\"}}]}",
        "{telemetryProviders: [{name: one, otlp: {address: \"b:1\"}}, {name: two, zipkin: {service: b/s2, port: http}}]}",
        "{telemetryProviders: [{name: one, otlp: {service: a/s0, port: http}}]}",
        "{jwtProviders: [{name: login, issuer: i, jwks: {url: \"https://keys.example/k\"}}]}",
        "{jwtProviders: [{name: login, issuer: i, jwks: {url: \"http://keys.example/k\"}}, {name: other, issuer: o, jwks: {url: \"http://o.example\"}}]}",
    ])
    .prop_map(str::to_owned)
}

/// What can be told of a group from outside: kinds, names, versions and the rules behind them.
fn told(groups: &OrdMap<GroupKey, Arc<Snapshot>>) -> BTreeMap<GroupKey, Vec<String>> {
    let of = |snapshot: &Snapshot| -> Vec<String> {
        let mut told = Vec::new();
        for kind in Kind::ALL {
            told.push(format!("{kind} {}", snapshot.of(kind).version()));
            told.extend(snapshot.of(kind).iter().map(|resource| format!("{resource:?} {:?}", resource.origins())));
        }
        told
    };
    groups.iter().map(|(group, snapshot)| (group.clone(), of(snapshot))).collect()
}

/// The number that says that everybody has accepted everything.
const ALL: u64 = u64::MAX;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn following_ends_where_starting_anew_begins(edits in prop::collection::vec(edit(), 1..40)) {
        let mut world = World::default();
        let mut written: Vec<ObjectKey> = Vec::new();
        let mut features = features();
        let mut translator = Translator::open(None).0;
        let mut settled = 0;
        for edit in edits {
            match edit {
                Edit::Put(kind, name, spec) => {
                    let key = world.put(kind, name, &spec);
                    written.retain(|other| *other != key);
                    written.push(key);
                }
                Edit::Remove(index) if !written.is_empty() => {
                    world.remove(&written.swap_remove(index.index(written.len())));
                }
                Edit::Connect(workload, node, certificate) => {
                    let listeners = ["in/a/s0/http", "in/a/s1/http", "in/b/s2/http", "in/a/s0/raw"];
                    world.connect(workload, &node.to_string(), &listeners, certificate);
                }
                Edit::Disconnect(index) if !world.instances.is_empty() => {
                    let nth = index.index(world.instances.len());
                    let key = world.instances.keys().nth(nth).expect("in range").clone();
                    world.instances.remove(&key);
                }
                Edit::Features(next) => features = next,
                Edit::Settle => settled = ALL,
                Edit::Remove(_) | Edit::Disconnect(_) => {}
            }
            translator.translate(&world.inputs(), &features, settled);
            settled = 0;
            let rules = translator.current.clone().expect("translated");
            let mut anew = Catalog::default();
            anew.follow(&rules.mesh, &features, &world.instances);
            prop_assert_eq!(told(translator.catalog.groups()), told(anew.groups()));
        }
        for _ in 0..4 {
            translator.translate(&world.inputs(), &features, ALL);
        }
        let rules = translator.current.clone().expect("translated");
        prop_assert!(!rules.climbing);
        let mut anew = Translator::open(None).0;
        anew.translate(&world.inputs(), &features, ALL);
        let of_anew = anew.current.clone().expect("translated");
        // What is wrong keeps its last good form, which only one of the two has seen.
        if rules.findings.refused.is_empty() && of_anew.findings.resolved == rules.findings.resolved {
            prop_assert_eq!(&rules.mesh, &of_anew.mesh);
            prop_assert_eq!(told(translator.catalog.groups()), told(anew.catalog.groups()));
        }
    }
}
