//! Checks: what is done to requests before they are sent on.
//!
//! Owns: origins, faults, limits of rate and what clients are told apart by, each valid for Envoy. May use: `rules`, `matches`. Never:
//! knows a destination.

use super::matches::{cookie_name, header_name, headers, text};
use super::report::Report;
use crate::finding::Code;
use crate::mesh::{Checks, Cors, Fault, HashOn, Percent, RateKey, RateLimit, TextMatch};
use crate::rules::checks::{CorsSpec, FaultSpec, RateKeySpec, RateLimitSpec, StickySpec};
use crate::rules::route::{HttpRuleSpec, TextSpec};

const STATUSES: std::ops::Range<u16> = 200..600;

/// What the rule at `at` says.
pub(super) fn checks(written: &HttpRuleSpec, at: &str, report: &mut Report<'_>) -> Checks {
    Checks {
        cors: written.cors.as_ref().map(|cors| Box::new(self::cors(cors, &format!("{at}/cors"), report))),
        fault: written.fault.as_ref().map(|fault| Box::new(self::fault(fault, &format!("{at}/fault"), report))),
        rate_limit: written
            .rate_limit
            .as_ref()
            .map(|limit| Box::new(rate_limit(limit, &format!("{at}/rateLimit"), report))),
    }
}

fn cors(written: &CorsSpec, at: &str, report: &mut Report<'_>) -> Cors {
    if written.allow_origins.is_empty() {
        report.error(Code::InvalidValue, format!("{at}/allowOrigins"), "no origin is allowed anything").hint =
            Some("name origins such as https://shop.example, or \"*\" for any".to_owned());
    }
    let mut origin = |(index, one): (usize, &TextSpec)| match one {
        TextSpec::Exact(any) if any == "*" => TextMatch::Present,
        one => text(one, &format!("{at}/allowOrigins/{index}"), report),
    };
    let origins: Vec<TextMatch> = written.allow_origins.iter().enumerate().map(&mut origin).collect();
    if written.allow_credentials && origins.contains(&TextMatch::Present) {
        let message = "any origin could act in the name of whoever visits it";
        report.error(Code::InvalidValue, format!("{at}/allowCredentials"), message).hint =
            Some("name the origins that get cookies".to_owned());
    }
    for (field, names) in [("allowHeaders", &written.allow_headers), ("exposeHeaders", &written.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            header_name(name, &format!("{at}/{field}/{index}"), report);
        }
    }
    if written.max_age.is_some_and(|age| age.0.subsec_nanos() != 0) {
        report.error(Code::InvalidValue, format!("{at}/maxAge"), "browsers remember whole seconds");
    }
    Cors {
        origins,
        methods: written.allow_methods.iter().map(|method| method.0.clone()).collect(),
        headers: written.allow_headers.clone(),
        expose: written.expose_headers.clone(),
        max_age: written.max_age.map(|age| age.0),
        credentials: written.allow_credentials,
    }
}

/// What the fault at `at` says.
pub(super) fn fault(written: &FaultSpec, at: &str, report: &mut Report<'_>) -> Fault {
    if written.delay.is_none() && written.abort.is_none() {
        report.error(Code::MissingField, at, "nothing goes wrong: give delay or abort");
    }
    if let Some(delay) = written.delay.as_ref().filter(|delay| delay.fixed.0.is_zero()) {
        report.error(Code::InvalidValue, format!("{at}/delay/fixed"), format!("{} is no delay", delay.fixed));
    }
    if let Some(abort) = written.abort.as_ref().filter(|abort| !STATUSES.contains(&abort.status)) {
        let message = format!("{} is no status of a response: write one from 200 to 599", abort.status);
        report.error(Code::InvalidValue, format!("{at}/abort/status"), message);
    }
    let share = |percent: Option<Percent>| percent.unwrap_or(Percent::ALL);
    Fault {
        delay: written.delay.as_ref().map(|delay| (share(delay.percent), delay.fixed.0)),
        abort: written.abort.as_ref().map(|abort| (share(abort.percent), abort.status)),
        headers: headers(&written.only_if_header, &format!("{at}/onlyIfHeader"), report),
    }
}

/// What the limit at `at` says.
pub(super) fn rate_limit(written: &RateLimitSpec, at: &str, report: &mut Report<'_>) -> RateLimit {
    if written.per.0 < RateLimit::SHORTEST {
        let message = format!("{} is too short: a bucket takes {:?} at least", written.per, RateLimit::SHORTEST);
        report.error(Code::InvalidValue, format!("{at}/per"), message);
    }
    let key = written.key.as_ref().map(|key| match key {
        RateKeySpec::Caller => RateKey::Caller,
        RateKeySpec::Ip => RateKey::Ip,
        RateKeySpec::Header(name) => {
            header_name(name, &format!("{at}/key/header"), report);
            RateKey::Header(name.to_ascii_lowercase())
        }
    });
    RateLimit { requests: written.requests, per: written.per.0, key }
}

/// What the requests of one client are alike in.
pub(super) fn sticky(written: &StickySpec, at: &str, report: &mut Report<'_>) -> HashOn {
    match written {
        StickySpec::Cookie(name) => {
            cookie_name(name, &format!("{at}/cookie"), report);
            HashOn::Cookie(name.clone())
        }
        StickySpec::Header(name) => {
            header_name(name, &format!("{at}/header"), report);
            HashOn::Header(name.to_ascii_lowercase())
        }
    }
}
