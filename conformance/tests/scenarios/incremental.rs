//! What only the incremental protocol can say.

use anyhow::ensure;
use conformance::harness::{Delta, World};
use translators::resource::Kind;

#[tokio::test]
async fn scenario_17_a_name_that_is_asked_for_again_is_sent_again() -> anyhow::Result<()> {
    let world = World::start("s17", "EDS a=1, CDS a=1, RDS a=1, ECDS a=1, LDS a=1").await?;
    let mut client = world.delta().await?;
    for service in ["CDS", "EDS", "LDS", "RDS", "ECDS"] {
        let line = format!("{service} a=1");
        client.takes(service, &["a"], &line).await?;
        client.takes(service, &["a"], &line).await?;
    }
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_18_what_does_not_exist_is_said_and_sent_when_it_does() -> anyhow::Result<()> {
    let mut world = World::start("s18", "CDS other=1").await?;
    let mut client = world.delta().await?;
    for service in ["CDS", "EDS", "LDS", "RDS", "RTDS"] {
        client.takes(service, &["x"], &format!("{service} -x")).await?;
    }
    // A virtual host that nothing goes by is said by an entry without a body.
    client.takes("VHDS", &["r/x"], "VHDS ?r/x").await?;
    world.edit("CDS x=1, EDS x=1, LDS x=1, RDS x=1, RTDS x=1, VHDS r/v|r/x=1").await?;
    client.hears(&["RTDS x=1", "CDS x=1", "EDS x=1"]).await?;
    // What may lead to the new cluster waits for it.
    for service in ["EDS", "CDS"] {
        client.ack(service, &[]).await?;
    }
    client.hears(&["LDS x=1", "RDS x=1", "VHDS r/v=1"]).await
}

#[tokio::test]
async fn scenario_18_a_stale_nonce_takes_nothing_from_a_subscription() -> anyhow::Result<()> {
    let world = World::start("s18n", "EDS a=1, EDS b=1").await?;
    let mut client = world.delta().await?;
    client.takes("EDS", &["a"], "EDS a=1").await?;
    client.peer.say(Kind::Endpoints, Delta { subscribe: &["b"], nonce: "0", ..Default::default() }).await?;
    client.hears(&["EDS b=1"]).await
}

#[tokio::test]
async fn scenario_19_under_a_wildcard_an_unsubscribed_name_is_answered() -> anyhow::Result<()> {
    let world = World::start("s19", "CDS a=1").await?;
    let mut client = world.delta().await?;
    client.takes("CDS", &["*", "a", "x"], "CDS a=1 -x").await?;
    client.takes("CDS", &["-a"], "CDS a=1").await?;
    client.takes("CDS", &["-x"], "CDS -x").await?;
    client.ask("CDS", &["-phantom"]).await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_22_only_what_is_gone_is_removed() -> anyhow::Result<()> {
    let contents = "EDS a=1, EDS b=1, LDS l=1, LDS m=1, SDS s=1, SDS t=1, CDS a=1, CDS b=1";
    let mut world = World::start("s22", contents).await?;
    let mut client = world.proven(true).await?;
    client.takes("CDS", &[], "CDS a=1 b=1").await?;
    client.takes("EDS", &["a", "b"], "EDS a=1 b=1").await?;
    client.takes("LDS", &[], "LDS l=1 m=1").await?;
    client.takes("SDS", &["s", "t"], "SDS s=1 t=1").await?;
    world.edit("EDS a=2, SDS s=2, LDS -m").await?;
    client.hears(&["SDS s=2", "EDS a=2", "LDS -m"]).await?;
    for service in ["SDS", "EDS", "LDS"] {
        client.ack(service, &[]).await?;
    }
    world.edit("CDS -b, EDS -b").await?;
    client.hears(&["CDS -b"]).await?;
    client.ack("CDS", &[]).await?;
    client.hears(&["EDS -b"]).await
}

#[tokio::test]
async fn scenario_23_an_extension_that_was_sent_is_never_removed() -> anyhow::Result<()> {
    let mut world = World::start("s23", "ECDS f=1, ECDS g=1").await?;
    let mut client = world.delta().await?;
    client.takes("ECDS", &["f", "g"], "ECDS f=1 g=1").await?;
    world.edit("ECDS -f").await?;
    client.hears(&[]).await?;
    world.edit("ECDS g=2").await?;
    client.hears(&["ECDS g=2"]).await?;
    client.ack("ECDS", &[]).await?;
    world.edit("ECDS f=3").await?;
    client.hears(&["ECDS f=3"]).await
}

#[tokio::test]
async fn a_stated_version_is_that_of_every_response() -> anyhow::Result<()> {
    let mut world = World::start("sver", "CDS a=1, LDS l=1").await?;
    world.say_version("release-7").await?;
    for incremental in [false, true] {
        let mut client = world.stream(incremental).await?;
        for (kind, service, line) in [(Kind::Cluster, "CDS", "CDS a=1"), (Kind::Listener, "LDS", "LDS l=1")] {
            client.takes(service, &[], line).await?;
            let version = client.peer.version(kind);
            ensure!(version == "release-7", "{version}");
        }
    }
    Ok(())
}
