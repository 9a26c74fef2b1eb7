//! The operating system's notifications.
//!
//! Owns: which paths they tell of, and when it is time to read those: at once what is complete, that is renamed into
//! place or closed after writing; what is written, or has gone, once it is quiet. May use: notify. Never: reads, or
//! waits on the thread of the notifications.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

use super::REREAD;
use super::listing::is_rules;

/// How long what is written must be quiet before it is read.
const QUIET: Duration = Duration::from_millis(20);
/// How long it waits for that at most.
const AT_MOST: Duration = Duration::from_millis(200);
/// More paths than these are everything.
const MOST: usize = 4096;

/// What is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// Paths in the directory that are complete.
    pub(super) complete: BTreeSet<PathBuf>,
    /// Paths in the directory that have been written, or have gone, and are quiet since.
    pub(super) quiet: BTreeSet<PathBuf>,
    /// Nobody can tell what.
    pub(super) everything: bool,
}

/// What was noticed and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Notices {
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    noticed: Noticed,
    /// When the first and the last of what has to be quiet was noticed.
    unquiet: Option<(Instant, Instant)>,
}

/// The watched directory; renewed when it has become another one.
pub(super) struct Watch {
    dir: PathBuf,
    notices: Arc<Notices>,
    watched: Option<(Place, notify::RecommendedWatcher)>,
}

/// A directory, by where it is and what it is: another one may stand in its place.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// How paths of notifications become paths in the directory as it is called.
#[derive(Debug)]
struct Names {
    dir: PathBuf,
    within: PathBuf,
    own: Option<OsString>,
}

/// What one notification says of a path.
enum Notice {
    Complete(PathBuf),
    Written(PathBuf),
    Everything,
}

// === impl Notices ===

impl Notices {
    /// What is to be read by `now`; the rest stays.
    pub(super) fn take(&self, now: Instant) -> Noticed {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.quiet_at().is_none_or(|at| at <= now) {
            return mem::take(&mut *pending).noticed;
        }
        Noticed { complete: mem::take(&mut pending.noticed.complete), ..Noticed::default() }
    }

    /// Waits until there is something to be read.
    pub(super) async fn due(&self) {
        loop {
            let (ready, quiet_at) = {
                let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                (!pending.noticed.complete.is_empty(), pending.quiet_at())
            };
            if ready {
                return;
            }
            match quiet_at {
                None => self.changed.notified().await,
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at.into()) => return,
                },
            }
        }
    }

    fn notice(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut any = false;
        for notice in notices {
            pending.enter(notice, Instant::now());
            any = true;
        }
        drop(pending);
        if any {
            self.changed.notify_one();
        }
    }
}

// === impl Pending ===

impl Pending {
    fn enter(&mut self, notice: Notice, now: Instant) {
        match notice {
            Notice::Complete(path) => {
                self.noticed.quiet.remove(&path);
                self.noticed.complete.insert(path);
            }
            Notice::Written(path) => {
                self.noticed.quiet.insert(path);
                self.unquiet = Some((self.unquiet.map_or(now, |(first, _)| first), now));
            }
            Notice::Everything => {
                self.noticed.everything = true;
                self.unquiet = Some((self.unquiet.map_or(now, |(first, _)| first), now));
            }
        }
        if self.noticed.complete.len() + self.noticed.quiet.len() > MOST {
            self.noticed = Noticed { everything: true, ..Noticed::default() };
            self.unquiet.get_or_insert((now, now));
        }
    }

    /// When what has to be quiet is so.
    fn quiet_at(&self) -> Option<Instant> {
        self.unquiet.map(|(first, last)| (last + QUIET).min(first + AT_MOST))
    }
}

// === impl Names ===

impl Names {
    fn notices(&self, event: notify::Result<Event>) -> Vec<Notice> {
        match event {
            Ok(event) if event.need_rescan() => vec![Notice::Everything],
            Ok(event) => event.paths.iter().filter_map(|path| self.of_path(event.kind, path)).collect(),
            Err(_) => vec![Notice::Everything],
        }
    }

    fn of_path(&self, kind: EventKind, path: &Path) -> Option<Notice> {
        let Ok(relative) = path.strip_prefix(&self.within) else {
            // Beside the directory only its own name counts: others may write there without end.
            return (!kind.is_access() && path.file_name() == self.own.as_deref()).then_some(Notice::Everything);
        };
        if relative.as_os_str().is_empty() {
            return (!kind.is_access()).then_some(Notice::Everything);
        }
        let path = self.dir.join(relative);
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                is_rules(relative).then_some(Notice::Complete(path))
            }
            // Two of their own tell of this.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Notice::Complete(path)),
            // What holds no rules may be written without end.
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
                is_rules(relative).then_some(Notice::Written(path))
            }
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
                Some(Notice::Written(path))
            }
        }
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, notices: Arc::default(), watched: None }
    }

    /// Where the notifications arrive.
    pub(super) fn notices(&self) -> Arc<Notices> {
        Arc::clone(&self.notices)
    }

    /// Watches the directory that the path now leads to, and the place where the path itself stands. Says whether that
    /// is another one than before, of which nothing was noticed yet.
    pub(super) fn renew(&mut self) -> bool {
        let Some(place) = Place::of(&self.dir) else {
            self.watched = None;
            return false;
        };
        if self.watched.as_ref().is_some_and(|(watched, _)| *watched == place) {
            return false;
        }
        let names =
            Names { dir: self.dir.clone(), within: place.path.clone(), own: self.dir.file_name().map(Into::into) };
        let notices = self.notices();
        let watcher =
            notify::recommended_watcher(move |event: notify::Result<Event>| notices.notice(names.notices(event)));
        let watched = watcher.and_then(|mut watcher| {
            watcher.watch(&place.path, RecursiveMode::Recursive)?;
            if let Some(parent) = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                watcher.watch(parent, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => self.watched = Some((place, watcher)),
            Err(error) => {
                warn!(dir = %self.dir.display(), %error, every = ?REREAD, "cannot watch, reading again instead");
            }
        }
        true
    }
}

// === impl Place ===

impl Place {
    fn of(dir: &Path) -> Option<Self> {
        let path = dir.canonicalize().ok()?;
        let metadata = fs::metadata(&path).ok()?;
        Some(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_complete_does_not_wait_for_what_is_written() {
        let (notices, start) = (Notices::default(), Instant::now());
        let (a, b) = (PathBuf::from("a.yaml"), PathBuf::from("b.yaml"));
        notices.notice([Notice::Written(a.clone()), Notice::Written(b.clone()), Notice::Complete(b.clone())]);
        let now = start + QUIET / 2;
        assert_eq!(notices.take(now), Noticed { complete: [b].into(), ..Noticed::default() });
        assert_eq!(notices.take(now), Noticed::default());
        assert_eq!(notices.take(Instant::now() + QUIET), Noticed { quiet: [a].into(), ..Noticed::default() });
    }

    #[test]
    fn somebody_who_writes_without_end_is_waited_for_not_without_end() {
        let mut pending = Pending::default();
        let start = Instant::now();
        for step in 0..100 {
            pending.enter(Notice::Written("a.yaml".into()), start + QUIET / 2 * step);
        }
        assert_eq!(pending.quiet_at(), Some(start + AT_MOST));
    }

    #[test]
    fn too_many_paths_are_everything() {
        let notices = Notices::default();
        notices.notice((0..=MOST).map(|n| Notice::Complete(n.to_string().into())));
        assert_eq!(notices.take(Instant::now() + QUIET), Noticed { everything: true, ..Noticed::default() });
    }
}
