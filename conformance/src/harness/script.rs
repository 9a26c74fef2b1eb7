//! Script: the configuration of one node in a word a resource, and a client whose hearing reads like it.
//!
//! Owns: a node's EnvoySnapshot on a control plane that the tests of a file share, and streams for it. May use: the
//! control plane's files, the scripted client. Never: answers by itself.
//!
//! `CDS c1=2, EDS -c1` puts the cluster `c1` with the content `2` and takes the endpoints `c1` away; `VHDS r/v|a=1` is a
//! virtual host that is asked for as `r/a` too, `CDS c^e=1` a cluster whose endpoints are called `e`, `RTDS r@3=1` lives for three seconds. What a client hears is written
//! the same way, a line a response: `CDS c1=2 -c3`; `?a` is an alias that nothing goes by.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use anyhow::{Context, ensure};
use chancery::ports::Port;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use translators::json;
use translators::resource::Kind;

use super::chancery::Chancery;
use super::credential::Credential;
use super::peer::{Delta, Peer, Received};

/// What tells that an edit has arrived.
const FENCE: &str = "fence";

/// The configuration of one node.
pub struct World {
    shared: Arc<Shared>,
    node: String,
    resources: BTreeMap<(Kind, String), String>,
    version: Option<String>,
    fence: Peer,
    edits: u64,
}

/// The control plane of a file's tests: it runs while one of them does.
struct Shared {
    chancery: Chancery,
    plaintext: Port,
}

/// A client of either protocol.
pub struct Script {
    /// Its stream.
    pub peer: Peer,
    incremental: bool,
}

// === impl World ===

impl World {
    /// A node with these contents.
    pub async fn start(node: &str, contents: &str) -> anyhow::Result<Self> {
        static SHARED: OnceLock<Mutex<Weak<Shared>>> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Mutex::default).lock().await;
        let running = match shared.upgrade() {
            Some(running) => running,
            None => {
                let started = Arc::new(Shared::start(&[]).await?);
                *shared = Arc::downgrade(&started);
                started
            }
        };
        drop(shared);
        Self::on(running, node, contents).await
    }

    /// The same on a control plane of its own with these arguments.
    pub async fn alone(node: &str, contents: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::on(Arc::new(Shared::start(arguments).await?), node, contents).await
    }

    async fn on(shared: Arc<Shared>, node: &str, contents: &str) -> anyhow::Result<Self> {
        let mut resources = BTreeMap::new();
        edit(&mut resources, contents)?;
        write(&shared.chancery, node, &resources, None, 0)?;
        let fence = super::wait::eventually(super::shop::SOON, "a stream for the node", async || {
            let mut fence = Peer::delta(shared.plaintext.loopback(), node).await?;
            fence.say(Kind::Runtime, Delta { subscribe: &[FENCE], ..Default::default() }).await?;
            ensure!(fence.next_of(Kind::Runtime).await?.names() == [FENCE]);
            fence.accept(Kind::Runtime).await?;
            Ok(fence)
        });
        let fence = fence.await?;
        Ok(Self { shared, node: node.to_owned(), resources, version: None, fence, edits: 0 })
    }

    /// Changes the contents; ready when the control plane has taken them up.
    pub async fn edit(&mut self, text: &str) -> anyhow::Result<()> {
        edit(&mut self.resources, text)?;
        self.publish().await
    }

    /// What the snapshot says that its version is.
    pub async fn say_version(&mut self, version: &str) -> anyhow::Result<()> {
        self.version = Some(version.to_owned());
        self.publish().await
    }

    /// Writes the contents again; ready when the control plane has taken them up.
    pub async fn publish(&mut self) -> anyhow::Result<()> {
        self.edits += 1;
        write(&self.shared.chancery, &self.node, &self.resources, self.version.as_deref(), self.edits)?;
        let content = self.edits.to_string();
        loop {
            let received = self.fence.next_of(Kind::Runtime).await.with_context(|| self.shared.chancery.log())?;
            self.fence.accept(Kind::Runtime).await?;
            if received.says(&format!("fence-{content}")) {
                return Ok(());
            }
        }
    }

    /// The control plane.
    pub fn chancery(&self) -> &Chancery {
        &self.shared.chancery
    }

    /// Where it is without TLS.
    pub fn address(&self) -> std::net::SocketAddr {
        self.shared.plaintext.loopback()
    }

    /// The node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A new state-of-the-world stream on a connection of its own.
    pub async fn sotw(&self) -> anyhow::Result<Script> {
        Ok(Script { peer: Peer::sotw(self.address(), &self.node).await?, incremental: false })
    }

    /// A new incremental stream on a connection of its own.
    pub async fn delta(&self) -> anyhow::Result<Script> {
        Ok(Script { peer: Peer::delta(self.address(), &self.node).await?, incremental: true })
    }

    /// A new stream of either protocol.
    pub async fn stream(&self, incremental: bool) -> anyhow::Result<Script> {
        if incremental { self.delta().await } else { self.sotw().await }
    }

    /// A new stream of either protocol by TLS, on which secrets are served.
    pub async fn proven(&self, incremental: bool) -> anyhow::Result<Script> {
        let channel: Channel =
            Credential::issue_to_node(&self.shared.chancery, &self.node).await?.connect(&self.shared.chancery).await?;
        let peer = match incremental {
            true => Peer::delta_over(channel, &self.node).await?,
            false => Peer::sotw_over(channel, &self.node).await?,
        };
        Ok(Script { peer, incremental })
    }
}

