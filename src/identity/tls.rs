//! The TLS listener: connections whose client certificate, if any, is of the control authority.
//!
//! Owns: the control plane's own certificate and its renewal, the TLS settings, and the accept loop. May use:
//! `ca`, tokio-rustls. Never: spawns, drives a handshake, or lets a slow or broken peer delay another.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use futures::stream::{self, Stream};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::client_verifier;
use crate::ca::Authority;
use crate::ca::leaf::{self, IssueError, Leaf, Profile};
use crate::clock::Clock;

pub use translators::xds::bootstrap::SERVER_NAME;

const SERVER_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
const LONGEST_SLEEP: Duration = Duration::from_secs(600);
const FAILED_RENEWAL: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MOST_HANDSHAKES: usize = 4096;
/// How long accepting rests when the process is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control plane's own certificate, renewed in place.
pub struct ServerCertificate {
    control: Arc<Authority>,
    names: Vec<String>,
    clock: Clock,
    current: ArcSwap<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

/// Why there is no server certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificateError {
    /// It was not issued.
    #[error("the control plane's certificate was not issued")]
    Issue(#[from] IssueError),
    /// It was issued, but cannot be used.
    #[error("the control plane's certificate cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// The cryptography of every connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS 1.2 and 1.3 for gRPC and for polling over plain HTTP, with `certificate` as ours. A client certificate must be of `control`; a client
/// without one is let through, so that its requests are answered with a reason. Sessions are not resumed:
/// every connection shows its certificate anew.
pub fn server_config(control: &Authority, certificate: Arc<ServerCertificate>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has both versions")
        .with_client_cert_verifier(client_verifier(control))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// A connection that was accepted.
pub struct Arrival {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Its handshake, driven by whoever polls this.
    pub handshake: BoxFuture<'static, io::Result<TlsStream<TcpStream>>>,
}

/// The connections that come to `listener`, before their handshakes. The stream has no end.
pub fn incoming(listener: TcpListener, config: Arc<ServerConfig>) -> impl Stream<Item = io::Result<Arrival>> + Send {
    let places = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    let incoming = Incoming { listener, acceptor: config.into(), places };
    stream::unfold(incoming, |incoming| async { Some((Ok(incoming.next().await), incoming)) })
}

// === impl ServerCertificate ===

impl ServerCertificate {
    /// Issues a certificate for [`SERVER_NAME`], `localhost` and `names` (host names and addresses).
    pub fn issue(control: Arc<Authority>, names: &[String], clock: Clock) -> Result<Arc<Self>, ServerCertificateError> {
        let mut all: Vec<_> = [SERVER_NAME, "localhost"].map(str::to_owned).into();
        all.extend(names.iter().filter(|name| *name != SERVER_NAME && *name != "localhost").cloned());
        let current = ArcSwap::from_pointee(Current::issue(&control, &all, &clock)?);
        Ok(Arc::new(Self { control, names: all, clock, current }))
    }

    /// Renews the certificate at half of its life, until stopped.
    pub async fn renew(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let now = self.clock.now();
            pause = self.current.load().renew_at.duration_since(now).unwrap_or_default().min(LONGEST_SLEEP);
            if pause > Duration::ZERO {
                continue;
            }
            match Current::issue(&self.control, &self.names, &self.clock) {
                Ok(renewed) => {
                    self.current.store(Arc::new(renewed));
                    info!("the control plane's certificate was renewed");
                }
                Err(error) => {
                    pause = FAILED_RENEWAL;
                    warn!(error = &error as &dyn std::error::Error, ?pause, "the certificate was not renewed");
                }
            }
        }
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

// === impl Current ===

impl Current {
    fn issue(control: &Authority, names: &[String], clock: &Clock) -> Result<Self, ServerCertificateError> {
        let now = clock.now();
        let leaf = leaf::issue(control, Profile::Server(names), SERVER_TTL, now)?;
        let half_life = leaf.not_after.duration_since(now).unwrap_or_default() / 2;
        Ok(Self { key: Arc::new(certified_key(&leaf)?), renew_at: now + half_life })
    }
}

fn certified_key(leaf: &Leaf) -> Result<CertifiedKey, rustls::Error> {
    let unusable = |_| rustls::Error::General("not PEM".into());
    let certificate = CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).map_err(unusable)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).map_err(unusable)?;
    CertifiedKey::from_der(vec![certificate], key, &provider())
}

/// The accept loop, as a value.
struct Incoming {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// One for each handshake that may be under way.
    places: Arc<Semaphore>,
}

// === impl Incoming ===

impl Incoming {
    async fn next(&self) -> Arrival {
        // Nobody closes the semaphore: there is a place once one is free.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((socket, address)) => {
                    let handshake = handshake(self.acceptor.clone(), socket);
                    let handshake = async move {
                        let _place = place;
                        handshake.await
                    };
                    return Arrival { address, handshake: Box::pin(handshake) };
                }
                Err(error) => {
                    warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn handshake(acceptor: TlsAcceptor, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let handshake = async {
        socket.set_nodelay(true)?;
        acceptor.accept(socket).await
    };
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    shaken.unwrap_or_else(|late| Err(late.into())).inspect_err(|error| debug!(%error, "a handshake failed"))
}

#[cfg(test)]
mod tests;
