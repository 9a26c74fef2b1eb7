//! A text and its documents, kept so that an edit costs the documents that it touches.
//!
//! Owns: which documents of a text are still those of before. May use: `document`. Never: looks into a document.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Parsed;
use super::document::{self, Held, documents};
use crate::finding::Finding;

/// One text as read: its documents, and what each holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Text {
    documents: Vec<Document>,
}

#[derive(Debug, Clone, PartialEq)]
struct Document {
    text: Arc<str>,
    /// The line of the file on which it starts.
    line: u32,
    held: Held,
}

/// Reads a text: YAML with any number of documents, or JSON.
pub fn parse(file: &str, text: &str) -> Parsed {
    parse_from(file, text, 1)
}

/// Reads a text whose first line is line `line` of the file: a last good form, for example.
pub fn parse_from(file: &str, text: &str, line: u32) -> Parsed {
    Text::default().edited_from(file, text, line).map(|(text, _)| text.parsed()).unwrap_or_default()
}

// === impl Text ===

impl Text {
    /// What `text` holds, given that `self` is how the same `file` was before, and how many documents had to be
    /// parsed for it; `None` if it holds the same at the same places. A document that stands as it stood is the same
    /// allocation; one that has only moved is shifted.
    pub fn edited(&self, file: &str, text: &str) -> Option<(Self, usize)> {
        self.edited_from(file, text, 1)
    }

    fn edited_from(&self, file: &str, text: &str, line: u32) -> Option<(Self, usize)> {
        let file: Arc<str> = file.into();
        let former = &self.documents;
        let now = documents(text);
        let same = |(former, (_, text)): &(&Document, &(u32, &str))| *former.text == **text;
        let head = former.iter().zip(&now).take_while(same).count();
        let tail = former[head..].iter().rev().zip(now[head..].iter().rev()).take_while(same).count();
        let between = &former[head..former.len() - tail];
        let moved: BTreeMap<&str, &Document> = between.iter().map(|document| (&*document.text, document)).collect();

        let (mut parsed, mut changed) = (0, former.len() != now.len());
        let rest = now.len() - tail;
        let document = |(index, (before, text)): (usize, &(u32, &str))| {
            let line = line.saturating_add(*before);
            let kept = match index {
                _ if index < head => former.get(index),
                _ if index >= rest => former.get(index + former.len() - now.len()),
                _ => moved.get(text).copied(),
            };
            changed |= kept.is_none_or(|kept| kept.line != line);
            kept.map(|kept| kept.at(line)).unwrap_or_else(|| {
                parsed += 1;
                let text: Arc<str> = (*text).into();
                Document { held: document::read(&file, &text, line), text, line }
            })
        };
        let documents = now.iter().enumerate().map(document).collect();
        changed.then_some((Self { documents }, parsed))
    }

    /// What it holds.
    pub fn parsed(&self) -> Parsed {
        let mut parsed = Parsed::default();
        for document in &self.documents {
            match &document.held {
                Held::Nothing => {}
                Held::Object(object) => parsed.objects.push(Arc::clone(object)),
                Held::Broken(broken) => {
                    parsed.findings.push(Finding::clone(&broken.finding));
                    parsed.broken.push(broken.key.clone());
                }
            }
        }
        parsed
    }
}

// === impl Document ===

impl Document {
    /// The same document on another line.
    fn at(&self, line: u32) -> Self {
        let text = Arc::clone(&self.text);
        let held = if self.line == line { self.held.clone() } else { self.held.shifted(self.line, line) };
        Self { text, line, held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> String {
        format!(
            "---\napiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{name: http, port: 80, protocol: http}}]}}\n"
        )
    }

    fn edited(former: &Text, text: &str) -> (Text, usize) {
        former.edited("f", text).expect("it is another one")
    }

    #[test]
    fn an_edit_parses_what_it_touches_and_shifts_what_it_moves() {
        let names: Vec<String> = (0..100).map(|n| format!("s-{n}")).collect();
        let documents: Vec<String> = names.iter().map(|name| service(name)).collect();
        let (first, parsed) = edited(&Text::default(), &documents.concat());
        assert_eq!(parsed, 100);
        assert_eq!(first.edited("f", &documents.concat()), None);

        let mut edited = documents.clone();
        edited[50] = edited[50].replace("80", "81");
        edited[40] = edited[40].replace("ports:", "prots:");
        let (second, parsed) = self::edited(&first, &edited.concat());
        assert_eq!(parsed, 2);
        let same = |(old, new): (&Document, &Document)| match (&old.held, &new.held) {
            (Held::Object(old), Held::Object(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        assert_eq!(first.documents.iter().zip(&second.documents).filter(|pair| same(*pair)).count(), 98);

        // A comment before everything moves all of it, the broken one too; the last two change places.
        edited.swap(98, 99);
        edited.insert(0, "# a comment\n".to_owned());
        let text = edited.concat();
        let (third, parsed) = self::edited(&second, &text);
        assert_eq!(parsed, 0);
        assert_eq!(third, self::edited(&Text::default(), &text).0);
        assert_eq!(third.parsed(), parse("f", &text));

        let (_, parsed) = self::edited(&third, &edited[..60].concat());
        assert_eq!(parsed, 0, "documents that go are not parsed");
    }
}
