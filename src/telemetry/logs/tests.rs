//! The service over real gRPC, with the generated client.

use proto::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Server;

use super::*;

/// Everybody is this reporter, or nobody.
struct Everybody(Option<Reporter>);

impl Authenticator for Everybody {
    fn authenticate(&self, _extensions: &http::Extensions) -> Result<Reporter, Status> {
        self.0.clone().ok_or_else(|| Status::unauthenticated("a client certificate is required"))
    }
}

fn message(name: Option<&str>, path: &str) -> accesslog_pb::StreamAccessLogsMessage {
    use accesslog_pb::stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries};
    let socket = core_pb::SocketAddress {
        address: "::1".into(),
        port_specifier: Some(core_pb::socket_address::PortSpecifier::PortValue(9)),
        ..Default::default()
    };
    let common = data_pb::AccessLogCommon {
        start_time: Some(google_pb::Timestamp { seconds: 7, nanos: -1 }),
        duration: Some(google_pb::Duration { seconds: 0, nanos: 5_000_000 }),
        downstream_remote_address: Some(core_pb::Address {
            address: Some(core_pb::address::Address::SocketAddress(socket)),
        }),
        ..Default::default()
    };
    let entry = data_pb::HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(data_pb::HttpRequestProperties {
            request_method: core_pb::RequestMethod::Get.into(),
            path: path.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    accesslog_pb::StreamAccessLogsMessage {
        identifier: name.map(|name| Identifier { log_name: name.into(), ..Default::default() }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![entry] })),
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with the test")]
async fn client(reporter: Option<Reporter>, logs: &Logs) -> AccessLogServiceClient<tonic::transport::Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let service = AccessLogService::new(Arc::new(Everybody(reporter)), logs.clone(), CancellationToken::new());
    let server = Server::builder().add_service(service.into_server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    AccessLogServiceClient::connect(format!("http://{address}")).await.expect("connected")
}

#[tokio::test]
async fn entries_are_kept_by_the_proxy_that_proved_itself_and_without_queries() {
    let logs = Logs::default();
    let workload: QualifiedName = "shop/cart".parse().expect("a name");
    let reporter = Reporter { workload: Some(workload.clone()), node: "cart-a".into() };
    let mut client = client(Some(reporter), &logs).await;
    let long = format!("/{}", "é".repeat(LONGEST));
    let messages = vec![message(Some("in/shop/cart/http"), "/a?token=secret"), message(None, &long)];
    client.stream_access_logs(tokio_stream::iter(messages)).await.expect("taken");
    let newest = logs.newest();
    assert_eq!((newest.len(), logs.received()), (2, 2));
    let asked = |path: &str| Asked {
        method: "GET".into(),
        host: String::new(),
        path: path.into(),
        status: 0,
        request_id: String::new(),
    };
    let first = Entry {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
        node: "cart-a".into(),
        workload: Some(workload),
        listener: "in/shop/cart/http".into(),
        request: Some(asked("/a")),
        details: String::new(),
        duration: Duration::from_millis(5),
        caller: String::new(),
        source: "[::1]:9".into(),
        upstream: String::new(),
    };
    assert_eq!(newest[1], first);
    assert_eq!(newest[0], Entry { request: Some(asked(&format!("/{}", "é".repeat(127)))), ..first });
}

#[tokio::test]
async fn who_is_nobody_logs_nothing() {
    let logs = Logs::default();
    let mut client = client(None, &logs).await;
    let refused = client.stream_access_logs(tokio_stream::iter([message(None, "/")])).await;
    assert_eq!(refused.map(|_| ()).map_err(|status| status.code()), Err(Code::Unauthenticated));
    assert_eq!(logs.received(), 0);
}

#[test]
fn the_oldest_go_first() {
    let logs = Logs::default();
    let reporter = Reporter { workload: None, node: "n".into() };
    let node: Arc<str> = "n".into();
    for n in 0..=MOST {
        logs.add(entries(&message(None, &format!("/{n}")), &node, &reporter, ""));
    }
    let newest = logs.newest();
    let path = |entry: &Entry| entry.request.as_ref().map(|asked| asked.path.clone());
    assert_eq!((newest.len(), logs.received()), (MOST, MOST as u64 + 1));
    assert_eq!(newest.first().and_then(path), Some(format!("/{MOST}")));
    assert_eq!(newest.last().and_then(path), Some("/1".to_owned()));
}
