//! The methods of the discovery services: which of them is served how, and which type it is about.
//!
//! Owns: the one table of services. May use: resource kinds. Never: serves anything.

use translators::resource::Kind;

use super::session::Protocol;

/// What a method is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    /// The type that it is about; a method without one is about all of them.
    pub(super) kind: Option<Kind>,
    pub(super) form: Form,
}

/// How a method is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Requests and responses for as long as both sides like.
    Stream(Protocol),
    /// One request, one response, of one type.
    Fetch(Kind),
}

/// A service; its methods are called after its resources: `StreamClusters`, `DeltaClusters`, `FetchClusters`.
struct Row {
    service: &'static str,
    kind: Option<Kind>,
    resources: &'static str,
    /// What follows [`POLLED`] in the path at which its type is polled over plain HTTP.
    polled: Option<&'static str>,
}

/// What the paths begin with that are polled over plain HTTP.
const POLLED: &str = "/v3/discovery:";

const SERVICES: [Row; 11] = [
    row("envoy.service.discovery.v3.AggregatedDiscoveryService", None, "AggregatedResources", None),
    row("envoy.service.cluster.v3.ClusterDiscoveryService", Some(Kind::Cluster), "Clusters", Some("clusters")),
    row("envoy.service.endpoint.v3.EndpointDiscoveryService", Some(Kind::Endpoints), "Endpoints", Some("endpoints")),
    row("envoy.service.listener.v3.ListenerDiscoveryService", Some(Kind::Listener), "Listeners", Some("listeners")),
    row("envoy.service.route.v3.RouteDiscoveryService", Some(Kind::Route), "Routes", Some("routes")),
    row(
        "envoy.service.route.v3.ScopedRoutesDiscoveryService",
        Some(Kind::ScopedRoute),
        "ScopedRoutes",
        Some("scoped-routes"),
    ),
    row("envoy.service.route.v3.VirtualHostDiscoveryService", Some(Kind::VirtualHost), "VirtualHosts", None),
    row("envoy.service.secret.v3.SecretDiscoveryService", Some(Kind::Secret), "Secrets", Some("secrets")),
    row("envoy.service.runtime.v3.RuntimeDiscoveryService", Some(Kind::Runtime), "Runtime", Some("runtime")),
    row(
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        Some(Kind::ExtensionConfig),
        "ExtensionConfigs",
        Some("extension_configs"),
    ),
    row(
        "envoy.service.endpoint.v3.LocalityEndpointDiscoveryService",
        Some(Kind::LocalityEndpoint),
        "LocalityEndpoints",
        None,
    ),
];

const fn row(service: &'static str, kind: Option<Kind>, resources: &'static str, polled: Option<&'static str>) -> Row {
    Row { service, kind, resources, polled }
}

/// The method that a request for `path` calls: `None` if it is of no discovery service, an error if its service has no
/// such method.
pub(super) fn of(path: &str) -> Option<Result<Method, NoSuchMethod>> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let row = SERVICES.iter().find(|row| row.service == service)?;
    Some(row.method(method).ok_or(NoSuchMethod))
}

/// The service has no such method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSuchMethod;

/// The type that is polled at `path`.
pub(super) fn polled(path: &str) -> Option<Kind> {
    let resources = path.strip_prefix(POLLED)?;
    SERVICES.iter().find(|row| row.polled == Some(resources))?.kind
}

/// The full names of the services.
pub fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|row| row.service)
}

// === impl Row ===

impl Row {
    fn method(&self, name: &str) -> Option<Method> {
        let form = match name.strip_suffix(self.resources)? {
            "Stream" if !self.is_incremental() => Form::Stream(Protocol::Sotw),
            "Delta" => Form::Stream(Protocol::Delta),
            "Fetch" if !self.is_incremental() => Form::Fetch(self.kind?),
            _ => return None,
        };
        Some(Method { kind: self.kind, form })
    }

    fn is_incremental(&self) -> bool {
        self.kind.is_some_and(Kind::is_incremental)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The services that serve resources, as Envoy's own descriptors have them.
    fn described() -> impl Iterator<Item = prost_reflect::ServiceDescriptor> {
        proto::descriptors().services().filter(|service| {
            let package = service.package_name();
            package.starts_with("envoy.service.")
                && package.ends_with(".v3")
                && service.name().ends_with("DiscoveryService")
                && !["ClientStatusDiscoveryService", "HealthDiscoveryService"].contains(&service.name())
        })
    }

    #[test]
    fn every_method_of_envoys_services_is_served_and_no_other() {
        let mut methods = 0;
        for service in described() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let found = of(&path).unwrap_or_else(|| panic!("{path}")).unwrap_or_else(|_| panic!("{path}"));
                let expected = match (method.is_server_streaming(), method.input().name()) {
                    (true, "DiscoveryRequest") => Form::Stream(Protocol::Sotw),
                    (true, "DeltaDiscoveryRequest") => Form::Stream(Protocol::Delta),
                    (false, "DiscoveryRequest") => Form::Fetch(found.kind.expect("of one type")),
                    other => panic!("{path}: {other:?}"),
                };
                assert_eq!(found.form, expected, "{path}");
                methods += 1;
            }
        }
        assert_eq!((methods, described().count()), (28, SERVICES.len()));
        assert_eq!(services().collect::<std::collections::BTreeSet<_>>().len(), SERVICES.len());
    }

    #[test]
    fn the_types_and_paths_are_those_of_envoys_annotations() {
        let (mut kinds, mut paths) = (0, 0);
        for service in described() {
            let path = |method: &str| format!("/{}/{method}", service.full_name());
            let options = service.options();
            let resource = options.extensions().find(|(extension, _)| extension.name() == "resource");
            let Some((_, resource)) = resource else { continue };
            let resource = resource.as_message().expect("a message").get_field_by_name("type").expect("a type");
            let expected = format!("type.googleapis.com/{}", resource.as_str().expect("a text"));
            for method in service.methods() {
                let found = of(&path(method.name())).expect("known").expect("served");
                assert_eq!(found.kind.map(Kind::type_url), Some(&*expected), "{}", method.full_name());
                kinds += 1;
                let options = method.options();
                let Some((_, http)) = options.extensions().find(|(extension, _)| extension.name() == "http") else {
                    continue;
                };
                let http = http.as_message().expect("a message").get_field_by_name("post").expect("a path");
                let post = http.as_str().expect("a text").to_owned();
                if !post.is_empty() {
                    assert_eq!(polled(&post), found.kind, "{post}");
                    paths += 1;
                }
            }
        }
        assert_eq!((kinds, paths), (26, 8));
    }

    #[test]
    fn what_is_not_served_is_told_from_what_is_not_known() {
        let ads = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
        for (path, expected) in [
            (format!("{ads}/Other"), Some(Err(NoSuchMethod))),
            (format!("{ads}/FetchAggregatedResources"), Some(Err(NoSuchMethod))),
            (format!("{ads}/StreamAggregatedResources/"), Some(Err(NoSuchMethod))),
            ("/envoy.service.route.v3.VirtualHostDiscoveryService/StreamVirtualHosts".into(), Some(Err(NoSuchMethod))),
            (format!("/{ads}/StreamAggregatedResources"), None),
            (ads.into(), None),
            ("/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus".into(), None),
            ("/".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(of(&path), expected, "{path}");
        }
        for path in
            ["/v3/discovery:", "/v3/discovery:virtual_hosts", "/v3/discovery:clusters/", "/v2/discovery:clusters"]
        {
            assert_eq!(polled(path), None, "{path}");
        }
    }
}
