//! A text becomes objects: documents are taken apart first, so that a broken one stays alone.
//!
//! Owns: document markers, the YAML parser and its limits, reading the envelope. May use: the kinds. Never:
//! panics, or looks at two documents together.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::envelope::{API_VERSION, Document, Metadata};
use super::mistake::Mistake;
use super::node::{self, Node, Place, Value};
use super::{Object, Spec};
use crate::finding::{Code, Finding, Location, Severity};
use crate::name::{Label, ObjectKey, ObjectKind, QualifiedName};
use crate::suggest;

/// How deep a document may nest: a bound here is a bound on every recursion. A route of Envoy's own with the policy of
/// a filter within its listener takes 30.
const DEPTH: usize = 48;

/// What one document holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Held {
    /// Nothing that counts.
    Nothing,
    /// An object.
    Object(Arc<Object>),
    /// What could not be read.
    Broken(Arc<Broken>),
}

/// Reads one document of `file` that starts on line `line`.
pub(super) fn read(file: &Arc<str>, text: &Arc<str>, line: u32) -> Held {
    match (Source { file, text, line }).object() {
        Ok(Some(object)) => Held::Object(Arc::new(object)),
        Ok(None) => Held::Nothing,
        Err(broken) => Held::Broken(Arc::new(broken)),
    }
}

/// The documents of a text, each with the lines before it. A marker line opens its document.
pub(super) fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut at = 0;
    for (number, line) in (0u32..).zip(text.split_inclusive('\n')) {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && at > start {
            documents.push((start_line, &text[start..at]));
            (start, start_line) = (at, number);
        }
        at += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, text)| !is_empty(text));
    documents
}

/// Whether a document is nothing but markers, directives, comments and blanks.
fn is_empty(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').lines().all(|line| {
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
        rest.is_empty() || rest.starts_with('#') || line.starts_with('%')
    })
}

/// One document.
struct Source<'a> {
    file: &'a Arc<str>,
    text: &'a Arc<str>,
    /// The line of the file on which the document starts.
    line: u32,
}

/// A document that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Broken {
    pub(super) key: Option<ObjectKey>,
    pub(super) finding: Box<Finding>,
}

/// Where each pointer stands in a document. Hardly any object is ever asked, so its text is looked through again when
/// the first question comes.
#[derive(Debug, Clone, Default, Eq)]
pub(super) struct Places(OnceLock<Arc<BTreeMap<String, Place>>>);

// === impl Held ===

impl Held {
    /// The same where the document has moved from line `from` to line `to`.
    pub(super) fn shifted(&self, from: u32, to: u32) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Object(object) => Self::Object(Arc::new(Object { line: to, ..Object::clone(object) })),
            Self::Broken(broken) => {
                let mut broken = Broken::clone(broken);
                if let Some(location) = &mut broken.finding.location {
                    location.line = location.line.saturating_sub(from).saturating_add(to);
                }
                Self::Broken(Arc::new(broken))
            }
        }
    }
}

// === impl Places ===

impl Places {
    /// The place of the nearest ancestor of `pointer` that was written in `text`.
    pub(super) fn nearest(&self, text: &str, pointer: &str) -> Place {
        // What could be read once can be read again.
        let places = self.0.get_or_init(|| Arc::new(tree(text).map(|tree| tree.places()).unwrap_or_default()));
        nearest(places, pointer)
    }
}