// === impl Shared ===

impl Shared {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let plaintext = Port::reserve()?;
        let address = plaintext.loopback().to_string();
        let arguments = [&["--xds-plaintext-address", &address], arguments].concat();
        let chancery = Chancery::start(&[], &arguments).await?;
        Ok(Self { chancery, plaintext })
    }
}

// === impl Script ===

impl Script {
    /// On an incremental stream.
    pub fn delta(peer: Peer) -> Self {
        Self { peer, incremental: true }
    }

    /// Hears these responses, whose lines are in order, and nothing after them.
    pub async fn hears(&mut self, lines: &[&str]) -> anyhow::Result<()> {
        for line in lines {
            let received = self.peer.next().await.with_context(|| format!("waiting for {line:?}"))?;
            let heard = written(&received)?;
            ensure!(heard == *line, "{line:?} was to come, and this came: {heard:?}");
        }
        self.peer.silence().await.with_context(|| format!("after {lines:?}"))
    }

    /// Asks for these: in delta `-a` unsubscribes; in state of the world it is the whole list, with the last nonce.
    pub async fn ask(&mut self, service: &str, names: &[&str]) -> anyhow::Result<()> {
        let kind = kind(service)?;
        if !self.incremental {
            return self.peer.ask(kind, names).await;
        }
        let subscribe: Vec<&str> = names.iter().copied().filter(|name| !name.starts_with('-')).collect();
        let unsubscribe: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix('-')).collect();
        let delta = Delta { subscribe: &subscribe, unsubscribe: &unsubscribe, ..Default::default() };
        self.peer.say(kind, delta).await
    }

    /// Accepts the last response; in state of the world with this list.
    pub async fn ack(&mut self, service: &str, names: &[&str]) -> anyhow::Result<()> {
        let kind = kind(service)?;
        if self.incremental { self.peer.accept(kind).await } else { self.peer.ack(kind, names).await }
    }

    /// Refuses the last response; in state of the world with this list.
    pub async fn nack(&mut self, service: &str, names: &[&str], error: &str) -> anyhow::Result<()> {
        let kind = kind(service)?;
        if self.incremental { self.peer.refuse(kind, error).await } else { self.peer.nack(kind, names, error).await }
    }

    /// Asks, hears one line and accepts it; nothing else comes.
    pub async fn takes(&mut self, service: &str, names: &[&str], line: &str) -> anyhow::Result<()> {
        self.ask(service, names).await?;
        self.hears(&[line]).await?;
        self.ack(service, names).await
    }
}

/// The type of a service.
pub fn kind(service: &str) -> anyhow::Result<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.service() == service).with_context(|| format!("no service {service}"))
}

fn edit(resources: &mut BTreeMap<(Kind, String), String>, text: &str) -> anyhow::Result<()> {
    for part in text.split(", ").filter(|part| !part.is_empty()) {
        let (service, rest) = part.split_once(' ').with_context(|| part.to_owned())?;
        let kind = kind(service)?;
        match rest.split_once('=') {
            Some((name, content)) => _ = resources.insert((kind, name.to_owned()), content.to_owned()),
            None => {
                let gone = resources.remove(&(kind, rest[1..].to_owned()));
                gone.with_context(|| format!("{part}: there is none"))?;
            }
        }
    }
    Ok(())
}

