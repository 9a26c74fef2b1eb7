//! Actions: what is done with a request that a rule takes, and what is changed of it.
//!
//! Owns: redirects, responses, rewrites and changes of headers, each valid for Envoy. May use: `rules`, `pattern`.
//! Never: knows a destination.

use std::collections::{BTreeMap, BTreeSet};

use super::matches::{header_name, is_path};
use super::pattern;
use super::report::Report;
use crate::finding::Code;
use crate::mesh::{Changes, HeaderChanges, HttpMatch, PathChange, PathMatch, Redirect, Respond};
use crate::rules::escaped;
use crate::rules::route::{HeaderChangesSpec, HeadersSpec, RedirectSpec, RegexRewriteSpec, ResponseSpec, RewriteSpec};

/// What Envoy answers by itself has no larger body.
const LARGEST_BODY: usize = 4096;
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Where the sender is told to go.
pub(super) fn redirect(written: &RedirectSpec, at: &str, matches: &[HttpMatch], report: &mut Report<'_>) -> Redirect {
    if *written == RedirectSpec::default() {
        report.error(Code::InvalidValue, at, "a redirect to where the request was sent has no end").hint =
            Some("give scheme, host, port, path or prefix".to_owned());
    }
    let code = written.code.unwrap_or(302);
    if !REDIRECTS.contains(&code) {
        let finding =
            report.error(Code::InvalidValue, format!("{at}/code"), format!("{code} is no status of a redirect"));
        finding.choices = REDIRECTS.iter().map(ToString::to_string).collect();
    }
    host(written.host.as_deref(), at, report);
    let path = path_change(written.path.as_deref(), written.prefix.as_deref(), None, at, matches, report);
    Redirect { scheme: written.scheme, host: written.host.clone(), port: written.port, path, code }
}

/// What is answered at once.
pub(super) fn respond(written: &ResponseSpec, at: &str, report: &mut Report<'_>) -> Respond {
    if !(200..600).contains(&written.status) {
        let message = format!("{} is no status of a response: write one from 200 to 599", written.status);
        report.error(Code::InvalidValue, format!("{at}/status"), message);
    }
    let body = written.body.clone().unwrap_or_default();
    if body.len() > LARGEST_BODY {
        let message = format!("a body of {} bytes is larger than {LARGEST_BODY}", body.len());
        report.error(Code::InvalidValue, format!("{at}/body"), message);
    }
    Respond { status: written.status, body }
}

/// What is changed: `rewrite` and `headers` of the rule at `at`.
pub(super) fn changes(
    rewrite: Option<&RewriteSpec>,
    headers: Option<&HeadersSpec>,
    at: &str,
    matches: &[HttpMatch],
    report: &mut Report<'_>,
) -> Changes {
    let mut changes = Changes::default();
    if let Some(written) = rewrite {
        let at = format!("{at}/rewrite");
        if *written == RewriteSpec::default() {
            report.error(Code::InvalidValue, &at, "nothing is rewritten: give host, path, prefix or regex");
        }
        host(written.host.as_deref(), &at, report);
        changes.host.clone_from(&written.host);
        let (path, prefix) = (written.path.as_deref(), written.prefix.as_deref());
        changes.path = path_change(path, prefix, written.regex.as_ref(), &at, matches, report);
    }
    if let Some(written) = headers {
        (changes.request, changes.response) = self::headers(written, &format!("{at}/headers"), report);
    }
    changes
}

/// Which headers of requests and of their answers are changed.
pub(super) fn headers(written: &HeadersSpec, at: &str, report: &mut Report<'_>) -> (HeaderChanges, HeaderChanges) {
    let request = header_changes(written.request.as_ref(), &format!("{at}/request"), report);
    let response = header_changes(written.response.as_ref(), &format!("{at}/response"), report);
    (request, response)
}

fn host(written: Option<&str>, at: &str, report: &mut Report<'_>) {
    let Some(host) = written else { return };
    let character = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || host.len() > 255 || !host.chars().all(character) {
        report.error(Code::InvalidValue, format!("{at}/host"), format!("{host:?} is no host, such as shop.example"));
    }
}

