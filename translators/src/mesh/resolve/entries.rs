//! Entries of access policies: the callers and the operations that they name.
//!
//! Owns: what a valid entry is, and on which ports it holds. May use: `rules`, `services`, `backing`, `matches`.
//! Never: knows which policy comes before another.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::backing::Backings;
use super::facts::Fact;
use super::gateways::Gateways;
use super::health::Callers;
use super::hosts::host;
use super::keys::Providers;
use super::matches;
use super::report::Report;
use super::services::Services;
use crate::finding::Code;
use crate::mesh::{AccessEntry, Caller, External, GrpcMethod, Jwt, Operation};
use crate::name::{QualifiedName, SpiffeId, TrustDomain};
use crate::rules::escaped;
use crate::rules::policy::{CallerSpec, EntrySpec, ExternalSpec, JwtSpec, OperationSpec};
use crate::rules::scalar::{Addresses, Span};
use crate::suggest;

/// How long a service that is asked about requests may take unless something else is written.
const PATIENCE: Duration = Duration::from_secs(1);

/// What entries may refer to.
pub(super) struct Known<'a> {
    pub trust_domain: &'a TrustDomain,
    pub services: &'a Services,
    pub backings: &'a Backings,
    pub providers: &'a Providers,
    pub gateways: &'a Gateways,
    pub callers: &'a Callers,
}

/// An entry of a policy, whatever the port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    written: AccessEntry,
    /// The ports of each operation by number; empty is all.
    ports: Vec<BTreeSet<NonZeroU16>>,
}

// === impl Entry ===

impl Entry {
    /// The entries of `list`, the pointer to which is given as well.
    pub(super) fn all(written: &[EntrySpec], list: &str, known: &Known<'_>, report: &mut Report<'_>) -> Vec<Self> {
        written.iter().enumerate().map(|(n, entry)| Self::of(entry, &format!("{list}/{n}"), known, report)).collect()
    }

    fn of(entry: &EntrySpec, at: &str, known: &Known<'_>, report: &mut Report<'_>) -> Self {
        if *entry == EntrySpec::default() {
            report
                .error(Code::MissingField, at, "an entry names callers, operations, a token or a service to ask")
                .choices = ["from", "to", "jwt", "external"].map(str::to_owned).to_vec();
        }
        for (name, empty) in [
            ("from", entry.from.as_ref().is_some_and(Vec::is_empty)),
            ("to", entry.to.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                report.error(Code::InvalidValue, format!("{at}/{name}"), "an empty list matches nothing").hint =
                    Some(format!("leave {name} out to match everything"));
            }
        }
        let from = entry.from.iter().flatten().enumerate();
        let to = entry.to.iter().flatten();
        let written = AccessEntry {
            origin: report.origin(at),
            from: from.filter_map(|(n, from)| caller(from, &format!("{at}/from/{n}"), known, report)).collect(),
            to: to.clone().enumerate().map(|(n, to)| operation(to, &format!("{at}/to/{n}"), report)).collect(),
            jwt: entry.jwt.as_ref().and_then(|jwt| token(jwt, &format!("{at}/jwt"), known, report)),
            external: entry.external.as_ref().and_then(|of| external(of, &format!("{at}/external"), known, report)),
        };
        Self { written, ports: to.map(|to| to.ports.iter().copied().collect()).collect() }
    }

    /// What the entry says of the port of this number, which may be one of `service`; `None` where it speaks of others only.
    pub(super) fn on(&self, service: Option<&QualifiedName>, port: NonZeroU16) -> Option<AccessEntry> {
        // Whoever asks it about a request would have to ask it about that question.
        if self.written.external.as_ref().is_some_and(|external| Some(&external.service) == service) {
            return None;
        }
        if self.ports.iter().all(BTreeSet::is_empty) {
            return Some(self.written.clone());
        }
        let to: Vec<_> =
            self.operations().filter(|(ports, _)| is_among(port, ports)).map(|(_, to)| to.clone()).collect();
        (!to.is_empty()).then(|| AccessEntry { to, ..self.written.clone() })
    }

