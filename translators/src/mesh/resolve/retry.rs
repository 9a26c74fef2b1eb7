//! Retries: conditions by name, and what a rule leaves out.
//!
//! Owns: the list of conditions. May use: `rules`. Never: knows a route.

use super::report::Report;
use super::settings::limit;
use crate::finding::Code;
use crate::mesh::{GrpcStatus, Retry, RetryCondition};
use crate::rules::route::RetrySpec;
use crate::suggest;

/// The conditions that have a name.
const NAMED: [(&str, RetryCondition); 11] = [
    ("connect-failure", RetryCondition::ConnectFailure),
    ("refused-stream", RetryCondition::RefusedStream),
    ("reset", RetryCondition::Reset),
    ("gateway-error", RetryCondition::GatewayError),
    ("5xx", RetryCondition::ServerError),
    ("retriable-4xx", RetryCondition::Retriable4xx),
    ("cancelled", RetryCondition::Grpc(GrpcStatus::Cancelled)),
    ("deadline-exceeded", RetryCondition::Grpc(GrpcStatus::DeadlineExceeded)),
    ("internal", RetryCondition::Grpc(GrpcStatus::Internal)),
    ("resource-exhausted", RetryCondition::Grpc(GrpcStatus::ResourceExhausted)),
    ("unavailable", RetryCondition::Grpc(GrpcStatus::Unavailable)),
];

/// More repetitions than this are a mistake, or an attack.
const MOST_ATTEMPTS: u32 = 100;

/// What is repeated: what is written, above `below`.
pub(super) fn resolve(written: &RetrySpec, below: &Retry, pointer: &str, report: &mut Report<'_>) -> Retry {
    let mut retry = below.clone();
    if let Some(attempts) = written.attempts {
        if attempts > MOST_ATTEMPTS {
            let message = format!("{attempts} repetitions are more than {MOST_ATTEMPTS}");
            report.error(Code::InvalidValue, format!("{pointer}/attempts"), message);
        }
        retry.attempts = attempts;
    }
    if let Some(when) = &written.when {
        let read = when.iter().enumerate().filter_map(|(index, word)| {
            let condition = condition(word);
            if condition.is_none() {
                let choices: Vec<&str> =
                    NAMED.iter().map(|(name, _)| *name).chain(["a status such as \"503\""]).collect();
                let finding = report.error(
                    Code::InvalidValue,
                    format!("{pointer}/when/{index}"),
                    format!("{word:?} is no condition for a retry"),
                );
                finding.hint = suggest::did_you_mean(word, &choices);
                finding.choices = choices.into_iter().map(str::to_owned).collect();
            }
            condition
        });
        retry.when = read.collect();
    }
    if let Some(span) = written.per_try_timeout {
        retry.per_try_timeout = limit(span);
    }
    if let Some(span) = written.backoff {
        if limit(span).is_none() {
            report.error(Code::InvalidValue, format!("{pointer}/backoff"), "a pause needs more than 0s");
        }
        retry.backoff = limit(span);
    }
    retry
}

fn condition(word: &str) -> Option<RetryCondition> {
    if let Some((_, condition)) = NAMED.iter().find(|(name, _)| *name == word) {
        return Some(*condition);
    }
    let status = word.parse().ok().filter(|status| (100..600).contains(status) && word.len() == 3)?;
    Some(RetryCondition::Status(status))
}
