//! Matches: paths, methods and headers, and which match takes everything that another does.
//!
//! Owns: what a valid match is. May use: `rules`, `pattern`. Never: knows a destination.

use std::collections::{BTreeMap, BTreeSet};

use super::pattern;
use super::report::Report;
use crate::finding::Code;
use crate::mesh::{HttpMatch, PathMatch, TextMatch};
use crate::rules::escaped;
use crate::rules::route::{GrpcMatchSpec, HttpMatchSpec, PathSpec, TextSpec};

/// Whether it can be the name of a header.
pub(super) fn is_token(name: &str) -> bool {
    let character = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    !name.is_empty() && name.bytes().all(character)
}

/// Whether it is a path without a query.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(['?', '#']) && !text.contains(|c: char| c.is_ascii_control())
}

/// One alternative of a rule.
pub(super) fn http_match(written: &HttpMatchSpec, at: &str, report: &mut Report<'_>) -> HttpMatch {
    let parameter = |(name, value): (&String, &TextSpec)| {
        let pointer = format!("{at}/query/{}", escaped(name));
        if name.is_empty() {
            report.error(Code::InvalidValue, &pointer, "a parameter of a query has a name");
        }
        (name.clone(), text(value, &pointer, report))
    };
    let query = written.query.iter().map(parameter).collect();
    HttpMatch {
        path: written.path.as_ref().map(|path| path_match(path, &format!("{at}/path"), report)),
        within: None,
        methods: written.methods.iter().map(|method| method.0.clone()).collect(),
        headers: headers(&written.headers, &format!("{at}/headers"), report),
        query,
        from: None,
    }
}

/// One alternative of a rule for gRPC, whose calls are requests of HTTP.
pub(super) fn grpc_match(written: &GrpcMatchSpec, at: &str, report: &mut Report<'_>) -> HttpMatch {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if let Some(service) = written.service.as_ref().filter(|service| !service.split('.').all(is_name)) {
        let message = format!("{service:?} is no service of gRPC: write its full name, such as shop.v1.Cart");
        report.error(Code::InvalidValue, format!("{at}/service"), message);
    }
    if let Some(method) = written.method.as_ref().filter(|method| !is_name(method)) {
        let message = format!("{method:?} is no method: write its name without the service, such as Get");
        report.error(Code::InvalidValue, format!("{at}/method"), message);
    }
    let path = match (&written.service, &written.method) {
        (Some(service), Some(method)) => Some(PathMatch::Exact(format!("/{service}/{method}"))),
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}/"))),
        (None, Some(method)) => Some(PathMatch::Regex(format!("/[^/]+/{method}"))),
        (None, None) => None,
    };
    let headers = headers(&written.headers, &format!("{at}/headers"), report);
    HttpMatch { path, headers, ..HttpMatch::default() }
}

/// `one`, written at `at`, of the requests whose path begins with `prefix`.
pub(super) fn within(one: HttpMatch, prefix: &str, at: &str, report: &mut Report<'_>) -> HttpMatch {
    if prefix == "/" {
        return one;
    }
    let path = match &one.path {
        None => PathMatch::Prefix(prefix.to_owned()),
        Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) if under(path, prefix) => return one,
        Some(PathMatch::Prefix(path)) if under(prefix, path) => PathMatch::Prefix(prefix.to_owned()),
        Some(PathMatch::Exact(_) | PathMatch::Prefix(_)) => {
            let message = format!("never matches: the route is for paths that begin with {prefix}");
            report.error(Code::InvalidValue, at, message).hint = Some("write the whole path here".to_owned());
            return one;
        }
        Some(PathMatch::Regex(_) | PathMatch::Template(_)) => {
            return HttpMatch { within: Some(prefix.to_owned()), ..one };
        }
    };
    HttpMatch { path: Some(path), ..one }
}

/// Says so where `name` is no name of a header; whether it is one.
pub(super) fn header_name(name: &str, at: &str, report: &mut Report<'_>) -> bool {
    token(name, "header", at, report)
}

/// Says so where `name` is no name of a cookie; whether it is one.
pub(super) fn cookie_name(name: &str, at: &str, report: &mut Report<'_>) -> bool {
    token(name, "cookie", at, report)
}

fn token(name: &str, of: &str, at: &str, report: &mut Report<'_>) -> bool {
    let is_one = is_token(name);
    if !is_one {
        report.error(Code::InvalidValue, at, format!("{name:?} is no name of a {of}"));
    }
    is_one
}

/// Headers by their names in lower case.
pub(super) fn headers(
    written: &BTreeMap<String, TextSpec>,
    at: &str,
    report: &mut Report<'_>,
) -> BTreeMap<String, TextMatch> {
    let mut headers = BTreeMap::new();
    for (name, value) in written {
        let pointer = format!("{at}/{}", escaped(name));
        header_name(name, &pointer, report);
        if headers.insert(name.to_ascii_lowercase(), text(value, &pointer, report)).is_some() {
            report.error(Code::Conflict, &pointer, "the header is named twice: case does not matter");
        }
    }
    headers
}

