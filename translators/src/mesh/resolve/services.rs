//! MeshServices: ports and fixed endpoints, and looking a service or port up by name.
//!
//! Owns: what a MeshService says by itself. May use: `rules`, `facts`. Never: knows who serves it.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::claims::Unclaimed;
use super::facts::Fact;
use super::report::Report;
use super::stage::{Change, Stage};
use super::{nearness, outside};
use crate::finding::Code;
use crate::mesh::{Backing, Outside, Protocol, StaticEndpoint};
use crate::name::{Label, QualifiedName, RuleRef};
use crate::rules::escaped;
use crate::rules::service::{EndpointSpec, Endpoints, ServiceSpec};
use crate::suggest;

/// Ports on which the server is known to speak first: SMTP, POP3, IMAP, submission, MySQL.
const SERVER_FIRST: [u16; 5] = [25, 110, 143, 587, 3306];

/// More choices than this help nobody.
const MOST_CHOICES: usize = 20;

/// What a MeshService says by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub origin: RuleRef,
    /// By number.
    pub ports: Vec<DeclaredPort>,
    /// What it says of its endpoints; `None` stands for the workloads that serve it.
    pub endpoints: Option<Backing>,
    /// What is to be known of a service that is not of the mesh.
    pub outside: Option<Arc<Outside>>,
}

/// One port of a service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeclaredPort {
    pub name: String,
    pub number: NonZeroU16,
    pub protocol: Protocol,
    pub server_first: bool,
}

/// The services that may be referred to.
pub(super) type Services = Stage<Declared, Unclaimed>;

// === impl Services ===

impl Services {
    /// The service `name`; a finding at `pointer` when there is none.
    pub(super) fn service(
        &self,
        name: &QualifiedName,
        pointer: fmt::Arguments<'_>,
        report: &mut Report<'_>,
    ) -> Option<&Declared> {
        report.reads.push(Fact::Service(name.clone()));
        let found = self.get(name);
        if found.is_none() {
            let mut choices: Vec<String> = self.within(&name.namespace).map(|(near, _)| near.to_string()).collect();
            report.reads.push(Fact::Names(name.namespace.clone()));
            if choices.is_empty() {
                choices = self.iter().map(|(any, _)| any.to_string()).collect();
                report.reads.push(Fact::AllNames);
            }
            let finding = report.error(Code::NotFound, pointer.to_string(), format!("there is no service {name}"));
            finding.hint = suggest::did_you_mean(&name.to_string(), &choices);
            finding.choices = choices.into_iter().take(MOST_CHOICES).collect();
        }
        found.map(AsRef::as_ref)
    }
}

/// What those who refer to services may have read otherwise before `change`.
pub(super) fn facts(change: &Change<Declared>) -> Vec<Fact> {
    let name = &change.name;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.value.reads_as(&after.value) => Vec::new(),
        (Some(_), Some(_)) => vec![Fact::Service(name.clone())],
        (None, None) => Vec::new(),
        (Some(_), None) | (None, Some(_)) => {
            vec![Fact::Service(name.clone()), Fact::Names(name.namespace.clone()), Fact::AllNames]
        }
    }
}

// === impl Declared ===

impl Declared {
    /// What `spec` says.
    pub(super) fn of(spec: &ServiceSpec, report: &mut Report<'_>) -> Self {
        if spec.ports.is_empty() {
            report.error(Code::InvalidValue, "/spec/ports", "a service has at least one port");
        }
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for (index, port) in spec.ports.iter().enumerate() {
            let at = format!("/spec/ports/{index}");
            if !names.insert(port.name.as_str()) {
                report.error(Code::Conflict, format!("{at}/name"), format!("two ports are called {}", port.name));
            }
            if !numbers.insert(port.port) {
                report.error(Code::Conflict, format!("{at}/port"), format!("two ports have the number {}", port.port));
            }
            if port.server_first == Some(true) && port.protocol != Protocol::Tcp {
                report.error(
                    Code::InvalidValue,
                    format!("{at}/serverFirst"),
                    "only a tcp port can have an application that speaks first",
                );
            }
            if port.protocol == Protocol::Tcp && port.server_first.is_none() && SERVER_FIRST.contains(&port.port.get())
            {
                report
                    .warning(Code::ServerFirst, &at, format!("on port {} the server usually speaks first", port.port))
                    .hint = Some("declare serverFirst: true, or false if it does not".to_owned());
            }
        }
        let mut ports: Vec<DeclaredPort> = spec
            .ports
            .iter()
            .map(|port| DeclaredPort {
                name: port.name.to_string(),
                number: port.port,
                protocol: port.protocol,
                server_first: port.server_first.unwrap_or(false),
            })
            .collect();
        ports.sort_by_key(|port| port.number);
        let endpoints = spec.endpoints.as_ref().map(|endpoints| match endpoints {
            Endpoints::Static(list) => {
                let mut resolved: Vec<StaticEndpoint> = Vec::with_capacity(list.len());
                for (index, endpoint) in list.iter().enumerate() {
                    let before = resolved.last();
                    resolved.push(static_endpoint(endpoint, index, &ports, before, report));
                }
                Backing::Static(resolved.into())
            }
            Endpoints::Dns(written) => Backing::Dns(Arc::new(outside::dns(written, &ports, report))),
        });
        let outside = outside::outside(spec, report).map(Arc::new);
        Self { origin: report.origin(""), ports, endpoints, outside }
    }

