//! Proto-JSON into an encoded message.
//!
//! Owns: what proto-JSON a message has, field by field, with everything that does not fit and where; the same text is
//! the same bytes, maps included. May use: the descriptors of `proto`, prost-reflect for what is written as one value.
//! Never: stops at the first mistake, or knows what a message means.

use std::collections::BTreeMap;

use prost::Message as _;
use prost::encoding::encode_key;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind as FieldKind, MessageDescriptor, OneofDescriptor,
    Value as ProtoValue,
};
use serde_json::{Map, Value};

use super::encode::{put_bytes, put_list, put_scalar, put_struct, put_value};
use super::{descriptor, has_own_form};
use crate::suggest;

/// Something that does not fit into the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where, as a JSON pointer into the text.
    pub pointer: String,
    /// Why.
    pub reason: Reason,
}

/// Why something does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A field that the message does not have; these it has.
    UnknownField(String, Vec<String>),
    /// A field that is written in both of its spellings.
    Twice(String),
    /// A field of a `oneof` of which another is there; the name of the `oneof`, and that other.
    OneOf(String, String),
    /// A message of any type that does not say its `@type`.
    MissingType,
    /// A type that Envoy does not know, and which may be meant.
    UnknownType(String, Option<String>),
    /// A word that is none of these.
    NotAChoice(String, Vec<String>),
    /// A number or a boolean where text belongs.
    Unquoted(&'static str),
    /// A value of another shape; what belongs there.
    Shape(&'static str, &'static str),
}

/// The encoded message of the type `type_name` that `value` stands for, and what of `value` is left out because it
/// does not fit.
pub(super) fn read(descriptor: &MessageDescriptor, value: &Value) -> (Vec<u8>, Vec<Misfit>) {
    let mut reader = Reader { pointer: String::new(), misfits: Vec::new() };
    let bytes = reader.message(descriptor, value);
    (bytes, reader.misfits)
}

/// Where reading stands.
struct Reader {
    pointer: String,
    misfits: Vec<Misfit>,
}

// === impl Reader ===

impl Reader {
    fn message(&mut self, descriptor: &MessageDescriptor, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        match descriptor.full_name() {
            "google.protobuf.Any" => self.any(value, &mut out),
            "google.protobuf.Struct" => match value {
                Value::Object(members) => put_struct(members, &mut out),
                other => self.shape(other, "a mapping"),
            },
            "google.protobuf.ListValue" => match value {
                Value::Array(items) => put_list(items, &mut out),
                other => self.shape(other, "a list"),
            },
            "google.protobuf.Value" => put_value(value, &mut out),
            _ if is_wrapper(descriptor) => {
                if let Some(field) = descriptor.get_field_by_name("value")
                    && let Some(scalar) = self.scalar(&field.kind(), value)
                    && scalar != field.default_value()
                {
                    encode_key(field.number(), field.kind().wire_type(), &mut out);
                    put_scalar(&field.kind(), &scalar, &mut out);
                }
            }
            name if has_own_form(descriptor) && descriptor.fields().len() > 0 => {
                match DynamicMessage::deserialize(descriptor.clone(), value) {
                    Ok(message) => out = message.encode_to_vec(),
                    Err(_) => self.shape(value, own_form(name)),
                }
            }
            _ => match value {
                Value::Object(members) => {
                    self.fields(descriptor, members.iter().map(|(name, value)| (name.as_str(), value)), &mut out);
                }
                other => self.shape(other, "a mapping"),
            },
        }
        out
    }

