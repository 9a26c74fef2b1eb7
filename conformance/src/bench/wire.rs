//! Wire: gRPC messages of the discovery protocol, written and read by hand.
//!
//! Owns: the framing, the few fields that a client looks at, and requests whose long part is shared by every stream.
//! May use: nothing but bytes. Never: decodes a resource: that costs more than all the servers under test.

use bytes::{BufMut, Bytes, BytesMut};

/// The type of load assignments.
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// The type of clusters.
pub const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The type of listeners.
pub const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The type of routes.
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The type of secrets.
pub const SECRETS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// Which of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// The bytes are no protobuf message, or no gRPC one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent what is no gRPC message")]
pub struct Malformed;

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A member of length-delimited type; the others are passed over.
    Field(u32, &'a [u8]),
    /// The message is over.
    End,
}

/// Cuts a stream of bytes into members of messages, holding no more than one member.
#[derive(Debug, Default)]
pub struct Splitter {
    rest: Vec<u8>,
    /// What is left of the message that has begun.
    left: Option<usize>,
}

/// A resource of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry<'a> {
    /// Its name; empty in the state-of-the-world protocol, where it is inside the body.
    pub name: &'a [u8],
    /// Its version; empty in the state-of-the-world protocol.
    pub version: &'a [u8],
    /// Its type.
    pub type_url: &'a [u8],
    /// The encoded resource.
    pub body: &'a [u8],
}

// === impl Protocol ===

impl Protocol {
    /// The path of its method.
    pub fn path(self) -> &'static str {
        match self {
            Self::Sotw => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            Self::Delta => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        }
    }

    /// The numbers of the members of a request: node, type, names, nonce.
    fn request(self) -> [u32; 4] {
        match self {
            Self::Sotw => [2, 4, 3, 5],
            Self::Delta => [1, 2, 3, 6],
        }
    }

    /// A resource of a response, from its member 2.
    pub fn entry(self, field: &[u8]) -> Result<Entry<'_>, Malformed> {
        match self {
            Self::Delta => {
                let mut entry = Entry::default();
                for member in members(field) {
                    match member? {
                        (1, version) => entry.version = version,
                        (2, any) => (entry.type_url, entry.body) = value(any)?,
                        (3, name) => entry.name = name,
                        _ => {}
                    }
                }
                Ok(entry)
            }
            Self::Sotw => {
                let (type_url, body) = value(field)?;
                Ok(Entry { type_url, body, ..Entry::default() })
            }
        }
    }

    /// What a subscription to `names` of a type says after whatever goes before it, such as the node; shared by every
    /// stream. `held` are the names and versions that the client says it has.
    pub fn subscription(self, type_url: &str, names: &[String], held: &[(String, String)]) -> Bytes {
        let [_, kind, list, _] = self.request();
        let mut text = BytesMut::new();
        put(&mut text, kind, type_url.as_bytes());
        for name in names {
            put(&mut text, list, name.as_bytes());
        }
        for (name, version) in held {
            let mut pair = BytesMut::new();
            put(&mut pair, 1, name.as_bytes());
            put(&mut pair, 2, version.as_bytes());
            put(&mut text, 5, &pair);
        }
        text.freeze()
    }

    /// The node member of a request.
    pub fn node(self, node: &[u8]) -> BytesMut {
        let mut text = BytesMut::new();
        put(&mut text, self.request()[0], node);
        text
    }

    /// What an acceptance says before the subscription that it repeats (state of the world) or the type (delta).
    pub fn acceptance(self, version: &[u8], nonce: &[u8]) -> BytesMut {
        let mut text = BytesMut::new();
        if self == Self::Sotw {
            put(&mut text, 1, version);
        }
        put(&mut text, self.request()[3], nonce);
        text
    }
}

