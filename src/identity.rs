//! Identity: who a proxy is.
//!
//! Owns: the credentials of proxies, their revocation, and the TLS listener that takes them. May use: `ca`,
//! `clock`, `durable`, rustls. Never: knows xDS, or lets a peer in whose credential it cannot check.

pub mod connection;
pub mod credential;
pub mod node;
pub mod revocation;
pub mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use futures::{Stream, TryStreamExt};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::ca::Authority;
use crate::clock::Clock;
use connection::{Connection, Open, Peer};
use tls::Arrival;

pub use credential::{Credential, CredentialError, ProxyCredential};
pub use node::{InvalidNodeId, NodeId};
pub use revocation::{RevocationError, RevocationList, Revocations};

const POLL: Duration = Duration::from_secs(1);
/// How long a connection whose credential has ended stays open, so that its streams can say why they end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a connection without a credential stays open: long enough to be told that it needs one.
const STRANGER: Duration = Duration::from_secs(30);

/// Decides who a peer is. One for the process; streams share it.
pub struct Identities {
    verifier: Arc<dyn ClientCertVerifier>,
    list: RevocationList,
    revocations: watch::Sender<Arc<Revocations>>,
    clock: Clock,
}

/// Why a peer is nobody.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// It showed no certificate.
    #[error("no client certificate: connect with the credential that `chancery bootstrap` issues")]
    Missing,
    /// Its certificate is not of the control plane's authority, or not for a client.
    #[error("the client certificate is not a credential that this control plane issued")]
    Untrusted(#[source] rustls::Error),
    /// Its certificate names no proxy.
    #[error("the client certificate names no proxy")]
    Malformed(#[source] CredentialError),
    /// The time of its certificate is over, or has not come.
    #[error("the credential is not valid at this time: issue another with `chancery bootstrap`, and check both clocks")]
    Expired,
    /// Its certificate was withdrawn.
    #[error("the credential was revoked: use the one that was issued last")]
    Revoked,
}

// === impl Identities ===

impl Identities {
    /// Takes credentials of the authority `control` that the list in the data directory `data_dir` does not
    /// revoke. Fails on a list that cannot be read.
    pub fn open(control: &Authority, data_dir: &Path, clock: Clock) -> Result<Self, RevocationError> {
        let list = RevocationList::new(data_dir);
        let revocations = watch::Sender::new(Arc::new(list.read()?));
        Ok(Self { verifier: client_verifier(control), list, revocations, clock })
    }

    /// The credential of the peer whose request carries `extensions`.
    ///
    /// The [`guard`](Self::guard) has checked the certificate when the connection opened, and its word is taken:
    /// a request that carries none came by another listener, and is nobody's. Whether the credential is still in
    /// force is asked each time, so that no connection older than its end lets anyone in.
    pub fn verify(&self, extensions: &http::Extensions) -> Result<ProxyCredential, IdentityError> {
        let credential = extensions.get::<Peer>().ok_or(IdentityError::Missing)?.credential()?;
        self.in_force(credential).cloned()
    }

    /// The credential in `chain`, the certificates that a peer showed.
    pub fn verify_chain(&self, chain: &[CertificateDer<'static>]) -> Result<ProxyCredential, IdentityError> {
        let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::Missing)?;
        let now = self.clock.now();
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| IdentityError::Expired)?;
        let checked = self.verifier.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since_epoch));
        checked.map_err(IdentityError::from_tls)?;
        let credential = credential::read(leaf).map_err(IdentityError::Malformed)?;
        self.in_force(&credential)?;
        Ok(credential)
    }

    fn in_force<'a>(&self, credential: &'a ProxyCredential) -> Result<&'a ProxyCredential, IdentityError> {
        self.refusal(credential, &self.revocations.borrow()).map_or(Ok(credential), Err)
    }

    /// Waits until `credential` is no longer one: a stream that it opened ends then.
    pub async fn ended(&self, credential: &ProxyCredential) -> IdentityError {
        let mut revocations = self.revocations.subscribe();
        loop {
            if let Some(refusal) = self.refusal(credential, &revocations.borrow_and_update()) {
                return refusal;
            }
            // The wall clock may be set meanwhile, hence no sleep until the very end.
            let left = credential.not_after.duration_since(self.clock.now()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(left.min(Duration::from_secs(60))) => {}
                // The sender is in `self`: this never fails while we are here.
                _ = revocations.changed() => {}
            }
        }
    }

    /// The connections of `incoming`, each of which ends with the credential that opened it. The certificate is
    /// checked here once; every request of the connection carries what came of it, for [`verify`](Self::verify).
    pub fn guard<S>(self: Arc<Self>, incoming: S) -> impl Stream<Item = io::Result<Connection>> + Send
    where
        S: Stream<Item = io::Result<Arrival>> + Send,
    {
        incoming.map_ok(move |Arrival { address, handshake }| {
            let identities = Arc::clone(&self);
            let peer = Peer::at(address);
            let found = peer.clone();
            let opening = async move {
                let stream = handshake.await?;
                let shown = identities.verify_chain(stream.get_ref().1.peer_certificates().unwrap_or_default());
                found.showed(shown);
                let ended = async move {
                    match found.credential() {
                        Ok(credential) => {
                            identities.ended(credential).await;
                            tokio::time::sleep(LAST_WORDS).await;
                        }
                        Err(_stranger) => tokio::time::sleep(STRANGER).await,
                    }
                };
                Ok(Open { stream, ended: Box::pin(ended) })
            };
            Connection::new(peer, Box::pin(opening))
        })
    }

    /// Reads the list of revocations anew whenever it has changed, until stopped.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut last_problem = String::new();
        while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
            // There is none before the first revocation; later a list that is gone is no empty list.
            let nothing_yet = **self.revocations.borrow() == Revocations::default();
            match if nothing_yet { self.list.read() } else { self.list.read_present() } {
                Ok(list) => {
                    last_problem.clear();
                    self.revocations.send_if_modified(|current| {
                        let changed = **current != list;
                        if changed {
                            info!("revocations read");
                            *current = Arc::new(list);
                        }
                        changed
                    });
                }
                Err(problem) => {
                    let text = problem.to_string();
                    if text != last_problem {
                        error!(
                            error = &problem as &dyn std::error::Error,
                            "the last list of revocations stays in force"
                        );
                        last_problem = text;
                    }
                }
            }
        }
        Ok(())
    }

    fn refusal(&self, credential: &ProxyCredential, revocations: &Revocations) -> Option<IdentityError> {
        if credential.not_after <= self.clock.now() {
            Some(IdentityError::Expired)
        } else if revocations.revoke(credential) {
            Some(IdentityError::Revoked)
        } else {
            None
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("list", &self.list).field("clock", &self.clock).finish_non_exhaustive()
    }
}

// === impl IdentityError ===

impl IdentityError {
    fn from_tls(error: rustls::Error) -> Self {
        use CertificateError as Cause;
        match error {
            rustls::Error::InvalidCertificate(
                Cause::Expired | Cause::ExpiredContext { .. } | Cause::NotValidYet | Cause::NotValidYetContext { .. },
            ) => Self::Expired,
            error => Self::Untrusted(error),
        }
    }
}

/// Checks client certificates of `control`; a peer that shows none passes, to be told why it gets nothing.
fn client_verifier(control: &Authority) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(control.certificate().clone()).expect("an opened authority holds a certificate that parses");
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .expect("there is one root and no revocation list")
}

#[cfg(test)]
mod tests;
