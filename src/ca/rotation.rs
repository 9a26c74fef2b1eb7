//! Rotation: every wanted identity has a leaf, renewed at half of its life.
//!
//! Owns: which leaf a workload holds and when the next one is due. May use: `ca::authority`, `ca::leaf`,
//! `ca::store`. Never: decides which identities there are, or publishes what has not changed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How long the task sleeps at most: the wall clock may be set, or the machine suspended, meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The identities that are to have a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The identity of each workload.
    pub identities: BTreeMap<QualifiedName, SpiffeId>,
    /// How long a leaf is valid.
    pub leaf_ttl: Duration,
}

/// The certificates that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate of each workload.
    pub certificates: BTreeMap<QualifiedName, Issuance>,
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
}

/// The task that issues and renews.
pub struct Issuer {
    authority: Arc<Authority>,
    store: LeafStore,
    clock: Clock,
    trust_bundle: Arc<Resource>,
    held: BTreeMap<QualifiedName, Held>,
    retry: Option<Retry>,
}

struct Held {
    ttl: Duration,
    issuance: Issuance,
}

/// When what failed is tried again.
#[derive(Clone, Copy)]
struct Retry {
    pause: Duration,
    at: SystemTime,
}

// === impl Issued ===

impl Issued {
    /// No certificate yet; what the channel holds before the issuer runs.
    pub fn none(authority: &Authority) -> Self {
        let trust_bundle = Arc::new(secret::trust_bundle(authority.certificate_pem()));
        Self { certificates: BTreeMap::new(), trust_bundle }
    }
}

// === impl Issuer ===

impl Issuer {
    /// An issuer for `authority` that keeps its leaves in the data directory `data_dir`.
    pub fn new(authority: Arc<Authority>, data_dir: &Path, clock: Clock) -> Self {
        let store = LeafStore::new(data_dir, &authority);
        let trust_bundle = Issued::none(&authority).trust_bundle;
        Self { authority, store, clock, trust_bundle, held: BTreeMap::new(), retry: None }
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
                let new = self.issued();
                let changed = **current != new;
                if changed {
                    *current = Arc::new(new);
                }
                changed
            });
            tokio::select! {
                () = tokio::time::sleep(self.until_next()) => {}
                changed = wanted.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    fn issued(&self) -> Issued {
        let certificates = self.held.iter().map(|(workload, held)| (workload.clone(), held.issuance.clone())).collect();
        Issued { certificates, trust_bundle: Arc::clone(&self.trust_bundle) }
    }

    /// Brings what is held in line with what is wanted.
    fn step(&mut self, wanted: &Wanted) {
        self.forget_all_but(wanted);
        let now = self.clock.now();
        let mut failed = None;
        for (workload, identity) in &wanted.identities {
            if self.held.get(workload).is_some_and(|held| held.serves(identity, wanted.leaf_ttl, now)) {
                continue;
            }
            match self.restore_or_issue(workload, identity, wanted.leaf_ttl, now) {
                Ok(held) => drop(self.held.insert(workload.clone(), held)),
                Err(error) => {
                    self.drop_unless_valid(workload, identity, now);
                    failed = Some(error);
                }
            }
        }
        self.retry = failed.map(|error| {
            let retry = Retry::after(self.retry, now);
            warn!(error = &error as &dyn std::error::Error, pause = ?retry.pause, "certificates were not issued");
            retry
        });
    }

    fn restore_or_issue(
        &self,
        workload: &QualifiedName,
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Held, IssueError> {
        // Only what this process does not hold yet can be on disk and still be of use.
        let restored = if self.held.contains_key(workload) { None } else { self.store.load(workload, now) };
        if let Some(held) = restored.map(Held::new).filter(|held| held.serves(identity, ttl, now)) {
            return Ok(held);
        }
        let leaf = leaf::issue(&self.authority, Profile::Workload(identity), ttl, now)?;
        let life = leaf.not_after.duration_since(now).unwrap_or_default();
        let renew_at = now + life.mul_f64(0.5 * rand::rng().random_range(0.9..=1.1));
        let stored = Stored { identity: identity.clone(), ttl, renew_at, leaf };
        if let Err(error) = self.store.save(workload, &stored) {
            warn!(%workload, %error, "the certificate could not be kept; a restart will issue another");
        }
        info!(%workload, %identity, serial = stored.leaf.serial, "certificate issued");
        Ok(Held::new(stored))
    }

    /// A leaf that could not be replaced is kept while it is still of use.
    fn drop_unless_valid(&mut self, workload: &QualifiedName, identity: &SpiffeId, now: SystemTime) {
        if self
            .held
            .get(workload)
            .is_some_and(|held| held.issuance.identity != *identity || held.issuance.not_after <= now)
        {
            self.held.remove(workload);
        }
    }

    fn forget_all_but(&mut self, wanted: &Wanted) {
        let gone: Vec<_> = self.held.keys().filter(|held| !wanted.identities.contains_key(*held)).cloned().collect();
        for workload in gone {
            self.held.remove(&workload);
            if let Err(error) = self.store.remove(&workload) {
                warn!(%workload, %error, "the certificate could not be removed");
            }
        }
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let renewals = self.held.values().map(|held| held.issuance.renew_at);
        let next = match self.retry {
            // What is overdue is what failed: it waits for the retry.
            Some(retry) => renewals.filter(|at| *at > now).chain([retry.at]).min(),
            None => renewals.min(),
        };
        next.map_or(LONGEST_SLEEP, |at| at.duration_since(now).unwrap_or_default()).min(LONGEST_SLEEP)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("authority", &self.authority).field("certificates", &self.held.len()).finish()
    }
}

// === impl Held ===

impl Held {
    fn new(stored: Stored) -> Self {
        let leaf = stored.leaf;
        let secret = Arc::new(secret::certificate(secret::IDENTITY, &leaf.chain_pem, &leaf.key_pem));
        let issuance = Issuance {
            secret,
            identity: stored.identity,
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            renew_at: stored.renew_at,
        };
        Self { ttl: stored.ttl, issuance }
    }

    /// Whether this is what a workload with `identity` is to hold at `now`.
    fn serves(&self, identity: &SpiffeId, ttl: Duration, now: SystemTime) -> bool {
        let issuance = &self.issuance;
        issuance.identity == *identity && self.ttl == ttl && issuance.not_before <= now && now < issuance.renew_at
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
