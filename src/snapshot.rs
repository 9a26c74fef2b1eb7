//! Snapshots: what one group of proxies is to hold.
//!
//! Owns: persistent sets of resources that share structure between versions, so that a change costs the
//! logarithm of the set and two snapshots are told apart in the size of their difference. May use:
//! `translators::resource`, names of the form xdstp. Never: changes after it was published.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use translators::resource::{Kind, Name, Resource, Version};
use translators::xdstp;

/// The resources of one kind.
#[derive(Debug, Clone)]
pub struct ResourceSet {
    resources: OrdMap<Name, Arc<Resource>>,
    /// What few sets have.
    special: Option<Arc<Special>>,
    version: Version,
}

/// Where to find the resources that there is something special about.
#[derive(Debug, Clone, Default)]
struct Special {
    /// The names of those that go by other names too, by these.
    aliases: OrdMap<Name, Vec<Name>>,
    /// The names of those that live for a time only.
    mortal: OrdSet<Name>,
    /// The names of those that were on their way.
    coming: OrdSet<Name>,
}

/// The resources of every kind.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    kinds: [ResourceSet; Kind::ALL.len()],
    said_version: Option<Arc<str>>,
}

/// The names by which what differs between two snapshots was or is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched([BTreeSet<Name>; Kind::ALL.len()]);

/// What of a snapshot can be followed: whatever goes by a name, or a whole kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic {
    kind: Kind,
    /// The sum of the name: who is told of another one that has the same looks in vain.
    name: Option<u64>,
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
        Self { resources: OrdMap::new(), special: None, version: Version::EMPTY }
    }
}

impl ResourceSet {
    /// The resource called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// The resource called `name`, or that goes by it among other names.
    pub fn find(&self, name: &str) -> Option<&Arc<Resource>> {
        self.get(name).or_else(|| self.get(self.special.as_ref()?.aliases.get(name)?.first()?))
    }

    /// The resources that an xdstp glob stands for, by name.
    pub fn under<'a>(&'a self, glob: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        let (start, _) = xdstp::around(glob);
        let from = self.resources.range::<_, str>((Bound::Included(start), Bound::Unbounded));
        let begin = from.map(|(_, resource)| resource).take_while(move |resource| resource.name().starts_with(start));
        begin.filter(move |resource| xdstp::stands_for(glob, resource.name()))
    }

    /// The resources that `name` stands for: the one that goes by it, or all that an xdstp glob stands for.
    pub fn called<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        let below = xdstp::is_glob(name).then(|| self.under(name));
        self.find(name).into_iter().chain(below.into_iter().flatten())
    }

    /// The resources that live for a time only, by name.
    pub fn mortal(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let names = self.special.iter().flat_map(|special| special.mortal.iter());
        names.filter_map(|name| self.get(name))
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
            let held = Arc::clone(held);
            self.version = self.version.without(held.version());
            self.forget_special(&held);
        }
        self.version = self.version.with(resource.version());
        if is_special(&resource) || self.is_coming(resource.name()) {
            Arc::make_mut(self.special.get_or_insert_default()).put(&resource);
        }
        self.resources.insert(resource.name().clone(), resource);
        true
    }

    /// Says that a resource called `name` is on its way, so that nobody is told that there is none.
    pub fn expect(&mut self, name: Name) {
        Arc::make_mut(self.special.get_or_insert_default()).coming.insert(name);
    }

    /// Whether there is none called `name`, but one is on its way.
    pub fn is_coming(&self, name: &str) -> bool {
        self.special.as_ref().is_some_and(|special| special.coming.contains(name)) && self.get(name).is_none()
    }

    /// Whether both are the same allocation.
    fn is(&self, other: &Self) -> bool {
        self.resources.ptr_eq(&other.resources)
    }

    /// Removes a resource; says whether that changed anything.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(held) = self.resources.remove(name) else { return false };
        self.version = self.version.without(held.version());
        self.forget_special(&held);
        true
    }

    fn forget_special(&mut self, held: &Resource) {
        if let Some(special) = self.special.as_mut().filter(|_| is_special(held)) {
            Arc::make_mut(special).remove(held);
        }
        let is_empty =
            |special: &Special| special.aliases.is_empty() && special.mortal.is_empty() && special.coming.is_empty();
        if self.special.as_deref().is_some_and(is_empty) {
            self.special = None;
        }
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

    /// The names by which the changes are found, in this set or in the newer one.
    fn touched(&self, newer: &Self) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        if self.version == newer.version {
            return names;
        }
        for change in self.changes_to(newer) {
            let name = match &change {
                Change::Put(resource) => resource.name(),
                Change::Removed(name) => name,
            };
            let forms = [self.get(name), newer.get(name)].into_iter().flatten();
            names.extend(forms.flat_map(|resource| resource.aliases()).cloned());
            names.insert(Name::clone(name));
        }
        names
    }
}