impl PartialEq for Places {
    /// They follow from the text.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

// === impl Source ===

impl Source<'_> {
    fn object(&self) -> Result<Option<Object>, Broken> {
        let tree = self.tree()?;
        if matches!(tree.value, Value::Null) {
            return Ok(None);
        }
        let Value::Map(_) = tree.value else {
            return Err(self.broken(
                tree.place,
                Code::Syntax,
                "",
                "a document is a mapping with apiVersion, kind, metadata and spec",
            ));
        };
        self.api_version(&tree)?;
        let kind = self.kind(&tree)?;
        let key = key(&tree, kind);
        let (metadata, spec) = match kind {
            ObjectKind::Mesh => self.typed(&tree, key.as_ref(), Spec::Mesh)?,
            ObjectKind::MeshService => self.typed(&tree, key.as_ref(), Spec::MeshService)?,
            ObjectKind::Workload => self.typed(&tree, key.as_ref(), Spec::Workload)?,
            ObjectKind::EdgeGateway => self.typed(&tree, key.as_ref(), Spec::EdgeGateway)?,
            ObjectKind::TLSCertificate => self.typed(&tree, key.as_ref(), Spec::TLSCertificate)?,
            ObjectKind::EnvoySnapshot => self.typed(&tree, key.as_ref(), Spec::EnvoySnapshot)?,
            ObjectKind::TrafficRoute => self.typed(&tree, key.as_ref(), Spec::TrafficRoute)?,
            ObjectKind::TrafficPolicy => self.typed(&tree, key.as_ref(), |spec| Spec::TrafficPolicy(Box::new(spec)))?,
            ObjectKind::MTLSPolicy => self.typed(&tree, key.as_ref(), Spec::MTLSPolicy)?,
            ObjectKind::AccessPolicy => self.typed(&tree, key.as_ref(), Spec::AccessPolicy)?,
            ObjectKind::TelemetryPolicy => {
                self.typed(&tree, key.as_ref(), |spec| Spec::TelemetryPolicy(Box::new(spec)))?
            }
            ObjectKind::EnvoyPatch => self.typed(&tree, key.as_ref(), Spec::EnvoyPatch)?,
        };
        Ok(Some(Object {
            key: ObjectKey::new(kind, QualifiedName::new(metadata.namespace, metadata.name)),
            labels: metadata.labels,
            annotations: metadata.annotations,
            spec,
            file: Arc::clone(self.file),
            text: Arc::clone(self.text),
            line: self.line,
            places: Places::default(),
        }))
    }

    fn tree(&self) -> Result<Node, Broken> {
        tree(self.text).map_err(|error| {
            let place = error.location().map_or((1, 1), |location| node::place(&location));
            let message = error.render_with_options(serde_saphyr::render_options! {
                formatter: &serde_saphyr::UserMessageFormatter,
                snippets: serde_saphyr::SnippetMode::Off,
            });
            let message = message.split(" at line ").next().unwrap_or_default().replace('\n', " ");
            self.broken(place, Code::Syntax, "", &lower_first(&message))
        })
    }

    fn api_version(&self, tree: &Node) -> Result<(), Broken> {
        match tree.member("apiVersion") {
            Some(node) if node.as_str() == Some(API_VERSION) => Ok(()),
            Some(node) => Err(self
                .broken(node.place, Code::UnknownKind, "/apiVersion", "this apiVersion does not exist")
                .choices([API_VERSION])),
            None => Err(self
                .broken(tree.place, Code::MissingField, "", "missing field \"apiVersion\"")
                .choices([API_VERSION])),
        }
    }

