//! Fleet: the load: thousands of clients in one thread.
//!
//! Owns: connections and streams over HTTP/2, what each asks for and accepts. May use: h2, rustls. Never: decodes a
//! resource, or gives a server more than one request for each response.

mod stream;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Fault};
use super::catalogue::Catalogue;
use super::wire::{CLUSTERS, ENDPOINTS, LISTENERS, Protocol, ROUTES};

/// How much a client lets a server send unread, on a stream and on a connection: as Envoy does.
const WINDOW: u32 = 256 << 20;
/// The same for a client that is going to stall.
const SMALL_WINDOW: u32 = 65_535;
/// How many connections are being opened at once.
const OPENING: usize = 128;

/// A type that every client subscribes to.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The type.
    pub type_url: &'static str,
    /// The names; none for all that there are.
    pub names: Vec<String>,
    /// How many resources a client then has.
    pub expected: usize,
    /// Names and versions that the client says it has already.
    pub held: Vec<(String, String)>,
}

/// The clients.
#[derive(Clone)]
pub struct FleetSpec {
    /// The server.
    pub address: SocketAddr,
    /// How many clients, each one stream.
    pub clients: usize,
    /// How many connections they share.
    pub connections: usize,
    /// What they speak.
    pub protocol: Protocol,
    /// What they ask for, in this order.
    pub subscriptions: Vec<Subscription>,
    /// Their node ids.
    pub node: fn(usize) -> String,
    /// For each client how it connects; without, by plaintext.
    pub tls: Option<Arc<Vec<Arc<rustls::ClientConfig>>>>,
    /// The load assignments.
    pub catalogue: Arc<Catalogue>,
    /// Whether the server may send what a client has already.
    pub whole_type: bool,
    /// The first so many connections stop reading when told to.
    pub stalling: usize,
}

/// Running clients. They end when the value is dropped.
pub struct Fleet {
    board: Arc<Board>,
    clients: usize,
    stalled: watch::Sender<bool>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    first: Arc<std::sync::Mutex<Vec<(String, String)>>>,
    cold: Vec<u32>,
}

// === impl Subscription ===

impl Subscription {
    /// All load assignments.
    pub fn endpoints(catalogue: &Catalogue) -> Self {
        let names = catalogue.names();
        Self { type_url: ENDPOINTS, expected: names.len(), names, held: Vec::new() }
    }

    /// Everything that a proxy has which calls these services.
    pub fn whole(catalogue: &Catalogue) -> Vec<Self> {
        let services = catalogue.len();
        let of = Self::endpoints(catalogue);
        let routes = Self { type_url: ROUTES, ..of.clone() };
        vec![Self::all(CLUSTERS, services), of, Self::all(LISTENERS, services), routes]
    }

    /// Everything of a type, of which there are so many.
    pub fn all(type_url: &'static str, expected: usize) -> Self {
        Self { type_url, names: Vec::new(), expected, held: Vec::new() }
    }
}

/// What every stream shares.
struct Shared {
    spec: FleetSpec,
    /// By subscription what a request says of it.
    requests: Vec<Bytes>,
    /// By subscription what an acceptance says of it.
    acceptances: Vec<Bytes>,
    board: Arc<Board>,
    stalled: watch::Receiver<bool>,
    opening: Semaphore,
    started: Instant,
    first: Arc<std::sync::Mutex<Vec<(String, String)>>>,
}

// === impl Fleet ===

