//! Rotation: every wanted identity has a leaf, renewed at half of its life.
//!
//! Owns: which leaf a workload holds and when the next one is due. May use: `ca::authority`, `ca::leaf`,
//! `ca::store`. Never: decides which identities there are, or publishes what has not changed.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use translators::name::{QualifiedName, SpiffeId};
use translators::resource::Resource;
use translators::xds::secret;

use super::authority::Authority;
use super::leaf::{self, IssueError, Profile};
use super::store::{LeafStore, Stored};
use crate::clock::Clock;
use crate::cores;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How long the task sleeps at most: the wall clock may be set, or the machine suspended, meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How much earlier a leaf is renewed along with one that is due, as a share of its life and at most: to wake all who
/// pass certificates on costs far more than a certificate does.
const TOGETHER: (u32, Duration) = (50, Duration::from_secs(1));
/// How many are issued before those that are ready are published.
const BATCH: usize = 256;

/// The identities that are to have a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The identity of each workload.
    pub identities: OrdMap<QualifiedName, SpiffeId>,
    /// How long a leaf is valid.
    pub leaf_ttl: Duration,
}

/// The certificates that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate of each workload.
    pub certificates: OrdMap<QualifiedName, Arc<Issuance>>,
    /// The roots that every workload trusts, as an SDS resource.
    pub trust_bundle: Arc<Resource>,
}

/// The certificate of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// The certificate and its key, as an SDS resource.
    pub secret: Arc<Resource>,
    /// Whom it names.
    pub identity: SpiffeId,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Since when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// When it will be replaced.
    pub renew_at: SystemTime,
    /// How long it was to be valid.
    pub ttl: Duration,
}

/// The task that issues and renews.
pub struct Issuer {
    authority: Arc<Authority>,
    store: LeafStore,
    clock: Clock,
    issued: Issued,
    wanted: Arc<Wanted>,
    /// The moment of every renewal.
    renewals: BTreeSet<(SystemTime, QualifiedName)>,
    /// Those to look at in the next step.
    pending: BTreeSet<QualifiedName>,
    failed: BTreeSet<QualifiedName>,
    /// Issued, and not on disk yet.
    unsaved: Vec<(QualifiedName, Stored)>,
    retry: Option<Retry>,
    last_step: SystemTime,
}

/// A certificate that can be published.
struct Ready {
    issuance: Issuance,
    /// As it is kept on disk, where it is not there yet.
    unsaved: Option<Stored>,
}

/// When what failed is tried again.
#[derive(Clone, Copy)]
struct Retry {
    pause: Duration,
    at: SystemTime,
}

/// By how much a leaf that lives for `life` may be renewed early, to be renewed along with another.
fn together(life: Duration) -> Duration {
    let (share, most) = TOGETHER;
    (life / share).min(most)
}

// === impl Issued ===

impl Issued {
    /// No certificate yet; what the channel holds before the issuer runs.
    pub fn none(authority: &Authority) -> Self {
        let trust_bundle = Arc::new(secret::trust_bundle(authority.certificate_pem()));
        Self { certificates: OrdMap::new(), trust_bundle }
    }
}

// === impl Issuer ===

impl Issuer {
    /// An issuer for `authority` that keeps its leaves in the data directory `data_dir`.
    pub fn new(authority: Arc<Authority>, data_dir: &Path, clock: Clock) -> Self {
        Self {
            store: LeafStore::new(data_dir, &authority),
            issued: Issued::none(&authority),
            authority,
            clock,
            wanted: Arc::default(),
            renewals: BTreeSet::new(),
            pending: BTreeSet::new(),
            failed: BTreeSet::new(),
            unsaved: Vec::new(),
            retry: None,
            last_step: SystemTime::UNIX_EPOCH,
        }
    }

