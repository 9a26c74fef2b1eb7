//! A collection: the objects of many files together, kept up to date file by file.
//!
//! Owns: which of several objects with one key counts, and the findings about the others. May use: the objects, as
//! read. Never: looks at a file that did not change.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::{Collected, Object, Objects, Parsed};
use crate::finding::{self, Code, Finding};
use crate::name::ObjectKey;

/// Files together. One object has one home: of two with the same key the one whose file and line come first stays, in
/// whatever order the files came. `N` names a file.
#[derive(Debug, Clone)]
pub struct Collection<N = Arc<str>> {
    files: BTreeMap<N, Parsed>,
    objects: Objects,
    /// Objects that are defined elsewhere as well, in the order of their homes.
    others: BTreeMap<ObjectKey, Vec<Arc<Object>>>,
    findings: Findings,
    broken: BTreeMap<N, Vec<Option<ObjectKey>>>,
}

/// Findings in the order in which they are shown, and how often each was made.
#[derive(Debug, Clone, Default)]
struct Findings(BTreeMap<Shown, usize>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown(Finding);

/// Puts texts together; as a [`Collection`] does, once.
pub fn collect(parsed: impl IntoIterator<Item = Parsed>) -> Collected {
    let mut collection = Collection::default();
    for (name, parsed) in (0usize..).zip(parsed) {
        collection.put_file(name, parsed);
    }
    Collected { findings: collection.findings().cloned().collect(), objects: collection.objects }
}

// === impl Collection ===

impl<N> Default for Collection<N> {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            objects: Objects::new(),
            others: BTreeMap::new(),
            findings: Findings::default(),
            broken: BTreeMap::new(),
        }
    }
}

impl<N: Clone + Ord> Collection<N> {
    /// Enters what the file `name` holds now, in the place of what it held. An object that is the same allocation as
    /// before is not looked at.
    pub fn put_file(&mut self, name: N, parsed: Parsed) {
        if parsed.broken.is_empty() {
            self.broken.remove(&name);
        } else {
            self.broken.insert(name.clone(), parsed.broken.clone());
        }
        let next = self.files.entry(name).or_default();
        let former = mem::replace(next, parsed);
        let next = &*next;
        for finding in &former.findings {
            self.findings.remove(finding);
        }
        for finding in &next.findings {
            self.findings.insert(finding.clone());
        }
        let same = |(former, next): &(&Arc<Object>, &Arc<Object>)| Arc::ptr_eq(former, next);
        let (gone, new) = (&former.objects[..], &next.objects[..]);
        let head = gone.iter().zip(new).take_while(same).count();
        let (gone, new) = (&gone[head..], &new[head..]);
        let tail = gone.iter().rev().zip(new.iter().rev()).take_while(same).count();
        let mut homes = Homes { objects: &mut self.objects, others: &mut self.others, findings: &mut self.findings };
        homes.replace(&gone[..gone.len() - tail], &new[..new.len() - tail]);
    }

    /// Takes the file `name` out.
    pub fn remove_file(&mut self, name: &N) {
        if self.files.contains_key(name) {
            self.put_file(name.clone(), Parsed::default());
            self.files.remove(name);
        }
    }

    /// The objects, each from its one home.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What could not be read, and names that are defined twice, by place.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.0.iter().flat_map(|(Shown(finding), times)| std::iter::repeat_n(finding, *times))
    }

    /// Documents that could not be read: their file, and their object where it can be told.
    pub fn broken(&self) -> impl Iterator<Item = (&N, &Option<ObjectKey>)> {
        self.broken.iter().flat_map(|(name, keys)| keys.iter().map(move |key| (name, key)))
    }
}

/// The part of a collection that does not know files.
struct Homes<'a> {
    objects: &'a mut Objects,
    others: &'a mut BTreeMap<ObjectKey, Vec<Arc<Object>>>,
    findings: &'a mut Findings,
}

// === impl Homes ===

impl Homes<'_> {
    /// Takes out `gone` and enters `new`; what is in both stays.
    fn replace(&mut self, gone: &[Arc<Object>], new: &[Arc<Object>]) {
        // By allocation: an object that is in both is neither removed nor entered.
        let by_key = |objects: &[Arc<Object>]| {
            let mut keyed: BTreeMap<ObjectKey, Vec<Arc<Object>>> = BTreeMap::new();
            for object in objects {
                keyed.entry(object.key.clone()).or_default().push(Arc::clone(object));
            }
            keyed
        };
        let (mut gone, mut new) = (by_key(gone), by_key(new));
        for (key, gone) in &mut gone {
            let Some(new) = new.get_mut(key) else { continue };
            gone.retain(|former| match new.iter().position(|object| Arc::ptr_eq(object, former)) {
                Some(at) => {
                    new.remove(at);
                    false
                }
                None => true,
            });
        }
        let nothing: &[Arc<Object>] = &[];
        for (key, gone) in &gone {
            let new = new.remove(key);
            self.settle(key, gone, new.as_deref().unwrap_or(nothing));
        }
        for (key, new) in &new {
            self.settle(key, nothing, new);
        }
    }

    /// Decides anew which object of `key` counts.
    fn settle(&mut self, key: &ObjectKey, gone: &[Arc<Object>], new: &[Arc<Object>]) {
        let home = self.objects.get(key).cloned();
        let mut others = self.others.remove(key).unwrap_or_default();
        if let Some(home) = &home {
            for other in &others {
                self.findings.remove(&duplicate(home, other));
            }
        }
        others.extend(home.iter().cloned());
        for gone in gone {
            if let Some(at) = others.iter().position(|object| Arc::ptr_eq(object, gone)) {
                others.remove(at);
            }
        }
        others.extend(new.iter().cloned());
        others.sort_by(by_home);
        let mut others = others.into_iter();
        match others.next() {
            None => {
                self.objects.remove(key);
            }
            Some(first) => {
                let others: Vec<_> = others.collect();
                for other in &others {
                    self.findings.insert(duplicate(&first, other));
                }
                if !others.is_empty() {
                    self.others.insert(key.clone(), others);
                }
                if !home.is_some_and(|home| Arc::ptr_eq(&home, &first)) {
                    self.objects.insert(key.clone(), first);
                }
            }
        }
    }
}

/// The order in which it is decided whose home counts.
fn by_home(left: &Arc<Object>, right: &Arc<Object>) -> Ordering {
    left.home().cmp(&right.home()).then_with(|| left.text.cmp(&right.text))
}

fn duplicate(first: &Object, other: &Object) -> Finding {
    let message = format!("already defined at {}:{}", first.file, first.line());
    Finding::error(Code::Duplicate, &other.key, "", message).hint("remove one of them").at(other.location(""))
}

// === impl Findings ===

impl Findings {
    fn insert(&mut self, finding: Finding) {
        *self.0.entry(Shown(finding)).or_default() += 1;
    }

    fn remove(&mut self, finding: &Finding) {
        let shown = Shown(finding.clone());
        if let Some(times) = self.0.get_mut(&shown) {
            *times -= 1;
            if *times == 0 {
                self.0.remove(&shown);
            }
        }
    }
}

// === impl Shown ===

impl Ord for Shown {
    fn cmp(&self, other: &Self) -> Ordering {
        finding::by_place(&self.0, &other.0)
    }
}

impl PartialOrd for Shown {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
