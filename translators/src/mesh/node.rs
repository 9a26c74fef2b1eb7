//! Nodes: which of them a Workload or an EnvoySnapshot means.
//!
//! Owns: what a match takes, and which of two says more. May use: nothing of this crate. Never: knows who is connected.

use std::collections::BTreeMap;

use serde::Serialize;

/// Which nodes are meant; every part must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NodeMatch {
    /// A pattern for the node id; `*` is any characters.
    pub node_id: Option<String>,
    /// The node's cluster.
    pub node_cluster: Option<String>,
    /// String members of the node's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// How much a match says of the node id: the more, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// Nothing.
    Any,
    /// A pattern of so many characters.
    Pattern(usize),
    /// All of it.
    Exact,
}

// === impl NodeMatch ===

impl NodeMatch {
    /// Whether it takes the node of this id and cluster, whose metadata has these string members.
    pub fn takes<'a>(&self, id: &str, cluster: &str, metadata: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.node_id.as_ref().is_none_or(|pattern| glob(pattern, id))
            && self.node_cluster.as_ref().is_none_or(|only| only == cluster)
            && self.metadata.iter().all(|(key, value)| metadata(key) == Some(value))
    }

    /// Whether it surely takes every node that `other` takes.
    pub fn covers(&self, other: &Self) -> bool {
        let id = match (&self.node_id, &other.node_id) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(pattern), Some(id)) if id.contains('*') => pattern == id,
            (Some(pattern), Some(id)) => glob(pattern, id),
        };
        id && (self.node_cluster.is_none() || self.node_cluster == other.node_cluster)
            && self.metadata.iter().all(|(key, value)| other.metadata.get(key) == Some(value))
    }

    /// How much it says of the node id.
    pub fn precision(&self) -> Precision {
        match &self.node_id {
            None => Precision::Any,
            Some(pattern) if pattern.contains('*') => Precision::Pattern(pattern.chars().count()),
            Some(_) => Precision::Exact,
        }
    }
}

/// Whether `pattern`, in which `*` is any characters, takes the whole of `text`.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The first place of each part leaves most for the others.
    for part in middle.split('*') {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pattern: &str) -> NodeMatch {
        NodeMatch { node_id: Some(pattern.to_owned()), node_cluster: None, metadata: BTreeMap::new() }
    }

    #[test]
    fn a_star_takes_any_characters() {
        for (pattern, text) in
            [("a", "a"), ("*", ""), ("*", "x"), ("cart-*", "cart-v1"), ("*-v*-b", "a-v1-b-v2-b"), ("ü*", "üx")]
        {
            assert!(glob(pattern, text), "{pattern} takes {text}");
        }
        for (pattern, text) in [("a", "b"), ("", "x"), ("cart-*", "car"), ("*-b", "a-bc"), ("a*b", "a")] {
            assert!(!glob(pattern, text), "{pattern} refuses {text}");
        }
    }

    #[test]
    fn a_longer_pattern_says_more_and_the_whole_id_says_most() {
        let any = NodeMatch { node_id: None, ..id("") };
        let ascending = [any, id("*"), id("edge-*"), id("edge-eu-*"), id("e")];
        assert!(ascending.is_sorted_by(|less, more| less.precision() < more.precision()));
    }

    #[test]
    fn a_match_covers_one_that_says_as_much_and_more() {
        let cluster = NodeMatch { node_id: None, node_cluster: Some("c".into()), metadata: BTreeMap::new() };
        let both = NodeMatch { node_cluster: Some("c".into()), ..id("edge-1") };
        let labelled = NodeMatch { metadata: [("k".into(), "v".into())].into(), ..both.clone() };
        for (wide, narrow) in
            [(id("edge-*"), id("edge-1")), (id("*"), id("*")), (cluster.clone(), both.clone()), (both, labelled)]
        {
            assert!(wide.covers(&narrow) && (wide == narrow || !narrow.covers(&wide)), "{wide:?} {narrow:?}");
        }
        // They may have nodes in common, or not.
        assert!(!cluster.covers(&id("edge-1")) && !id("edge-1").covers(&cluster) && !id("e*").covers(&id("*e")));
    }
}
