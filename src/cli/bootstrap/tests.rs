//! The command and what it writes.

use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::identity::credential::read;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(data: &TempDir, more: &[&str]) -> Args {
    let dir = data.path().to_str().expect("a text");
    let all = [&["bootstrap", "--data-dir", dir], more].concat();
    Command::try_parse_from(all).unwrap_or_else(|error| panic!("{error}")).args
}

#[test]
fn a_credential_file_is_rotated_and_keeps_the_node() {
    let data = tempfile::tempdir().expect("a directory");
    let path = data.path().join("credential.yaml");
    let file = path.to_str().expect("a text");
    let args = args(&data, &["--workload", "shop/cart", "--credential-file", file, "--revoke-previous"]);
    issue(&args, SystemTime::now(), &mut Vec::new()).expect("issued");
    let first = credential_file::read(&path).expect("read").expect("there");
    issue(&args, SystemTime::now(), &mut Vec::new()).expect("issued");
    let second = credential_file::read(&path).expect("read").expect("there");

    assert_eq!((&second.node_id, &second.workload), (&first.node_id, &first.workload));
    assert_ne!(second.serial, first.serial);
    let revocations = RevocationList::new(data.path()).read().expect("a list");
    assert_eq!([&first, &second].map(|credential| revocations.revoke(credential)), [true, false]);
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_new_authority_is_told_once() {
    let data = tempfile::tempdir().expect("a directory");
    let args = args(&data, &["--workload", "shop/cart"]);
    let notes = || {
        let mut notes = Vec::new();
        issue(&args, SystemTime::now(), &mut notes).map(|_| String::from_utf8(notes).expect("text"))
    };
    let expected = format!(
        "note: {} had no certificate authority; a new one was made. If a control plane already runs elsewhere, say its \
         data directory with --data-dir\n",
        data.path().display()
    );
    assert_eq!([notes().expect("issued"), notes().expect("issued")], [expected, String::new()]);
}

#[test]
fn a_lost_authority_is_not_made_anew() {
    let data = tempfile::tempdir().expect("a directory");
    let args = args(&data, &["--workload", "shop/cart", "--revoke-previous"]);
    issue(&args, SystemTime::now(), &mut Vec::new()).expect("issued");
    for file in ["ca/mesh.pem", "ca/mesh.key", "ca/control.pem", "ca/control.key"] {
        std::fs::remove_file(data.path().join(file)).expect("there");
    }
    let mut notes = Vec::new();
    let error = issue(&args, SystemTime::now(), &mut notes).expect_err("refused").to_string();
    let expected = "DIR/ca/mesh.pem and DIR/ca/mesh.key: missing, but the data directory was in use; restore its ca \
                    folder from a backup, or remove DIR/identity/revoked.json to begin anew (every certificate of the \
                    old root then stops being trusted)";
    assert_eq!(error, expected.replace("DIR", &data.path().display().to_string()));
    assert_eq!(notes, b"");
}

#[test]
fn an_inline_credential_is_in_the_bootstrap() {
    use rustls_pki_types::pem::PemObject;
    let data = tempfile::tempdir().expect("a directory");
    let document =
        issue(&args(&data, &["--node-id", "edge-1", "--no-admin", "--sotw"]), SystemTime::now(), &mut Vec::new());
    let document = document.expect("issued");
    let tls = "/static_resources/clusters/0/transport_socket/typed_config/common_tls_context";
    let chain = document.pointer(&format!("{tls}/tls_certificates/0/certificate_chain/inline_string"));
    let pem = chain.and_then(serde_json::Value::as_str).expect("inline");
    let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let credential = read(&der).expect("a credential");
    assert_eq!((credential.workload, credential.node_id.as_str()), (None, "edge-1"));
    assert_eq!(document.pointer("/node/id").and_then(serde_json::Value::as_str), Some("edge-1"));
    assert_eq!(document.get("admin"), None);
}

#[test]
fn addresses_and_durations_are_read_once() {
    let address = |text: &str| text.parse::<Address>().map(|it| (it.host, it.port.get())).ok();
    assert_eq!(address("[::1]:18000"), Some(("::1".into(), 18000)));
    assert_eq!(address("cp.example:1"), Some(("cp.example".into(), 1)));
    assert_eq!(["", "a", "a:0", ":1", "a b:1", "::1:5", "[x]:1", "a:65536"].map(address), [const { None }; 8]);
    assert_eq!(positive("8760h"), Ok(Duration::from_secs(365 * 86400)));
    assert_eq!(["0.0.0.0:18000", "[::]:18000"].map(address), [const { None }; 2]);
    assert!(
        ["", "5", "0s", "s", "-1s", "1.5h", "9999999999999999999d", "5\u{e9}"].map(positive).iter().all(Result::is_err)
    );
}
