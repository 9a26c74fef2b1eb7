//! Messages written field by field, for what is built most often: endpoints, and the clusters that differ in
//! little.
//!
//! Owns: the encoding of a field, and putting a message together from parts that are encoded once and parts that
//! vary. May use: prost. Never: knows what a field means. The bytes are those of the typed message.

use std::io::Write as _;
use std::net::IpAddr;

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A message under way; fields are written in the order of their tags.
#[derive(Debug, Default)]
pub(super) struct Raw(Vec<u8>);

// === impl Raw ===

impl Raw {
    /// A text field.
    pub(super) fn text(&mut self, tag: u32, text: &str) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(text.len() as u64, &mut self.0);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// An empty message with room for this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// A text field that is the parts one after the other.
    pub(super) fn parts(&mut self, tag: u32, parts: &[&str]) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(parts.iter().map(|part| part.len() as u64).sum(), &mut self.0);
        parts.iter().for_each(|part| self.0.extend_from_slice(part.as_bytes()));
    }

    /// A text field that is an IP address.
    pub(super) fn ip(&mut self, tag: u32, address: IpAddr) {
        self.message(tag, |raw| match address {
            // Nothing is left out of an address without a group of zeros; that is quicker than the general form.
            IpAddr::V6(v6) if !v6.segments().contains(&0) => {
                let (mut text, mut length) = ([b':'; 40], 0);
                for group in v6.segments() {
                    for shift in [12, 8, 4, 0] {
                        let digits = usize::from(group >> shift);
                        if digits != 0 {
                            text[length] = HEX[digits & 0xf];
                            length += 1;
                        }
                    }
                    length += 1;
                }
                raw.0.extend_from_slice(&text[..length - 1]);
            }
            IpAddr::V4(v4) => {
                for (n, byte) in v4.octets().into_iter().enumerate() {
                    if n > 0 {
                        raw.0.push(b'.');
                    }
                    let digits = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| b'0' + digit);
                    let from = if byte >= 100 {
                        0
                    } else if byte >= 10 {
                        1
                    } else {
                        2
                    };
                    raw.0.extend_from_slice(&digits[from..]);
                }
            }
            IpAddr::V6(v6) => write!(raw.0, "{v6}").expect("a vector grows"),
        });
    }

    /// A number that is always written, as in a wrapper or a `oneof`.
    pub(super) fn number(&mut self, tag: u32, number: u64) {
        encode_key(tag, WireType::Varint, &mut self.0);
        encode_varint(number, &mut self.0);
    }

    /// A message with the fields that `fields` writes.
    pub(super) fn message(&mut self, tag: u32, fields: impl FnOnce(&mut Self)) {
        // Most lengths take one byte.
        self.sized(tag, 1, fields);
    }

    /// The same where most have more than 127 bytes.
    pub(super) fn large(&mut self, tag: u32, fields: impl FnOnce(&mut Self)) {
        self.sized(tag, 2, fields);
    }

    /// The fields move where their length takes more or less `room` than was left for it.
    fn sized(&mut self, tag: u32, room: usize, fields: impl FnOnce(&mut Self)) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        let at = self.0.len();
        self.0.resize(at + room, 0);
        fields(self);
        let (from, end) = (at + room, self.0.len());
        let length = (end - from) as u64;
        let to = at + encoded_len_varint(length);
        if to > from {
            self.0.resize(end + to - from, 0);
        }
        if to != from {
            self.0.copy_within(from..end, to);
            self.0.truncate(end + to - from);
        }
        encode_varint(length, &mut &mut self.0[at..to]);
    }

    /// Fields that are encoded already.
    pub(super) fn encoded(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// The message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The fields of a message that is encoded once, to be merged into many.
#[derive(Debug, Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    /// The tag of each, and where it ends.
    ends: Vec<(u32, usize)>,
}

// === impl Fields ===

