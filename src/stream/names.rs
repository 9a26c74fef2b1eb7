//! Sets of names, shared between the streams of a group.
//!
//! Owns: a set with a sum that tells it from others. May use: resources' names. Never: changes a set that is shared.

use imbl::OrdSet;
use translators::resource::{Name, Version};
use translators::xdstp;

/// A set of names. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// The sum over the names, whatever their order.
    sum: Version,
    set: OrdSet<Name>,
    /// How many of them stand for all that is below them.
    globs: usize,
}

// === impl Names ===

impl Default for Names {
    fn default() -> Self {
        Self { sum: Version::EMPTY, set: OrdSet::new(), globs: 0 }
    }
}

impl Names {
    /// The sum of what would be a set of `names`, each given once.
    pub(super) fn sum_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Version {
        names.into_iter().fold(Version::EMPTY, |sum, name| sum.with(Version::of(name.as_bytes())))
    }

    pub(super) fn sum(&self) -> Version {
        self.sum
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    /// Whether it is one of them, or below a glob that is.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.contains(name) || (self.globs > 0 && xdstp::globs_over(name).any(|glob| self.contains(&glob)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// The names, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.set.iter()
    }

    /// Whether these are its names, in order and each once.
    pub(super) fn are(&self, names: &[&str]) -> bool {
        self.set.len() == names.len() && self.set.iter().zip(names).all(|(held, name)| **held == **name)
    }

    pub(super) fn insert(&mut self, name: Name) {
        let (element, is_glob) = (Version::of(name.as_bytes()), xdstp::is_glob(&name));
        if self.set.insert(name).is_none() {
            self.sum = self.sum.with(element);
            self.globs += usize::from(is_glob);
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Name> {
        let removed = self.set.remove(name)?;
        self.sum = self.sum.without(Version::of(name.as_bytes()));
        self.globs -= usize::from(xdstp::is_glob(name));
        Some(removed)
    }

    /// Its own copy of the name.
    pub(super) fn get(&self, name: &str) -> Option<&Name> {
        self.set.get(name)
    }
}

impl FromIterator<Name> for Names {
    fn from_iter<I: IntoIterator<Item = Name>>(names: I) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.insert(name));
        all
    }
}
