//! Reading a schema: what stands where, and what is said of it.
//!
//! Owns: references, alternatives, lists and maps of JSON Schema, as far as `schemars` writes them. May use: nothing of
//! `rules`. Never: a message for people that the schema does not hold.

use serde_json::Value;

use super::{Choice, Presence};

/// The schema of a whole document, by which references are followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Language<'a>(pub &'a Value);

/// A field.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    pub name: String,
    /// Its schema, as it stands with what holds it.
    pub schema: &'a Value,
    pub presence: Presence,
    pub meaning: String,
    /// What is said of all that stand beside it.
    group: String,
    /// Which objects decide about it where this one does not.
    pub ladder: Option<String>,
    /// Which field decides where neither does.
    pub above: Option<String>,
}

/// The doc comment of a schema, as one line.
pub(super) fn text_of(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// === impl Language ===

impl<'a> Language<'a> {
    /// What a schema comes to: references followed, and `null` left away.
    pub(super) fn shape(self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        loop {
            let named = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/"));
            let inner = match named {
                Some(name) => Some(&self.0["$defs"][name]),
                None => {
                    let (null, given): (Vec<_>, Vec<_>) = alternatives(schema).partition(|one| one["type"] == "null");
                    (given.len() == 1 && !null.is_empty()).then(|| given[0])
                }
            };
            let Some(inner) = inner else { return schema };
            schema = inner;
        }
    }

    /// The field `name` of `at`, or of its items.
    pub(super) fn member(self, at: &Member<'a>, name: &str) -> Option<Member<'a>> {
        self.members(at).into_iter().find(|member| member.name == name || member.name == "*")
    }

    /// The fields of `at`, or of its items; `*` is any name.
    pub(super) fn members(self, at: &Member<'a>) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        self.collect(self.shape(at.schema), at, None, &mut members);
        members
    }

    /// The fields that may be named right after a kind.
    pub(super) fn spec_and_envelope(self, document: &Member<'a>) -> Vec<String> {
        let spec = self.member(document, "spec");
        let beneath = spec.iter().flat_map(|spec| self.members(spec));
        beneath.chain(self.members(document)).map(|member| member.name).collect()
    }

    fn collect(self, shape: &'a Value, at: &Member<'a>, alternative: Option<&'a Value>, members: &mut Vec<Member<'a>>) {
        let required: Vec<&str> =
            shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, schema) in shape["properties"].as_object().into_iter().flatten() {
            let said = [Some(schema), alternative, Some(self.shape(schema))];
            let presence = match (alternative, required.contains(&name.as_str())) {
                (Some(_), _) => Presence::OneOf,
                (None, true) => Presence::Required,
                (None, false) => Presence::Optional,
            };
            members.push(Member {
                name: name.clone(),
                schema,
                presence,
                meaning: said.into_iter().flatten().map(text_of).find(|text| !text.is_empty()).unwrap_or_default(),
                group: text_of(shape),
                ladder: schema["x-ladder"].as_str().map(str::to_owned).or_else(|| at.ladder.clone()),
                above: (schema["x-default-from"].as_str().map(str::to_owned))
                    .or_else(|| at.above.as_ref().map(|above| format!("{above}.{name}"))),
            });
        }
        if let Some(items) = shape.get("items") {
            self.collect(self.shape(items), at, None, members);
        }
        if let Some(values) = shape.get("additionalProperties").filter(|values| values.is_object()) {
            let inner = self.shape(values);
            let meaning = format!("The value of that name: {}.", self.type_of(values));
            let has_members = alternatives(inner).next().is_some() || inner.get("properties").is_some();
            members.extend(has_members.then(|| Member {
                name: "*".to_owned(),
                schema: values,
                presence: Presence::OneOf,
                meaning: Some(text_of(inner)).filter(|text| !text.is_empty()).unwrap_or(meaning),
                group: String::new(),
                ladder: at.ladder.clone(),
                above: None,
            }));
        }
        for one in alternatives(shape) {
            let inner = self.shape(one);
            let alone = inner["required"].as_array().is_some_and(|required| required.len() == 1);
            self.collect(inner, at, alone.then_some(one), members);
        }
    }

    /// What is written there.
    pub(super) fn type_of(self, schema: &'a Value) -> String {
        let shape = self.shape(schema);
        if let Some(title) = shape["title"].as_str() {
            return title.to_owned();
        }
        if let Some(items) = shape.get("items") {
            return format!("list of {}", self.type_of(items));
        }
        if let Some(values) = shape.get("additionalProperties").filter(|values| values.is_object()) {
            return format!("map from text to {}", self.type_of(values));
        }
        let mut types: Vec<String> = alternatives(shape).map(|one| self.type_of(one)).collect();
        types.dedup();
        if !types.is_empty() {
            return types.join(" or ");
        }
        let (least, most) = (&shape["minimum"], &shape["maximum"]);
        let limits = match (least.is_number(), most.is_number()) {
            (true, true) => format!(", {least} to {most}"),
            (true, false) => format!(", {least} or more"),
            (false, _) => String::new(),
        };
        match first_type(shape) {
            "array" => "list".to_owned(),
            "boolean" => "true or false".to_owned(),
            "integer" => format!("whole number{limits}"),
            "number" => format!("number{limits}"),
            "string" => "text".to_owned(),
            _ => "object".to_owned(),
        }
    }

    /// The values that it takes, if they can be listed.
    pub(super) fn choices(self, schema: &'a Value) -> Vec<Choice> {
        let shape = self.shape(schema);
        let shape = shape.get("items").map_or(shape, |items| self.shape(items));
        let listed = shape["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let listed = listed.map(|value| Choice { value: value.to_owned(), meaning: String::new() });
        let described = alternatives(shape)
            .filter_map(|one| Some(Choice { value: one["const"].as_str()?.to_owned(), meaning: text_of(one) }));
        listed.chain(described).collect()
    }
}

/// The schemas of which one holds.
pub(super) fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let of = |word: &str| {
        schema[word]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one.get("required").is_none() || one.get("properties").is_some())
    };
    of("oneOf").chain(of("anyOf"))
}