fn write(
    chancery: &Chancery,
    node: &str,
    resources: &BTreeMap<(Kind, String), String>,
    version: Option<&str>,
    edits: u64,
) -> anyhow::Result<()> {
    let mut all: Vec<Value> = resources.iter().map(|((kind, name), content)| resource(*kind, name, content)).collect();
    all.push(resource(Kind::Runtime, FENCE, &format!("fence-{edits}")));
    let mut spec = json!({"match": {"nodeId": node}, "resources": all});
    if let Some(version) = version {
        spec["version"] = version.into();
    }
    let document = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "EnvoySnapshot",
        "metadata": {"name": node, "namespace": "scenarios"}, "spec": spec,
    });
    chancery.write_rules(&format!("{node}.yaml"), &document.to_string())
}

/// A resource that Envoy would take, with the content somewhere in it.
fn resource(kind: Kind, name: &str, content: &str) -> Value {
    let (names, ttl) = name.split_once('@').map_or((name, None), |(names, ttl)| (names, Some(ttl)));
    let mut names = names.split('|');
    let name = names.next().unwrap_or_default();
    let aliases: Vec<&str> = names.collect();
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 1}});
    let mut body = match kind {
        Kind::Secret => json!({"name": name, "generic_secret": {"secret": {"inline_string": content}}}),
        Kind::Cluster => {
            let (name, endpoints) = name.split_once('^').unwrap_or((name, ""));
            json!({"name": name, "connect_timeout": "1s", "alt_stat_name": content, "type": "EDS",
                "eds_cluster_config": {"service_name": endpoints,
                    "eds_config": {"ads": {}, "resource_api_version": "V3"}}})
        }
        Kind::Endpoints => json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"hostname": content, "address": address}}]}]}),
        Kind::Listener => json!({"name": name, "stat_prefix": content, "address": address}),
        Kind::Route => json!({"name": name, "internal_only_headers": [content]}),
        Kind::Runtime => json!({"name": name, "layer": {"content": content}}),
        Kind::LocalityEndpoint => json!({"endpoint": {"hostname": content, "address": address}}),
        Kind::ExtensionConfig => json!({"name": name, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua", "stat_prefix": content}}),
        Kind::ScopedRoute => json!({"name": name, "route_configuration_name": content,
            "key": {"fragments": [{"string_key": name}]}}),
        Kind::VirtualHost => json!({"name": name, "domains": [name], "request_headers_to_remove": [content]}),
    };
    body["@type"] = kind.type_url().into();
    if kind == Kind::LocalityEndpoint || ttl.is_some() || !aliases.is_empty() {
        body = json!({"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "name": name,
            "aliases": aliases, "resource": body});
        if let Some(ttl) = ttl {
            body["ttl"] = format!("{ttl}s").into();
        }
    }
    body
}

/// What was received as a line.
pub fn written(received: &Received) -> anyhow::Result<String> {
    let kind = received.kind;
    let mut words = Vec::new();
    for (name, _, body) in &received.resources {
        if body.is_empty() {
            words.push(format!("?{name}"));
            continue;
        }
        let value = json::to_json(kind.type_url(), body)?;
        let (at, content) = match kind {
            Kind::Secret => ("/name", "/generic_secret/secret/inline_string"),
            Kind::Cluster => ("/name", "/alt_stat_name"),
            Kind::Endpoints => ("/cluster_name", "/endpoints/0/lb_endpoints/0/endpoint/hostname"),
            Kind::Listener => ("/name", "/stat_prefix"),
            Kind::Route => ("/name", "/internal_only_headers/0"),
            Kind::Runtime => ("/name", "/layer/content"),
            Kind::LocalityEndpoint => ("", "/endpoint/hostname"),
            Kind::ExtensionConfig => ("/name", "/typed_config/stat_prefix"),
            Kind::ScopedRoute => ("/name", "/route_configuration_name"),
            Kind::VirtualHost => ("/name", "/request_headers_to_remove/0"),
        };
        let inside = value.pointer(at).and_then(Value::as_str).unwrap_or(name);
        ensure!(name.is_empty() || name == inside, "{name} is called {inside} inside");
        words.push(format!("{inside}={}", value.pointer(content).and_then(Value::as_str).unwrap_or_default()));
    }
    words.sort();
    words.extend(received.removed.iter().map(|name| format!("-{name}")));
    Ok([vec![kind.service().to_owned()], words].concat().join(" "))
}
