//! What holds for one service or workload, as the API shows it.
//!
//! Owns: the question, and filling in the shape of its answer. May use: `translators::describe`, `report`. Never: keeps
//! anything.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use translators::describe::{self, NotInForce, Subject};
use translators::finding::Location;
use translators::mesh::{Backing, Mesh};
use translators::name::{QualifiedName, RuleRef};

use super::{AdminState, problem, render, view};
use crate::report::Proxy;

/// What holds for `subject` in `mesh`, whose rules stand where `locate` says.
///
/// # Errors
///
/// The mesh does not have it.
pub fn effective(
    mesh: &Mesh,
    subject: &Subject,
    locate: &dyn Fn(&RuleRef) -> Option<Location>,
) -> Result<view::Effective, NotInForce> {
    let rule = |rule: &RuleRef| render::rule(rule, locate);
    let value = |value: describe::Effective| view::EffectiveValue {
        from: value.origin.as_ref().map(rule),
        name: value.name,
        value: value.value,
    };
    let section = |section: describe::Section| view::Section {
        title: section.title,
        values: section.values.into_iter().map(value).collect(),
    };
    let sections = describe::describe(mesh, subject)?.into_iter().map(section).collect();
    Ok(view::Effective { subject: rule(&RuleRef::new(subject.key(), "")), sections, proxies: None })
}

/// `GET /api/v1/_effective`.
pub(super) async fn answer(
    State(state): State<AdminState>,
    Query(question): Query<BTreeMap<String, String>>,
) -> Response {
    let Some(subject) = subject(&question) else {
        let detail = "ask for ?service=NAMESPACE/NAME or ?workload=NAMESPACE/NAME".to_owned();
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    let status = state.status();
    let Some(mesh) = &status.mesh else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the rules have not been read yet".to_owned());
    };
    match effective(mesh, &subject, &*status.locate) {
        Ok(mut answer) => {
            answer.proxies = Some(connected(&behind(mesh, &subject), &state.report.proxies()));
            Json(answer).into_response()
        }
        Err(unknown) => problem(StatusCode::NOT_FOUND, unknown.to_string()),
    }
}

fn subject(question: &BTreeMap<String, String>) -> Option<Subject> {
    let name = |name: &str| question.get(name)?.parse::<QualifiedName>().ok();
    match (name("service"), name("workload"), question.len()) {
        (Some(service), None, 1) => Some(Subject::Service(service)),
        (None, Some(workload), 1) => Some(Subject::Workload(workload)),
        _ => None,
    }
}

/// The workloads that a subject is made of.
fn behind(mesh: &Mesh, subject: &Subject) -> Vec<QualifiedName> {
    match subject {
        Subject::Workload(name) => vec![name.clone()],
        Subject::Service(name) => match mesh.services.get(name).map(|service| &service.backing) {
            Some(Backing::Workloads(serving)) => serving.iter().map(|serving| serving.workload.clone()).collect(),
            Some(Backing::Static(_) | Backing::Dns(_)) | None => Vec::new(),
        },
    }
}

fn connected(workloads: &[QualifiedName], proxies: &[Proxy]) -> BTreeMap<String, view::Connected> {
    let mut connected: BTreeMap<String, view::Connected> =
        workloads.iter().map(|workload| (workload.to_string(), view::Connected::default())).collect();
    for proxy in proxies {
        let workload = proxy.owner.workload().and_then(|workload| connected.get_mut(&workload.to_string()));
        if let Some(of_workload) = workload {
            of_workload.total += 1;
            of_workload.in_sync += usize::from(proxy.in_sync());
        }
    }
    connected
}
