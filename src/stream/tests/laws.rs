//! Laws: whatever happens in between, a client ends up with the subscribed part of the last snapshot, is never
//! sent a name twice in a response nor what it has refused, and is left alone when nothing changes.

use proptest::prelude::*;

use super::model::{KINDS, Step, all_hold, holds, withholds_nothing};
use crate::stream::session::Protocol;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KINDS.len(), 0..3usize, 0..4u8).prop_map(|(kind, name, content)| Step::Put(kind, name, content)),
        2 => (0..KINDS.len(), 0..3usize).prop_map(|(kind, name)| Step::Remove(kind, name)),
        6 => Just(Step::Receive),
        6 => any::<bool>().prop_map(Step::Answer),
        4 => (0..KINDS.len(), proptest::option::weighted(0.8, 0..8u8)).prop_map(|(kind, set)| Step::Subscribe(kind, set)),
        1 => (0..KINDS.len(), 0..8u8).prop_map(|(kind, set)| Step::Stale(kind, set)),
        1 => (0..KINDS.len()).prop_map(Step::Again),
        1 => (1..7u64).prop_map(Step::Pass),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sotw_client_converges(steps in prop::collection::vec(step(), 0..60)) {
        holds(Protocol::Sotw, steps);
    }

    #[test]
    fn a_delta_client_converges(steps in prop::collection::vec(step(), 0..60)) {
        holds(Protocol::Delta, steps);
    }

    #[test]
    fn what_a_sotw_client_refuses_withholds_nothing_else(steps in prop::collection::vec(step(), 0..60)) {
        withholds_nothing(Protocol::Sotw, steps);
    }

    #[test]
    fn what_a_delta_client_refuses_withholds_nothing_else(steps in prop::collection::vec(step(), 0..60)) {
        withholds_nothing(Protocol::Delta, steps);
    }

    #[test]
    fn sotw_clients_of_a_group_converge(steps in prop::collection::vec((0..3usize, step()), 0..100)) {
        all_hold(Protocol::Sotw, steps);
    }

    #[test]
    fn delta_clients_of_a_group_converge(steps in prop::collection::vec((0..3usize, step()), 0..100)) {
        all_hold(Protocol::Delta, steps);
    }
}

#[test]
fn a_cluster_that_is_gone_does_not_outlive_its_wildcard() {
    let mut steps = vec![Step::Put(1, 2, 0), Step::Receive, Step::Answer(false), Step::Remove(1, 2), Step::Receive];
    steps.push(Step::Subscribe(1, Some(1)));
    steps.extend(std::iter::repeat_n(Step::Put(0, 0, 0), 4));
    holds(Protocol::Sotw, steps);
}

#[test]
fn what_was_refused_by_its_name_once_is_not_left_out_when_it_is_good_and_another_is_refused() {
    let mut steps = vec![Step::Put(1, 1, 0), Step::Receive, Step::Answer(true), Step::Put(1, 0, 0), Step::Put(1, 1, 1)];
    steps.extend([Step::Receive, Step::Answer(false)]);
    holds(Protocol::Sotw, steps);
}

#[test]
fn a_silent_removal_sends_what_was_refused_with_it() {
    let mut steps = vec![Step::Subscribe(0, Some(3)), Step::Put(0, 0, 0), Step::Put(0, 1, 1), Step::Receive];
    steps.extend([Step::Answer(false), Step::Receive, Step::Remove(0, 0)]);
    holds(Protocol::Sotw, steps);
}

#[test]
fn a_wildcard_that_returns_brings_what_was_removed_and_put_back_unseen() {
    let mut steps = vec![Step::Put(1, 1, 1), Step::Receive, Step::Receive, Step::Remove(1, 1)];
    steps.extend([Step::Subscribe(1, Some(4)), Step::Subscribe(1, None), Step::Put(1, 1, 1)]);
    holds(Protocol::Delta, steps);
}

#[test]
fn what_is_refused_after_it_was_unsubscribed_from_is_not_mended() {
    let mut steps = vec![Step::Put(1, 1, 1), Step::Receive, Step::Receive, Step::Receive, Step::Put(1, 1, 0)];
    steps.extend([Step::Answer(true), Step::Answer(true), Step::Answer(true), Step::Receive]);
    steps.push(Step::Subscribe(1, Some(4)));
    withholds_nothing(Protocol::Delta, steps);
}
