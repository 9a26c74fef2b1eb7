//! Golden: every golden case, as a static configuration, is taken by Envoy itself.
//!
//! Owns: the list of cases and their workloads, and the verdict on each. May use: `chancery translate`, a stock Envoy,
//! native or in docker. Never: judges a configuration itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use futures::stream::{StreamExt, TryStreamExt};
use translators::mesh::resolve;
use translators::rules;

use crate::harness::{EnvoySource, chancery_binary, root};
use crate::mutation::mutated;

/// The file of a case that people write.
const RULES: &str = "1-rules.yaml";
/// How many are validated at once.
const AT_ONCE: usize = 2;

/// What came of the cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// How many were taken.
    pub passed: usize,
    /// How many were not.
    pub failed: usize,
}

/// One workload or EnvoySnapshot of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    case: String,
    rules: PathBuf,
    /// `--workload` or `--snapshot`.
    option: &'static str,
    name: String,
}

/// Has `source` validate every workload and every EnvoySnapshot of every case whose name contains `filter`, as they are
/// translated for its `version`, such as `1.36`; prints a line for each.
pub async fn validate_all(source: &EnvoySource, version: &str, filter: &str) -> anyhow::Result<Verdicts> {
    validate_in(&root().join("testdata/cases"), source, version, filter).await
}

/// The same of `count` cases that nobody wrote, from the seed `seed` on: whatever is made of them, Envoy takes it.
pub async fn validate_mutated(source: &EnvoySource, version: &str, seed: u64, count: u64) -> anyhow::Result<Verdicts> {
    let mut cases = Vec::new();
    for directory in entries(&root().join("testdata/cases"))? {
        cases.push(std::fs::read_to_string(directory.join(RULES)).with_context(|| directory.display().to_string())?);
    }
    let seeds = seed..seed.saturating_add(count);
    let mutants = seeds.map(|seed| (format!("{seed:08}"), mutated(&cases, seed).into_bytes()));
    validate_texts(source, version, mutants).await
}

/// The same of the texts in the files of a folder, such as those that a fuzzer has kept; of many, `at_most` so many.
pub async fn validate_files(
    source: &EnvoySource,
    version: &str,
    folder: &Path,
    at_most: usize,
) -> anyhow::Result<Verdicts> {
    let mut texts = Vec::new();
    let files = entries(folder)?;
    for path in files.iter().step_by(files.len().div_ceil(at_most.max(1)).max(1)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        texts.push((name, std::fs::read(path).with_context(|| path.display().to_string())?));
    }
    validate_texts(source, version, texts).await
}

async fn validate_texts(
    source: &EnvoySource,
    version: &str,
    texts: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> anyhow::Result<Verdicts> {
    let cases = tempfile::tempdir()?;
    for (name, text) in texts {
        let directory = cases.path().join(name);
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join(RULES), text)?;
    }
    validate_in(cases.path(), source, version, "").await
}

async fn validate_in(cases: &Path, source: &EnvoySource, version: &str, filter: &str) -> anyhow::Result<Verdicts> {
    let chancery = chancery_binary().await?;
    let subjects = subjects(cases, filter)?;
    ensure!(!subjects.is_empty(), "there are no cases");
    let total = subjects.len();
    let verdicts = futures::stream::iter(subjects.into_iter().enumerate()).map(async |(number, subject)| {
        let verdict = validate(chancery, source, version, &subject).await?;
        anyhow::Ok((number, subject, verdict))
    });
    let mut verdicts = std::pin::pin!(verdicts.buffered(AT_ONCE));
    let mut counts = Verdicts::default();
    while let Some((number, subject, verdict)) = verdicts.try_next().await? {
        let name = format!("[{}/{total}] {} {}", number + 1, subject.case, subject.name);
        match verdict {
            Ok(()) => {
                counts.passed += 1;
                println!("{name}: ok");
            }
            Err(reason) => {
                counts.failed += 1;
                println!("{name}: FAILED\n  {}", reason.replace('\n', "\n  "));
            }
        }
    }
    Ok(counts)
}

/// Every workload and every EnvoySnapshot of every case, in order.
fn subjects(cases: &Path, filter: &str) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for directory in entries(cases)? {
        let case = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rules = directory.join(RULES);
        if !case.contains(filter) || !rules.exists() {
            continue;
        }
        let text = std::fs::read(&rules).with_context(|| rules.display().to_string())?;
        let Ok(text) = String::from_utf8(text) else { continue };
        subjects.extend(served(&text).into_iter().map(|(option, name)| Subject {
            case: case.clone(),
            rules: rules.clone(),
            option,
            name,
        }));
    }
    Ok(subjects)
}

/// What a folder holds, in order.
fn entries(cases: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut directories: Vec<PathBuf> = std::fs::read_dir(cases)
        .with_context(|| format!("cannot read {}", cases.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    directories.sort();
    Ok(directories)
}

/// What these rules come to that proxies are served, whatever else is wrong in them, with its option.
fn served(text: &str) -> Vec<(&'static str, String)> {
    let collected = rules::collect([rules::parse("1-rules.yaml", text)]);
    let mesh = resolve::resolve(&collected.objects).mesh;
    let workloads = mesh.workloads.keys().map(|name| ("--workload", name.to_string()));
    workloads.chain(mesh.snapshots.keys().map(|name| ("--snapshot", name.to_string()))).collect()
}

async fn validate(
    chancery: &Path,
    source: &EnvoySource,
    version: &str,
    subject: &Subject,
) -> anyhow::Result<Result<(), String>> {
    let mut translate = tokio::process::Command::new(chancery);
    translate.arg("translate").arg("-f").arg(&subject.rules);
    translate.args([subject.option, &subject.name, "-o", "bootstrap", "--envoy-version", version]);
    translate.stdin(Stdio::null()).kill_on_drop(true);
    let output = translate.output().await.context("cannot run chancery translate")?;
    if !output.status.success() {
        return Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("envoy.yaml");
    std::fs::write(&config, &output.stdout)?;
    source.validate(&config).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_case_serves_are_its_subjects_whatever_else_is_wrong_in_it() {
        let cases = tempfile::tempdir().expect("a temporary directory");
        let workload = |name: &str| {
            format!(
                "---\napiVersion: chancery.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{match: {{nodeId: {name}}}}}\n"
            )
        };
        let snapshot =
            workload("raw").replace("kind: Workload", "kind: EnvoySnapshot").replace("raw}}", "raw}, resources: []}");
        let rules = snapshot + &workload("cart") + "---\nkind: [\n" + &workload("web");
        for case in ["b", "a"] {
            std::fs::create_dir(cases.path().join(case)).expect("the directory is ours");
            std::fs::write(cases.path().join(case).join("1-rules.yaml"), &rules).expect("the directory is ours");
        }
        let of_case = |case: &'static str| {
            let one = |(option, name): (&'static str, &str)| Subject {
                case: case.to_owned(),
                rules: cases.path().join(case).join("1-rules.yaml"),
                option,
                name: name.to_owned(),
            };
            [("--workload", "shop/cart"), ("--workload", "shop/web"), ("--snapshot", "shop/raw")].map(one)
        };
        assert_eq!(subjects(cases.path(), "").expect("cases"), [of_case("a"), of_case("b")].concat());
        assert_eq!(subjects(cases.path(), "b").expect("cases"), of_case("b"));
    }
}
