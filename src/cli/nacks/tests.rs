//! Whole tables.

use super::*;
use crate::admin::view::{Nack, Place, ProxyNack};

fn nack(resources: &[&str], reason: &str, rules: Vec<Rule>) -> ProxyNack {
    ProxyNack {
        node: "cart-a".to_owned(),
        workload: "shop/cart-v1".to_owned(),
        r#type: "LDS".to_owned(),
        nack: Nack {
            reason: reason.to_owned(),
            version: "d".repeat(32),
            since: "2026-01-01T00:00:55Z".to_owned(),
            resources: resources.iter().map(ToString::to_string).collect(),
            rules,
        },
    }
}

#[test]
fn the_table() {
    let place = Some(Place { file: "shop.yaml".to_owned(), line: 14, column: 7 });
    let rule =
        |pointer: &str, place| Rule { object: "TrafficRoute shop/cart".to_owned(), pointer: pointer.to_owned(), place };
    let nacks = vec![
        nack(&["in"], "Invalid path\r\n\x1b[2J", vec![rule("/spec/http/0", place), rule("", None)]),
        nack(&[], "no idea", Vec::new()),
    ];
    let expected = "\
TIME                  PROXY   TYPE  RESOURCE  REASON                     RULE
2026-01-01T00:00:55Z  cart-a  LDS   in        Invalid path\\r\\n\\u{1b}[2J  TrafficRoute shop/cart /spec/http/0 (shop.yaml:14), TrafficRoute shop/cart
2026-01-01T00:00:55Z  cart-a  LDS   -         no idea                    -
";
    assert_eq!(render(&Nacks { total: nacks.len(), nacks }, false), expected);
    assert_eq!(render(&Nacks { nacks: Vec::new(), total: 0 }, false), "no proxy refuses anything\n");
}
