//! The last good form of every object: what stays in force while an edit is broken, also across a restart.
//!
//! Owns: which form of an object counts, and how it is recorded. May use: `sources::files` (what was read),
//! `translators`, `journal`. Never: mends an object; a broken one has its former form or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use translators::finding::{Finding, Severity};
use translators::mesh::resolve::{Resolution, Resolver};
use translators::name::ObjectKey;
use translators::rules::{self, Object, Objects, Spec};

use crate::journal::Record;
use crate::sources::files::FileState;

/// How often the refused are replaced at most: once by their last good form, once without entries that are wrong
/// there too, and as often again for what followed from that.
const MOST_ROUNDS: usize = 8;

/// The last form of every object that was accepted: what stays in force while an edit is broken.
#[derive(Debug, Default)]
pub(super) struct LastGood {
    objects: Objects,
    by_file: BTreeSet<(Arc<str>, ObjectKey)>,
    resolver: Resolver,
}

/// What is in force.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) resolution: Resolution,
    pub(super) objects: Objects,
    /// What is wrong with the objects whose last good form is in force.
    pub(super) refused: Vec<Finding>,
    /// How much of the rules was looked at.
    pub(super) evaluated: usize,
}

/// An object, and what counts in its place.
type Form = (ObjectKey, Arc<Object>);

/// One object on disk: its text, and where it stood.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    file: String,
    line: u32,
    text: String,
}

// === impl LastGood ===

impl LastGood {
    /// What was kept by a former run.
    pub(super) fn new(kept: Objects) -> Self {
        let mut last_good = Self::default();
        last_good.keep(kept);
        last_good
    }

    /// The last good form of each object.
    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The objects in force: those of the files, and the last good form of each that is broken.
    pub(super) fn accept(&mut self, files: &FileState) -> Accepted {
        let mut objects = files.objects.clone();
        let told = files.broken.iter().filter_map(|(_, key)| key.as_ref());
        // Where nobody can tell which object a document was, whatever the file had is still there.
        let untold: BTreeSet<&Arc<str>> =
            files.broken.iter().filter(|(_, key)| key.is_none()).map(|(file, _)| file).collect();
        let of_files = untold.into_iter().flat_map(|file| self.of_file(file));
        for key in told.chain(of_files) {
            if let (false, Some(good)) = (objects.contains_key(key), self.objects.get(key)) {
                objects.insert(key.clone(), Arc::clone(good));
            }
        }
        let mut refused = Vec::new();
        // What is in force without some of its entries.
        let mut lessened = BTreeSet::new();
        let mut resolution = self.resolver.update(&objects);
        let mut evaluated = self.resolver.evaluated();
        for _ in 0..MOST_ROUNDS {
            // What refers to a broken object is whole again with the last good form of that one, so nothing is lessened
            // while anything can be replaced.
            let mut instead = self.former(&resolution, &objects, &lessened);
            if instead.is_empty() {
                instead = lesser(&resolution, &objects, &self.objects);
                lessened.extend(instead.iter().map(|(key, _)| key.clone()));
            }
            if instead.is_empty() {
                break;
            }
            for (key, form) in instead {
                refused.extend(errors_of(&resolution, &key));
                objects.insert(key, form);
            }
            resolution = self.resolver.update(&objects);
            evaluated += self.resolver.evaluated();
        }
        let mut good = objects.clone();
        // An entry comes back with what it lacked, so the form that has it is the one to keep.
        for key in &lessened {
            if let Some(whole) = self.objects.get(key) {
                good.insert(key.clone(), Arc::clone(whole));
            }
        }
        for key in &resolution.refused {
            good.remove(key);
        }
        self.keep(good);
        Accepted { resolution, objects, refused, evaluated }
    }

    /// The last good forms of what is refused, as far as they are other forms.
    fn former(&self, resolution: &Resolution, objects: &Objects, lessened: &BTreeSet<ObjectKey>) -> Vec<Form> {
        let broken = resolution.refused.iter().filter(|key| !lessened.contains(*key));
        let former = broken.filter_map(|key| {
            let (current, good) = (objects.get(key)?, self.objects.get(key)?);
            (!current.same_content(good)).then(|| (key.clone(), Arc::clone(good)))
        });
        former.collect()
    }

