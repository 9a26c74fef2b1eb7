//! Make before break on one stream.

use conformance::harness::World;

const CONTENTS: &str = "CDS x=1, EDS x=1, LDS l=1, RDS r=x";
const CHANGE: &str = "CDS y=1, EDS y=1, RDS r=y, CDS -x, EDS -x";

#[tokio::test]
async fn scenario_32_a_route_moves_from_one_cluster_to_another_in_sotw() -> anyhow::Result<()> {
    let mut world = World::start("s32s", CONTENTS).await?;
    let mut client = world.sotw().await?;
    client.takes("CDS", &[], "CDS x=1").await?;
    client.takes("EDS", &["x"], "EDS x=1").await?;
    client.takes("LDS", &[], "LDS l=1").await?;
    client.takes("RDS", &["r"], "RDS r=x").await?;
    world.edit(CHANGE).await?;
    client.hears(&["CDS x=1 y=1"]).await?;
    // The route waits for its cluster, whose acceptance waits for its endpoints.
    client.takes("EDS", &["x", "y"], "EDS y=1").await?;
    client.ack("CDS", &[]).await?;
    client.hears(&["RDS r=y"]).await?;
    client.ack("RDS", &["r"]).await?;
    client.hears(&["CDS y=1"]).await?;
    client.ask("EDS", &["y"]).await?;
    client.ack("CDS", &[]).await?;
    client.hears(&[]).await
}

#[tokio::test]
async fn scenario_32_a_route_moves_from_one_cluster_to_another_in_delta() -> anyhow::Result<()> {
    let mut world = World::start("s32d", CONTENTS).await?;
    let mut client = world.delta().await?;
    client.takes("CDS", &[], "CDS x=1").await?;
    client.takes("EDS", &["x"], "EDS x=1").await?;
    client.takes("LDS", &[], "LDS l=1").await?;
    client.takes("RDS", &["r"], "RDS r=x").await?;
    world.edit(CHANGE).await?;
    client.hears(&["CDS y=1"]).await?;
    client.takes("EDS", &["y"], "EDS y=1").await?;
    client.ack("CDS", &[]).await?;
    client.hears(&["RDS r=y"]).await?;
    client.ack("RDS", &[]).await?;
    client.hears(&["CDS -x"]).await?;
    client.ack("CDS", &[]).await?;
    client.hears(&["EDS -x"]).await
}

#[tokio::test]
async fn scenario_33_endpoints_never_overtake_their_cluster() -> anyhow::Result<()> {
    for incremental in [false, true] {
        let node = if incremental { "s33d" } else { "s33s" };
        let mut world = World::start(node, "CDS c=1, EDS c=1").await?;
        let mut client = world.stream(incremental).await?;
        client.takes("CDS", &[], "CDS c=1").await?;
        client.takes("EDS", &["c"], "EDS c=1").await?;
        for content in 2..8 {
            let (clusters, endpoints) = (format!("CDS c={content}"), format!("EDS c={content}"));
            world.edit(&format!("{endpoints}, {clusters}")).await?;
            client.hears(&[&clusters, &endpoints]).await?;
            client.ack("EDS", &["c"]).await?;
            client.ack("CDS", &[]).await?;
        }
    }
    Ok(())
}