    fn kind(&self, tree: &Node) -> Result<ObjectKind, Broken> {
        let kinds = ObjectKind::ALL.map(ObjectKind::as_str);
        let Some(node) = tree.member("kind") else {
            return Err(self.broken(tree.place, Code::MissingField, "", "missing field \"kind\"").choices(kinds));
        };
        let given = node.as_str().unwrap_or_default();
        ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == given).ok_or_else(|| {
            let mut broken =
                self.broken(node.place, Code::UnknownKind, "/kind", "this kind does not exist").choices(kinds);
            broken.finding.hint = suggest::did_you_mean(given, &kinds);
            broken
        })
    }

    fn typed<S: DeserializeOwned>(
        &self,
        tree: &Node,
        key: Option<&ObjectKey>,
        spec: impl FnOnce(S) -> Spec,
    ) -> Result<(Metadata, Spec), Broken> {
        match serde_path_to_error::deserialize::<_, Document<S>>(tree) {
            Ok(document) => Ok((document.metadata, spec(document.spec))),
            Err(error) => {
                let pointer = pointer(error.path());
                Err(self.mistaken(tree, key, pointer, error.into_inner()))
            }
        }
    }

    fn mistaken(&self, tree: &Node, key: Option<&ObjectKey>, pointer: String, mistake: Mistake) -> Broken {
        let (pointer, place) = match &mistake {
            Mistake::UnknownField { field, .. } => {
                let parent = pointer.strip_suffix(&format!("/{}", node::escaped(field))).unwrap_or(&pointer);
                (format!("{parent}/{}", node::escaped(field)), tree.key_place(parent, field))
            }
            _ => (pointer, None),
        };
        let place = place.unwrap_or_else(|| nearest(&tree.places(), &pointer));
        let unquoted = matches!(mistake, Mistake::Unquoted(_));
        let mut finding = mistake.finding(key, pointer).at(Some(self.location(place)));
        if let (true, Some(word)) = (unquoted, self.word(place)) {
            finding.hint = Some(format!("quote it: \"{word}\""));
        }
        Broken { key: key.cloned(), finding: Box::new(finding) }
    }

    fn broken(&self, place: Place, code: Code, pointer: &str, message: &str) -> Broken {
        let key = guessed(self.text);
        let finding = Finding {
            code,
            severity: Severity::Error,
            object: key.clone(),
            pointer: pointer.to_owned(),
            message: message.to_owned(),
            choices: Vec::new(),
            hint: None,
            location: Some(self.location(place)),
        };
        Broken { key, finding: Box::new(finding) }
    }

    /// The plain scalar at `place`, as written.
    fn word(&self, (line, column): Place) -> Option<&str> {
        let line = self.text.lines().nth(line as usize - 1)?;
        let (start, _) = line.char_indices().nth(column as usize - 1)?;
        line[start..].split([',', ']', '}', ' ', '\t']).next().filter(|word| !word.is_empty())
    }

    fn location(&self, place: Place) -> Location {
        let (line, column) = placed(place, self.line);
        Location { file: Arc::clone(self.file), line, column }
    }
}

// === impl Broken ===

impl Broken {
    fn choices<const N: usize>(mut self, choices: [&str; N]) -> Self {
        self.finding.choices = choices.map(str::to_owned).to_vec();
        self
    }
}

/// The tree of the text of one document.
fn tree(text: &str) -> Result<Node, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 2_000_000, max_events: 6_000_000, max_depth: DEPTH, flow_nesting_limit: DEPTH },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// The place of the nearest ancestor of `pointer` that exists.
fn nearest(places: &BTreeMap<String, Place>, pointer: &str) -> Place {
    let mut pointer = pointer;
    loop {
        if let Some(place) = places.get(pointer) {
            return *place;
        }
        match pointer.rfind('/') {
            Some(end) => pointer = &pointer[..end],
            None => return (1, 1),
        }
    }
}

/// The place in a file of a place in a document that starts on line `first`.
pub(super) fn placed((line, column): Place, first: u32) -> Place {
    (line.saturating_add(first.saturating_sub(1)), column)
}

/// The object's key, when the envelope says it.
fn key(tree: &Node, kind: ObjectKind) -> Option<ObjectKey> {
    let label = |name| tree.member("metadata")?.member(name)?.as_str()?.parse::<Label>().ok();
    Some(ObjectKey::new(kind, QualifiedName::new(label("namespace")?, label("name")?)))
}

/// The key of a document that is not even YAML, from lines that look like its envelope.
fn guessed(text: &str) -> Option<ObjectKey> {
    let after = |line: &str, field: &str| {
        let (_, rest) = line.split_once(&format!("{field}:"))?;
        let word: String = rest.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        (!word.is_empty()).then_some(word)
    };
    let kind = text.lines().find_map(|line| after(line.strip_prefix("kind").map(|_| line)?, "kind"))?;
    let kind = ObjectKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let metadata: Vec<&str> = {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("metadata:"));
        let first = lines.next()?;
        std::iter::once(first).chain(lines.take_while(|line| line.starts_with([' ', '\t']))).collect()
    };
    let label = |field| metadata.iter().find_map(|line| after(line, field))?.parse::<Label>().ok();
    Some(ObjectKey::new(kind, QualifiedName::new(label("namespace")?, label(" name").or_else(|| label("{name"))?)))
}

/// A path as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", node::escaped(key)),
            Segment::Enum { variant } => format!("/{}", node::escaped(variant)),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// The text as it stands within a sentence; a first word in capitals stays.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
