//! Background: work that goes on while a test runs.
//!
//! Owns: its task, which ends when the value is dropped. May use: tokio. Never: outlives its owner.

use tokio::task::JoinHandle;

/// A running task.
#[derive(Debug)]
pub(crate) struct Background<T>(JoinHandle<T>);

// === impl Background ===

impl<T: Send + 'static> Background<T> {
    #[expect(clippy::disallowed_methods, reason = "this is the harness's one place that spawns, and it owns the task")]
    pub(crate) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> anyhow::Result<T> {
        Ok((&mut self.0).await?)
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
