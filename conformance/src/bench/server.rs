//! Servers under test: one way to start, change, measure and end each.
//!
//! Owns: the list of them. May use: `process`, the harness. Never: reaches into a server otherwise than its users do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chancery::ports::Port;
use serde::Serialize;

use super::catalogue::Catalogue;
use super::credentials;
use super::orders::Order;
use super::process::{CpuMeter, Memory, Peer, memory};
use super::rules::{Rules, service_file};
use super::wire::Protocol;
use crate::harness::Chancery;

/// A server under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// An ideal fan-out in which every stream is a response body of its own.
    Floor,
    /// An ideal fan-out in which one task serves a whole connection.
    FloorOfConnections,
    /// Chancery, without TLS.
    Chancery,
    /// Chancery, with mTLS.
    ChanceryTls,
    /// go-control-plane's linear cache.
    GoLinear,
    /// go-control-plane's snapshot cache.
    GoSnapshot,
    /// A straightforward tonic server.
    Naive,
}

/// What all servers of a comparison serve.
#[derive(Debug, Clone)]
pub struct World {
    /// The rules of Chancery.
    pub rules: Rules,
    /// The same load assignments for the others.
    pub catalogue: Arc<Catalogue>,
    /// The same as Go writes them: it puts some members of a message in another order.
    pub go: Arc<Catalogue>,
    /// The file that they read them from.
    pub file: PathBuf,
}

/// A running server. It ends when the value is dropped.
pub struct Server {
    /// Which.
    pub contender: Contender,
    /// Where clients connect.
    pub address: SocketAddr,
    /// How each of its clients connects, if not in plaintext.
    pub tls: Option<Arc<Vec<Arc<rustls::ClientConfig>>>>,
    /// Its memory before the first client.
    pub idle: Memory,
    rules: Rules,
    pid: u32,
    cpu: CpuMeter,
    control: Control,
}

enum Control {
    Peer(Box<Peer>),
    Chancery {
        process: Box<Chancery>,
        /// Nobody else is given it while this runs.
        _plaintext: Port,
    },
}

/// How a server is started.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// What its clients will speak.
    pub protocol: Protocol,
    /// How many clients need a certificate.
    pub clients: usize,
    /// Further arguments of `chancery serve`.
    pub arguments: &'a [&'a str],
}

// === impl Contender ===

impl Contender {
    /// Those that speak both protocols, in the order in which they run.
    pub const ALL_BUT_NAIVE: &[Self] =
        &[Self::Floor, Self::FloorOfConnections, Self::Chancery, Self::GoLinear, Self::GoSnapshot, Self::ChanceryTls];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorOfConnections => "floor-conn",
            Self::Chancery => "chancery",
            Self::ChanceryTls => "chancery-tls",
            Self::GoLinear => "go-linear",
            Self::GoSnapshot => "go-snapshot",
            Self::Naive => "naive",
        }
    }
}

// === impl World ===

impl World {
    /// The bytes that clients of a server have to receive.
    pub fn served_by(&self, contender: Contender) -> Arc<Catalogue> {
        Arc::clone(match contender {
            Contender::GoLinear | Contender::GoSnapshot => &self.go,
            Contender::Floor
            | Contender::FloorOfConnections
            | Contender::Chancery
            | Contender::ChanceryTls
            | Contender::Naive => &self.catalogue,
        })
    }
}

// === impl Server ===

impl Server {
    /// Starts a server that serves `world`.
    pub async fn start(contender: Contender, world: &World, start: Start<'_>, scratch: &Path) -> anyhow::Result<Self> {
        let started = match contender {
            Contender::Chancery | Contender::ChanceryTls => Self::chancery(contender, world.rules, start).await,
            Contender::Floor
            | Contender::FloorOfConnections
            | Contender::Naive
            | Contender::GoLinear
            | Contender::GoSnapshot => Self::peer(contender, world, start.protocol, scratch).await,
        };
        started.with_context(|| format!("{} did not start", contender.name()))
    }

