//! Subscriptions and nonces: what is wanted, and which answers count.

use anyhow::ensure;
use conformance::harness::{Peer, World, eventually, shop};
use tonic::Code;
use translators::resource::Kind;

#[tokio::test]
async fn scenario_07_an_added_name_is_sent_though_no_version_changed() -> anyhow::Result<()> {
    let world = World::start("s07", "EDS a=1, EDS b=1").await?;
    let mut client = world.sotw().await?;
    client.takes("EDS", &["a"], "EDS a=1").await?;
    client.takes("EDS", &["a", "b"], "EDS b=1").await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_08_a_name_that_was_dropped_is_sent_again() -> anyhow::Result<()> {
    let world = World::start("s08", "EDS a=1, RDS a=1").await?;
    for service in ["EDS", "RDS"] {
        let line = format!("{service} a=1");
        let mut client = world.sotw().await?;
        client.takes(service, &["a"], &line).await?;
        client.ask(service, &[]).await?;
        client.hears(&[]).await?;
        client.ask(service, &["a"]).await?;
        client.hears(&[&line]).await?;
        let mut client = world.delta().await?;
        client.takes(service, &["a"], &line).await?;
        client.ask(service, &["-a"]).await?;
        client.hears(&[]).await?;
        client.ask(service, &["a"]).await?;
        client.hears(&[&line]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn scenario_10_a_subscription_after_none_with_an_older_nonce_is_served() -> anyhow::Result<()> {
    let mut world = World::start("s10", "EDS a=1").await?;
    let mut client = world.sotw().await?;
    client.takes("EDS", &["a"], "EDS a=1").await?;
    let before = client.peer.nonce(Kind::Endpoints);
    client.ask("EDS", &[]).await?;
    world.edit("EDS a=2").await?;
    // An unsubscribed type gets no response, so its nonce stays the last one.
    client.hears(&[]).await?;
    client.peer.ask_with(Kind::Endpoints, &["a"], &before, None).await?;
    client.hears(&["EDS a=2"]).await
}

#[tokio::test]
async fn scenario_11_an_unsubscribed_type_is_sent_nothing() -> anyhow::Result<()> {
    let mut world = World::start("s11", "EDS a=1, LDS l=1").await?;
    let mut client = world.sotw().await?;
    client.ask("EDS", &["a"]).await?;
    client.hears(&["EDS a=1"]).await?;
    // While a response is outstanding the next is only due: the subscription may go before it is made.
    world.edit("EDS a=2").await?;
    client.hears(&[]).await?;
    client.ack("EDS", &[]).await?;
    client.hears(&[]).await?;
    let mut client = world.delta().await?;
    client.ask("EDS", &["a"]).await?;
    client.hears(&["EDS a=2"]).await?;
    world.edit("EDS a=3").await?;
    client.ask("EDS", &["-a"]).await?;
    client.ack("EDS", &[]).await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_12_an_empty_first_request_is_everything_only_for_what_is_a_whole() -> anyhow::Result<()> {
    let contents = "CDS a=1, LDS a=1, SRDS a=1, EDS a=1, RDS a=1, ECDS a=1, SDS a=1, VHDS a/b=1";
    let world = World::start("s12", contents).await?;
    for incremental in [false, true] {
        let mut client = world.proven(incremental).await?;
        for service in ["EDS", "RDS", "ECDS", "SDS", "RTDS"] {
            client.ask(service, &[]).await?;
        }
        if incremental {
            client.ask("VHDS", &[]).await?;
        }
        client.hears(&[]).await?;
        for service in ["CDS", "LDS", "SRDS"] {
            client.takes(service, &[], &format!("{service} a=1")).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn scenario_13_the_ladder_of_wildcards() -> anyhow::Result<()> {
    let mut world = World::start("s13", "CDS a=1, CDS b=1").await?;
    let mut client = world.sotw().await?;
    client.ask("CDS", &[]).await?;
    client.hears(&["CDS a=1 b=1"]).await?;
    client.ack("CDS", &["*", "a"]).await?;
    client.hears(&["CDS a=1 b=1"]).await?;
    client.ack("CDS", &["a"]).await?;
    world.edit("CDS b=2").await?;
    client.hears(&[]).await?;
    world.edit("CDS a=2").await?;
    client.hears(&["CDS a=2"]).await?;
    client.ack("CDS", &[]).await?;
    world.edit("CDS a=3").await?;
    client.hears(&[]).await?;
    client.ask("CDS", &["*"]).await?;
    client.hears(&["CDS a=3 b=2"]).await?;

    let mut client = world.delta().await?;
    client.takes("CDS", &[], "CDS a=3 b=2").await?;
    client.takes("CDS", &["a"], "CDS a=3").await?;
    world.edit("CDS b=3").await?;
    client.hears(&["CDS b=3"]).await?;
    client.ack("CDS", &[]).await?;
    client.ask("CDS", &["-*"]).await?;
    world.edit("CDS b=4").await?;
    client.hears(&[]).await?;
    world.edit("CDS a=4").await?;
    client.hears(&["CDS a=4"]).await?;
    let mut client = world.delta().await?;
    client.ask("CDS", &["*", "-*"]).await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_15_what_was_refused_is_not_sent_again_until_it_changes() -> anyhow::Result<()> {
    for incremental in [false, true] {
        let node = if incremental { "s15d" } else { "s15s" };
        let mut world = World::start(node, "LDS a=1").await?;
        let mut client = world.stream(incremental).await?;
        client.takes("LDS", &[], "LDS a=1").await?;
        world.edit("LDS a=2").await?;
        client.hears(&["LDS a=2"]).await?;
        client.nack("LDS", &[], "not this").await?;
        client.hears(&[]).await?;
        eventually(shop::SOON, "the refusal in the status", async || {
            let nacks = world.chancery().json("/api/v1/nacks").await?.to_string();
            ensure!(nacks.contains(node) && nacks.contains("not this"), "{nacks}");
            Ok(())
        })
        .await?;
        // Back to what the client says that it has: sent nevertheless.
        world.edit("LDS a=1").await?;
        client.hears(&["LDS a=1"]).await?;
        client.ack("LDS", &[]).await?;
        world.edit("LDS a=3").await?;
        client.hears(&["LDS a=3"]).await?;
        client.ack("LDS", &[]).await?;
        client.hears(&[]).await?;
        let nacks = world.chancery().json("/api/v1/nacks").await?.to_string();
        ensure!(!nacks.contains(node), "healed, and still there: {nacks}");
    }
    Ok(())
}

#[tokio::test]
async fn scenario_15_a_refusal_may_change_the_subscription() -> anyhow::Result<()> {
    let world = World::start("s15n", "EDS a=1, EDS b=1").await?;
    let mut client = world.sotw().await?;
    client.ask("EDS", &["a"]).await?;
    client.hears(&["EDS a=1"]).await?;
    client.nack("EDS", &["a", "b"], "a is bad").await?;
    client.hears(&["EDS b=1"]).await
}

#[tokio::test]
async fn scenario_16_the_accepted_version_outweighs_an_error_that_is_left_over() -> anyhow::Result<()> {
    let mut world = World::start("s16", "CDS a=1").await?;
    let mut client = world.sotw().await?;
    client.ask("CDS", &[]).await?;
    client.hears(&["CDS a=1"]).await?;
    let version = client.peer.version(Kind::Cluster);
    client.peer.pretend(Kind::Cluster, &version);
    client.nack("CDS", &[], "left over").await?;
    client.hears(&[]).await?;
    let nacks = world.chancery().json("/api/v1/nacks").await?.to_string();
    ensure!(!nacks.contains("s16"), "{nacks}");
    // It is not stuck, and nonces that were never answered are not waited for: the last one is enough.
    for content in 2..5 {
        world.edit(&format!("CDS a={content}")).await?;
    }
    client.hears(&["CDS a=2"]).await?;
    client.ack("CDS", &[]).await?;
    client.hears(&["CDS a=4"]).await
}

#[tokio::test]
async fn scenario_43_a_node_is_needed_once() -> anyhow::Result<()> {
    let mut world = World::start("s43", "CDS a=1, EDS a=1").await?;
    for incremental in [false, true] {
        let mut client = world.stream(incremental).await?;
        client.takes("CDS", &[], if incremental { "CDS a=2" } else { "CDS a=1" }).await?;
        client.peer.say_node(false);
        client.takes("EDS", &["a"], "EDS a=1").await?;
        world.edit(if incremental { "CDS a=3" } else { "CDS a=2" }).await?;
        client.hears(&[if incremental { "CDS a=3" } else { "CDS a=2" }, "EDS a=1"]).await?;
        client.peer.say_node(true);
        client.ack("CDS", &[]).await?;
        client.hears(&[]).await?;
        for nameless in [true, false] {
            let mut client = match incremental {
                true => Peer::delta(world.address(), "").await?,
                false => Peer::sotw(world.address(), "").await?,
            };
            client.say_node(nameless);
            client.ask_unknown(Kind::Cluster.type_url()).await?;
            assert_eq!(client.end().await?.code(), Code::InvalidArgument);
        }
    }
    Ok(())
}
