//! A reader that stops among many.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use conformance::harness::shop::SOON;
use conformance::harness::{Peer, World, eventually};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use translators::resource::Kind;

use crate::life::resident;

/// How many streams there are beside the one that stops.
const OTHERS: usize = 199;
/// How many changes come while it does not read, each of a resource of this size.
const CHANGES: usize = 60;
/// After so many of them the allocator of the process has what it needs for 200 streams.
const SETTLED: usize = 20;
const SIZE: usize = 256 << 10;

/// A connection whose client takes 64 KiB, and no more before it has read them.
fn narrow(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535).connect_lazy())
}

// It stops for sixty changes rather than for a minute, in which nothing else would happen.
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
    let mut stopped = Peer::sotw_over(narrow(world.address())?, "reader").await?;
    stopped.ask(Kind::Route, &["r"]).await?;
    let mut settled = 0;
    for number in 1..=CHANGES {
        world.edit(&format!("RDS r={}", content(number))).await?;
        // It goes on asking, and never reads.
        stopped.ask_with(Kind::Route, &["r"], "", None).await?;
        for peer in &mut others {
            let received = peer.next_of(Kind::Route).await?;
            ensure!(received.says(&format!("{number}-x")), "the others are held up at change {number}");
            peer.ack(Kind::Route, &["r"]).await?;
        }
        if number == SETTLED {
            settled = resident(pid)?;
        }
    }
    // Had each change been kept for it, it would be 10 MiB.
    let grown = resident(pid)?.saturating_sub(settled);
    ensure!(grown < ((CHANGES - SETTLED) * SIZE) as u64 / 2, "{grown} bytes more while it stood still");
    // When it reads again it gets what was under way, and then the latest.
    let latest = format!("{CHANGES}-x");
    for responses in 1.. {
        ensure!(responses <= 2, "more than one response was kept for it");
        let received = stopped.next_of(Kind::Route).await?;
        if received.says(&latest) {
            break;
        }
        stopped.ack(Kind::Route, &["r"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_stops_for_good_is_given_up() -> anyhow::Result<()> {
    let contents = format!("RDS r={}, CDS c=1", "x".repeat(SIZE));
    let mut world = World::alone("stuck", &contents, &["--stalled-after", "1s"]).await?;
    let mut well = world.sotw().await?;
    well.takes("CDS", &[], "CDS c=1").await?;
    let mut stopped = Peer::sotw_over(narrow(world.address())?, "stuck").await?;
    stopped.ask(Kind::Route, &["r"]).await?;
    let proxies = async |count: usize| {
        eventually(SOON, &format!("{count} streams"), async || {
            let answer = world.chancery().json("/api/v1/proxies").await?;
            let list = answer["proxies"].as_array().context("proxies")?;
            ensure!(list.len() == count, "{answer:#}");
            Ok(())
        })
        .await
    };
    // The fence of the world is one of them.
    proxies(3).await?;
    proxies(2).await?;
    assert_ne!(stopped.end().await?.code(), Code::Ok);
    world.edit("CDS c=2").await?;
    well.hears(&["CDS c=2"]).await
}
