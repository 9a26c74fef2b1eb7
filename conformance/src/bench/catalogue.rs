//! Catalogue: the load assignments that every server under test serves, byte for byte.
//!
//! Owns: their names and addresses, where a change leaves its number, and the file that peers read them from. May use:
//! the wire messages. Never: takes two numbers for one: a number has one place and one width.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use prost::Message;
use proto::envoy::config::endpoint::v3 as endpoint_pb;

/// The namespace of everything that the bench writes.
pub const NAMESPACE: &str = "bench";
/// The bytes that a number takes: two groups of an IPv6 address.
const WIDTH: usize = 9;
/// One more than the largest number: the groups of an address end there.
const NUMBERS: u32 = 0x7000 << 12;

/// One load assignment as it is before any change.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Its name.
    pub name: String,
    /// The encoded message.
    pub body: Bytes,
    /// Where the number stands in it.
    pub offset: usize,
}

/// The load assignments, in order.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// All of them.
    pub assignments: Vec<Assignment>,
    /// The endpoints of each.
    pub endpoints: usize,
    index: HashMap<Bytes, usize>,
}

/// Why a resource is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Nobody asked for it.
    #[error("{0} was not asked for")]
    Unknown(String),
    /// Another endpoint, or something else beside its number.
    #[error("{0} has other content than it should")]
    Content(String),
}

// === impl Catalogue ===

impl Catalogue {
    /// The names and addresses of `services` services with `endpoints` endpoints each, encoded as `served` says: the
    /// bytes of each load assignment by name, as Chancery serves them.
    pub fn of(services: usize, endpoints: usize, served: &HashMap<String, Bytes>) -> anyhow::Result<Self> {
        let assignment = |index| {
            let name = resource_name(index);
            let body = served.get(&name).with_context(|| format!("{name} is not served"))?.clone();
            let offset = checked(&body, &name, index, endpoints).with_context(|| name.clone())?;
            Ok(Assignment { name, body, offset })
        };
        let assignments: Vec<Assignment> = (0..services).map(assignment).collect::<anyhow::Result<_>>()?;
        let index = assignments.iter().enumerate().map(|(i, a)| (Bytes::from(a.name.clone()), i)).collect();
        Ok(Self { assignments, endpoints, index })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.assignments.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.assignments.is_empty()
    }

    /// The size of all of them together.
    pub fn bytes(&self) -> usize {
        self.assignments.iter().map(|assignment| assignment.body.len()).sum()
    }

    /// The names of all of them.
    pub fn names(&self) -> Vec<String> {
        self.assignments.iter().map(|assignment| assignment.name.clone()).collect()
    }

    /// Whether both are the same messages, however they are encoded.
    pub fn says_the_same(&self, other: &Self) -> anyhow::Result<bool> {
        let decode = |a: &Assignment| endpoint_pb::ClusterLoadAssignment::decode(a.body.clone());
        for (ours, theirs) in self.assignments.iter().zip(&other.assignments) {
            if decode(ours)? != decode(theirs)? {
                return Ok(false);
            }
        }
        Ok(self.len() == other.len())
    }

    /// Which one this is, and the number that it carries; every other byte has to be as it was.
    pub fn read(&self, name: &[u8], body: &[u8]) -> Result<(usize, u32), Wrong> {
        let unknown = || Wrong::Unknown(String::from_utf8_lossy(name).into_owned());
        let index = *self.index.get(name).ok_or_else(unknown)?;
        let assignment = &self.assignments[index];
        let content = || Wrong::Content(assignment.name.clone());
        let (at, end) = (assignment.offset, assignment.offset + WIDTH);
        let same = body.len() == assignment.body.len()
            && body[..at] == assignment.body[..at]
            && body[end..] == assignment.body[end..];
        if !same {
            return Err(content());
        }
        let number = parse_number(&body[at..end]).ok_or_else(content)?;
        Ok((index, number))
    }

    /// The one at `index` with another number.
    pub fn body(&self, index: usize, number: u32) -> Bytes {
        let Assignment { body, offset, .. } = &self.assignments[index];
        let mut changed = BytesMut::from(&body[..]);
        changed[*offset..offset + WIDTH].copy_from_slice(number_text(number).as_bytes());
        changed.freeze()
    }

    /// Writes them to a file that peers read: of each three big-endian 32-bit lengths (name, body, offset of the
    /// number), the name, the body.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for Assignment { name, body, offset } in &self.assignments {
            for length in [name.len(), body.len(), *offset] {
                file.write_all(&u32::try_from(length)?.to_be_bytes())?;
            }
            file.write_all(name.as_bytes())?;
            file.write_all(body)?;
        }
        Ok(file.flush()?)
    }

    /// Reads such a file.
    pub fn read_file(path: &Path) -> anyhow::Result<Self> {
        let bytes = Bytes::from(std::fs::read(path).with_context(|| path.display().to_string())?);
        let mut rest = bytes;
        let mut assignments = Vec::new();
        while !rest.is_empty() {
            ensure!(rest.len() >= 12, "the file of load assignments is cut off");
            let lengths: Vec<usize> = rest.split_to(12).chunks(4).map(length).collect();
            ensure!(rest.len() >= lengths[0] + lengths[1], "the file of load assignments is cut off");
            let name = String::from_utf8(rest.split_to(lengths[0]).to_vec())?;
            assignments.push(Assignment { name, body: rest.split_to(lengths[1]), offset: lengths[2] });
        }
        let index = assignments.iter().enumerate().map(|(i, a)| (Bytes::from(a.name.clone()), i)).collect();
        Ok(Self { assignments, endpoints: 0, index })
    }
}

fn length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
}

