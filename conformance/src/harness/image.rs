//! Image: a container image of a stock Envoy binary, made from scratch.
//!
//! Owns: what is in it: the binary, the libraries that it is linked with, and a bundle of authorities where the
//! stock images have theirs. May use: `ldd` and docker. Never: pulls a base image, trusts a real authority.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use chancery::envoy::EnvoyBinary;
use tokio::process::Command;

use super::https::Authority;

/// Where the stock images keep the authorities that the system trusts: what `ca: system` is read from.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Builds the image of this binary and returns its name. Layers that exist already are used again.
pub async fn build_image(envoy: &EnvoyBinary) -> anyhow::Result<String> {
    let context = tempfile::tempdir()?;
    let tree = context.path().join("root");
    copy(&envoy.path, &tree.join("envoy"))?;
    for library in libraries(&envoy.path).await? {
        copy(&library, &tree.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    write(&tree.join(AUTHORITIES), &Authority::new("an authority of the image")?.pem)?;
    let dockerfile = "FROM scratch\nCOPY root /\nENTRYPOINT [\"/envoy\"]\n";
    std::fs::write(context.path().join("Dockerfile"), dockerfile)?;
    let image = format!("chancery-envoy:{}", envoy.version);
    let mut docker = Command::new("docker");
    docker.args(["build", "--tag", &image]).arg(context.path()).stdin(Stdio::null()).kill_on_drop(true);
    let built = docker.stdout(std::io::stderr()).status().await.context("cannot run docker: install docker.io")?;
    ensure!(built.success(), "docker cannot build the image ({built}): is its engine running?");
    Ok(image)
}

/// The files that the dynamic linker would load, the linker itself included.
async fn libraries(binary: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(binary).stdin(Stdio::null()).output().await.context("cannot run ldd")?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    Ok(loaded(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in `libm.so.6 => /lib/libm.so.6 (0x...)` and `/lib64/ld-linux.so.2 (0x...)`.
fn loaded(ldd: &str) -> Vec<PathBuf> {
    let words = ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    make_directory_of(path)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    make_directory_of(to)?;
    std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn make_directory_of(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().context("a file is in a directory")?;
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f44)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x7f45)\n";
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(loaded(printed), expected.map(PathBuf::from));
    }
}