    fn fields<'a>(
        &mut self,
        descriptor: &MessageDescriptor,
        members: impl Iterator<Item = (&'a str, &'a Value)>,
        out: &mut Vec<u8>,
    ) {
        let mut given: BTreeMap<u32, (FieldDescriptor, &str, &Value)> = BTreeMap::new();
        let mut chosen: BTreeMap<String, &str> = BTreeMap::new();
        for (name, value) in members {
            let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
            let Some(field) = field else {
                let known = descriptor.fields().map(|field| field.name().to_owned()).collect();
                self.within(name, |reader| reader.misfit(Reason::UnknownField(name.to_owned(), known)));
                continue;
            };
            if value.is_null() && !takes_null(&field) {
                continue;
            }
            if let Some(choice) = field.containing_oneof().filter(|choice| !choice.is_synthetic())
                && let Some(other) = chosen.insert(choice.name().to_owned(), name)
                && !given.contains_key(&field.number())
            {
                self.within(name, |reader| reader.misfit(one_of(&choice, other)));
                continue;
            }
            if let Some((_, other, _)) = given.get(&field.number()) {
                self.within(name, |reader| reader.misfit(Reason::Twice((*other).to_owned())));
                continue;
            }
            given.insert(field.number(), (field, name, value));
        }
        for (field, name, value) in given.into_values() {
            self.within(name, |reader| reader.field(&field, value, out));
        }
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) {
        if field.is_map() {
            match value {
                Value::Object(members) => self.map(field, members, out),
                other => self.shape(other, "a mapping"),
            }
        } else if field.is_list() {
            match value {
                Value::Array(items) => self.list(field, items, out),
                other => self.shape(other, "a list"),
            }
        } else {
            let is_default = |value: &ProtoValue| !field.supports_presence() && *value == field.default_value();
            self.element(field.number(), &field.kind(), value, is_default, out);
        }
    }

    /// The entries in the order of their keys as they are written.
    fn map(&mut self, field: &FieldDescriptor, members: &Map<String, Value>, out: &mut Vec<u8>) {
        let FieldKind::Message(entry) = field.kind() else { return };
        let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let keep = |_: &ProtoValue| false;
        for (key, value) in members {
            self.within(key, |reader| {
                let key = match key_field.kind() {
                    FieldKind::Bool => key.parse().map_or_else(|_| Value::String(key.clone()), Value::Bool),
                    _ => Value::String(key.clone()),
                };
                let mut encoded = Vec::new();
                reader.element(key_field.number(), &key_field.kind(), &key, keep, &mut encoded);
                reader.element(value_field.number(), &value_field.kind(), value, keep, &mut encoded);
                put_bytes(field.number(), &encoded, out);
            });
        }
    }

    fn list(&mut self, field: &FieldDescriptor, items: &[Value], out: &mut Vec<u8>) {
        let mut packed = Vec::new();
        for (index, item) in items.iter().enumerate() {
            self.within(&index.to_string(), |reader| {
                if field.is_packed() {
                    if let Some(scalar) = reader.scalar(&field.kind(), item) {
                        put_scalar(&field.kind(), &scalar, &mut packed);
                    }
                } else {
                    reader.element(field.number(), &field.kind(), item, |_| false, out);
                }
            });
        }
        if !packed.is_empty() {
            put_bytes(field.number(), &packed, out);
        }
    }

    /// One value with its tag, unless it goes `without` saying.
    fn element(
        &mut self,
        number: u32,
        kind: &FieldKind,
        value: &Value,
        without: impl Fn(&ProtoValue) -> bool,
        out: &mut Vec<u8>,
    ) {
        if let FieldKind::Message(descriptor) = kind {
            let message = self.message(descriptor, value);
            put_bytes(number, &message, out);
        } else if let Some(scalar) = self.scalar(kind, value).filter(|scalar| !without(scalar)) {
            encode_key(number, kind.wire_type(), out);
            put_scalar(kind, &scalar, out);
        }
    }

    fn scalar(&mut self, kind: &FieldKind, value: &Value) -> Option<ProtoValue> {
        match (kind, value) {
            (FieldKind::Bool, Value::Bool(value)) => Some(ProtoValue::Bool(*value)),
            (FieldKind::Bool, other) => {
                self.shape(other, "true or false");
                None
            }
            (FieldKind::String, Value::String(text)) => Some(ProtoValue::String(text.clone())),
            (FieldKind::String, Value::Number(_) | Value::Bool(_)) => {
                self.misfit(Reason::Unquoted(shown(value)));
                None
            }
            (FieldKind::String, other) => {
                self.shape(other, "text");
                None
            }
            (FieldKind::Enum(choices), _) => self.choice(choices, value),
            (FieldKind::Bytes, _) => self.wrapped("google.protobuf.BytesValue", value, "text in base64"),
            (FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32, _) => {
                self.wrapped("google.protobuf.Int32Value", value, "a whole number of 32 bits")
            }
            (FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64, _) => {
                self.wrapped("google.protobuf.Int64Value", value, "a whole number of 64 bits")
            }
            (FieldKind::Uint32 | FieldKind::Fixed32, _) => {
                self.wrapped("google.protobuf.UInt32Value", value, "a whole number from 0 to 4294967295")
            }
            (FieldKind::Uint64 | FieldKind::Fixed64, _) => {
                self.wrapped("google.protobuf.UInt64Value", value, "a whole number from 0")
            }
            (FieldKind::Float, _) => self.wrapped("google.protobuf.FloatValue", value, "a number"),
            (FieldKind::Double, _) => self.wrapped("google.protobuf.DoubleValue", value, "a number"),
            (FieldKind::Message(_), _) => None,
        }
    }

    /// A scalar that prost-reflect reads, as the value of its wrapper message.
    fn wrapped(&mut self, wrapper: &str, value: &Value, wanted: &'static str) -> Option<ProtoValue> {
        let read = descriptor(wrapper).ok().and_then(|wrapper| DynamicMessage::deserialize(wrapper, value).ok());
        let read = read.and_then(|message| message.get_field_by_name("value").map(|value| value.into_owned()));
        if read.is_none() {
            self.shape(value, wanted);
        }
        read
    }

    fn choice(&mut self, choices: &EnumDescriptor, value: &Value) -> Option<ProtoValue> {
        let found = match value {
            Value::String(name) => choices.get_value_by_name(name),
            Value::Number(number) => {
                number.as_i64().and_then(|n| i32::try_from(n).ok()).and_then(|n| choices.get_value(n))
            }
            // The one value of `NullValue`.
            Value::Null => choices.get_value(0),
            other => {
                self.shape(other, "a word");
                return None;
            }
        };
        if found.is_none() {
            let given = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let names = choices.values().map(|choice| choice.name().to_owned()).collect();
            self.misfit(Reason::NotAChoice(given, names));
        }
        found.map(|choice| ProtoValue::EnumNumber(choice.number()))
    }

    fn any(&mut self, value: &Value, out: &mut Vec<u8>) {
        let Value::Object(members) = value else { return self.shape(value, "a mapping with @type") };
        let Some(url) = members.get("@type") else { return self.misfit(Reason::MissingType) };
        let Value::String(url) = url else {
            return self.within("@type", |reader| reader.shape(url, "the name of a type"));
        };
        let rest = || members.iter().filter(|(name, _)| *name != "@type");
        let mut message = Vec::new();
        match (descriptor(url), members.get("value")) {
            (Ok(inner), Some(value)) if has_own_form(&inner) || inner.full_name() == "google.protobuf.Any" => {
                message = self.within("value", |reader| reader.message(&inner, value));
            }
            (Ok(inner), _) => {
                self.fields(&inner, rest().map(|(name, value)| (name.as_str(), value)), &mut message);
            }
            // A type of somebody's own: its bytes, which are passed on.
            (Err(_), Some(value)) if rest().count() == 1 => {
                if let Some(ProtoValue::Bytes(bytes)) =
                    self.within("value", |reader| reader.scalar(&FieldKind::Bytes, value))
                {
                    message = bytes.to_vec();
                }
            }
            (Err(_), _) => {
                let meant = nearest_type(url);
                self.within("@type", |reader| reader.misfit(Reason::UnknownType(url.clone(), meant)));
            }
        }
        if !url.is_empty() {
            put_bytes(1, url.as_bytes(), out);
        }
        if !message.is_empty() {
            put_bytes(2, &message, out);
        }
    }

    /// Reads a member.
    fn within<T>(&mut self, member: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&crate::rules::escaped(member));
        let result = read(self);
        self.pointer.truncate(length);
        result
    }

    fn shape(&mut self, given: &Value, wanted: &'static str) {
        self.misfit(Reason::Shape(shown(given), wanted));
    }

    fn misfit(&mut self, reason: Reason) {
        self.misfits.push(Misfit { pointer: self.pointer.clone(), reason });
    }
}

