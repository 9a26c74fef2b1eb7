//! The last good form of every object: what stays in force while an edit is broken, also across a restart.
//!
//! Owns: which form of an object counts, and the record of it on disk. May use: `sources::files` (what was
//! read), `translators`. Never: mends an object; a broken one has its former form or none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;
use translators::finding::{Finding, Severity};
use translators::mesh::resolve;
use translators::name::ObjectKey;
use translators::rules::{self, Object, Objects, Spec};

use crate::durable;
use crate::sources::files::FileState;

/// How often the refused are replaced at most: once by their last good form, once without entries that are wrong
/// there too, and as often again for what followed from that.
const MOST_ROUNDS: usize = 8;

/// The last form of every object that was accepted: what stays in force while an edit is broken.
#[derive(Debug)]
pub(super) struct LastGood {
    path: Option<PathBuf>,
    objects: Objects,
}

/// What is in force.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) resolution: resolve::Resolution,
    pub(super) objects: Objects,
    pub(super) findings: Vec<Finding>,
}

/// One object on disk: its text, and where it stood.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    file: String,
    line: u32,
    text: String,
}

// === impl LastGood ===

impl LastGood {
    pub(super) fn load(path: Option<PathBuf>) -> Self {
        let objects = path.as_deref().map(read_kept).unwrap_or_default();
        Self { path, objects }
    }

    /// The objects in force: those of the files, and the last good form of each that is broken.
    pub(super) fn accept(&mut self, files: &FileState) -> Accepted {
        let mut objects = files.objects.clone();
        for (file, key) in &files.broken {
            match key {
                Some(key) => {
                    if let (false, Some(good)) = (objects.contains_key(key), self.objects.get(key)) {
                        objects.insert(key.clone(), Arc::clone(good));
                    }
                }
                // Nobody can tell which object the document was: whatever the file had is still there.
                None => {
                    for (key, good) in self.objects.iter().filter(|(_, good)| good.file == *file) {
                        objects.entry(key.clone()).or_insert_with(|| Arc::clone(good));
                    }
                }
            }
        }
        let mut findings = files.findings.clone();
        let mut resolution = resolve::resolve(&objects);
        for _ in 0..MOST_ROUNDS {
            let mut replaced = false;
            for key in &resolution.refused {
                let wrong = errors_of(&resolution, key);
                let good = self
                    .objects
                    .get(key)
                    .filter(|good| objects.get(key).is_some_and(|refused| !refused.same_content(good)));
                if let Some(good) = good {
                    objects.insert(key.clone(), Arc::clone(good));
                    findings.extend(wrong);
                    replaced = true;
                } else if let Some(rest) = self.objects.get(key).and_then(|good| without(good, &wrong)) {
                    objects.insert(key.clone(), Arc::new(rest));
                    findings.extend(wrong);
                    replaced = true;
                }
            }
            if !replaced {
                break;
            }
            resolution = resolve::resolve(&objects);
        }
        findings.append(&mut resolution.all_findings());
        findings.sort();
        findings.dedup();
        let mut good = objects.clone();
        for key in &resolution.refused {
            good.remove(key);
        }
        self.keep(good);
        Accepted { resolution, objects, findings }
    }

    fn keep(&mut self, good: Objects) {
        let same = self.objects.len() == good.len()
            && self.objects.iter().zip(&good).all(|((k, a), (l, b))| k == l && a.same_content(b) && a.line == b.line);
        if same {
            return;
        }
        self.objects = good;
        let Some(path) = &self.path else { return };
        let kept: Vec<Kept> = self
            .objects
            .values()
            .map(|object| Kept { file: object.file.to_string(), line: object.line, text: object.text.to_string() })
            .collect();
        if let Err(error) = durable::write_json(path, &kept) {
            warn!(path = %path.display(), %error, "last good rules cannot be written");
        }
    }
}

fn errors_of(resolution: &resolve::Resolution, key: &ObjectKey) -> Vec<Finding> {
    let of_object = resolution.findings.get(key).into_iter().flat_map(|findings| findings.iter());
    of_object.filter(|finding| finding.severity == Severity::Error).cloned().collect()
}

/// A workload that was accepted, and of which nothing was edited, without the entries that are wrong now: a service
/// that goes away takes its own entry with it, not the proxies that have others.
fn without(good: &Object, wrong: &[Finding]) -> Option<Object> {
    let Spec::Workload(workload) = &good.spec else { return None };
    let is_wrong = |list: &str, index: usize| {
        let entry = format!("/spec/{list}/{index}");
        let within =
            |pointer: &str| pointer.strip_prefix(&entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        wrong.iter().any(|finding| within(&finding.pointer))
    };
    let mut rest = workload.clone();
    let mut index = 0..;
    rest.serves.retain(|_| index.next().is_some_and(|index| !is_wrong("serves", index)));
    let mut index = 0..;
    rest.calls.retain(|_| index.next().is_some_and(|index| !is_wrong("calls", index)));
    let fewer = rest.serves.len() + rest.calls.len() < workload.serves.len() + workload.calls.len();
    fewer.then(|| {
        let mut object = good.clone();
        object.spec = Spec::Workload(rest);
        object
    })
}

fn read_kept(path: &Path) -> Objects {
    match durable::read_json::<Vec<Kept>>(path) {
        Ok(kept) => kept.unwrap_or_default().iter().filter_map(parse_kept).map(|o| (o.key.clone(), o)).collect(),
        Err(error) => {
            warn!(path = %path.display(), %error, "last good rules cannot be read, starting without");
            Objects::new()
        }
    }
}

/// Reads a kept text again, at the line where it stood.
fn parse_kept(kept: &Kept) -> Option<Arc<Object>> {
    rules::parse_from(&kept.file, &kept.text, kept.line).objects.into_iter().next()
}
