//! Whole tables.

use super::*;
use crate::admin::rfc3339;

fn load(cluster: &str, dropped: u64, localities: Vec<LocalityLoad>) -> Load {
    Load {
        node: "web-a".to_owned(),
        workload: "front/web".to_owned(),
        cluster: cluster.to_owned(),
        service: String::new(),
        at: "2026-01-01T00:00:00Z".to_owned(),
        seconds: 60.004,
        dropped,
        localities,
    }
}

fn answer() -> Loads {
    let locality = LocalityLoad {
        locality: "eu/a".to_owned(),
        priority: 0,
        requests: 12,
        successes: 9,
        errors: 2,
        in_progress: 1,
    };
    let nowhere = LocalityLoad { locality: String::new(), priority: 1, ..locality.clone() };
    let loads = vec![load("cart", 0, vec![locality, nowhere]), load("full", 3, vec![]), load("idle", 0, vec![])];
    Loads { loads, reporters: 1 }
}

#[test]
fn the_table_lists_what_was_asked() {
    let now = rfc3339::parse("2026-01-01T00:00:07Z").expect("valid");
    let expected = "\
NODE   CLUSTER  LOCALITY  REQUESTS  ERRORS  IN PROGRESS  DROPPED  IN  REPORTED
web-a  cart     eu/a      12        2       1            0        1m  7s
web-a  cart     -         12        2       1            0        1m  7s
web-a  full     -         0         0       0            3        1m  7s
";
    assert_eq!(render(&answer(), false, now), expected);
}

#[test]
fn the_wide_table_lists_every_cluster() {
    let now = rfc3339::parse("2026-01-01T00:00:07Z").expect("valid");
    let expected = "\
NODE   WORKLOAD   CLUSTER  SERVICE  LOCALITY  PRIORITY  REQUESTS  ERRORS  IN PROGRESS  DROPPED  IN  REPORTED
web-a  front/web  cart     -        eu/a      0         12        2       1            0        1m  7s
web-a  front/web  cart     -        -         1         12        2       1            0        1m  7s
web-a  front/web  full     -        -         0         0         0       0            3        1m  7s
web-a  front/web  idle     -        -         0         0         0       0            0        1m  7s
";
    assert_eq!(render(&answer(), true, now), expected);
}

#[test]
fn nothing_to_list_says_why() {
    let of = |loads, reporters| render(&Loads { loads, reporters }, false, SystemTime::UNIX_EPOCH);
    assert!(of(vec![], 0).contains("chancery bootstrap"));
    assert_eq!(of(vec![load("idle", 0, vec![])], 2), "2 proxies report their load; none has sent a request\n");
}
