//! The commands that need no server: `validate`, `analyze`, `translate`, `explain` and
//! `describe`.

use std::path::PathBuf;
use std::process::Output;

use conformance::harness::{chancery_binary, root};
use serde_json::Value;

fn case(name: &str) -> String {
    let path: PathBuf = root().join("testdata/cases").join(name).join("1-rules.yaml");
    path.display().to_string()
}

async fn chancery(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(tokio::process::Command::new(chancery_binary().await?).args(arguments).output().await?)
}

#[tokio::test]
async fn validate_says_what_is_wrong_in_one_line_each_and_exits_1_on_errors() -> anyhow::Result<()> {
    let valid = chancery(&["validate", "-f", &case("canary")]).await?;
    assert_eq!((valid.status.code(), valid.stdout), (Some(0), Vec::new()));

    let file = case("dangling-reference");
    let invalid = chancery(&["validate", "-f", &file]).await?;
    assert_eq!(invalid.status.code(), Some(1));
    let text = String::from_utf8(invalid.stdout)?;
    assert!(text.lines().count() > 0);
    for line in text.lines() {
        let place = line.strip_prefix(&format!("{file}:")).expect("the file comes first");
        let numbers: Vec<u32> = place.splitn(3, ':').take(2).filter_map(|number| number.parse().ok()).collect();
        assert_eq!(numbers.len(), 2, "line and column: {line}");
        assert!(place.contains("MX0"), "{line}");
    }

    let json = chancery(&["validate", "-f", &file, "-o", "json"]).await?;
    let findings: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(findings.as_array().map(Vec::len), Some(text.lines().count()));

    let missing = chancery(&["validate", "-f", "/nowhere/at/all"]).await?;
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr)?.contains("/nowhere/at/all"));
    Ok(())
}

#[tokio::test]
async fn the_rules_of_the_readme_are_right() -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let blocks: Vec<&str> = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1, "each block is to be tried");
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("rules.yaml"), blocks[0])?;
    let path = directory.path().display().to_string();
    let output = chancery(&["validate", "-f", &path, "--fail-on", "warning"]).await?;
    assert_eq!((output.status.code(), String::from_utf8(output.stdout)?), (Some(0), String::new()));
    let listed = chancery(&["translate", "-f", &path, "--workload", "shop/cart-v1", "-o", "json"]).await?;
    let resources: Value = serde_json::from_slice(&listed.stdout)?;
    assert_eq!(resources["LDS"][0]["name"], "in/shop/cart/http");
    Ok(())
}

#[tokio::test]
async fn warnings_fail_only_when_they_are_asked_to() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rules.yaml");
    let canary = std::fs::read_to_string(case("canary"))?;
    std::fs::write(&file, canary.replace("version: v2}]", "version: v9}]"))?;
    let file = file.display().to_string();
    assert_eq!(chancery(&["validate", "-f", &file]).await?.status.code(), Some(0));
    assert_eq!(chancery(&["validate", "-f", &file, "--fail-on", "warning"]).await?.status.code(), Some(1));
    Ok(())
}

