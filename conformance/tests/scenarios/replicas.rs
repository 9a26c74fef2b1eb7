//! One node on several streams, on several replicas of the control plane, and back again.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use conformance::harness::shop::SOON;
use conformance::harness::{Peer, Received};
use conformance::harness::{Relay, Script, World, eventually};
use translators::resource::Kind;

use crate::reconnect::returns;

/// A delta client that keeps what it was sent, on whichever stream.
#[derive(Default)]
struct Holds(BTreeMap<Kind, BTreeMap<String, String>>);

impl Holds {
    fn take(&mut self, received: &Received) {
        let held = self.0.entry(received.kind).or_default();
        held.extend(received.resources.iter().map(|(name, version, _)| (name.clone(), version.clone())));
        received.removed.iter().for_each(|name| _ = held.remove(name));
    }

    /// Comes to a control plane with all of it.
    async fn come(&self, world: &World, kinds: &[(Kind, &[&str])]) -> anyhow::Result<Script> {
        let mut client = world.delta().await?;
        for (kind, names) in kinds {
            let held: Vec<_> = self.0.get(kind).into_iter().flatten().map(|(n, v)| (n.clone(), v.clone())).collect();
            returns(&mut client, *kind, names, &held).await?;
        }
        Ok(client)
    }

    /// Hears one response and accepts it.
    async fn hears(&mut self, client: &mut Script, line: &str) -> anyhow::Result<()> {
        let received = client.peer.next().await.with_context(|| format!("waiting for {line:?}"))?;
        let heard = conformance::harness::written(&received)?;
        ensure!(heard == line, "{line:?} was to come, and this came: {heard:?}");
        self.take(&received);
        client.peer.accept(received.kind).await
    }
}

async fn replicas(node: &str, contents: &str) -> anyhow::Result<[World; 2]> {
    Ok([World::alone(node, contents, &[]).await?, World::alone(node, contents, &[]).await?])
}