    async fn peer(contender: Contender, world: &World, protocol: Protocol, scratch: &Path) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("where this binary is")?;
        let (program, mode) = match (contender, protocol) {
            (Contender::GoLinear, Protocol::Delta) => (super::go::binary().await?, "linear-delta"),
            (Contender::GoLinear, Protocol::Sotw) => (super::go::binary().await?, "linear-sotw"),
            (Contender::GoSnapshot, Protocol::Delta) => (super::go::binary().await?, "snapshot-delta"),
            (Contender::GoSnapshot, Protocol::Sotw) => (super::go::binary().await?, "snapshot-sotw"),
            (Contender::Naive, _) => (own, "serve-naive"),
            (Contender::Floor | Contender::FloorOfConnections | Contender::Chancery | Contender::ChanceryTls, _) => {
                (own, "serve-floor")
            }
        };
        let mut command = tokio::process::Command::new(program);
        command.arg(mode).arg(&world.file);
        if contender == Contender::FloorOfConnections {
            command.arg("--of-connections");
        }
        let (peer, address) = Peer::start(command, &scratch.join(format!("{}.log", contender.name()))).await?;
        let pid = peer.pid()?;
        let address = address.parse().with_context(|| format!("{address:?} is no address"))?;
        Ok(Self {
            contender,
            address,
            tls: None,
            idle: memory(pid)?,
            rules: world.rules,
            pid,
            cpu: CpuMeter::new(pid),
            control: Control::Peer(Box::new(peer)),
        })
    }

    async fn chancery(contender: Contender, rules: Rules, start: Start<'_>) -> anyhow::Result<Self> {
        let plaintext = Port::reserve()?;
        let address = plaintext.loopback().to_string();
        let mut arguments = vec!["--xds-plaintext-address", &address, "--log", "error"];
        arguments.extend(start.arguments);
        let mut chancery = Chancery::prepare(&[], &arguments)?;
        for (name, text) in rules.files() {
            chancery.write_rules(&name, &text)?;
        }
        let tls = match contender == Contender::ChanceryTls {
            true => Some(credentials::mint(&chancery.data_directory(), start.clients).await?),
            false => None,
        };
        chancery.restart().await?;
        let address = if tls.is_some() { chancery.xds_address() } else { plaintext.loopback() };
        let pid = chancery.pid().context("it runs")?;
        Ok(Self {
            contender,
            address,
            tls,
            idle: memory(pid)?,
            rules,
            pid,
            cpu: CpuMeter::new(pid),
            control: Control::Chancery { process: Box::new(chancery), _plaintext: plaintext },
        })
    }

    /// Has a load assignment carry a number.
    pub async fn change(&mut self, order: Order) -> anyhow::Result<()> {
        match &mut self.control {
            Control::Peer(peer) => peer.tell(&order.to_string()).await,
            Control::Chancery { process, .. } => {
                process.write_rules(&service_file(order.index), &self.rules.service(order.index, order.number))
            }
        }
    }

    /// Writes a rule file; only Chancery has any.
    pub fn write_rules(&self, name: &str, text: &str) -> anyhow::Result<()> {
        self.as_chancery()?.write_rules(name, text)
    }

    /// The control plane, if this is Chancery.
    pub fn as_chancery(&self) -> anyhow::Result<&Chancery> {
        match &self.control {
            Control::Chancery { process, .. } => Ok(process),
            Control::Peer(_) => anyhow::bail!("{} is not Chancery", self.contender.name()),
        }
    }

    /// Kills Chancery and starts it again on the same addresses and directories.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let Control::Chancery { process, .. } = &mut self.control else {
            anyhow::bail!("{} cannot be started again", self.contender.name())
        };
        process.restart().await?;
        self.pid = process.pid().context("it runs")?;
        self.cpu = CpuMeter::new(self.pid);
        Ok(())
    }

    /// Its CPU time so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.cpu.read()
    }

    /// Its memory now.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.pid)
    }
}
