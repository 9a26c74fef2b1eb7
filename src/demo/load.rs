//! Load: web's application, a steady stream of requests to the cart, and what became of them.
//!
//! Owns: the requests and their counts. May use: `pace`, an HTTP client, towards web's own Envoy only.
//! Never: has more requests under way than it has workers, or counts what it has not seen itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::demo::cart::Answer;
use crate::pace::pace;

/// How many requests may be under way at once.
pub(super) const WORKERS: u32 = 8;
/// How long a request may take before it has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between requests while the mesh starts.
const PROBE: Duration = Duration::from_millis(20);

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    /// Requests that count.
    pub(super) requests: u64,
    /// Those of them that did not succeed.
    pub(super) failed: u64,
    /// Those of them that succeeded, by the version that answered.
    pub(super) by_version: BTreeMap<String, u64>,
    /// Everything that a version answered, well or not, with what does not count: what the proxies have seen.
    pub(super) answered: BTreeMap<String, u64>,
    /// Requests since the mesh was up that no version has answered, or not yet: a proxy of the cart may have seen
    /// them and refused them itself.
    pub(super) unanswered: u64,
    /// When the first request succeeded.
    pub(super) first_success: Option<Instant>,
    /// The last failure.
    pub(super) last_failure: Option<String>,
}

/// The load loop. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Load {
    client: reqwest::Client,
    url: String,
    counts: Arc<Mutex<Counts>>,
    /// Cancelled when nobody's requests are passed on any more.
    closed: CancellationToken,
}

/// How one request ended: the version that answered, if one did.
#[derive(Debug)]
struct Outcome {
    version: Option<String>,
    failure: Option<String>,
}

// === impl Load ===

impl Load {
    /// The load on the cart that web's Envoy offers at `address`.
    pub(super) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("no http client")?;
        Ok(Self {
            client,
            url: format!("http://{address}/cart"),
            counts: Arc::default(),
            closed: CancellationToken::new(),
        })
    }

    /// What became of the requests so far.
    pub(super) fn counts(&self) -> Counts {
        self.with(|counts| counts.clone())
    }

    /// Tries until every one of `versions` has answered. Nothing of this counts as a request: until then the
    /// mesh is being started.
    pub(super) async fn warm_up(&self, versions: &[&str]) {
        let mut waiting: Vec<&str> = versions.to_vec();
        while !waiting.is_empty() {
            let outcome = self.ask().await;
            self.with(|counts| counts.enter_trial(&outcome));
            match outcome {
                Outcome { version: Some(version), failure: None } => waiting.retain(|waiting| **waiting != version),
                Outcome { .. } => tokio::time::sleep(PROBE).await,
            }
        }
    }

    /// Sends `rate` requests a second until `stop` is cancelled; those under way are waited for.
    pub(super) async fn run(&self, rate: u32, stop: CancellationToken) {
        let ask = || async {
            self.ask_and_enter(Counts::enter).await;
        };
        pace(rate, WORKERS, stop, ask).await;
    }

    /// From now on requests of others are refused, so that the counts come to rest.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// What web serves itself: `GET /` asks the cart once. What is asked by hand is no request of the load loop,
    /// but the proxies see it.
    pub(super) fn router(self) -> Router {
        Router::new().route("/", get(relay)).with_state(self)
    }

    /// A proxy may see a request whose outcome nobody waits for: it is entered before it is sent.
    async fn ask_and_enter(&self, enter: fn(&mut Counts, &Outcome)) -> Outcome {
        self.with(|counts| counts.unanswered += 1);
        let outcome = self.ask().await;
        self.with(|counts| {
            counts.unanswered -= u64::from(outcome.version.is_some());
            enter(counts, &outcome);
        });
        outcome
    }

    async fn ask(&self) -> Outcome {
        let response = match self.client.get(&self.url).send().await {
            Ok(response) => response,
            Err(error) => return Outcome { version: None, failure: Some(format!("{:#}", anyhow::Error::from(error))) },
        };
        let status = response.status();
        let body = response.text().await;
        let answer: Option<Answer> = body.as_ref().ok().and_then(|body| serde_json::from_str(body).ok());
        let failure = (!status.is_success() || answer.is_none()).then(|| {
            let said = body.unwrap_or_else(|error| error.to_string());
            format!("{status}: {}", said.trim())
        });
        Outcome { version: answer.map(|answer| answer.version), failure }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn relay(State(load): State<Load>) -> (StatusCode, String) {
    if load.closed.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the demo is ending\n".to_owned());
    }
    match load.ask_and_enter(Counts::enter_trial).await {
        Outcome { failure: Some(failure), .. } => (StatusCode::BAD_GATEWAY, format!("{failure}\n")),
        Outcome { version, failure: None } => (StatusCode::OK, format!("cart {}\n", version.unwrap_or_default())),
    }
}

// === impl Counts ===

impl Counts {
    /// The requests that succeeded.
    pub(super) fn succeeded(&self) -> u64 {
        self.requests - self.failed
    }

