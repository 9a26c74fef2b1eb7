//! A real directory, watched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;

fn service(name: &str) -> String {
    format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{ports: [{{name: http, port: 80, protocol: http}}]}}\n"
    )
}

fn names(state: &FileState) -> Vec<String> {
    state.objects.keys().map(|key| key.name.name.to_string()).collect()
}

struct Watched {
    state: watch::Receiver<Arc<FileState>>,
    stop: CancellationToken,
}

impl Watched {
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    fn start(dir: &Path) -> Self {
        let (sender, state) = watch::channel(Arc::<FileState>::default());
        let stop = CancellationToken::new();
        tokio::spawn(run(dir.to_owned(), sender, stop.clone()));
        Self { state, stop }
    }

    /// Waits until exactly these services are there; within a second, which is sooner than the directory is read
    /// without a notification.
    async fn sees(&mut self, expected: &[&str]) {
        let seen = self.state.wait_for(|state| state.synced && names(state) == expected);
        let in_time = tokio::time::timeout(Duration::from_secs(1), seen).await.is_ok();
        assert!(in_time, "{expected:?}, not {:?}", names(&self.state.borrow()));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn files_come_change_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.yaml"), service("a")).expect("written");
    let mut watched = Watched::start(dir.path());
    watched.sees(&["a"]).await;
    fs::write(dir.path().join("b.yml"), service("b") + "---\n" + &service("c")).expect("written");
    watched.sees(&["a", "b", "c"]).await;
    fs::write(dir.path().join("new"), service("d")).expect("written");
    fs::rename(dir.path().join("new"), dir.path().join("a.yaml")).expect("renamed");
    watched.sees(&["b", "c", "d"]).await;
    fs::write(dir.path().join("ignored.txt"), service("e")).expect("written");
    fs::write(dir.path().join(".hidden.yaml"), service("f")).expect("written");
    fs::create_dir(dir.path().join("below")).expect("made");
    fs::write(dir.path().join("below/g.yaml"), service("g")).expect("written");
    watched.sees(&["b", "c", "d", "g"]).await;
    fs::remove_file(dir.path().join("b.yml")).expect("removed");
    watched.sees(&["d", "g"]).await;
}

#[tokio::test]
async fn a_directory_that_is_a_swapped_link_is_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    for version in ["one", "two"] {
        fs::create_dir(dir.path().join(version)).expect("made");
        fs::write(dir.path().join(version).join("rules.yaml"), service(version)).expect("written");
    }
    let link = dir.path().join("rules");
    symlink("one", &link).expect("linked");
    let mut watched = Watched::start(&link);
    watched.sees(&["one"]).await;
    symlink("two", dir.path().join("next")).expect("linked");
    fs::rename(dir.path().join("next"), &link).expect("swapped");
    watched.sees(&["two"]).await;
    // It is the new directory that is watched now.
    fs::write(dir.path().join("two/more.yaml"), service("three")).expect("written");
    watched.sees(&["three", "two"]).await;
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    for version in ["..1", "..2"] {
        fs::create_dir(dir.path().join(version)).expect("made");
        fs::write(dir.path().join(version).join("rules.yaml"), service(&version.replace("..", "v"))).expect("written");
    }
    symlink("..1", dir.path().join("..data")).expect("linked");
    symlink("..data/rules.yaml", dir.path().join("rules.yaml")).expect("linked");
    let mut watched = Watched::start(dir.path());
    watched.sees(&["v1"]).await;
    symlink("..2", dir.path().join("..data_tmp")).expect("linked");
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("swapped");
    watched.sees(&["v2"]).await;
}

