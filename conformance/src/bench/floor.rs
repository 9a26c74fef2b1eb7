//! Floor: what fan-out costs at least: one frame, made once, sent to every stream without a copy.
//!
//! Owns: that, in two forms. May use: h2, tonic's server. Never: looks at what a client says: there are no
//! subscriptions, acceptances, versions or checks, so nothing that keeps a promise can be much cheaper.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::server::SendResponse;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use super::catalogue::Catalogue;
use super::orders::{Order, orders};
use super::wire::{ENDPOINTS, Protocol, put};
use crate::harness::Background;

mod streams;

/// How much a client may send unread on a stream.
const WINDOW: u32 = 16 << 20;
/// The same on a connection: h2 ends one of which more than half of this is unread in small messages, counting 256 bytes
/// for each, and a server that is behind reads many acceptances at once.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// How many changes a connection may be behind.
const BEHIND: usize = 1 << 16;

/// What goes to every stream, by protocol: state of the world, delta.
type Frames = [Bytes; 2];

/// How a floor is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every stream is a response body of its own, as the gRPC services of Chancery and of the naive server are.
    Streams,
    /// One task for a connection hands a change to all of its streams: what no HTTP server does.
    Connections,
}

/// Serves the load assignments of `file`, and changes them as standard input says, until its end.
pub async fn run(file: &Path, form: Form) -> anyhow::Result<()> {
    let catalogue = Arc::new(Catalogue::read_file(file)?);
    let all: Vec<(usize, u32)> = (0..catalogue.len()).map(|index| (index, 0)).collect();
    let state = Arc::new(frames(&catalogue, &all));
    let (change, _) = broadcast::channel(BEHIND);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let serving = async {
        match form {
            Form::Streams => streams::serve(listener, state, change.clone()).await,
            Form::Connections => accept(listener, state, &change).await,
        }
    };
    let obeying = async {
        let mut orders = orders();
        while let Some(Order { index, number }) = orders.next().await.transpose()? {
            // Nobody may be connected.
            _ = change.send(frames(&catalogue, &[(index, number)]));
            println!("ok");
        }
        anyhow::Ok(())
    };
    tokio::select! { served = serving => served, obeyed = obeying => obeyed }
}

/// Serves each connection with one task, until the listener fails.
async fn accept(listener: TcpListener, state: Arc<Frames>, change: &broadcast::Sender<Frames>) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    loop {
        let (tcp, _) = listener.accept().await?;
        let (state, changes) = (Arc::clone(&state), change.subscribe());
        // How a connection ends is its client's business.
        connections.push(Background::start(async move { _ = serve(tcp, state, changes).await }));
    }
}

/// Which of the frames a request gets.
fn protocol_of(path: &str) -> usize {
    usize::from(path == Protocol::Delta.path())
}

/// One gRPC message with these load assignments for each protocol.
fn frames(catalogue: &Catalogue, entries: &[(usize, u32)]) -> Frames {
    [Protocol::Sotw, Protocol::Delta].map(|protocol| {
        let mut message = BytesMut::new();
        put(&mut message, 1, b"1");
        for (index, number) in entries {
            let mut any = BytesMut::new();
            put(&mut any, 1, ENDPOINTS.as_bytes());
            put(&mut any, 2, &catalogue.body(*index, *number));
            if protocol == Protocol::Delta {
                let mut resource = BytesMut::new();
                put(&mut resource, 1, number.to_string().as_bytes());
                put(&mut resource, 2, &any);
                put(&mut resource, 3, catalogue.assignments[*index].name.as_bytes());
                any = resource;
            }
            put(&mut message, 2, &any);
        }
        put(&mut message, 4, ENDPOINTS.as_bytes());
        put(&mut message, 5, b"1");
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("below 4 GiB"));
        frame.extend_from_slice(&message);
        frame.freeze()
    })
}

/// One connection: every change goes to all of its streams.
async fn serve(tcp: TcpStream, state: Arc<Frames>, mut changes: broadcast::Receiver<Frames>) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(1 << 20);
    builder.max_send_buffer_size(1 << 30);
    let mut connection = builder.handshake::<_, Bytes>(tcp).await?;
    let mut streams = Vec::new();
    let mut readers = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let (request, respond) = accepted.context("the client has closed")??;
                let protocol = protocol_of(request.uri().path());
                let stream = begin(respond, state[protocol].clone())?;
                streams.push((protocol, stream));
                readers.push(drain(request.into_body()));
            }
            frames = changes.recv() => {
                let frames = frames?;
                for (protocol, stream) in &mut streams {
                    stream.send_data(frames[*protocol].clone(), false)?;
                }
            }
            Some(()) = readers.next() => {}
        }
    }
}

fn begin(mut respond: SendResponse<Bytes>, state: Bytes) -> anyhow::Result<h2::SendStream<Bytes>> {
    let response = http::Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(state, false)?;
    Ok(stream)
}

/// Throws away what a client says.
async fn drain(mut body: h2::RecvStream) {
    while let Some(Ok(chunk)) = body.data().await {
        if body.flow_control().release_capacity(chunk.len()).is_err() {
            return;
        }
    }
}
