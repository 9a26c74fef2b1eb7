//! Providers of telemetry: who is told, and the way to them.
//!
//! Owns: what a valid provider is, and which of them can be told what. May use: `rules`, `services`. Never: knows what is
//! said.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::host_and_port;
use super::outside;
use super::report::Report;
use super::services::Services;
use super::settings::ROOT_NAMESPACE;
use crate::finding::Code;
use crate::mesh::{Collector, CollectorAt, Language, TelemetryProvider};
use crate::name::{Label, QualifiedName};
use crate::rules::telemetry::{CollectorSpec, TelemetryProviderSpec};
use crate::rules::tls::CaSpec;
use crate::suggest;

/// Providers by name.
pub(super) type Providers = BTreeMap<String, Arc<TelemetryProvider>>;

/// Where spans of Zipkin go unless something else is written.
const SPANS: &str = "/api/v2/spans";

/// What the Mesh says of providers.
pub(super) fn providers(written: &[TelemetryProviderSpec], report: &mut Report<'_>) -> Providers {
    let mut providers = Providers::new();
    for (index, spec) in written.iter().enumerate() {
        let at = format!("/spec/telemetryProviders/{index}");
        let provider = match (&spec.otlp, &spec.zipkin) {
            (Some(collector), None) => {
                if collector.path.is_some() {
                    let message = "OpenTelemetry is spoken over gRPC, which has paths of its own";
                    report.error(Code::InvalidValue, format!("{at}/otlp/path"), message);
                }
                collector_at(collector, &format!("{at}/otlp"), report).map(|at| (Language::Otlp, at))
            }
            (None, Some(collector)) => {
                let path = collector.path.as_deref().unwrap_or(SPANS);
                if !path.starts_with('/') || !path.bytes().all(|c| c.is_ascii_graphic() && c != b'#') {
                    let message = format!("{path:?} is no path: a path starts with /");
                    report.error(Code::InvalidValue, format!("{at}/zipkin/path"), message);
                }
                let found = collector_at(collector, &format!("{at}/zipkin"), report);
                found.map(|at| (Language::Zipkin(path.to_owned()), at))
            }
            (None, None) | (Some(_), Some(_)) => {
                report.error(Code::InvalidValue, &at, "a provider speaks exactly one language").choices =
                    ["otlp", "zipkin"].map(str::to_owned).to_vec();
                None
            }
        };
        let name = spec.name.to_string();
        let provider = provider.map(|(language, place)| {
            Arc::new(TelemetryProvider { origin: report.origin(&at), name: name.clone(), language, at: place })
        });
        if provider.and_then(|provider| providers.insert(name, provider)).is_some() {
            let message = format!("two providers are called {}", spec.name);
            report.error(Code::Duplicate, format!("{at}/name"), message);
        }
    }
    providers
}

fn collector_at(written: &CollectorSpec, at: &str, report: &mut Report<'_>) -> Option<CollectorAt> {
    let CollectorSpec { address, tls, ca, service, port, path: _ } = written;
    let tls = tls.unwrap_or(false);
    if ca.is_some() && !tls {
        let message = "no certificate is shown without TLS";
        report.error(Code::InvalidValue, format!("{at}/ca"), message).hint = Some("write tls: true".to_owned());
    }
    match (address, service) {
        (Some(address), None) => {
            if port.is_some() {
                report.error(Code::InvalidValue, format!("{at}/port"), "an address has its port behind a colon");
            }
            let Some((host, Some(port))) = host_and_port(address) else {
                let message = format!("{address:?} is no host with a port: write collector.example:4317");
                report.error(Code::InvalidValue, format!("{at}/address"), message);
                return None;
            };
            let ca = ca.as_ref().unwrap_or(&CaSpec::System);
            let tls = tls.then(|| outside::authorities(ca, &format!("{at}/ca"), report));
            Some(CollectorAt::Address { host: host.to_owned(), port, tls })
        }
        (None, Some(service)) => {
            if tls {
                let message = "how a service of the mesh is called its MTLSPolicy says";
                report.error(Code::InvalidValue, format!("{at}/tls"), message).hint = Some("leave it out".to_owned());
            }
            let home: Label = ROOT_NAMESPACE.parse().expect("a label");
            Some(CollectorAt::Service { service: service.within(&home), port: port.as_ref().map(Label::to_string) })
        }
        (None, None) | (Some(_), Some(_)) => {
            report.error(Code::InvalidValue, at, "a collector is at exactly one place").choices =
                ["address", "service"].map(str::to_owned).to_vec();
            None
        }
    }
}

/// Whether `service` is a provider's: what it said of being told something would have to be told again.
pub(super) fn is_told(providers: &Providers, service: &QualifiedName) -> bool {
    providers
        .values()
        .any(|provider| matches!(&provider.at, CollectorAt::Service { service: own, .. } if own == service))
}

/// The provider called `name`, or the only one for which `fits` holds; findings at `pointer`.
pub(super) fn provider<'a>(
    providers: &'a Providers,
    name: Option<&Label>,
    fits: impl Fn(&TelemetryProvider) -> bool,
    pointer: &str,
    report: &mut Report<'_>,
) -> Option<&'a Arc<TelemetryProvider>> {
    let fitting = || providers.values().filter(|provider| fits(provider));
    let choices = || fitting().map(|provider| provider.name.clone()).collect::<Vec<_>>();
    match name {
        None if fitting().count() == 1 => fitting().next(),
        None => {
            let message = "missing field \"provider\": the Mesh has none of its kind, or several";
            report.error(Code::MissingField, pointer.trim_end_matches("/provider"), message).choices = choices();
            None
        }
        Some(name) => match providers.get(name.as_str()) {
            Some(provider) if fits(provider) => Some(provider),
            Some(_) => {
                let message = format!("the provider {name} takes traces only: Zipkin knows no logs");
                report.error(Code::InvalidValue, pointer, message).choices = choices();
                None
            }
            None => {
                let message = format!("telemetryProviders of the Mesh have no {name}");
                let finding = report.error(Code::NotFound, pointer, message);
                finding.choices = choices();
                finding.hint = suggest::did_you_mean(name.as_str(), &finding.choices);
                None
            }
        },
    }
}

/// The way to a provider; findings at `pointer`, where it is named.
pub(super) fn collector(
    provider: &Arc<TelemetryProvider>,
    services: &Services,
    pointer: &str,
    report: &mut Report<'_>,
) -> Option<Collector> {
    let port = match &provider.at {
        CollectorAt::Address { .. } => None,
        CollectorAt::Service { service, port } => {
            let declared = services.service(service, format_args!("{pointer}"), report)?;
            let port = port.as_ref().and_then(|port| port.parse().ok());
            let port = declared.port(port.as_ref(), format_args!("{pointer}"), report)?;
            let (fits, wanted) = match provider.language {
                Language::Otlp => (port.protocol.takes_grpc(), "grpc"),
                Language::Zipkin(_) => (port.protocol.is_http(), "http"),
            };
            if !fits {
                let message = format!("the provider {} needs {wanted}: {service} {} is not", provider.name, port.name);
                report.error(Code::WrongProtocol, pointer, message);
                return None;
            }
            Some((service.clone(), port.name.clone()))
        }
    };
    Some(Collector { provider: Arc::clone(provider), port })
}
