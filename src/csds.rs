//! Client status: what each client holds of what it is to hold, as Envoy's own tools ask for it
//! (`envoy.service.status.v3.ClientStatusDiscoveryService`).
//!
//! Owns: the answer to such a question, over gRPC and as JSON, and who may be shown whom. May use: `report`, the
//! directory of proxies. Never: shows the content of a secret, or one proxy to another.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Extensions, StatusCode};
use prost::Message;
use proto::envoy::admin::v3 as admin_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::status::v3 as status_pb;
use proto::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use proto::envoy::r#type::matcher::v3 as matcher_pb;
use proto::google::protobuf as google_pb;
use proto::wire;
use serde_json::{Value, json};
use tonic::{Request, Response, Status, Streaming};
use translators::json;

use crate::report::{Proxy, Report, ResourceState, ResourceStatus};
use crate::stream::{Directory, status_code};

use status_pb::client_config::GenericXdsConfig;

/// Where it is asked for over plain HTTP.
pub const PATH: &str = "/v3/discovery:client_status";

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct ClientStatus {
    report: Report,
    /// Who lets a proxy in, which then sees itself; without one, everything is shown to whoever asks.
    directory: Option<Arc<dyn Directory>>,
}

// === impl ClientStatus ===

impl ClientStatus {
    /// For an operator: every client.
    pub fn of_all(report: Report) -> Self {
        Self { report, directory: None }
    }

    /// For proxies: each is shown itself, if it says who it is and `directory` lets it in.
    pub fn of_oneself(report: Report, directory: Arc<dyn Directory>) -> Self {
        Self { report, directory: Some(directory) }
    }

    /// The service as tonic mounts it.
    pub fn into_server(self) -> ClientStatusDiscoveryServiceServer<Self> {
        ClientStatusDiscoveryServiceServer::new(self)
    }

    /// The answer to a question in JSON: its status and its text.
    pub fn poll(&self, extensions: &Extensions, text: &[u8]) -> (StatusCode, String) {
        let answer = question(text).and_then(|question| self.answer(extensions, &question));
        match answer {
            Ok(answer) => (StatusCode::OK, json::message(&answer).to_string()),
            Err(status) => (status_code(status.code()), format!("{}\n", status.message())),
        }
    }

