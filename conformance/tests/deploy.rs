//! What `deploy/` holds is what runs: the systemd units start what they say, the example bootstrap is what is printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chancery::config::Environment;
use chancery::envoy::{EnvoyRequest, locate};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, cart_alone};
use conformance::harness::{Chancery, Child, EnvoySource, chancery_binary, eventually, root};

/// The example bootstrap, below the root.
const EXAMPLE: &str = "deploy/envoy/bootstrap.yaml";
/// What stands above it.
const EXAMPLE_HEAD: &str = "\
# A bootstrap in full, as printed by
#   chancery bootstrap --workload shop/cart-v1 --node-id cart-v1-a \\
#     --credential-file /etc/envoy/cart-v1/credential.yaml --xds-address chancery.example.net:18000
# but for the one certificate, which is that of your control plane.
";
/// Where the example keeps its credential.
const EXAMPLE_DIRECTORY: &str = "/etc/envoy/cart-v1";
/// What stands for the certificate of the control plane's authority.
const EXAMPLE_AUTHORITY: &str = "PLACEHOLDER: print your own bootstrap to have your control plane's certificate here";

/// A unit of systemd: the values of every key of every section, in order.
#[derive(Debug, PartialEq, Eq)]
struct Unit(BTreeMap<(String, String), Vec<String>>);

// === impl Unit ===

impl Unit {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut section, mut entries) = (String::new(), BTreeMap::<_, Vec<String>>::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            ensure!(!line.ends_with('\\'), "{line:?}: lines are not continued here");
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let (key, value) = line.split_once('=').with_context(|| format!("{line:?} is no assignment"))?;
            entries.entry((section.clone(), key.to_owned())).or_default().push(value.to_owned());
        }
        Ok(Self(entries))
    }

    /// The value of a key that the section `Service` has once.
    fn service(&self, key: &str) -> anyhow::Result<&str> {
        match self.0.get(&("Service".to_owned(), key.to_owned())).map(Vec::as_slice) {
            Some([value]) => Ok(value),
            other => anyhow::bail!("{key} must stand there once: {other:?}"),
        }
    }

    /// How long it may take to stop.
    fn stop_timeout(&self) -> anyhow::Result<Duration> {
        let seconds = self.service("TimeoutStopSec")?.strip_suffix('s').context("in seconds")?;
        Ok(Duration::from_secs(seconds.parse()?))
    }

    /// What it runs, in a service's bare surroundings.
    fn command(&self) -> anyhow::Result<Command> {
        let mut words = self.service("ExecStart")?.split_whitespace();
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words).env_clear().current_dir("/");
        Ok(command)
    }
}

/// A unit as it is in the tree, each of the first texts replaced by the second; the first must all be there.
fn unit_text(name: &str, replaced: &[(&str, &Path)]) -> anyhow::Result<String> {
    let path = root().join("deploy/systemd").join(name);
    let mut text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (from, to) in replaced {
        ensure!(text.contains(from), "{name} does not say {from}");
        text = text.replace(from, to.to_str().context("paths are UTF-8")?);
    }
    Ok(text)
}

async fn envoy_binary() -> anyhow::Result<PathBuf> {
    Ok(locate(&EnvoyRequest::default(), &Environment::read()).await?.path)
}

