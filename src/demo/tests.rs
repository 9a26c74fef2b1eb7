//! What becomes of a run whose control plane does not start, or that is ended before it has.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::Mutex;

use super::*;

/// A signal is for every run of this process.
static ONE_RUN: Mutex<()> = Mutex::const_new(());

/// A run with this script as the `chancery` binary.
async fn run_with(script: &str, directory: &Path, named: Option<PathBuf>) -> anyhow::Result<Option<Summary>> {
    let _alone = ONE_RUN.lock().await;
    let chancery = directory.join("chancery");
    std::fs::write(&chancery, script).expect("the directory is ours");
    std::fs::set_permissions(&chancery, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let options = Options {
        envoy: None,
        duration: Some(SECOND),
        quiet_stdout: true,
        directory: named,
        keep: false,
        rate: 100,
        chancery,
    };
    let envoy = EnvoyBinary { path: "/nonexistent/envoy".into(), version: "1.40.0".to_owned(), found: Found::Explicit };
    let mut tasks = Tasks::default();
    let stop = stop_on_signal(&mut tasks).expect("signals can be waited for");
    let mut view = View::new(Output::Stderr);
    run_mesh(&options, &envoy, tasks, &stop, &mut view).await
}

#[tokio::test]
async fn a_control_plane_that_ends_is_an_error_with_its_last_words() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let script = "#!/bin/sh\necho cannot bind >&2\nexit 3\n";
    let error = run_with(script, directory.path(), Some(directory.path().join("demo"))).await;
    let error = error.expect_err("there is no control plane");
    let log = directory.path().canonicalize().expect("it exists").join("demo/logs/control-plane.log");
    assert_eq!(
        error.to_string(),
        format!("control plane ended by itself; the end of {}:\n  cannot bind", log.display())
    );
}

#[tokio::test]
async fn a_closed_terminal_leaves_no_process_and_no_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let started = directory.path().join("started");
    let script = format!("#!/bin/sh\necho $$ $3 > {0}.part && mv {0}.part {0}\nexec sleep 60\n", started.display());
    let hang_up = async {
        while !started.exists() {
            tokio::time::sleep(LOOK).await;
        }
        let said = std::fs::read_to_string(&started).expect("the script wrote it");
        let (child, rules) = said.trim().split_once(' ').expect("an id and a directory");
        let left = [Path::new("/proc").join(child), PathBuf::from(rules), PathBuf::from(rules).join("..")];
        assert_eq!(left.clone().map(|path| path.exists()), [true; 3], "{said}");
        kill_process(getpid(), Signal::HUP).expect("it is our own process");
        left
    };
    let both = async { tokio::join!(run_with(&script, directory.path(), None), hang_up) };
    let (run, left) = tokio::time::timeout(END, both).await.expect("the signal ends the run");
    assert_eq!(run.expect("it was asked to end"), None);
    assert_eq!(left.map(|path| path.exists()), [false; 3]);
}
