//! Candidate: whether a file passes for a stock Envoy.
//!
//! Owns: the two questions that are asked of a file: is it an ELF executable, and does it say its version as
//! Envoy does. May use: the file itself. Never: trusts a name.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::Unfit;

/// The oldest minor release whose features the generated configuration relies on.
const OLDEST: (u32, u32) = (1, 36);
/// How long a binary may take to say its version; a cold 100 MB file on a slow disk takes a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// The release of the Envoy at `path`, if it is one, and the one that is wanted.
pub(super) async fn fit(path: &Path, wanted: Option<&str>) -> Result<String, Unfit> {
    let mut magic = [0; 4];
    let read = tokio::fs::File::open(path).await?.read_exact(&mut magic).await;
    if read.is_err() || magic != *b"\x7fELF" {
        return Err(Unfit::NotElf);
    }
    let answer = Command::new(path).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_elapsed| Unfit::Mute)??;
    let found = release(&String::from_utf8_lossy(&answer.stdout)).filter(|_| answer.status.success());
    let found = found.ok_or(Unfit::Mute)?;
    match wanted {
        Some(wanted) if wanted != found => Err(Unfit::Version { found, wanted: wanted.to_owned() }),
        None if minor(&found).is_none_or(|minor| minor < OLDEST) => {
            Err(Unfit::Version { found, wanted: format!("{}.{} or newer", OLDEST.0, OLDEST.1) })
        }
        Some(_) | None => Ok(found),
    }
}

/// `1.40.0` of `envoy  version: 9e55...23/1.40.0/Clean/RELEASE/BoringSSL`.
fn release(answer: &str) -> Option<String> {
    let (_, build) = answer.split_once("version: ")?;
    let release = build.split('/').nth(1)?;
    minor(release).map(|_| release.to_owned())
}

fn minor(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_envoys_own_words() {
        let answers = [
            ("\nenvoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL\n", Some("1.40.0")),
            ("envoy  version: 9e5580/1.41.0-dev/Modified/DEBUG/BoringSSL", Some("1.41.0-dev")),
            ("some tool 1.40.0", None),
            ("version: 9e5580", None),
            ("", None),
        ];
        for (answer, expected) in answers {
            assert_eq!(release(answer).as_deref(), expected, "{answer:?}");
        }
    }
}
