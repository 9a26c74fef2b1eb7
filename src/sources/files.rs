//! A directory of YAML and JSON documents, watched.
//!
//! Owns: which files count, when they are read again, and what they hold. May use: `translators::rules`.
//! Never: resolves a reference or remembers what an object was before; that is `translate`'s.
//!
//! Changes are noticed through the operating system (also when the directory or a file is a symbolic link
//! that is swapped, as a mounted ConfigMap does) and, should a notification be lost, by reading again every
//! few seconds. A file that is empty for a moment, as some editors leave it, is given time to be filled.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use translators::finding::{Code, Finding, Location, Severity};
use translators::name::ObjectKey;
use translators::rules::{self, Objects, Parsed};

/// How often the directory is read though nothing was noticed.
const REREAD: Duration = Duration::from_secs(3);
/// How long the directory must be quiet after a change before it is read.
const QUIET: Duration = Duration::from_millis(20);
/// How long changes are gathered at most before the directory is read.
const AT_MOST: Duration = Duration::from_millis(200);
/// The largest file that is read.
const MAX_BYTES: u64 = 64 << 20;
/// How long a file that had content may be empty before that is believed.
const EMPTY_GRACE: Duration = Duration::from_millis(400);
/// How deep the directory is searched.
const MAX_DEPTH: usize = 8;

/// What the files hold.
#[derive(Debug, Clone, Default)]
pub struct FileState {
    /// Whether the directory has been read.
    pub synced: bool,
    /// The objects that could be read.
    pub objects: Objects,
    /// What could not be read.
    pub findings: Vec<Finding>,
    /// Documents that could not be read: their file, and their object where it can be told.
    pub broken: Vec<(Arc<str>, Option<ObjectKey>)>,
}

/// One file as last read.
#[derive(Debug)]
struct File {
    text: Arc<str>,
    parsed: Parsed,
    empty_since: Option<Instant>,
    /// Why it cannot be read now.
    problem: Option<String>,
}

/// The files by name: the text of each, or why it cannot be read.
type Texts = BTreeMap<Arc<str>, Result<String, String>>;

/// The directory as last read.
#[derive(Debug)]
struct Reader {
    dir: PathBuf,
    files: BTreeMap<Arc<str>, File>,
    problem: Option<String>,
}

/// Watches `dir` and keeps `state` current until stopped.
pub async fn run(dir: PathBuf, state: watch::Sender<FileState>, stop: CancellationToken) -> anyhow::Result<()> {
    let (notify, mut noticed) = mpsc::channel(1);
    let mut watcher = Watch::new(dir.clone(), notify);
    let mut reader = Reader { dir, files: BTreeMap::new(), problem: None };
    loop {
        watcher.renew();
        let (read, changed) = tokio::task::spawn_blocking(move || {
            let changed = reader.read();
            (reader, changed)
        })
        .await?;
        reader = read;
        if changed {
            let next = reader.state();
            if next.synced {
                state.send_replace(next);
            }
        }
        let pause = if reader.awaits_content() { EMPTY_GRACE } else { REREAD };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
            Some(()) = noticed.recv() => {
                // A save is often several operations: read once they are over. Somebody may write without end.
                let gather = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, noticed.recv()).await {} };
                let _ = tokio::time::timeout(AT_MOST, gather).await;
            }
        }
    }
}

/// Reads `path` (a directory, or one file) once.
pub fn read_once(path: &Path) -> anyhow::Result<FileState> {
    let mut reader = Reader { dir: path.to_owned(), files: BTreeMap::new(), problem: None };
    reader.read();
    match reader.problem {
        Some(problem) => anyhow::bail!(problem),
        None => Ok(reader.state()),
    }
}

// === impl Reader ===

