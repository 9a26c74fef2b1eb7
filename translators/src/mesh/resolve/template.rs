//! Templates of log lines: texts with Envoy's commands.
//!
//! Owns: which commands every supported Envoy takes, and in which form: one that it does not know would cost the whole
//! listener. May use: nothing. Never: fills a template in.

use crate::suggest;

/// Longer lines are a mistake.
const LONGEST: usize = 8192;

/// Commands without an argument.
const PLAIN: [&str; 69] = [
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "EMIT_TIME",
    "FILTER_CHAIN_NAME",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "PATH",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "START_TIME",
    "STREAM_ID",
    "TRACE_ID",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
];

/// Commands with the name of a header, of another one that takes its place (`A?B`), and with a longest length.
const HEADERS: [&str; 3] = ["REQ", "RESP", "TRAILER"];
/// Commands with one name and a longest length.
const NAMED: [&str; 2] = ["ENVIRONMENT", "QUERY_PARAM"];
/// What `PATH` may say more: without the query, with it, and before or after the path was rewritten.
const PATHS: [&str; 4] = ["NQ", "WQ", "NQ:ORIG", "WQ:ORIG"];

/// Whether every supported Envoy takes the template; otherwise why not, and what might have been meant.
pub(super) fn check(template: &str) -> Result<(), (String, Option<String>)> {
    if template.is_empty() || template.len() > LONGEST {
        return Err((format!("a line has 1 to {LONGEST} bytes"), None));
    }
    if template.contains('\0') {
        return Err(("a line has no character 0".to_owned(), None));
    }
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name =
            &after[..after.bytes().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == b'_').count()];
        let (argument, after) = match after[name.len()..].strip_prefix('(') {
            None => (None, &after[name.len()..]),
            Some(inside) => match inside.split_once(')') {
                Some((argument, after)) => (Some(argument), after),
                None => return Err((format!("the bracket after %{name} has no end"), None)),
            },
        };
        let (length, after) = match after.strip_prefix(':') {
            None => (false, after),
            Some(after) => (true, after.trim_start_matches(|c: char| c.is_ascii_digit())),
        };
        let Some(after) = after.strip_prefix('%') else {
            return Err(("a command begins and ends with %; a % of the line itself is written %%".to_owned(), None));
        };
        command(name, argument, length)?;
        rest = after;
    }
    Ok(())
}

fn command(name: &str, argument: Option<&str>, length: bool) -> Result<(), (String, Option<String>)> {
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.:".contains(&c));
    let takes = match argument {
        None => PLAIN.contains(&name) && !length,
        Some(argument) if HEADERS.contains(&name) => {
            let (header, other) = argument.split_once('?').map_or((argument, None), |(one, other)| (one, Some(other)));
            is_name(header) && other.is_none_or(is_name)
        }
        Some(argument) if NAMED.contains(&name) => is_name(argument) && !argument.contains(':'),
        Some(argument) if name == "PATH" => PATHS.contains(&argument) && !length,
        // Of the form only what cannot be mistaken for its end.
        Some(argument) if name == "START_TIME" => {
            !length
                && argument.bytes().all(|c| c.is_ascii_alphanumeric() || b"%-_.:/ TZ".contains(&c))
                && strftime(argument)
        }
        Some(_) => false,
    };
    if takes {
        return Ok(());
    }
    let known: Vec<&str> = PLAIN.iter().chain(&HEADERS).chain(&NAMED).copied().collect();
    if known.contains(&name) {
        return Err((format!("%{name}% is not written so"), Some(format!("write {}", usual(name)))));
    }
    Err((format!("%{name}% is no command of every supported Envoy"), suggest::did_you_mean(name, &known)))
}

/// Whether every `%` of a form of time begins something known.
fn strftime(form: &str) -> bool {
    form.split('%')
        .skip(1)
        .all(|part| part.starts_with(['Y', 'm', 'd', 'H', 'M', 'S', 'T', 'F', 'z', 'Z', 's', 'b', 'e']))
}

/// How a command is written.
fn usual(name: &str) -> String {
    match name {
        "PATH" => "%PATH%, or %PATH(NQ)% without the query".to_owned(),
        "START_TIME" => "%START_TIME%, or %START_TIME(%Y-%m-%dT%H:%M:%S)%".to_owned(),
        "QUERY_PARAM" => "%QUERY_PARAM(name)%".to_owned(),
        "ENVIRONMENT" => "%ENVIRONMENT(NAME)%".to_owned(),
        _ if HEADERS.contains(&name) => {
            format!("%{name}(header)%, or %{name}(header?other):20% for at most 20 characters")
        }
        _ => format!("%{name}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        for template in [
            "plain",
            "100%% of %RESPONSE_CODE%",
            "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):99%\n",
            "%START_TIME(%Y-%m-%d)% %START_TIME%",
            "%PATH(NQ)%%PATH%",
            "%ENVIRONMENT(HOME)%",
        ] {
            assert_eq!(check(template), Ok(()), "{template}");
        }
        for template in [
            "",
            "100%",
            "%FOO%",
            "%REQ%",
            "%REQ()%",
            "%REQ(a b)%",
            "%REQ(x",
            "%RESPONSE_CODE():%",
            "%RESPONSE_CODE:5%",
            "%START_TIME(%q)%",
            "%PATH(x)%",
            "%%%",
            "%response_code%",
            "a\0b",
        ] {
            assert!(check(template).is_err(), "{template:?}");
        }
        let (_, hint) = check("%RESPONSE_COD%").expect_err("unknown");
        assert!(hint.is_some_and(|hint| hint.contains("RESPONSE_CODE")));
    }
}