#[tokio::test]
async fn translate_prints_the_same_resources_as_json_and_yaml_with_any_expanded() -> anyhow::Result<()> {
    let file = case("canary");
    let run = async |output| chancery(&["translate", "-f", &file, "--workload", "front/web", "-o", output]).await;
    let json: Value = serde_json::from_slice(&run("json").await?.stdout)?;
    let yaml: Value = serde_saphyr::from_slice(&run("yaml").await?.stdout)?;
    assert_eq!(json, yaml);
    assert_eq!(json["LDS"][0]["name"], "out/shop/cart/http");
    let filter = &json["LDS"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    assert_eq!(filter["@type"], hcm);
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let last = filter["http_filters"].as_array().and_then(|filters| filters.last());
    assert_eq!(last.map(|last| &last["typed_config"]["@type"]), Some(&Value::from(router)));
    let clusters: Vec<_> = json["CDS"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(clusters, ["out/shop/cart/http/version=v1", "out/shop/cart/http/version=v2"]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_workload_is_an_error_that_lists_the_known() -> anyhow::Result<()> {
    let unknown = chancery(&["translate", "-f", &case("canary"), "--workload", "front/wbe"]).await?;
    assert_eq!(unknown.status.code(), Some(2));
    let text = String::from_utf8(unknown.stderr)?;
    assert!(text.contains("front/wbe") && text.contains("front/web") && text.contains("shop/cart-v1"), "{text}");
    Ok(())
}

#[tokio::test]
async fn explain_knows_every_kind_and_says_what_was_meant() -> anyhow::Result<()> {
    let kinds = chancery(&["explain"]).await?;
    assert_eq!(kinds.status.code(), Some(0));
    let kinds = String::from_utf8(kinds.stdout)?;
    let said = |line: &str| {
        line.split_once(' ').is_some_and(|(kind, what)| {
            (kind, what.trim()) == ("TrafficRoute", "How requests to a service or a gateway are routed")
        })
    };
    assert!(kinds.lines().any(said), "{kinds}");

    let field = chancery(&["explain", "mtlspolicy.mode", "-o", "json"]).await?;
    let field: Value = serde_json::from_slice(&field.stdout)?;
    let choices: Vec<_> = field["choices"].as_array().into_iter().flatten().map(|choice| &choice["value"]).collect();
    assert_eq!((&field["field"], &field["presence"]), (&Value::from("MTLSPolicy.spec.mode"), &Value::from("required")));
    assert_eq!(choices, ["strict", "permissive", "disabled"]);

    let unknown = chancery(&["explain", "TrafficRoute.spec.http.timout"]).await?;
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8(unknown.stderr)?;
    assert!(said.ends_with("stickyBy, timeout, to; did you mean \"timeout\"?\n"), "{said}");
    Ok(())
}

#[tokio::test]
async fn an_example_of_explain_is_valid_where_what_it_names_exists() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::copy(case("canary"), directory.path().join("canary.yaml"))?;
    let field = chancery(&["explain", "TrafficPolicy.outbound.timeouts.request", "-o", "json"]).await?;
    let field: Value = serde_json::from_slice(&field.stdout)?;
    std::fs::write(directory.path().join("example.yaml"), field["example"].to_string())?;
    let valid = chancery(&["validate", "-f", &directory.path().display().to_string(), "--fail-on", "warning"]).await?;
    assert_eq!((String::from_utf8(valid.stdout)?, valid.status.code()), (String::new(), Some(0)));
    Ok(())
}

#[tokio::test]
async fn describe_says_which_line_a_value_comes_from() -> anyhow::Result<()> {
    let file = case("example-of-the-rule-language");
    let text = chancery(&["describe", "service", "shop/cart", "-f", &file]).await?;
    assert_eq!(text.status.code(), Some(0));
    let line = std::fs::read_to_string(&file)?
        .lines()
        .position(|line| line.trim_start().starts_with("timeout:"))
        .map(|at| at + 1);
    let json = chancery(&["describe", "service", "shop/cart", "-f", &file, "-o", "json"]).await?;
    let json: Value = serde_json::from_slice(&json.stdout)?;
    let sections = json["sections"].as_array().into_iter().flatten();
    let values: Vec<&Value> = sections.filter_map(|section| section["values"].as_array()).flatten().collect();
    let timeouts =
        values.iter().filter(|value| value["from"]["pointer"].as_str().is_some_and(|at| at.ends_with("/timeout")));
    let lines: Vec<Option<u64>> = timeouts.map(|value| value["from"]["line"].as_u64()).collect();
    assert_eq!(lines, [line.map(|line| line as u64)]);

    let unknown = chancery(&["describe", "service", "shop/crat", "-f", &file]).await?;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr)?.contains("did you mean \"shop/cart\"?"));
    Ok(())
}

#[tokio::test]
async fn analyze_says_of_files_what_validate_says() -> anyhow::Result<()> {
    let file = case("dangling-reference");
    let validate = chancery(&["validate", "-f", &file]).await?;
    let analyze = chancery(&["analyze", "-f", &file]).await?;
    assert_eq!((analyze.stdout, analyze.status.code()), (validate.stdout.clone(), Some(1)));
    let json: Value = serde_json::from_slice(&chancery(&["analyze", "-f", &file, "-o", "json"]).await?.stdout)?;
    let findings: Vec<&Value> = json["findings"].as_array().into_iter().flatten().collect();
    let lines: Vec<_> = findings.iter().filter_map(|finding| finding["text"].as_str()).collect();
    assert_eq!(lines.join("\n") + "\n", String::from_utf8(validate.stdout)?);
    let codes: Vec<_> = findings.iter().filter_map(|finding| finding["code"].as_str()).collect();
    let suppressed = codes.iter().flat_map(|code| ["--suppress", code]);
    let all: Vec<_> = ["analyze", "-f", &file, "--fail-on", "warning"].into_iter().chain(suppressed).collect();
    let nothing = chancery(&all).await?;
    assert_eq!(
        (String::from_utf8(nothing.stdout)?, nothing.status.code()),
        ("nothing is wrong with the rules\n".to_owned(), Some(0))
    );
    Ok(())
}