impl Reader {
    /// Reads what has changed; says whether anything has.
    fn read(&mut self) -> bool {
        let texts = match texts(&self.dir) {
            Ok(texts) => texts,
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
        let first = self.files.is_empty() && self.problem.is_none();
        if self.problem.take().is_some() {
            info!(dir = %self.dir.display(), "rules directory can be read again");
        }
        let mut changed = first;
        let gone: Vec<_> = self.files.keys().filter(|name| !texts.contains_key(*name)).cloned().collect();
        for name in gone {
            self.files.remove(&name);
            changed = true;
        }
        for (name, text) in texts {
            changed |= match text {
                Ok(text) => self.take(name, text),
                Err(problem) => self.cannot_read(name, problem),
            };
        }
        changed
    }

    /// A file that cannot be read keeps what it last held.
    fn cannot_read(&mut self, name: Arc<str>, problem: String) -> bool {
        let nothing = || File { text: "".into(), parsed: Parsed::default(), empty_since: None, problem: None };
        let file = self.files.entry(name).or_insert_with(nothing);
        let changed = file.problem.as_ref() != Some(&problem);
        file.problem = Some(problem);
        changed
    }

    fn take(&mut self, name: Arc<str>, text: String) -> bool {
        if let Some(held) = self.files.get_mut(&name) {
            if *held.text == *text {
                held.empty_since = None;
                return held.problem.take().is_some();
            }
            if text.trim().is_empty() {
                let since = *held.empty_since.get_or_insert_with(Instant::now);
                if since.elapsed() < EMPTY_GRACE {
                    return false;
                }
            }
        }
        let parsed = rules::parse(&name, &text);
        self.files.insert(name, File { text: text.into(), parsed, empty_since: None, problem: None });
        true
    }

    fn awaits_content(&self) -> bool {
        self.files.values().any(|file| file.empty_since.is_some())
    }

    fn state(&self) -> FileState {
        let broken = self
            .files
            .iter()
            .flat_map(|(name, file)| file.parsed.broken.iter().map(|key| (Arc::clone(name), key.clone())))
            .collect();
        let collected = rules::collect(self.files.values().map(|file| file.parsed.clone()));
        let unreadable = self.files.iter().filter_map(|(name, file)| Some(unreadable(name, file.problem.as_ref()?)));
        FileState {
            synced: self.problem.is_none(),
            objects: collected.objects,
            findings: unreadable.chain(collected.findings).collect(),
            broken,
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

/// Every rule file below `path`, by the name it is reported under.
fn texts(path: &Path) -> Result<Texts, String> {
    let mut found = Texts::new();
    if path.is_dir() {
        collect_texts(path, 0, &mut BTreeSet::new(), &mut found)?;
    } else {
        found.insert(
            path.display().to_string().into(),
            Ok(text(path).map_err(|error| format!("{}: {error}", path.display()))?),
        );
    }
    Ok(found)
}

/// The text of a regular file; what is no UTF-8 in it becomes a finding of the parser, at its place.
fn text(path: &Path) -> std::io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    // Opening a pipe or a device may wait for ever.
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(std::io::Error::other("it is larger than 64 MiB"));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

/// Each directory is looked into once, however many links lead to it.
fn collect_texts(
    dir: &Path,
    depth: usize,
    visited: &mut BTreeSet<(u64, u64)>,
    found: &mut Texts,
) -> Result<(), String> {
    let metadata = std::fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    if !visited.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    let listing = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in listing {
        let path = entry.map_err(|error| format!("{}: {error}", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                collect_texts(&path, depth + 1, visited, found)?;
            }
            continue;
        }
        if !path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json") {
            continue;
        }
        match text(&path) {
            // It went while we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => {}
            text => {
                found.insert(path.display().to_string().into(), text.map_err(|error| error.to_string()));
            }
        }
    }
    Ok(())
}

/// The operating system's notifications; renewed when the directory has become another one.
struct Watch {
    dir: PathBuf,
    notify: mpsc::Sender<()>,
    watched: Option<(PathBuf, notify::RecommendedWatcher)>,
}

// === impl Watch ===

impl Watch {
    fn new(dir: PathBuf, notify: mpsc::Sender<()>) -> Self {
        Self { dir, notify, watched: None }
    }

    /// Watches the directory that the path now leads to, and the place where the path itself stands.
    fn renew(&mut self) {
        let Ok(target) = self.dir.canonicalize() else {
            self.watched = None;
            return;
        };
        if self.watched.as_ref().is_some_and(|(watched, _)| *watched == target) {
            return;
        }
        let notify = self.notify.clone();
        let (within, name) = (target.clone(), self.dir.file_name().map(ToOwned::to_owned));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Beside the directory only its own name counts: others may write there without end.
            let concerns = |path: &PathBuf| path.starts_with(&within) || path.file_name() == name.as_deref();
            let matters = event.map_or(true, |event| !event.kind.is_access() && event.paths.iter().any(concerns));
            if matters {
                // One token is enough: the reader looks at everything.
                let _ = notify.try_send(());
            }
        });
        let watched = watcher.and_then(|mut watcher| {
            watcher.watch(&target, RecursiveMode::Recursive)?;
            if let Some(parent) = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                watcher.watch(parent, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => self.watched = Some((target, watcher)),
            Err(error) => {
                warn!(dir = %self.dir.display(), %error, every = ?REREAD, "cannot watch, reading again instead")
            }
        }
    }
}

#[cfg(test)]
mod tests;