fn path_change(
    path: Option<&str>,
    prefix: Option<&str>,
    regex: Option<&RegexRewriteSpec>,
    at: &str,
    matches: &[HttpMatch],
    report: &mut Report<'_>,
) -> Option<PathChange> {
    if [path.is_some(), prefix.is_some(), regex.is_some()].into_iter().filter(|given| *given).count() > 1 {
        report.error(Code::InvalidValue, at, "a path becomes one other: give one of path, prefix and regex");
    }
    for (field, text) in [("path", path), ("prefix", prefix)] {
        if let Some(text) = text.filter(|text| !is_path(text)) {
            let message = format!("{text:?} is no path: a path starts with / and has no query");
            report.error(Code::InvalidValue, format!("{at}/{field}"), message);
        }
    }
    let names_prefix = |one: &HttpMatch| matches!(one.path, Some(PathMatch::Prefix(_)));
    if prefix.is_some() && (matches.is_empty() || !matches.iter().all(names_prefix)) {
        let message = "there is no prefix to be replaced: the match names none";
        report.error(Code::InvalidValue, format!("{at}/prefix"), message).hint =
            Some("give every alternative of the match a path.prefix, or write path or regex here".to_owned());
    }
    if let Some(regex) = regex {
        checked(regex, &format!("{at}/regex"), report);
    }
    match (path, prefix, regex) {
        (Some(path), _, _) => Some(PathChange::Whole(path.to_owned())),
        (_, Some(prefix), _) => Some(PathChange::Prefix(prefix.to_owned())),
        (_, _, Some(RegexRewriteSpec { pattern, substitution })) => {
            Some(PathChange::Regex { pattern: pattern.clone(), substitution: substitution.clone() })
        }
        (None, None, None) => None,
    }
}

fn checked(written: &RegexRewriteSpec, at: &str, report: &mut Report<'_>) {
    let RegexRewriteSpec { pattern, substitution } = written;
    let groups = match pattern::groups(pattern) {
        Ok(groups) => groups,
        Err(reason) => {
            let message = format!("{pattern:?} is no RE2 pattern: {reason}");
            report.error(Code::InvalidValue, format!("{at}/pattern"), message);
            return;
        }
    };
    let mut rest = substitution.as_str();
    while let Some((_, after)) = rest.split_once('\\') {
        let next = after.chars().next();
        let group = next.and_then(|next| next.to_digit(10)).map(|digit| digit as usize);
        if next != Some('\\') && group.is_none_or(|group| group > groups) {
            let message = match group {
                Some(group) => format!("\\{group} stands for a group, and the pattern has {groups}"),
                None => "a backslash stands before the number of a group, or before another backslash".to_owned(),
            };
            report.error(Code::InvalidValue, format!("{at}/substitution"), message);
            return;
        }
        rest = after.get(1..).unwrap_or_default();
    }
}

fn header_changes(written: Option<&HeaderChangesSpec>, at: &str, report: &mut Report<'_>) -> HeaderChanges {
    let Some(written) = written else { return HeaderChanges::default() };
    let mut seen = BTreeSet::new();
    let mut name = |name: &str, pointer: &str, report: &mut Report<'_>| {
        let lower = name.to_ascii_lowercase();
        if !header_name(name, pointer, report) {
            return lower;
        }
        if lower == "host" {
            report.error(Code::InvalidValue, pointer, "the host is no header that can be changed here").hint =
                Some("write rewrite: {host: ...}".to_owned());
        } else if !seen.insert(lower.clone()) {
            report.error(Code::Conflict, pointer, "the header is named twice: case does not matter");
        }
        lower
    };
    let mut values = |of: &BTreeMap<String, String>, field: &str, report: &mut Report<'_>| {
        let each = of.iter().map(|(key, value)| {
            let pointer = format!("{at}/{field}/{}", escaped(key));
            if value.bytes().any(|c| c.is_ascii_control() && c != b'\t') {
                report.error(Code::InvalidValue, &pointer, "a header's value is one line");
            }
            (name(key, &pointer, report), value.clone())
        });
        each.collect()
    };
    let (set, add) = (values(&written.set, "set", report), values(&written.add, "add", report));
    let remove = written.remove.iter().enumerate();
    let remove = remove.map(|(index, one)| name(one, &format!("{at}/remove/{index}"), report)).collect();
    HeaderChanges { set, add, remove }
}
