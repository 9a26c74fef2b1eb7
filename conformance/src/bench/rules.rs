//! Rules: what Chancery is given to serve.
//!
//! Owns: the text of every rule file of the bench. May use: the names and addresses of the catalogue. Never: writes.

use std::fmt::Write;

use super::board::marked;
use super::catalogue::{NAMESPACE, address, service_name};

/// What the proxies of a fleet are to Chancery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workloads {
    /// All of one workload, which serves nothing: one group.
    One,
    /// Each its own workload with an identity of its own, which serves one port: so many groups. Each calls the first
    /// so many services.
    Each {
        /// How many workloads.
        count: usize,
        /// How many services each calls.
        calls: usize,
    },
}

/// The rules of a bench: how much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Services, each with static endpoints.
    pub services: usize,
    /// Endpoints of each.
    pub endpoints: usize,
    /// The proxies.
    pub workloads: Workloads,
    /// The mode of mTLS everywhere.
    pub mtls: &'static str,
}

/// The file that a route is changed in.
pub const ROUTE_FILE: &str = "route.yaml";
/// The file that a policy is changed in.
pub const POLICY_FILE: &str = "policy.yaml";

// === impl Rules ===

impl Rules {
    /// Services for one group of proxies, without mTLS.
    pub fn one_group(services: usize, endpoints: usize) -> Self {
        Self { services, endpoints, workloads: Workloads::One, mtls: "disabled" }
    }

    /// Every file: name, text.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> =
            (0..self.services).map(|service| (service_file(service), self.service(service, 0))).collect();
        let mode = format!("  target: {{scope: namespace}}\n  mode: {}\n", self.mtls);
        files.push(("mtls.yaml".into(), object("MTLSPolicy", "everywhere", &mode)));
        match self.workloads {
            Workloads::One => {
                files.push(("workload.yaml".into(), workload("proxy", "bench-*", "", self.services)));
            }
            Workloads::Each { count, calls } => {
                let calls = calls.min(self.services);
                for index in 0..count {
                    let name = workload_name(index);
                    let own = format!(
                        "  serves: [{{service: {name}, listen: \"127.0.0.1:9000\", app: \"127.0.0.1:9001\"}}]\n"
                    );
                    let service = object("MeshService", &name, "  ports: [{name: http, port: 80, protocol: http}]\n");
                    let text = service + "---\n" + &workload(&name, &node_name(index), &own, calls);
                    files.push((format!("{name}.yaml"), text));
                }
            }
        }
        files
    }

    /// The text of the file of a service, after a change.
    pub fn service(&self, service: usize, number: u32) -> String {
        let mut spec = "  ports: [{name: http, port: 80, protocol: http}]\n  endpoints:\n    static:\n".to_owned();
        for endpoint in 0..self.endpoints {
            let number = if endpoint == 0 { number } else { 0 };
            // Nothing fails to be written to a String.
            _ = writeln!(spec, "      - {{address: \"{}\", port: 8080}}", address(service, endpoint, number));
        }
        object("MeshService", &service_name(service), &spec)
    }
}

/// The name of the file of a service.
pub fn service_file(service: usize) -> String {
    format!("{}.yaml", service_name(service))
}

/// The name of a workload that has one proxy.
pub fn workload_name(index: usize) -> String {
    format!("w{index:06}")
}

/// The node id of a client.
pub fn node_name(index: usize) -> String {
    format!("bench-{index:06}")
}

/// A route of a service whose one rule with a path carries a number.
pub fn route(service: usize, number: u32) -> String {
    let name = service_name(service);
    let to = format!("to: [{{service: {name}}}]");
    let spec = format!(
        "  for: {{service: {name}}}\n  http:\n    - name: changed\n      match: [{{path: {{prefix: \"/{}\"}}}}]\n      {to}\n    \
         - name: rest\n      {to}\n",
        marked(number)
    );
    object("TrafficRoute", &name, &spec)
}

/// A policy for all workloads that serve, which carries a number.
pub fn policy(number: u32) -> String {
    let spec = format!(
        "  target: {{scope: namespace}}\n  deny:\n    - from: [any]\n      to: [{{paths: [\"/{}\"]}}]\n",
        marked(number)
    );
    object("AccessPolicy", "changed", &spec)
}

fn workload(name: &str, nodes: &str, more: &str, calls: usize) -> String {
    let mut spec = format!("  match: {{nodeId: \"{nodes}\"}}\n{more}  calls:\n");
    for service in 0..calls {
        let listen = format!("127.0.{}.{}:9000", 1 + service / 250, 1 + service % 250);
        _ = writeln!(spec, "    - {{service: {}, listen: \"{listen}\"}}", service_name(service));
    }
    object("Workload", name, &spec)
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n{spec}"
    )
}
