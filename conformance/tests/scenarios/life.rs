//! Many types, many streams, large and repeated content, and a control plane that is not ready.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use conformance::harness::{Peer, Relay, World, eventually};
use futures::future::try_join_all;
use proto::envoy::service::discovery::v3 as discovery_pb;
use tonic::Code;
use tonic::transport::Endpoint;
use translators::resource::Kind;

#[tokio::test]
async fn scenario_34_many_types_on_one_stream() -> anyhow::Result<()> {
    let mut world = World::start("s34", "CDS a=0, EDS a=0, LDS a=0, RDS a=0, ECDS a=0, SRDS a=0, RTDS a=0").await?;
    for incremental in [false, true] {
        let mut client = world.stream(incremental).await?;
        for number in 0..40 {
            client.peer.ask_unknown(&format!("type.googleapis.com/private.v3.Type{number}")).await?;
        }
        client.hears(&[]).await?;
        let begin = if incremental { 4 } else { 0 };
        for service in ["RTDS", "CDS", "EDS", "LDS", "ECDS", "SRDS", "RDS"] {
            client.takes(service, &["a"], &format!("{service} a={begin}")).await?;
        }
        // Updates while requests arrive.
        for content in begin + 1..begin + 5 {
            let all = ["RTDS", "CDS", "EDS", "LDS", "ECDS", "SRDS", "RDS"].map(|one| format!("{one} a={content}"));
            let text = all.join(", ");
            let edit = world.edit(&text);
            let talk = async {
                for number in 0..40 {
                    client.peer.ask_unknown(&format!("type.googleapis.com/private.v3.Type{number}")).await?;
                }
                for _ in 0..all.len() {
                    let received = client.peer.next().await?;
                    client.ack(received.kind.service(), &["a"]).await?;
                }
                anyhow::Ok(())
            };
            let (edited, talked) = tokio::join!(edit, talk);
            edited?;
            talked.with_context(|| format!("update {content}"))?;
        }
        client.hears(&[]).await?;
    }
    Ok(())
}

/// How many files, sockets among them, and threads the process has.
fn open(pid: u32) -> anyhow::Result<(usize, usize)> {
    let count = |what: &str| anyhow::Ok(std::fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
    Ok((count("fd")?, count("task")?))
}

/// Its memory in RAM, in bytes.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("the second word")?.parse()?;
    Ok(pages * 4096)
}

#[tokio::test]
async fn scenario_35_streams_that_come_and_go_leave_nothing_behind() -> anyhow::Result<()> {
    let world = World::alone("s35", "CDS a=1, EDS a=1, LDS l=1", &["--new-streams-per-second", "0"]).await?;
    let pid = world.chancery().pid().context("it runs")?;
    let round = async |address: SocketAddr| {
        // Twenty connections of twenty-five streams of both protocols.
        let connections = (0..20).map(async |number| {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            let mut peers = Vec::new();
            for stream in 0..25 {
                let incremental = stream % 2 == 0;
                let mut peer = match incremental {
                    true => Peer::delta_over(channel.clone(), world.node()).await?,
                    false => Peer::sotw_over(channel.clone(), world.node()).await?,
                };
                peer.ask_unknown(Kind::Cluster.type_url()).await?;
                peers.push((incremental, peer));
            }
            for (incremental, peer) in &mut peers {
                peer.next_of(Kind::Cluster).await?;
                // Some go without having answered, with the connection under them.
                match (number % 3, *incremental) {
                    (0, _) => {}
                    (_, true) => peer.accept(Kind::Cluster).await?,
                    (_, false) => peer.ack(Kind::Cluster, &[]).await?,
                }
            }
            anyhow::Ok(peers)
        });
        anyhow::Ok(try_join_all(connections).await?.into_iter().flatten().collect::<Vec<_>>())
    };
    let gone = async |before: (usize, usize)| {
        eventually(Duration::from_secs(20), "all of it to be gone", async || {
            let proxies = world.chancery().json("/api/v1/proxies").await?;
            let streams = proxies["proxies"].as_array().context("proxies")?.len();
            let now = open(pid)?;
            ensure!(streams == 1 && now.0 <= before.0 + 2 && now.1 <= before.1 + 2, "{streams} {now:?} {before:?}");
            Ok(())
        })
        .await
    };
    // A first request of the admin address, so that it is counted before.
    world.chancery().json("/api/v1/proxies").await?;
    let before = open(pid)?;
    // They close their connections, or these are reset while the streams are open.
    let closed = async || {
        drop(round(world.address()).await?);
        anyhow::Ok(())
    };
    let torn = async || {
        let relay = Relay::to(world.address()).await?;
        let peers = round(relay.address()).await?;
        drop((relay, peers));
        anyhow::Ok(())
    };
    closed().await?;
    torn().await?;
    gone(before).await?;
    let resident_before = resident(pid)?;
    for _ in 0..9 {
        closed().await?;
        torn().await?;
    }
    gone(before).await?;
    let grown = resident(pid)?.saturating_sub(resident_before);
    ensure!(grown < 8 << 20, "9,000 streams left {grown} bytes behind");
    // Who comes then is served.
    let mut client = world.sotw().await?;
    client.takes("LDS", &[], "LDS l=1").await?;
    ensure!(!world.chancery().log().contains("panicked"), "{}", world.chancery().log());
    Ok(())
}

