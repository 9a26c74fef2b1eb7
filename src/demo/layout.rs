//! Layout: where everything of a demo run is, on disk and on loopback.
//!
//! Owns: the directories, the ports, and the rule files that name them. May use: `ports`. Never: touches a
//! directory that already has rules in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::ports::Port;

/// The rule files as they are written, but for the addresses, which stand in them as `<web.app>`.
const FILES: [(&str, &str); 5] = [
    ("mesh.yaml", include_str!("rules/mesh.yaml")),
    ("services.yaml", include_str!("rules/services.yaml")),
    ("workloads.yaml", include_str!("rules/workloads.yaml")),
    ("traffic.yaml", include_str!("rules/traffic.yaml")),
    ("security.yaml", include_str!("rules/security.yaml")),
];

/// The directories of a run: `rules`, `data`, `logs`.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    /// Removes the directory when the run ends; `None` if it is to stay.
    _temporary: Option<TempDir>,
}

/// The addresses of a run, by name: `web.cart` is where web's Envoy listens for calls to cart.
#[derive(Debug)]
pub(super) struct Addresses(Vec<(&'static str, Port)>);

// === impl Layout ===

impl Layout {
    /// Makes the directories: in `directory`, which stays, or in a temporary one, which stays if `keep` says so.
    pub(super) fn create(directory: Option<&Path>, keep: bool) -> anyhow::Result<Self> {
        let (root, temporary) = match directory {
            Some(directory) => (directory.to_path_buf(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("chancery-demo-").tempdir();
                let temporary = temporary.context("cannot make a temporary directory")?;
                if keep { (temporary.keep(), None) } else { (temporary.path().to_path_buf(), Some(temporary)) }
            }
        };
        let layout = Self { root, _temporary: temporary };
        let rules = layout.rules();
        ensure!(!rules.exists(), "{} already exists: name a new directory with --dir", rules.display());
        for directory in [&rules, &layout.data(), &layout.logs()] {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        // Children are given paths whatever directory they run in.
        let root = layout.root.canonicalize().with_context(|| format!("cannot find {}", layout.root.display()))?;
        Ok(Self { root, ..layout })
    }

    /// The directory of everything.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What the user edits.
    pub(super) fn rules(&self) -> PathBuf {
        self.root.join("rules")
    }

    /// The control plane's own.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What the processes say, a file each.
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Writes the rules.
    pub(super) fn write_rules(&self, addresses: &Addresses) -> anyhow::Result<()> {
        for (name, text) in FILES {
            let path = self.rules().join(name);
            std::fs::write(&path, addresses.fill(text)).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

// === impl Addresses ===

impl Addresses {
    /// Reserves a port for each name.
    pub(super) fn reserve(names: &[&'static str]) -> anyhow::Result<Self> {
        let ports = names.iter().map(|name| Ok((*name, Port::reserve()?)));
        Ok(Self(ports.collect::<std::io::Result<_>>().context("cannot find free ports")?))
    }

    /// The address of this name, which is one of those that were reserved.
    pub(super) fn of(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let port = self.0.iter().find(|(reserved, _)| *reserved == name).map(|(_, port)| port.loopback());
        port.with_context(|| format!("no port was reserved for {name}"))
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, port)| {
            text.replace(&format!("<{name}>"), &port.loopback().to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use translators::mesh::resolve;
    use translators::rules;

    use super::*;
    use crate::demo::mesh::ADDRESSES;

    #[test]
    fn the_rules_are_complete_and_nothing_is_to_be_said_against_them() {
        let layout = Layout::create(None, false).expect("a temporary directory");
        let addresses = Addresses::reserve(&ADDRESSES).expect("there are free ports");
        layout.write_rules(&addresses).expect("the directory is ours");
        let parsed = FILES.map(|(name, _)| {
            let text = std::fs::read_to_string(layout.rules().join(name)).expect("the file was written");
            rules::parse(name, &text)
        });
        let collected = rules::collect(parsed);
        let resolution = resolve::resolve(&collected.objects);
        let findings: Vec<String> =
            collected.findings.iter().chain(&resolution.all_findings()).map(ToString::to_string).collect();
        assert_eq!((collected.objects.len(), findings), (13, Vec::new()));
    }

    #[test]
    fn a_temporary_directory_goes_and_a_named_one_stays() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let named = outer.path().join("demo");
        let temporary = Layout::create(None, false).expect("a temporary directory");
        let gone = temporary.root().to_path_buf();
        drop(temporary);
        drop(Layout::create(Some(&named), false).expect("a new directory"));
        assert_eq!((gone.exists(), named.join("rules").exists()), (false, true));
        let again = Layout::create(Some(&named), false).expect_err("it has rules in it");
        assert!(again.to_string().ends_with("already exists: name a new directory with --dir"), "{again}");
    }
}
