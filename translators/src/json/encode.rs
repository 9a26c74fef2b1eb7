//! Encoded fields of messages that are known by their descriptors alone.
//!
//! Owns: how a scalar and a `google.protobuf.Value` are encoded; the members of a map in their order. May use: prost,
//! prost-reflect. Never: checks anything.

use prost::encoding::{self, WireType, encode_key, encode_varint};
use prost_reflect::{Kind as FieldKind, Value as ProtoValue};
use serde_json::{Map, Value};

/// Bytes or a message, with its tag.
pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A value without its tag. The kind and the value are those of one field.
pub(super) fn put_scalar(kind: &FieldKind, value: &ProtoValue, out: &mut Vec<u8>) {
    let zigzag = |n: i64| ((n << 1) ^ (n >> 63)) as u64;
    match (kind, value) {
        (_, ProtoValue::Bool(value)) => encode_varint(u64::from(*value), out),
        (FieldKind::Sint32, ProtoValue::I32(value)) => encode_varint(zigzag(i64::from(*value)) & 0xffff_ffff, out),
        (FieldKind::Sint64, ProtoValue::I64(value)) => encode_varint(zigzag(*value), out),
        (FieldKind::Sfixed32, ProtoValue::I32(value)) => out.extend(value.to_le_bytes()),
        (FieldKind::Sfixed64, ProtoValue::I64(value)) => out.extend(value.to_le_bytes()),
        (FieldKind::Fixed32, ProtoValue::U32(value)) => out.extend(value.to_le_bytes()),
        (FieldKind::Fixed64, ProtoValue::U64(value)) => out.extend(value.to_le_bytes()),
        (_, ProtoValue::I32(value) | ProtoValue::EnumNumber(value)) => encode_varint(i64::from(*value) as u64, out),
        (_, ProtoValue::I64(value)) => encode_varint(*value as u64, out),
        (_, ProtoValue::U32(value)) => encode_varint(u64::from(*value), out),
        (_, ProtoValue::U64(value)) => encode_varint(*value, out),
        (_, ProtoValue::F32(value)) => out.extend(value.to_le_bytes()),
        (_, ProtoValue::F64(value)) => out.extend(value.to_le_bytes()),
        (_, ProtoValue::String(text)) => {
            encode_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
        (_, ProtoValue::Bytes(bytes)) => {
            encode_varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
        (_, ProtoValue::Message(_) | ProtoValue::List(_) | ProtoValue::Map(_)) => {}
    }
}

/// The fields of `google.protobuf.Struct`.
pub(super) fn put_struct(members: &Map<String, Value>, out: &mut Vec<u8>) {
    for (name, value) in members {
        let (mut entry, mut encoded) = (Vec::new(), Vec::new());
        put_value(value, &mut encoded);
        put_bytes(1, name.as_bytes(), &mut entry);
        put_bytes(2, &encoded, &mut entry);
        put_bytes(1, &entry, out);
    }
}

/// The fields of `google.protobuf.ListValue`.
pub(super) fn put_list(items: &[Value], out: &mut Vec<u8>) {
    for item in items {
        let mut encoded = Vec::new();
        put_value(item, &mut encoded);
        put_bytes(1, &encoded, out);
    }
}

/// The field of `google.protobuf.Value`.
pub(super) fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => encoding::int32::encode(1, &0, out),
        Value::Number(number) => encoding::double::encode(2, &number.as_f64().unwrap_or_default(), out),
        Value::String(text) => put_bytes(3, text.as_bytes(), out),
        Value::Bool(value) => encoding::bool::encode(4, value, out),
        Value::Object(members) => {
            let mut encoded = Vec::new();
            put_struct(members, &mut encoded);
            put_bytes(5, &encoded, out);
        }
        Value::Array(items) => {
            let mut encoded = Vec::new();
            put_list(items, &mut encoded);
            put_bytes(6, &encoded, out);
        }
    }
}
