//! The floor of the HTTP stack: what fan-out costs at least where each stream is a response body of its own.
//!
//! Owns: that. May use: tonic's server, which is hyper's. Never: looks at what a client says.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::{Body, Frame};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::{CONNECTION_WINDOW, Frames, WINDOW, protocol_of};

/// Answers every request with the state, and then with every change.
#[derive(Clone)]
struct Service {
    state: Arc<Frames>,
    changes: broadcast::Sender<Frames>,
}

/// One stream.
struct Answers {
    inbound: tonic::body::Body,
    protocol: usize,
    state: Option<Bytes>,
    changes: BroadcastStream<Frames>,
}

/// Serves the state and its changes until the listener fails.
pub(super) async fn serve(
    listener: TcpListener,
    state: Arc<Frames>,
    changes: broadcast::Sender<Frames>,
) -> anyhow::Result<()> {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(Some(1 << 20));
    Ok(server.serve_with_incoming(Service { state, changes }, incoming).await?)
}

// === impl Service ===

impl tower::Service<http::Request<tonic::body::Body>> for Service {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let protocol = protocol_of(request.uri().path());
        let answers = Answers {
            inbound: request.into_body(),
            protocol,
            state: Some(self.state[protocol].clone()),
            changes: BroadcastStream::new(self.changes.subscribe()),
        };
        let mut response = http::Response::new(tonic::body::Body::new(answers));
        response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
        ready(Ok(response))
    }
}

// === impl Answers ===

impl Body for Answers {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        while let Poll::Ready(said) = Pin::new(&mut self.inbound).poll_frame(context) {
            match said {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
        if let Some(state) = self.state.take() {
            return Poll::Ready(Some(Ok(Frame::data(state))));
        }
        let protocol = self.protocol;
        // A stream that lost a change has lost its state, so it ends.
        let changed = Pin::new(&mut self.changes).poll_next(context);
        changed.map(|frames| Some(Ok(Frame::data(frames?.ok()?[protocol].clone()))))
    }
}
