//! The tree's own rules: layering, size of files, module headers, folders.
//!
//! What the compiler cannot enforce is checked here. The table of layers is the architecture: a new line in
//! it is a change of design.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most production lines in a file.
const MAX_LINES: usize = 500;

/// Which modules of the root crate each module may use. `*` is every one.
const LAYERS: &[(&str, &[&str])] = &[
    ("bell", &[]),
    ("config", &[]),
    ("clock", &[]),
    ("cores", &[]),
    ("descriptors", &[]),
    ("durable", &[]),
    ("task", &[]),
    ("envoy", &["config"]),
    ("escape", &[]),
    ("pace", &[]),
    ("ports", &[]),
    ("report", &[]),
    ("sources", &["durable", "report"]),
    ("fold", &["sources"]),
    ("snapshot", &[]),
    ("journal", &["durable"]),
    ("translate", &["cores", "fold", "journal", "snapshot", "sources"]),
    ("ca", &["clock", "cores", "durable"]),
    ("identity", &["ca", "clock", "durable"]),
    ("materials", &["ca", "clock", "translate"]),
    ("publish", &["ca", "materials", "snapshot", "translate"]),
    ("settled", &["publish", "report", "sources"]),
    ("stream", &["bell", "publish", "report"]),
    ("telemetry", &[]),
    ("admission", &["identity", "publish", "stream", "telemetry", "translate"]),
    ("csds", &["report", "stream"]),
    ("admin", &["csds", "escape", "report", "telemetry"]),
    ("demo", &["admin", "config", "envoy", "escape", "pace", "ports", "task"]),
    ("server", &["admission", "bell", "csds", "identity", "report", "stream", "task", "telemetry"]),
    ("wanted", &["ca", "translate"]),
    ("status", &["admin", "ca", "materials", "translate"]),
    ("app", &["*"]),
    ("cli", &["*"]),
];

/// The folders that the top level may have.
const FOLDERS: &[&str] = &["src", "proto", "translators", "testdata", "conformance", "deploy", ".ci", ".git", "target"];

/// What has no place in committed code.
const MARKS: &[&str] = &["todo!(", "unimplemented!(", "#[ignore", "dbg!(", "TODO", "FIXME", "XXX"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder").to_owned()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of the tree") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    rust_files(&root(), &mut found);
    assert!(found.len() > 30, "the tree has Rust files");
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            (path.strip_prefix(root()).expect("below the root").to_owned(), text)
        })
        .collect()
}

/// The part of a file before its tests.
fn production(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert_eq!(silent, Vec::<PathBuf>::new(), "these open without //!");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, production(&text).count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert_eq!(long, vec![], "split these by topic");
}

#[test]
fn nothing_is_left_undone() {
    let mut marks = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.ends_with("tidy.rs")) {
        for (number, line) in text.lines().enumerate() {
            if MARKS.iter().any(|mark| line.contains(mark)) {
                marks.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_eq!(marks, Vec::<String>::new());
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let Ok(inside) = path.strip_prefix("src") else { continue };
        let module = inside.components().next().expect("a file in src").as_os_str().to_string_lossy();
        let module = module.trim_end_matches(".rs");
        if module == "main" || module == "lib" {
            continue;
        }
        let Some(allowed) = layers.get(module) else {
            wrong.push(format!("{}: the module {module} has no line in the table of layers", path.display()));
            continue;
        };
        for line in production(&text) {
            for used in line.match_indices("crate::").map(|(at, _)| &line[at + 7..]) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !used.is_empty() && used != module && !allowed.contains(&"*") && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}: {module} may not use {used}", path.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn translators_are_pure() {
    let banned =
        ["std::time::SystemTime", "std::time::Instant", "std::env", "std::fs", "HashMap", "HashSet", "tokio", "tonic"];
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("translators/src")) {
        for (number, line) in production(&text).enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if banned.iter().any(|word| code.contains(word)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_top_level_is_the_fixed_one() {
    let extra: Vec<String> = std::fs::read_dir(root())
        .expect("the root")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !FOLDERS.contains(&name.as_str()))
        .collect();
    assert_eq!(extra, Vec::<String>::new());
}
