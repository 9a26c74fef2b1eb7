//! Load: a steady stream of requests while something happens, and what became of each.
//!
//! Owns: the requests and their counts. May use: `chancery::pace`. Never: more under way than its bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chancery::pace::pace;
use tokio_util::sync::CancellationToken;

use super::app::Echo;
use super::background::Background;

/// How many requests may be under way at once.
const BOUND: u32 = 8;
/// How many failures are kept in words.
const KEPT: usize = 10;

/// A running load. It ends when the value is dropped.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Mutex<LoadCounts>>,
    stop: CancellationToken,
    running: Background<()>,
}

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// Requests that were answered with a status of success.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Successes by the version of the application that answered.
    pub by_version: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<String>,
}

// === impl Load ===

impl Load {
    /// Sends `rate` GET requests a second to `url`, with kept-alive connections.
    pub fn start(url: impl Into<String>, rate: u32) -> anyhow::Result<Self> {
        Self::by(reqwest::Client::builder(), url, rate)
    }

    /// The same with a new connection for each request.
    pub fn connecting(url: impl Into<String>, rate: u32) -> anyhow::Result<Self> {
        Self::by(reqwest::Client::builder().pool_max_idle_per_host(0), url, rate)
    }

    fn by(client: reqwest::ClientBuilder, url: impl Into<String>, rate: u32) -> anyhow::Result<Self> {
        let client = client.no_proxy().timeout(Duration::from_secs(10)).build()?;
        let (counts, stop, url) = (Arc::<Mutex<LoadCounts>>::default(), CancellationToken::new(), url.into());
        let (shared, stopped) = (counts.clone(), stop.clone());
        let work = move || {
            let (client, url, shared) = (client.clone(), url.clone(), shared.clone());
            async move {
                let outcome = ask(&client, &url).await;
                shared.lock().unwrap_or_else(PoisonError::into_inner).enter(outcome);
            }
        };
        let running = Background::start(pace(rate, BOUND, stopped, work));
        Ok(Self { counts, stop, running })
    }

    /// What became of the requests so far.
    pub fn counts(&self) -> LoadCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the load, waits for what is under way, and says what became of it all.
    pub async fn stop(self) -> anyhow::Result<LoadCounts> {
        self.stop.cancel();
        self.running.end().await?;
        Ok(self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// One answer: its status and its body.
async fn ask(client: &reqwest::Client, url: &str) -> anyhow::Result<(u16, String)> {
    let answer = client.get(url).send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.context("the body broke off")?))
}

// === impl LoadCounts ===

impl LoadCounts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.ok + self.failed
    }

    /// The share of a version in the successes.
    pub fn share(&self, version: &str) -> f64 {
        let part = self.by_version.get(version).copied().unwrap_or_default();
        if self.ok == 0 { 0.0 } else { part as f64 / self.ok as f64 }
    }

    fn enter(&mut self, outcome: anyhow::Result<(u16, String)>) {
        let failure = match outcome {
            Ok((status, body)) => {
                *self.by_status.entry(status).or_default() += 1;
                if (200..300).contains(&status) {
                    self.ok += 1;
                    let version =
                        serde_json::from_str(&body).map_or_else(|_| "?".to_owned(), |echo: Echo| echo.version);
                    *self.by_version.entry(version).or_default() += 1;
                    return;
                }
                format!("{status}: {}", body.trim())
            }
            Err(error) => format!("{error:#}"),
        };
        self.failed += 1;
        if self.failures.len() < KEPT {
            self.failures.push(failure);
        }
    }
}
