//! Examples: the smallest document in which a field stands.
//!
//! Owns: filling in what a schema requires, and the one field that is asked for. May use: `shape`. Never: a value that the
//! schema does not name as an example of its type, where it names one.

use serde_json::{Map, Value, json};

use super::shape::{Language, alternatives, first_type};

/// The smallest value of `schema` in which the field at `path` stands.
pub(super) fn sample(language: Language<'_>, schema: &Value, path: &[&str]) -> Value {
    let shape = language.shape(schema);
    let named = [schema, shape].into_iter().find_map(|schema| schema["examples"].get(0));
    if let Some(named) = named.filter(|_| path.is_empty()) {
        return named.clone();
    }
    if let Some(value) = shape.get("const") {
        return value.clone();
    }
    if let Some(first) = shape["enum"].get(0) {
        return first.clone();
    }
    if let Some(items) = shape.get("items") {
        return Value::Array(vec![sample(language, items, path)]);
    }
    if let Some(values) = shape.get("additionalProperties").filter(|values| values.is_object()) {
        let (name, rest) = path.split_first().map_or(("name", path), |(name, rest)| (*name, rest));
        let name = if name == "*" { "name" } else { name };
        return json!({ name: sample(language, values, rest) });
    }
    if shape.get("properties").is_some() {
        return object(language, shape, path);
    }
    let mut given = alternatives(shape).map(|one| (one, language.shape(one)));
    let wanted = |shape: &Value| path.first().is_none_or(|name| shape["properties"].get(name).is_some());
    if let Some((one, _)) = given.find(|(_, shape)| wanted(shape)) {
        return sample(language, one, path);
    }
    match first_type(shape) {
        "boolean" => json!(true),
        "integer" | "number" => shape.get("minimum").filter(|least| **least != json!(0)).cloned().unwrap_or(json!(1)),
        "string" => json!("text"),
        _ => json!({}),
    }
}

/// What must be there, and the first name of `path`.
fn object(language: Language<'_>, shape: &Value, path: &[&str]) -> Value {
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut wanted = names(&shape["required"]);
    wanted.extend(path.first().map(|name| (*name).to_owned()));
    let dependent: Vec<String> =
        wanted.iter().flat_map(|name| names(&shape["dependentRequired"][name.as_str()])).collect();
    wanted.extend(dependent);
    // Of several that exclude each other, one.
    let groups: Vec<Vec<String>> =
        shape["anyOf"].as_array().into_iter().flatten().map(|one| names(&one["required"])).collect();
    if !groups.iter().any(|group| group.iter().all(|name| wanted.contains(name))) {
        wanted.extend(groups.into_iter().next().unwrap_or_default());
    }
    let mut filled = Map::new();
    for (name, schema) in
        shape["properties"].as_object().into_iter().flatten().filter(|(name, _)| wanted.contains(name))
    {
        let rest = if path.first() == Some(&name.as_str()) { &path[1..] } else { &[] };
        filled.insert(name.clone(), sample(language, schema, rest));
    }
    Value::Object(filled)
}
