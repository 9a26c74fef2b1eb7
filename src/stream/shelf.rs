//! A shelf: what is in use somewhere, to be found again by whoever needs the same.
//!
//! Owns: weak references under keys. May use: nothing. Never: keeps alive what nobody uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// As many keys are held; what comes beyond is not found again.
const MOST: usize = 65_536;

/// Values in use, under keys that need not be unique.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    entries: BTreeMap<K, Vec<Weak<V>>>,
    /// At so many keys those that are of no use any more go.
    tidy_at: usize,
}

// === impl Shelf ===

impl<K: Ord, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), tidy_at: 16 }
    }
}

impl<K: Ord, V> Shelf<K, V> {
    /// A value under `key` that is in use and that `fits`.
    pub(super) fn find(&self, key: &K, fits: impl Fn(&V) -> bool) -> Option<Arc<V>> {
        self.entries.get(key)?.iter().filter_map(Weak::upgrade).find(|value| fits(value))
    }

    /// Puts a value under `key`, for as long as it is used.
    pub(super) fn put(&mut self, key: K, value: &Arc<V>) {
        if self.entries.len() >= self.tidy_at {
            self.entries.retain(|_, values| values.iter().any(|value| value.strong_count() > 0));
            self.tidy_at = 2 * self.entries.len() + 16;
        }
        if self.entries.len() < MOST {
            let values = self.entries.entry(key).or_default();
            values.retain(|value| value.strong_count() > 0);
            values.push(Arc::downgrade(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_found_and_nothing_else_is_kept() {
        let mut shelf = Shelf::default();
        let (one, two) = (Arc::new(1), Arc::new(2));
        shelf.put("a", &one);
        shelf.put("a", &two);
        assert_eq!(shelf.find(&"a", |value| *value == 2), Some(Arc::clone(&two)));
        assert_eq!((shelf.find(&"a", |value| *value == 3), shelf.find(&"b", |_| true)), (None, None));
        drop(two);
        assert_eq!(shelf.find(&"a", |value| *value == 2), None);

        let mut shelf = Shelf::default();
        for number in 0..1_000 {
            shelf.put(number, &Arc::new(()));
        }
        assert!(shelf.entries.len() < 40, "{}", shelf.entries.len());
    }
}
