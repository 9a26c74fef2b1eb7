//! A stage: what the objects of one kind come to, remembered until something that they read changes.
//!
//! Owns: which objects of a kind are evaluated again, and which of them are kept. May use: `claims`, `facts`,
//! `ledger`. Never: knows a kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claims::{Claim, Claims};
use super::facts::{Fact, Readers};
use super::ledger::{Ledger, Part};
use super::report::Report;
use crate::finding::Finding;
use crate::name::{Label, ObjectKey, ObjectKind, QualifiedName};
use crate::rules::{Object, Objects};

/// What all stages share.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub objects: Objects,
    pub readers: Readers,
    pub ledger: Ledger,
    /// How much was evaluated since the update began.
    pub evaluated: usize,
}

/// The objects of one kind: their values are `T`s, and only one of them may claim the same `C`.
#[derive(Debug)]
pub(super) struct Stage<T, C> {
    memos: BTreeMap<QualifiedName, Memo<T, C>>,
    claims: Claims<C>,
}

/// What one object came to by itself.
#[derive(Debug)]
struct Memo<T, C> {
    object: Arc<Object>,
    /// None for an object with errors of its own.
    outcome: Option<(Arc<T>, Vec<C>)>,
    findings: Vec<Finding>,
    /// Sorted.
    reads: Vec<Fact>,
    /// Whether it has a value that nobody else claimed before.
    is_kept: bool,
}

/// An object, what it was kept as, and what it comes to now.
type LookedAt<T, C> = (QualifiedName, Option<Kept<T>>, Option<Memo<T, C>>);

/// An object that stays, and its value.
#[derive(Debug)]
pub(super) struct Kept<T> {
    pub object: Arc<Object>,
    pub value: Arc<T>,
}

/// What an object was kept as, and is now; the value is the same allocation where it stayed the same.
#[derive(Debug)]
pub(super) struct Change<T> {
    pub name: QualifiedName,
    pub before: Option<Kept<T>>,
    pub after: Option<Kept<T>>,
}

// === impl Stage ===

impl<T, C> Default for Stage<T, C> {
    fn default() -> Self {
        Self { memos: BTreeMap::new(), claims: Claims::default() }
    }
}

impl<T: Eq, C: Claim> Stage<T, C> {
    /// Evaluates the objects `names` (sorted, each once) of `kind` again, and decides again whose claims come first.
    /// The value and the claims are those of an object without errors.
    pub(super) fn update<I: IntoIterator<Item = C>>(
        &mut self,
        kind: ObjectKind,
        names: Vec<QualifiedName>,
        common: &mut Common,
        mut evaluate: impl FnMut(&mut Report<'_>) -> Option<(T, I)>,
    ) -> Vec<Change<T>> {
        let mut looked_at: Vec<LookedAt<T, C>> = Vec::with_capacity(names.len());
        let mut claimed: BTreeMap<C, Option<ObjectKey>> = BTreeMap::new();
        for name in &names {
            let key = ObjectKey::new(kind, name.clone());
            let former = self.memos.remove(name);
            let before = former.as_ref().and_then(Memo::kept);
            for (former, what) in former.iter().flat_map(Memo::claims) {
                claimed.entry(what.clone()).or_insert_with(|| self.first(what));
                self.claims.leave(what, &former.object);
            }
            let memo = common.objects.get(&key).map(|object| {
                let mut report = Report::of(object);
                let outcome = evaluate(&mut report);
                common.evaluated += 1;
                Memo::of(Arc::clone(object), report.is_refused(), outcome, former.as_ref(), report)
            });
            let (was, is) = (former.as_ref().map(|memo| &memo.reads), memo.as_ref().map(|memo| &memo.reads));
            common.readers.replace(&key, was.map_or(&[], Vec::as_slice), is.map_or(&[], Vec::as_slice));
            for (memo, what) in memo.iter().flat_map(Memo::claims) {
                claimed.entry(what.clone()).or_insert_with(|| self.first(what));
                self.claims.enter(what, &memo.object);
            }
            looked_at.push((name.clone(), before, memo));
        }
        // Who comes first may have changed for others too, and so may its place, of which their findings speak.
        let mut others = BTreeSet::new();
        for (what, first) in claimed {
            let now = self.first(&what);
            if now != first || now.is_some_and(|now| names.binary_search(&now.name).is_ok()) {
                let claimants = self.claims.of(&what).iter().map(|claimant| &claimant.key.name);
                others.extend(claimants.filter(|name| names.binary_search(name).is_err()).cloned());
            }
        }
        if !others.is_empty() {
            looked_at.extend(others.into_iter().map(|name| {
                let memo = self.memos.remove(&name);
                (name, memo.as_ref().and_then(Memo::kept), memo)
            }));
            looked_at.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        }
        let mut changes = Vec::with_capacity(looked_at.len());
        let memos = looked_at.into_iter().filter_map(|(name, before, mut memo)| {
            let after = self.claims.settle(&ObjectKey::new(kind, name.clone()), memo.as_mut(), &mut common.ledger);
            changes.push(Change { name: name.clone(), before, after });
            Some((name, memo?))
        });
        if self.memos.is_empty() {
            // Much quicker than one by one.
            self.memos = memos.collect();
        } else {
            self.memos.extend(memos);
        }
        changes
    }

    /// What is kept under `name`.
    pub(super) fn get(&self, name: &QualifiedName) -> Option<&Arc<T>> {
        self.memos.get(name)?.kept_value()
    }

    /// Everything that is kept.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&QualifiedName, &Arc<T>)> {
        self.memos.iter().filter_map(|(name, memo)| Some((name, memo.kept_value()?)))
    }