/// Ends it as systemd does, within the unit's time; it must say that all is well.
async fn stop(unit: &Unit, mut child: Child) -> anyhow::Result<()> {
    let asked = Instant::now();
    let status = child.terminate().await?;
    ensure!(status.code() == Some(0), "it ended with {status}:\n{}", child.log());
    ensure!(asked.elapsed() < unit.stop_timeout()?, "it took {:?} to stop", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn the_units_run_a_control_plane_and_an_envoy_in_sync_with_it() {
    let (listen, admin) = (Port::reserve().expect("a port"), Port::reserve().expect("a port"));
    let rules = cart_alone("cart-v1", listen.loopback(), ([127, 0, 0, 1], 9).into());
    let chancery = Chancery::prepare(&[("shop.yaml", &rules)], &[]).expect("directories");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let binary = chancery_binary().await.expect("it builds");

    let (rules, data) = (chancery.rules_directory(), chancery.data_directory());
    let replaced = [("/usr/bin/chancery", binary), ("/etc/chancery/rules", &*rules), ("/var/lib/chancery", &*data)];
    let control_plane = unit_text("chancery.service", &replaced).expect("a unit");
    let control_plane = Unit::parse(&control_plane).expect("a unit");
    let mut command = control_plane.command().expect("a command");
    // What /etc/chancery/environment would say.
    command.env("CHANCERY_XDS_ADDRESS", chancery.xds_address().to_string());
    command.env("CHANCERY_ADMIN_ADDRESS", chancery.admin_address().to_string());
    let mut serving = Child::start(command, directory.path().join("chancery.log")).expect("it starts");
    let ready = async || {
        serving.check_running()?;
        chancery.text("/readyz").await
    };
    eventually(SOON, "a control plane that is ready", ready).await.expect("it becomes ready");

    let (proxy, admin_port) = (directory.path().join("cart-v1"), admin.number().to_string());
    std::fs::create_dir(&proxy).expect("the directory is ours");
    let credential = proxy.join("credential.yaml");
    let arguments = ["--credential-file", credential.to_str().expect("UTF-8"), "--admin-port", &admin_port];
    let bootstrap = chancery.bootstrap("shop/cart-v1", &arguments).await.expect("a bootstrap");
    std::fs::write(proxy.join("envoy.yaml"), bootstrap).expect("the directory is ours");
    let envoy = envoy_binary().await.expect("there is an envoy");
    let replaced = [("/usr/bin/envoy", &*envoy), ("/etc/envoy", directory.path()), ("%i", Path::new("cart-v1"))];
    let sidecar = unit_text("envoy@.service", &replaced).expect("a unit");
    let sidecar = Unit::parse(&sidecar).expect("a unit");
    let command = sidecar.command().expect("a command");
    let mut proxying = Child::start(command, directory.path().join("envoy.log")).expect("it starts");
    let url = format!("http://{}/ready", admin.loopback());
    let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let live = async || {
        proxying.check_running()?;
        Ok(http.get(&url).send().await?.error_for_status()?.text().await?)
    };
    let live = eventually(SOON, "an envoy that is live", live).await;
    assert_eq!(live.unwrap_or_else(|error| panic!("{error:#}\n{}", proxying.log())), "LIVE\n");
    chancery.in_sync(1).await.expect("it is in sync");

    stop(&sidecar, proxying).await.expect("the envoy stops");
    stop(&control_plane, serving).await.expect("the control plane stops");
}

#[tokio::test]
async fn the_example_bootstrap_is_what_is_printed_and_envoy_takes_it() {
    let chancery = Chancery::prepare(&[], &[]).expect("directories");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let own = directory.path().to_str().expect("temporary directories are UTF-8");
    let credential = format!("{own}/credential.yaml");
    let data = chancery.data_directory();
    let data = data.to_str().expect("temporary directories are UTF-8");
    let proxy = ["bootstrap", "--data-dir", data, "--workload", "shop/cart-v1", "--node-id", "cart-v1-a"];
    let files = ["--credential-file", &credential, "--xds-address", "chancery.example.net:18000"];
    let output = chancery.run(&[proxy.as_slice(), &files].concat()).await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("UTF-8");

    let (authority, example) = without_authority(&printed).expect("one certificate");
    let example = EXAMPLE_HEAD.to_owned() + &example.replace(own, EXAMPLE_DIRECTORY);
    let path = root().join(EXAMPLE);
    #[expect(clippy::disallowed_methods, reason = "golden files are rewritten on demand, as in translators/tests")]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &example).expect("the file can be written");
    }
    let held = std::fs::read_to_string(&path).expect("UPDATE_GOLDEN=1 writes it");
    assert_eq!(held, example, "UPDATE_GOLDEN=1 rewrites {EXAMPLE}");

    let filled = held.replace(EXAMPLE_AUTHORITY, &authority).replace(EXAMPLE_DIRECTORY, own);
    let config = directory.path().join("envoy.yaml");
    std::fs::write(&config, filled).expect("the directory is ours");
    let source = EnvoySource::from_environment().await.expect("there is an envoy");
    assert_eq!(source.validate(&config).await.expect("envoy runs"), Ok(()));
}

/// What stands between the two marks of the only certificate, and the text with the placeholder instead.
fn without_authority(printed: &str) -> anyhow::Result<(String, String)> {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let (before, rest) = printed.split_once(begin).context("no certificate")?;
    let (body, after) = rest.split_once(end).context("its end is missing")?;
    ensure!(!after.contains(begin), "there is more than one certificate");
    let core = body.trim();
    Ok((core.to_owned(), [before, begin, &body.replace(core, EXAMPLE_AUTHORITY), end, after].concat()))
}

#[test]
fn a_unit_is_read_as_systemd_reads_it() {
    let entry = |section: &str, key: &str, values: &[&str]| {
        ((section.to_owned(), key.to_owned()), values.iter().map(ToString::to_string).collect())
    };
    let unit =
        Unit::parse("# a\n[Unit]\nAfter=a\nAfter=b\n\n; c\n[Service]\nExecStart=/bin/a -b c=d\nTimeoutStopSec=3s\n");
    let unit = unit.expect("a unit");
    let expected = [
        entry("Unit", "After", &["a", "b"]),
        entry("Service", "ExecStart", &["/bin/a -b c=d"]),
        entry("Service", "TimeoutStopSec", &["3s"]),
    ];
    assert_eq!(unit, Unit(BTreeMap::from(expected)));
    assert_eq!(unit.stop_timeout().expect("a time"), Duration::from_secs(3));
    let command = unit.command().expect("a command");
    assert_eq!(format!("{command:?}").replace("cd \"/\" && ", "").replace("env -i ", ""), "\"/bin/a\" \"-b\" \"c=d\"");
    assert!(Unit::parse("[Service]\nExecStart=/bin/a \\\n").is_err());
}
