//! Materials: the certificates that gateways show.
//!
//! Owns: reading and issuing them, until when each is good, and whose proxies get which. May use: `translate`, `ca`,
//! `clock`, their types. Never: gives one to a workload whose gateways do not name it, or lets a private key into a log, a
//! finding or a `Debug`.
//!
//! Files are read again every moment: what has changed and is good takes the place of what was there before, and what is
//! not good leaves that in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use translators::mesh::{Certificate, CertificateSource, Mesh, Seen, Shown, Workload};
use translators::name::QualifiedName;
use translators::resource::Resource;
use translators::xds::secret;

use crate::ca::leaf::{self, Profile};
use crate::ca::{Authority, Leaf};
use crate::clock::Clock;
use crate::translate::Translation;

mod look;

/// How often files are read again.
const REREAD: Duration = Duration::from_secs(2);
/// How long nothing is looked at, if there is nothing to do.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How long after a failure something is issued again.
const RETRY: Duration = Duration::from_secs(10);

/// What there is, and who gets it.
#[derive(Debug, Clone, Default)]
pub struct Materials {
    /// The secrets, by name.
    pub secrets: OrdMap<String, Arc<Resource>>,
    /// The names of those that the proxies of a workload get.
    pub of: OrdMap<QualifiedName, Arc<BTreeSet<String>>>,
    /// What was found where each comes from.
    pub seen: Arc<BTreeMap<String, Seen>>,
}

/// What is wanted under one name.
struct Kept {
    certificate: Arc<Certificate>,
    /// How many workloads get it.
    users: usize,
    /// The digest of what was read last.
    sum: Option<Vec<u8>>,
    /// When it is to be looked at again, where that does not follow from files.
    due: Option<SystemTime>,
}

/// The one who holds them.
pub struct Keeper {
    authority: Arc<Authority>,
    clock: Clock,
    leaf_ttl: Option<Duration>,
    workloads: OrdMap<QualifiedName, Arc<Workload>>,
    ttl: Duration,
    kept: BTreeMap<String, Kept>,
    materials: Materials,
}

/// What was found of the certificates that `mesh` names, once; what the authority of the mesh is to issue is not.
pub fn seen(mesh: &Mesh, now: SystemTime) -> BTreeMap<String, Seen> {
    let edges = mesh.workloads.values().flat_map(|workload| &workload.edges);
    let certificates = edges.flat_map(|edge| edge.certificates());
    let each = certificates.filter_map(|certificate| {
        let read = look::read(&certificate.source)?;
        let shown = read.and_then(|read| look::checked(&read, now));
        Some((certificate.secret(), shown.map_or_else(|bad| bad, Seen::Good)))
    });
    each.collect()
}

// === impl Keeper ===

impl Keeper {
    /// A keeper who has `authority` issue what is to be issued; `leaf_ttl` goes before what the Mesh says.
    pub fn new(authority: Arc<Authority>, leaf_ttl: Option<Duration>, clock: Clock) -> Self {
        Self {
            authority,
            clock,
            leaf_ttl,
            workloads: OrdMap::new(),
            ttl: Duration::ZERO,
            kept: BTreeMap::new(),
            materials: Materials::default(),
        }
    }