#[tokio::test]
async fn scenario_37_large_responses_are_split_and_large_requests_taken() -> anyhow::Result<()> {
    let large = "x".repeat(1 << 20);
    let contents: Vec<String> = (0..6).map(|number| format!("RDS r{number}={large}")).collect();
    let world = World::start("s37", &contents.join(", ")).await?;
    let mut client = world.delta().await?;
    client.ask("RDS", &["r0", "r1", "r2", "r3", "r4", "r5"]).await?;
    let mut names = Vec::new();
    while names.len() < 6 {
        let received = client.peer.next_of(Kind::Route).await?;
        let size: usize = received.resources.iter().map(|(_, _, body)| body.len()).sum();
        ensure!(size < 4 << 20, "{size} bytes in one response");
        names.extend(received.names().into_iter().map(str::to_owned));
        client.ack("RDS", &[]).await?;
    }
    names.sort();
    assert_eq!(names, ["r0", "r1", "r2", "r3", "r4", "r5"]);
    client.hears(&[]).await?;
    // A client that comes back names all that it holds, here in more than 4 MiB.
    let held: Vec<String> = (0..50_000).map(|number| format!("{number:0>100}")).collect();
    let names: Vec<&str> = held.iter().map(String::as_str).collect();
    let mut client = world.sotw().await?;
    client.ask("RDS", &[&["r0"], &names[..]].concat()).await?;
    let received = client.peer.next_of(Kind::Route).await?;
    assert_eq!(received.resources.len(), 1);
    Ok(())
}

#[tokio::test]
async fn scenario_37_what_cannot_be_split_is_told() -> anyhow::Result<()> {
    let large = "x".repeat(1 << 20);
    let contents: Vec<String> = (0..5).map(|number| format!("CDS c{number}={large}")).collect();
    let mut world = World::alone("s37-whole", &contents.join(", "), &[]).await?;
    let mut client = world.sotw().await?;
    client.ask("CDS", &[]).await?;
    // A whole cannot be split: once it goes out as it is, and again after a change.
    for change in ["CDS c0=y", "CDS c0=z"] {
        let received = client.peer.next_of(Kind::Cluster).await?;
        let size: usize = received.resources.iter().map(|(_, _, body)| body.len()).sum();
        ensure!(received.resources.len() == 5 && size > 4 << 20, "{} in {size} bytes", received.resources.len());
        client.ack("CDS", &[]).await?;
        world.edit(&format!("{change}{large}")).await?;
    }
    let metrics = eventually(Duration::from_secs(10), "three large responses", async || {
        let metrics = world.chancery().text("/metrics").await?;
        ensure!(metrics.contains("chancery_large_pushes_total{type=\"CDS\"} 3"), "{metrics}");
        Ok(metrics)
    })
    .await?;
    ensure!(metrics.contains("chancery_large_pushes_total{type=\"EDS\"} 0"), "{metrics}");
    let log = world.chancery().log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("larger than the 4 MiB")).collect();
    ensure!(told.len() == 1 && told[0].contains("s37-whole") && told[0].contains("CDS"), "{told:?}");
    ensure!(told[0].contains("bytes=52"), "the size is told: {told:?}");
    Ok(())
}

