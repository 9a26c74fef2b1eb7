//! Claims: who was first to say something that only one object may say.
//!
//! Owns: conflicts. May use: `rules`, `finding`. Never: decides by age or alphabet of names.

use std::collections::BTreeMap;

use super::report::Report;
use crate::finding::Code;
use crate::rules::Object;

/// Who claimed what: an object with errors of its own claims nothing.
pub(super) struct Claims<'a, K>(BTreeMap<K, &'a Object>);

// === impl Claims ===

impl<K> Default for Claims<'_, K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'a, K: Ord> Claims<'a, K> {
    /// Claims `what`; a finding at `pointer` when an earlier object has it. The last check of an object.
    pub(super) fn claim(&mut self, what: K, pointer: &str, why: &str, report: &mut Report<'a>) {
        if report.is_refused() {
            return;
        }
        match self.0.get(&what) {
            Some(first) => {
                let place = first.location("");
                let place = place.map(|place| format!(" at {}:{}", place.file, place.line)).unwrap_or_default();
                report.error(Code::Conflict, pointer, format!("{}{place} {why}", first.key)).hint =
                    Some("remove one of them".to_owned());
            }
            None => {
                self.0.insert(what, report.object);
            }
        }
    }
}
