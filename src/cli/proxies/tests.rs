//! Whole tables.

use super::*;
use crate::admin::rfc3339;
use crate::admin::view::{Certificate, KnownBy, Nack, Place, Rule};

fn version(of: char) -> String {
    of.to_string().repeat(32)
}

fn accepted(of: char) -> Type {
    Type { sent: Some(version(of)), acked: Some(version(of)), subscribed: None, responses: 1, nack: None }
}

fn proxy(node: &str, types: &[(&str, Type)], in_sync: bool) -> Proxy {
    Proxy {
        node: node.to_owned(),
        workload: "shop/cart-v1".to_owned(),
        address: "127.0.0.2".to_owned(),
        known_by: KnownBy::Certificate,
        envoy: "1.40.0".to_owned(),
        protocol: "delta".to_owned(),
        connected: "2026-01-01T00:00:00Z".to_owned(),
        in_sync,
        types: types.iter().map(|(of, status)| ((*of).to_owned(), status.clone())).collect(),
        certificate: None,
    }
}

fn answer() -> Proxies {
    let nack = Nack {
        reason: "Invalid path\x1b[31m: a path must begin with a slash, and this one does not".to_owned(),
        version: version('d'),
        since: "2026-01-01T00:00:55Z".to_owned(),
        resources: vec!["shop/cart/v2".to_owned()],
        rules: vec![Rule {
            object: "TrafficRoute shop/cart".to_owned(),
            pointer: "/spec/http/0".to_owned(),
            place: Some(Place { file: "shop.yaml".to_owned(), line: 14, column: 7 }),
        }],
    };
    let refused = Type { sent: Some(version('d')), nack: Some(nack), ..accepted('c') };
    let awaited = Type { sent: Some(version('e')), acked: None, ..accepted('e') };
    let mut well = proxy("cart-a", &["CDS", "EDS", "LDS", "RDS", "SDS"].map(|of| (of, accepted('a'))), true);
    well.certificate = Some(Certificate { not_after: "2026-01-02T00:00:00Z".to_owned() });
    let refusing = proxy("cart-b", &[("CDS", refused), ("LDS", accepted('b'))], false);
    let mut waiting = proxy("cart\nc", &[("CDS", awaited)], false);
    waiting.envoy.clear();
    waiting.known_by = KnownBy::NodeId;
    Proxies { proxies: vec![well, refusing, waiting], in_sync: 1, total: 3 }
}

#[test]
fn the_table() {
    let now = rfc3339::parse("2026-01-01T00:01:00Z").expect("valid");
    let expected = "\
NODE     WORKLOAD      SYNC           CDS                EDS       LDS       RDS       SDS       ENVOY   NOTE
cart-a   shop/cart-v1  ok (1m)        aaaaaaaa           aaaaaaaa  aaaaaaaa  aaaaaaaa  aaaaaaaa  1.40.0
cart-b   shop/cart-v1  REJECTED (5s)  cccccccc>dddddddd  -         bbbbbbbb  -         -         1.40.0  CDS shop/cart/v2: Invalid path\\u{1b}[31m: a path must begin with a slash, and th... <- TrafficRoute shop/cart /spec/http/0 (shop.yaml:14)
cart\\nc  shop/cart-v1  pending        >eeeeeeee          -         -         -         -         -       plaintext: known by its node id alone
";
    assert_eq!(render(&answer(), false, now), expected);
}

#[test]
fn the_wide_table() {
    let now = rfc3339::parse("2026-01-01T00:01:00Z").expect("valid");
    let mut answer = answer();
    answer.proxies.truncate(1);
    let expected = "\
NODE    WORKLOAD      ADDRESS    PROTOCOL  CERT                  SYNC     CDS                               EDS                               LDS                               RDS                               SDS                               ENVOY   NOTE
cart-a  shop/cart-v1  127.0.0.2  delta     2026-01-02T00:00:00Z  ok (1m)  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  1.40.0
";
    assert_eq!(render(&answer, true, now), expected);
}

#[test]
fn no_proxy_says_what_to_do() {
    let empty = Proxies { proxies: Vec::new(), in_sync: 0, total: 0 };
    assert_eq!(
        render(&empty, false, SystemTime::UNIX_EPOCH),
        "no proxy is connected; `chancery bootstrap --workload NS/NAME` makes the configuration of one\n"
    );
}
