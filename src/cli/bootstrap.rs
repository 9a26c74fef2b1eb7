//! `chancery bootstrap`: a complete Envoy bootstrap, with the credential that lets the proxy in.
//!
//! Owns: the command's arguments, the choice of a node id, and the credential file. May use: `ca`,
//! `identity`, `durable`, `translate` (the rules that were last in force). Never: talks to a server; the data directory is all it needs.

mod credential_file;
mod grpc;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::{ArgAction, ValueEnum};
use rand::Rng;
use translators::json;
use translators::mesh::{Patched, resolve};
use translators::name::{ObjectKind, QualifiedName};
use translators::version::EnvoyVersion;
use translators::xds::bootstrap::{
    self as envoy, AdsProtocol, BootstrapOptions, CertificateFiles, GrpcOptions, Node, Server,
};

use crate::ca::Authorities;
use crate::identity::revocation::Scope;
use crate::identity::{NodeId, RevocationList, credential};
use crate::translate::last_known;

const EXAMPLES: &str = "\
Examples:
  A proxy of the workload shop/cart-v1, its credential inside the bootstrap:
    chancery bootstrap --workload shop/cart-v1 > envoy.yaml && envoy -c envoy.yaml

  The same with the credential in a file of its own. Running the command again with the same file
  rotates the credential under the running Envoy; --revoke-previous also ends the earlier ones:
    chancery bootstrap --workload shop/cart-v1 --credential-file /etc/envoy/credential.yaml > envoy.yaml

  A gRPC client that is an instance of the workload itself, without a proxy. Running the command again with the
  same directory renews its credential and its certificate under the running client:
    chancery bootstrap --workload shop/web --grpc --certificates /etc/web > grpc.json && GRPC_XDS_BOOTSTRAP=grpc.json web

  A proxy without a workload, for raw snapshots that name its node id:
    chancery bootstrap --node-id edge-1 > envoy.yaml

Without --credential-file or --grpc the output contains a private key: keep it as you keep the key.";

/// Prints a complete Envoy bootstrap and issues the proxy's credential
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The workload that the proxy is an instance of, NAMESPACE/NAME
    #[arg(long, value_name = "NS/NAME", required_unless_present = "node_id")]
    workload: Option<QualifiedName>,
    /// The proxy's node id; the credential is bound to it [default: that of an existing --credential-file,
    /// else the workload's name and 8 random digits]
    #[arg(long, value_name = "ID")]
    node_id: Option<NodeId>,
    /// The version of the proxy, for EnvoyPatches of the bootstrap that are not for any
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = super::envoy_version)]
    envoy_version: Option<(u32, u32)>,
    /// Use the state-of-the-world protocol instead of delta
    #[arg(long)]
    sotw: bool,
    /// The control plane's data directory
    #[arg(long, value_name = "DIR", env = "CHANCERY_DATA_DIR", default_value = "chancery-data")]
    data_dir: PathBuf,
    /// Where the proxy reaches the control plane
    #[arg(long, value_name = "HOST:PORT", env = "CHANCERY_XDS_ADDRESS", default_value = "127.0.0.1:18000")]
    xds_address: Address,
    /// The port of Envoy's own admin interface, on loopback
    #[arg(long, value_name = "PORT", default_value = "15000", conflicts_with = "no_admin")]
    admin_port: u16,
    /// Leave Envoy's own admin interface out
    #[arg(long)]
    no_admin: bool,
    /// Write the credential to this file (.yaml, .yml or .json; mode 0600) and refer to it, instead of
    /// putting it into the bootstrap; Envoy watches the file
    #[arg(long, value_name = "PATH", env = "CHANCERY_CREDENTIAL_FILE")]
    credential_file: Option<PathBuf>,
    /// How long the credential is valid, such as 8760h, 12h or 30m
    #[arg(long, value_name = "DURATION", env = "CHANCERY_CREDENTIAL_TTL", default_value = "8760h", value_parser = positive)]
    credential_ttl: Duration,
    /// End what was issued before: for this node if --node-id is given, else for the whole workload
    #[arg(long)]
    revoke_previous: bool,
    /// How often the proxy reports its statistics
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive)]
    stats_interval: Duration,
    /// Report every statistic that Envoy has, not only those of requests, connections and TLS
    #[arg(long, action = ArgAction::SetTrue)]
    all_stats: bool,
    /// Print the bootstrap of a gRPC client (JSON) that needs no proxy, instead of Envoy's
    #[arg(long, requires = "workload", conflicts_with_all = FOR_ENVOY)]
    grpc: bool,
    /// Write the gRPC client's credential, its workload's certificate and their keys (mode 0600) into this directory
    #[arg(long, value_name = "DIR", requires = "grpc")]
    certificates: Option<PathBuf>,
    /// The gRPC client reaches the control plane without TLS, at an address of `serve --xds-plaintext-address`, and is
    /// known there by its node id
    #[arg(long, requires = "grpc")]
    xds_plaintext: bool,
    /// The format of the output
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

