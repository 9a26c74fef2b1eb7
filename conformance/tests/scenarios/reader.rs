//! A reader that stops among many.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::shop::SOON;
use conformance::harness::{Peer, Relay, World, eventually};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use translators::resource::Kind;

use crate::life::resident;

/// How many streams there are beside the one that stops.
const OTHERS: usize = 199;
/// How long it stops; meanwhile there is a change for each second, if all of them can be taken.
const STOPS: Duration = Duration::from_secs(60);
/// After so many changes the allocator of the process has what it needs for 200 streams.
const SETTLED: usize = 10;
/// The size of the resource that changes,
const SIZE: usize = 192 << 10;
/// and what a stream may hold.
const MOST: u64 = 256 << 10;

/// A connection whose client takes 64 KiB, and no more before it has read them.
fn narrow(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535).connect_lazy())
}

// What is held for it is seen in two places: in the kernel, which has taken bytes of the server that are not read, and
// in the memory of the process. That no second response is made for it is counted in src/stream/tests/grpc.rs.
#[tokio::test]
async fn a_reader_that_stops_for_a_minute_among_200_costs_itself_only() -> anyhow::Result<()> {
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
    // HTTP/2 would let it have more than one response: it is the socket that is not read.
    let relay = Relay::to(world.address()).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", relay.address()))?;
    let endpoint = endpoint.initial_stream_window_size(16 << 20).initial_connection_window_size(16 << 20);
    let mut stopped = Peer::sotw_over(endpoint.connect_lazy(), "reader").await?;
    stopped.ask(Kind::Route, &["r"]).await?;
    stopped.next_of(Kind::Route).await?;
    stopped.ack(Kind::Route, &["r"]).await?;
    relay.read(false);
    let (start, mut settled, mut number) = (Instant::now(), 0, 0);
    while start.elapsed() < STOPS || number < 2 * SETTLED {
        number += 1;
        world.edit(&format!("RDS r={}", content(number))).await?;
        // It goes on asking, and never reads.
        stopped.ask_with(Kind::Route, &["r"], "", None).await?;
        for peer in &mut others {
            let received = peer.next_of(Kind::Route).await?;
            ensure!(received.says(&format!("{number}-x")), "the others are held up at change {number}");
            peer.ack(Kind::Route, &["r"]).await?;
        }
        let unread = relay.unread().await?;
        ensure!(unread <= MOST, "{unread} bytes are under way to it");
        // There was something for it, or it would show nothing.
        ensure!(unread > SIZE as u64 / 2 || number < 5, "{unread} bytes are under way to it");
        if number == SETTLED {
            settled = resident(pid)?;
        }
        tokio::time::sleep_until(start + Duration::from_secs(number as u64)).await;
    }
    // Had each change been kept for it, it would be twice as much.
    let grown = resident(pid)?.saturating_sub(settled);
    ensure!(grown < ((number - SETTLED) * SIZE) as u64 / 2, "{grown} bytes more while it stood still");
    // When it reads again it gets what was under way, and then the latest.
    relay.read(true);
    let latest = format!("{number}-x");
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
