//! The access log service: `envoy.service.accesslog.v3.AccessLogService`, beside ADS on the same port.
//!
//! Owns: the newest entries of all proxies, and how much is kept of each. May use: tonic, the words of the mesh. Never: keeps
//! a query, which may hold what is secret, or more than its bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::data::accesslog::v3 as data_pb;
use proto::envoy::service::accesslog::v3 as accesslog_pb;
use proto::google::protobuf as google_pb;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;
use translators::name::QualifiedName;

use super::metrics::{Authenticator, Reporter};

/// How many entries are kept.
const MOST: usize = 2000;
/// How much is kept of each text of an entry, in bytes.
const LONGEST: usize = 256;

/// What proxies have logged. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Logs(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    newest: VecDeque<Entry>,
    /// Of all, also those that are no longer kept.
    received: u64,
}

/// One request, or TCP connection, that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it began.
    pub time: SystemTime,
    /// The node of the proxy, by its credential.
    pub node: Arc<str>,
    /// The workload of the proxy, by its credential.
    pub workload: Option<QualifiedName>,
    /// The listener that took it.
    pub listener: String,
    /// What was asked for; `None` of a connection.
    pub request: Option<Asked>,
    /// How it ended, in Envoy's words; empty if Envoy has none.
    pub details: String,
    /// How long it took.
    pub duration: Duration,
    /// Whom its certificate names; empty for nobody.
    pub caller: String,
    /// Where it came from.
    pub source: String,
    /// Where it was sent; empty for nowhere.
    pub upstream: String,
}

/// What was asked for, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path, without the query.
    pub path: String,
    /// The status; 0 for none.
    pub status: u32,
    /// What the proxies call the request.
    pub request_id: String,
}

/// The service.
pub struct AccessLogService {
    authenticator: Arc<dyn Authenticator>,
    logs: Logs,
    stop: CancellationToken,
}

// === impl Logs ===

impl Logs {
    /// The newest entries, the newest first.
    pub fn newest(&self) -> Vec<Entry> {
        self.lock().newest.iter().rev().cloned().collect()
    }

    /// How many entries have come.
    pub fn received(&self) -> u64 {
        self.lock().received
    }

