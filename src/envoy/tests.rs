//! What passes for an Envoy, in which order, and the one copy that several askers share.

use std::os::unix::fs::PermissionsExt;

use super::*;

const SCRIPT: &str = "#!/bin/sh\necho 'envoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL'\n";

fn script(directory: &Path) -> PathBuf {
    let path = directory.join("envoy");
    std::fs::write(&path, SCRIPT).expect("the directory is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    path
}

#[tokio::test]
async fn a_wrapper_is_refused_when_it_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = script(directory.path());
    let request = EnvoyRequest { explicit: Some(path.clone()), version: None };
    let error = locate(&request, &Environment::default()).await.expect_err("a script is no envoy");
    assert_eq!(error.to_string(), format!("{} (--envoy) cannot be used as envoy", path.display()));
    assert!(matches!(error, EnvoyError::Refused { source: Unfit::NotElf, .. }), "{error:?}");

    let environment = Environment { envoy_bin: Some(path), ..Environment::default() };
    let error = locate(&EnvoyRequest::default(), &environment).await.expect_err("a script is no envoy");
    assert!(matches!(error, EnvoyError::Refused { source: Unfit::NotElf, .. }), "{error:?}");
}

#[tokio::test]
async fn an_elf_file_that_is_no_envoy_is_refused() {
    let ourselves = std::env::current_exe().expect("the test binary has a path");
    let request = EnvoyRequest { explicit: Some(ourselves), version: None };
    let error = locate(&request, &Environment::default()).await.expect_err("a test binary is no envoy");
    assert!(matches!(error, EnvoyError::Refused { source: Unfit::Mute, .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_merely_on_the_path_is_passed_over() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    script(directory.path());
    let environment = Environment { path: Some(directory.path().into()), ..Environment::default() };
    let error = locate(&EnvoyRequest::default(), &environment).await.expect_err("there is no other");
    assert!(matches!(error, EnvoyError::NoCache), "{error:?}");
}