async fn edit(worlds: &mut [World; 2], text: &str) -> anyhow::Result<()> {
    for world in worlds {
        world.edit(text).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_delta_client_that_moves_from_replica_to_replica_and_back_is_sent_what_changed() -> anyhow::Result<()> {
    const ALL: &[(Kind, &[&str])] = &[(Kind::Listener, &[]), (Kind::Route, &["r"])];
    let mut worlds = replicas("aba-delta", "LDS a=1, LDS b=1, RDS r=1").await?;
    let mut holds = Holds::default();
    let mut client = holds.come(&worlds[0], ALL).await?;
    holds.hears(&mut client, "LDS a=1 b=1").await?;
    holds.hears(&mut client, "RDS r=1").await?;
    // What is named is always answered, what is wildcarded only if it changed: to B, with changes on the way.
    edit(&mut worlds, "LDS a=2, LDS -b, LDS c=1, RDS r=2").await?;
    let mut client = holds.come(&worlds[1], ALL).await?;
    holds.hears(&mut client, "LDS a=2 c=1 -b").await?;
    holds.hears(&mut client, "RDS r=2").await?;
    client.hears(&[]).await?;
    // Back to A, where the first content is the last one too.
    edit(&mut worlds, "LDS a=1, LDS b=1, RDS r=1").await?;
    let mut client = holds.come(&worlds[0], ALL).await?;
    holds.hears(&mut client, "LDS a=1 b=1").await?;
    holds.hears(&mut client, "RDS r=1").await?;
    client.hears(&[]).await?;
    // And to B, where it is told nothing but what it asks for by name: both say the same versions of the same. That there
    // is no news of a whole is said, once.
    let mut client = holds.come(&worlds[1], ALL).await?;
    holds.hears(&mut client, "LDS").await?;
    holds.hears(&mut client, "RDS r=1").await?;
    client.hears(&[]).await?;
    worlds[1].edit("LDS c=2").await?;
    holds.hears(&mut client, "LDS c=2").await
}

#[tokio::test]
async fn a_replica_that_is_behind_serves_what_it_has_until_it_knows_better() -> anyhow::Result<()> {
    const ALL: &[(Kind, &[&str])] = &[(Kind::Listener, &[])];
    let mut worlds = replicas("behind", "LDS a=1").await?;
    worlds[0].edit("LDS a=2, LDS b=1").await?;
    let mut holds = Holds::default();
    let mut client = holds.come(&worlds[0], ALL).await?;
    holds.hears(&mut client, "LDS a=2 b=1").await?;
    let mut client = holds.come(&worlds[1], ALL).await?;
    holds.hears(&mut client, "LDS a=1 -b").await?;
    worlds[1].edit("LDS a=2, LDS b=1").await?;
    holds.hears(&mut client, "LDS a=2 b=1").await?;
    let mut client = holds.come(&worlds[0], ALL).await?;
    holds.hears(&mut client, "LDS").await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn a_sotw_client_that_moves_from_replica_to_replica_and_back_is_sent_what_is() -> anyhow::Result<()> {
    let mut worlds = replicas("aba-sotw", "LDS a=1, LDS b=1, RDS r=1").await?;
    let mut versions: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    let mut last: BTreeMap<Kind, String> = BTreeMap::new();
    let visits = [
        (0, "", "LDS a=1 b=1", "RDS r=1"),
        (1, "LDS a=2, LDS -b, RDS r=2", "LDS a=2", "RDS r=2"),
        (0, "LDS a=1, LDS b=1, RDS r=1", "LDS a=1 b=1", "RDS r=1"),
        (1, "LDS a=3", "LDS a=3 b=1", "RDS r=1"),
    ];
    for (at, change, listeners, routes) in visits {
        if !change.is_empty() {
            edit(&mut worlds, change).await?;
        }
        let mut client = worlds[at].sotw().await?;
        for (kind, version) in &last {
            client.peer.pretend(*kind, version);
        }
        client.takes("LDS", &[], listeners).await?;
        client.takes("RDS", &["r"], routes).await?;
        client.hears(&[]).await?;
        for kind in [Kind::Listener, Kind::Route] {
            last.insert(kind, client.peer.version(kind));
            versions.entry(kind).or_default().push(client.peer.version(kind));
        }
    }
    // A version is one of the content, whoever says it.
    for kind in [Kind::Listener, Kind::Route] {
        let said = &versions[&kind];
        ensure!(said[0] == said[2] && said[0] != said[1], "{kind}: {said:?}");
    }
    ensure!(versions[&Kind::Route][2] == versions[&Kind::Route][3], "{versions:?}");
    Ok(())
}

#[tokio::test]
async fn two_streams_of_one_node_know_nothing_of_each_other() -> anyhow::Result<()> {
    let mut world = World::alone("twins", "LDS a=1, RDS r=1", &[]).await?;
    let mut streams = [world.delta().await?, world.delta().await?, world.sotw().await?, world.sotw().await?];
    for client in &mut streams {
        client.takes("LDS", &[], "LDS a=1").await?;
    }
    // What one asks for the others are not sent.
    streams[0].takes("RDS", &["r"], "RDS r=1").await?;
    streams[2].takes("RDS", &["r"], "RDS r=1").await?;
    world.edit("LDS a=2, RDS r=2").await?;
    for (at, client) in streams.iter_mut().enumerate() {
        let lines: &[&str] = if at % 2 == 0 { &["LDS a=2", "RDS r=2"] } else { &["LDS a=2"] };
        client.hears(lines).await?;
    }
    // What one refuses the others accept; the first two say nothing yet.
    streams[1].nack("LDS", &[], "a: no").await?;
    streams[3].nack("LDS", &[], "a: no").await?;
    for at in [0, 2] {
        streams[at].ack("LDS", &[]).await?;
        streams[at].ack("RDS", &["r"]).await?;
    }
    world.edit("LDS a=3").await?;
    for at in [0, 2] {
        streams[at].hears(&["LDS a=3"]).await?;
        streams[at].ack("LDS", &[]).await?;
    }
    // One goes, and the other of the same protocol stays.
    let count = async || -> anyhow::Result<usize> {
        let proxies = world.chancery().json("/api/v1/proxies").await?;
        Ok(proxies["proxies"].as_array().context("proxies")?.len())
    };
    let before = count().await?;
    let [first, second, third, mut fourth] = streams;
    drop(second);
    eventually(SOON, "one stream less", async || {
        let left = count().await?;
        ensure!(left + 1 == before, "{left} of {before}");
        Ok(())
    })
    .await?;
    let mut said = fourth.peer.next_of(Kind::Listener).await?;
    while !said.says("3") {
        fourth.ack("LDS", &[]).await?;
        said = fourth.peer.next_of(Kind::Listener).await?;
    }
    drop((first, third));
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_reset_under_a_response_leaves_no_state_behind() -> anyhow::Result<()> {
    let mut world = World::alone("reset", "LDS a=1", &[]).await?;
    let mut holds = Holds::default();
    let mut client = holds.come(&world, &[(Kind::Listener, &[])]).await?;
    holds.hears(&mut client, "LDS a=1").await?;
    for content in 2..6 {
        // It is sent something that it neither takes nor answers.
        let relay = Relay::to(world.address()).await?;
        let mut lost = Script::delta(Peer::delta(relay.address(), world.node()).await?);
        let held: Vec<_> = holds.0[&Kind::Listener].iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        relay.read(false);
        returns(&mut lost, Kind::Listener, &[], &held).await?;
        world.edit(&format!("LDS a={content}")).await?;
        drop(relay);
        lost.peer.end().await?;
        let mut client = holds.come(&world, &[(Kind::Listener, &[])]).await?;
        holds.hears(&mut client, &format!("LDS a={content}")).await?;
        client.hears(&[]).await?;
    }
    Ok(())
}
