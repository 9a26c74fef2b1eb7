//! A stock Envoy is obtained once, whoever asks, and is found in the cache from then on.

use chancery::config::Environment;
use chancery::envoy::{DEFAULT_VERSION, EnvoyBinary, EnvoyRequest, Found, locate};

#[tokio::test]
async fn two_askers_obtain_one_envoy() {
    let cache = tempfile::tempdir().expect("a temporary directory");
    let environment = Environment { xdg_cache_home: Some(cache.path().into()), ..Environment::default() };
    let request = EnvoyRequest::default();
    let (one, other) = tokio::join!(locate(&request, &environment), locate(&request, &environment));
    let (one, other) = (one.expect("envoy is obtained"), other.expect("envoy is obtained"));
    let expected = |found| EnvoyBinary {
        path: cache.path().join("chancery/peers/envoy").join(DEFAULT_VERSION).join("envoy"),
        version: DEFAULT_VERSION.to_owned(),
        found,
    };
    let mut found = [one, other];
    found.sort_by_key(|binary| binary.found == Found::Obtained);
    assert_eq!(found, [expected(Found::Cache), expected(Found::Obtained)]);

    let again = locate(&request, &environment).await.expect("it is still there");
    assert_eq!(again, expected(Found::Cache));
}
