//! The footprint: the binary, idle memory, and the time to the first answer, with all that there is of a type.

use std::process::Stdio;
use std::time::Instant;

use crate::bench::fleet::Subscription;
use crate::bench::lab::{ENDPOINTS_EACH, Lab};
use crate::bench::outcome::Outcome;
use crate::bench::rules::Rules;
use crate::bench::server::{Contender, World};
use crate::bench::wire::{CLUSTERS, Protocol};
use crate::harness::chancery_binary;

const MIB: f64 = 1024.0 * 1024.0;

/// Sizes and the start.
pub async fn size(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let services = if lab.scale.quick { 1_000 } else { 10_000 };
    let mut outcome = Outcome {
        what: format!(
            "the binary, memory without rules, and from start to the answer with the clusters of {services} services"
        ),
        ..Outcome::default()
    };
    outcome.number("services", services as f64);
    let binary = chancery_binary().await?;
    let stripped = lab.scratch().join("stripped");
    let mut strip = tokio::process::Command::new("strip");
    let strip = strip.arg("-o").arg(&stripped).arg(binary).stdin(Stdio::null()).kill_on_drop(true).status().await;
    match strip {
        Ok(status) if status.success() => {
            outcome.number("binary stripped MiB", std::fs::metadata(&stripped)?.len() as f64 / MIB);
        }
        _ => outcome.notes.push("the binary is not stripped: install binutils".into()),
    }
    outcome.number("binary MiB", std::fs::metadata(binary)?.len() as f64 / MIB);
    let few = lab.world_of(Rules::one_group(1, ENDPOINTS_EACH)).await?;
    let empty = lab.bare(Rules::one_group(0, 0));
    let idle = lab.server(Contender::Chancery, &empty, Protocol::Delta).await?;
    outcome.number("idle MiB", idle.idle.resident as f64 / MIB);
    drop(idle);
    let world = World { rules: Rules::one_group(services, ENDPOINTS_EACH), ..few };
    let mut server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
    // The second start: the first one wrote the files and made the certificate authority.
    let began = Instant::now();
    server.restart().await?;
    outcome.number("ready s", began.elapsed().as_secs_f64());
    let mut spec = lab.fleet_spec(&server, &world, Protocol::Delta, 1);
    spec.subscriptions = vec![Subscription::all(CLUSTERS, services)];
    let fleet = lab.connect(spec).await?;
    outcome.number("answered s", began.elapsed().as_secs_f64());
    drop(fleet);
    outcome.number("MiB with services", server.memory()?.resident as f64 / MIB);
    Ok(outcome)
}
