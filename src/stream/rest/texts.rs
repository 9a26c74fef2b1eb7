//! Responses as JSON, made once for all clients of a group.
//!
//! Owns: the texts of what is current: of each resource, and of each response made of them. May use: the JSON form of
//! Envoy's messages. Never: keeps the text of a secret, or of what no group has any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{decode_key, decode_varint};
use tonic::Status;
use translators::json::{self, JsonError};
use translators::name::Owner;
use translators::resource::{Kind, Version};

use super::super::poll::{Poll, Said};
use crate::publish::{Reader, Snapshot};

/// Texts that nobody has asked for in this time go.
const KEPT: Duration = Duration::from_secs(300);
/// So many responses of one type are kept: as many as clients of a group ask for different names.
const MOST_RESPONSES: usize = 4_096;
/// Larger responses are made off the threads that serve.
const LARGE: usize = 64 * 1024;

/// The texts of every group whose clients poll.
#[derive(Debug, Default)]
pub(in crate::stream) struct Texts(Mutex<BTreeMap<Owner, Vec<Group>>>);

/// The texts of one group.
#[derive(Debug)]
struct Group {
    snapshots: Reader<Snapshot>,
    texts: Arc<GroupTexts>,
    asked: Instant,
}

/// The texts of one group, by type.
#[derive(Debug, Default)]
pub(super) struct GroupTexts([Arc<tokio::sync::Mutex<KindTexts>>; Kind::ALL.len()]);

/// The texts of one type.
#[derive(Debug, Default)]
struct KindTexts {
    /// The set that the responses are made of.
    set: Option<Version>,
    responses: BTreeMap<Version, Bytes>,
    /// The texts of resources in this set, and in the one before.
    resources: BTreeMap<Version, Bytes>,
    former: BTreeMap<Version, Bytes>,
    /// How many resources were made into text.
    made: u64,
}

// === impl Texts ===

impl Texts {
    /// The texts of the client's group.
    pub(super) fn of(&self, poll: &Poll) -> Arc<GroupTexts> {
        let mut all = self.lock();
        let groups = all.entry(poll.owner.clone()).or_default();
        let now = Instant::now();
        if let Some(group) = groups.iter_mut().find(|group| group.snapshots.follows_same(&poll.snapshots)) {
            group.asked = now;
            return Arc::clone(&group.texts);
        }
        // Another group of the same owner has come: the one before may be gone.
        groups.retain_mut(Group::is_there);
        let texts = Arc::<GroupTexts>::default();
        groups.push(Group { snapshots: poll.snapshots.clone(), texts: Arc::clone(&texts), asked: now });
        texts
    }