#[tokio::test]
async fn scenario_38_a_configuration_that_is_not_there_is_not_an_empty_one() -> anyhow::Result<()> {
    // Before its sources are synced: tests/readiness.rs. A node that nothing matches is refused, and not emptied.
    let world = World::start("s38", "CDS a=1").await?;
    for incremental in [false, true] {
        let mut peer = match incremental {
            true => Peer::delta(world.address(), "s38-unknown").await?,
            false => Peer::sotw(world.address(), "s38-unknown").await?,
        };
        peer.ask_unknown(Kind::Cluster.type_url()).await?;
        let received = peer.next().await;
        let status = received.expect_err("nothing is sent").downcast::<tonic::Status>()?;
        assert_eq!(status.code(), Code::Unavailable);
    }
    Ok(())
}

#[tokio::test]
async fn scenario_39_the_same_content_again_sends_nothing() -> anyhow::Result<()> {
    let mut world = World::start("s39", "CDS a=1, CDS b=1, LDS l=1").await?;
    let (mut sotw, mut delta) = (world.sotw().await?, world.delta().await?);
    for client in [&mut sotw, &mut delta] {
        client.takes("CDS", &[], "CDS a=1 b=1").await?;
        client.takes("LDS", &[], "LDS l=1").await?;
    }
    // Each of these is read, translated and published: the fence that it carries changes.
    for _ in 0..100 {
        world.publish().await?;
    }
    sotw.hears(&[]).await?;
    delta.hears(&[]).await
}

// No deployment serves one protocol only: a client of either is served, on one node and beside each other. What one protocol
// does not have is refused aloud.
#[tokio::test]
async fn scenario_40_either_protocol_is_served_and_what_it_lacks_is_refused_aloud() -> anyhow::Result<()> {
    let world = World::start("s40", "CDS a=1").await?;
    let (mut sotw, mut delta) = (world.sotw().await?, world.delta().await?);
    sotw.takes("CDS", &[], "CDS a=1").await?;
    delta.takes("CDS", &[], "CDS a=1").await?;
    // Virtual hosts on demand are incremental only.
    let channel = Endpoint::from_shared(format!("http://{}", world.address()))?.connect().await?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let path = "/envoy.service.route.v3.VirtualHostDiscoveryService/StreamVirtualHosts";
    let request = tonic::Request::new(discovery_pb::DiscoveryRequest::default());
    let codec = tonic_prost::ProstCodec::<_, discovery_pb::DiscoveryResponse>::default();
    let refused = grpc.unary(request, path.parse()?, codec).await.expect_err("there is no such method");
    ensure!(refused.code() == Code::Unimplemented, "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn scenario_42_who_waits_for_a_version_is_served_by_a_newer_one() -> anyhow::Result<()> {
    for incremental in [false, true] {
        let node = if incremental { "s42d" } else { "s42s" };
        let mut world = World::start(node, "CDS a=1").await?;
        let mut client = world.stream(incremental).await?;
        client.takes("CDS", &[], "CDS a=1").await?;
        world.edit("CDS a=2").await?;
        client.hears(&["CDS a=2"]).await?;
        for content in 3..8 {
            world.edit(&format!("CDS a={content}")).await?;
        }
        let synced = async || {
            let proxies = world.chancery().json("/api/v1/proxies").await?;
            let of_node = |proxy: &&serde_json::Value| proxy["node"] == node;
            let all = proxies["proxies"].as_array().context("proxies")?.iter().filter(of_node).cloned();
            anyhow::Ok(all.collect::<Vec<_>>())
        };
        ensure!(synced().await?.iter().any(|proxy| proxy["inSync"] == false), "{:?}", synced().await?);
        client.ack("CDS", &[]).await?;
        client.hears(&["CDS a=7"]).await?;
        client.ack("CDS", &[]).await?;
        eventually(Duration::from_secs(10), "a node in sync", async || {
            let proxies = synced().await?;
            ensure!(proxies.iter().all(|proxy| proxy["inSync"] == true), "{proxies:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
