//! Tasks: the only place that spawns.
//!
//! Owns: every task's name, its stop token and its end. May use: tokio. Never: lets a task end unseen: one
//! that returns early, fails or panics ends the process; of the children of a task, a panic is logged.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks of a process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    names: std::collections::BTreeMap<tokio::task::Id, &'static str>,
    stop: CancellationToken,
}

/// Why the tasks ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A task returned though nobody asked it to stop.
    #[error("the task {0:?} ended by itself")]
    Early(&'static str),
    /// A task failed.
    #[error("the task {name:?} failed")]
    Failed {
        /// The task.
        name: &'static str,
        /// Why.
        source: anyhow::Error,
    },
    /// A task panicked.
    #[error("the task {0:?} panicked")]
    Panicked(&'static str),
    /// Tasks did not stop in time; they are abandoned.
    #[error("still running after {grace:?}: {names:?}")]
    Stuck {
        /// How long they were given.
        grace: Duration,
        /// Which ones.
        names: Vec<&'static str>,
    },
}

/// Tasks of one kind, that come and go while another task runs, and end with it.
#[derive(Debug, Default)]
pub struct Children(JoinSet<()>);

// === impl Children ===

impl Children {
    /// Starts one.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    /// Ready when one has ended, and with `None` when there is none.
    pub async fn next_ended(&mut self) -> Option<()> {
        let ended = self.0.join_next().await?;
        if let Err(error) = ended {
            tracing::error!(%error, "a task of a connection failed");
        }
        Some(())
    }
}

// === impl Tasks ===

impl Default for Tasks {
    fn default() -> Self {
        Self { set: JoinSet::new(), names: std::collections::BTreeMap::new(), stop: CancellationToken::new() }
    }
}

impl Tasks {
    /// A token that is cancelled when the tasks are to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Starts a task that runs until its stop token is cancelled.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let handle = self.set.spawn(async move { (name, task.await) });
        self.names.insert(handle.id(), name);
    }

    /// Runs until `signal` is ready or a task ends, then stops everything within `grace`.
    pub async fn run(mut self, signal: impl Future<Output = ()>, grace: Duration) -> Result<(), Ended> {
        tokio::pin!(signal);
        let outcome = tokio::select! {
            () = &mut signal => Ok(()),
            Some(ended) = self.set.join_next_with_id() => Err(self.ended(ended, false).unwrap_or(Ended::Early("?"))),
        };
        self.stop.cancel();
        let drained = tokio::time::timeout(grace, async {
            let mut first = Ok(());
            while let Some(ended) = self.set.join_next_with_id().await {
                if let (Some(error), Ok(())) = (self.ended(ended, true), &first) {
                    first = Err(error);
                }
            }
            first
        })
        .await;
        match (outcome, drained) {
            (Err(first), _) => Err(first),
            (Ok(()), Ok(drained)) => drained,
            (Ok(()), Err(_)) => Err(Ended::Stuck { grace, names: self.names.into_values().collect() }),
        }
    }

    fn ended(
        &mut self,
        ended: Result<(tokio::task::Id, (&'static str, anyhow::Result<()>)), tokio::task::JoinError>,
        stopping: bool,
    ) -> Option<Ended> {
        match ended {
            Ok((id, (name, result))) => {
                self.names.remove(&id);
                match result {
                    Err(source) => Some(Ended::Failed { name, source }),
                    Ok(()) if stopping => None,
                    Ok(()) => Some(Ended::Early(name)),
                }
            }
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or("?");
                error.is_panic().then_some(Ended::Panicked(name))
            }
        }
    }
}
