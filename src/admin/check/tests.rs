//! Every check, as it passes and as it does not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use imbl::OrdMap;
use translators::finding::{Code, Location};
use translators::name::{ObjectKey, ObjectKind, Owner, RuleRef};
use translators::resource::{Kind, Version};

use super::*;
use crate::admin::Validity;
use crate::report::{Rejection, TypeStatus};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn rule() -> ObjectKey {
    ObjectKey::new(ObjectKind::TrafficRoute, "shop/cart".parse().expect("valid"))
}

/// A proxy as it should be.
fn proxy(node: &str, now: SystemTime) -> Proxy {
    let version = Version::of(b"clusters");
    let accepted = TypeStatus { sent: Some(version), acked: Some(version), responses: 1, ..TypeStatus::default() };
    Proxy {
        node: node.to_owned(),
        owner: Owner::Workload("shop/cart".parse().expect("valid")),
        address: IpAddr::from([127, 0, 0, 1]),
        proven: true,
        envoy: "1.40.0".to_owned(),
        protocol: "sotw",
        connected: now - HOUR,
        types: BTreeMap::from([(Kind::Cluster, accepted)]),
        listeners: BTreeSet::new(),
        has_certificate: true,
    }
}

/// A control plane with which nothing is wrong.
fn well() -> Facts {
    let now = SystemTime::now();
    let validity = Validity { not_after: now + DAY, renew_at: now + DAY / 2 };
    let status = Status {
        ready: Ok(()),
        locate: Arc::new(|_| Some(Location { file: "rules.yaml".into(), line: 14, column: 3 })),
        certificates: OrdMap::unit("shop/cart".parse().expect("valid"), validity),
        ..Status::starting("")
    };
    let nodes: BTreeSet<Arc<str>> = ["a", "b"].map(Arc::from).into();
    Facts {
        setting: Setting::of_tests(),
        status: Arc::new(status),
        findings: Vec::new(),
        proxies: vec![proxy("a", now), proxy("b", now)],
        loads: nodes.clone(),
        metrics: nodes,
        now,
        instant: Instant::now(),
    }
}

/// What is not well once this was changed: which check, how, and its words.
fn told(change: impl FnOnce(&mut Facts)) -> (String, Outcome, String) {
    let mut facts = well();
    change(&mut facts);
    let checks = run(&facts);
    let mut those: Vec<_> = checks.checks.into_iter().filter(|check| check.outcome != Outcome::Ok).collect();
    assert_eq!(those.len(), 1, "{those:?}");
    let Check { group, name, outcome, detail, hint } = those.remove(0);
    assert!(hint.is_some_and(|hint| !hint.is_empty()), "{name} says what to do");
    assert_eq!(
        (checks.warnings, checks.failures),
        match outcome {
            Outcome::Ok => (0, 0),
            Outcome::Warn => (1, 0),
            Outcome::Fail => (0, 1),
        }
    );
    (format!("{group}/{name}"), outcome, detail)
}

fn says(change: impl FnOnce(&mut Facts), check: &str, outcome: Outcome, words: &[&str]) {
    let (name, found, detail) = told(change);
    assert_eq!((name.as_str(), found), (check, outcome), "{detail}");
    assert!(words.iter().all(|word| detail.contains(word)), "{detail:?} says {words:?}");
}

fn set(facts: &mut Facts, change: impl FnOnce(&mut Setting)) {
    let mut setting = (*facts.setting).clone();
    change(&mut setting);
    facts.setting = Arc::new(setting);
}

#[test]
fn nothing_is_wrong_with_what_is_well() {
    let checks = run(&well());
    assert!(checks.checks.iter().all(|check| check.outcome == Outcome::Ok && check.hint.is_none()), "{checks:?}");
    assert_eq!((checks.checks.len(), checks.warnings, checks.failures), (14, 0, 0));
    let groups: Vec<_> = checks.checks.iter().map(|check| check.group.as_str()).collect();
    assert!(groups.is_sorted_by_key(|group| {
        ["control plane", "identity", "rules", "proxies"].iter().position(|known| known == group)
    }));
}

#[test]
fn a_control_plane_that_is_not_ready() {
    let change = |facts: &mut Facts| {
        let status = Status { ready: Err("the rules are not read yet".to_owned()), ..Status::clone(&facts.status) };
        facts.status = Arc::new(status);
    };
    says(change, "control plane/ready", Outcome::Fail, &["the rules are not read yet"]);
}

#[test]
fn addresses_that_others_reach() {
    let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
    says(
        |facts| set(facts, |setting| setting.admin = everywhere(18080)),
        "control plane/admin address",
        Outcome::Warn,
        &["0.0.0.0:18080", "other machines"],
    );
    let loopback = SocketAddr::from(([127, 0, 0, 1], 18001));
    let open = |address, unproven: usize| {
        move |facts: &mut Facts| {
            set(facts, |setting| setting.plaintext = Some(address));
            facts.proxies.iter_mut().take(unproven).for_each(|proxy| proxy.proven = false);
        }
    };
    let name = "control plane/plaintext address";
    says(open(loopback, 0), name, Outcome::Warn, &["127.0.0.1:18001", "no proxy"]);
    says(open(loopback, 1), name, Outcome::Warn, &["1 proxy on it is known by its node id alone"]);
    says(open(everywhere(18001), 2), name, Outcome::Warn, &["2 proxies", "OTHER MACHINES", "--insecure"]);
    assert!(!told(open(loopback, 2)).2.contains("OTHER MACHINES"));
}

