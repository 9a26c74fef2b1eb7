//! Telemetry policies through real Envoys: logs, traces and labels arrive where a policy says, and say what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use conformance::harness::shop::{SOON, Shop, rule};
use conformance::harness::{App, eventually};
use opentelemetry_proto::tonic::collector::logs::v1 as logs_pb;
use opentelemetry_proto::tonic::collector::trace::v1 as trace_pb;
use opentelemetry_proto::tonic::common::v1 as common_pb;
use opentelemetry_proto::tonic::resource::v1 as resource_pb;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tonic::service::Routes;

/// What came, by name.
type Fields = BTreeMap<String, String>;

/// A collector of OpenTelemetry, and of Zipkin: what it was told.
#[derive(Debug, Clone, Default)]
struct Collected(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// The attributes of each entry, with its body as `body` and the service as `service.name`.
    logs: Vec<Fields>,
    /// Likewise; `trace`, `span`, `parent` and `kind` are what they are called.
    spans: Vec<Fields>,
}

fn text(value: Option<&common_pb::AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(common_pb::any_value::Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn fields(of: &[common_pb::KeyValue]) -> Fields {
    of.iter().map(|field| (field.key.clone(), text(field.value.as_ref()))).collect()
}

fn of_resource(resource: Option<&resource_pb::Resource>) -> Fields {
    fields(resource.map_or(&[], |resource| resource.attributes.as_slice()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl Collected ===

impl Collected {
    fn with<T>(&self, read: impl FnOnce(&mut Told) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves both services of OpenTelemetry, and Zipkin's spans.
    async fn serve(&self) -> anyhow::Result<App> {
        let otlp = Routes::new(logs_pb::logs_service_server::LogsServiceServer::new(self.clone()))
            .add_service(trace_pb::trace_service_server::TraceServiceServer::new(self.clone()));
        let zipkin = axum::Router::new().route("/spans", axum::routing::post(spans)).with_state(self.clone());
        App::serving(otlp.into_axum_router().merge(zipkin)).await
    }

    fn logs(&self) -> Vec<Fields> {
        self.with(|told| told.logs.clone())
    }

    fn spans(&self) -> Vec<Fields> {
        self.with(|told| told.spans.clone())
    }
}

#[tonic::async_trait]
impl logs_pb::logs_service_server::LogsService for Collected {
    async fn export(
        &self,
        request: tonic::Request<logs_pb::ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<logs_pb::ExportLogsServiceResponse>, tonic::Status> {
        for of in request.into_inner().resource_logs {
            let resource = of_resource(of.resource.as_ref());
            for record in of.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                let mut entry = resource.clone();
                entry.extend(fields(&record.attributes));
                if record.body.is_some() {
                    entry.insert("body".to_owned(), text(record.body.as_ref()));
                }
                self.with(|told| told.logs.push(entry));
            }
        }
        Ok(tonic::Response::new(logs_pb::ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl trace_pb::trace_service_server::TraceService for Collected {
    async fn export(
        &self,
        request: tonic::Request<trace_pb::ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<trace_pb::ExportTraceServiceResponse>, tonic::Status> {
        for of in request.into_inner().resource_spans {
            let resource = of_resource(of.resource.as_ref());
            for span in of.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let mut said = resource.clone();
                said.extend(fields(&span.attributes));
                let named = [
                    ("trace", hex(&span.trace_id)),
                    ("span", hex(&span.span_id)),
                    ("parent", hex(&span.parent_span_id)),
                    ("kind", span.kind().as_str_name().to_owned()),
                ];
                said.extend(named.map(|(name, value)| (name.to_owned(), value)));
                self.with(|told| told.spans.push(said));
            }
        }
        Ok(tonic::Response::new(trace_pb::ExportTraceServiceResponse::default()))
    }
}

/// Spans as Zipkin has them.
async fn spans(State(collected): State<Collected>, Json(spans): Json<Vec<Value>>) -> StatusCode {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for span in spans {
        let tags = span["tags"].as_object().into_iter().flatten();
        let mut said: Fields = tags.map(|(name, value)| (name.clone(), text(value))).collect();
        for (name, field) in [("trace", "traceId"), ("span", "id"), ("parent", "parentId"), ("kind", "kind")] {
            said.insert(name.to_owned(), text(&span[field]));
        }
        collected.with(|told| told.spans.push(said));
    }
    StatusCode::ACCEPTED
}

fn mesh(spec: &str) -> String {
    rule("Mesh", "default", spec).replace("namespace: shop", "namespace: mesh-system")
}

fn everywhere(spec: &str) -> String {
    let policy = rule("TelemetryPolicy", "all", &format!("target: {{scope: mesh}}\n{spec}"));
    policy.replace("namespace: shop", "namespace: mesh-system")
}

#[tokio::test]
async fn requests_are_logged_where_and_as_a_policy_says_and_no_others() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("access.log");
    let log = |name: &str, more: &str| {
        let path = path.display();
        format!("\n- {{to: file, path: \"{path}\", format: template, template: \"{name} %REQ(X-N)%\"{more}}}")
    };
    let logs = [
        log("all", ""),
        log("server-error", ", when: {status: \">=500\"}"),
        log("not-200", ", when: {status: \"!=200\"}"),
        log("ok", ", when: {status: \"<400\"}"),
        log("slow", ", when: {duration: \">=500ms\"}"),
        log("marked", ", when: {headers: {x-mark: {prefix: a}}, status: \"200\"}"),
        log("failed", ", when: {errors: true}"),
        log("half", ", sample: 50"),
        log("never", ", sample: 0"),
    ];
    let text = directory.path().join("text.log");
    let policies = rule(
        "TelemetryPolicy",
        "cart",
        &format!(
            "target: {{service: cart}}\naccessLogs:\n- {{to: stdout}}\n- {{to: file, path: \"{}\", format: text}}{}",
            text.display(),
            logs.concat()
        ),
    ) + &rule(
        "TelemetryPolicy",
        "store",
        &format!(
            "target: {{service: store}}\naccessLogs:{}{}",
            log("line", ""),
            log("status", ", when: {status: \"<400\"}")
        ),
    ) + &rule(
        // What the labels of a workload say is below what its service says.
        "TelemetryPolicy",
        "v1",
        &format!("target: {{labels: {{version: v1}}}}\naccessLogs:{}", log("labels", "")),
    ) + &rule("AccessPolicy", "cart", "target: {service: cart}\ndeny: [{to: [{paths: [/no]}]}]");
    let shop = Shop::start(&policies, &[]).await?;
    let mut line = String::new();
    BufReader::new(TcpStream::connect(shop.store_proxy()).await?).read_line(&mut line).await?;
    assert_eq!(line, "store\n");

    let ask = async |n: &str, path: &str, headers: &[(&str, &str)]| {
        shop.ask(shop.cart_v1(), path, &[&[("x-n", n)], headers].concat()).await.map(|answer| answer.status)
    };
    assert_eq!(ask("1", "/a?token=mine-alone", &[]).await?, 200);
    assert_eq!(ask("2", "/b", &[("x-fail", "v1")]).await?, 503);
    assert_eq!(ask("3", "/no", &[]).await?, 403);
    assert_eq!(ask("4", "/d", &[("x-wait", "600"), ("x-mark", "ab")]).await?, 200);
    assert_eq!(ask("5", "/e", &[("x-mark", "b")]).await?, 200);
    for _ in 0..40 {
        assert_eq!(ask("half", "/f", &[]).await?, 200);
    }
    assert_eq!(ask("end", "/end", &[]).await?, 200);
    eventually(SOON, "a log that ends", async || {
        let written = tokio::fs::read_to_string(&path).await?;
        ensure!(written.contains("all end") && written.contains("line -"), "{written}");
        Ok(())
    })
    .await?;
    let written = tokio::fs::read_to_string(&path).await?;
    let of = |name: &str| {
        let lines = written.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.filter(|n| !matches!(*n, "half" | "-")).collect::<BTreeSet<_>>()
    };
    assert_eq!(of("all"), ["1", "2", "3", "4", "5", "end"].into());
    assert_eq!(of("server-error"), ["2"].into());
    assert_eq!(of("not-200"), ["2", "3"].into());
    assert_eq!(of("ok"), ["1", "4", "5", "end"].into());
    assert_eq!(of("slow"), ["4"].into());
    assert_eq!(of("marked"), ["4"].into());
    assert_eq!(of("failed"), ["2"].into());
    assert_eq!((of("never"), of("labels")), ([].into(), [].into()));
    let sampled = written.lines().filter(|line| *line == "half half").count();
    assert!((1..40).contains(&sampled), "{sampled} of 40");
    // A connection has no status.
    assert!(written.contains("line -") && !written.contains("status -"), "{written}");

    // As JSON, with numbers as numbers; as text; and never with a query.
    let entry = eventually(SOON, "an entry on the standard output", async || {
        let log = shop.envoys[1].log();
        let entries = log.lines().filter(|line| line.starts_with('{')).map(serde_json::from_str::<Value>);
        let entries: Vec<Value> = entries.collect::<Result<_, _>>()?;
        entries.into_iter().find(|entry| entry["path"] == "/b").context("no entry")
    })
    .await?;
    for (name, value) in [
        ("direction", "inbound"),
        ("service", "shop/cart"),
        ("port", "http"),
        ("workload", "shop/cart-v1"),
        ("method", "GET"),
        ("details", "via_upstream"),
    ] {
        assert_eq!(entry[name], value, "{entry}");
    }
    assert_eq!((&entry["status"], &entry["caller"]), (&Value::from(503), &Value::Null), "{entry}");
    let in_text = eventually(SOON, "lines", async || {
        let written = tokio::fs::read_to_string(&text).await?;
        ensure!(written.contains("path=\"/end\""), "{written}");
        Ok(written)
    })
    .await?;
    assert!(in_text.contains(r#"service="shop/cart" port="http" method="GET" path="/a" "#), "{in_text}");
    assert!(![in_text, shop.envoys[1].log()].concat().contains("mine-alone"), "a query was logged");
    // The caller is who proved it.
    assert_eq!(shop.get("/cart").await?.status, 200);
    eventually(SOON, "a caller", async || {
        let log = [shop.envoys[1].log(), shop.envoys[2].log()].concat();
        ensure!(log.contains("\"caller\":\"spiffe://cluster.local/ns/shop/sa/web\""), "{log}");
        Ok(())
    })
    .await?;

    // What a policy takes back is logged no longer; what a workload's labels say is.
    let back = rule("TelemetryPolicy", "cart", "target: {service: cart}\nmetrics: {drop: []}")
        + &rule(
            "TelemetryPolicy",
            "v1",
            &format!("target: {{labels: {{version: v1}}}}\naccessLogs:{}", log("labels", "")),
        );
    shop.write_policies(&back)?;
    eventually(SOON, "the labels of v1", async || {
        ask("late", "/late", &[]).await?;
        let written = tokio::fs::read_to_string(&path).await?;
        ensure!(written.contains("labels late") && !written.contains("labels 1"), "{written}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn logs_and_spans_go_to_a_collector_of_opentelemetry() -> anyhow::Result<()> {
    let collected = Collected::default();
    let app = collected.serve().await?;
    let provider = mesh(&format!("telemetryProviders: [{{name: otel, otlp: {{address: \"{}\"}}}}]", app.address()));
    let policies = |percent: &str| {
        provider.clone()
            + &everywhere(&format!(
                "accessLogs: [{{to: otlp}}]\ntracing: {{provider: otel, percent: {percent}, \
                 tags: {{team: check%out, user: {{header: X-User}}, search: {{environment: PATH}}}}}}"
            ))
            + &rule(
                "TelemetryPolicy",
                "cart",
                "target: {service: cart}\naccessLogs: [{to: otlp, format: template, template: \"cart %REQ(X-N)%\"}]",
            )
    };
    let shop = Shop::start(&policies("100"), &[]).await?;
    let ask = async |n: &str, headers: &[(&str, &str)]| {
        let answer = shop.ask(shop.web_cart(), "/cart", &[&[("x-n", n), ("x-user", n)], headers].concat()).await?;
        ensure!(answer.status == 200, "{answer:?}");
        anyhow::Ok(answer)
    };
    ask("one", &[]).await?;
    let (client, server) = eventually(SOON, "both spans of a request", async || {
        let spans = collected.spans();
        let of = |kind: &str| {
            let mut of_request = spans.iter().filter(|span| span.get("user").is_some_and(|user| user == "one"));
            of_request.find(|span| span["kind"] == kind).cloned().with_context(|| format!("{kind}: {spans:?}"))
        };
        Ok((of("SPAN_KIND_CLIENT")?, of("SPAN_KIND_SERVER")?))
    })
    .await?;
    assert_eq!((&client["trace"], &client["span"]), (&server["trace"], &server["parent"]));
    assert_eq!((client["service.name"].as_str(), server["service.name"].as_str()), ("shop/web", "shop/cart"));
    for span in [&client, &server] {
        assert_eq!(span["team"], "check%out");
        assert!(span.get("search").is_some_and(|search| search.contains('/')), "{span:?}");
    }
    let (called, served) = eventually(SOON, "the entries of both proxies", async || {
        let logs = collected.logs();
        let called = logs.iter().find(|log| log.get("direction").is_some_and(|direction| direction == "outbound"));
        let served = logs.iter().find(|log| log.get("body").is_some_and(|body| body == "cart one"));
        Ok((called.cloned().context("outbound")?, served.cloned().with_context(|| format!("{logs:?}"))?))
    })
    .await?;
    assert_eq!(served["service.name"], "shop/cart");
    for (name, value) in
        [("service.name", "shop/web"), ("workload", "shop/web"), ("service", "shop/cart"), ("status", "200")]
    {
        assert_eq!(called[name], value, "{called:?}");
    }

    // Nothing begins a trace any more, but one that has begun goes on. The exporter says both in one breath.
    shop.write_policies(&policies("0"))?;
    let mut round = 0u32;
    eventually(SOON * 2, "no spans of a request that brings no trace", async || {
        round += 1;
        let (fresh, trace) = (format!("fresh-{round}"), format!("0af7651916cd43dd8448eb21{round:08x}"));
        ask(&fresh, &[]).await?;
        ask("begun", &[("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"))]).await?;
        let spans = eventually(SOON, "spans of a trace that came with its request", async || {
            let spans = collected.spans();
            let goes_on = spans.iter().filter(|span| span["trace"] == trace).count();
            ensure!(goes_on == 2, "{goes_on} of {}", spans.len());
            Ok(spans)
        })
        .await?;
        ensure!(!spans.iter().any(|span| span.get("user") == Some(&fresh)), "{fresh} was traced");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn spans_go_to_a_collector_of_zipkin_and_logs_to_one_that_is_a_service() -> anyhow::Result<()> {
    let collected = Collected::default();
    let app = collected.serve().await?;
    let port = app.address().port();
    let policies = mesh(&format!(
        "telemetryProviders:\n- {{name: zipkin, zipkin: {{address: \"localhost:{port}\", path: /spans}}}}\n\
         - {{name: otel, otlp: {{service: shop/collector}}}}"
    )) + &rule(
        "MeshService",
        "collector",
        &format!(
            "ports: [{{name: otlp, port: 4317, protocol: grpc}}]\n\
             endpoints: {{static: [{{address: 127.0.0.1, port: {port}}}]}}"
        ),
    ) + &everywhere(
        "accessLogs: [{to: otlp, format: text}]\ntracing: {provider: zipkin, tags: {user: {header: x-user}}}",
    );
    let shop = Shop::start(&policies, &[]).await?;
    assert_eq!(shop.ask(shop.web_cart(), "/cart", &[("x-user", "one")]).await?.status, 200);
    let (client, server) = eventually(SOON, "both spans of a request", async || {
        let spans = collected.spans();
        let of = |kind: &str| {
            let mut of_request = spans.iter().filter(|span| span.get("user").is_some_and(|user| user == "one"));
            of_request.find(|span| span["kind"] == kind).cloned().with_context(|| format!("{kind}: {spans:?}"))
        };
        Ok((of("CLIENT")?, of("SERVER")?))
    })
    .await?;
    assert_eq!((&client["trace"], &client["span"]), (&server["trace"], &server["parent"]));
    assert_eq!(client["trace"].len(), 32);
    eventually(SOON, "entries of both proxies", async || {
        let logs = collected.logs();
        let of = |direction: &str| logs.iter().any(|log| log.get("body").is_some_and(|body| body.contains(direction)));
        ensure!(of("direction=\"inbound\"") && of("direction=\"outbound\""), "{logs:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_control_plane_keeps_what_is_logged_to_it() -> anyhow::Result<()> {
    let policies = rule("TelemetryPolicy", "shop", "target: {scope: namespace}\naccessLogs: [{to: control-plane}]");
    let shop = Shop::start(&policies, &[]).await?;
    assert_eq!(shop.ask(shop.web_cart(), "/kept?token=mine-alone", &[]).await?.status / 100, 2);
    eventually(SOON, "a line from the store", async || {
        let mut line = String::new();
        BufReader::new(TcpStream::connect(shop.web_store()).await?).read_line(&mut line).await?;
        ensure!(line == "store\n", "{line:?}");
        Ok(())
    })
    .await?;
    let logs = eventually(SOON, "entries of both proxies of a request, and of a connection", async || {
        let logs = shop.chancery.json("/api/v1/logs").await?;
        let all = logs["logs"].as_array().context("no list")?.clone();
        let has = |listener: &str, path: &str| all.iter().any(|log| log["listener"] == listener && log["path"] == path);
        ensure!(has("out/shop/cart/http", "/kept") && has("in/shop/cart/http", "/kept"), "{logs}");
        ensure!(has("in/shop/store/line", "") && has("out/shop/store/line", ""), "{logs}");
        Ok(all)
    })
    .await?;
    let served = logs.iter().find(|log| log["listener"] == "in/shop/cart/http" && log["path"] == "/kept");
    let served = served.context("it was there")?;
    assert_eq!(
        (&served["method"], &served["caller"]),
        (&"GET".into(), &"spiffe://cluster.local/ns/shop/sa/web".into())
    );
    assert!(served["workload"].as_str().is_some_and(|workload| workload.starts_with("shop/cart-v")), "{served}");
    assert!(!Value::from(logs).to_string().contains("mine-alone"));
    let admin = shop.chancery.admin_address().to_string();
    let listing = shop.chancery.run(&["logs", "--admin-address", &admin]).await?;
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(listing.status.success() && text.contains("/kept"), "{text}");
    Ok(())
}

#[tokio::test]
async fn labels_are_added_to_what_is_counted_and_dropped_from_it() -> anyhow::Result<()> {
    let drop = |what: &str| {
        rule(
            "TelemetryPolicy",
            "cart",
            &format!(
                "target: {{service: cart}}\n\
                 metrics: {{drop: [{what}], labels: {{tenant: {{header: X-Tenant}}, team: check%out}}}}"
            ),
        )
    };
    let shop = Shop::start(&drop("version, flags"), &[]).await?;
    for (tenant, times) in [("a", 3), ("b", 5)] {
        for _ in 0..times {
            assert_eq!(shop.ask(shop.cart_v1(), "/cart", &[("x-tenant", tenant)]).await?.status, 200);
        }
    }
    let requests = async |tenant: &str| {
        let metrics = shop.chancery.text("/metrics").await?;
        let mut lines = metrics.lines().filter(|line| line.starts_with("chancery_labelled_requests_total{"));
        let labels = [format!("tenant=\"{tenant}\""), "team=\"check%out\"".to_owned(), "version=\"\"".to_owned()];
        let line = lines.rfind(|line| labels.iter().all(|label| line.contains(label)));
        let count = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        count.with_context(|| metrics.clone())
    };
    eventually(SOON, "requests by tenant", async || {
        ensure!((requests("a").await?, requests("b").await?) == (3, 5));
        Ok(())
    })
    .await?;
    // Without the counter nothing more is counted.
    shop.write_policies(&drop("requests"))?;
    let sync = async || shop.chancery.in_sync(4).await;
    sync().await?;
    eventually(SOON, "an inbound listener that does not count", async || {
        let dump = shop.envoys[1].config_dump().await?.to_string();
        ensure!(!dump.contains("\"tenant\"") && dump.contains("in/shop/cart/http"));
        Ok(())
    })
    .await
}