    /// The callers.
    pub(super) fn from(&self) -> &[Caller] {
        &self.written.from
    }

    /// The parts, operations apart, that no connection has, by name, and why.
    pub(super) fn of_requests(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let jwt = self.written.jwt.is_some().then_some(("jwt", "a connection of a tcp port carries no token"));
        let asks = self.written.external.is_some();
        jwt.into_iter().chain(asks.then_some(("external", "nobody is asked about connections of a tcp port")))
    }

    /// Whether a service is asked about what it matches.
    pub(super) fn is_external(&self) -> bool {
        self.written.external.is_some()
    }

    /// The operations, and the ports of each; none are all.
    pub(super) fn operations(&self) -> impl Iterator<Item = (&BTreeSet<NonZeroU16>, &Operation)> {
        self.ports.iter().zip(&self.written.to)
    }
}

/// Whether an operation of these `ports` can be one on the port of this number.
pub(super) fn is_among(port: NonZeroU16, ports: &BTreeSet<NonZeroU16>) -> bool {
    ports.is_empty() || ports.contains(&port)
}

/// The parts of an operation that only a request has, by name.
pub(super) fn http_parts(operation: &Operation) -> impl Iterator<Item = &'static str> {
    let Operation { methods, paths, hosts, headers, grpc } = operation;
    let parts = [
        ("methods", methods.is_empty()),
        ("paths", paths.is_empty()),
        ("hosts", hosts.is_empty()),
        ("headers", headers.is_empty()),
        ("grpcMethods", grpc.is_empty()),
    ];
    parts.into_iter().filter(|(_, absent)| !absent).map(|(name, _)| name)
}