impl Fields {
    /// The fields of the encoded message `bytes`.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let mut ends = Vec::new();
        let mut from = 0;
        while let Some(tag) = tag(&bytes[from..]) {
            from += field_len(&bytes[from..]);
            ends.push((tag, from));
        }
        Self { bytes, ends }
    }

    /// The message that has these fields and those of `first`; of a repeated field, those of `first` come first.
    pub(super) fn merged(&self, first: &[u8]) -> Vec<u8> {
        let mut both = Vec::with_capacity(first.len() + self.bytes.len());
        let (mut first, mut from) = (first, 0);
        let mut ends = self.ends.iter().peekable();
        while let Some(tag) = tag(first) {
            let mut to = from;
            while let Some((_, end)) = ends.next_if(|(other, _)| *other < tag) {
                to = *end;
            }
            both.extend_from_slice(&self.bytes[from..to]);
            from = to;
            let (field, rest) = first.split_at(field_len(first));
            both.extend_from_slice(field);
            first = rest;
        }
        both.extend_from_slice(&self.bytes[from..]);
        both
    }
}

/// The tag of the first field.
fn tag(mut message: &[u8]) -> Option<u32> {
    decode_key(&mut message).ok().map(|(tag, _)| tag)
}

/// The length of the first field, all of the rest where that cannot be told.
fn field_len(message: &[u8]) -> usize {
    let mut rest = message;
    let length = match decode_key(&mut rest) {
        Ok((_, WireType::Varint)) => decode_varint(&mut rest).map(|_| 0),
        Ok((_, WireType::LengthDelimited)) => decode_varint(&mut rest),
        Ok((_, WireType::ThirtyTwoBit)) => Ok(4),
        Ok((_, WireType::SixtyFourBit)) => Ok(8),
        Ok((_, WireType::StartGroup | WireType::EndGroup)) | Err(_) => return message.len(),
    };
    let length = length.ok().and_then(|length| usize::try_from(length).ok());
    length.filter(|length| *length <= rest.len()).map_or(message.len(), |length| message.len() - rest.len() + length)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::envoy::config::cluster::v3 as cluster_pb;
    use proto::google::protobuf as google_pb;

    use super::*;

    #[test]
    fn a_long_message_is_written_as_the_typed_one() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let url = "x".repeat(length);
            let typed = google_pb::ListValue {
                values: vec![google_pb::Value { kind: Some(google_pb::value::Kind::StringValue(url.clone())) }],
            };
            let mut raw = Raw::default();
            raw.message(1, |value| value.text(3, &url));
            assert_eq!(raw.into_bytes(), typed.encode_to_vec(), "{length}");
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_shown() {
        let v4 = [[0, 9, 10, 99], [100, 255, 1, 0]].map(IpAddr::from);
        let v6 = ["::", "::1", "fd00::1:0:0:1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "fd00:1000:10:a:ffff:100:1:f0"];
        for address in v4.into_iter().chain(v6.map(|text| text.parse().expect("an address"))) {
            let (mut fast, mut shown) = (Raw::default(), Raw::default());
            fast.ip(2, address);
            shown.text(2, &address.to_string());
            assert_eq!(fast.into_bytes(), shown.into_bytes(), "{address}");
        }
    }

    #[test]
    fn parts_are_merged_in_the_order_of_their_tags() {
        let socket = |name: &str| cluster_pb::cluster::TransportSocketMatch { name: name.into(), ..Default::default() };
        let first = cluster_pb::Cluster {
            name: "a".into(),
            transport_socket_matches: vec![socket("one")],
            ..Default::default()
        };
        let second = cluster_pb::Cluster {
            lb_policy: 1,
            connect_timeout: Some(google_pb::Duration { seconds: 300, nanos: 0 }),
            transport_socket_matches: vec![socket("two")],
            ..Default::default()
        };
        let both = cluster_pb::Cluster {
            transport_socket_matches: vec![socket("one"), socket("two")],
            name: "a".into(),
            ..second.clone()
        };
        assert_eq!(Fields::of(second.encode_to_vec()).merged(&first.encode_to_vec()), both.encode_to_vec());
    }
}
