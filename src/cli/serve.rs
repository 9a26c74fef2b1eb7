//! `chancery serve`: the control plane.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use crate::app::{self, Config};
use crate::cli::duration;
use crate::config;

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
    /// Where proxies connect: ADS over TLS
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
