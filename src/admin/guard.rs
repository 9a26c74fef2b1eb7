//! The guard: only requests that were meant for this machine are answered.
//!
//! A page of another site cannot read what we answer, because we allow no other origin. It could still give
//! its own name the address 127.0.0.1 (DNS rebinding) and then be the same origin; such a request carries
//! that name in `Host`, and is turned away here.
//!
//! Owns: which hosts are this machine. May use: axum. Never: looks a name up.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::problem;

/// Answers requests for this machine, and says to browsers that answers are data and not to be kept.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = if is_ours(&request) {
        next.run(request).await
    } else {
        problem(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header names another machine; use 127.0.0.1, [::1] or localhost".to_owned(),
        )
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// Every host that the request names, in its header and in its target, must be this machine, and one must be named.
fn is_ours(request: &Request) -> bool {
    let target = request.uri().authority().cloned();
    let named = request.headers().get_all(HOST).iter().map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let mut hosts = named.chain(target.map(Some)).peekable();
    hosts.peek().is_some() && hosts.all(|host| host.is_some_and(|host| is_loopback(&host)))
}

fn is_loopback(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asks(hosts: &[&str], target: &str) -> bool {
        let request = hosts.iter().fold(axum::http::Request::builder().uri(target), |b, host| b.header(HOST, *host));
        is_ours(&request.body(Body::empty()).expect("a request"))
    }

    #[test]
    fn only_this_machine_is_answered() {
        for host in ["localhost", "LocalHost:18080", "127.0.0.1:18080", "127.9.9.9", "[::1]:18080", "[::1]"] {
            assert!(asks(&[host], "/"), "{host}");
        }
        for host in [
            "evil.example:18080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "localhost@evil.example",
            "evil@localhost",
            "2130706433",
            "0.0.0.0",
            "",
            "a b",
        ] {
            assert!(!asks(&[host], "/"), "{host}");
        }
        assert!(!asks(&[], "/"));
        assert!(!asks(&["localhost", "evil.example"], "/"));
        assert!(!asks(&["localhost"], "http://evil.example/"));
        assert!(asks(&["localhost"], "http://localhost/"));
    }
}
