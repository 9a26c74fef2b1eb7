//! What is printed, and the verdict.

use super::*;

fn check(group: &str, name: &str, outcome: Outcome) -> Check {
    let hint = (outcome != Outcome::Ok).then(|| format!("mend the {name}"));
    Check { group: group.to_owned(), name: name.to_owned(), outcome, detail: format!("the {name}\x1b[2J"), hint }
}

fn answer() -> Checks {
    let checks = vec![
        check("control plane", "ready", Outcome::Ok),
        check("control plane", "address", Outcome::Warn),
        check("rules", "errors", Outcome::Fail),
        check("proxies", "in sync", Outcome::Ok),
    ];
    Checks { checks, warnings: 1, failures: 1 }
}

#[test]
fn every_check_with_what_to_do() {
    let expected = "\
control plane
  ok    ready    the ready\\u{1b}[2J
  warn  address  the address\\u{1b}[2J
        -> mend the address
rules
  FAIL  errors   the errors\\u{1b}[2J
        -> mend the errors
proxies
  ok    in sync  the in sync\\u{1b}[2J
4 checks: 1 failed, 1 warned
";
    assert_eq!(render(&answer(), false), expected);
}

#[test]
fn in_short_only_what_is_not_well() {
    let short = render(&answer(), true);
    assert!(!short.contains("ready") && !short.contains("proxies") && short.contains("-> mend the errors"), "{short}");
    let checks = vec![check("control plane", "ready", Outcome::Ok)];
    assert_eq!(render(&Checks { checks, warnings: 0, failures: 0 }, true), "1 checks: all is well\n");
}

#[test]
fn warnings_count_if_that_is_said() {
    let of = |warnings, failures| Checks { checks: vec![], warnings, failures };
    let verdicts = [(0, 0), (1, 0), (0, 1)].map(|(warnings, failures)| of(warnings, failures));
    assert_eq!(verdicts.each_ref().map(|answer| is_well(answer, FailOn::Failure)), [true, true, false]);
    assert_eq!(verdicts.each_ref().map(|answer| is_well(answer, FailOn::Warning)), [true, false, false]);
}