#[tokio::test]
async fn a_file_that_is_empty_for_a_moment_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("rules.yaml");
    fs::write(&path, service("a")).expect("written");
    let mut watched = Watched::start(dir.path());
    watched.sees(&["a"]).await;
    fs::write(&path, "").expect("emptied");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(names(&watched.state.borrow()), ["a"]);
    fs::write(&path, service("b")).expect("written");
    watched.sees(&["b"]).await;
    fs::write(&path, "").expect("emptied");
    watched.sees(&[]).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules");
    let mut watched = Watched::start(&rules);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!watched.state.borrow().synced, "nothing has been read yet");
    fs::create_dir(&rules).expect("made");
    fs::write(rules.join("a.yaml"), service("a")).expect("written");
    let seen = watched.state.wait_for(|state| state.synced && names(state) == ["a"]);
    tokio::time::timeout(REREAD * 2, seen).await.expect("in time").expect("it runs");
    fs::rename(&rules, dir.path().join("away")).expect("renamed");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(names(&watched.state.borrow()), ["a"]);
}

#[test]
fn a_broken_document_is_told_from_its_siblings() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = service("b").replace("ports:", "prots:");
    fs::write(dir.path().join("rules.yaml"), service("a") + "---\n" + &broken + "---\n" + &service("c"))
        .expect("written");
    let state = read_once(dir.path()).expect("read");
    assert_eq!(names(&state), ["a", "c"]);
    assert_eq!(state.findings.len(), 1);
    let broken: Vec<_> = state.broken.iter().map(|(_, key)| key.as_ref().map(ToString::to_string)).collect();
    assert_eq!(broken, [Some("MeshService shop/b".to_owned())]);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_finding_and_keeps_nothing_else_from_being_read() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.yaml"), service("a")).expect("written");
    symlink("loop.yaml", dir.path().join("loop.yaml")).expect("linked");
    let pipe = dir.path().join("pipe.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils are there");
    assert!(made.success());
    let mut watched = Watched::start(dir.path());
    watched.sees(&["a"]).await;
    let findings: Vec<String> = watched.state.borrow().findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings[0].contains("loop.yaml:1:1: MX0200 error: the file cannot be read: "), "{findings:?}");
    assert!(findings[1].contains("pipe.yaml:1:1: MX0200 error: the file cannot be read: it is no regular file"));
    fs::write(dir.path().join("b.yaml"), service("b")).expect("written");
    watched.sees(&["a", "b"]).await;
    // A file that becomes unreadable keeps what it held.
    fs::remove_file(dir.path().join("a.yaml")).expect("removed");
    symlink("a.yaml", dir.path().join("a.yaml")).expect("linked");
    fs::write(dir.path().join("c.yaml"), service("c")).expect("written");
    watched.sees(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn somebody_who_writes_without_end_beside_and_within_delays_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).expect("made");
    fs::write(rules.join("a.yaml"), service("a")).expect("written");
    let mut watched = Watched::start(&rules);
    watched.sees(&["a"]).await;
    let busy = async {
        loop {
            fs::write(dir.path().join("other.log"), "x").expect("written");
            fs::write(rules.join("notes.txt"), "x").expect("written");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let seen = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(rules.join("b.yaml"), service("b")).expect("written");
        watched.sees(&["a", "b"]).await;
    };
    tokio::select! { () = busy => {}, () = seen => {} }
}

#[tokio::test]
async fn directories_that_are_moved_take_their_files_along() {
    let dir = tempfile::tempdir().expect("a directory");
    let (rules, away) = (dir.path().join("rules"), dir.path().join("away"));
    fs::create_dir_all(rules.join("one")).expect("made");
    fs::write(rules.join("one/a.yaml"), service("a")).expect("written");
    fs::write(rules.join("b.yaml"), service("b")).expect("written");
    let mut watched = Watched::start(&rules);
    watched.sees(&["a", "b"]).await;
    fs::rename(rules.join("one"), &away).expect("moved");
    watched.sees(&["b"]).await;
    fs::write(away.join("c.yaml"), service("c")).expect("written");
    fs::rename(&away, rules.join("two")).expect("moved");
    watched.sees(&["a", "b", "c"]).await;
    fs::write(rules.join("two/a.yaml"), service("d")).expect("written");
    watched.sees(&["b", "c", "d"]).await;
    fs::remove_dir_all(rules.join("two")).expect("removed");
    watched.sees(&["b"]).await;
}

