//! Findings: a user's mistakes as data, never as an error.
//!
//! Owns: codes, severities and the one line in which a finding is shown. May use: `name`. Never: decides
//! what follows from a finding.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::name::ObjectKey;

/// How bad a finding is: an error keeps its object out, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is not applied as written.
    Error,
    /// The object is applied; somebody should look.
    Warning,
}

/// Stable codes: MX01xx references, MX02xx values, MX03xx conflicts, MX04xx security, MX05xx no effect, MX06xx patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// MX0101: a name refers to nothing.
    NotFound,
    /// MX0102: labels or a version that no endpoint carries.
    NoEndpoints,
    /// MX0200: the text is not YAML, or not one mapping a document.
    Syntax,
    /// MX0201: a field that does not exist.
    UnknownField,
    /// MX0202: a field that is required.
    MissingField,
    /// MX0203: a value that the field does not take.
    InvalidValue,
    /// MX0204: a number or boolean where a string belongs.
    QuoteIt,
    /// MX0205: an apiVersion or kind that does not exist.
    UnknownKind,
    /// MX0206: HTTP rules on a port that does not speak HTTP.
    WrongProtocol,
    /// MX0301: two objects that claim the same thing.
    Conflict,
    /// MX0302: one name defined twice.
    Duplicate,
    /// MX0303: an object that reaches into another namespace.
    Foreign,
    /// MX0401: a rule names callers, but they carry no identity there.
    NoIdentity,
    /// MX0402: several workloads that are no replicas of each other share an identity.
    SharedIdentity,
    /// MX0403: endpoints that are reached by mTLS only, though the mesh knows no proxy of theirs.
    NoProxy,
    /// MX0404: a private key in a resource that is no secret.
    ExposedKey,
    /// MX0405: a certificate of a gateway that cannot be shown, is over or is for other hosts.
    BadCertificate,
    /// MX0406: callers in plaintext where mTLS is strict.
    PlaintextSeen,
    /// MX0407: a port that is called, and that nobody may call.
    Closed,
    /// MX0408: services of a namespace of which no rule says who may call them.
    Unguarded,
    /// MX0501: a rule that can never be reached.
    Unreachable,
    /// MX0502: a rule without effect.
    NoEffect,
    /// MX0503: a retry that may repeat a request that is not idempotent, or a timeout below its tries.
    RiskyRetry,
    /// MX0504: a well-known server-first port that is not declared so.
    ServerFirst,
    /// MX0505: an object of which no connected proxy has anything.
    NotProgrammed,
    /// MX0506: a service that nobody calls.
    NotCalled,
    /// MX0601: a change of a patch that finds nothing to change.
    NothingPatched,
    /// MX0602: a change of a patch that does not fit what Envoy takes, or what it is to change.
    PatchUnfit,
    /// MX0603: a patch for versions of Envoy that there are none of.
    PatchVersions,
    /// MX0604: a patch that changes what protects.
    PatchUnguards,
}

/// A place in a file; both numbers start at 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The file as the source names it.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// One mistake, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind of mistake; stable.
    pub code: Code,
    /// Error or warning.
    pub severity: Severity,
    /// The object, when it could be told.
    pub object: Option<ObjectKey>,
    /// The place in the object, as a JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// The values that would be right, if they can be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where the object stands, when it came from a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// The order in which findings are shown: by place, then by object and pointer.
pub fn by_place(left: &Finding, right: &Finding) -> std::cmp::Ordering {
    let key = |finding: &Finding| (finding.location.clone(), finding.object.clone(), finding.pointer.clone());
    key(left).cmp(&key(right)).then_with(|| left.cmp(right))
}

// === impl Code ===

impl Code {
    /// The code as it is shown: `MX0101`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "MX0101",
            Self::NoEndpoints => "MX0102",
            Self::Syntax => "MX0200",
            Self::UnknownField => "MX0201",
            Self::MissingField => "MX0202",
            Self::InvalidValue => "MX0203",
            Self::QuoteIt => "MX0204",
            Self::UnknownKind => "MX0205",
            Self::WrongProtocol => "MX0206",
            Self::Conflict => "MX0301",
            Self::Duplicate => "MX0302",
            Self::Foreign => "MX0303",
            Self::NoIdentity => "MX0401",
            Self::SharedIdentity => "MX0402",
            Self::NoProxy => "MX0403",
            Self::PlaintextSeen => "MX0406",
            Self::Closed => "MX0407",
            Self::Unguarded => "MX0408",
            Self::Unreachable => "MX0501",
            Self::ExposedKey => "MX0404",
            Self::BadCertificate => "MX0405",
            Self::NoEffect => "MX0502",
            Self::RiskyRetry => "MX0503",
            Self::ServerFirst => "MX0504",
            Self::NotProgrammed => "MX0505",
            Self::NotCalled => "MX0506",
            Self::NothingPatched => "MX0601",
            Self::PatchUnfit => "MX0602",
            Self::PatchVersions => "MX0603",
            Self::PatchUnguards => "MX0604",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

// === impl Location ===

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

// === impl Finding ===

impl Finding {
    /// An error with this code at `pointer` of `object`.
    pub fn error(code: Code, object: &ObjectKey, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, object, pointer, message)
    }

    /// A warning with this code at `pointer` of `object`.
    pub fn warning(code: Code, object: &ObjectKey, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, object, pointer, message)
    }

    fn new(
        code: Code,
        severity: Severity,
        object: &ObjectKey,
        pointer: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            object: Some(object.clone()),
            pointer: pointer.into(),
            message: message.into(),
            choices: Vec::new(),
            hint: None,
            location: None,
        }
    }

    /// The same, with the values that would be right.
    pub fn choices<I: IntoIterator<Item = S>, S: ToString>(mut self, choices: I) -> Self {
        self.choices = choices.into_iter().map(|choice| choice.to_string()).collect();
        self
    }

    /// The same, with what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with its place in a text, as it is shown: without a private key that stands where it does not belong.
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        if holds_key(&self.message) {
            self.message = "a private key stands where it does not belong, and is not shown".to_owned();
        }
        if holds_key(&self.pointer) {
            let members = self.pointer.split('/').map(|member| if holds_key(member) { "..." } else { member });
            self.pointer = members.collect::<Vec<_>>().join("/");
        }
        self.hint = self.hint.filter(|hint| !holds_key(hint));
        self
    }
}

/// Whether a private key in PEM stands in the text, which nobody is shown then.
pub fn holds_key(text: &str) -> bool {
    text.contains("PRIVATE KEY")
}

/// `file:line:column: CODE severity object pointer: message; choices; hint`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{} {}", self.code, self.severity)?;
        if let Some(object) = &self.object {
            write!(f, " {object}")?;
        }
        if !self.pointer.is_empty() {
            write!(f, " {}", self.pointer)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.choices.is_empty() {
            write!(f, "; choices: {}", self.choices.join(", "))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}