    /// The clients that were asked for and may be shown.
    fn answer(
        &self,
        extensions: &Extensions,
        question: &status_pb::ClientStatusRequest,
    ) -> Result<status_pb::ClientStatusResponse, Status> {
        let matchers: Vec<_> = question.node_matchers.iter().map(Ids::of).collect::<Result<_, _>>()?;
        let only = match &self.directory {
            None => None,
            Some(directory) => {
                let node = question.node.as_ref().filter(|node| !node.id.is_empty());
                let node = node.ok_or_else(|| Status::invalid_argument("the request has no node id"))?;
                let asking = wire::Node::decode(&node.encode_to_vec()[..])
                    .map_err(|_| Status::invalid_argument("the node cannot be decoded"))?;
                directory.admit(extensions, &asking)?;
                Some(node.id.as_str())
            }
        };
        let wanted = |proxy: &Proxy| {
            only.is_none_or(|only| only == proxy.node)
                && (matchers.is_empty() || matchers.iter().any(|ids| ids.takes(&proxy.node)))
        };
        let contents = !question.exclude_resource_contents;
        let config = self.report.resources(wanted).into_iter();
        Ok(status_pb::ClientStatusResponse {
            config: config.map(|(proxy, resources)| client(proxy, resources, contents)).collect(),
        })
    }
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for ClientStatus {
    type StreamClientStatusStream = BoxStream<'static, Result<status_pb::ClientStatusResponse, Status>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<status_pb::ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let (_, extensions, questions) = request.into_parts();
        let status = self.clone();
        let answers = questions.map(move |question| status.answer(&extensions, &question?));
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch_client_status(
        &self,
        request: Request<status_pb::ClientStatusRequest>,
    ) -> Result<Response<status_pb::ClientStatusResponse>, Status> {
        self.answer(request.extensions(), request.get_ref()).map(Response::new)
    }
}

/// One client: one stream.
fn client(proxy: Proxy, resources: Vec<ResourceStatus>, contents: bool) -> status_pb::ClientConfig {
    status_pb::ClientConfig {
        node: Some(core_pb::Node { id: proxy.node, ..Default::default() }),
        generic_xds_configs: resources.into_iter().map(|resource| config(resource, contents)).collect(),
        client_scope: proxy.protocol.to_owned(),
        ..Default::default()
    }
}

fn config(status: ResourceStatus, contents: bool) -> GenericXdsConfig {
    let ResourceStatus { kind, name, resource, state } = status;
    let version = resource.as_ref().map(|resource| resource.version().to_string()).unwrap_or_default();
    let (config_status, client_status) = match &state {
        ResourceState::NotSent if resource.is_none() => {
            (status_pb::ConfigStatus::NotSent, admin_pb::ClientResourceStatus::DoesNotExist)
        }
        ResourceState::NotSent => (status_pb::ConfigStatus::NotSent, admin_pb::ClientResourceStatus::Requested),
        ResourceState::Synced => (status_pb::ConfigStatus::Synced, admin_pb::ClientResourceStatus::Acked),
        ResourceState::Stale => (status_pb::ConfigStatus::Stale, admin_pb::ClientResourceStatus::Requested),
        ResourceState::Error { .. } => (status_pb::ConfigStatus::Error, admin_pb::ClientResourceStatus::Nacked),
    };
    let error_state = match state {
        ResourceState::Error { reason, since } => Some(admin_pb::UpdateFailureState {
            details: reason.to_string(),
            last_update_attempt: Some(timestamp(since)),
            version_info: version.clone(),
            ..Default::default()
        }),
        ResourceState::NotSent | ResourceState::Synced | ResourceState::Stale => None,
    };
    let shown = resource.filter(|_| contents).filter(|resource| !resource.holds_key());
    let xds_config =
        shown.map(|resource| google_pb::Any { type_url: kind.type_url().to_owned(), value: resource.value().to_vec() });
    GenericXdsConfig {
        type_url: kind.type_url().to_owned(),
        name: name.to_string(),
        version_info: version,
        xds_config,
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state,
        ..Default::default()
    }
}

fn timestamp(at: Instant) -> google_pb::Timestamp {
    let at = SystemTime::now().checked_sub(at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    google_pb::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// Which node ids are asked for.
enum Ids<'a> {
    All,
    Matching { pattern: &'a matcher_pb::string_matcher::MatchPattern, ignore_case: bool },
}

// === impl Ids ===

impl<'a> Ids<'a> {
    fn of(matcher: &'a matcher_pb::NodeMatcher) -> Result<Self, Status> {
        use matcher_pb::string_matcher::MatchPattern;
        if !matcher.node_metadatas.is_empty() {
            return Err(Status::unimplemented("nodes are matched by node_id; their metadata is not kept"));
        }
        let Some(id) = &matcher.node_id else { return Ok(Self::All) };
        match &id.match_pattern {
            None => Ok(Self::All),
            Some(MatchPattern::SafeRegex(_) | MatchPattern::Custom(_)) => {
                Err(Status::unimplemented("a node_id is matched by exact, prefix, suffix or contains"))
            }
            Some(pattern) => Ok(Self::Matching { pattern, ignore_case: id.ignore_case }),
        }
    }

    fn takes(&self, id: &str) -> bool {
        use matcher_pb::string_matcher::MatchPattern;
        let Self::Matching { pattern, ignore_case } = self else { return true };
        let folded = |text: &str| if *ignore_case { text.to_lowercase() } else { text.to_owned() };
        let id = folded(id);
        match pattern {
            MatchPattern::Exact(text) => id == folded(text),
            MatchPattern::Prefix(text) => id.starts_with(&folded(text)),
            MatchPattern::Suffix(text) => id.ends_with(&folded(text)),
            MatchPattern::Contains(text) => id.contains(&folded(text)),
            MatchPattern::SafeRegex(_) | MatchPattern::Custom(_) => false,
        }
    }
}

/// A question in JSON; of a node, that lists all of its extensions, only who it is.
fn question(text: &[u8]) -> Result<status_pb::ClientStatusRequest, Status> {
    let invalid = |why: String| Status::invalid_argument(format!("this is no ClientStatusRequest: {why}"));
    let asked: Value = match text.trim_ascii() {
        [] => json!({}),
        text => serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?,
    };
    let Value::Object(asked) = asked else { return Err(invalid("it is no object".to_owned())) };
    let field = |names: [&str; 2]| names.into_iter().find_map(|name| asked.get(name)).cloned();
    let node = asked
        .get("node")
        .map(|node| json!({ "id": node.get("id"), "cluster": node.get("cluster"), "metadata": node.get("metadata") }));
    let known = json!({
        "node": node,
        "nodeMatchers": field(["nodeMatchers", "node_matchers"]),
        "excludeResourceContents": field(["excludeResourceContents", "exclude_resource_contents"]),
    });
    let name = <status_pb::ClientStatusRequest as prost::Name>::full_name();
    let (bytes, misfits) = json::from_json(&name, &known).map_err(|error| invalid(error.to_string()))?;
    if let Some(misfit) = misfits.first() {
        return Err(invalid(format!("{}: {:?}", misfit.pointer, misfit.reason)));
    }
    status_pb::ClientStatusRequest::decode(&bytes[..]).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests;
