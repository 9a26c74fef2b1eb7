//! Targets: the ladder of policies.
//!
//! Owns: what a target covers, and which is more specific. May use: `rules`, `services`. Never: knows what a
//! policy says.

use super::report::Report;
use super::services::Services;
use super::settings::ROOT_NAMESPACE;
use crate::finding::Code;
use crate::name::{Label, QualifiedName};
use crate::rules::target::Target;

/// What a policy covers, declared from the widest to the most specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Mesh,
    Namespace(Label),
    Service(QualifiedName),
    Port(QualifiedName, String),
}

// === impl Level ===

impl Level {
    /// What `target` covers.
    pub(super) fn of(target: &Target, services: &Services, report: &mut Report<'_>) -> Option<Self> {
        let home = &report.object.key.name.namespace;
        let (name, port) = match target {
            Target::Mesh if home.as_str() == ROOT_NAMESPACE => return Some(Self::Mesh),
            Target::Mesh => {
                let message = format!("only an object in the namespace {ROOT_NAMESPACE} can target the whole mesh");
                report.error(Code::Foreign, "/spec/target/scope", message).choices = vec!["namespace".to_owned()];
                return None;
            }
            Target::Namespace => return Some(Self::Namespace(home.clone())),
            Target::Service(name) => (name, None),
            Target::Port(name, port) => (name, Some(port)),
            Target::Labels(_) => return unusable("labels", report),
            Target::Gateway(..) => return unusable("gateway", report),
            Target::Route(..) => return unusable("route", report),
        };
        let service = name.within(home);
        if service.namespace != *home {
            let message = format!("a policy of {home} cannot target {service}");
            let hint = format!("write the policy in the namespace {}", service.namespace);
            report.error(Code::Foreign, "/spec/target/service", message).hint = Some(hint);
            return None;
        }
        let declared = services.service(&service, "/spec/target/service", report)?;
        let Some(port) = port else { return Some(Self::Service(service)) };
        let port = port.parse().ok()?;
        let port = declared.port(Some(&port), "/spec/target/port", report)?;
        Some(Self::Port(service, port.name.clone()))
    }

    /// The levels that cover a port, from the widest to the most specific.
    pub(super) fn covering(service: &QualifiedName, port: &str) -> [Self; 4] {
        [
            Self::Mesh,
            Self::Namespace(service.namespace.clone()),
            Self::Service(service.clone()),
            Self::Port(service.clone(), port.to_owned()),
        ]
    }
}

fn unusable(form: &str, report: &mut Report<'_>) -> Option<Level> {
    let message = format!("this kind cannot target a {form} yet");
    let message = if form == "labels" { "this kind cannot target labels yet".to_owned() } else { message };
    report.error(Code::InvalidValue, format!("/spec/target/{form}"), message).choices =
        vec!["scope".to_owned(), "service".to_owned()];
    None
}
