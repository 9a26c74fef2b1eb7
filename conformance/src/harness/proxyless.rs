//! Proxyless: real gRPC clients that ask the control plane themselves.
//!
//! Owns: which libraries, pinned by version and hash, and one running client. May use: python3 with pip, node with npm,
//! through the user's own configuration of them. Never: puts anything between the client and what it dials.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;
use translators::resource::Version;

use super::child::Child;
use super::kept::kept;
use super::wait::eventually;

const PYTHON: [(&str, &str); 2] = [
    ("requirements.txt", include_str!("../../peers/grpc-python/requirements.txt")),
    ("client.py", include_str!("../../peers/grpc-python/client.py")),
];
const JAVASCRIPT: [(&str, &str); 3] = [
    ("package.json", include_str!("../../peers/grpc-js/package.json")),
    ("package-lock.json", include_str!("../../peers/grpc-js/package-lock.json")),
    ("client.js", include_str!("../../peers/grpc-js/client.js")),
];

/// How long a client may take to have made so many calls.
const PATIENCE: Duration = Duration::from_secs(60);

/// A library of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// C-core, by Python's grpcio.
    Core,
    /// grpc-js with grpc-js-xds.
    JavaScript,
}

/// A running client that calls `/shop.Cart/Get` without end. It ends when the value is dropped.
#[derive(Debug)]
pub struct GrpcClient {
    child: Child,
    _directory: TempDir,
}

/// What came of one call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", untagged)]
pub enum Answered {
    /// Why there was no answer: `STATUS: message`.
    Error {
        /// Those words.
        error: String,
    },
    /// What the application says reached it.
    Echo(super::Echo),
}

// === impl Library ===

impl Library {
    /// The program that runs a client, and the client itself; obtained first if the cache does not have them.
    async fn program(self) -> anyhow::Result<(PathBuf, PathBuf)> {
        match self {
            Self::Core => {
                let version = version("grpcio==", &PYTHON);
                let place = kept("grpc-python", &version, async |place| {
                    write(place, &PYTHON)?;
                    let missing = "the proxyless tests need Python: install Python 3.10 to 3.14 with its venv module";
                    eprintln!("obtaining grpcio from the Python package index");
                    let mut venv = Command::new("python3");
                    run(venv.args(["-m", "venv", "."]).current_dir(place), missing).await?;
                    let mut pip = Command::new(place.join("bin/python3"));
                    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--only-binary=:all:"]);
                    run(pip.args(["--require-hashes", "-r", "requirements.txt"]).current_dir(place), missing).await
                });
                let place = place.await?;
                Ok((place.join("bin/python3"), place.join("client.py")))
            }
            Self::JavaScript => {
                let version = version("\"@grpc/grpc-js-xds\": \"", &JAVASCRIPT);
                let place = kept("grpc-js", &version, async |place| {
                    write(place, &JAVASCRIPT)?;
                    let missing = "the proxyless tests need Node.js: install Node.js 18 or newer with npm";
                    eprintln!("obtaining grpc-js and grpc-js-xds from the npm registry");
                    let mut npm = Command::new("npm");
                    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(place);
                    run(&mut npm, missing).await
                });
                Ok(("node".into(), place.await?.join("client.js")))
            }
        }
    }
}

/// The release, which the first file names after `label`, and what tells these files from others.
fn version(label: &str, files: &[(&str, &str)]) -> String {
    let release = files[0].1.split_once(label).map_or("", |(_, rest)| rest);
    let release = release.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    let all: String = files.iter().flat_map(|(name, text)| [*name, "\n", *text]).collect();
    format!("{release}-{}", Version::of(all.as_bytes()))
}

fn write(place: &Path, files: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, text) in files {
        std::fs::write(place.join(name), text)?;
    }
    Ok(())
}

async fn run(command: &mut Command, missing: &'static str) -> anyhow::Result<()> {
    // Standard output belongs to our caller.
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true).status().await;
    let status = match status {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(missing),
        Err(error) => return Err(error).context(missing),
    };
    ensure!(status.success(), "{:?} ended with {status}; {missing}", command.as_std().get_program());
    Ok(())
}

// === impl GrpcClient ===

impl GrpcClient {
    /// Starts a client with this bootstrap that dials `target`; `with_mtls` if the control plane may say so.
    pub async fn start(library: Library, bootstrap: &str, target: &str, with_mtls: bool) -> anyhow::Result<Self> {
        let (program, client) = library.program().await?;
        let directory = tempfile::Builder::new().prefix("chancery-grpc-").tempdir()?;
        let file = directory.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap)?;
        let mut command = std::process::Command::new(program);
        command.arg(client).arg(target).arg(if with_mtls { "xds" } else { "insecure" });
        command.env("GRPC_XDS_BOOTSTRAP", file).env_remove("GRPC_XDS_BOOTSTRAP_CONFIG");
        for proxy in ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        let child = Child::start(command, directory.path().join("client.log"))?;
        Ok(Self { child, _directory: directory })
    }

    /// Every answer so far. What the library itself logs is not among them.
    pub fn answers(&self) -> Vec<Answered> {
        self.child.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The next `count` answers from now on.
    pub async fn next(&mut self, count: usize) -> anyhow::Result<Vec<Answered>> {
        let before = self.answers().len();
        eventually(PATIENCE, &format!("{count} answers"), async || {
            self.child.check_running()?;
            let answers = self.answers();
            ensure!(answers.len() >= before + count, "{} more:\n{}", answers.len() - before, self.child.log());
            Ok(answers[before..before + count].to_vec())
        })
        .await
    }
}

// === impl Answered ===

impl Answered {
    /// Why there was no answer.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error { error } => Some(error),
            Self::Echo(_) => None,
        }
    }

    /// The version of the application that answered.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Echo(echo) => Some(&echo.version),
            Self::Error { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_are_pinned() {
        assert!(version("grpcio==", &PYTHON).starts_with("1.85.1-"));
        assert!(version("\"@grpc/grpc-js-xds\": \"", &JAVASCRIPT).starts_with("1.14.1-"));
        assert!(PYTHON[0].1.matches("--hash=sha256:").count() > 1, "their hashes");
        assert!(JAVASCRIPT[1].1.contains("\"integrity\": \"sha512-"), "their hashes");
    }
}
