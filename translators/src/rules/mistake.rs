//! What can be wrong with a value of the wrong shape, and how it is said.
//!
//! Owns: the structured error of reading a typed value, and its finding. May use: serde, `finding`,
//! `suggest`. Never: parses the text of an error message.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::finding::{Code, Finding, Severity};
use crate::name::ObjectKey;
use crate::suggest;

/// Why a value could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mistake {
    /// A field that does not exist.
    UnknownField { field: String, known: &'static [&'static str] },
    /// A field that is required.
    MissingField(&'static str),
    /// A field that is written twice.
    DuplicateField(&'static str),
    /// A word that is none of the choices.
    UnknownVariant { given: String, variants: &'static [&'static str] },
    /// A mapping that should have exactly one of these members.
    NotOneOf(&'static [&'static str]),
    /// Something else than the word that belongs there.
    NotAWord { given: String, boolean: bool, variants: &'static [&'static str] },
    /// A number or boolean where a string belongs.
    Unquoted(String),
    /// Any other wrong value.
    Invalid(String),
}

// === impl Mistake ===

impl Mistake {
    /// `given` stands where one of `variants` belongs.
    pub(super) fn not_a_variant(given: Unexpected<'_>, variants: &'static [&'static str]) -> Self {
        let boolean = matches!(given, Unexpected::Bool(_));
        Self::NotAWord { given: shown(given), boolean, variants }
    }

    /// The finding; `pointer` is where reading stopped.
    pub(super) fn finding(self, object: Option<&ObjectKey>, pointer: String) -> Finding {
        let (code, message) = match &self {
            Self::UnknownField { field, .. } => (Code::UnknownField, format!("unknown field {field:?}")),
            Self::MissingField(field) => (Code::MissingField, format!("missing field {field:?}")),
            Self::DuplicateField(field) => (Code::Syntax, format!("field {field:?} is written twice")),
            Self::UnknownVariant { given, .. } => (Code::InvalidValue, format!("{given:?} is not a choice")),
            Self::NotOneOf(_) => (Code::InvalidValue, "exactly one of the choices belongs here".to_owned()),
            Self::NotAWord { given, boolean: true, .. } => {
                (Code::QuoteIt, format!("the boolean {given} stands where a word belongs"))
            }
            Self::NotAWord { given, boolean: false, .. } => {
                (Code::InvalidValue, format!("{given} stands where a word belongs"))
            }
            Self::Unquoted(given) => (Code::QuoteIt, format!("{given} stands where a string belongs")),
            Self::Invalid(message) => (Code::InvalidValue, message.clone()),
        };
        let choices: &[&str] = match &self {
            Self::UnknownField { known, .. } => known,
            Self::UnknownVariant { variants, .. } | Self::NotOneOf(variants) | Self::NotAWord { variants, .. } => {
                variants
            }
            Self::MissingField(_) | Self::DuplicateField(_) | Self::Unquoted(_) | Self::Invalid(_) => &[],
        };
        let hint = match &self {
            Self::UnknownField { field: given, .. } | Self::UnknownVariant { given, .. } => {
                suggest::did_you_mean(given, choices)
            }
            Self::NotAWord { boolean: true, variants, .. } if variants.contains(&"disabled") => {
                Some("write disabled".to_owned())
            }
            Self::Unquoted(_) => Some("quote it".to_owned()),
            Self::NotAWord { .. }
            | Self::MissingField(_)
            | Self::DuplicateField(_)
            | Self::NotOneOf(_)
            | Self::Invalid(_) => None,
        };
        Finding {
            code,
            severity: Severity::Error,
            object: object.cloned(),
            pointer,
            message,
            choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
            hint,
            location: None,
        }
    }
}

fn shown(given: Unexpected<'_>) -> String {
    match given {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(value) => format!("the text {value:?}"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// What serde expects, in the words of the language.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "u16" | "a nonzero u16" => "a number from 1 to 65535".to_owned(),
        "a nonzero u32" => "a whole number above 0".to_owned(),
        "u32" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.to_owned(),
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.clone().finding(None, String::new()).message)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Invalid(message.to_string())
    }

    fn invalid_type(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let scalar = matches!(
            given,
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
        );
        if scalar && expected.to_string() == "a string" {
            return Self::Unquoted(match given {
                Unexpected::Bool(value) => format!("the boolean {value}"),
                other => shown(other),
            });
        }
        Self::Invalid(format!("{} stands where {} belongs", shown(given), wanted(expected)))
    }

    fn invalid_value(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Invalid(format!("{} stands where {} belongs", shown(given), wanted(expected)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::Invalid(format!("{length} members stand where {} belongs", wanted(expected)))
    }

    fn unknown_variant(given: &str, variants: &'static [&'static str]) -> Self {
        Self::UnknownVariant { given: given.to_owned(), variants }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownField { field: field.to_owned(), known }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingField(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::DuplicateField(field)
    }
}
