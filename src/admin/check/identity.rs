//! The group `identity`: how long what proves who somebody is goes on to be valid.
//!
//! Owns: those checks, and how near an end is too near. May use: the facts. Never: sees a key.

use std::time::{Duration, SystemTime};

use super::{Facts, Found, Rule, date, left, none_of};

pub(super) const CHECKS: [Rule; 2] =
    [("identity", "roots", roots), ("identity", "workload certificates", certificates)];

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A root that ends sooner is to be replaced,
const NEAR: u32 = 60;
/// and at once if it ends sooner than this, in days: leaves are cut short by the end of their root.
const AT_HAND: u32 = 14;

fn roots(facts: &Facts) -> Found {
    let first = facts.setting.roots.iter().min_by_key(|(_, not_after)| *not_after);
    let Some((name, not_after)) = first else { return Found::Well("there are none".to_owned()) };
    let detail = format!("the {name} root ends first, on {}", date(*not_after));
    let hint = "replace the root before it ends: certificates are never valid for longer than it";
    match left(*not_after, facts.now) {
        left if left < DAY * AT_HAND => Found::bad(detail, hint),
        left if left < DAY * NEAR => Found::doubtful(detail, hint),
        _ => Found::Well(detail),
    }
}

/// A certificate is renewed when half of its life is over: one that has little left was not.
fn certificates(facts: &Facts) -> Found {
    let all = &facts.status.certificates;
    let hint = "the log of `chancery serve` says why certificates are not renewed";
    let those = |is: &dyn Fn(SystemTime, SystemTime) -> bool| -> Vec<String> {
        let those = all.iter().filter(|(_, validity)| is(validity.not_after, validity.renew_at));
        those.map(|(workload, validity)| format!("{workload} until {}", date(validity.not_after))).collect()
    };
    let ended = those(&|not_after, _| not_after <= facts.now);
    if !ended.is_empty() {
        let words = ("certificate is not valid any more", "certificates are not valid any more");
        return none_of("", words, &ended, |detail| Found::bad(detail, hint));
    }
    let late = those(&|not_after, renew_at| {
        let half = left(not_after, renew_at) / 2;
        left(not_after, facts.now) < half
    });
    let well = format!("{} are valid, and none is late to be renewed", all.len());
    let words = ("certificate is late to be renewed", "certificates are late to be renewed");
    none_of(&well, words, &late, |detail| Found::doubtful(detail, hint))
}
