//! The files as last read.
//!
//! Owns: which of them are read and parsed again, and what they hold together. May use: `translators::rules`. Never:
//! waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use tracing::{error, info};
use translators::finding::{Code, Finding, Location, Severity};
use translators::rules::{Collection, Text};

use super::listing::{self, Stamp};
use super::{EMPTY_GRACE, FileState};

/// The directory as last read.
#[derive(Debug)]
pub(super) struct Reader {
    dir: PathBuf,
    files: BTreeMap<Arc<str>, File>,
    collection: Collection,
    /// Why files cannot be read now.
    problems: BTreeMap<Arc<str>, String>,
    /// Files that had content and are empty, since when.
    empty_since: BTreeMap<Arc<str>, Instant>,
    /// Why the directory cannot be read now.
    problem: Option<String>,
    /// Whether it ever could be.
    was_read: bool,
    links: bool,
    cost: Cost,
}

/// One file as last read.
#[derive(Debug, Default)]
struct File {
    text: Text,
    /// How it looked then, if it cannot have changed since without looking otherwise.
    stamp: Option<Stamp>,
}

/// What reading has cost since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    files: usize,
    documents: usize,
}

/// What reading one file has found.
enum Reading {
    /// It is not there.
    Gone,
    Unreadable(String),
    /// It holds what it held, at the same places.
    Same,
    Edited {
        text: Text,
        /// How many documents were parsed.
        parsed: usize,
        /// It is nothing but blanks.
        blank: bool,
    },
}

/// What a notification about a path is a reason for.
enum Reason {
    Nothing,
    File,
    Everything,
}

// === impl Cost ===