/// The type that is not `null`.
pub(super) fn first_type(shape: &Value) -> &str {
    let several = shape["type"].as_array().into_iter().flatten().filter_map(Value::as_str);
    shape["type"].as_str().into_iter().chain(several).find(|one| *one != "null").unwrap_or_default()
}

// === impl Member ===

impl<'a> Member<'a> {
    /// The whole document.
    pub(super) fn root(schema: &'a Value) -> Self {
        let (name, group) = (String::new(), String::new());
        Self { name, schema, presence: Presence::Required, meaning: text_of(schema), group, ladder: None, above: None }
    }

    /// What holds where it is left out, as its doc comment says it, or that of what holds it.
    pub(super) fn default(&self) -> Option<String> {
        match self.presence {
            Presence::Optional => default_said(&self.meaning).or_else(|| default_said(&self.group)),
            Presence::Required | Presence::OneOf => None,
        }
    }
}

/// What a doc comment says of the default: `... by default`, or what happens where it is left out.
fn default_said(text: &str) -> Option<String> {
    let sentences = text.split(". ").map(|sentence| sentence.trim_end_matches('.'));
    let clauses: Vec<&str> = sentences.flat_map(|sentence| sentence.split("; ")).collect();
    let by_default = |clause: &&str| {
        if let Some(rest) = clause.strip_prefix("by default ") {
            return Some(rest.to_owned());
        }
        let piece = clause.split(", ").find(|piece| piece.contains(" by default"))?;
        piece.split(" by default").next().map(|value| value.trim_start_matches("and ").to_owned())
    };
    let left_out = |clause: &&str| {
        let said = clause.contains("left out") || clause.contains("omitted");
        let after = ["left out, ", "omitted, "].iter().find_map(|phrase| clause.split(phrase).nth(1));
        said.then(|| after.unwrap_or(clause).to_owned())
    };
    let said = clauses.iter().find_map(by_default).or_else(|| clauses.iter().find_map(left_out))?;
    let plain = said.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).filter(|inner| !inner.contains('`'));
    Some(plain.map_or(said.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::default_said;

    #[test]
    fn the_default_is_what_the_doc_comment_says() {
        for (text, default) in [
            ("A request as a whole, on http and http2 ports; `15s` by default, `0s` is without limit.", Some("15s")),
            ("Of what is under way; 20 by default.", Some("20")),
            (
                "The port; by default the one that is called, or the only one.",
                Some("the one that is called, or the only one"),
            ),
            ("The callers; left out, anybody.", Some("anybody")),
            ("What a caller does. A part that is left out is anything.", Some("A part that is left out is anything")),
            (
                "Where it comes from; omitted, they are the Workloads that serve it.",
                Some("they are the Workloads that serve it"),
            ),
            ("How long. It is `1h` by default. More.", Some("It is `1h`")),
            ("The path.", None),
        ] {
            assert_eq!(default_said(text).as_deref(), default, "{text}");
        }
    }
}
