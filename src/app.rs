//! The control plane: wiring only.
//!
//! Owns: which parts there are, and how they are joined. May use: every module of the pipeline. Never:
//! holds logic of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;
use translators::xds::Features;

use crate::admin::{self, AdminState};
use crate::admission::Admissions;
use crate::ca::authority::Authorities;
use crate::ca::rotation::{self, Issued, Wanted};
use crate::identity::{Identities, tls};
use crate::publish::{self, Table};
use crate::report::Report;
use crate::sources::{files, instances};
use crate::stream;
use crate::task::Tasks;
use crate::telemetry::Telemetry;
use crate::translate::{self, Translation, Translator};
use crate::{fold, server};

/// What the control plane is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory of rules.
    pub rules: PathBuf,
    /// Where keys and state are kept.
    pub data_dir: PathBuf,
    /// Where proxies connect.
    pub xds_address: SocketAddr,
    /// Where operators look.
    pub admin_address: SocketAddr,
    /// Further names of the server's certificate.
    pub advertise: Vec<String>,
    /// How long workload certificates live, instead of what the Mesh says.
    pub leaf_ttl: Option<Duration>,
    /// How long an orderly stop may take.
    pub grace: Duration,
}