impl Fleet {
    /// Connects the clients and waits until each has everything that it asked for.
    pub async fn connect(spec: FleetSpec, within: Duration) -> anyhow::Result<Self> {
        let board = Arc::new(Board::new(Arc::clone(&spec.catalogue), spec.whole_type));
        let (stalled, stop, first) = (watch::Sender::new(false), CancellationToken::new(), Arc::default());
        let clients = spec.clients;
        let protocol = spec.protocol;
        let repeated = |s: &Subscription| match protocol {
            Protocol::Sotw => s.names.clone(),
            Protocol::Delta => Vec::new(),
        };
        let shared = Shared {
            requests: spec.subscriptions.iter().map(|s| protocol.subscription(s.type_url, &s.names, &s.held)).collect(),
            acceptances: spec
                .subscriptions
                .iter()
                .map(|s| protocol.subscription(s.type_url, &repeated(s), &[]))
                .collect(),
            spec,
            board: Arc::clone(&board),
            stalled: stalled.subscribe(),
            opening: Semaphore::new(OPENING),
            started: Instant::now(),
            first: Arc::clone(&first),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        let run = move || {
            runtime.block_on(async {
                tokio::select! { () = run(&shared) => {}, () = stopped.cancelled() => {} }
            })
        };
        let thread = std::thread::Builder::new().name("fleet".into()).spawn(run).context("a thread for the clients")?;
        let mut fleet = Self { board, clients, stalled, stop, thread: Some(thread), first, cold: Vec::new() };
        fleet.cold = fleet.board.all_complete(clients, within).await?;
        Ok(fleet)
    }

    /// What they have received.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// How many there are.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// How long it took from the start until each client had everything, in microseconds, sorted.
    pub fn cold(&self) -> &[u32] {
        &self.cold
    }

    /// The names and versions that the first client was sent before it had everything.
    pub fn versions(&self) -> Vec<(String, String)> {
        self.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Has the clients that can stall stop reading, or read again.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.board.close();
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It has no result; if it panicked it has said so.
            _ = thread.join();
        }
    }
}

async fn run(shared: &Shared) {
    let spec = &shared.spec;
    let connections = spec.connections.clamp(1, spec.clients);
    let mut open: FuturesUnordered<_> = (0..connections)
        .map(|connection| async move {
            let clients: Vec<usize> = (connection..spec.clients).step_by(connections).collect();
            let first = clients[0];
            if let Err(fault) = connect(shared, connection, clients).await {
                shared.board.fault(first, &fault);
            }
        })
        .collect();
    while open.next().await.is_some() {}
}

async fn connect(shared: &Shared, connection: usize, clients: Vec<usize>) -> Result<(), Fault> {
    let ended = |error: std::io::Error| Fault::Ended(error.to_string());
    let permit = shared.opening.acquire().await.map_err(|_| Fault::Ended("the bench ends".into()))?;
    let tcp = TcpStream::connect(shared.spec.address).await.map_err(ended)?;
    tcp.set_nodelay(true).map_err(ended)?;
    match &shared.spec.tls {
        None => {
            drop(permit);
            drive(shared, tcp, connection, clients).await
        }
        Some(configs) => {
            let name = ServerName::try_from("chancery").expect("a DNS name");
            let config = configs.get(clients[0]).ok_or_else(|| Fault::Ended("it has no certificate".into()))?;
            let config = Arc::clone(config);
            let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(ended)?;
            drop(permit);
            drive(shared, tls, connection, clients).await
        }
    }
}

/// Runs a connection and its streams until one of them ends.
async fn drive(
    shared: &Shared,
    io: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    clients: Vec<usize>,
) -> Result<(), Fault> {
    let stalling = connection < shared.spec.stalling;
    let window = if stalling { SMALL_WINDOW } else { WINDOW };
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(if stalling { window } else { WINDOW * 4 })
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|error| Fault::Ended(error.to_string()))?;
    let mut connection = pin!(connection);
    let mut streams: FuturesUnordered<_> =
        clients.into_iter().map(|client| stream::run(shared, client, requests.clone())).collect();
    drop(requests);
    let mut work = pin!(std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            let reason = ended.err().map_or_else(|| "the connection was closed".to_owned(), |error| error.to_string());
            return Poll::Ready(Err(Fault::Ended(reason)));
        }
        // A stream that has ended has said so; the others go on.
        while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
        Poll::Pending
    }));
    if !stalling {
        return work.await;
    }
    let mut stalled = shared.stalled.clone();
    loop {
        if *stalled.borrow_and_update() {
            if stalled.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        tokio::select! {
            biased;
            changed = stalled.changed() => if changed.is_err() { return Ok(()) },
            ended = work.as_mut() => return ended,
        }
    }
}