fn caller(written: &CallerSpec, at: &str, known: &Known<'_>, report: &mut Report<'_>) -> Option<Caller> {
    let home = report.object.key.name.namespace.clone();
    match written {
        CallerSpec::Any => Some(Caller::Any),
        CallerSpec::Ip(Addresses(network)) => Some(Caller::Ip(*network)),
        CallerSpec::Namespace(namespace) => Some(Caller::Namespace(namespace.clone())),
        CallerSpec::Service(name) => {
            let name = name.within(&home);
            known.services.service(&name, format_args!("{at}/service"), report)?;
            known.backings.identities(&name, report).cloned().map(Caller::Identities)
        }
        CallerSpec::Gateway(name) => {
            let name = name.within(&home);
            known.gateways.gateway(&name, format_args!("{at}/gateway"), report)?;
            report.reads.push(Fact::AtGateway(name.clone()));
            Some(Caller::Identities(known.callers.at_gateway(&name)))
        }
        CallerSpec::ServiceAccount(name) => {
            let namespace = name.namespace.as_ref().unwrap_or(&home);
            match SpiffeId::of_account(known.trust_domain, namespace, &name.account) {
                Ok(identity) => Some(Caller::Identities(BTreeSet::from([identity]))),
                Err(error) => {
                    report.error(Code::InvalidValue, format!("{at}/serviceAccount"), error.to_string());
                    None
                }
            }
        }
        CallerSpec::Spiffe(pattern) => {
            let valid = pattern.strip_prefix("spiffe://").is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_/*".contains(&c))
            });
            if !valid {
                let message = format!("{pattern:?} is no pattern for a SPIFFE id");
                let hint = format!("write spiffe://{}/ns/NAMESPACE/sa/*", known.trust_domain);
                report.error(Code::InvalidValue, format!("{at}/spiffe"), message).hint = Some(hint);
            }
            Some(Caller::Pattern(pattern.clone()))
        }
    }
}

fn token(written: &JwtSpec, at: &str, known: &Known<'_>, report: &mut Report<'_>) -> Option<Jwt> {
    for (name, values) in &written.claims {
        if name.is_empty() {
            report.error(Code::InvalidValue, format!("{at}/claims"), "a claim has a name");
        }
        if values.is_empty() {
            let pointer = format!("{at}/claims/{}", escaped(name));
            report.error(Code::InvalidValue, pointer, "a claim has one of several values: name one at least");
        }
    }
    let provider = known.providers.get(written.provider.as_str());
    if provider.is_none() {
        let choices: Vec<String> = known.providers.keys().cloned().collect();
        let message = format!("the Mesh has no provider {}", written.provider);
        let finding = report.error(Code::NotFound, format!("{at}/provider"), message);
        finding.hint = suggest::did_you_mean(written.provider.as_str(), &choices);
        finding.choices = choices;
    }
    let claims = written.claims.iter().map(|(name, values)| (name.clone(), values.iter().cloned().collect()));
    Some(Jwt { provider: Arc::clone(provider?), claims: claims.collect() })
}

fn external(written: &ExternalSpec, at: &str, known: &Known<'_>, report: &mut Report<'_>) -> Option<Arc<External>> {
    let ExternalSpec { service, port, timeout, fail_open } = written;
    if timeout.is_some_and(|Span(timeout)| timeout.is_zero()) {
        report.error(Code::InvalidValue, format!("{at}/timeout"), "an answer needs more than 0s");
    }
    let name = service.within(&report.object.key.name.namespace);
    let declared = known.services.service(&name, format_args!("{at}/service"), report)?;
    let port = declared.port(port.as_ref(), format_args!("{at}/port"), report)?;
    if !port.protocol.is_http() {
        let message = format!("a service is asked by grpc or http: {name} {} is neither", port.name);
        report.error(Code::WrongProtocol, format!("{at}/service"), message);
        return None;
    }
    Some(Arc::new(External {
        port: port.name.to_string(),
        by_grpc: port.protocol.takes_grpc(),
        timeout: timeout.map_or(PATIENCE, |Span(timeout)| timeout),
        fail_open: *fail_open,
        service: name,
    }))
}

fn operation(written: &OperationSpec, at: &str, report: &mut Report<'_>) -> Operation {
    let OperationSpec { methods, paths, hosts, ports, headers, grpc_methods } = written;
    let operation = Operation {
        methods: methods.iter().map(|method| method.0.clone()).collect(),
        paths: paths.iter().enumerate().map(|(n, text)| path(text, &format!("{at}/paths/{n}"), report)).collect(),
        hosts: hosts
            .iter()
            .enumerate()
            .filter_map(|(n, text)| host(text, &format!("{at}/hosts/{n}"), report))
            .collect(),
        headers: matches::headers(headers, &format!("{at}/headers"), report),
        grpc: grpc_methods
            .iter()
            .enumerate()
            .filter_map(|(n, text)| grpc_method(text, &format!("{at}/grpcMethods/{n}"), report))
            .collect(),
    };
    if *written == OperationSpec::default() {
        report.error(Code::MissingField, at, "an operation names something that callers do").choices =
            ["methods", "paths", "hosts", "ports", "headers", "grpcMethods"].map(str::to_owned).to_vec();
    }
    for (n, port) in ports.iter().enumerate().filter(|(n, port)| ports[..*n].contains(port)) {
        report.error(Code::Duplicate, format!("{at}/ports/{n}"), format!("the port {port} is named twice"));
    }
    operation
}

fn path(text: &str, at: &str, report: &mut Report<'_>) -> String {
    if !text.starts_with(['/', '*']) || text.contains(['?', '#']) {
        let message = format!("{text:?} is no path: a path starts with / or *, and has no query");
        report.error(Code::InvalidValue, at, message);
    }
    text.to_owned()
}

fn grpc_method(text: &str, at: &str, report: &mut Report<'_>) -> Option<GrpcMethod> {
    let name = |name: &str| {
        let rest = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.bytes().all(rest)
    };
    let found = text
        .split_once('/')
        .filter(|(service, method)| service.split('.').all(name) && (*method == "*" || name(method)));
    if found.is_none() {
        let message = format!("{text:?} is no method of gRPC: write package.Service/Method or package.Service/*");
        report.error(Code::InvalidValue, at, message);
    }
    let (service, method) = found?;
    Some(GrpcMethod { service: service.to_owned(), method: (method != "*").then(|| method.to_owned()) })
}
