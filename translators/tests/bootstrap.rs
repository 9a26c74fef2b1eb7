//! Bootstraps as a whole: `bootstrap/*.yaml` are what an operator reads.

use std::time::Duration;

use serde_json::Value;
use translators::json;
use translators::xds::bootstrap::{AdsProtocol, BootstrapOptions, Credential, DEFAULT_ADMIN, Node, Server, bootstrap};

fn options() -> BootstrapOptions {
    let metadata = [("zone".to_owned(), "a".to_owned()), ("release".to_owned(), "1.10".to_owned())].into();
    BootstrapOptions {
        node: Node { id: "cart-v1-0".into(), cluster: "shop/cart-v1".into(), metadata, locality: None },
        server: Server { host: "127.0.0.1".into(), port: 18000 },
        control_plane_ca_pem: "authority".into(),
        credential: Credential::File { path: "/etc/chancery/credential.yaml".into() },
        admin: DEFAULT_ADMIN,
        protocol: AdsProtocol::Delta,
        stats_flush_interval: Duration::from_secs(5),
        all_stats: false,
    }
}

fn printed(options: &BootstrapOptions) -> String {
    json::to_yaml(&json::message(&bootstrap(options)))
}

#[test]
fn the_usual_one() {
    assert_eq!(printed(&options()), include_str!("bootstrap/delta.yaml"));
}

#[test]
fn by_name_with_everything_inline() {
    let options = BootstrapOptions {
        server: Server { host: "control.example".into(), port: 443 },
        credential: Credential::Inline { chain_pem: "chain".into(), key_pem: "key".into() },
        protocol: AdsProtocol::Sotw,
        all_stats: true,
        ..options()
    };
    assert_eq!(printed(&options), include_str!("bootstrap/sotw.yaml"));
    assert!(!format!("{options:?}").contains("key_pem"));
}

#[test]
fn the_folder_of_a_credential_is_watched() {
    for (path, sent, folder) in
        [("/a/b.yaml", "/a/b.yaml", "/a"), ("b.yaml", "./b.yaml", "."), ("/b.yaml", "/b.yaml", "/")]
    {
        let value = json::message(&bootstrap(&BootstrapOptions {
            credential: Credential::File { path: path.into() },
            ..options()
        }));
        let context =
            &value["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"];
        let source = &context["tls_certificate_sds_secret_configs"][0]["sds_config"]["path_config_source"];
        let expected: Value = serde_json::json!({"path": sent, "watched_directory": {"path": folder}});
        assert_eq!(source, &expected);
    }
}
