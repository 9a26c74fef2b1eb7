//! Journals: a map that is kept on disk, written behind whoever changes it.
//!
//! Owns: the form of such a file: a line of JSON for each entry that was put or removed, the last one for a name
//! counts. May use: `durable`. Never: keeps anybody waiting for the disk.
//!
//! What was changed in the last moments before a crash may be lost; an orderly stop writes everything. A line that
//! was cut off by a crash is passed over. A file that says twice as much as it means is replaced.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use crate::durable;

/// How many lines may say nothing any more before a small file is replaced.
const SLACK: usize = 64;

/// One entry, as it is written.
pub trait Record: Serialize + DeserializeOwned {
    /// What entries are known by; its text is the name on disk.
    type Key: Ord + Clone + Display + Send + Sync + 'static;
    /// What they say.
    type Value: Clone + PartialEq + Send + Sync + 'static;

    /// The record of an entry.
    fn of(key: &Self::Key, value: &Self::Value) -> Self;

    /// The entry, if it can still be read.
    fn entry(self) -> Option<(Self::Key, Self::Value)>;

    /// Whether both have the same record.
    fn alike(one: &Self::Value, other: &Self::Value) -> bool {
        one == other
    }
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line<R> {
    name: String,
    /// `None` if it was removed.
    put: Option<R>,
}

/// What a record is kept of.
pub type State<R> = OrdMap<<R as Record>::Key, <R as Record>::Value>;

/// A file, or none, and the state that it holds.
pub struct Journal<R: Record> {
    path: Option<PathBuf>,
    written: State<R>,
    lines: usize,
    /// Whether it can be added to; otherwise it is replaced.
    sound: bool,
}

// === impl Journal ===

impl<R: Record> Journal<R> {
    /// The journal at `path` and the state that it was left with; one that cannot be read is reported and holds
    /// nothing.
    pub fn open(path: Option<PathBuf>) -> (Self, State<R>) {
        let mut journal = Self { path, written: OrdMap::new(), lines: 0, sound: false };
        if let Some(path) = journal.path.clone() {
            journal.read(&path);
        }
        let state = journal.written.clone();
        (journal, state)
    }

    /// Writes every newest form of `state`, until nobody can change it any more.
    pub async fn follow(mut self, mut state: watch::Receiver<State<R>>) -> anyhow::Result<()>
    where
        R: Send + 'static,
    {
        loop {
            let newest = state.borrow_and_update().clone();
            self = tokio::task::spawn_blocking(move || {
                self.write(&newest);
                self
            })
            .await?;
            if state.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Writes what `state` differs in from what is written. A failure is reported, and made good with the next change.
    pub fn write(&mut self, state: &State<R>) {
        let Some(path) = self.path.clone() else { return };
        let mut lines: Vec<Line<R>> = Vec::new();
        for change in self.written.diff(state) {
            match change {
                DiffItem::Update { old: (_, old), new: (_, new) } if R::alike(old, new) => {}
                DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => lines.push(put(key, value)),
                DiffItem::Remove(key, _) => lines.push(Line { name: key.to_string(), put: None }),
            }
        }
        let nothing_yet = self.lines == 0 && state.is_empty();
        if lines.is_empty() && (self.sound || nothing_yet) {
            self.written.clone_from(state);
            return;
        }
        let whole = !self.sound || self.lines + lines.len() > 2 * state.len() + SLACK;
        if whole {
            lines = state.iter().map(|(key, value)| put(key, value)).collect();
        }
        let written = text(&lines).and_then(|text| {
            let write = if whole { durable::replace } else { durable::append };
            Ok(write(&path, text.as_bytes())?)
        });
        self.sound = written.is_ok();
        match written {
            Ok(()) => {
                self.lines = if whole { lines.len() } else { self.lines + lines.len() };
                self.written.clone_from(state);
            }
            // Somebody may have taken the file away.
            Err(_) if !whole => self.write(state),
            Err(error) => warn!(path = %path.display(), %error, "a record cannot be written"),
        }
    }

    fn read(&mut self, path: &Path) {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return warn!(path = %path.display(), %error, "a record cannot be read, starting without"),
        };
        let mut held = BTreeMap::new();
        let mut unreadable = 0;
        for line in text.lines() {
            match serde_json::from_str::<Line<R>>(line) {
                Ok(Line { name, put: Some(record) }) => drop(held.insert(name, record)),
                Ok(Line { name, put: None }) => drop(held.remove(&name)),
                Err(_) => unreadable += 1,
            }
            self.lines += 1;
        }
        self.sound = unreadable == 0 && (text.is_empty() || text.ends_with('\n'));
        if unreadable > 0 {
            warn!(path = %path.display(), lines = unreadable, "parts of a record cannot be read, going on without them");
        }
        self.written = held.into_values().filter_map(R::entry).collect();
    }
}

impl<R: Record> fmt::Debug for Journal<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).field("entries", &self.written.len()).finish()
    }
}