#[test]
fn roots_near_their_end() {
    let ends = |days: u32| {
        move |facts: &mut Facts| {
            let not_after = facts.now + DAY * days;
            set(facts, |setting| setting.roots.push(("control", not_after)));
        }
    };
    says(ends(59), "identity/roots", Outcome::Warn, &["the control root"]);
    says(ends(13), "identity/roots", Outcome::Fail, &["the control root"]);
    let mut facts = well();
    ends(61)(&mut facts);
    assert_eq!(run(&facts).warnings, 0);
}

#[test]
fn certificates_that_are_not_renewed() {
    let with = |renew_at: i64, not_after: i64| {
        move |facts: &mut Facts| {
            let at = |minutes: i64| match u64::try_from(minutes) {
                Ok(minutes) => facts.now + Duration::from_secs(60 * minutes),
                Err(_) => facts.now - Duration::from_secs(60 * minutes.unsigned_abs()),
            };
            let validity = Validity { renew_at: at(renew_at), not_after: at(not_after) };
            let mut status = Status::clone(&facts.status);
            status.certificates.insert("shop/late".parse().expect("valid"), validity);
            facts.status = Arc::new(status);
        }
    };
    let name = "identity/workload certificates";
    says(with(-7, 5), name, Outcome::Warn, &["1 certificate is late", "shop/late until"]);
    says(with(-12, -1), name, Outcome::Fail, &["1 certificate is not valid any more", "shop/late until"]);
    let mut facts = well();
    with(-5, 7)(&mut facts);
    assert_eq!(run(&facts).warnings, 0, "it is being renewed");
}

#[test]
fn mistakes_in_the_rules() {
    let errors = |facts: &mut Facts| {
        let finding = |number: usize| Finding::error(Code::NotFound, &rule(), "/spec", format!("mistake {number}"));
        facts.findings.extend((0..5).map(finding));
    };
    let words = ["5 errors: rules.yaml:14:3: MX0101", "mistake 2", "and 2 more"];
    says(errors, "rules/errors", Outcome::Fail, &words);
    assert!(!told(errors).2.contains("mistake 3"));
    let warning = |facts: &mut Facts| {
        facts.findings.push(Finding::warning(Code::NotFound, &rule(), "/spec", "doubtful"));
    };
    says(warning, "rules/warnings", Outcome::Warn, &["1 warning: rules.yaml:14:3", "doubtful"]);
}

#[test]
fn nobody_is_there() {
    says(|facts| facts.proxies.clear(), "proxies/connected", Outcome::Warn, &["no proxy is connected"]);
}

#[test]
fn what_a_proxy_refuses() {
    let refuse = |facts: &mut Facts| {
        let rejection = Rejection {
            version: Version::of(b"listeners"),
            reason: "bad path".to_owned(),
            resources: vec!["in".into()],
            rules: vec![RuleRef::new(rule(), "/spec/http/0")],
            since: facts.now,
        };
        facts.proxies[1].types.entry(Kind::Listener).or_default().rejections.push(rejection);
    };
    let words = ["1 refusal: b LDS in: bad path <- TrafficRoute shop/cart (rules.yaml:14)"];
    says(refuse, "proxies/refusals", Outcome::Fail, &words);
}

#[test]
fn a_proxy_that_does_not_answer() {
    let waits = |seconds: u64| {
        move |facts: &mut Facts| {
            facts.instant += Duration::from_secs(100);
            let since = facts.instant - Duration::from_secs(seconds);
            facts.proxies[0].types.entry(Kind::Cluster).or_default().unanswered = Some(since);
        }
    };
    says(waits(45), "proxies/in sync", Outcome::Warn, &["1 response", "a CDS for 45 s"]);
    let mut facts = well();
    waits(29)(&mut facts);
    assert_eq!(run(&facts).warnings, 0, "it may still answer");
}

#[test]
fn a_node_id_at_two_addresses() {
    let twice = |facts: &mut Facts| {
        let address = IpAddr::from([10, 0, 0, 7]);
        facts.proxies.push(Proxy { address, ..proxy("a", facts.now) });
    };
    says(twice, "proxies/node ids", Outcome::Warn, &["1 node id", "a at 10.0.0.7, 127.0.0.1"]);
    let mut facts = well();
    facts.proxies.push(proxy("a", facts.now));
    assert_eq!(run(&facts).warnings, 0, "one client may have several streams");
}

#[test]
fn responses_that_are_too_large() {
    let large = |facts: &mut Facts| facts.proxies[1].types.entry(Kind::Cluster).or_default().large = 2;
    says(large, "proxies/size of responses", Outcome::Warn, &["1 stream", "b CDS (2 responses, sotw)"]);
}

#[test]
fn a_proxy_that_does_not_report() {
    for (name, field) in [("metrics", true), ("load reports", false)] {
        let silent = |facts: &mut Facts| {
            let reporters = if field { &mut facts.metrics } else { &mut facts.loads };
            reporters.remove("b");
        };
        says(silent, &format!("proxies/{name}"), Outcome::Warn, &["1 proxy does not report", ": b"]);
        type Excuse = fn(&mut Proxy, SystemTime);
        let excuses: [Excuse; 4] = [
            |proxy, _| proxy.envoy.clear(),
            |proxy, _| proxy.proven = false,
            |proxy, now| proxy.connected = now - Duration::from_secs(59),
            |proxy, _| proxy.owner = Owner::Snapshot("edge/edge".parse().expect("valid")),
        ];
        for excuse in excuses {
            let mut facts = well();
            silent(&mut facts);
            let now = facts.now;
            excuse(&mut facts.proxies[1], now);
            assert_eq!(run(&facts).warnings, 0, "it is not to report, or not yet");
        }
    }
}
