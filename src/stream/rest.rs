//! Polling over plain HTTP, with JSON: `POST /v3/discovery:clusters` and its like.
//!
//! Owns: what is answered to which request, and with which status. May use: [`Poll`]. Never: looks into a resource;
//! its JSON is made in [`texts`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tonic::{Code, Status};

use super::fetch::{PATIENCE, body_of};
use super::frame::{Chunks, too_much_unknown};
use super::lobby::{Guest, Lobby};
use super::methods;
use super::poll::Poll;
use super::request::Request;
use super::service::{Directory, Shared};
use super::session::Protocol;

pub(super) mod request;
pub(super) mod texts;

/// What a request is not answered for.
struct Failure {
    status: StatusCode,
    text: String,
}

/// The answer to a request.
pub(super) async fn answer<D, B>(shared: Arc<Shared<D>>, request: http::Request<B>) -> Response<tonic::body::Body>
where
    D: Directory,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let pulse = request.extensions().get().cloned().unwrap_or_default();
    let (status, kind, text) = match poll(&shared, request).await {
        Ok(Some(text)) => (StatusCode::OK, "application/json", text),
        Ok(None) => (StatusCode::NOT_MODIFIED, "", Bytes::new()),
        Err(Failure { status, text }) => (status, "text/plain; charset=utf-8", (text + "\n").into()),
    };
    let length = text.len();
    let mut response = Response::new(body_of(Chunks::new(text, Vec::new()), None, pulse));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The text of the answer; `None` if the client holds all of it.
async fn poll<D, B>(shared: &Arc<Shared<D>>, request: http::Request<B>) -> Result<Option<Bytes>, Failure>
where
    D: Directory,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let Some(kind) = methods::polled(parts.uri.path()) else {
        return Err(Failure::new(StatusCode::NOT_FOUND, "there is nothing at this path"));
    };
    if parts.method != Method::POST {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "a discovery request is a POST"));
    }
    let lobby = parts.extensions.get::<Lobby>().cloned().unwrap_or_default();
    let text = read(body, lobby.guest(), shared.limits.request_bytes).await?;
    let message = request::read(&text)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, format!("this is no DiscoveryRequest: {error}")))?;
    // The path says what is asked for, whatever the text does.
    let request =
        Request { type_url: kind.type_url(), ..Request::read(Protocol::Sotw, &message).map_err(Status::from)? };
    let mut poll = Poll::admit(shared, &parts.extensions, kind, "rest", &request).await?;
    let Some(said) = poll.news(&request, shared.limits.poll).await? else { return Ok(None) };
    Ok(Some(shared.texts.of(&poll).text(kind, said).await?))
}

/// The whole of a body, whose sender is not known yet.
async fn read<B>(body: B, mut guest: Guest, most: usize) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(Limited::new(body, most));
    let read = async {
        let mut text = BytesMut::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame?.into_data().unwrap_or_default());
            if !guest.holds(text.len(), most) {
                return Ok(Err(Failure::from(too_much_unknown())));
            }
        }
        Ok(Ok(text.freeze()))
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(read)) => read,
        Ok(Err::<_, Box<dyn std::error::Error + Send + Sync>>(error)) if error.is::<LengthLimitError>() => {
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request has at most {most} bytes")))
        }
        Ok(Err(error)) => Err(Failure::new(StatusCode::BAD_REQUEST, format!("the request does not come: {error}"))),
        Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "the request does not come")),
    }
}

// === impl Failure ===

impl Failure {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::new(status_code(status.code()), status.message())
    }
}

/// What plain HTTP says where gRPC says `code`.
pub fn status_code(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
