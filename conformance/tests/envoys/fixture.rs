//! Fixture: a control plane with one EnvoySnapshot, and the Envoy that it is for.
//!
//! Owns: how that Envoy asks, the resources that both kinds of test are made of. May use: the harness. Never: asserts
//! anything but that nothing was refused.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{Chancery, EnvoyProxy, EnvoySource, eventually};
use serde_json::{Value, json};

pub const NODE: &str = "smoke";

/// How an Envoy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Sotw,
    Delta,
    /// A stream for each type, and for each resource of most.
    SotwStreams,
    DeltaStreams,
    /// By polling over plain HTTP.
    Rest,
}

/// The running pair.
pub struct Pair {
    pub chancery: Chancery,
    pub envoy: EnvoyProxy,
}

// === impl Way ===

impl Way {
    /// What a bootstrap or a resource says about where others come from.
    pub fn source(self) -> Value {
        let services = json!([{"envoy_grpc": {"cluster_name": "chancery-control-plane"}}]);
        let own = |api_type: &str| {
            json!({"resource_api_version": "V3", "initial_fetch_timeout": "2s", "api_config_source":
                {"api_type": api_type, "transport_api_version": "V3", "grpc_services": services}})
        };
        match self {
            Self::Sotw | Self::Delta => json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "2s"}),
            Self::SotwStreams => own("GRPC"),
            Self::DeltaStreams => own("DELTA_GRPC"),
            Self::Rest => json!({"resource_api_version": "V3", "initial_fetch_timeout": "2s", "api_config_source":
                {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["chancery-control-plane"],
                 "refresh_delay": "0.2s", "request_timeout": "2s"}}),
        }
    }
}

// === impl Pair ===

impl Pair {
    /// Starts both with these resources.
    pub async fn start(version: &str, way: Way, resources: &[Value]) -> anyhow::Result<Self> {
        let chancery = Chancery::start(&[("rules.yaml", &document(resources))], &[]).await?;
        let (data, xds) = (chancery.data_directory(), chancery.xds_address().to_string());
        let data = data.to_str().context("UTF-8")?;
        let admin = Port::reserve()?;
        let port = admin.number().to_string();
        let mut arguments = vec!["bootstrap", "--node-id", NODE, "--data-dir", data, "--xds-address", &xds];
        arguments.extend(["--admin-port", &port, "-o", "json"]);
        if way == Way::Sotw {
            arguments.push("--sotw");
        }
        let output = chancery.run(&arguments).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut bootstrap: Value = serde_json::from_slice(&output.stdout)?;
        let members = bootstrap.as_object_mut().context("an object")?;
        members.remove("stats_config");
        members.remove("stats_sinks");
        let dynamic = &mut members["dynamic_resources"];
        if !matches!(way, Way::Sotw | Way::Delta) {
            dynamic.as_object_mut().context("an object")?.remove("ads_config");
        }
        dynamic["cds_config"] = way.source();
        dynamic["lds_config"] = way.source();
        members.insert(
            "layered_runtime".to_owned(),
            json!({"layers": [{"name": "flags", "rtds_layer": {"name": "flags", "rtds_config": way.source()}}]}),
        );
        let source = EnvoySource::release(version).await?;
        let mut envoy = EnvoyProxy::run(&source, admin, &bootstrap.to_string())?;
        envoy.live().await?;
        Ok(Self { chancery, envoy })
    }

    /// Replaces the resources.
    pub fn write(&self, resources: &[Value]) -> anyhow::Result<()> {
        self.chancery.write_rules("rules.yaml", &document(resources))
    }

    /// Waits until the Envoy has this text in its configuration, or has it no more.
    pub async fn has(&self, text: &str, has: bool) -> anyhow::Result<()> {
        eventually(SOON, &format!("{text:?} in the configuration: {has}"), async || {
            let dump = self.envoy.text("/config_dump?include_eds").await?;
            let active = self.envoy.text("/clusters").await? + &self.envoy.text("/listeners").await?;
            ensure!((dump.contains(text) || active.contains(text)) == has);
            Ok(())
        })
        .await
    }

