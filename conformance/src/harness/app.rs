//! App: the applications behind the proxies.
//!
//! Owns: an HTTP echo that says what reached it, and a TCP server that speaks first. May use: axum, tokio. Never:
//! TLS; that is the proxies' business.

use std::collections::BTreeMap;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::{Json, Router};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::server::Grpc;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::background::Background;
use super::https::{Authority, Tls};

/// A running application. It ends when the value is dropped.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    served: Arc<AtomicU64>,
    _serving: Background<()>,
}

/// What the HTTP application answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The version of the application.
    pub version: String,
    /// The method of the request that reached it.
    pub method: String,
    /// The path and query of that request.
    pub path: String,
    /// Its headers; several of one name are joined by `, `.
    pub headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Http {
    version: String,
    served: Arc<AtomicU64>,
}

// === impl App ===

impl App {
    /// An HTTP application that answers every request with an [`Echo`]: with the status 503 where the header `x-fail`
    /// names its version, or the path below `/unwell/` does, and after so many milliseconds as the header `x-wait` says.
    pub async fn http(version: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, served) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let state = Http { version: version.to_owned(), served: served.clone() };
        let router = Router::new().fallback(echo).with_state(state);
        // What ends a server before its time shows in the clients.
        let serving = Background::start(async { _ = axum::serve(listener, router).await });
        Ok(Self { address, served, _serving: serving })
    }

    /// As [`App::http`], by TLS alone, of one version if one is given; `authority` vouches for its `name`.
    pub async fn https(
        authority: &Authority,
        name: &str,
        only: Option<&'static rustls::SupportedProtocolVersion>,
    ) -> anyhow::Result<Self> {
        let served = Arc::new(AtomicU64::new(0));
        let router = Router::new().fallback(echo).with_state(Http { version: name.to_owned(), served: served.clone() });
        Self::by_tls(Tls::bind(authority, name, only).await?, router, served)
    }

    /// As [`App::text`], by TLS alone, anywhere; `authority` vouches for its `name`.
    pub async fn text_by_tls(authority: &Authority, name: &str, text: &str) -> anyhow::Result<Self> {
        let served = Arc::new(AtomicU64::new(0));
        let router = saying(text, &served);
        Self::by_tls(Tls::bind(authority, name, None).await?, router, served)
    }

    fn by_tls(listener: Tls, router: Router, served: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let address = axum::serve::Listener::local_addr(&listener)?;
        let serving = Background::start(async { _ = axum::serve(listener, router).await });
        Ok(Self { address, served, _serving: serving })
    }

    /// An HTTP application at this address that answers every request with `text`.
    pub async fn text(address: SocketAddr, text: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let served = Arc::new(AtomicU64::new(0));
        let router = saying(text, &served);
        let serving = Background::start(async { _ = axum::serve(listener, router).await });
        Ok(Self { address, served, _serving: serving })
    }

    /// An application that serves `router`, by HTTP/1 and by HTTP/2 as gRPC speaks it.
    pub async fn serving(router: Router) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder().accept_http1(true).add_routes(Routes::from(router));
        let server = server.serve_with_incoming(TcpListenerStream::new(listener));
        let serving = Background::start(async { _ = server.await });
        Ok(Self { address, served: Arc::default(), _serving: serving })
    }

    /// A gRPC application that answers every unary call with a `google.protobuf.StringValue`, which holds an [`Echo`].
    pub async fn grpc(version: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, served) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let state = Http { version: version.to_owned(), served: served.clone() };
        let routes = Routes::from(Router::new().fallback(unary).with_state(state));
        let server = Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener));
        let serving = Background::start(async { _ = server.await });
        Ok(Self { address, served, _serving: serving })
    }

    /// A TCP application that writes `banner` as its first line before anybody has said anything, then answers each
    /// line with `banner: line`.
    pub async fn server_first(banner: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, served) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let serving = Background::start(speak(listener, banner.to_owned(), served.clone()));
        Ok(Self { address, served, _serving: serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests, or connections, that have reached it.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// Answers every request with `text`.
fn saying(text: &str, served: &Arc<AtomicU64>) -> Router {
    let (text, served) = (text.to_owned(), Arc::clone(served));
    Router::new().fallback(async move || {
        served.fetch_add(1, Ordering::Relaxed);
        text
    })
}

async fn echo(State(http): State<Http>, method: Method, uri: Uri, headers: HeaderMap) -> (StatusCode, Json<Echo>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let unwell = uri.path().strip_prefix("/unwell/") == Some(&http.version);
    let fails = unwell || text("x-fail") == Some(&http.version);
    let wait = text("x-wait").and_then(|wait| wait.parse().ok());
    let echo = http.echo(&method, &uri, &headers);
    if let Some(wait) = wait {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    (if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, Json(echo))
}

async fn unary(State(http): State<Http>, request: axum::extract::Request) -> axum::response::Response {
    let echo = http.echo(request.method(), request.uri(), request.headers());
    let answer = serde_json::to_string(&echo).expect("an echo is JSON");
    let answer = service_fn(move |_: tonic::Request<String>| ready(Ok(tonic::Response::new(answer.clone()))));
    Grpc::new(ProstCodec::default()).unary(answer, request).await.map(Body::new)
}

// === impl Http ===

impl Http {
    fn echo(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Echo {
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let joined = seen.entry(name.to_string()).or_default();
            *joined = if joined.is_empty() { value.into_owned() } else { format!("{joined}, {value}") };
        }
        Echo { version: self.version.clone(), method: method.to_string(), path: uri.to_string(), headers: seen }
    }
}
async fn speak(listener: TcpListener, banner: String, served: Arc<AtomicU64>) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                served.fetch_add(1, Ordering::Relaxed);
                connections.push(converse(stream, &banner));
            }
            // How a connection ends is its client's business.
            Some(_ended) = connections.next() => {}
        }
    }
}

async fn converse(stream: TcpStream, banner: &str) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    stream.write_all(format!("{banner}\n").as_bytes()).await?;
    stream.flush().await?;
    while stream.read_line(&mut line).await? > 0 {
        stream.write_all(format!("{banner}: {}\n", line.trim()).as_bytes()).await?;
        stream.flush().await?;
        line.clear();
    }
    Ok(())
}

/// The line that comes first over a connection from the local address `from`; none where it is closed.
pub async fn greeting(at: SocketAddr, from: &str) -> anyhow::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse()?)?;
    let mut stream = BufStream::new(socket.connect(at).await?);
    let mut line = String::new();
    // Closed is closed, in whichever way.
    _ = stream.read_line(&mut line).await;
    Ok(line.trim().to_owned())
}
