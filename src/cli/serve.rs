//! `chancery serve`: the control plane.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use translators::rules::scalar::Span;

use crate::app::{self, Config};
use crate::cli::duration;
use crate::config;
use crate::server::{self, Patience};
use crate::stream::Limits;

/// Arguments of `chancery serve`; each is also read from `CHANCERY_*`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Proxies connect with a credential from `chancery bootstrap`, which needs the same data directory.

Examples:
  chancery serve --rules rules/ --data-dir /var/lib/chancery
  chancery serve --rules rules/ --data-dir data/ --xds-address 0.0.0.0:18000 --advertise cp.example.net
  chancery serve --rules rules/ --xds-plaintext-address 127.0.0.1:18001")]
pub struct Args {
    /// The directory of rules: YAML or JSON documents, watched
    #[arg(long, env = "CHANCERY_RULES", value_name = "DIR")]
    rules: PathBuf,
    /// Where keys and state are kept; created if missing
    #[arg(long, env = "CHANCERY_DATA_DIR", value_name = "DIR", default_value = config::DATA_DIR)]
    data_dir: PathBuf,
    /// Where proxies connect, over TLS: discovery by gRPC or by polling over plain HTTP, load reports, metrics, health
    #[arg(long, env = "CHANCERY_XDS_ADDRESS", value_name = "IP:PORT", default_value = config::XDS_ADDRESS)]
    xds_address: SocketAddr,
    /// A second address for proxies whose bootstrap has neither TLS nor a credential: each is believed to be the node
    /// that it says it is, and gets no certificate; loopback only, unless --insecure is said too
    #[arg(long, env = "CHANCERY_XDS_PLAINTEXT_ADDRESS", value_name = "IP:PORT")]
    xds_plaintext_address: Option<SocketAddr>,
    /// Let the plaintext address be another than loopback: whoever reaches it reads the configuration of any node
    #[arg(long, env = "CHANCERY_INSECURE", requires = "xds_plaintext_address")]
    insecure: bool,
    /// Where operators look: health, metrics and the REST API; loopback only
    #[arg(long, env = "CHANCERY_ADMIN_ADDRESS", value_name = "IP:PORT", default_value = config::ADMIN_ADDRESS)]
    admin_address: SocketAddr,
    /// Names or addresses to put into the server's certificate beside `chancery` and `localhost`
    #[arg(long, env = "CHANCERY_ADVERTISE", value_name = "NAME", value_delimiter = ',')]
    advertise: Vec<String>,
    /// How long workload certificates live, instead of what the Mesh says: 10s to 168h
    #[arg(long, env = "CHANCERY_LEAF_TTL", value_name = "DURATION", value_parser = leaf_ttl)]
    leaf_ttl: Option<Duration>,
    /// How long an orderly stop may take
    #[arg(long, env = "CHANCERY_GRACE", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    grace: Duration,
    /// The largest request that a proxy may make, in bytes: one that reconnects names all that it holds
    #[arg(long, env = "CHANCERY_MAX_REQUEST_BYTES", value_name = "BYTES", default_value_t = most_bytes(),
          value_parser = clap::value_parser!(u32).range(65_536..=1_073_741_824))]
    max_request_bytes: u32,
    /// When a stream ends, to be opened again: a tenth earlier or later, so that not all do at once; 0s for never
    #[arg(long, env = "CHANCERY_MAX_STREAM_AGE", value_name = "DURATION", value_parser = span,
          default_value_t = Span(Limits::SERVED.age.unwrap_or_default()))]
    max_stream_age: Span,
    /// How many streams proxies may open in a second; others are told to come again later; 0 for any number
    #[arg(long, env = "CHANCERY_NEW_STREAMS_PER_SECOND", value_name = "NUMBER",
          default_value_t = Limits::SERVED.opened.map_or(0, NonZeroU32::get))]
    new_streams_per_second: u32,
    /// When a proxy is given up that takes nothing of what there is for it
    #[arg(long, env = "CHANCERY_STALLED_AFTER", value_name = "DURATION", value_parser = patience,
          default_value_t = Span(Patience::DEFAULT.stalled))]
    stalled_after: Span,
    /// After how much silence a connection is probed; it is given up a third of that later, without an answer
    #[arg(long, env = "CHANCERY_KEEPALIVE", value_name = "DURATION", value_parser = patience,
          default_value_t = Span(Patience::DEFAULT.probe))]
    keepalive: Span,
    /// How long a poll over plain HTTP waits for a change before it is answered that there is none: less than the
    /// proxy's own request_timeout, which is 1s unless its configuration says otherwise
    #[arg(long, env = "CHANCERY_POLL_WAIT", value_name = "DURATION", value_parser = poll_wait,
          default_value_t = Span(Limits::SERVED.poll))]
    poll_wait: Span,
    /// How often proxies are to report their load
    #[arg(long, env = "CHANCERY_LOAD_REPORT_INTERVAL", value_name = "DURATION",
          value_parser = patience, default_value_t = Span(server::LOAD_INTERVAL))]
    load_report_interval: Span,
    /// How the log is written, to stderr
    #[arg(long, env = "CHANCERY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged, as in `info` or `chancery::stream=debug`
    #[arg(long, env = "CHANCERY_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs the control plane until SIGINT or SIGTERM.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    let age = Some(args.max_stream_age.0).filter(|age| *age > Duration::ZERO);
    app::run(Config {
        rules: args.rules,
        data_dir: args.data_dir,
        xds_address: args.xds_address,
        xds_plaintext_address: args.xds_plaintext_address,
        insecure: args.insecure,
        admin_address: args.admin_address,
        advertise: args.advertise,
        leaf_ttl: args.leaf_ttl,
        grace: args.grace,
        limits: Limits {
            request_bytes: args.max_request_bytes as usize,
            age,
            opened: NonZeroU32::new(args.new_streams_per_second),
            poll: args.poll_wait.0,
        },
        patience: Patience {
            probe: args.keepalive.0,
            answer: args.keepalive.0 / 3,
            stalled: args.stalled_after.0,
            age,
            ..Patience::default()
        },
        load_interval: args.load_report_interval.0,
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

fn leaf_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    match (Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600)).contains(&ttl) {
        true => Ok(ttl),
        false => Err("a certificate lives 10s to 168h".to_owned()),
    }
}

fn most_bytes() -> u32 {
    u32::try_from(Limits::SERVED.request_bytes).unwrap_or(u32::MAX)
}

fn span(text: &str) -> Result<Span, String> {
    duration(text).map(Span)
}

fn patience(text: &str) -> Result<Span, String> {
    within(text, Duration::from_secs(1)..=Duration::from_secs(24 * 3600), "1s to 24h")
}

fn poll_wait(text: &str) -> Result<Span, String> {
    within(text, Duration::ZERO..=Duration::from_secs(30), "0s to 30s")
}

fn within(text: &str, range: RangeInclusive<Duration>, said: &str) -> Result<Span, String> {
    let duration = duration(text)?;
    match range.contains(&duration) {
        true => Ok(Span(duration)),
        false => Err(format!("it is {said}")),
    }
}
