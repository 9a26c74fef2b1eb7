//! Claims: who was first to say something that only one object may say.
//!
//! Owns: conflicts. May use: `rules`, `finding`. Never: decides by age or alphabet of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::report::Report;
use crate::finding::Code;
use crate::rules::Object;

/// Something that only one object may say.
pub(super) trait Claim: Clone + Ord {
    /// The place in an object that claims it.
    const POINTER: &'static str;
    /// What is wrong with being second: `<the first object> ...`.
    const WHY: &'static str;

    /// The same of this one, where claims of a kind differ in it.
    fn why(&self) -> String {
        Self::WHY.to_owned()
    }
}

/// The claim of objects that never conflict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unclaimed {}

/// Who claims what, in the order in which conflicts are decided. An object with errors of its own claims nothing.
#[derive(Debug)]
pub(super) struct Claims<C>(BTreeMap<C, Vec<Arc<Object>>>);

// === impl Claim ===

impl Claim for Unclaimed {
    const POINTER: &'static str = "";
    const WHY: &'static str = "";
}

// === impl Claims ===

impl<C> Default for Claims<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C: Claim> Claims<C> {
    /// Enters `object` among those who claim `what`.
    pub(super) fn enter(&mut self, what: &C, object: &Arc<Object>) {
        let claimants = self.0.entry(what.clone()).or_default();
        let at = claimants.partition_point(|other| other.home() < object.home());
        claimants.insert(at, Arc::clone(object));
    }

    /// Takes `object` out again.
    pub(super) fn leave(&mut self, what: &C, object: &Object) {
        let Some(claimants) = self.0.get_mut(what) else { return };
        if let Ok(at) = claimants.binary_search_by(|other| other.home().cmp(&object.home())) {
            claimants.remove(at);
        }
        if claimants.is_empty() {
            self.0.remove(what);
        }
    }

    /// Those who claim `what`; it is the first one's.
    pub(super) fn of(&self, what: &C) -> &[Arc<Object>] {
        self.0.get(what).map_or(&[], Vec::as_slice)
    }

    /// A finding when an earlier object has something that `report`'s object claims.
    pub(super) fn check(&self, claims: &[C], report: &mut Report<'_>) {
        let taken = |what| Some((what, self.of(what).first().filter(|first| first.key != report.object.key)?));
        let Some((what, first)) = claims.iter().find_map(taken) else { return };
        let place = first.location("");
        let place = place.map(|place| format!(" at {}:{}", place.file, place.line)).unwrap_or_default();
        report.error(Code::Conflict, C::POINTER, format!("{}{place} {}", first.key, what.why())).hint =
            Some("remove one of them".to_owned());
    }
}
