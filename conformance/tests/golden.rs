//! The golden cases through a stock Envoy: `--mode validate` takes every one.

use conformance::golden::{Verdicts, validate_all, validate_mutated};
use conformance::harness::EnvoySource;

#[tokio::test]
async fn envoy_takes_every_golden_case() -> anyhow::Result<()> {
    let Verdicts { passed, failed } = validate_all(&EnvoySource::from_environment().await?, "1.40", "").await?;
    assert_eq!(failed, 0, "see the output for Envoy's own words");
    assert!(passed >= 40, "only {passed} proxies");
    Ok(())
}

#[tokio::test]
async fn the_oldest_supported_envoy_takes_what_is_translated_for_it() -> anyhow::Result<()> {
    let old = EnvoySource::release("1.36.4").await?;
    let Verdicts { passed, failed } = validate_all(&old, "1.36", "").await?;
    assert_eq!(failed, 0, "see the output for Envoy's own words");
    assert!(passed >= 40, "only {passed} proxies");
    Ok(())
}

#[tokio::test]
async fn envoy_takes_whatever_is_made_of_rules_that_nobody_wrote() -> anyhow::Result<()> {
    let source = EnvoySource::from_environment().await?;
    let Verdicts { passed, failed } = validate_mutated(&source, "1.40", 1, 40).await?;
    assert_eq!(failed, 0, "see the output for Envoy's own words");
    assert!(passed >= 20, "only {passed} proxies");
    Ok(())
}
