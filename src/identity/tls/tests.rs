//! The listener with real clients.

use axum::Router;
use axum::extract::{Request, State};
use futures::StreamExt;
use futures::stream::BoxStream;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tonic::transport::server::Connected;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tower::ServiceExt;

use super::*;
use crate::ca::Authorities;
use crate::identity::revocation::{RevocationList, Scope};
use crate::identity::{Identities, credential};

const HOUR: Duration = Duration::from_secs(3600);

type Arrivals = BoxStream<'static, io::Result<Arrival>>;

/// A gRPC server behind the listener that answers every call with who the caller is.
struct Running {
    data: TempDir,
    authorities: Authorities,
    identities: Arc<Identities>,
    address: std::net::SocketAddr,
    server: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(|identities, arrivals| identities.guard(arrivals)).await
    }

    /// Behind connections that are made of arrivals like this.
    #[expect(clippy::disallowed_methods, reason = "the server under test runs beside the test")]
    async fn start_with<S, C>(connections: impl FnOnce(Arc<Identities>, Arrivals) -> S) -> Self
    where
        S: Stream<Item = io::Result<C>> + Send + 'static,
        C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let data = tempfile::tempdir().expect("a directory");
        let authorities = Authorities::open_or_create(data.path()).expect("created");
        let control = Arc::new(Authorities::open_or_create(data.path()).expect("opened").control);
        let certificate = ServerCertificate::issue(Arc::clone(&control), &[], Clock::System).expect("issued");
        let identities = Arc::new(Identities::open(&control, data.path(), Clock::System).expect("opened"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let arrivals = incoming(listener, server_config(&control, certificate)).boxed();
        let incoming = connections(Arc::clone(&identities), arrivals);
        let who = |State(identities): State<Arc<Identities>>, request: Request| async move {
            match identities.verify(request.extensions()) {
                Ok(it) => format!("{} {}", it.workload.map_or("-".into(), |name| name.to_string()), it.node_id),
                Err(error) => format!("refused: {error}"),
            }
        };
        let routes = tonic::service::Routes::from(Router::new().fallback(who).with_state(Arc::clone(&identities)));
        let server = tokio::spawn(async move {
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.expect("serves");
        });
        Self { data, authorities, identities, address, server }
    }

    fn credential(&self, issued_at: SystemTime, ttl: Duration, scope: Option<Scope>) -> Identity {
        let list = RevocationList::new(self.data.path()).lock().expect("locked");
        let workload = "shop/cart".parse().expect("a name");
        let node = "cart-1".parse().expect("an id");
        let subject = list.subject(Some(workload), node, issued_at, scope.as_ref());
        let issued = credential::issue(&self.authorities.control, &subject, ttl, issued_at).expect("issued");
        if let Some(scope) = scope {
            list.revoke_before(scope, &subject).expect("revoked");
        }
        Identity::from_pem(issued.chain_pem, issued.key_pem)
    }

    /// What the server answers on a new connection; `None` if it accepts none.
    async fn ask(&self, identity: Option<Identity>) -> Option<String> {
        let root = Certificate::from_pem(self.authorities.control.certificate_pem());
        let mut tls = ClientTlsConfig::new().ca_certificate(root).domain_name(SERVER_NAME);
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).expect("a URI");
        let channel: Channel = endpoint.tls_config(tls).expect("a configuration").connect().await.ok()?;
        let request = http::Request::post(format!("https://{}/who", self.address))
            .body(tonic::body::Body::empty())
            .expect("a request");
        let response = channel.oneshot(request).await.ok()?;
        let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1000).await.ok()?;
        Some(String::from_utf8_lossy(&body).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn a_peer_is_who_its_credential_says() {
    let running = Running::start().await;
    let now = SystemTime::now();
    let valid = running.credential(now, HOUR, None);
    assert_eq!(running.ask(Some(valid.clone())).await.as_deref(), Some("shop/cart cart-1"));
    let without = running.ask(None).await;
    let expected = "refused: no client certificate: connect with the credential that `chancery bootstrap` issues";
    assert_eq!(without.as_deref(), Some(expected));

    // Neither an identity of the mesh nor an expired credential gets through the handshake.
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an id");
    let leaf = leaf::issue(&running.authorities.mesh, Profile::Workload(&id), HOUR, now).expect("issued");
    assert_eq!(running.ask(Some(Identity::from_pem(leaf.chain_pem, leaf.key_pem))).await, None);
    assert_eq!(running.ask(Some(running.credential(now - HOUR / 20, HOUR / 60, None))).await, None);

    // A revoked one is told so, once the list is read.
    let scope = Scope::Workload("shop/cart".parse().expect("a name"));
    let next = running.credential(SystemTime::now(), HOUR, Some(scope));
    let stop = CancellationToken::new();
    let read = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stop.cancel();
    };
    let (watched, ()) = tokio::join!(Arc::clone(&running.identities).watch(stop.clone()), read);
    watched.expect("no error");
    let expected = "refused: the credential was revoked: use the one that was issued last";
    assert_eq!(running.ask(Some(valid)).await.as_deref(), Some(expected));
    assert_eq!(running.ask(Some(next)).await.as_deref(), Some("shop/cart cart-1"));
}

#[tokio::test]
async fn no_other_listener_lets_anyone_in() {
    // The same handshake with the same certificate, but nobody guards the connection.
    let unguarded = |_, arrivals: Arrivals| {
        arrivals.then(|arrival| async {
            match arrival {
                Ok(arrival) => arrival.handshake.await,
                Err(error) => Err(error),
            }
        })
    };
    let running = Running::start_with(unguarded).await;
    let valid = running.credential(SystemTime::now(), HOUR, None);
    let expected = "refused: no client certificate: connect with the credential that `chancery bootstrap` issues";
    assert_eq!(running.ask(Some(valid)).await.as_deref(), Some(expected));
}

#[tokio::test]
async fn idle_connections_delay_nobody() {
    let running = Running::start().await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(running.address).await.expect("connected"));
    }
    let valid = running.credential(SystemTime::now(), HOUR, None);
    let asked = tokio::time::timeout(Duration::from_secs(2), running.ask(Some(valid))).await;
    assert_eq!(asked.expect("in time").as_deref(), Some("shop/cart cart-1"));
}

#[tokio::test(start_paused = true)]
async fn the_server_certificate_is_renewed_at_half_of_its_life() {
    let data = tempfile::tempdir().expect("a directory");
    let control = Arc::new(Authorities::open_or_create(data.path()).expect("created").control);
    let clock = Clock::starting_at(SystemTime::now());
    let certificate = ServerCertificate::issue(control, &["10.0.0.1".to_owned()], clock).expect("issued");
    let shown = || CertificateDer::from(certificate.current.load().key.cert.first().expect("one").to_vec());
    let first = shown();
    let stop = CancellationToken::new();
    let story = async {
        tokio::time::sleep(SERVER_TTL / 2 - HOUR).await;
        assert_eq!(shown(), first);
        tokio::time::sleep(2 * HOUR).await;
        assert_ne!(shown(), first);
        stop.cancel();
    };
    let (renewed, ()) = tokio::join!(Arc::clone(&certificate).renew(stop.clone()), story);
    renewed.expect("no error");
}