impl Cost {
    /// How many files were read, and how many documents parsed, since `former`.
    pub(super) fn since(self, former: Self) -> (usize, usize) {
        (self.files - former.files, self.documents - former.documents)
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            files: BTreeMap::new(),
            collection: Collection::default(),
            problems: BTreeMap::new(),
            empty_since: BTreeMap::new(),
            problem: None,
            was_read: false,
            links: false,
            cost: Cost::default(),
        }
    }

    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether the directory could be read when it was last looked through.
    pub(super) fn is_readable(&self) -> bool {
        self.was_read && self.problem.is_none()
    }

    /// Why it could not.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether a file is empty that may be about to be filled.
    pub(super) fn awaits_content(&self) -> bool {
        !self.empty_since.is_empty()
    }

    /// Looks through the directory and reads what looks different; says whether anything has changed.
    pub(super) fn read_all(&mut self) -> bool {
        let listing = match listing::list(&self.dir) {
            Ok(listing) => listing,
            Err(problem) => {
                // An unreadable directory is not an empty one: what was read stays.
                if self.problem.as_ref() != Some(&problem) {
                    let kept =
                        if self.files.is_empty() { "nothing was read yet" } else { "what was read before stays" };
                    error!(dir = %self.dir.display(), %problem, kept, "the rules directory cannot be read");
                    self.problem = Some(problem);
                }
                return false;
            }
        };
        if self.problem.take().is_some() {
            info!(dir = %self.dir.display(), "rules directory can be read again");
        }
        let mut changed = !std::mem::replace(&mut self.was_read, true);
        self.links = listing.links;
        let gone: Vec<_> = self.files.keys().filter(|name| !listing.files.contains_key(*name)).cloned().collect();
        for name in gone {
            changed |= self.enter(name, None, Reading::Gone);
        }
        let looks_same = |name: &Arc<str>, stamp: &Option<Stamp>| {
            stamp.is_some() && self.files.get(name).is_some_and(|held| held.stamp == *stamp)
        };
        let files = listing.files.into_iter().filter(|(name, (_, stamp))| !looks_same(name, stamp));
        let different = files.map(|(name, (path, stamp))| (name, path, stamp)).collect();
        self.read_files(different) || changed
    }

    /// Reads what notifications told of: `paths` in the directory. Says whether anything has changed. What is not there
    /// is believed to be gone only if it is `quiet`: a file may be about to be put in the place of another.
    pub(super) fn read(&mut self, paths: &BTreeSet<PathBuf>, quiet: bool) -> bool {
        let mut files = Vec::new();
        for path in paths {
            match self.reason(path, quiet) {
                Reason::Nothing => {}
                Reason::File => files.push((listing::name(path), path.clone(), listing::stamp(path))),
                Reason::Everything => return self.read_all(),
            }
        }
        self.read_files(files)
    }

    fn reason(&self, path: &Path, quiet: bool) -> Reason {
        let Ok(relative) = path.strip_prefix(&self.dir) else { return Reason::Everything };
        if relative.as_os_str().is_empty() || self.links || !self.is_readable() {
            return Reason::Everything;
        }
        let name = listing::name(path);
        let kind = match fs::symlink_metadata(path) {
            Ok(metadata) => Some(metadata.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return Reason::Everything,
        };
        match kind {
            Some(kind) if kind.is_dir() || kind.is_symlink() => Reason::Everything,
            _ if self.holds_below(&name) => Reason::Everything,
            Some(_) if listing::counts(relative) => Reason::File,
            None if quiet && self.files.contains_key(&name) => Reason::File,
            Some(_) | None => Reason::Nothing,
        }
    }

    /// Whether `name` was a directory of files.
    fn holds_below(&self, name: &str) -> bool {
        let prefix = format!("{name}/");
        let mut from = self.files.range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded));
        from.next().is_some_and(|(name, _)| name.starts_with(&prefix))
    }

    /// Reads and parses on all cores, and enters the outcome in the order of the names.
    fn read_files(&mut self, files: Vec<(Arc<str>, PathBuf, Option<Stamp>)>) -> bool {
        let nothing = Text::default();
        let read = |(name, path, stamp): (Arc<str>, PathBuf, Option<Stamp>)| {
            let former = self.files.get(&name).map_or(&nothing, |file| &file.text);
            let reading = Reading::of(&name, &path, former);
            (name, stamp, reading)
        };
        let readings: Vec<_> = match files.len() {
            0 | 1 => files.into_iter().map(read).collect(),
            _ => files.into_par_iter().map(read).collect(),
        };
        let mut changed = false;
        for (name, stamp, reading) in readings {
            self.cost.files += 1;
            changed |= self.enter(name, stamp, reading);
        }
        changed
    }

    fn enter(&mut self, name: Arc<str>, stamp: Option<Stamp>, reading: Reading) -> bool {
        match reading {
            Reading::Gone => {
                self.collection.remove_file(&name);
                self.empty_since.remove(&name);
                self.problems.remove(&name);
                self.files.remove(&name).is_some()
            }
            // A file that cannot be read keeps what it last held.
            Reading::Unreadable(problem) => {
                self.files.entry(Arc::clone(&name)).or_default().stamp = None;
                let changed = self.problems.get(&name) != Some(&problem);
                self.problems.insert(name, problem);
                changed
            }
            Reading::Same => {
                self.empty_since.remove(&name);
                let mended = self.problems.remove(&name).is_some();
                self.files.entry(name).or_default().stamp = stamp;
                mended
            }
            Reading::Edited { text, parsed, blank } => {
                self.cost.documents += parsed;
                if blank {
                    let since = *self.empty_since.entry(Arc::clone(&name)).or_insert_with(Instant::now);
                    if since.elapsed() < EMPTY_GRACE {
                        self.files.entry(name).or_default().stamp = None;
                        return false;
                    }
                }
                self.empty_since.remove(&name);
                self.problems.remove(&name);
                self.collection.put_file(Arc::clone(&name), text.parsed());
                self.files.insert(name, File { text, stamp });
                true
            }
        }
    }

    /// What the files hold together.
    pub(super) fn state(&self) -> FileState {
        let unreadable = self.problems.iter().map(|(name, problem)| unreadable(name, problem));
        FileState {
            synced: self.is_readable(),
            objects: self.collection.objects().clone(),
            findings: unreadable.chain(self.collection.findings().cloned()).collect(),
            broken: self.collection.broken().map(|(name, key)| (Arc::clone(name), key.clone())).collect(),
        }
    }
}

// === impl Reading ===

impl Reading {
    fn of(name: &str, path: &Path, former: &Text) -> Self {
        match listing::text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Self::Gone,
            Err(error) => Self::Unreadable(error.to_string()),
            Ok(text) => match former.edited(name, &text) {
                None => Self::Same,
                Some((edited, parsed)) => Self::Edited { text: edited, parsed, blank: text.trim().is_empty() },
            },
        }
    }
}

fn unreadable(name: &Arc<str>, problem: &str) -> Finding {
    Finding {
        code: Code::Syntax,
        severity: Severity::Error,
        object: None,
        pointer: String::new(),
        message: format!("the file cannot be read: {problem}"),
        choices: Vec::new(),
        hint: Some("what it held before stays in force".to_owned()),
        location: Some(Location { file: Arc::clone(name), line: 1, column: 1 }),
    }
}