/// What a gRPC client has no use for.
const FOR_ENVOY: [&str; 8] =
    ["envoy_version", "sotw", "admin_port", "no_admin", "credential_file", "stats_interval", "all_stats", "output"];

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// A duration above 0.
fn positive(text: &str) -> Result<Duration, String> {
    match super::duration(text)? {
        Duration::ZERO => Err("0 is no time at all".to_owned()),
        duration => Ok(duration),
    }
}

/// Where a credential went.
enum Issued {
    OfEnvoy(envoy::Credential),
    OfGrpc(CertificateFiles),
}

/// `host:port`, `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: NonZeroU16,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Nothing here waits for anything but the disk; the command has the process for itself.
    let bootstrap = issue(&args, SystemTime::now(), &mut std::io::stderr())?;
    let text = match args.output {
        Format::Yaml if !args.grpc => json::to_yaml(&bootstrap),
        Format::Yaml | Format::Json => serde_json::to_string_pretty(&bootstrap)? + "\n",
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("the bootstrap could not be printed")?;
    Ok(ExitCode::SUCCESS)
}

/// Issues the credential and builds the bootstrap that uses it; what should not go unseen is written to `notes`.
fn issue(args: &Args, now: SystemTime, notes: &mut impl Write) -> anyhow::Result<serde_json::Value> {
    if let Some(path) = &args.credential_file {
        credential_file::check_extension(path)?;
    }
    ensure!(
        !args.grpc || args.certificates.is_some() || args.xds_plaintext,
        "a gRPC client reads its credential from files: say --certificates DIR, or --xds-plaintext where it needs none"
    );
    let authorities = Authorities::open_or_create(&args.data_dir)?;
    if authorities.control.is_new() {
        writeln!(
            notes,
            "note: {} had no certificate authority; a new one was made. If a control plane already runs elsewhere, \
             say its data directory with --data-dir",
            args.data_dir.display()
        )
        .context("the note of a new certificate authority could not be printed")?;
    }
    let node_id = args.node_id()?;
    let node = Node {
        cluster: args.workload.as_ref().map_or_else(|| node_id.to_string(), ToString::to_string),
        id: node_id.to_string(),
        metadata: BTreeMap::new(),
        locality: args.workload.as_ref().and_then(|workload| last_known::locality(&args.data_dir, workload)),
    };
    let server = Server { host: args.xds_address.host.clone(), port: args.xds_address.port.get() };
    let certificates = match (&args.certificates, &args.workload) {
        (Some(dir), Some(workload)) => {
            Some(grpc::issue_certificate(dir, workload, &args.data_dir, &authorities, now, notes)?)
        }
        (Some(_) | None, _) => None,
    };
    if args.xds_plaintext {
        return Ok(envoy::grpc(&GrpcOptions { node, server, credential: None, certificates }));
    }
    let list = RevocationList::new(&args.data_dir).lock()?;
    let replaced = args.revoke_previous.then(|| args.scope(&node_id));
    let subject = list.subject(args.workload.clone(), node_id.clone(), now, replaced.as_ref());
    let issued = credential::issue(&authorities.control, &subject, args.credential_ttl, now)?;
    let credential = match (&args.credential_file, &args.certificates) {
        (Some(path), _) => Issued::OfEnvoy(credential_file::write(path, &issued)?),
        (None, Some(dir)) => Issued::OfGrpc(grpc::write_credential(dir, &issued, &authorities)?),
        (None, None) => {
            Issued::OfEnvoy(envoy::Credential::Inline { chain_pem: issued.chain_pem, key_pem: issued.key_pem })
        }
    };
    // Last, so that a proxy whose stream ends finds the new credential in its file.
    if let Some(scope) = replaced {
        list.revoke_before(scope, &subject)?;
    }
    let credential = match credential {
        Issued::OfEnvoy(credential) => credential,
        Issued::OfGrpc(files) => {
            return Ok(envoy::grpc(&GrpcOptions { node, server, credential: Some(files), certificates }));
        }
    };
    let mut message = envoy::bootstrap(&BootstrapOptions {
        node,
        server,
        control_plane_ca_pem: authorities.control.certificate_pem().to_owned(),
        credential,
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, args.admin_port)),
        protocol: if args.sotw { AdsProtocol::Sotw } else { AdsProtocol::Delta },
        stats_flush_interval: args.stats_interval,
        all_stats: args.all_stats,
    });
    if args.no_admin {
        message.admin = None;
    }
    let bootstrap = json::message(&message);
    match &args.workload {
        Some(workload) => patched(bootstrap, workload, args, notes),
        None => Ok(bootstrap),
    }
}

