//! Snapshots: what one group of proxies is to hold.
//!
//! Owns: persistent sets of resources that share structure between versions, so that a change costs the
//! logarithm of the set and two snapshots are told apart in the size of their difference. May use:
//! `translators::resource`. Never: changes after it was published.

use std::sync::Arc;

use imbl::OrdMap;
use translators::resource::{Kind, Name, Resource, Version};

/// The resources of one kind.
#[derive(Debug, Clone)]
pub struct ResourceSet {
    resources: OrdMap<Name, Arc<Resource>>,
    version: Version,
}

/// The resources of every kind.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    kinds: [ResourceSet; Kind::ALL.len()],
    said_version: Option<Arc<str>>,
}

/// One difference between two sets.
#[derive(Debug, Clone)]
pub enum Change {
    /// The resource is new, or has other content.
    Put(Arc<Resource>),
    /// There is no such resource any more.
    Removed(Name),
}

// === impl ResourceSet ===

impl Default for ResourceSet {
    fn default() -> Self {
        Self { resources: OrdMap::new(), version: Version::EMPTY }
    }
}

impl ResourceSet {
    /// The resource called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// The resources, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The version of the set: a sum over its resources, the same for the same content everywhere.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Puts a resource; says whether that changed anything. One that says the same by the same rules stays the same
    /// allocation.
    pub fn put(&mut self, resource: Arc<Resource>) -> bool {
        if let Some(held) = self.resources.get(resource.name()) {
            if **held == *resource {
                return false;
            }
            self.version = self.version.without(held.version());
        }
        self.version = self.version.with(resource.version());
        self.resources.insert(resource.name().clone(), resource);
        true
    }

    /// Whether both are the same allocation.
    fn is(&self, other: &Self) -> bool {
        self.resources.ptr_eq(&other.resources)
    }

    /// Removes a resource; says whether that changed anything.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(held) = self.resources.remove(name) else { return false };
        self.version = self.version.without(held.version());
        true
    }

    /// What `newer` has that `self` has not, by name; parts that the two share are passed over.
    pub fn changes_to<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Change> + 'a {
        self.resources.diff(&newer.resources).filter_map(|item| match item {
            imbl::ordmap::DiffItem::Add(_, new) => Some(Change::Put(Arc::clone(new))),
            imbl::ordmap::DiffItem::Update { old: (_, old), new: (_, new) } => {
                (old.version() != new.version()).then(|| Change::Put(Arc::clone(new)))
            }
            imbl::ordmap::DiffItem::Remove(name, _) => Some(Change::Removed(name.clone())),
        })
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The resources of `kind`.
    pub fn of(&self, kind: Kind) -> &ResourceSet {
        &self.kinds[kind as usize]
    }

    /// The resources of `kind`, to be changed before publication.
    pub fn of_mut(&mut self, kind: Kind) -> &mut ResourceSet {
        &mut self.kinds[kind as usize]
    }

    /// What it is called in every response made of it, in the place of a content version; `None` for the content
    /// version.
    pub fn said_version(&self) -> Option<&Arc<str>> {
        self.said_version.as_ref()
    }

    /// Gives it a version of another's choice, before publication. What is sent follows from the content all the same.
    pub fn say_version(&mut self, version: Option<Arc<str>>) {
        self.said_version = version;
    }

    /// Whether a proxy could not tell the two apart.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.said_version == other.said_version
            && self.kinds.iter().zip(&other.kinds).all(|(one, other)| one.version == other.version)
    }
}

/// The same allocations: what two maps of snapshots differ in is found without a look into those that stayed.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.said_version == other.said_version && self.kinds.iter().zip(&other.kinds).all(|(one, other)| one.is(other))
    }
}

impl Eq for Snapshot {}
