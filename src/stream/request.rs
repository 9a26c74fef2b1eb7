//! A request as it came: its fields are slices of the message.
//!
//! Owns: reading requests and the lists of names in them. May use: the wire's encoding. Never: copies a name; a list
//! that says nothing new is recognised by its bytes.

use std::borrow::Cow;
use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use translators::resource::Version;
use translators::xdstp;

use super::session::{Fault, MAX_NAMES, Protocol};

/// A request of either protocol, field for field `envoy.service.discovery.v3`.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The encoded node; empty if it was left out.
    pub(super) node: &'a [u8],
    pub(super) type_url: &'a str,
    pub(super) nonce: &'a str,
    pub(super) error: Option<Error<'a>>,
    pub(super) wants: Wants<'a>,
}

/// A resource that a client holds, by the name that it has here, and its version.
pub(super) type Holding<'a> = (Cow<'a, str>, &'a str);

/// What differs between the two protocols.
#[derive(Debug, Clone)]
pub(super) enum Wants<'a> {
    Sotw {
        version: &'a str,
        names: List<'a>,
    },
    Delta {
        subscribe: List<'a>,
        unsubscribe: List<'a>,
        /// Name and version of what the client holds already.
        holds: Vec<Holding<'a>>,
    },
}

/// Why a response was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Error<'a> {
    pub(super) code: i32,
    pub(super) message: &'a str,
}

/// A list of names, as it is encoded.
#[derive(Debug, Clone)]
pub(super) struct List<'a> {
    encoded: Cow<'a, [u8]>,
    len: usize,
}

/// A list that is being read: where it stands in the message, or a copy if it stands apart.
struct Gathered<'a> {
    message: &'a [u8],
    span: Range<usize>,
    apart: Vec<u8>,
    len: usize,
    /// A name may be spelled in another order than ours.
    xdstp: bool,
}

/// One field of a message.
struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Where it stands, key and length included.
    span: Range<usize>,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

// === impl Request ===

impl<'a> Request<'a> {
    /// Reads a request of `protocol`.
    pub fn read(protocol: Protocol, message: &'a [u8]) -> Result<Self, Fault> {
        match protocol {
            Protocol::Sotw => Self::sotw(message),
            Protocol::Delta => Self::delta(message),
        }
    }

