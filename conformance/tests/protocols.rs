//! HTTP/2 and gRPC ports through real Envoys: calls over mutual TLS, routed by path, with their own answer for no route.

use std::time::Duration;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{Chancery, EnvoyProxy, eventually};
use proto::envoy::service::ratelimit::v3 as ratelimit_pb;
use ratelimit_pb::rate_limit_service_client::RateLimitServiceClient;
use ratelimit_pb::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};

/// A gRPC application: any service will do. It answers with the hits that it was asked about, and says in a header
/// who the caller was.
struct Echo;

#[tonic::async_trait]
impl RateLimitService for Echo {
    async fn should_rate_limit(
        &self,
        request: Request<ratelimit_pb::RateLimitRequest>,
    ) -> Result<Response<ratelimit_pb::RateLimitResponse>, Status> {
        let caller = request.metadata().get("x-forwarded-client-cert").cloned();
        let raw_body = request.get_ref().domain.clone().into_bytes();
        let mut response = Response::new(ratelimit_pb::RateLimitResponse { raw_body, ..Default::default() });
        if let Some(caller) = caller {
            response.metadata_mut().insert("x-caller", caller);
        }
        Ok(response)
    }
}

fn rules(protocol: &str, listen: &Port, call: &Port, app: std::net::SocketAddr) -> String {
    rule("MTLSPolicy", "shop", "target: {scope: namespace}\nmode: strict")
        + &rule("MeshService", "limits", &format!("ports: [{{name: api, port: 80, protocol: {protocol}}}]"))
        + &rule(
            "Workload",
            "limits",
            &format!("serves: [{{service: limits, port: api, listen: \"{}\", app: \"{app}\"}}]", listen.loopback()),
        )
        + &rule(
            "Workload",
            "caller",
            &format!("calls: [{{service: limits, port: api, listen: \"{}\"}}]", call.loopback()),
        )
        + &rule(
            "TrafficRoute",
            "limits",
            "for: {service: limits}\nhttp:\n- name: limits\n  match: [{path: {prefix: /envoy.service.ratelimit.v3.RateLimitService}}]\n  to: [{service: limits}]",
        )
}

async fn calls_arrive(protocol: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let app = listener.local_addr()?;
    let (listen, call) = (Port::reserve()?, Port::reserve()?);
    let chancery = Chancery::start(&[("rules.yaml", &rules(protocol, &listen, &call, app))], &[]).await?;
    let server = Server::builder().add_service(RateLimitServiceServer::new(Echo));
    let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
    let test = async {
        let _server_side = EnvoyProxy::start(&chancery, "shop/limits", &[]).await?;
        let _caller = EnvoyProxy::start(&chancery, "shop/caller", &[]).await?;
        chancery.in_sync(2).await?;
        let channel = Channel::from_shared(format!("http://{}", call.loopback()))?
            .timeout(Duration::from_secs(5))
            .connect()
            .await?;
        let ask = async || {
            let request = ratelimit_pb::RateLimitRequest { domain: "hello".into(), ..Default::default() };
            Ok(RateLimitServiceClient::new(channel.clone()).should_rate_limit(request).await?)
        };
        let answer = eventually(SOON, "an answer", ask).await?;
        assert_eq!(answer.get_ref().raw_body, b"hello");
        let caller = answer.metadata().get("x-caller").map(|value| value.to_str().unwrap_or_default().to_owned());
        ensure!(
            caller.as_ref().is_some_and(|caller| caller.contains("URI=spiffe://cluster.local/ns/shop/sa/caller")),
            "{caller:?}"
        );
        // Another service has no rule: for gRPC that is an unimplemented method.
        use proto::envoy::service::status::v3 as status_pb;
        let mut other =
            status_pb::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient::new(channel.clone());
        let refused = other.fetch_client_status(status_pb::ClientStatusRequest::default()).await;
        assert_eq!(refused.expect_err("no rule").code(), Code::Unimplemented);
        anyhow::Ok(())
    };
    tokio::select! {
        served = serving => { served?; anyhow::bail!("the application ended") }
        tested = test => tested,
    }
}

#[tokio::test]
async fn grpc_calls_arrive_over_mutual_tls() -> anyhow::Result<()> {
    calls_arrive("grpc").await
}

#[tokio::test]
async fn http2_requests_arrive_over_mutual_tls() -> anyhow::Result<()> {
    calls_arrive("http2").await
}