fn path_match(written: &PathSpec, at: &str, report: &mut Report<'_>) -> PathMatch {
    let mut plain = |field: &str, text: &str| {
        if !is_path(text) {
            let message = format!("{text:?} is no path: a path starts with / and has no query");
            report.error(Code::InvalidValue, format!("{at}/{field}"), message);
        }
    };
    match written {
        PathSpec::Exact(text) => {
            plain("exact", text);
            PathMatch::Exact(text.clone())
        }
        PathSpec::Prefix(text) => {
            plain("prefix", text);
            PathMatch::Prefix(text.clone())
        }
        PathSpec::Regex(text) => {
            regex(text, &format!("{at}/regex"), report);
            PathMatch::Regex(text.clone())
        }
        PathSpec::Template(text) => {
            if let Err(reason) = template(text) {
                let message = format!("{text:?} is no template of a path: {reason}");
                report.error(Code::InvalidValue, format!("{at}/template"), message);
            }
            PathMatch::Template(text.clone())
        }
    }
}

/// Whether Envoy takes the template; otherwise why not.
fn template(text: &str) -> Result<(), &'static str> {
    let literal = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c);
    let Some(path) = text.strip_prefix('/') else { return Err("it starts with /") };
    let (mut names, mut ended) = (BTreeSet::new(), false);
    for segment in path.split('/') {
        if ended {
            return Err("nothing comes after **");
        }
        let (name, pattern) = match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => match inner.split_once('=') {
                Some((name, pattern)) => (Some(name), pattern),
                None => (Some(inner), "*"),
            },
            None => (None, segment),
        };
        if let Some(name) = name {
            let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.len() <= 16
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !valid {
                return Err("a name has 1 to 16 letters, digits and underscores, a letter first");
            }
            if !names.insert(name) || names.len() > 5 {
                return Err("it has at most five names, each once");
            }
        }
        ended = pattern == "**";
        if !matches!(pattern, "*" | "**") && !pattern.chars().all(literal) {
            return Err("a segment is a text, *, ** at the end, {name}, {name=*} or {name=**}");
        }
    }
    Ok(())
}

pub(super) fn text(written: &TextSpec, at: &str, report: &mut Report<'_>) -> TextMatch {
    match written {
        TextSpec::Exact(text) => TextMatch::Exact(text.clone()),
        TextSpec::Prefix(text) => {
            if text.is_empty() {
                report.error(Code::InvalidValue, format!("{at}/prefix"), "an empty prefix is any value").hint =
                    Some("write present: true".to_owned());
            }
            TextMatch::Prefix(text.clone())
        }
        TextSpec::Regex(text) => {
            regex(text, &format!("{at}/regex"), report);
            TextMatch::Regex(text.clone())
        }
        TextSpec::Present(true) | TextSpec::Absent(false) => TextMatch::Present,
        TextSpec::Present(false) | TextSpec::Absent(true) => TextMatch::Absent,
    }
}

fn regex(text: &str, at: &str, report: &mut Report<'_>) {
    if let Err(reason) = pattern::check(text) {
        report.error(Code::InvalidValue, at, format!("{text:?} is no RE2 pattern: {reason}"));
    }
}

/// Whether every request that `later` takes is taken by `earlier`.
pub(super) fn covers(earlier: &HttpMatch, later: &HttpMatch) -> bool {
    let path = match (&earlier.path, &later.path) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Exact(path) | PathMatch::Prefix(path))) => {
            under(path, prefix)
        }
        (Some(earlier), Some(later)) => earlier == later,
    };
    let methods =
        earlier.methods.is_empty() || (!later.methods.is_empty() && later.methods.is_subset(&earlier.methods));
    let within = earlier.within.is_none() || earlier.within == later.within;
    let from = match (&earlier.from, &later.from) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => !later.is_empty() && later.is_subset(earlier),
    };
    from && path
        && within
        && methods
        && all_cover(&earlier.headers, &later.headers)
        && all_cover(&earlier.query, &later.query)
}

fn all_cover(earlier: &BTreeMap<String, TextMatch>, later: &BTreeMap<String, TextMatch>) -> bool {
    earlier.iter().all(|(name, value)| match (value, later.get(name)) {
        (_, None) => false,
        (TextMatch::Present, Some(other)) => *other != TextMatch::Absent,
        (TextMatch::Prefix(prefix), Some(TextMatch::Exact(text) | TextMatch::Prefix(text))) => text.starts_with(prefix),
        (value, Some(other)) => value == other,
    })
}

/// Whether `path` lies under `prefix`: by whole segments, or by text when the prefix ends with a slash.
fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}