    fn sotw(message: &'a [u8]) -> Result<Self, Fault> {
        let (mut node, mut type_url, mut nonce, mut error, mut version) = (&[][..], "", "", None, "");
        let mut names = Gathered::of(message);
        for field in fields(message) {
            let field = field?;
            match field.number {
                1 => version = field.text()?,
                2 => node = field.bytes()?,
                3 => names.push(&field)?,
                4 => type_url = field.text()?,
                5 => nonce = field.text()?,
                6 => error.get_or_insert(Error::NONE).merge(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(Self { node, type_url, nonce, error, wants: Wants::Sotw { version, names: names.list()? } })
    }

    fn delta(message: &'a [u8]) -> Result<Self, Fault> {
        let (mut node, mut type_url, mut nonce, mut error, mut holds) = (&[][..], "", "", None, Vec::new());
        let (mut subscribe, mut unsubscribe) = (Gathered::of(message), Gathered::of(message));
        for field in fields(message) {
            let field = field?;
            match field.number {
                1 => node = field.bytes()?,
                2 => type_url = field.text()?,
                3 => subscribe.push(&field)?,
                4 => unsubscribe.push(&field)?,
                5 if holds.len() >= MAX_NAMES => return Err(Fault::TooManyNames),
                5 => holds.push(holding(field.bytes()?)?),
                6 => nonce = field.text()?,
                7 => error.get_or_insert(Error::NONE).merge(field.bytes()?)?,
                _ => {}
            }
        }
        let wants = Wants::Delta { subscribe: subscribe.list()?, unsubscribe: unsubscribe.list()?, holds };
        Ok(Self { node, type_url, nonce, error, wants })
    }
}

// === impl Error ===

impl<'a> Error<'a> {
    /// A `google.rpc.Status` that says nothing.
    const NONE: Self = Self { code: 0, message: "" };

    /// A `google.rpc.Status`, or more of one: a message that is given twice is one message, as everywhere in protobuf.
    fn merge(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        for field in fields(message) {
            let field = field?;
            match field.number {
                1 => self.code = field.int32()?,
                2 => self.message = field.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

// === impl List ===

impl List<'_> {
    /// How many names there are, each as often as it is given.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same with every name in the one order that it has here.
    fn normalised(self) -> Self {
        let mut encoded = Vec::with_capacity(self.encoded.len());
        for name in self.iter() {
            let name = xdstp::normalised(name);
            encode_key(1, WireType::LengthDelimited, &mut encoded);
            encode_varint(name.len() as u64, &mut encoded);
            encoded.extend_from_slice(name.as_bytes());
        }
        Self { encoded: encoded.into(), len: self.len }
    }

    /// Tells the list from others by its bytes.
    pub(super) fn digest(&self) -> Version {
        Version::of(&self.encoded)
    }

    /// The names, as they are given.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        // That they can be read was seen when the list was.
        fields(&self.encoded).map_while(|field| field.ok()?.text().ok())
    }
}

// === impl Gathered ===

impl<'a> Gathered<'a> {
    fn of(message: &'a [u8]) -> Self {
        Self { message, span: 0..0, apart: Vec::new(), len: 0, xdstp: false }
    }

    fn push(&mut self, field: &Field<'a>) -> Result<(), Fault> {
        self.xdstp |= field.bytes()?.starts_with(b"xdstp:");
        self.len += 1;
        if self.span.is_empty() {
            self.span = field.span.clone();
        } else if self.apart.is_empty() && self.span.end == field.span.start {
            self.span.end = field.span.end;
        } else {
            if self.apart.is_empty() {
                self.apart.extend_from_slice(&self.message[self.span.clone()]);
            }
            self.apart.extend_from_slice(&self.message[field.span.clone()]);
        }
        Ok(())
    }

    fn list(self) -> Result<List<'a>, Fault> {
        let encoded: Cow<'a, [u8]> =
            if self.apart.is_empty() { self.message[self.span].into() } else { self.apart.into() };
        if !encoded.is_ascii() {
            fields(&encoded).try_for_each(|field| field?.text().map(drop))?;
        }
        let list = List { encoded, len: self.len };
        Ok(if self.xdstp { list.normalised() } else { list })
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    fn bytes(&self) -> Result<&'a [u8], Fault> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Other => Err(Fault::Undecodable),
        }
    }

    fn text(&self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Undecodable)
    }

    fn int32(&self) -> Result<i32, Fault> {
        match self.value {
            #[expect(clippy::cast_possible_truncation, reason = "what does not fit wraps, as in every protobuf reader")]
            Value::Varint(value) => Ok(value as i32),
            Value::Bytes(_) | Value::Other => Err(Fault::Undecodable),
        }
    }
}

/// The fields of a message in the order in which they stand; after one that cannot be read there is none.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Fault>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = message.len() - rest.len();
        let field = field(&mut rest).map(|(number, value)| {
            let span = start..message.len() - rest.len();
            Field { number, value, span }
        });
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Fault> {
    // Nearly all are short: a key and a length of one byte each.
    if let [key @ 0x08..0x80, length @ 0..0x80, after @ ..] = *rest
        && key & 7 == WireType::LengthDelimited as u8
        && let Some((bytes, after)) = after.split_at_checked(usize::from(*length))
    {
        *rest = after;
        return Ok((u32::from(key >> 3), Value::Bytes(bytes)));
    }
    let (number, wire_type) = decode_key(rest).map_err(|_| Fault::Undecodable)?;
    let value = match wire_type {
        WireType::Varint => Value::Varint(decode_varint(rest).map_err(|_| Fault::Undecodable)?),
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(|_| Fault::Undecodable)?;
            let length = usize::try_from(length).map_err(|_| Fault::Undecodable)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(Fault::Undecodable)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        WireType::ThirtyTwoBit | WireType::SixtyFourBit | WireType::StartGroup | WireType::EndGroup => {
            skip_field(wire_type, number, rest, DecodeContext::default()).map_err(|_| Fault::Undecodable)?;
            Value::Other
        }
    };
    Ok((number, value))
}

/// An entry of the map of what is held.
fn holding(entry: &[u8]) -> Result<Holding<'_>, Fault> {
    let (mut key, mut value) = ("", "");
    for field in fields(entry) {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((xdstp::normalised(key), value))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::wire;

    use super::*;
    use crate::stream::tests::fuzz;

    fn names<'a>(list: &'a List<'_>) -> Vec<&'a str> {
        list.iter().collect()
    }

    #[test]
    fn a_request_of_each_protocol_is_read_whole() {
        let error = wire::Status { code: -13, message: "no ü".into() };
        let message = wire::DiscoveryRequest {
            version_info: "7".into(),
            node: b"node"[..].into(),
            resource_names: vec!["a".into(), "ü".into(), String::new()],
            type_url: "t".into(),
            response_nonce: "3".into(),
            error_detail: Some(error.clone()),
        };
        let message = message.encode_to_vec();
        let request = Request::read(Protocol::Sotw, &message).expect("valid");
        assert_eq!((request.node, request.type_url, request.nonce), (&b"node"[..], "t", "3"));
        assert_eq!(request.error, Some(Error { code: -13, message: "no ü" }));
        let Wants::Sotw { version, names: list } = &request.wants else { panic!("{request:?}") };
        assert_eq!((*version, names(list), list.len()), ("7", vec!["a", "ü", ""], 3));
        assert!(matches!(list.encoded, Cow::Borrowed(_)));

        let message = wire::DeltaDiscoveryRequest {
            node: b"node"[..].into(),
            type_url: "t".into(),
            resource_names_subscribe: vec!["a".into(), "b".into()],
            resource_names_unsubscribe: vec!["c".into()],
            initial_resource_versions: [("a".into(), "1".into()), ("xdstp://x/T/r?k=1&a=2".into(), String::new())]
                .into(),
            response_nonce: "3".into(),
            error_detail: Some(error),
        };
        let message = message.encode_to_vec();
        let request = Request::read(Protocol::Delta, &message).expect("valid");
        assert_eq!((request.node, request.type_url, request.nonce), (&b"node"[..], "t", "3"));
        assert_eq!(request.error, Some(Error { code: -13, message: "no ü" }));
        let Wants::Delta { subscribe, unsubscribe, holds } = &request.wants else { panic!("{request:?}") };
        assert_eq!((names(subscribe), names(unsubscribe)), (vec!["a", "b"], vec!["c"]));
        assert_eq!(*holds, [("a".into(), "1"), ("xdstp://x/T/r?a=2&k=1".into(), "")]);
    }

    #[test]
    fn fields_may_stand_in_any_order_and_unknown_ones_are_passed_over() {
        // Names 3, a fixed32 of number 9, a group of number 10, names again, and the type twice.
        let message = b"\x1a\x01a\x22\x01x\x4d\0\0\0\0\x53\x08\x01\x54\x1a\x01b\x1a\x01c\x22\x01t";
        let request = Request::read(Protocol::Sotw, message).expect("valid");
        let Wants::Sotw { names: list, .. } = &request.wants else { panic!("{request:?}") };
        assert_eq!((names(list), request.type_url), (vec!["a", "b", "c"], "t"));
        let together = Request::read(Protocol::Sotw, b"\x1a\x01a\x1a\x01b\x1a\x01c").expect("valid");
        let Wants::Sotw { names: other, .. } = &together.wants else { panic!("{together:?}") };
        assert_eq!(list.digest(), other.digest());
    }

    #[test]
    fn an_error_that_is_given_twice_is_one_error() {
        let sotw = Request::read(Protocol::Sotw, b"\x32\x02\x08\x05\x32\x03\x12\x01x").expect("valid");
        let delta = Request::read(Protocol::Delta, b"\x3a\x03\x12\x01x\x3a\x02\x08\x05").expect("valid");
        let both = Some(Error { code: 5, message: "x" });
        assert_eq!((sotw.error, delta.error), (both, both));
    }

    #[test]
    fn what_cannot_be_read_is_a_fault() {
        for message in [
            &b"\x1a\x05a"[..],
            b"\x1a\x01\xff",
            b"\x18\x01",
            b"\x22\x01\xff",
            b"\x0b",
            b"\x0c",
            b"\x07",
            b"\x32\x02\x08",
            b"\x32\x03\x0a\x01x",
            b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Request::read(Protocol::Sotw, message).err(), Some(Fault::Undecodable), "{message:?}");
        }
        assert_eq!(Request::read(Protocol::Delta, b"\x2a\x03\x0a\x05a").err(), Some(Fault::Undecodable));
    }

    proptest::proptest! {
        /// The same requests are valid as for the reader that is generated.
        #[test]
        fn any_bytes_are_read_or_are_a_fault(bytes: Vec<u8>) {
            for protocol in [Protocol::Sotw, Protocol::Delta] {
                let ours = Request::read(protocol, &bytes).is_ok();
                let theirs = fuzz::is_request(protocol, &bytes);
                assert_eq!(ours, theirs, "{bytes:?}");
            }
        }
    }
}
