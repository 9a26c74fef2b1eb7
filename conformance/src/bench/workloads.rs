//! Workloads: W1 to W13, replicas, and the footprint.
//!
//! Owns: their list. May use: everything of the bench. Never: knows a target; those are in a table of their own.

mod cold;
mod footprint;
mod growth;
mod memory;
mod push;
mod quiet;
mod rate;
mod replicas;
mod restart;
mod rotation;
mod rules;
mod stall;
mod translation;

use super::lab::Lab;
use super::outcome::Outcome;

/// Every workload: its id and what it is about.
pub const ALL: &[(&str, &str)] = &[
    ("W1", "one of many load assignments changes, delta"),
    ("W1s", "the same, state of the world"),
    ("W2", "cold connects, full state"),
    ("W3", "a route changes"),
    ("W4", "a policy changes the listeners of every proxy"),
    ("W5", "certificates rotate meanwhile"),
    ("W6", "steady memory"),
    ("W7", "translation on one core"),
    ("W8", "growth"),
    ("W9", "many changes a second"),
    ("W10", "readers that stall"),
    ("W11", "restart and reconnect"),
    ("W12", "writes that change nothing"),
    ("W13", "one load assignment for everybody"),
    ("replicas", "a cost model, and several control planes held against it"),
    ("size", "binary, idle memory, start"),
];

/// Runs one.
pub async fn run(id: &str, lab: &mut Lab) -> anyhow::Result<Outcome> {
    match id {
        "W1" => push::w1(lab).await,
        "W1s" => push::w1s(lab).await,
        "W2" => cold::w2(lab).await,
        "W3" => rules::w3(lab).await,
        "W4" => rules::w4(lab).await,
        "W5" => rotation::w5(lab).await,
        "W6" => memory::w6(lab).await,
        "W7" => translation::w7(lab).await,
        "W8" => growth::w8(lab).await,
        "W9" => rate::w9(lab).await,
        "W10" => stall::w10(lab).await,
        "W11" => restart::w11(lab).await,
        "W12" => quiet::w12(lab).await,
        "W13" => push::w13(lab).await,
        "replicas" => replicas::replicas(lab).await,
        "size" => footprint::size(lab).await,
        _ => anyhow::bail!("there is no workload {id}"),
    }
}
