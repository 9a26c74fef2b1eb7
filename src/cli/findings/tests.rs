//! Whole tables.

use super::*;
use crate::admin::view::Place;

#[test]
fn the_table() {
    let finding = |object: Option<&str>, pointer: &str, location| Finding {
        code: "MX0101".to_owned(),
        severity: "error".to_owned(),
        object: object.map(str::to_owned),
        pointer: pointer.to_owned(),
        message: "service \"crat\" not found".to_owned(),
        choices: vec!["cart".to_owned(), "redis".to_owned()],
        hint: Some("did you mean \"cart\"?".to_owned()),
        location,
        text: String::new(),
    };
    let place = Place { file: "shop\u{1b}.yaml".to_owned(), line: 58, column: 12 };
    let findings = vec![
        finding(Some("TrafficRoute shop/cart"), "/spec/http/1", Some(place)),
        finding(Some("TrafficRoute shop/cart"), "/spec/http/1", None),
        finding(None, "", None),
    ];
    let expected = "\
CODE    SEVERITY  OBJECT                  WHERE                  MESSAGE
MX0101  error     TrafficRoute shop/cart  shop\\u{1b}.yaml:58:12  service \"crat\" not found; choices: cart, redis; did you mean \"cart\"?
MX0101  error     TrafficRoute shop/cart  /spec/http/1           service \"crat\" not found; choices: cart, redis; did you mean \"cart\"?
MX0101  error     -                       -                      service \"crat\" not found; choices: cart, redis; did you mean \"cart\"?
";
    assert_eq!(render(&Findings { findings }, false), expected);
    assert_eq!(render(&Findings { findings: Vec::new() }, false), "nothing is wrong with the rules\n");
}