    /// The objects whose last good form stood in `file`.
    fn of_file<'a>(&'a self, file: &'a Arc<str>) -> impl Iterator<Item = &'a ObjectKey> {
        let from = (Arc::clone(file), ObjectKey::first());
        self.by_file.range(from..).take_while(move |(of, _)| of == file).map(|(_, key)| key)
    }

    fn keep(&mut self, good: Objects) {
        for change in self.objects.diff(&good) {
            let (old, new) = match change {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            if let Some(old) = old {
                self.by_file.remove(&(Arc::clone(&old.file), old.key.clone()));
            }
            if let Some(new) = new {
                self.by_file.insert((Arc::clone(&new.file), new.key.clone()));
            }
        }
        self.objects = good;
    }
}

// === impl Kept ===

impl Record for Kept {
    type Key = ObjectKey;
    type Value = Arc<Object>;

    fn of(_: &ObjectKey, object: &Arc<Object>) -> Self {
        Self { file: object.file.to_string(), line: object.line, text: object.text.to_string() }
    }

    /// Reads a kept text again, at the line where it stood.
    fn entry(self) -> Option<(ObjectKey, Arc<Object>)> {
        let object = rules::parse_from(&self.file, &self.text, self.line).objects.into_iter().next()?;
        Some((object.key.clone(), object))
    }

    fn alike(one: &Arc<Object>, other: &Arc<Object>) -> bool {
        (&one.file, one.line, &one.text) == (&other.file, other.line, &other.text)
    }
}

/// What is refused although it was accepted as it is, without the entries that are wrong now.
fn lesser(resolution: &Resolution, objects: &Objects, good: &Objects) -> Vec<Form> {
    let accepted = resolution.refused.iter().filter(|key| good.contains_key(*key));
    let lesser = accepted.filter_map(|key| {
        let rest = without(objects.get(key)?, &errors_of(resolution, key))?;
        Some((key.clone(), Arc::new(rest)))
    });
    lesser.collect()
}

fn errors_of(resolution: &Resolution, key: &ObjectKey) -> Vec<Finding> {
    let of_object = resolution.findings.get(key).into_iter().flat_map(|findings| findings.iter());
    of_object.filter(|finding| finding.severity == Severity::Error).cloned().collect()
}

/// What was accepted, and of which nothing was edited, without the parts that are wrong now: a service that goes away takes
/// its own entries of workloads with it, not the proxies that have others, and its own callers from access rules, not
/// the door that they close.
fn without(good: &Object, wrong: &[Finding]) -> Option<Object> {
    let is_wrong = |part: &str| {
        let within =
            |pointer: &str| pointer.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        wrong.iter().any(|finding| within(&finding.pointer))
    };
    let spec = match &good.spec {
        Spec::Workload(workload) => {
            let mut rest = workload.clone();
            retain(&mut rest.serves, "/spec/serves", |_, entry| !is_wrong(entry));
            retain(&mut rest.calls, "/spec/calls", |_, entry| !is_wrong(entry));
            Spec::Workload(rest)
        }
        Spec::AccessPolicy(policy) => {
            let mut rest = policy.clone();
            for (entries, list) in [(&mut rest.allow, "/spec/allow"), (&mut rest.deny, "/spec/deny")] {
                retain(entries, list, |entry, at| {
                    let is_whole = !["to", "jwt", "external"].iter().any(|part| is_wrong(&format!("{at}/{part}")));
                    // Without any of its callers an entry would match everybody.
                    let has_callers = entry.from.as_mut().is_none_or(|callers| {
                        retain(callers, &format!("{at}/from"), |_, caller| !is_wrong(caller));
                        !callers.is_empty()
                    });
                    is_whole && has_callers
                });
            }
            Spec::AccessPolicy(rest)
        }
        _ => return None,
    };
    (spec != good.spec).then(|| {
        let mut rest = good.clone();
        rest.spec = spec;
        rest
    })
}

/// Keeps of a list at `pointer` what `keep` says, given each with where it stands.
fn retain<T>(list: &mut Vec<T>, pointer: &str, mut keep: impl FnMut(&mut T, &str) -> bool) {
    let mut index = 0..;
    list.retain_mut(|one| index.next().is_some_and(|index: usize| keep(one, &format!("{pointer}/{index}"))));
}
