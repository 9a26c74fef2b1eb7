//! What becomes of a request: where it is redirected, how it is answered, and what is changed of it.
//!
//! Owns: redirects, direct responses, rewritten paths and hosts, changed headers, copies. May use: `text`, `wire`. Never:
//! where a request goes; that is `route`'s.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::{checks, cluster_name, text, wire};
use crate::mesh::{HeaderChanges, HttpMatch, HttpRule, Mirror, PathChange, PathMatch, Redirect, Respond};

use route_pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};

/// How a path becomes another, as Envoy does it.
enum Rewritten {
    /// What the match took at the start of the path.
    Prefix(String),
    /// The whole of it, where Envoy knows that.
    Whole(String),
    Regex(matcher_pb::RegexMatchAndSubstitute),
}

/// The fields of an action that change a request: those before its time limit, and those after it.
pub(super) fn changes(rule: &HttpRule, alternative: Option<&HttpMatch>) -> (Vec<u8>, Vec<u8>) {
    let mut before = route_pb::RouteAction::default();
    let mut after = route_pb::RouteAction::default();
    if let Some(host) = &rule.changes.host {
        let literal = route_pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.clone());
        before.host_rewrite_specifier = Some(literal);
    }
    match rule.changes.path.as_ref().map(|change| rewritten(change, alternative)) {
        Some(Rewritten::Prefix(prefix)) => before.prefix_rewrite = prefix,
        Some(Rewritten::Regex(regex)) => after.regex_rewrite = Some(regex),
        // An action has no other way to say so.
        Some(Rewritten::Whole(path)) => after.regex_rewrite = Some(whole(&path)),
        None => {}
    }
    after.request_mirror_policies.extend(rule.mirror.as_ref().map(mirrored));
    (before.encode_to_vec(), after.encode_to_vec())
}

/// The fields of a route beside its match, its action and its name.
pub(super) fn beside(rule: &HttpRule) -> Vec<u8> {
    let (request, response) = (&rule.changes.request, &rule.changes.response);
    let route = route_pb::Route {
        request_headers_to_add: added(request),
        request_headers_to_remove: request.remove.iter().cloned().collect(),
        response_headers_to_add: added(response),
        response_headers_to_remove: response.remove.iter().cloned().collect(),
        ..Default::default()
    };
    let mut fields = route.encode_to_vec();
    fields.extend(checks::of_route(&rule.checks));
    fields
}

pub(super) fn redirect(redirect: &Redirect, alternative: Option<&HttpMatch>) -> route_pb::RedirectAction {
    let path = redirect.path.as_ref().map(|change| match rewritten(change, alternative) {
        Rewritten::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
        Rewritten::Whole(path) => PathRewriteSpecifier::PathRedirect(path),
        Rewritten::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
    });
    let (name, own) = redirect.scheme.map_or(("", 0), |scheme| (scheme.as_str(), scheme.port()));
    route_pb::RedirectAction {
        scheme_rewrite_specifier: redirect.scheme.map(|_| SchemeRewriteSpecifier::SchemeRedirect(name.into())),
        host_redirect: redirect.host.clone().unwrap_or_default(),
        // Without one Envoy keeps the port of the request, which is another scheme's.
        port_redirect: redirect.port.map_or(own, NonZeroU16::get).into(),
        path_rewrite_specifier: path,
        response_code: match redirect.code {
            301 => RedirectResponseCode::MovedPermanently,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::Found,
        }
        .into(),
        ..Default::default()
    }
}

pub(super) fn respond(respond: &Respond) -> route_pb::DirectResponseAction {
    let body = core_pb::DataSource {
        specifier: Some(core_pb::data_source::Specifier::InlineString(respond.body.clone())),
        ..Default::default()
    };
    route_pb::DirectResponseAction {
        status: respond.status.into(),
        body: (!respond.body.is_empty()).then_some(body),
        ..Default::default()
    }
}

/// How the path of a request that `alternative` takes is changed.
fn rewritten(change: &PathChange, alternative: Option<&HttpMatch>) -> Rewritten {
    match change {
        PathChange::Whole(path) => Rewritten::Whole(path.clone()),
        PathChange::Regex { pattern, substitution } => Rewritten::Regex(replaced(pattern.clone(), substitution)),
        PathChange::Prefix(prefix) => {
            let start = prefix.trim_end_matches('/');
            let matched = alternative.and_then(|one| match &one.path {
                Some(PathMatch::Prefix(matched)) => Some(matched.as_str()),
                _ => None,
            });
            match matched.unwrap_or("/") {
                // What follows begins after the slash.
                matched if matched.ends_with('/') => Rewritten::Prefix(format!("{start}/")),
                // What follows begins with the slash, which is all that is left if there is no start.
                matched if start.is_empty() => {
                    Rewritten::Regex(replaced(format!("^{}/?", text::literal(matched)), "/"))
                }
                _ => Rewritten::Prefix(start.to_owned()),
            }
        }
    }
}

/// Whatever the path is, it becomes this one.
fn whole(path: &str) -> matcher_pb::RegexMatchAndSubstitute {
    replaced(r"^\C*$".to_owned(), &path.replace('\\', r"\\"))
}

fn replaced(pattern: String, substitution: &str) -> matcher_pb::RegexMatchAndSubstitute {
    matcher_pb::RegexMatchAndSubstitute {
        pattern: Some(wire::regex_matcher(pattern)),
        substitution: substitution.to_owned(),
    }
}

fn mirrored(mirror: &Mirror) -> route_pb::route_action::RequestMirrorPolicy {
    route_pb::route_action::RequestMirrorPolicy {
        cluster: cluster_name(&mirror.to),
        runtime_fraction: Some(core_pb::RuntimeFractionalPercent {
            default_value: Some(wire::share(mirror.percent)),
            ..Default::default()
        }),
        // A copy says the same as what it is a copy of.
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

pub(super) fn added(changes: &HeaderChanges) -> Vec<core_pb::HeaderValueOption> {
    use core_pb::header_value_option::HeaderAppendAction;
    let options = |headers: &BTreeMap<String, String>, action: HeaderAppendAction| -> Vec<_> {
        let option = |(key, value): (&String, &String)| core_pb::HeaderValueOption {
            // A per cent sign would begin a command of Envoy's.
            header: Some(core_pb::HeaderValue {
                key: key.clone(),
                value: value.replace('%', "%%"),
                ..Default::default()
            }),
            append_action: action.into(),
            keep_empty_value: value.is_empty(),
            ..Default::default()
        };
        headers.iter().map(option).collect()
    };
    let mut all = options(&changes.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    all.extend(options(&changes.add, HeaderAppendAction::AppendIfExistsOrAdd));
    all
}