    /// Issues what is wanted and publishes it, until stopped.
    pub async fn run(
        mut self,
        mut wanted: watch::Receiver<Arc<Wanted>>,
        issued: watch::Sender<Arc<Issued>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        if let Err(error) = self.store.sweep(self.clock.now()) {
            warn!(%error, "old certificates could not be removed");
        }
        loop {
            let now_wanted = Arc::clone(&wanted.borrow_and_update());
            // Signing and writing are short, but not for a thousand workloads at once.
            self = tokio::task::spawn_blocking(move || {
                self.step(&now_wanted);
                self
            })
            .await?;
            issued.send_if_modified(|current| {
                let changed = !current.certificates.ptr_eq(&self.issued.certificates);
                if changed {
                    *current = Arc::new(self.issued.clone());
                }
                changed
            });
            if !self.pending.is_empty() && !stop.is_cancelled() {
                continue;
            }
            // What is lost in a crash before this is issued anew; nobody waits for the disk.
            self = tokio::task::spawn_blocking(move || {
                self.save();
                self
            })
            .await?;
            tokio::select! {
                () = tokio::time::sleep(self.until_next()) => {}
                changed = wanted.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    /// Brings what is held in line with what is wanted: all of it, or a batch where there is more to do.
    fn step(&mut self, wanted: &Arc<Wanted>) {
        let now = self.clock.now();
        self.take_note(wanted, now);
        let rest = self.pending.iter().nth(BATCH).cloned().map(|first| self.pending.split_off(&first));
        let batch = std::mem::replace(&mut self.pending, rest.unwrap_or_default());
        let due = |name: QualifiedName| {
            let identity = wanted.identities.get(&name)?.clone();
            let held = self.issued.certificates.get(&name);
            let stays = |held: &Arc<Issuance>| {
                held.serves(&identity, wanted.leaf_ttl, now) && now + together(wanted.leaf_ttl) < held.renew_at
            };
            let serves = held.is_some_and(stays);
            (!serves).then_some((name, identity))
        };
        let due: Vec<(QualifiedName, SpiffeId)> = batch.into_iter().filter_map(due).collect();
        let issued = cores::each(due.iter().collect(), |(name, identity): &(QualifiedName, SpiffeId)| {
            self.restore_or_issue(name, identity, wanted.leaf_ttl, now)
        });
        let mut last_error = None;
        for ((workload, identity), issuance) in due.into_iter().zip(issued) {
            match issuance {
                Ok(Ready { issuance, unsaved }) => {
                    self.unsaved.extend(unsaved.map(|stored| (workload.clone(), stored)));
                    self.hold(workload, issuance);
                }
                Err(error) => {
                    self.drop_unless_valid(&workload, &identity, now);
                    self.failed.insert(workload);
                    last_error = Some(error);
                }
            }
        }
        match last_error {
            Some(error) => {
                let retry = Retry::after(self.retry, now);
                warn!(error = &error as &dyn std::error::Error, pause = ?retry.pause, "certificates were not issued");
                self.retry = Some(retry);
            }
            None if self.failed.is_empty() => self.retry = None,
            None => {}
        }
    }

    /// Whom to look at: what is wanted otherwise than before, what is due, and what failed.
    fn take_note(&mut self, wanted: &Arc<Wanted>, now: SystemTime) {
        let former = std::mem::replace(&mut self.wanted, Arc::clone(wanted));
        for change in former.identities.diff(&wanted.identities) {
            match change {
                DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } => {
                    self.pending.insert(name.clone());
                }
                DiffItem::Remove(name, _) => self.forget(name),
            }
        }
        // Whoever sets the clock back makes certificates that are not valid yet.
        if former.leaf_ttl != wanted.leaf_ttl || now < self.last_step {
            self.pending.extend(wanted.identities.keys().cloned());
        }
        self.last_step = now;
        let until = now + together(wanted.leaf_ttl);
        let due = self.renewals.iter().take_while(|(at, _)| *at <= until).map(|(_, name)| name.clone());
        self.pending.extend(due);
        self.pending.append(&mut self.failed);
    }

    fn hold(&mut self, workload: QualifiedName, issuance: Issuance) {
        self.renewals.insert((issuance.renew_at, workload.clone()));
        let former = self.issued.certificates.insert(workload.clone(), Arc::new(issuance));
        if let Some(former) = former {
            self.renewals.remove(&(former.renew_at, workload));
        }
    }

    fn restore_or_issue(
        &self,
        workload: &QualifiedName,
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Ready, IssueError> {
        // Only what this process does not hold yet can be on disk and still be of use.
        let is_held = self.issued.certificates.contains_key(workload);
        let restored = if is_held { None } else { self.store.load(workload, now) };
        if let Some(issuance) = restored.map(Issuance::new).filter(|issuance| issuance.serves(identity, ttl, now)) {
            return Ok(Ready { issuance, unsaved: None });
        }
        let leaf = leaf::issue(&self.authority, Profile::Workload(identity), ttl, now)?;
        let life = leaf.not_after.duration_since(now).unwrap_or_default();
        let renew_at = now + life.mul_f64(0.5 * rand::rng().random_range(0.9..=1.1));
        let stored = Stored { identity: identity.clone(), ttl, renew_at, leaf };
        info!(%workload, %identity, serial = stored.leaf.serial, "certificate issued");
        Ok(Ready { issuance: Issuance::new(stored.clone()), unsaved: Some(stored) })
    }

    /// Puts on disk what is issued and still wanted.
    fn save(&mut self) {
        let unsaved = std::mem::take(&mut self.unsaved);
        let is_held = |workload: &QualifiedName| self.issued.certificates.contains_key(workload);
        for (workload, stored) in unsaved.iter().filter(|(workload, _)| is_held(workload)) {
            if let Err(error) = self.store.save(workload, stored) {
                warn!(%workload, %error, "the certificate could not be kept; a restart will issue another");
            }
        }
    }

    /// A leaf that could not be replaced is kept while it is still of use.
    fn drop_unless_valid(&mut self, workload: &QualifiedName, identity: &SpiffeId, now: SystemTime) {
        let held = self.issued.certificates.get(workload);
        if held.is_some_and(|held| held.identity != *identity || held.not_after <= now) {
            self.drop_held(workload);
        }
    }

    fn forget(&mut self, workload: &QualifiedName) {
        self.drop_held(workload);
        self.pending.remove(workload);
        self.failed.remove(workload);
        if let Err(error) = self.store.remove(workload) {
            warn!(%workload, %error, "the certificate could not be removed");
        }
    }

    fn drop_held(&mut self, workload: &QualifiedName) {
        if let Some(former) = self.issued.certificates.remove(workload) {
            self.renewals.remove(&(former.renew_at, workload.clone()));
        }
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        // What is overdue is what failed: it waits for the retry.
        let overdue = |at: &SystemTime| self.retry.is_some() && *at <= now;
        let renewal = self.renewals.iter().map(|(at, _)| *at).find(|at| !overdue(at));
        let next = renewal.into_iter().chain(self.retry.map(|retry| retry.at)).min();
        next.map_or(LONGEST_SLEEP, |at| at.duration_since(now).unwrap_or_default()).min(LONGEST_SLEEP)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("authority", &self.authority)
            .field("certificates", &self.issued.certificates.len())
            .finish()
    }
}

// === impl Issuance ===

impl Issuance {
    fn new(stored: Stored) -> Self {
        let leaf = stored.leaf;
        Self {
            secret: Arc::new(secret::certificate(secret::IDENTITY, &leaf.chain_pem, &leaf.key_pem)),
            identity: stored.identity,
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            renew_at: stored.renew_at,
            ttl: stored.ttl,
        }
    }

    /// Whether this is what a workload with `identity` is to hold at `now`.
    fn serves(&self, identity: &SpiffeId, ttl: Duration, now: SystemTime) -> bool {
        self.identity == *identity && self.ttl == ttl && self.not_before <= now && now < self.renew_at
    }
}

// === impl Retry ===

impl Retry {
    /// After twice the last pause, less a random share of it, so that replicas do not move in step.
    fn after(last: Option<Self>, now: SystemTime) -> Self {
        let pause = match last {
            // Woken for something else before the retry was due.
            Some(last) if now < last.at => return last,
            Some(last) => (last.pause * 2).min(LAST_RETRY),
            None => FIRST_RETRY,
        };
        Self { pause, at: now + pause.mul_f64(rand::rng().random_range(0.5..=1.0)) }
    }
}

#[cfg(test)]
mod tests;