    fn enter(&mut self, outcome: &Outcome) {
        self.enter_trial(outcome);
        self.requests += 1;
        match (&outcome.version, &outcome.failure) {
            (Some(version), None) => *self.by_version.entry(version.clone()).or_default() += 1,
            (_, _) => self.failed += 1,
        }
    }

    fn enter_trial(&mut self, outcome: &Outcome) {
        if let Some(version) = &outcome.version {
            *self.answered.entry(version.clone()).or_default() += 1;
        }
        match &outcome.failure {
            Some(failure) => self.last_failure = Some(failure.clone()),
            None => _ = self.first_success.get_or_insert_with(Instant::now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::net::TcpListener;

    use super::*;
    use crate::demo::http;
    use crate::task::Tasks;

    /// Refuses the first two requests; then v1 and v2 take turns, and every tenth answer is a failure of v2.
    async fn turns(State(asked): State<Arc<AtomicU32>>) -> (StatusCode, String) {
        let turn = asked.fetch_add(1, Ordering::Relaxed);
        let version = if turn % 2 == 0 { "v1" } else { "v2" };
        let answer = format!(r#"{{"version": "{version}", "store": "apples: in stock"}}"#);
        match turn {
            0 | 1 => (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream".to_owned()),
            turn if turn % 10 == 9 => (StatusCode::BAD_GATEWAY, answer),
            _ => (StatusCode::OK, answer),
        }
    }

    #[tokio::test]
    async fn requests_are_paced_and_counted_from_when_every_version_has_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let load = Load::new(listener.local_addr().expect("it is bound")).expect("a client");
        let asked = Arc::new(AtomicU32::new(0));
        let router = Router::new().route("/cart", get(turns)).with_state(asked.clone());
        let mut tasks = Tasks::default();
        let stop = tasks.stop_token();
        tasks.spawn("server", http::serve(listener, router, stop));
        let session = async {
            load.warm_up(&["v1", "v2"]).await;
            let warm = load.counts();
            let answered = BTreeMap::from([("v1".to_owned(), 1), ("v2".to_owned(), 1)]);
            assert_eq!((warm.requests, warm.failed, warm.answered, warm.unanswered), (0, 0, answered, 0));
            assert_eq!(warm.last_failure.as_deref(), Some("503 Service Unavailable: no healthy upstream"));
            assert!(warm.first_success.is_some());

            let stop = CancellationToken::new();
            let start = Instant::now();
            tokio::join!(load.run(400, stop.clone()), async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                stop.cancel();
            });
            let (counts, asked) = (load.counts(), asked.load(Ordering::Relaxed));
            let failed = u64::from((4..asked).filter(|turn| turn % 10 == 9).count() as u32);
            let of = |turns: &mut dyn Iterator<Item = u32>| u64::from(turns.count() as u32);
            assert_eq!(counts.requests, u64::from(asked) - 4);
            assert_eq!(counts.failed, failed);
            assert_eq!(
                counts.by_version,
                BTreeMap::from([
                    ("v1".to_owned(), of(&mut (4..asked).filter(|turn| turn % 2 == 0))),
                    ("v2".to_owned(), of(&mut (4..asked).filter(|turn| turn % 2 == 1 && turn % 10 != 9))),
                ])
            );
            assert_eq!(counts.answered.values().sum::<u64>(), u64::from(asked) - 2);
            let due = (start.elapsed().as_secs_f64() * 400.0).ceil() as u64;
            assert!(counts.requests <= due + u64::from(WORKERS), "{} requests, {due} due", counts.requests);
            assert!(counts.requests > 20, "{} requests, {due} due", counts.requests);
        };
        tasks.run(session, Duration::from_secs(5)).await.expect("the server serves until the end");
    }

    /// Does not answer the first request; v1 answers the others.
    async fn slow(State(asked): State<Arc<AtomicU32>>) -> String {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        r#"{"version": "v1", "store": "apples: in stock"}"#.to_owned()
    }

    #[tokio::test]
    async fn requests_of_others_are_counted_even_if_nobody_waits_for_them_until_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let load = Load::new(listener.local_addr().expect("it is bound")).expect("a client");
        let mut tasks = Tasks::default();
        let stop = tasks.stop_token();
        let asked = Arc::new(AtomicU32::new(0));
        let router = Router::new().route("/cart", get(slow)).with_state(asked.clone());
        tasks.spawn("server", http::serve(listener, router, stop));
        let session = async {
            let abandon = async {
                while asked.load(Ordering::Relaxed) == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { _ = relay(State(load.clone())) => panic!("nothing answers"), () = abandon => {} }
            assert_eq!(relay(State(load.clone())).await, (StatusCode::OK, "cart v1\n".to_owned()));
            load.close();
            let refused = (StatusCode::SERVICE_UNAVAILABLE, "the demo is ending\n".to_owned());
            assert_eq!(relay(State(load.clone())).await, refused);
            let counts = load.counts();
            assert_eq!((counts.requests, counts.unanswered), (0, 1));
            assert_eq!(counts.answered, BTreeMap::from([("v1".to_owned(), 1)]));
        };
        tasks.run(session, Duration::from_secs(5)).await.expect("the server serves until the end");
    }
}