    /// Forgets what is not asked for any more, and groups that are gone.
    pub(in crate::stream) fn tidy(&self, now: Instant) {
        self.lock().retain(|_, groups| {
            groups.retain_mut(|group| group.is_there() && now.saturating_duration_since(group.asked) < KEPT);
            !groups.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Owner, Vec<Group>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Group ===

impl Group {
    fn is_there(&mut self) -> bool {
        let gone = |poll: std::task::Poll<Option<_>>| matches!(poll, std::task::Poll::Ready(None));
        !gone(self.snapshots.poll_next(&Context::from_waker(Waker::noop())))
    }
}

// === impl GroupTexts ===

impl GroupTexts {
    /// The text of a response.
    pub(super) async fn text(&self, kind: Kind, said: Said) -> Result<Bytes, Status> {
        let texts = match kind {
            Kind::Secret => Arc::default(),
            _ => Arc::clone(&self.0[kind as usize]),
        };
        let mut texts = texts.lock_owned().await;
        let made = match said.entries.iter().map(Bytes::len).sum::<usize>() {
            0..LARGE => texts.text(&said),
            _ => match tokio::task::spawn_blocking(move || texts.text(&said)).await {
                Ok(made) => made,
                Err(error) => return Err(Status::internal(format!("a response has no JSON form: {error}"))),
            },
        };
        made.map_err(|error| Status::internal(format!("a response has no JSON form: {error}")))
    }
}

// === impl KindTexts ===

impl KindTexts {
    fn text(&mut self, said: &Said) -> Result<Bytes, JsonError> {
        if self.set != Some(said.set) {
            self.set = Some(said.set);
            self.responses.clear();
            self.former = std::mem::take(&mut self.resources);
        }
        let head = json::to_json("envoy.service.discovery.v3.DiscoveryResponse", &said.head.encode_to_vec())?;
        let head = head.to_string();
        let versions: Vec<Version> = said.entries.iter().map(|entry| Version::of(entry)).collect();
        let key = versions.iter().fold(Version::of(head.as_bytes()), |sum, version| sum.with(*version));
        if let Some(text) = self.responses.get(&key) {
            return Ok(text.clone());
        }
        let mut resources = Vec::with_capacity(versions.len());
        for (entry, version) in said.entries.iter().zip(versions) {
            let known = self.resources.get(&version).cloned().or_else(|| self.former.remove(&version));
            let text = match known {
                Some(text) => text,
                None => {
                    self.made += 1;
                    json::to_json("google.protobuf.Any", body_of(entry))?.to_string().into()
                }
            };
            self.resources.insert(version, text.clone());
            resources.push(text);
        }
        let text = joined(&head, &resources);
        if self.responses.len() >= MOST_RESPONSES {
            self.responses.clear();
        }
        self.responses.insert(key, text.clone());
        Ok(text)
    }
}

/// The head, an object, with the resources as one member more.
fn joined(head: &str, resources: &[Bytes]) -> Bytes {
    let members = head.strip_suffix('}').unwrap_or(head);
    let mut text = BytesMut::with_capacity(members.len() + resources.iter().map(|r| r.len() + 1).sum::<usize>() + 32);
    text.put_slice(members.as_bytes());
    text.put_slice(if members.len() > 1 { b",\"resources\":[" } else { b"\"resources\":[" });
    for (number, resource) in resources.iter().enumerate() {
        if number > 0 {
            text.put_u8(b',');
        }
        text.put_slice(resource);
    }
    text.put_slice(b"]}");
    text.freeze()
}

/// The message in a field of it.
fn body_of(field: &Bytes) -> &[u8] {
    let mut rest = &field[..];
    match decode_key(&mut rest).and_then(|_| decode_varint(&mut rest)) {
        Ok(length) => usize::try_from(length).ok().and_then(|length| rest.get(..length)).unwrap_or(rest),
        Err(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use proto::wire;
    use serde_json::{Value, json};
    use translators::resource::Resource;

    use super::*;

    fn cluster(name: &str, text: &str) -> Bytes {
        let message = proto::envoy::config::cluster::v3::Cluster {
            name: name.into(),
            alt_stat_name: text.into(),
            ..Default::default()
        };
        Resource::new(Kind::Cluster, name, &message, []).sotw_entry()
    }

    fn said(set: u8, entries: Vec<Bytes>) -> Said {
        let head = wire::DiscoveryResponseHead {
            version_info: format!("v{set}"),
            type_url: Kind::Cluster.type_url().into(),
            ..Default::default()
        };
        Said { head, entries, set: Version::of(&[set]) }
    }

    #[tokio::test]
    async fn a_text_is_made_once_for_all_and_a_change_makes_one_resource_again() {
        let texts = GroupTexts::default();
        let (a, b, c) = (cluster("a", ""), cluster("b", "1"), cluster("b", "2"));
        let first = texts.text(Kind::Cluster, said(1, vec![a.clone(), b.clone()])).await.expect("a text");
        let value: Value = serde_json::from_slice(&first).expect("JSON");
        let resource = |name: &str| json!({"@type": Kind::Cluster.type_url(), "name": name});
        let mut second = resource("b");
        second["alt_stat_name"] = "1".into();
        let expected = json!({"version_info": "v1", "type_url": Kind::Cluster.type_url(),
            "resources": [resource("a"), second]});
        assert_eq!(value, expected);
        let again = texts.text(Kind::Cluster, said(1, vec![a.clone(), b])).await.expect("a text");
        assert_eq!(again.as_ptr(), first.as_ptr(), "the same memory for all");
        assert_eq!(texts.0[Kind::Cluster as usize].lock().await.made, 2);
        texts.text(Kind::Cluster, said(2, vec![a, c])).await.expect("a text");
        let kind = texts.0[Kind::Cluster as usize].lock().await;
        assert_eq!((kind.made, kind.responses.len(), kind.resources.len()), (3, 1, 2));
    }

    #[tokio::test]
    async fn a_large_response_is_the_same_and_a_secret_is_not_kept() {
        let texts = GroupTexts::default();
        let large = cluster("a", &"x".repeat(2 * LARGE));
        let text = texts.text(Kind::Cluster, said(1, vec![large])).await.expect("a text");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value["resources"][0]["alt_stat_name"].as_str().map(str::len), Some(2 * LARGE));
        texts.text(Kind::Secret, said(1, vec![cluster("a", "")])).await.expect("a text");
        assert_eq!(texts.0[Kind::Secret as usize].lock().await.made, 0);
    }

    #[tokio::test]
    async fn what_has_no_resources_has_an_empty_list() {
        let texts = GroupTexts::default();
        let text = texts.text(Kind::Cluster, said(1, vec![])).await.expect("a text");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value["resources"], json!([]));
        assert_eq!(&joined("{}", &[])[..], b"{\"resources\":[]}");
    }
}