impl FromIterator<Arc<Resource>> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        let mut set = Self::default();
        resources.into_iter().for_each(|resource| _ = set.put(resource));
        set
    }
}

// === impl Topic ===

impl Topic {
    /// Whatever goes by this name, or is below it.
    pub fn named(kind: Kind, name: &str) -> Self {
        let mut sum = DefaultHasher::new();
        name.hash(&mut sum);
        Self { kind, name: Some(sum.finish()) }
    }

    /// Every resource of this kind.
    pub fn all(kind: Kind) -> Self {
        Self { kind, name: None }
    }
}

// === impl Touched ===

impl Touched {
    /// What concerns those who follow it: the names, the globs that stand for them, and the kinds.
    pub fn topics(&self) -> impl Iterator<Item = Topic> {
        let kinds = Kind::ALL.into_iter().zip(&self.0).filter(|(_, names)| !names.is_empty());
        kinds.flat_map(|(kind, names)| {
            let named = names.iter().flat_map(move |name| {
                let globs = xdstp::globs_over(name).map(move |glob| Topic::named(kind, &glob));
                std::iter::once(Topic::named(kind, name)).chain(globs)
            });
            std::iter::once(Topic::all(kind)).chain(named)
        })
    }

    /// How many there are, of every kind.
    pub fn len(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeSet::is_empty)
    }
}

// === impl Special ===

impl Special {
    fn put(&mut self, resource: &Resource) {
        self.coming.remove(resource.name());
        if resource.ttl().is_some() {
            self.mortal.insert(Name::clone(resource.name()));
        }
        for alias in resource.aliases() {
            let names = self.aliases.entry(Name::clone(alias)).or_default();
            if let Err(at) = names.binary_search(resource.name()) {
                names.insert(at, Name::clone(resource.name()));
            }
        }
    }

    fn remove(&mut self, resource: &Resource) {
        self.mortal.remove(resource.name());
        for alias in resource.aliases() {
            let left = self.aliases.get_mut(alias).is_some_and(|names| {
                names.retain(|name| name != resource.name());
                !names.is_empty()
            });
            if !left {
                self.aliases.remove(alias);
            }
        }
    }
}

fn is_special(resource: &Resource) -> bool {
    resource.ttl().is_some() || !resource.aliases().is_empty()
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

    /// How many resources there are, of every kind.
    pub fn len(&self) -> usize {
        self.kinds.iter().map(ResourceSet::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kinds.iter().all(ResourceSet::is_empty)
    }

    /// What `newer` has otherwise, by name.
    pub fn touched(&self, newer: &Self) -> Touched {
        Touched(std::array::from_fn(|kind| self.kinds[kind].touched(&newer.kinds[kind])))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn resource(name: &str, content: &str) -> Resource {
        Resource::from_bytes(Kind::VirtualHost, name.into(), content.as_bytes(), [].into())
    }

    #[test]
    fn a_resource_is_found_by_every_name_that_it_goes_by_and_by_no_former_one() {
        let mut set = ResourceSet::default();
        let found = |set: &ResourceSet, name: &str| set.find(name).map(|resource| resource.name().to_string());
        set.put(Arc::new(resource("b", "1").aliased(["x".into(), "y".into()])));
        set.put(Arc::new(resource("a", "1").aliased(["x".into()])));
        assert_eq!(
            ["a", "x", "y"].map(|name| found(&set, name)),
            [Some("a".into()), Some("a".into()), Some("b".into())]
        );
        set.remove("a");
        assert_eq!(found(&set, "x"), Some("b".into()));
        set.put(Arc::new(resource("b", "1").aliased(["x".into(), "z".into()]).living(Duration::from_secs(1))));
        assert_eq!(["y", "z"].map(|name| found(&set, name)), [None, Some("b".into())]);
        assert_eq!(set.mortal().map(|resource| resource.name().to_string()).collect::<Vec<_>>(), ["b"]);
        set.put(Arc::new(resource("b", "1")));
        assert!(set.mortal().next().is_none() && set.special.is_none());
    }

    #[test]
    fn a_glob_finds_what_is_below_it() {
        let mut set = ResourceSet::default();
        for name in
            ["xdstp://a/T/x", "xdstp://a/T/x/1", "xdstp://a/T/x/1/2", "xdstp://a/T/x/3?b=1&a=1", "xdstp://a/T/y/1"]
        {
            set.put(Arc::new(resource(name, "1")));
        }
        let under = |glob: &str| set.under(glob).map(|resource| resource.name().to_string()).collect::<Vec<_>>();
        assert_eq!(under("xdstp://a/T/x/*"), ["xdstp://a/T/x/1", "xdstp://a/T/x/1/2"]);
        assert_eq!(under("xdstp://a/T/x/*?a=1&b=1"), ["xdstp://a/T/x/3?a=1&b=1"]);
        assert_eq!(under("xdstp://a/T/z/*"), [""; 0]);
    }
}