    /// Keeps `materials` at what the rules in force name, until stopped.
    pub async fn run(
        mut self,
        mut translation: watch::Receiver<Option<Translation>>,
        materials: watch::Sender<Arc<Materials>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let rules = translation.borrow_and_update().as_ref().map(|translation| Arc::clone(&translation.rules));
            if let Some(rules) = rules {
                let (kept, changed) = tokio::task::spawn_blocking(move || {
                    let changed = self.follow(&rules.mesh) | self.look();
                    (self, changed)
                })
                .await?;
                self = kept;
                if changed {
                    materials.send_replace(Arc::new(self.materials.clone()));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.until_next()) => {}
                changed = translation.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Takes up what workloads get now; says whether that is something else.
    fn follow(&mut self, mesh: &Mesh) -> bool {
        let ttl = self.leaf_ttl.unwrap_or(mesh.leaf_ttl.value);
        if ttl != self.ttl {
            self.ttl = ttl;
            // What was issued for another time is issued anew.
            let is_issued = |kept: &&mut Kept| matches!(kept.certificate.source, CertificateSource::Issued(_));
            let issued = self.kept.values_mut().filter(is_issued);
            issued.for_each(|kept| kept.due = Some(SystemTime::UNIX_EPOCH));
        }
        let former = std::mem::replace(&mut self.workloads, mesh.workloads.clone());
        let mut changed = false;
        for change in former.diff(&mesh.workloads) {
            let (name, old, new) = match change {
                DiffItem::Add(name, new) => (name, None, Some(new)),
                DiffItem::Update { old: (_, old), new: (name, new) } => (name, Some(old), Some(new)),
                DiffItem::Remove(name, old) => (name, Some(old), None),
            };
            let edges = |workload: Option<&Arc<Workload>>| workload.map(|of| of.edges.clone()).unwrap_or_default();
            let (old, new) = (edges(old), edges(new));
            if old == new {
                continue;
            }
            let certificates = new.iter().flat_map(|edge| edge.certificates());
            let wanted: BTreeMap<String, &Arc<Certificate>> =
                certificates.map(|certificate| (certificate.secret(), certificate)).collect();
            let held = self.materials.of.get(name).cloned().unwrap_or_default();
            let names: BTreeSet<String> = wanted.keys().cloned().collect();
            for (name, certificate) in wanted {
                self.want(name, certificate, &held);
            }
            for name in held.difference(&names) {
                self.release(name);
            }
            if names.is_empty() {
                self.materials.of.remove(name);
            } else {
                self.materials.of.insert(name.clone(), Arc::new(names));
            }
            changed = true;
        }
        changed
    }

    /// One workload gets `name`, if it is not among what it `held`.
    fn want(&mut self, name: String, certificate: &Arc<Certificate>, held: &BTreeSet<String>) {
        let is_new = usize::from(!held.contains(&name));
        let certificate = || Arc::clone(certificate);
        let kept = self.kept.entry(name).or_insert_with(|| Kept {
            certificate: certificate(),
            users: 0,
            sum: None,
            due: None,
        });
        kept.users += is_new;
        if kept.certificate.source != certificate().source {
            (kept.sum, kept.due) = (None, None);
        }
        kept.certificate = certificate();
    }

    /// One workload gets `name` no longer.
    fn release(&mut self, name: &str) {
        let Some(kept) = self.kept.get_mut(name) else { return };
        kept.users -= 1;
        if kept.users == 0 {
            self.kept.remove(name);
            self.materials.secrets.remove(name);
            Arc::make_mut(&mut self.materials.seen).remove(name);
        }
    }

    /// Looks at what may have changed; says whether anything has.
    fn look(&mut self) -> bool {
        let now = self.clock.now();
        let mut changed = false;
        for (name, kept) in &mut self.kept {
            let Some((secret, seen)) = kept.look(name, &self.authority, self.ttl, now) else { continue };
            if let Some(secret) = secret {
                self.materials.secrets.insert(name.clone(), Arc::new(secret));
                changed = true;
            }
            if self.materials.seen.get(name) != Some(&seen) {
                match &seen {
                    Seen::Bad { reason, .. } => warn!(secret = name, reason, "not good, what was there before stays"),
                    Seen::Good(_) => info!(secret = name, "good"),
                }
                Arc::make_mut(&mut self.materials.seen).insert(name.clone(), seen);
                changed = true;
            }
        }
        changed
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let due = self.kept.values().filter_map(|kept| kept.due).min();
        let due = due.map(|due| due.duration_since(now).unwrap_or_default());
        let is_file = |kept: &Kept| matches!(kept.certificate.source, CertificateSource::File { .. });
        let files = self.kept.values().any(is_file).then_some(REREAD);
        due.into_iter().chain(files).chain([LONGEST_SLEEP]).min().unwrap_or(LONGEST_SLEEP)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

// === impl Kept ===

impl Kept {
    /// What there is to say of it, with the secret where that is another one than before.
    fn look(
        &mut self,
        name: &str,
        authority: &Authority,
        ttl: Duration,
        now: SystemTime,
    ) -> Option<(Option<Resource>, Seen)> {
        if let CertificateSource::Issued(names) = &self.certificate.source {
            if self.due.is_some_and(|due| now < due) {
                return None;
            }
            let names: Vec<String> = names.iter().cloned().collect();
            let (due, found) = match leaf::issue(authority, Profile::Server(&names), ttl, now) {
                Ok(Leaf { chain_pem, key_pem, serial, not_after, .. }) => {
                    info!(secret = name, serial, "certificate of a gateway issued");
                    let shown = Shown { names: names.into_iter().collect(), ending: None };
                    let secret = secret::certificate(name, &chain_pem, &key_pem);
                    let life = not_after.duration_since(now).unwrap_or_default();
                    (now + life / 2, (Some(secret), Seen::Good(shown)))
                }
                Err(error) => (now + RETRY, (None, Seen::Bad { member: "", reason: error.to_string() })),
            };
            self.due = Some(due);
            return Some(found);
        }
        let read = match look::read(&self.certificate.source)? {
            Ok(read) => read,
            Err(bad) => {
                self.sum = None;
                return Some((None, bad));
            }
        };
        // Its time may have come though it stayed the same.
        let found = match look::checked(&read, now) {
            Ok(shown) if self.sum.as_ref() == Some(&read.sum) => (None, Seen::Good(shown)),
            Ok(shown) => (Some(secret::certificate(name, &read.chain, &read.key)), Seen::Good(shown)),
            Err(bad) => (None, bad),
        };
        self.sum = Some(read.sum);
        Some(found)
    }
}
