//! The small values of Envoy's API: packed messages, durations, addresses, matchers, configuration sources.
//!
//! Owns: their one spelling. May use: the `proto` crate, `raw`, the mesh's ranges of addresses. Never: knows a service.

use std::net::SocketAddr;
use std::time::Duration;

use prost::{Message, Name};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::raw::Raw;
use crate::mesh::{Network, Percent};

/// How long an idle connection or stream lives.
pub(super) const IDLE: Duration = Duration::from_secs(3600);

/// The one way to pack a message.
pub(super) fn any<M: Message + Name>(message: &M) -> google_pb::Any {
    google_pb::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// `head` and then `parts`, each with one member of a map. The encoding of a map has no order; but encoded
/// messages that follow one another are by definition one message, merged, and the map is then as we wrote it.
pub(super) fn in_order<M: Message + Name>(head: &M, parts: impl Iterator<Item = M>) -> google_pb::Any {
    let mut value = head.encode_to_vec();
    for part in parts {
        value.extend(part.encode_to_vec());
    }
    google_pb::Any { type_url: M::type_url(), value }
}

pub(super) fn duration(duration: Duration) -> google_pb::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    // At most 999,999,999.
    google_pb::Duration { seconds, nanos: duration.subsec_nanos().cast_signed() }
}

pub(super) fn boolean(value: bool) -> google_pb::BoolValue {
    google_pb::BoolValue { value }
}

pub(super) fn number(value: u32) -> google_pb::UInt32Value {
    google_pb::UInt32Value { value }
}

pub(super) fn address(address: SocketAddr) -> core_pb::Address {
    host_and_port(address.ip().to_string(), address.port())
}

pub(super) fn host_and_port(host: String, port: u16) -> core_pb::Address {
    let socket = core_pb::SocketAddress {
        address: host,
        port_specifier: Some(core_pb::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    core_pb::Address { address: Some(core_pb::address::Address::SocketAddress(socket)) }
}

pub(super) fn range(network: Network) -> core_pb::CidrRange {
    core_pb::CidrRange { address_prefix: network.address.to_string(), prefix_len: Some(number(network.length.into())) }
}

pub(super) fn share(percent: Percent) -> type_pb::FractionalPercent {
    type_pb::FractionalPercent {
        numerator: percent.millionths,
        denominator: type_pb::fractional_percent::DenominatorType::Million.into(),
    }
}

/// As [`address`], as a field of the message under way.
pub(super) fn put_address(message: &mut Raw, tag: u32, address: SocketAddr) {
    message.message(tag, |wrapped| {
        wrapped.message(1, |socket| {
            socket.ip(2, address.ip());
            socket.number(3, address.port().into());
        });
    });
}

/// As [`duration`], as a field of the message under way.
pub(super) fn put_duration(message: &mut Raw, tag: u32, duration: Duration) {
    let google_pb::Duration { seconds, nanos } = self::duration(duration);
    message.message(tag, |raw| {
        for (tag, number) in [(1, seconds.cast_unsigned()), (2, u64::from(nanos.cast_unsigned()))] {
            if number != 0 {
                raw.number(tag, number);
            }
        }
    });
}

/// Over the aggregated stream.
pub(super) fn ads() -> core_pb::ConfigSource {
    core_pb::ConfigSource {
        resource_api_version: core_pb::ApiVersion::V3.into(),
        config_source_specifier: Some(core_pb::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    }
}

/// A struct of one member: with more, its encoding would have no order.
pub(super) fn member(key: &str, value: &str) -> google_pb::Struct {
    let value = google_pb::Value { kind: Some(google_pb::value::Kind::StringValue(value.into())) };
    google_pb::Struct { fields: [(key.to_owned(), value)].into() }
}

fn text(pattern: matcher_pb::string_matcher::MatchPattern) -> matcher_pb::StringMatcher {
    matcher_pb::StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

pub(super) fn exact(value: impl Into<String>) -> matcher_pb::StringMatcher {
    text(matcher_pb::string_matcher::MatchPattern::Exact(value.into()))
}

/// `value` is not empty: Envoy refuses an empty prefix.
pub(super) fn prefix(value: impl Into<String>) -> matcher_pb::StringMatcher {
    text(matcher_pb::string_matcher::MatchPattern::Prefix(value.into()))
}

pub(super) fn suffix(value: impl Into<String>) -> matcher_pb::StringMatcher {
    text(matcher_pb::string_matcher::MatchPattern::Suffix(value.into()))
}

/// Matches the whole text.
pub(super) fn regex(expression: impl Into<String>) -> matcher_pb::StringMatcher {
    text(matcher_pb::string_matcher::MatchPattern::SafeRegex(regex_matcher(expression)))
}

pub(super) fn regex_matcher(expression: impl Into<String>) -> matcher_pb::RegexMatcher {
    matcher_pb::RegexMatcher { regex: expression.into(), ..Default::default() }
}