#[tokio::test]
async fn a_directory_that_is_made_anew_is_watched_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).expect("made");
    fs::write(rules.join("a.yaml"), service("a")).expect("written");
    let mut watched = Watched::start(&rules);
    watched.sees(&["a"]).await;
    fs::create_dir(dir.path().join("next")).expect("made");
    fs::write(dir.path().join("next/b.yaml"), service("b")).expect("written");
    fs::rename(&rules, dir.path().join("former")).expect("moved");
    fs::rename(dir.path().join("next"), &rules).expect("moved");
    watched.sees(&["b"]).await;
    fs::write(rules.join("c.yaml"), service("c")).expect("written");
    watched.sees(&["b", "c"]).await;
}

/// `count` files of three services each, written long ago.
fn many(dir: &Path, count: usize) {
    for n in 0..count {
        let text = ["x", "y", "z"].map(|which| service(&format!("{which}-{n}"))).join("---\n");
        let path = dir.join(format!("{n:04}.yaml"));
        fs::write(&path, text).expect("written");
        let file = fs::File::options().write(true).open(&path).expect("it is there");
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("dated back");
    }
}

#[tokio::test]
async fn one_edit_reads_one_file_and_parses_one_document_however_many_there_are() {
    for count in [100, 1000] {
        let dir = tempfile::tempdir().expect("a directory");
        many(dir.path(), count);
        let mut watch = Watch::new(dir.path().to_owned());
        assert!(watch.renew() && !watch.renew());
        let mut reader = Reader::new(dir.path().to_owned());
        assert!(reader.read_all());
        assert_eq!(reader.cost().since(Default::default()), (count, 3 * count));
        let start = reader.cost();
        assert!(!reader.read_all());
        assert_eq!(reader.cost().since(start), (0, 0), "what looks the same is not read");

        let path = dir.path().join("0007.yaml");
        let text = fs::read_to_string(&path).expect("it is there");
        let (before, notices) = (reader.state(), watch.notices());
        let _ = notices.take(std::time::Instant::now());
        fs::write(&path, text.replace("y-7", "other")).expect("written");
        let complete = loop {
            notices.due().await;
            let noticed = notices.take(std::time::Instant::now());
            assert!(!noticed.everything, "{noticed:?}");
            if !noticed.complete.is_empty() {
                break noticed.complete;
            }
        };
        assert_eq!(complete, [path.clone()].into());
        assert!(reader.read(&complete, false));
        assert_eq!(reader.cost().since(start), (1, 1));
        let after = reader.state();
        let untouched =
            before.objects.values().filter(|o| after.objects.get(&o.key).is_some_and(|n| Arc::ptr_eq(o, n)));
        assert_eq!((untouched.count(), after.objects.len()), (3 * count - 1, 3 * count));

        // A change of which nobody tells costs as little when everything is looked through.
        fs::write(&path, text.replace("x-7", "another")).expect("written");
        let start = reader.cost();
        assert!(reader.read_all());
        assert_eq!(reader.cost().since(start), (1, 2));
    }
}

#[test]
fn a_file_that_is_not_there_has_gone_only_when_it_is_quiet() {
    let dir = tempfile::tempdir().expect("a directory");
    many(dir.path(), 2);
    let mut reader = Reader::new(dir.path().to_owned());
    reader.read_all();
    let path = dir.path().join("0001.yaml");
    fs::remove_file(&path).expect("removed");
    assert!(!reader.read(&[path.clone()].into(), false), "another may be about to take its place");
    assert_eq!(reader.state().objects.len(), 6);
    assert!(reader.read(&[path].into(), true));
    assert_eq!(reader.state().objects.len(), 3);
}
