//! Waiting: for a condition, never for a time.
//!
//! Owns: how often a condition is looked at. May use: tokio's clock. Never: hides why it did not come about.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `check` succeeds; after `timeout` its last error says why it did not.
pub async fn eventually<T>(
    timeout: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last = None;
    loop {
        match tokio::time::timeout_at(deadline, check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = Some(error),
            Err(_elapsed) => {}
        }
        if Instant::now() >= deadline {
            let last = last.unwrap_or_else(|| anyhow::anyhow!("the check itself did not end"));
            return Err(last.context(format!("{what}: not within {timeout:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
