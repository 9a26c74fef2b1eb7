//! A document as a tree in which every key and value knows where it stands.
//!
//! Owns: the tree, the index from pointers to places, and reading a typed value from it. May use: serde.
//! Never: knows a kind.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_saphyr::Spanned;

use super::mistake::Mistake;

/// A line and a column, from 1.
pub(super) type Place = (u32, u32);

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// A value as YAML has them.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping and its place.
#[derive(Debug)]
pub(super) struct Key {
    pub place: Place,
    pub name: String,
}

// === impl Node ===

impl Node {
    /// The member `name` of a mapping.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(members) => members.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The place of every pointer: a scalar's own, a collection's that of its key; and of the name of each member.
    pub(super) fn places(&self) -> BTreeMap<String, Place> {
        let mut places = BTreeMap::from([(String::new(), self.place)]);
        self.add_places("", &mut places);
        places
    }

    fn add_places(&self, pointer: &str, places: &mut BTreeMap<String, Place>) {
        match &self.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let pointer = format!("{pointer}/{index}");
                    item.add_places(&pointer, places);
                    places.insert(pointer, item.place);
                }
            }
            Value::Map(members) => {
                for (key, node) in members {
                    let pointer = format!("{pointer}/{}", escaped(&key.name));
                    node.add_places(&pointer, places);
                    places.insert(name_of(&pointer), key.place);
                    let collection = matches!(node.value, Value::List(_) | Value::Map(_) | Value::Null);
                    places.insert(pointer, if collection { key.place } else { node.place });
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Signed(_)
            | Value::Unsigned(_)
            | Value::Float(_)
            | Value::String(_) => {}
        }
    }

    /// The place of the key `name` of the mapping at `pointer`.
    pub(super) fn key_place(&self, pointer: &str, name: &str) -> Option<Place> {
        let mut node = self;
        for segment in pointer.split('/').skip(1) {
            node = match &node.value {
                Value::List(items) => items.get(segment.parse::<usize>().ok()?)?,
                Value::Map(members) => &members.iter().find(|(key, _)| escaped(&key.name) == segment)?.1,
                _ => return None,
            };
        }
        match &node.value {
            Value::Map(members) => members.iter().find(|(key, _)| key.name == name).map(|(key, _)| key.place),
            _ => None,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Signed(value) => Unexpected::Signed(*value),
            Value::Unsigned(value) => Unexpected::Unsigned(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::String(value) => Unexpected::Str(value),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }
}

/// One segment of a JSON pointer (RFC 6901).
pub(crate) fn escaped(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

/// What stands for the name of the member at `pointer`; it is itself no pointer.
pub(super) fn name_of(pointer: &str) -> String {
    format!("{pointer}~")
}

/// Reading a typed value from the tree; mistakes are structured.
impl<'de> Deserializer<'de> for &'de Node {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Value::Map(members) => {
                visitor.visit_map(MapDeserializer::new(members.iter().map(|(key, node)| (key.name.as_str(), node))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Map(members) if members.len() == 1 => visitor.visit_enum(MapAccessDeserializer::new(
                MapDeserializer::new(members.iter().map(|(key, node)| (key.name.as_str(), node))),
            )),
            Value::Map(_) => Err(Mistake::NotOneOf(variants)),
            _ => Err(Mistake::not_a_variant(self.unexpected(), variants)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Mistake> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Building the tree from YAML.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: place(&spanned.referenced), value: spanned.value })
    }
}

pub(super) fn place(location: &serde_saphyr::Location) -> Place {
    let at = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    (at(location.line()), at(location.column()))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = members.next_key::<Spanned<String>>()? {
            let key = Key { place: place(&key.referenced), name: key.value };
            map.push((key, members.next_value()?));
        }
        Ok(Value::Map(map))
    }
}
