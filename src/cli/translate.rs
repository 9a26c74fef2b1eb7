//! `chancery translate`: what the proxies of a workload or an EnvoySnapshot would get, without a server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail, ensure};
use clap::ValueEnum;
use imbl::OrdMap;
use serde_json::Value;
use translators::json;
use translators::mesh::{Backing, Instance, Instances, Mesh, Serve, Workload, keyed, resolve};
use translators::name::QualifiedName;
use translators::resource::{Kind, Resource};
use translators::version::EnvoyVersion;
use translators::xds::bootstrap::{Node, Server};
use translators::xds::{self, Features, Forms, Patching, ResourceKey, Slot};

use crate::config;
use crate::sources::files;

/// Arguments of `chancery translate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Endpoints that come from workloads are those of one proxy of each workload, on the address that it listens
on (127.0.0.1 for a wildcard). Certificates are served by the control plane and are not part of the output;
no secret is.

Examples:
  chancery translate -f rules/ --workload shop/cart-v1 -o yaml
  chancery translate -f rules/ --workload shop/cart-v1 -o bootstrap > static.yaml
  envoy --mode validate -c static.yaml
  chancery translate -f rules/ --workload shop/web --grpc
  chancery translate -f rules/ --snapshot edge/raw")]
pub struct Args {
    /// A directory of rules, or one file
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    file: PathBuf,
    /// The workload whose proxies are meant
    #[arg(long, value_name = "NS/NAME", required_unless_present = "snapshot", conflicts_with = "snapshot")]
    workload: Option<QualifiedName>,
    /// The EnvoySnapshot whose proxies are meant
    #[arg(long, value_name = "NS/NAME")]
    snapshot: Option<QualifiedName>,
    /// The version of Envoy to translate for
    #[arg(long, value_name = "MAJOR.MINOR", default_value = "1.40", value_parser = super::envoy_version)]
    envoy_version: (u32, u32),
    /// Translate for a gRPC client that is an instance of the workload itself, without a proxy
    #[arg(long, conflicts_with_all = ["snapshot", "envoy_version"])]
    grpc: bool,
    /// Where the control plane that serves the certificates is, for `-o bootstrap`
    #[arg(long, env = "CHANCERY_XDS_ADDRESS", value_name = "IP:PORT", default_value = config::XDS_ADDRESS)]
    xds_address: SocketAddr,
    /// Resources as YAML or JSON, or everything as one static Envoy configuration
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Yaml,
    Json,
    Bootstrap,
}

/// Runs the command. Findings go to stderr; what the rules without the objects in error say is printed.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let state = files::read_once(&args.file)?;
    let resolution = resolve::resolve(&state.objects);
    for finding in state.findings.iter().chain(&resolution.all_findings()) {
        eprintln!("{finding}");
    }
    ensure!(
        !args.grpc || args.output != Output::Bootstrap,
        "a gRPC client has no static configuration: -o yaml, or json"
    );
    let (name, resources) = args.resources(&resolution.mesh)?;
    let value = match args.output {
        Output::Yaml | Output::Json => by_kind(&resources),
        Output::Bootstrap => {
            let workload = resolution.mesh.workloads.get(&name);
            let locality = workload.and_then(|workload| workload.locality.as_deref().cloned());
            let (id, cluster) = (format!("{}-0", name.name), name.to_string());
            let node = Node { id, cluster, metadata: BTreeMap::new(), locality };
            let server = Server { host: args.xds_address.ip().to_string(), port: args.xds_address.port() };
            let bootstrap = json::message(&xds::static_config::static_bootstrap(&node, &server, &resources));
            self::patched(bootstrap, &resolution.mesh, &name, Some(args.version()))
        }
    };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&value)?),
        Output::Yaml | Output::Bootstrap => print!("{}", json::to_yaml(&value)),
    }
    Ok(ExitCode::SUCCESS)
}

// === impl Args ===

impl Args {
    fn version(&self) -> EnvoyVersion {
        let (major, minor) = self.envoy_version;
        EnvoyVersion::new(major, minor)
    }

    /// Whose proxies are meant, and what they get.
    fn resources(&self, mesh: &Mesh) -> anyhow::Result<(QualifiedName, Vec<Resource>)> {
        if let Some(name) = &self.snapshot {
            let snapshot = found("EnvoySnapshot", &mesh.snapshots, name)?;
            let public = snapshot.resources.iter().filter(|resource| resource.kind() != Kind::Secret);
            return Ok((name.clone(), public.map(|resource| Resource::clone(resource)).collect()));
        }
        let Some(name) = &self.workload else { bail!("one of --workload and --snapshot must be given") };
        let workload = found("Workload", &mesh.workloads, name)?;
        let features = if self.grpc { Features::of_grpc(true) } else { Features::of_version(self.version()) };
        Ok((name.clone(), resources(mesh, workload, features)))
    }
}

fn found<'a, T>(
    kind: &str,
    all: &'a OrdMap<QualifiedName, Arc<T>>,
    name: &QualifiedName,
) -> anyhow::Result<&'a Arc<T>> {
    let known = || all.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    all.get(name).ok_or_else(|| anyhow!("the rules hold no {kind} {name}; they hold: {}", known()))
}

/// Everything that the proxies of `workload` get, with one instance of every workload.
pub fn resources(mesh: &Mesh, workload: &Workload, features: Features) -> Vec<Resource> {
    xds::resources(mesh, workload, features, &one_instance_each(mesh))
}

/// The bootstrap of a proxy of a workload after the patches of it; without a version, those that are for any.
pub fn patched(bootstrap: Value, mesh: &Mesh, workload: &QualifiedName, version: Option<EnvoyVersion>) -> Value {
    match (bootstrap, mesh.workloads.get(workload)) {
        (Value::Object(bootstrap), Some(workload)) => {
            Value::Object(Patching::of(mesh).bootstrap(workload, version, bootstrap).0)
        }
        (bootstrap, _) => bootstrap,
    }
}

/// One ready proxy of each workload, on loopback.
fn one_instance_each(mesh: &Mesh) -> Instances {
    let serving = |name: &QualifiedName| {
        mesh.services.values().any(|service| match &service.backing {
            Backing::Workloads(serving) => serving.iter().any(|serving| serving.workload == *name),
            Backing::Static(_) | Backing::Dns(_) => false,
        })
    };
    let listener = |workload: &Workload, serve: &Serve| {
        ResourceKey::Inbound(Slot::of_serve(workload, serve), Forms::default()).name().to_string()
    };
    let instance = |workload: &Arc<Workload>| Instance {
        workload: workload.name.clone(),
        node: format!("{}-0", workload.name.name),
        address: [127, 0, 0, 1].into(),
        listeners: workload.serves.iter().map(|serve| listener(workload, serve)).collect(),
        has_certificate: true,
    };
    keyed(mesh.workloads.values().filter(|workload| serving(&workload.name)).map(instance))
}

fn by_kind(resources: &[Resource]) -> serde_json::Value {
    let always = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route];
    let mut kinds: BTreeMap<&str, Vec<serde_json::Value>> =
        always.into_iter().map(|kind| (kind.service(), Vec::new())).collect();
    for resource in resources {
        kinds.entry(resource.kind().service()).or_default().push(json::resource(resource));
    }
    serde_json::json!(kinds)
}
