//! 2. Fold: one task brings the sources together.
//!
//! Owns: when a change is passed on. May use: `sources`. Never: translates. Nothing is passed on until every
//! source has said that it is synced, so that a half-read configuration removes nothing; after that the
//! first change goes on at once, and those that follow are gathered until it is quiet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sources::files::FileState;
use crate::sources::instances::Instances;

/// How long the sources must be quiet before gathered changes go on.
const QUIET: Duration = Duration::from_millis(10);
/// How long changes are gathered at most.
const AT_MOST: Duration = Duration::from_millis(50);

/// Everything that the sources say. Parts that did not change are the same allocation as before.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// What the rule files hold.
    pub files: Arc<FileState>,
    /// The connected proxies that serve.
    pub instances: Instances,
}

/// Folds the sources into `inputs` until stopped; `inputs` holds `None` until all of them are synced.
pub async fn run(
    mut files: watch::Receiver<Arc<FileState>>,
    mut instances: watch::Receiver<Instances>,
    inputs: watch::Sender<Option<Inputs>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut last_passed: Option<Instant> = None;
    loop {
        let file_state = Arc::clone(&files.borrow_and_update());
        let instance_state = instances.borrow_and_update().clone();
        if file_state.synced {
            inputs.send_replace(Some(Inputs { files: file_state, instances: instance_state }));
            last_passed = Some(Instant::now());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = files.changed() => if changed.is_err() { return Ok(()) },
            changed = instances.changed() => if changed.is_err() { return Ok(()) },
        }
        // The leading edge is not delayed; what comes close behind another change is gathered.
        if last_passed.is_some_and(|passed| passed.elapsed() < QUIET) {
            gather(&mut files, &mut instances).await;
        }
    }
}

/// Waits until no change has come for a while.
async fn gather(files: &mut watch::Receiver<Arc<FileState>>, instances: &mut watch::Receiver<Instances>) {
    let end = Instant::now() + AT_MOST;
    while let Ok(Ok(())) = tokio::time::timeout_at(end.min(Instant::now() + QUIET), async {
        tokio::select! { changed = files.changed() => changed, changed = instances.changed() => changed }
    })
    .await
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced() -> Arc<FileState> {
        Arc::new(FileState { synced: true, ..FileState::default() })
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    async fn nothing_is_passed_on_before_every_source_is_synced_and_changes_are_gathered() {
        let files = watch::Sender::new(Arc::<FileState>::default());
        let instances = watch::Sender::new(Instances::default());
        let (inputs, mut passed) = watch::channel(None);
        let stop = CancellationToken::new();
        tokio::spawn(run(files.subscribe(), instances.subscribe(), inputs, stop.clone()));
        instances.send_replace(Instances::default());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(passed.borrow_and_update().is_none());

        files.send_replace(synced());
        tokio::time::timeout(Duration::from_millis(1), passed.changed()).await.expect("at once").expect("open");
        let first = passed.borrow_and_update().clone().expect("synced");

        tokio::time::sleep(Duration::from_secs(1)).await;
        instances.send_replace(Instances::default());
        tokio::time::timeout(Duration::from_millis(1), passed.changed()).await.expect("at once").expect("open");
        let second = passed.borrow_and_update().clone().expect("synced");
        assert!(Arc::ptr_eq(&first.files, &second.files), "what did not change is the same");

        let mut times = 0;
        let count = async {
            loop {
                passed.changed().await.expect("open");
                times += 1;
            }
        };
        let change = async {
            for _ in 0..100 {
                files.send_replace(synced());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! { () = count => {}, () = change => {} }
        assert!((8..=12).contains(&times), "100 changes within half a second are passed on {times} times");
        stop.cancel();
    }
}
