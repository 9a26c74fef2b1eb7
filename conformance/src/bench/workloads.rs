//! Workloads: W1 to W13.
//!
//! Owns: their list. May use: everything of the bench. Never: knows a target; those are in a table of their own.

mod cold;
mod memory;
mod push;

use super::lab::Lab;
use super::outcome::Outcome;

/// Every workload: its id and what it is about.
pub const ALL: &[(&str, &str)] = &[
    ("W1", "one of many load assignments changes, delta"),
    ("W1s", "the same, state of the world"),
    ("W2", "cold connects, full state"),
    ("W6", "steady memory"),
    ("W13", "one load assignment for everybody"),
];

/// Runs one.
pub async fn run(id: &str, lab: &mut Lab) -> anyhow::Result<Outcome> {
    match id {
        "W1" => push::w1(lab).await,
        "W1s" => push::w1s(lab).await,
        "W2" => cold::w2(lab).await,
        "W6" => memory::w6(lab).await,
        "W13" => push::w13(lab).await,
        _ => anyhow::bail!("there is no workload {id}"),
    }
}
