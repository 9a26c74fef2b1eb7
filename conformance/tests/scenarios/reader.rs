//! A reader that stops among many.

use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::{Peer, World};
use translators::resource::Kind;

use crate::life::resident;

/// How many streams there are beside the one that stops.
const OTHERS: usize = 199;
/// How many changes come while it does not read, each of a resource of this size.
const CHANGES: usize = 20;
const SIZE: usize = 256 << 10;

#[tokio::test]
async fn a_reader_that_stops_among_200_costs_itself_only() -> anyhow::Result<()> {
    let content = |number: usize| format!("{number}-{}", "x".repeat(SIZE));
    let mut world = World::alone("reader", &format!("RDS r={}", content(0)), &["--stalled-after", "300s"]).await?;
    let pid = world.chancery().pid().context("it runs")?;
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        let mut peer = Peer::sotw(world.address(), "reader").await?;
        peer.ask(Kind::Route, &["r"]).await?;
        others.push(peer);
    }
    for peer in &mut others {
        peer.next_of(Kind::Route).await?;
        peer.ack(Kind::Route, &["r"]).await?;
    }
    // It asks for ever more and answers, but never takes what comes: more than its window lets through.
    let mut stopped = Peer::sotw(world.address(), "reader").await?;
    stopped.ask(Kind::Route, &["r"]).await?;
    let before = resident(pid)?;
    for number in 1..=CHANGES {
        world.edit(&format!("RDS r={}", content(number))).await?;
        stopped.ask_with(Kind::Route, &["r"], "", None).await?;
        for peer in &mut others {
            let received = peer.next_of(Kind::Route).await?;
            ensure!(received.says(&format!("{number}-x")), "the others are held up at change {number}");
            peer.ack(Kind::Route, &["r"]).await?;
        }
    }
    let grown = resident(pid)?.saturating_sub(before);
    eprintln!("{grown} bytes while it stood still");
    // When it reads again it gets what was under way, and then the latest.
    let latest = format!("{CHANGES}-x");
    let mut responses = 0;
    loop {
        let received = tokio::time::timeout(Duration::from_secs(10), stopped.next_of(Kind::Route)).await??;
        responses += 1;
        ensure!(responses <= 4, "{responses} responses were kept for it");
        if received.says(&latest) {
            break;
        }
        stopped.ack(Kind::Route, &["r"]).await?;
    }
    Ok(())
}
