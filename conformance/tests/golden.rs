//! The golden cases through a stock Envoy: `--mode validate` takes every one.

use conformance::golden::{Verdicts, validate_all};
use conformance::harness::EnvoySource;

#[tokio::test]
async fn envoy_takes_every_golden_case() -> anyhow::Result<()> {
    let Verdicts { passed, failed } = validate_all(&EnvoySource::from_environment().await?, "").await?;
    assert_eq!(failed, 0, "see the output for Envoy's own words");
    assert!(passed >= 40, "only {passed} proxies");
    Ok(())
}

#[tokio::test]
async fn the_oldest_supported_envoy_takes_what_is_translated_for_it() -> anyhow::Result<()> {
    use conformance::harness::{chancery_binary, root};
    let old = EnvoySource::release("1.36.4").await?;
    for (case, workload) in [
        ("example-of-the-rule-language", "shop/cart-v1"),
        ("server-first-tcp", "shop/store"),
        ("access-operations", "shop/cart"),
        ("access-addresses", "shop/cart"),
        ("access-audit", "shop/cart"),
        ("access-tokens", "shop/cart"),
        ("edge-http", "front/edge"),
        ("edge-https", "front/edge"),
    ] {
        let rules = root().join("testdata/cases").join(case).join("1-rules.yaml");
        let mut translate = tokio::process::Command::new(chancery_binary().await?);
        translate.args(["translate", "--workload", workload, "-o", "bootstrap", "--envoy-version", "1.36", "-f"]);
        let output = translate.arg(rules).output().await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("envoy.yaml");
        std::fs::write(&config, &output.stdout)?;
        assert_eq!(old.validate(&config).await?, Ok(()), "{case} {workload}");
    }
    Ok(())
}
