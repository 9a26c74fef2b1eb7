//! A connection that opens with a handshake and ends with the credential that was shown in it.
//!
//! Owns: opening and closing, and nothing else of the bytes that pass. May use: tokio's I/O, tonic's view of a peer.
//! Never: decides who a peer is or when a credential has ended; it is given futures that do.
//!
//! Whoever reads or writes drives the handshake: each runs in the task of its connection, so that many share the cores.
//!
//! Ending the streams is not enough: a proxy opens the next one on the connection that it has, whose certificate
//! is still the old one, and would never look at the credential that was put in its place.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{IdentityError, ProxyCredential};

/// A TLS connection from a proxy.
pub struct Connection {
    peer: Peer,
    /// The handshake, until it is over.
    opening: Option<BoxFuture<'static, io::Result<Open>>>,
    /// What came of it.
    open: Option<Open>,
}

/// A connection after its handshake.
pub(super) struct Open {
    pub(super) stream: TlsStream<TcpStream>,
    /// Ready when the connection is to end: from then on it reads as closed by the peer.
    pub(super) ended: BoxFuture<'static, ()>,
}

/// Who is at the other end of a connection. It is among the extensions of every request that comes on a guarded
/// connection, and only there: only the guard makes one.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    /// Empty until the handshake is over.
    credential: Arc<OnceLock<Result<ProxyCredential, IdentityError>>>,
}

// === impl Connection ===

impl Connection {
    /// The connection of `peer`, which opens with `opening`.
    pub(super) fn new(peer: Peer, opening: BoxFuture<'static, io::Result<Open>>) -> Self {
        Self { peer, opening: Some(opening), open: None }
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Open>> {
        if let Some(opening) = &mut self.opening {
            let opened = ready!(opening.poll_unpin(context));
            self.opening = None;
            self.open = Some(opened?);
        }
        Poll::Ready(self.open.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

// === impl Peer ===

impl Peer {
    /// Whoever comes from `address`, and has shown nothing yet.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { address, credential: Arc::default() }
    }

    /// Enters what its certificate says; what was entered first stays.
    pub(super) fn showed(&self, credential: Result<ProxyCredential, IdentityError>) {
        self.credential.get_or_init(|| credential);
    }

    /// The credential that it showed, as it was when the connection opened.
    pub(super) fn credential(&self) -> Result<&ProxyCredential, IdentityError> {
        self.credential.get().ok_or(IdentityError::Missing)?.as_ref().map_err(IdentityError::clone)
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let open = ready!(self.poll_open(context))?;
        if open.ended.poll_unpin(context).is_ready() {
            open.ended = std::future::ready(()).boxed();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut open.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut ready!(self.poll_open(context))?.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut ready!(self.poll_open(context))?.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut ready!(self.poll_open(context))?.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut ready!(self.poll_open(context))?.stream).poll_shutdown(context)
    }
}