/// A gRPC message of two parts: the first with its frame, to be followed by the second.
pub fn framed(first: &[u8], second: &Bytes) -> Bytes {
    let length = u32::try_from(first.len() + second.len()).expect("requests are small");
    let mut frame = BytesMut::with_capacity(5 + first.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(first);
    frame.freeze()
}

/// The name inside a resource that names itself in member 1, as all of those that the bench uses do.
pub fn own_name(body: &[u8]) -> Result<&[u8], Malformed> {
    members(body)
        .find_map(|member| member.map(|(number, name)| (number == 1).then_some(name)).transpose())
        .ok_or(Malformed)?
}

/// The type and the content of an `Any`.
fn value(any: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut found: (&[u8], &[u8]) = (&[], &[]);
    for member in members(any) {
        match member? {
            (1, type_url) => found.0 = type_url,
            (2, value) => found.1 = value,
            _ => {}
        }
    }
    Ok(found)
}

/// The length-delimited members of a message.
fn members(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        while !bytes.is_empty() {
            match member(bytes) {
                Ok(Some((taken, found))) => {
                    bytes = &bytes[taken..];
                    if let Some(found) = found {
                        return Some(Ok(found));
                    }
                }
                Ok(None) | Err(Malformed) => {
                    bytes = &[];
                    return Some(Err(Malformed));
                }
            }
        }
        None
    })
}

/// How long the first member is, with its content if it is length-delimited; nothing if it is not all there.
type Member<'a> = Option<(usize, Option<(u32, &'a [u8])>)>;

fn member(bytes: &[u8]) -> Result<Member<'_>, Malformed> {
    let Some((tag, key)) = varint(bytes)? else { return Ok(None) };
    let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
    let rest = &bytes[tag..];
    let scalar = |size: usize| (rest.len() >= size).then_some((tag + size, None));
    match key & 7 {
        0 => Ok(varint(rest)?.map(|(taken, _)| (tag + taken, None))),
        1 => Ok(scalar(8)),
        5 => Ok(scalar(4)),
        2 => {
            let Some((taken, length)) = varint(rest)? else { return Ok(None) };
            let length = usize::try_from(length).map_err(|_| Malformed)?;
            let end = taken.checked_add(length).ok_or(Malformed)?;
            Ok(rest.get(taken..end).map(|content| (tag + end, Some((number, content)))))
        }
        _ => Err(Malformed),
    }
}

fn varint(bytes: &[u8]) -> Result<Option<(usize, u64)>, Malformed> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or_default();
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, value)));
        }
    }
    if bytes.len() >= 10 { Err(Malformed) } else { Ok(None) }
}

/// Appends a length-delimited member.
pub fn put(text: &mut BytesMut, number: u32, content: &[u8]) {
    put_varint(text, u64::from(number) << 3 | 2);
    put_varint(text, content.len() as u64);
    text.put_slice(content);
}

fn put_varint(text: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        text.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    text.put_u8(value as u8);
}

// === impl Splitter ===

impl Splitter {
    /// Takes what was received and hands out every member that is complete with it, until `take` refuses one.
    pub fn feed<E: From<Malformed>>(
        &mut self,
        chunk: &[u8],
        mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest.is_empty() {
            let taken = self.pieces(chunk, &mut take)?;
            self.rest.extend_from_slice(&chunk[taken..]);
        } else {
            let mut whole = std::mem::take(&mut self.rest);
            whole.extend_from_slice(chunk);
            let taken = self.pieces(&whole, &mut take)?;
            whole.drain(..taken);
            if !whole.is_empty() {
                self.rest = whole;
            }
        }
        Ok(())
    }

