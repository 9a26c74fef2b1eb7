//! Whole tables.

use super::*;

fn answer() -> Edges {
    let edge = |caller: &str, identity: Option<&str>, version: &str, requests, successes| Edge {
        caller: caller.to_owned(),
        caller_identity: identity.map(str::to_owned),
        service: "shop/cart".to_owned(),
        version: version.to_owned(),
        port: "web".to_owned(),
        protocol: "http".to_owned(),
        requests,
        successes,
        success_rate: Some(successes as f64 / requests as f64),
        mtls_requests: if identity.is_some() { requests } else { 0 },
        mtls_share: Some(if identity.is_some() { 1.0 } else { 0.0 }),
        last_seen: "2026-01-01T00:00:55Z".to_owned(),
    };
    let web = "spiffe://cluster.local/ns/front/sa/web";
    let edges = vec![
        edge("unknown", None, "", 4, 4),
        edge("front/web", Some(web), "v1", 9000, 8999),
        edge("front/web", Some(web), "v2", 1000, 1000),
    ];
    Edges { edges, mtls_share: Some(0.9996), requests: 10_004 }
}

#[test]
fn the_table() {
    let expected = "\
CALLER     SERVICE    VERSION  REQUESTS  SUCCESS  MTLS
unknown    shop/cart  -        4         100%     0%
front/web  shop/cart  v1       9000      99.9%    100%
front/web  shop/cart  v2       1000      100%     100%
";
    assert_eq!(render(&answer(), false), expected);
}

#[test]
fn the_wide_table() {
    let expected = "\
CALLER     IDENTITY                                SERVICE    PORT  PROTOCOL  VERSION  REQUESTS  SUCCESS  MTLS  LAST SEEN
unknown    -                                       shop/cart  web   http      -        4         100%     0%    2026-01-01T00:00:55Z
front/web  spiffe://cluster.local/ns/front/sa/web  shop/cart  web   http      v1       9000      99.9%    100%  2026-01-01T00:00:55Z
front/web  spiffe://cluster.local/ns/front/sa/web  shop/cart  web   http      v2       1000      100%     100%  2026-01-01T00:00:55Z
";
    assert_eq!(render(&answer(), true), expected);
}

#[test]
fn no_traffic_is_said() {
    let empty = Edges { edges: Vec::new(), mtls_share: None, requests: 0 };
    assert_eq!(render(&empty, false), "no proxy has reported a request\n");
}