fn one_of(choice: &OneofDescriptor, other: &str) -> Reason {
    Reason::OneOf(choice.name().to_owned(), other.to_owned())
}

/// Whether `null` says something: elsewhere it is as good as nothing.
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        FieldKind::Message(message) => message.full_name() == "google.protobuf.Value" && !field.is_list(),
        FieldKind::Enum(choices) => choices.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

fn is_wrapper(descriptor: &MessageDescriptor) -> bool {
    descriptor.package_name() == "google.protobuf" && descriptor.name().ends_with("Value")
}

/// How the well-known types are written that are one value.
fn own_form(name: &str) -> &'static str {
    match name {
        "google.protobuf.Duration" => "a duration in seconds, such as 1.5s,",
        "google.protobuf.Timestamp" => "a time, such as 2026-01-31T12:00:00Z,",
        "google.protobuf.FieldMask" => "a list of fields with commas between them",
        _ => "another value",
    }
}

/// The type whose name is most alike.
fn nearest_type(url: &str) -> Option<String> {
    let name = url.rsplit('/').next().unwrap_or(url);
    let last = name.rsplit('.').next().unwrap_or(name);
    // Most often the package is another one, or the name is misspelt within the right package.
    let names: Vec<String> = proto::descriptors()
        .all_messages()
        .filter(|message| message.name() == last || is_sibling(message.full_name(), name))
        .map(|message| message.full_name().to_owned())
        .collect();
    let same_name = names.iter().filter(|known| known.rsplit('.').next() == Some(last));
    let mut same_name: Vec<&String> = same_name.filter(|known| known.starts_with("envoy.")).collect();
    match same_name.pop() {
        Some(only) if same_name.is_empty() => Some(format!("did you mean {only:?}?")),
        _ => suggest::did_you_mean(name, &names),
    }
}

fn is_sibling(one: &str, other: &str) -> bool {
    one.rsplit_once('.').map(|(package, _)| package) == other.rsplit_once('.').map(|(package, _)| package)
}

/// Without its content, which may be a secret.
fn shown(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests;
