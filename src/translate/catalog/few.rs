//! A map of few entries: a sorted vector, which takes the room of what it holds.
//!
//! Owns: keeping it sorted. May use: nothing. Never: knows what it holds.

/// Up to so many there is room for no more than there are.
const FEW: usize = 4;

/// Entries by key. What is entered in the order of the keys is entered at the end.
#[derive(Debug)]
pub(super) struct Few<K, V>(Vec<(K, V)>);

// === impl Few ===

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Clone, V: Default> Few<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.at(key).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.at(key).ok().map(|at| &mut self.0[at].1)
    }

    /// The value at `key`, which is the default one where there was none.
    pub(super) fn entry(&mut self, key: &K) -> &mut V {
        let at = self.at(key).unwrap_or_else(|at| {
            if self.0.len() < FEW {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, (key.clone(), V::default()));
            at
        });
        &mut self.0[at].1
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Ok(at) = self.at(key) {
            self.0.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    fn at(&self, key: &K) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(held, _)| held.cmp(key)),
        }
    }
}