/// The name of the load assignment of a service.
pub fn resource_name(index: usize) -> String {
    format!("out/{NAMESPACE}/{}/http", service_name(index))
}

/// The name of a service.
pub fn service_name(index: usize) -> String {
    format!("s{index:06}")
}

/// The address of an endpoint; the first one of a service carries the number of the last change. Every group has four
/// digits, so that each address of the bench is equally long.
pub fn address(service: usize, endpoint: usize, number: u32) -> String {
    let (high, low) = (0x1000 + (service >> 12), 0x1000 + (service & 0xfff));
    format!("fd00:1000:{high:x}:{low:x}:{:x}:1000:{}", 0x1000 + endpoint, number_text(number))
}

fn number_text(number: u32) -> String {
    assert!(number < NUMBERS, "a bench makes fewer changes");
    format!("{:x}:{:x}", 0x1000 + (number >> 12), 0x1000 + (number & 0xfff))
}

fn parse_number(text: &[u8]) -> Option<u32> {
    let (high, low) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let group = |text: &str| u32::from_str_radix(text, 16).ok()?.checked_sub(0x1000);
    Some((group(high)? << 12) | group(low).filter(|low| *low < 0x1000)?)
}

/// Checks that this is the load assignment of a service before any change, and says where its number stands.
fn checked(body: &Bytes, name: &str, index: usize, endpoints: usize) -> anyhow::Result<usize> {
    let message = endpoint_pb::ClusterLoadAssignment::decode(body.clone())?;
    ensure!(message.cluster_name == name, "it is of {}", message.cluster_name);
    let found: Vec<String> = message
        .endpoints
        .iter()
        .flat_map(|locality| &locality.lb_endpoints)
        .filter_map(|endpoint| match endpoint.host_identifier.as_ref()? {
            endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(endpoint) => {
                match endpoint.address.as_ref()?.address.as_ref()? {
                    proto::envoy::config::core::v3::address::Address::SocketAddress(socket) => {
                        Some(socket.address.clone())
                    }
                    _ => None,
                }
            }
            endpoint_pb::lb_endpoint::HostIdentifier::EndpointName(_) => None,
        })
        .collect();
    let expected: Vec<String> = (0..endpoints).map(|endpoint| address(index, endpoint, 0)).collect();
    ensure!(found == expected, "its endpoints are {found:?}");
    let text = address(index, 0, 0);
    let at = body.windows(text.len()).position(|window| window == text.as_bytes()).context("no address")?;
    Ok(at + text.len() - WIDTH)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A catalogue as Chancery would serve it.
    pub(in crate::bench) fn catalogue(services: usize, endpoints: usize) -> Catalogue {
        let endpoint = |service, endpoint| {
            let socket = proto::envoy::config::core::v3::SocketAddress {
                address: address(service, endpoint, 0),
                ..Default::default()
            };
            let address = proto::envoy::config::core::v3::Address {
                address: Some(proto::envoy::config::core::v3::address::Address::SocketAddress(socket)),
            };
            let endpoint = endpoint_pb::Endpoint { address: Some(address), ..Default::default() };
            endpoint_pb::LbEndpoint {
                host_identifier: Some(endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
                ..Default::default()
            }
        };
        let served = (0..services).map(|service| {
            let lb_endpoints = (0..endpoints).map(|index| endpoint(service, index)).collect();
            let locality = endpoint_pb::LocalityLbEndpoints { lb_endpoints, ..Default::default() };
            let name = resource_name(service);
            let message = endpoint_pb::ClusterLoadAssignment {
                cluster_name: name.clone(),
                endpoints: vec![locality],
                ..Default::default()
            };
            (name, Bytes::from(message.encode_to_vec()))
        });
        Catalogue::of(services, endpoints, &served.collect()).expect("as the bench expects it")
    }

    #[test]
    fn a_resource_is_taken_with_any_number_and_no_other_difference() {
        let catalogue = catalogue(3, 2);
        let name = resource_name(1);
        for number in [0, 1, 0xfff, 0x1000, 70_000] {
            let body = catalogue.body(1, number);
            assert_eq!(catalogue.read(name.as_bytes(), &body), Ok((1, number)));
            assert_eq!(body.len(), catalogue.assignments[1].body.len(), "every number is equally wide");
        }
        let other = catalogue.body(2, 1);
        assert_eq!(catalogue.read(name.as_bytes(), &other), Err(Wrong::Content(name.clone())));
        let cut = &catalogue.assignments[1].body[1..];
        assert_eq!(catalogue.read(name.as_bytes(), cut), Err(Wrong::Content(name.clone())));
        assert_eq!(catalogue.read(b"x", &other), Err(Wrong::Unknown("x".into())));
        for at in 0..other.len() {
            let mut wrong = catalogue.body(1, 7).to_vec();
            wrong[at] ^= 0x80;
            assert_eq!(catalogue.read(name.as_bytes(), &wrong), Err(Wrong::Content(name.clone())), "byte {at}");
        }
    }

    #[test]
    fn peers_read_what_was_written() {
        let catalogue = catalogue(3, 2);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("assignments");
        catalogue.write(&path).expect("written");
        let read = Catalogue::read_file(&path).expect("read");
        assert_eq!(read.names(), catalogue.names());
        for index in 0..3 {
            assert_eq!(read.body(index, 9), catalogue.body(index, 9));
        }
    }

    #[test]
    fn a_server_that_serves_other_endpoints_is_noticed() {
        let two = catalogue(1, 2);
        let served = [(resource_name(0), two.assignments[0].body.clone())].into();
        assert!(Catalogue::of(1, 3, &served).is_err());
        assert!(Catalogue::of(2, 2, &served).is_err());
    }
}