/// After the patches of the rules that the control plane last had in force.
fn patched(
    bootstrap: serde_json::Value,
    workload: &QualifiedName,
    args: &Args,
    notes: &mut impl Write,
) -> anyhow::Result<serde_json::Value> {
    let objects = last_known::objects(&args.data_dir);
    if !objects.keys().any(|key| key.kind == ObjectKind::EnvoyPatch) {
        return Ok(bootstrap);
    }
    let mesh = resolve::resolve(&objects).mesh;
    let version = args.envoy_version.map(|(major, minor)| EnvoyVersion::new(major, minor));
    let untold = mesh.patches.values().filter(|_| version.is_none()).filter(|patch| !patch.envoy.is_any());
    for patch in untold.filter(|patch| patch.edits.iter().any(|edit| edit.resource == Patched::Bootstrap)) {
        writeln!(
            notes,
            "note: EnvoyPatch {} is left out, it is for Envoy {}: say the proxy's version with --envoy-version",
            patch.name, patch.envoy
        )
        .context("the note of a patch that is left out could not be printed")?;
    }
    Ok(super::translate::patched(bootstrap, &mesh, workload, version))
}

// === impl Args ===

impl Args {
    /// Whose earlier credentials `--revoke-previous` ends.
    fn scope(&self, node_id: &NodeId) -> Scope {
        match (&self.node_id, &self.workload) {
            (None, Some(workload)) => Scope::Workload(workload.clone()),
            (Some(_), _) | (None, None) => Scope::Node(node_id.clone()),
        }
    }

    /// The node id that was given; else the one that the credential file is bound to, so that a rotation
    /// keeps it; else a new one.
    fn node_id(&self) -> anyhow::Result<NodeId> {
        if let Some(node_id) = &self.node_id {
            return Ok(node_id.clone());
        }
        let Some(workload) = &self.workload else { bail!("one of --workload and --node-id must be given") };
        let existing = match (&self.credential_file, &self.certificates) {
            (Some(path), _) => credential_file::read(path)?,
            (None, Some(dir)) => grpc::read_credential(dir)?,
            (None, None) => None,
        };
        match existing {
            Some(existing) => {
                let place = self.credential_file.as_ref().or(self.certificates.as_ref());
                let path = place.map(|path| path.display().to_string()).unwrap_or_default();
                ensure!(
                    existing.workload.as_ref() == Some(workload),
                    "{path}: holds the credential of another proxy; name another, or remove this one"
                );
                Ok(existing.node_id)
            }
            None => {
                let random: u32 = rand::rng().random();
                Ok(format!("{}-{random:08x}", workload.name).parse().expect("a label and hexadecimal digits"))
            }
        }
    }
}

// === impl Address ===

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || format!("{text:?} must read HOST:PORT, an IPv6 address in brackets");
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?.to_string(),
            None => host.to_owned(),
        };
        let named = host.starts_with('[') || host.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c));
        let port = port.parse().map_err(|_| invalid())?;
        // `serve` listens on it, and the two may share an environment.
        if bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            return Err(format!(
                "nobody can connect to {host}: give the name or address by which the proxy reaches it"
            ));
        }
        if bare.is_empty() || !named { Err(invalid()) } else { Ok(Self { host: bare, port }) }
    }
}

#[cfg(test)]
mod tests;
