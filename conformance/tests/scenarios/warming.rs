//! Warming: a cluster that was sent waits for its endpoints, whatever the client says or leaves unsaid.

use conformance::harness::World;
use translators::resource::Kind;

#[tokio::test]
async fn scenario_01_a_changed_cluster_brings_its_endpoints_once() -> anyhow::Result<()> {
    let mut world = World::start("s01", "CDS c1=1, EDS c1=1").await?;
    let mut client = world.sotw().await?;
    client.ask("CDS", &[]).await?;
    client.hears(&["CDS c1=1"]).await?;
    client.takes("EDS", &["c1"], "EDS c1=1").await?;
    let acked = client.peer.nonce(Kind::Endpoints);
    client.ack("CDS", &[]).await?;
    client.hears(&[]).await?;
    world.edit("CDS c1=2").await?;
    client.hears(&["CDS c1=2", "EDS c1=1"]).await?;
    // Envoy asks again, word for word as in its last acknowledgement.
    client.peer.ask_with(Kind::Endpoints, &["c1"], &acked, None).await?;
    client.hears(&[]).await?;
    client.ack("EDS", &["c1"]).await?;
    client.ack("CDS", &[]).await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_02_endpoints_follow_their_cluster_unasked() -> anyhow::Result<()> {
    let mut world = World::start("s02", "CDS c1=1, CDS c2=1, EDS c1=1, EDS c2=1").await?;
    let mut client = world.delta().await?;
    client.takes("CDS", &[], "CDS c1=1 c2=1").await?;
    client.takes("EDS", &["c1", "c2"], "EDS c1=1 c2=1").await?;
    for content in 2..5 {
        world.edit(&format!("CDS c1={content}")).await?;
        client.hears(&[&format!("CDS c1={content}"), "EDS c1=1"]).await?;
        client.ack("EDS", &[]).await?;
        client.ack("CDS", &[]).await?;
    }
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_02_endpoints_of_another_name_follow_their_cluster_too() -> anyhow::Result<()> {
    for incremental in [false, true] {
        let node = if incremental { "s02nd" } else { "s02ns" };
        let mut world = World::start(node, "CDS c^e=1, EDS e=1").await?;
        let mut client = world.stream(incremental).await?;
        client.takes("CDS", &[], "CDS c=1").await?;
        client.takes("EDS", &["e"], "EDS e=1").await?;
        world.edit("CDS c^e=2").await?;
        client.hears(&["CDS c=2", "EDS e=1"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn scenario_03_no_type_waits_for_the_answer_to_another() -> anyhow::Result<()> {
    for incremental in [false, true] {
        let node = if incremental { "s03d" } else { "s03s" };
        let mut world = World::start(node, "CDS c1=1, EDS c1=1, LDS l=1, RDS r=1").await?;
        let mut client = world.stream(incremental).await?;
        let all = [("CDS", &[][..], "CDS c1=1"), ("EDS", &["c1"], "EDS c1=1"), ("LDS", &[], "LDS l=1")];
        for (service, names, line) in all.into_iter().chain([("RDS", &["r"][..], "RDS r=1")]) {
            client.ask(service, names).await?;
            client.hears(&[line]).await?;
        }
        for (service, names, _) in all.into_iter().chain([("RDS", &["r"][..], "")]) {
            client.ack(service, names).await?;
        }
        client.hears(&[]).await?;
        // The same in a running stream: nothing of this is answered before all of it has come.
        world.edit("CDS c1=2, EDS c1=2, LDS l=2, RDS r=2").await?;
        client.hears(&["CDS c1=2", "EDS c1=2", "LDS l=2", "RDS r=2"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn scenario_04_endpoints_that_do_not_exist_are_answered_and_sent_when_they_do() -> anyhow::Result<()> {
    let mut world = World::start("s04", "EDS a=1").await?;
    let (mut sotw, mut delta) = (world.sotw().await?, world.delta().await?);
    sotw.takes("EDS", &["a", "b"], "EDS a=1 b=").await?;
    delta.takes("EDS", &["a", "b"], "EDS a=1 -b").await?;
    world.edit("EDS b=1").await?;
    sotw.hears(&["EDS b=1"]).await?;
    delta.hears(&["EDS b=1"]).await
}

#[tokio::test]
async fn scenario_05_a_part_of_the_snapshot_is_answered() -> anyhow::Result<()> {
    let mut world = World::start("s05", "EDS a=1, EDS b=1, EDS c=1").await?;
    for incremental in [false, true] {
        let mut client = world.stream(incremental).await?;
        client.takes("EDS", &["a"], if incremental { "EDS a=2" } else { "EDS a=1" }).await?;
        world.edit("EDS b=2").await?;
        client.hears(&[]).await?;
        // It is still watched.
        let content = if incremental { 3 } else { 2 };
        world.edit(&format!("EDS a={content}")).await?;
        client.hears(&[&format!("EDS a={content}")]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn scenario_06_a_request_is_answered_from_the_newest_snapshot() -> anyhow::Result<()> {
    let mut world = World::start("s06", "CDS c=1, EDS c=1").await?;
    for (incremental, content) in [(false, 2), (true, 3)] {
        let mut client = world.stream(incremental).await?;
        client.ask("CDS", &[]).await?;
        client.hears(&["CDS c=1"]).await?;
        world.edit(&format!("EDS c={content}")).await?;
        client.ask("EDS", &["c"]).await?;
        client.hears(&[&format!("EDS c={content}")]).await?;
    }
    Ok(())
}
