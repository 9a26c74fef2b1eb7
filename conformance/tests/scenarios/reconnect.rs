//! Clients that come back with what they hold.

use conformance::harness::{Delta, Script, World};
use translators::resource::Kind;

/// What one stream was sent of a type, by name and version.
async fn held(world: &World, kind: Kind, names: &[&str]) -> anyhow::Result<Vec<(String, String)>> {
    let mut client = world.delta().await?;
    client.ask(kind.service(), names).await?;
    let received = client.peer.next_of(kind).await?;
    client.ack(kind.service(), &[]).await?;
    Ok(received.resources.into_iter().map(|(name, version, _)| (name, version)).collect())
}

/// Asks for these, and says that it holds those.
pub async fn returns(client: &mut Script, kind: Kind, names: &[&str], held: &[(String, String)]) -> anyhow::Result<()> {
    let holds: Vec<(&str, &str)> = held.iter().map(|(name, version)| (&**name, &**version)).collect();
    client.peer.say(kind, Delta { subscribe: names, holds: &holds, ..Default::default() }).await
}

#[tokio::test]
async fn scenario_25_a_wildcard_resumes_where_it_was() -> anyhow::Result<()> {
    let mut world = World::start("s25", "LDS a=1, LDS b=1, LDS c=1").await?;
    let holds = held(&world, Kind::Listener, &[]).await?;
    world.edit("LDS -b, LDS c=2").await?;
    let mut client = world.delta().await?;
    returns(&mut client, Kind::Listener, &[], &holds).await?;
    client.hears(&["LDS c=2 -b"]).await
}

#[tokio::test]
async fn scenario_25_a_removed_cluster_is_removed_once_listeners_are_known() -> anyhow::Result<()> {
    let mut world = World::start("s25c", "CDS a=1, CDS b=1, LDS l=1").await?;
    let holds = held(&world, Kind::Cluster, &[]).await?;
    world.edit("CDS -b").await?;
    let mut client = world.delta().await?;
    returns(&mut client, Kind::Cluster, &[], &holds).await?;
    client.hears(&["CDS"]).await?;
    client.ack("CDS", &[]).await?;
    client.takes("LDS", &[], "LDS l=1").await?;
    client.hears(&["CDS -b"]).await
}

#[tokio::test]
async fn scenario_26_named_resources_are_answered_on_a_new_stream_though_nothing_changed() -> anyhow::Result<()> {
    let world = World::start("s26", "CDS a=1, EDS a=1, RDS a=1, LDS a=1, ECDS a=1").await?;
    for service in ["EDS", "RDS", "ECDS", "CDS", "LDS"] {
        let (kind, line) = (conformance::harness::kind(service)?, format!("{service} a=1"));
        let mut client = world.sotw().await?;
        client.takes(service, &["a"], &line).await?;
        let version = client.peer.version(kind);
        let mut client = world.sotw().await?;
        client.peer.pretend(kind, &version);
        client.ask(service, &["a"]).await?;
        client.hears(&[&line]).await?;
    }
    // A server that started anew says the same versions, and answers all the same.
    let before = held(&world, Kind::Route, &["a"]).await?;
    let other = World::alone("s26", "CDS a=1, EDS a=1, RDS a=1, LDS a=1, ECDS a=1", &[]).await?;
    assert_eq!(held(&other, Kind::Route, &["a"]).await?, before);
    let mut client = other.delta().await?;
    returns(&mut client, Kind::Route, &["a"], &before).await?;
    client.hears(&["RDS a=1"]).await
}

#[tokio::test]
async fn scenario_27_what_depends_on_a_changed_parent_is_there_after_a_reconnect() -> anyhow::Result<()> {
    let mut world = World::start("s27", "CDS a=1, EDS a=1, SDS s=1, RDS r=1").await?;
    let mut client = world.proven(true).await?;
    for (service, name) in [("SDS", "s"), ("RDS", "r")] {
        let kind = conformance::harness::kind(service)?;
        client.ask(service, &[name]).await?;
        let received = client.peer.next_of(kind).await?;
        client.ack(service, &[]).await?;
        let holds: Vec<_> = received.resources.into_iter().map(|(name, version, _)| (name, version)).collect();
        // Held, unchanged, and answered: the client may have lost what refers to it.
        let mut again = world.proven(true).await?;
        returns(&mut again, kind, &[name], &holds).await?;
        again.hears(&[&format!("{service} {name}=1")]).await?;
    }
    let clusters = held(&world, Kind::Cluster, &[]).await?;
    let endpoints = held(&world, Kind::Endpoints, &["a"]).await?;
    world.edit("CDS a=2").await?;
    let mut client = world.delta().await?;
    returns(&mut client, Kind::Endpoints, &["a"], &endpoints).await?;
    client.hears(&[]).await?;
    returns(&mut client, Kind::Cluster, &[], &clusters).await?;
    client.hears(&["CDS a=2", "EDS a=1"]).await
}

#[tokio::test]
async fn scenario_28_each_type_is_served_by_itself() -> anyhow::Result<()> {
    let world = World::start("s28", "CDS c=1, EDS c=1, LDS l=1, RDS r=1").await?;
    for incremental in [false, true] {
        // Routes, listeners and endpoints, and clusters last or never.
        let mut client = world.stream(incremental).await?;
        client.takes("RDS", &["r"], "RDS r=1").await?;
        client.takes("LDS", &[], "LDS l=1").await?;
        client.takes("EDS", &["c"], "EDS c=1").await?;
        client.ask("CDS", &[]).await?;
        client.hears(&["CDS c=1", "EDS c=1"]).await?;
    }
    Ok(())
}
