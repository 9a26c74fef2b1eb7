//! The unary methods: one request, one response.
//!
//! Owns: reading the one and writing the other as gRPC. May use: [`Poll`], the framing. Never: waits for a change: who
//! fetches is answered what there is.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::StreamBody;
use prost::Message;
use tonic::Status;
use translators::resource::Kind;

use super::frame::{self, Chunks, Messages};
use super::lobby::Lobby;
use super::poll::Poll;
use super::pulse::Pulse;
use super::request::Request;
use super::service::{Directory, Shared};
use super::session::Protocol;

/// A request has to be there in this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The body of the answer to a request for resources of `kind`.
pub(super) async fn answer<D, B>(
    shared: Arc<Shared<D>>,
    kind: Kind,
    request: http::Request<B>,
) -> Result<tonic::body::Body, Status>
where
    D: Directory,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let lobby = parts.extensions.get::<Lobby>().cloned().unwrap_or_default();
    let mut messages = Messages::new(body, shared.limits.request_bytes).of(lobby.guest());
    let message = tokio::time::timeout(PATIENCE, poll_fn(|context| messages.poll_next(context))).await;
    let message = message.map_err(|_| Status::deadline_exceeded("the request does not come"))??;
    let message = message.ok_or_else(|| Status::invalid_argument("there is no request"))?;
    let request = Request::read(Protocol::Sotw, &message)?;
    let poll = Poll::admit(&shared, &parts.extensions, kind, "fetch", &request).await?;
    let said = poll.now(&request)?;
    let more = said.entries.iter().map(Bytes::len).sum();
    let head = frame::head(&said.head.encode_to_vec(), more);
    let end = frame::of_status(&Status::new(tonic::Code::Ok, ""));
    Ok(body_of(Chunks::new(head, said.entries), Some(end), parts.extensions.get().cloned().unwrap_or_default()))
}

/// A body of these chunks, and of trailers if there are any.
pub(super) fn body_of(chunks: Chunks, trailers: Option<http_body::Frame<Bytes>>, pulse: Pulse) -> tonic::body::Body {
    let frames = chunks.map(http_body::Frame::data).chain(trailers).map(move |frame| {
        pulse.asked();
        if frame.is_data() {
            pulse.gave();
        }
        Ok::<_, Status>(frame)
    });
    tonic::body::Body::new(StreamBody::new(futures::stream::iter(frames)))
}