    /// Everything that is kept in `namespace`.
    pub(super) fn within(&self, namespace: &Label) -> impl Iterator<Item = (&QualifiedName, &Arc<T>)> {
        let of_namespace = self.memos.range(QualifiedName::first_of(namespace)..);
        let of_namespace = of_namespace.take_while(move |(name, _)| name.namespace == *namespace);
        of_namespace.filter_map(|(name, memo)| Some((name, memo.kept_value()?)))
    }

    fn first(&self, what: &C) -> Option<ObjectKey> {
        self.claims.of(what).first().map(|first| first.key.clone())
    }
}

// === impl Claims ===

impl<C: Claim> Claims<C> {
    /// Decides whether the object `key` is kept.
    fn settle<T: Eq>(&self, key: &ObjectKey, memo: Option<&mut Memo<T, C>>, ledger: &mut Ledger) -> Option<Kept<T>> {
        let Some(memo) = memo else {
            ledger.set(key, Part::Own, Vec::new());
            return None;
        };
        let mut report = Report::of(&memo.object);
        report.findings.clone_from(&memo.findings);
        if let Some((_, claims)) = &memo.outcome {
            self.check(claims, &mut report);
        }
        memo.is_kept = !report.is_refused() && memo.outcome.is_some();
        ledger.set(key, Part::Own, report.findings);
        memo.kept()
    }
}

// === impl Memo ===

impl<T: Eq, C: Claim> Memo<T, C> {
    fn of(
        object: Arc<Object>,
        is_refused: bool,
        outcome: Option<(T, impl IntoIterator<Item = C>)>,
        former: Option<&Self>,
        report: Report<'_>,
    ) -> Self {
        let Report { findings, mut reads, .. } = report;
        reads.sort();
        reads.dedup();
        let former = former.and_then(|former| former.outcome.as_ref()).map(|(value, _)| value);
        let outcome = outcome.filter(|_| !is_refused).map(|(value, claims)| {
            let same = former.filter(|former| ***former == value).cloned();
            (same.unwrap_or_else(|| Arc::new(value)), claims.into_iter().collect())
        });
        Self { object, outcome, findings, reads, is_kept: false }
    }

    fn claims(&self) -> impl Iterator<Item = (&Self, &C)> {
        self.outcome.iter().flat_map(|(_, claims)| claims).map(move |claim| (self, claim))
    }

    fn kept_value(&self) -> Option<&Arc<T>> {
        self.outcome.as_ref().filter(|_| self.is_kept).map(|(value, _)| value)
    }

    fn kept(&self) -> Option<Kept<T>> {
        Some(Kept { object: Arc::clone(&self.object), value: Arc::clone(self.kept_value()?) })
    }
}

// === impl Kept ===

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { object: Arc::clone(&self.object), value: Arc::clone(&self.value) }
    }
}

// === impl Change ===

impl<T> Change<T> {
    /// Whether the value is another one.
    pub(super) fn is_new(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => !Arc::ptr_eq(&before.value, &after.value),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    /// Whether `part` is the same before and after.
    pub(super) fn are_alike<P: PartialEq>(&self, part: impl Fn(&T) -> &P) -> bool {
        let of = |kept: &Option<Kept<T>>| kept.clone().map(|kept| kept.value);
        match (of(&self.before), of(&self.after)) {
            (Some(before), Some(after)) => part(&before) == part(&after),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The values before and after, as far as there are any.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.before.iter().chain(&self.after).map(|kept| kept.value.as_ref())
    }
}