fn put<R: Record>(key: &R::Key, value: &R::Value) -> Line<R> {
    Line { name: key.to_string(), put: Some(R::of(key, value)) }
}

fn text<R: Serialize>(lines: &[Line<R>]) -> Result<String, durable::RecordError> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Number(String, u32);

    impl Record for Number {
        type Key = String;
        type Value = u32;

        fn of(key: &String, value: &u32) -> Self {
            Self(key.clone(), *value)
        }

        fn entry(self) -> Option<(String, u32)> {
            Some((self.0, self.1))
        }
    }

    fn read(path: &Path) -> State<Number> {
        Journal::<Number>::open(Some(path.to_owned())).1
    }

    #[test]
    fn what_is_read_is_what_was_written_and_a_change_costs_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("numbers.jsonl");
        let lines = || std::fs::read_to_string(&path).expect("written").lines().count();
        let (mut journal, mut state) = Journal::<Number>::open(Some(path.clone()));
        state.extend((0..1000u32).map(|n| (n.to_string(), n)));
        journal.write(&state);
        assert_eq!((lines(), read(&path) == state), (1000, true));
        state.insert("7".into(), 8);
        state.remove("9");
        journal.write(&state);
        assert_eq!((lines(), read(&path) == state), (1002, true));
        journal.write(&state);
        assert_eq!(lines(), 1002, "nothing changed");

        let (mut journal, mut state) = Journal::<Number>::open(Some(path.clone()));
        let mut most = 0;
        for n in 0..3000 {
            state.insert("7".into(), n);
            journal.write(&state);
            most = most.max(lines());
        }
        assert!(read(&path) == state);
        assert!((1500..=2 * 999 + SLACK).contains(&most), "{most} lines for 999 entries");
    }

    #[test]
    fn a_line_that_was_cut_off_takes_nothing_else_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("numbers.jsonl");
        let (mut journal, mut state) = Journal::<Number>::open(Some(path.clone()));
        state.extend((0..9u32).map(|n| (n.to_string(), n)));
        journal.write(&state);
        let whole = std::fs::read(&path).expect("written");
        for cut in 1..60 {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("cut");
            let (mut journal, mut left) = Journal::<Number>::open(Some(path.clone()));
            assert!(left.len() >= 6 && left.iter().all(|(name, number)| state.get(name) == Some(number)), "{left:?}");
            left.insert("new".into(), 1);
            journal.write(&left);
            assert!(read(&path) == left, "what follows is not glued to it");
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    async fn what_is_left_is_written_when_nobody_can_change_it_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("numbers.jsonl");
        let (journal, state) = Journal::<Number>::open(Some(path.clone()));
        let sender = watch::Sender::new(state);
        let follows = tokio::spawn(journal.follow(sender.subscribe()));
        for n in 0..100 {
            sender.send_modify(|state| _ = state.insert("n".into(), n));
        }
        drop(sender);
        follows.await.expect("no panic").expect("no error");
        assert_eq!(read(&path).get("n"), Some(&99));
    }
}
