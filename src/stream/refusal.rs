//! What a refusal says: which resources, which rules, in words fit to be shown; and which refusals still stand.
//!
//! Owns: reading a proxy's error text. May use: resources. Never: shows a text that may hold a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use translators::finding::holds_key;
use translators::name::RuleRef;
use translators::resource::{Kind, Name, Resource};

use crate::report::Rejection;

/// Longer texts are cut.
const MAX_REASON: usize = 2048;

/// What one stream refuses, oldest first: each until its resource is accepted, has other content or is gone.
#[derive(Debug, Default)]
pub(super) struct Standing(BTreeMap<Kind, Vec<Rejection>>);

// === impl Standing ===

impl Standing {
    /// The refusals of one type.
    pub(super) fn of(&self, kind: Kind) -> &[Rejection] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// Enters a refusal in the place of earlier ones of the same resources.
    pub(super) fn add(&mut self, kind: Kind, rejection: Rejection) {
        self.keep(|of, name| of != kind || !rejection.resources.contains(name));
        self.0.entry(kind).or_default().push(rejection);
    }

    /// Forgets the refusals of all resources but those that `still` holds for; says whether any are left.
    pub(super) fn keep(&mut self, still: impl Fn(Kind, &Name) -> bool) -> bool {
        for (kind, rejections) in &mut self.0 {
            for rejection in rejections.iter_mut() {
                rejection.resources.retain(|name| still(*kind, name));
            }
            rejections.retain(|rejection| !rejection.resources.is_empty());
        }
        self.0.retain(|_, rejections| !rejections.is_empty());
        !self.0.is_empty()
    }
}

/// The text, without what must not be shown.
pub(super) fn reason(kind: Kind, text: &str) -> String {
    if kind == Kind::Secret || holds_key(text) || may_hold_key(text) {
        return "the proxy refused a secret; its own log says why".to_owned();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect()
}

/// Whether so much of it is base64 in one piece that it may be of a key: a line of one has 64 characters, and may be
/// broken.
fn may_hold_key(text: &str) -> bool {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    text.split(|c| !is_base64(c)).filter(|piece| piece.len() >= 32).any(|piece| {
        let has = |of: fn(&u8) -> bool| piece.as_bytes().iter().any(of);
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
    })
}

/// The rules that made these resources, each once, in order.
pub(super) fn rules<'a>(resources: impl IntoIterator<Item = &'a Arc<Resource>>) -> Vec<RuleRef> {
    let rules: BTreeSet<&RuleRef> = resources.into_iter().flat_map(|resource| resource.origins().iter()).collect();
    rules.into_iter().cloned().collect()
}

/// Whether `name` stands in the text as a whole, not as a part of a longer name.
pub(super) fn mentions(text: &str, name: &Name) -> bool {
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
    // A dot or a colon belongs to a name only between two letters: else it ends a phrase.
    let joined = |near: Option<char>, far: Option<char>| match near {
        Some('.' | ':') => far.is_some_and(inner),
        Some(c) => inner(c),
        None => false,
    };
    !name.is_empty()
        && text.match_indices(&**name).any(|(at, found)| {
            let mut before = text[..at].chars().rev();
            let mut after = text[at + found.len()..].chars();
            !joined(before.next(), before.next()) && !joined(after.next(), after.next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_a_whole() {
        for (text, name, expected) in [
            ("Error adding/updating cluster(s) c1: bad", "c1", true),
            ("Error adding/updating cluster(s) c12: bad", "c1", false),
            ("cluster out/shop/cart/http refused", "out/shop/cart", false),
            ("cluster a.b refused", "a", false),
            ("cluster b:80 refused", "b", false),
            ("refused: a.", "a", true),
            ("'a' and 'b'", "b", true),
            ("aa a", "a", true),
            ("", "a", false),
        ] {
            assert_eq!(mentions(text, &name.into()), expected, "{name:?} in {text:?}");
        }
    }

    #[test]
    fn no_reason_shows_a_key_or_breaks_a_line() {
        let generic = "the proxy refused a secret; its own log says why";
        assert_eq!(reason(Kind::Secret, "MIIE"), generic);
        assert_eq!(reason(Kind::Listener, "-----BEGIN PRIVATE KEY-----"), generic);
        let broken = "bad: MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH\nBG0wawIBAQQg";
        assert_eq!(reason(Kind::Listener, broken), generic);
        let shown = "cluster out/shop/cart/http: HttpConnectionManager refused 0123456789abcdef0123456789abcdef";
        assert_eq!(reason(Kind::Listener, shown), shown);
        assert_eq!(reason(Kind::Listener, "a\r\nb"), "a  b");
        assert_eq!(reason(Kind::Listener, &"é".repeat(5000)).chars().count(), MAX_REASON);
    }
}
