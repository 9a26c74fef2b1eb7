//! External authorization through real Envoys: who is asked about which requests, and what the answer does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::any;
use chancery::ports::Port;
use conformance::harness::shop::{SOON, Shop, client, rule};
use conformance::harness::{App, eventually};
use proto::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use proto::google::rpc;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Admits requests with the header `x-pass`; keeps what it was asked.
#[derive(Debug, Clone, Default)]
struct Judge {
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

// === impl Judge ===

impl Judge {
    fn note(&self, path: &str, caller: &str) {
        self.asked.lock().expect("nobody panics").push((path.to_owned(), caller.to_owned()));
    }

    /// What it was asked since it was looked at last: the path, and who calls.
    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.asked.lock().expect("nobody panics"))
    }

    /// As an application, by gRPC and by HTTP.
    async fn serve(&self) -> anyhow::Result<App> {
        let by_http = self.clone();
        let fallback = async move |uri: Uri, headers: HeaderMap| {
            let caller = headers.get("x-forwarded-client-cert").and_then(|value| value.to_str().ok());
            by_http.note(uri.path(), caller.unwrap_or_default());
            if uri.path() == "/slow" {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            if headers.contains_key("x-pass") {
                StatusCode::OK.into_response()
            } else {
                (StatusCode::UNAUTHORIZED, [("www-authenticate", "Pass")], "who are you?").into_response()
            }
        };
        let grpc = Routes::new(AuthorizationServer::new(self.clone())).into_axum_router();
        App::serving(grpc.fallback(any(fallback))).await
    }
}

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        self.note(&http.path, &attributes.source.unwrap_or_default().principal);
        let code = if http.headers.contains_key("x-pass") { 0 } else { 7 };
        let status = Some(rpc::Status { code, ..Default::default() });
        Ok(Response::new(CheckResponse { status, ..Default::default() }))
    }
}

const RULES: &str = r#"target: {service: cart}
default: deny
allow:
- to: [{paths: [/open]}]
- {from: [{service: web}], to: [{paths: ["/grpc/*", /open]}], external: {service: judge, port: grpc}}
- {from: [{service: web}], to: [{paths: ["/http/*", "/grpc/*"]}], external: {service: judge, port: http}}
- {to: [{paths: [/slow]}], external: {service: judge, port: http, timeout: 10s}}
- {to: [{paths: [/in-doubt-yes]}], external: {service: nobody, port: grpc, failOpen: true}}
- {to: [{paths: [/in-doubt-no]}], external: {service: nobody, port: http}}
deny:
- to: [{paths: ["/grpc/never"]}]"#;

fn judges(judge: &App, nobody: &Port) -> String {
    let ports = "ports: [{name: grpc, port: 80, protocol: grpc}, {name: http, port: 81, protocol: http}]";
    let service = |name: &str, port: u16| {
        let endpoints = format!("static: [{{address: 127.0.0.1, ports: {{grpc: {port}, http: {port}}}}}]");
        rule("MeshService", name, &format!("{ports}\nendpoints: {{{endpoints}}}"))
    };
    service("judge", judge.address().port()) + &service("nobody", nobody.loopback().port())
}

#[tokio::test]
async fn a_service_has_the_last_word_about_what_its_own_entries_take() -> anyhow::Result<()> {
    let (judge, nobody) = (Judge::default(), Port::reserve()?);
    let app = judge.serve().await?;
    let inventory = judges(&app, &nobody);
    let policies = rule("AccessPolicy", "cart", RULES);
    let shop = Shop::start(&(inventory.clone() + &policies), &[]).await?;
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    judge.asked();

    let pass = [("x-pass", "1")];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a [&'a str]);
    let cases: [Case<'_>; 11] = [
        // What another entry admits is no question, and neither is what no entry takes or one denies.
        ("/open", &[], 200, &[]),
        ("/other", &pass, 403, &[]),
        ("/grpc/never", &pass, 403, &[]),
        ("/grpc/a", &[], 403, &["/grpc/a"]),
        ("/grpc/a", &pass, 200, &["/grpc/a"]),
        ("/grpc/a?b=c", &pass, 200, &["/grpc/a?b=c"]),
        ("/http/a", &[], 401, &["/http/a"]),
        ("/http/a", &pass, 200, &["/http/a"]),
        ("/slow", &pass, 200, &["/slow"]),
        ("/in-doubt-yes", &[], 200, &[]),
        ("/in-doubt-no", &pass, 403, &[]),
    ];
    for (path, headers, status, asked) in cases {
        let answer = shop.ask(shop.web_cart(), path, headers).await?;
        ensure!(answer.status == status, "{path} {headers:?}: {answer:?}");
        let found = judge.asked();
        assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), asked, "{path} {headers:?}");
        assert!(found.iter().all(|(_, caller)| caller.contains(web)), "{found:?}");
    }
    // Its refusal goes back as it is.
    let refusal = client()?.get(format!("http://{}/http/b", shop.web_cart())).send().await?;
    assert_eq!(refusal.headers().get("www-authenticate").map(|value| value.as_bytes()), Some(b"Pass".as_slice()));
    assert_eq!(refusal.text().await?, "who are you?");
    judge.asked();

    // A stranger is none of those that the judge is asked about.
    assert_eq!(shop.ask(shop.cart_v1(), "/grpc/a", &pass).await?.status, 403);
    assert_eq!(judge.asked(), []);

    // Without the judge's service nobody is let in, and the proxies still take what they are told.
    shop.write_policies(&policies)?;
    // Both carts, also on connections that are older than the rules.
    eventually(SOON, "nobody is asked", async || {
        judge.asked();
        for path in ["/grpc/a", "/http/a", "/in-doubt-yes"].repeat(4) {
            let answer = shop.ask(shop.web_cart(), path, &pass).await?;
            ensure!(answer.status == 403, "{path}: {answer:?}");
        }
        Ok(())
    })
    .await?;
    assert_eq!(judge.asked(), []);
    shop.chancery.in_sync(4).await?;
    assert_eq!(shop.get("/open").await?.status, 200);

    // It comes back as it went.
    shop.write_policies(&(inventory + &policies))?;
    eventually(SOON, "the judge is asked again", async || {
        let answer = shop.ask(shop.web_cart(), "/grpc/a", &pass).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    Ok(())
}