    /// Whether those who refer to it see no difference.
    fn reads_as(&self, other: &Self) -> bool {
        (&self.ports, self.host()) == (&other.ports, other.host())
    }

    /// The host that requests to it are for, where that is another one than what callers write.
    pub(super) fn host(&self) -> Option<&String> {
        self.outside.as_ref()?.host.as_ref()
    }

    /// The port called `name`, or the only one; findings at `pointer`, the place of `port`.
    pub(super) fn port(
        &self,
        name: Option<&Label>,
        pointer: fmt::Arguments<'_>,
        report: &mut Report<'_>,
    ) -> Option<&DeclaredPort> {
        let choices = || self.ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        match (name, self.ports.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => {
                let pointer = pointer.to_string();
                let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                report.error(Code::MissingField, parent, "missing field \"port\": the service has several").choices =
                    choices();
                None
            }
            (Some(name), ports) => {
                let found = ports.iter().find(|port| port.name == name.as_str());
                if found.is_none() {
                    let service = &self.origin.object.name;
                    let message = format!("the service {service} has no port {name}");
                    let finding = report.error(Code::NotFound, pointer.to_string(), message);
                    finding.choices = choices();
                    finding.hint = suggest::did_you_mean(name.as_str(), &finding.choices);
                }
                found
            }
        }
    }
}

fn static_endpoint(
    spec: &EndpointSpec,
    index: usize,
    ports: &[DeclaredPort],
    neighbour: Option<&StaticEndpoint>,
    report: &mut Report<'_>,
) -> StaticEndpoint {
    let at = || format!("/spec/endpoints/static/{index}");
    let before = neighbour.map(|neighbour| &neighbour.ports);
    let by_name = match (spec.port, &spec.ports) {
        (Some(port), None) => match ports {
            [only] => match before {
                Some(before) if before.len() == 1 && before.get(&only.name) == Some(&port) => Arc::clone(before),
                Some(_) | None => Arc::new([(only.name.clone(), port)].into()),
            },
            _ => {
                let message = "the service has several ports: give the endpoint's port for each by name";
                let finding = report.error(Code::InvalidValue, format!("{}/port", at()), message);
                finding.hint = Some("write ports: {name: number}".to_owned());
                Arc::default()
            }
        },
        (None, Some(by_name)) => {
            let known: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            for name in by_name.keys().filter(|name| !known.contains(&name.as_str())) {
                let pointer = format!("{}/ports/{}", at(), escaped(name));
                let finding = report.error(Code::NotFound, pointer, format!("the service has no port {name:?}"));
                finding.hint = suggest::did_you_mean(name, &known);
                finding.choices = known.iter().map(|&name| name.to_owned()).collect();
            }
            if by_name.is_empty() {
                report.error(Code::InvalidValue, format!("{}/ports", at()), "an endpoint has at least one port");
            }
            match before {
                Some(before) if **before == *by_name => Arc::clone(before),
                Some(_) | None => Arc::new(by_name.clone()),
            }
        }
        (None, None) => {
            let field = if ports.len() == 1 { "port" } else { "ports" };
            report.error(Code::MissingField, at(), format!("missing field {field:?}"));
            Arc::default()
        }
        (Some(_), Some(_)) => {
            report.error(Code::InvalidValue, format!("{}/ports", at()), "an endpoint has either port or ports");
            Arc::default()
        }
    };
    StaticEndpoint {
        address: spec.address,
        ports: by_name,
        weight: spec.weight.map_or(1, Into::into),
        labels: spec.labels.clone(),
        locality: nearness::locality(
            spec.locality.as_ref(),
            || at() + "/locality",
            neighbour.and_then(|neighbour| neighbour.locality.as_ref()),
            report,
        ),
    }
}