    fn pieces<E: From<Malformed>>(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        loop {
            match self.left {
                None => {
                    let Some(head) = bytes.get(at..at + 5) else { return Ok(at) };
                    if head[0] != 0 {
                        return Err(Malformed.into());
                    }
                    self.left = Some(u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
                    at += 5;
                }
                Some(0) => {
                    self.left = None;
                    take(Piece::End)?;
                }
                Some(left) => {
                    let end = bytes.len().min(at.saturating_add(left));
                    let Some((taken, found)) = member(&bytes[at..end])? else {
                        return if end - at == left { Err(Malformed.into()) } else { Ok(at) };
                    };
                    self.left = Some(left - taken);
                    at += taken;
                    if let Some((number, content)) = found {
                        take(Piece::Field(number, content))?;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proto::envoy::service::discovery::v3 as discovery_pb;
    use proto::google::protobuf::Any;

    fn response() -> discovery_pb::DeltaDiscoveryResponse {
        let resource = |name: &str| discovery_pb::Resource {
            name: name.into(),
            version: "v1".into(),
            ttl: Some(Default::default()),
            resource: Some(Any { type_url: ENDPOINTS.into(), value: vec![10, 1, 97] }),
            ..Default::default()
        };
        discovery_pb::DeltaDiscoveryResponse {
            type_url: ENDPOINTS.into(),
            nonce: "7".into(),
            resources: vec![resource("a"), resource("b")],
            removed_resources: vec!["c".into()],
            ..Default::default()
        }
    }

    #[test]
    fn messages_are_cut_into_the_same_members_however_they_arrive() {
        let message = response().encode_to_vec();
        let mut bytes = framed(&message, &Bytes::new()).to_vec();
        bytes.extend(framed(&[], &Bytes::new()));
        let mut cuts = Vec::new();
        for size in 1..=bytes.len() {
            let (mut splitter, mut found) = (Splitter::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                let taken: Result<(), Malformed> = splitter.feed(chunk, |piece| {
                    found.push(match piece {
                        Piece::Field(number, content) => (number, content.to_vec()),
                        Piece::End => (0, Vec::new()),
                    });
                    Ok(())
                });
                taken.expect("well formed");
            }
            assert!(splitter.rest.is_empty() && splitter.left.is_none());
            cuts.push(found);
        }
        let numbers: Vec<u32> = cuts[0].iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 2, 4, 5, 6, 0, 0]);
        assert!(cuts.iter().all(|cut| *cut == cuts[0]));
        let entry = Protocol::Delta.entry(&cuts[0][1].1).expect("a resource");
        assert_eq!(entry, Entry { name: b"b", version: b"v1", type_url: ENDPOINTS.as_bytes(), body: &[10, 1, 97] });
        assert_eq!(own_name(entry.body), Ok(&b"a"[..]));
    }

    #[test]
    fn requests_are_what_the_protocol_says() {
        let names = ["x".to_owned(), "y".to_owned()];
        let node = discovery_pb::DeltaDiscoveryRequest { node: Some(Default::default()), ..Default::default() };
        let held = [("x".to_owned(), "1".to_owned())];
        let mut first = Protocol::Delta.node(&[]).to_vec();
        first.extend(Protocol::Delta.subscription("t", &names, &held));
        let decoded = discovery_pb::DeltaDiscoveryRequest::decode(&first[..]).expect("a request");
        let expected = discovery_pb::DeltaDiscoveryRequest {
            type_url: "t".into(),
            resource_names_subscribe: names.to_vec(),
            initial_resource_versions: held.into(),
            ..node
        };
        assert_eq!(decoded, expected);
        let mut ack = Protocol::Sotw.acceptance(b"v", b"n").to_vec();
        ack.extend(Protocol::Sotw.subscription("t", &names, &[]));
        let decoded = discovery_pb::DiscoveryRequest::decode(&ack[..]).expect("a request");
        let expected = discovery_pb::DiscoveryRequest {
            version_info: "v".into(),
            response_nonce: "n".into(),
            type_url: "t".into(),
            resource_names: names.to_vec(),
            ..Default::default()
        };
        assert_eq!(decoded, expected);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&[1, 0, 0, 0, 0][..], &[0, 0, 0, 0, 1, 0x0a], &[0, 0, 0, 0, 2, 0x0b, 0x00]] {
            let fed: Result<(), Malformed> = Splitter::default().feed(bytes, |_| Ok(()));
            assert_eq!(fed, Err(Malformed), "{bytes:?}");
        }
    }
}
