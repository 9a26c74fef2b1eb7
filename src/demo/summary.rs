//! Summary: what a demo run came to.
//!
//! Owns: the figures of the end and the verdict. May use: `load` and `control_plane`, which measured them. Never:
//! states a figure that was not measured.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::demo::control_plane::Status;
use crate::demo::load::Counts;
use crate::demo::{PROXIES, VERSIONS};

/// The figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Requests of the load loop, from when every version of the cart had answered once.
    pub requests: u64,
    /// Those of them that did not succeed.
    pub failed: u64,
    /// Those of them that succeeded, by the version of the cart that answered.
    pub by_version: BTreeMap<String, u64>,
    /// The share of requests that reached a proxy's own listener over mutual TLS, as the proxies report it; none
    /// if they have reported no request.
    pub mtls_share: Option<f64>,
    /// Connected proxies.
    pub proxies: u64,
    /// Those of them that have accepted everything that they were sent.
    pub in_sync: u64,
    /// Refusals that stand.
    pub nacks: u64,
    /// From the start of the control plane to the first request that succeeded.
    pub first_request_ms: Option<u64>,
    /// The most memory that the control plane has had.
    pub control_plane_peak_mib: f64,
    /// Whether the proxies have reported every request that each version of the cart has answered, and beyond them
    /// no more than the requests that no version answered; none if the run was stopped before their last reports.
    pub edges_match: Option<bool>,
}

// === impl Summary ===

impl Summary {
    /// The figures, with the verdict on the proxies' reports.
    pub(super) fn new(
        counts: &Counts,
        status: &Status,
        first_request_ms: Option<u64>,
        control_plane_peak_mib: f64,
        edges_match: Option<bool>,
    ) -> Self {
        let (requests, mtls) = status.requests();
        Self {
            requests: counts.requests,
            failed: counts.failed,
            by_version: counts.by_version.clone(),
            mtls_share: (requests > 0).then(|| share(mtls, requests)),
            proxies: status.proxies,
            in_sync: status.in_sync,
            nacks: status.nacks.len() as u64,
            first_request_ms,
            control_plane_peak_mib,
            edges_match,
        }
    }

    /// Whether every request succeeded, there were some, and every proxy was there and in sync.
    pub fn is_good(&self) -> bool {
        self.requests > 0 && self.failed == 0 && self.proxies == PROXIES && self.in_sync == PROXIES
    }
}

/// Whether the proxies have reported what the cart has answered, no less, and no more than can have reached them.
pub(super) fn edges_match(counts: &Counts, status: &Status) -> bool {
    let beyond = VERSIONS.iter().try_fold(0, |beyond, version| {
        let answered = counts.answered.get(*version).copied().unwrap_or_default();
        Some(beyond + status.requests_to("shop/cart", version).checked_sub(answered)?)
    });
    beyond.is_some_and(|beyond| beyond <= counts.unanswered)
}

/// A part of a whole, 1 for nothing of nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::control_plane::tests::edge;

    fn counts() -> Counts {
        let by_version = BTreeMap::from([("v1".to_owned(), 79), ("v2".to_owned(), 21)]);
        let answered = BTreeMap::from([("v1".to_owned(), 82), ("v2".to_owned(), 22)]);
        Counts { requests: 100, by_version, answered, ..Counts::default() }
    }

    fn status() -> Status {
        Status {
            proxies: 4,
            in_sync: 4,
            edges: vec![edge("shop/cart", "v1", 82, 82), edge("shop/cart", "v2", 22, 22)],
            ..Status::default()
        }
    }

    #[test]
    fn a_good_run_is_one_json_object() {
        let summary = Summary::new(&counts(), &status(), Some(812), 31.5, Some(true));
        assert!(summary.is_good());
        assert_eq!(
            serde_json::to_string(&summary).expect("a summary is JSON"),
            r#"{"requests":100,"failed":0,"by_version":{"v1":79,"v2":21},"mtls_share":1.0,"proxies":4,"in_sync":4,"nacks":0,"first_request_ms":812,"control_plane_peak_mib":31.5,"edges_match":true}"#
        );
    }

    #[test]
    fn a_failure_a_missing_proxy_or_no_request_at_all_is_a_bad_run() {
        let good = Summary::new(&counts(), &status(), Some(812), 31.5, Some(true));
        let bad = [
            Summary { failed: 1, ..good.clone() },
            Summary { in_sync: 3, ..good.clone() },
            Summary { proxies: 3, in_sync: 3, ..good.clone() },
            Summary { requests: 0, ..good },
        ];
        assert_eq!(bad.map(|summary| summary.is_good()), [false; 4]);
    }

    #[test]
    fn edges_that_miss_one_request_or_have_one_too_many_do_not_match() {
        let reported = |v1, v2| Status {
            edges: vec![edge("shop/cart", "v1", v1, v1), edge("shop/cart", "v2", v2, 0)],
            ..status()
        };
        let exact = counts();
        let refused = Counts { unanswered: 3, ..counts() };
        let cases = [
            (&exact, (82, 22), true),
            (&exact, (82, 21), false),
            (&exact, (82, 23), false),
            (&exact, (83, 21), false),
            (&refused, (82, 22), true),
            (&refused, (83, 24), true),
            (&refused, (84, 24), false),
            (&refused, (81, 24), false),
        ];
        for (counts, (v1, v2), expected) in cases {
            assert_eq!(edges_match(counts, &reported(v1, v2)), expected, "{v1} {v2} {}", counts.unanswered);
        }
    }

    #[test]
    fn the_share_over_mtls_is_of_what_the_proxies_saw() {
        let edges = vec![edge("shop/cart", "v1", 82, 82), edge("shop/cart", "v2", 22, 11)];
        let summary = Summary::new(&counts(), &Status { edges, ..status() }, None, 0.0, None);
        assert_eq!(summary.mtls_share, Some(93.0 / 104.0));
    }
}
