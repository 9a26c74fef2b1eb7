//! The control plane: wiring only.
//!
//! Owns: which parts there are, and how they are joined. May use: every module of the pipeline. Never:
//! holds logic of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use translators::version::EnvoyVersion;
use translators::xds::Features;

use crate::admin::{self, AdminState, Exposure, Status};
use crate::admission::Admissions;
use crate::ca::{Authorities, Issued, Issuer, Wanted};
use crate::clock::Clock;
use crate::identity::Identities;
use crate::identity::tls::{self, ServerCertificate};
use crate::materials::{Keeper, Materials};
use crate::publish::{self, Table};
use crate::report::Report;
use crate::server::{self, Patience, Services};
use crate::sources::files::{self, FileState};
use crate::sources::instances;
use crate::stream::Limits;
use crate::task::Tasks;
use crate::telemetry::Telemetry;
use crate::telemetry::loads::Loads;
use crate::translate::{self, Translator};
use crate::{admission, descriptors, durable, fold, settled, status, wanted};

/// What the control plane is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory of rules.
    pub rules: PathBuf,
    /// Where keys and state are kept.
    pub data_dir: PathBuf,
    /// Where proxies connect.
    pub xds_address: SocketAddr,
    /// Where proxies without TLS connect, if anywhere.
    pub xds_plaintext_address: Option<SocketAddr>,
    /// Whether that may be reached from other machines.
    pub insecure: bool,
    /// Where operators look.
    pub admin_address: SocketAddr,
    /// Further names of the server's certificate.
    pub advertise: Vec<String>,
    /// How long workload certificates live, instead of what the Mesh says.
    pub leaf_ttl: Option<Duration>,
    /// How long an orderly stop may take.
    pub grace: Duration,
    /// What a client may ask of the discovery services.
    pub limits: Limits,
    /// How long a peer is waited for.
    pub patience: Patience,
    /// How often proxies are to report their load.
    pub load_interval: Duration,
}

