//! What each kind and field of the rule language means, as `chancery explain` shows it.
//!
//! Owns: finding a field in the schema of its kind, and what its doc comment says of its default. May use: the schemas of
//! `rules`, `suggest`. Never: knows a field; whatever is said stands with the field's type in `rules`.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::name::ObjectKind;
use crate::rules::schema;
use crate::suggest;

mod example;
mod shape;

use shape::{Language, Member, text_of};

/// A kind, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindSummary {
    /// The kind, as a document writes it.
    pub kind: ObjectKind,
    /// What its objects say.
    pub meaning: String,
}

/// A kind or a field, and all that there is to know of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Where it stands: `TrafficRoute.spec.http.timeout`.
    pub field: String,
    /// What is written there.
    pub r#type: String,
    /// Whether it must be there.
    pub presence: Presence,
    /// What it means, with its unit and its limits.
    pub meaning: String,
    /// What holds where it is left out; `None` for what is required, and for one of several that exclude each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Who decides where it is left out, the first that says anything; `built in` comes last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_from: Vec<String>,
    /// The values that it takes, if they can be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// The fields that it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldSummary>,
    /// A document with it, and with nothing that could be left out.
    pub example: Value,
}

/// Whether a field must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Presence {
    /// It must.
    Required,
    /// It may be left out.
    Optional,
    /// It, or one of those beside it.
    OneOf,
}

/// One of the values that a field takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The value.
    pub value: String,
    /// What it means.
    pub meaning: String,
}

/// A field, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldSummary {
    /// Its name; `*` is any.
    pub name: String,
    /// What is written there.
    pub r#type: String,
    /// Whether it must be there.
    pub presence: Presence,
    /// What it means.
    pub meaning: String,
}

/// What was asked for does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where it was looked for; empty for a kind.
    pub within: String,
    /// What was given.
    pub given: String,
    /// What there is instead.
    pub choices: Vec<String>,
    /// What was meant, if that can be guessed.
    pub hint: Option<String>,
}

/// Every kind, in the order of listings.
pub fn kinds() -> Vec<KindSummary> {
    let summary = |kind| {
        let root = schema::document(kind);
        let meaning = first_sentence(&text_of(Language(&root).shape(&root["properties"]["spec"])));
        KindSummary { kind, meaning }
    };
    ObjectKind::ALL.into_iter().map(summary).collect()
}

/// Explains `KIND` or `KIND.field.field`. Of lists the fields of their items are named; `spec` may be left out, and so may
/// capitals in the kind.
///
/// # Errors
///
/// There is no such kind or field.
pub fn explain(path: &str) -> Result<Explanation, Unknown> {
    let mut names = path.split('.').map(|name| name.trim_end_matches("[]"));
    let given = names.next().unwrap_or_default();
    let kinds = ObjectKind::ALL.map(ObjectKind::as_str);
    let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(given));
    let kind = kind.ok_or_else(|| Unknown::of("", given, kinds.map(str::to_owned).to_vec()))?;
    let root = schema::document(kind);
    let language = Language(&root);
    let document = Member::root(&root);
    let mut path = Vec::new();
    let mut at = document.clone();
    for name in names.filter(|name| !name.is_empty()) {
        let found = language.member(&at, name);
        let (steps, next) = match found {
            Some(next) => (vec![name], next),
            None if path.is_empty() => {
                let spec = language.member(&document, "spec");
                let beneath = spec.and_then(|spec| language.member(&spec, name));
                let choices = || language.spec_and_envelope(&document);
                (vec!["spec", name], beneath.ok_or_else(|| Unknown::of(kind.as_str(), name, choices()))?)
            }
            None => {
                let choices = language.members(&at).into_iter().map(|member| member.name).collect();
                return Err(Unknown::of(&shown(kind, &path), name, choices));
            }
        };
        path.extend(steps);
        at = next;
    }
    Ok(explanation(language, kind, &path, &at))
}

/// Every field of `kind`, as [`explain`] takes it.
pub fn every_field(kind: ObjectKind) -> Vec<String> {
    fn beneath(language: Language<'_>, at: &Member<'_>, path: &str, found: &mut Vec<String>) {
        for member in language.members(at) {
            let path = format!("{path}.{}", member.name);
            found.push(path.clone());
            beneath(language, &member, &path, found);
        }
    }
    let root = schema::document(kind);
    let mut found = Vec::new();
    beneath(Language(&root), &Member::root(&root), kind.as_str(), &mut found);
    found
}

fn explanation(language: Language<'_>, kind: ObjectKind, path: &[&str], at: &Member<'_>) -> Explanation {
    // A kind is explained by what its objects say.
    let spec = language.member(at, "spec").filter(|_| path.is_empty());
    let at = spec.as_ref().unwrap_or(at);
    let default = at.default();
    let summary = |member: &Member<'_>| FieldSummary {
        name: member.name.clone(),
        r#type: language.type_of(member.schema),
        presence: member.presence,
        meaning: first_sentence(&member.meaning),
    };
    Explanation {
        field: shown(kind, path),
        r#type: language.type_of(at.schema),
        presence: at.presence,
        meaning: if path.is_empty() { text_of(language.shape(at.schema)) } else { at.meaning.clone() },
        default_from: default.iter().flat_map(|_| origins(at)).collect(),
        default,
        choices: language.choices(at.schema),
        fields: language.members(at).iter().map(summary).collect(),
        example: example::sample(language, language.0, path),
    }
}

/// Who decides where a field is left out, before what is built in.
fn origins(at: &Member<'_>) -> Vec<String> {
    let mut origins: Vec<String> = at.ladder.iter().cloned().collect();
    let above = at.above.as_ref().and_then(|field| explain(field).ok());
    let Some(above) = above else {
        origins.push("built in".to_owned());
        return origins;
    };
    origins.push(above.field);
    match (above.default_from.as_slice(), above.default) {
        ([built_in], Some(default)) => origins.push(format!("{built_in}: {default}")),
        (further, _) => origins.extend_from_slice(further),
    }
    origins
}

fn shown(kind: ObjectKind, path: &[&str]) -> String {
    [&[kind.as_str()], path].concat().join(".")
}

/// A text up to its first full stop, which is not part of it.
fn first_sentence(text: &str) -> String {
    text.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

// === impl Unknown ===

impl Unknown {
    fn of(within: &str, given: &str, choices: Vec<String>) -> Self {
        let hint = suggest::did_you_mean(given, &choices);
        Self { within: within.to_owned(), given: given.to_owned(), choices, hint }
    }
}

impl std::error::Error for Unknown {}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.within.as_str() {
            "" => write!(f, "there is no kind {:?}", self.given)?,
            within => write!(f, "{within} has no field {:?}", self.given)?,
        }
        if !self.choices.is_empty() {
            write!(f, "; choices: {}", self.choices.join(", "))?;
        }
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}
