//! Pace: work at a steady rate, never more of it under way than allowed.
//!
//! Owns: when each piece of work is due. May use: tokio's clock. Never: catches up on what could not be done in
//! time: a rate is a bound.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// Does `work` `rate` times a second until `stop` is cancelled, at most `workers` at once; what is under way then
/// is waited for.
pub async fn pace<F, W>(rate: u32, workers: u32, stop: CancellationToken, work: F)
where
    F: Fn() -> W + Clone,
    W: Future<Output = ()>,
{
    let (pace, start) = (Duration::from_secs(1) / rate, Instant::now());
    let workers = (0..workers).map(|worker| {
        let (stop, work) = (stop.clone(), work.clone());
        async move {
            let mut ticks = interval_at(start + pace * worker, pace * workers);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => return,
                }
                work().await;
            }
        }
    });
    join_all(workers).await;
}