    fn add(&self, entries: Vec<Entry>) {
        let mut kept = self.lock();
        kept.received = kept.received.saturating_add(entries.len() as u64);
        kept.newest.extend(entries);
        let beyond = kept.newest.len().saturating_sub(MOST);
        kept.newest.drain(..beyond);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl AccessLogService ===

impl AccessLogService {
    /// A service that enters into `logs` what authenticated proxies log, until `stop`.
    pub fn new(authenticator: Arc<dyn Authenticator>, logs: Logs, stop: CancellationToken) -> Self {
        Self { authenticator, logs, stop }
    }

    /// The service as tonic mounts it.
    pub fn into_server(self) -> accesslog_pb::access_log_service_server::AccessLogServiceServer<Self> {
        accesslog_pb::access_log_service_server::AccessLogServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl accesslog_pb::access_log_service_server::AccessLogService for AccessLogService {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<accesslog_pb::StreamAccessLogsMessage>>,
    ) -> Result<Response<accesslog_pb::StreamAccessLogsResponse>, Status> {
        let reporter = self.authenticator.authenticate(request.extensions())?;
        let node: Arc<str> = bounded(&reporter.node).into();
        info!(node = %node.escape_debug(), "access log stream opened");
        let mut messages = request.into_inner();
        // Only the first message of a stream says it.
        let mut listener = String::new();
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                () = self.stop.cancelled() => return Err(Status::unavailable("the control plane is stopping")),
            };
            let Some(message) = message else { break };
            if let Some(identifier) = &message.identifier {
                listener = bounded(&identifier.log_name);
            }
            self.logs.add(entries(&message, &node, &reporter, &listener));
        }
        Ok(Response::new(accesslog_pb::StreamAccessLogsResponse {}))
    }
}

fn entries(
    message: &accesslog_pb::StreamAccessLogsMessage,
    node: &Arc<str>,
    reporter: &Reporter,
    listener: &str,
) -> Vec<Entry> {
    use accesslog_pb::stream_access_logs_message::LogEntries;
    let entry = |common: Option<&data_pb::AccessLogCommon>, request: Option<Asked>, details: &str| {
        let usual = data_pb::AccessLogCommon::default();
        let common = common.unwrap_or(&usual);
        Entry {
            time: common.start_time.as_ref().map_or(SystemTime::UNIX_EPOCH, instant),
            node: Arc::clone(node),
            workload: reporter.workload.clone(),
            listener: listener.to_owned(),
            request,
            details: bounded(details),
            duration: common.duration.as_ref().map(span).unwrap_or_default(),
            caller: common.tls_properties.as_ref().and_then(caller).map(bounded).unwrap_or_default(),
            source: common.downstream_remote_address.as_ref().map(address).unwrap_or_default(),
            upstream: common.upstream_remote_address.as_ref().map(address).unwrap_or_default(),
        }
    };
    match &message.log_entries {
        None => Vec::new(),
        Some(LogEntries::HttpLogs(logs)) => {
            let of_request = |log: &data_pb::HttpAccessLogEntry| {
                let details = log.response.as_ref().map(|response| response.response_code_details.as_str());
                entry(log.common_properties.as_ref(), Some(asked(log)), details.unwrap_or_default())
            };
            logs.log_entry.iter().map(of_request).collect()
        }
        Some(LogEntries::TcpLogs(logs)) => {
            logs.log_entry.iter().map(|log| entry(log.common_properties.as_ref(), None, "")).collect()
        }
    }
}

fn asked(log: &data_pb::HttpAccessLogEntry) -> Asked {
    let request = log.request.clone().unwrap_or_default();
    let code = log.response.as_ref().and_then(|response| response.response_code.as_ref());
    let method = core_pb::RequestMethod::try_from(request.request_method).unwrap_or_default();
    Asked {
        method: if method == core_pb::RequestMethod::MethodUnspecified { "" } else { method.as_str_name() }.to_owned(),
        host: bounded(&request.authority),
        path: bounded(request.path.split(['?', '#']).next().unwrap_or_default()),
        status: code.map_or(0, |code| code.value),
        request_id: bounded(&request.request_id),
    }
}

/// The identity in a certificate.
fn caller(tls: &data_pb::TlsProperties) -> Option<&str> {
    use data_pb::tls_properties::certificate_properties::subject_alt_name::San;
    let certificate = tls.peer_certificate_properties.as_ref()?;
    certificate.subject_alt_name.iter().find_map(|name| match &name.san {
        Some(San::Uri(uri)) => Some(uri.as_str()),
        Some(San::Dns(_)) | None => None,
    })
}

fn address(address: &core_pb::Address) -> String {
    use core_pb::address::Address;
    use core_pb::socket_address::PortSpecifier;
    match &address.address {
        Some(Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) if socket.address.contains(':') => {
                format!("[{}]:{port}", bounded(&socket.address))
            }
            Some(PortSpecifier::PortValue(port)) => format!("{}:{port}", bounded(&socket.address)),
            Some(PortSpecifier::NamedPort(_)) | None => bounded(&socket.address),
        },
        Some(Address::Pipe(pipe)) => bounded(&pipe.path),
        Some(Address::EnvoyInternalAddress(_)) | None => String::new(),
    }
}

fn instant(time: &google_pb::Timestamp) -> SystemTime {
    let since = Duration::new(
        u64::try_from(time.seconds).unwrap_or(0),
        u32::try_from(time.nanos).unwrap_or(0).min(999_999_999),
    );
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn span(span: &google_pb::Duration) -> Duration {
    Duration::new(u64::try_from(span.seconds).unwrap_or(0), u32::try_from(span.nanos).unwrap_or(0).min(999_999_999))
}

/// The beginning of a text.
fn bounded(text: &str) -> String {
    text.chars()
        .scan(0, |length, c| {
            *length += c.len_utf8();
            (*length <= LONGEST).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests;