/// Runs the control plane until SIGINT or SIGTERM.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let data_dir = &config.data_dir;
    durable::create_private_dir(data_dir)
        .with_context(|| format!("the data directory {} cannot be created", data_dir.display()))?;
    let _lock = lock(&config)?;
    match descriptors::raise() {
        Ok(descriptors) => info!(descriptors, "as many files and connections may be open at once"),
        Err(error) => warn!(%error, "the limit of open files and connections could not be raised"),
    }
    let authorities = Authorities::open_or_create(data_dir)?;
    authorities.log_created();
    let Authorities { mesh, control } = authorities;
    let (mesh, control) = (Arc::new(mesh), Arc::new(control));
    let identities = Arc::new(Identities::open(&control, data_dir, Clock::System)?);
    let mut names = config.advertise.clone();
    names.push(config.xds_address.ip().to_string());
    let certificate = ServerCertificate::issue(Arc::clone(&control), &names, Clock::System)?;

    let xds = TcpListener::bind(config.xds_address)
        .await
        .with_context(|| format!("cannot listen on the xDS address {}", config.xds_address))?;
    let plaintext = plaintext_listener(&config).await?;
    let admin = admin::bind(config.admin_address, Exposure::Loopback).await?;

    let mut tasks = Tasks::default();
    let stop = || tasks.stop_token();
    let report = Report::default();
    let telemetry = Telemetry::default();
    let loads = Loads::default();
    let table = Table::default();

    let files = watch::Sender::new(Arc::<FileState>::default());
    let instance_record = data_dir.join("instances.json");
    let instances = watch::Sender::new(instances::load(&instance_record));
    let inputs = watch::Sender::new(None);
    let features = watch::Sender::new(BTreeSet::from([Features::of_version(EnvoyVersion::NEWEST)]));
    let settled = watch::Sender::new(0);
    let published = watch::Sender::new(0);
    let translation = watch::Sender::new(None);
    let issued = watch::Sender::new(Arc::new(Issued::none(&mesh)));
    let wanted = watch::Sender::new(Arc::new(Wanted::default()));
    let materials = watch::Sender::new(Arc::new(Materials::default()));
    let status = watch::Sender::new(Arc::new(Status::starting("the rules have not been read yet")));

    let admissions = Admissions::new(Arc::clone(&identities), table.clone(), features.clone());
    let services = Services {
        admissions,
        report: report.clone(),
        telemetry: telemetry.clone(),
        serves: admission::serves(table.clone()),
        loads: loads.clone(),
        load_interval: config.load_interval,
        ready: {
            let table = table.clone();
            Arc::new(move || table.current().mesh().is_some())
        },
        limits: config.limits,
        patience: config.patience,
    };
    let setting = Arc::new(admin::Setting {
        admin: config.admin_address,
        plaintext: config.xds_plaintext_address,
        roots: vec![("mesh", mesh.not_after().into()), ("control", control.not_after().into())],
    });
    let admin_state = AdminState { report: report.clone(), telemetry, loads, setting, status: status.subscribe() };
    let (translator, records) = Translator::open(Some(data_dir));
    let issuer = Issuer::new(Arc::clone(&mesh), data_dir, Clock::System);
    let connections = tls::incoming(xds, tls::server_config(&control, Arc::clone(&certificate)));
    let incoming = Arc::clone(&identities).guard(connections);

    let fold = fold::run(files.subscribe(), instances.subscribe(), inputs.clone(), stop());
    let translate = translate::run(
        translator,
        inputs.subscribe(),
        features.subscribe(),
        settled.subscribe(),
        translation.clone(),
        stop(),
    );
    let publish = publish::run(
        table.clone(),
        translation.subscribe(),
        issued.subscribe(),
        materials.subscribe(),
        published.clone(),
        stop(),
    );
    let settle = settled::run(report.clone(), table, instances.subscribe(), published.subscribe(), settled, stop());
    let want = wanted::run(translation.subscribe(), wanted.clone(), config.leaf_ttl, stop());
    let tell = status::run(translation.subscribe(), issued.subscribe(), materials.subscribe(), status, stop());
    let keeper = Keeper::new(Arc::clone(&mesh), config.leaf_ttl, Clock::System);
    let keep = keeper.run(translation.subscribe(), materials, stop());
    let read = files::run(config.rules.clone(), files, stop());
    let gather = instances::run(report, instance_record, instances, stop());
    let issue = issuer.run(wanted.subscribe(), issued, stop());
    let serve_plaintext = plaintext.map(|listener| server::run_plaintext(listener, services.clone(), stop()));
    let serve = server::run(incoming, services, stop());
    let administer = admin::serve(admin, admin_state, stop());
    let revocations = identities.watch(stop());
    let renew = certificate.renew(stop());

    tasks.spawn("rule files", read);
    tasks.spawn("instances", gather);
    tasks.spawn("fold", fold);
    tasks.spawn("translate", translate);
    tasks.spawn("records", records.run());
    tasks.spawn("publish", publish);
    tasks.spawn("settled", settle);
    tasks.spawn("wanted identities", want);
    tasks.spawn("certificates", issue);
    tasks.spawn("certificates of gateways", keep);
    tasks.spawn("server certificate", renew);
    tasks.spawn("revocations", revocations);
    tasks.spawn("status", tell);
    tasks.spawn("admin server", administer);
    tasks.spawn("xds server", serve);
    if let Some(serve) = serve_plaintext {
        tasks.spawn("plaintext xds server", serve);
    }
    info!(rules = %config.rules.display(), xds = %config.xds_address, admin = %config.admin_address, "chancery serves");
    tasks.run(asked_to_stop()?, config.grace).await.map_err(Into::into)
}

/// The listener for proxies without TLS, if one is asked for.
async fn plaintext_listener(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.xds_plaintext_address else { return Ok(None) };
    if !address.ip().is_loopback() && !config.insecure {
        bail!(
            "the plaintext xDS address {address} can be reached from other machines, and whoever reaches it reads the \
             configuration of any node; use a loopback address, or say --insecure"
        );
    }
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on the plaintext xDS address {address}"))?;
    if address.ip().is_loopback() {
        warn!(%address, "proxies are served without TLS: a node is believed to be who it says, and gets no certificate");
    } else {
        warn!(
            %address,
            "proxies are served without TLS, and not to this machine alone: whoever reaches the address reads the \
             configuration of any node"
        );
    }
    Ok(Some(listener))
}

/// Holds the data directory for this process alone.
fn lock(config: &Config) -> anyhow::Result<std::fs::File> {
    let path = config.data_dir.join("serving");
    let file = durable::open_lock(&path)
        .with_context(|| format!("the data directory {} cannot be written", config.data_dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("the data directory {} is in use by another chancery serve", config.data_dir.display())
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// Ready at the first SIGINT or SIGTERM.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
    })
}