    /// Nothing was refused by the Envoy, and none of its requests failed.
    pub async fn took_everything(&self) -> anyhow::Result<()> {
        let nacks = self.chancery.json("/api/v1/nacks").await?;
        ensure!(nacks["total"] == 0, "{nacks:#}");
        let rejected = self.envoy.stats().await?.into_iter().filter(|(name, value)| {
            *value > 0 && (name.ends_with("update_rejected") || name.ends_with("config_reload_rejected"))
        });
        let rejected: Vec<_> = rejected.collect();
        ensure!(rejected.is_empty(), "{rejected:?}");
        Ok(())
    }
}

fn document(resources: &[Value]) -> String {
    let document = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "EnvoySnapshot",
        "metadata": {"name": NODE, "namespace": "smoke"},
        "spec": {"match": {"nodeId": NODE}, "resources": resources},
    });
    document.to_string()
}

fn typed(kind: &str, mut body: Value) -> Value {
    body["@type"] = format!("type.googleapis.com/{kind}").into();
    body
}

/// A cluster whose endpoints are discovered.
pub fn cluster(way: Way, name: &str) -> Value {
    typed(
        "envoy.config.cluster.v3.Cluster",
        json!({"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": way.source()}}),
    )
}

/// A cluster that is warm only when this name server has said where it is: on its own machine, at this port.
pub fn resolved_cluster(name: &str, resolver: SocketAddr, port: u16) -> Value {
    let address = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    let mut resolver = address(&resolver.ip().to_string(), resolver.port());
    resolver["socket_address"]["protocol"] = "UDP".into();
    typed(
        "envoy.config.cluster.v3.Cluster",
        json!({"name": name, "type": "STRICT_DNS", "connect_timeout": "1s", "dns_lookup_family": "V4_ONLY",
            "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [resolver], "dns_resolver_options": {"no_default_search_domain": true}}},
            "load_assignment": {"cluster_name": name, "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address("app.test", port)}}]}]}}),
    )
}

pub fn endpoints(name: &str, address: SocketAddr) -> Value {
    let address = json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    typed(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}),
    )
}

/// A route configuration of one virtual host for these domains, which leads to these clusters by weight.
pub fn route(name: &str, domains: &[&str], to: &[(&str, u32)]) -> Value {
    let clusters: Vec<Value> = to.iter().map(|(name, weight)| json!({"name": name, "weight": weight})).collect();
    typed(
        "envoy.config.route.v3.RouteConfiguration",
        json!({"name": name, "virtual_hosts": [{"name": "all", "domains": domains, "routes": [
            {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": clusters}}}]}]}),
    )
}

/// An HTTP listener with a discovered route.
pub fn listener(way: Way, name: &str, prefix: &str, port: &Port, route: &str) -> Value {
    let rds = json!({"rds": {"route_config_name": route, "config_source": way.source()}});
    listener_with(name, prefix, port, &rds)
}

/// One whose route is a part of it, and leads to a cluster.
pub fn listener_to(name: &str, prefix: &str, port: &Port, cluster: &str) -> Value {
    let everything = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    let hosts = json!([{"name": "all", "domains": ["*"], "routes": [everything]}]);
    listener_with(name, prefix, port, &json!({"route_config": {"virtual_hosts": hosts}}))
}

fn listener_with(name: &str, prefix: &str, port: &Port, route: &Value) -> Value {
    let router = json!({"name": "router", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix, "http_filters": [router],
    });
    let members = route.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    manager.as_object_mut().into_iter().for_each(|manager| manager.extend(members.clone()));
    typed(
        "envoy.config.listener.v3.Listener",
        json!({"name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port.number()}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}),
    )
}
