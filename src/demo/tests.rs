//! What becomes of a run whose control plane does not start.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A run with this script as the `chancery` binary.
async fn run_with(script: &str, directory: &std::path::Path) -> anyhow::Error {
    let chancery = directory.join("chancery");
    std::fs::write(&chancery, script).expect("the directory is ours");
    std::fs::set_permissions(&chancery, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let options = Options {
        envoy: None,
        duration: Some(SECOND),
        quiet_stdout: true,
        directory: Some(directory.join("demo")),
        keep: false,
        rate: 100,
        chancery,
    };
    let envoy = EnvoyBinary { path: "/nonexistent/envoy".into(), version: "1.40.0".to_owned(), found: Found::Explicit };
    let mut tasks = Tasks::default();
    let stop = stop_on_signal(&mut tasks).expect("signals can be waited for");
    let mut view = View::new(Output::Stderr);
    run_mesh(&options, &envoy, tasks, &stop, &mut view).await.expect_err("there is no control plane")
}

#[tokio::test]
async fn a_control_plane_that_ends_is_an_error_with_its_last_words() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let error = run_with("#!/bin/sh\necho cannot bind >&2\nexit 3\n", directory.path()).await;
    let log = directory.path().canonicalize().expect("it exists").join("demo/logs/control-plane.log");
    assert_eq!(
        error.to_string(),
        format!("control plane ended by itself; the end of {}:\n  cannot bind", log.display())
    );
}
