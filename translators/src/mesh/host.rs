//! Hosts: which of them are meant, and which of two says more.
//!
//! Owns: what a pattern of hosts takes. May use: nothing of this crate. Never: knows who asks.

use std::fmt;

use serde::Serialize;

/// Hosts, in lower case and without port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostMatch {
    /// This one.
    Exact(String),
    /// Those of one or more labels before this, which has no dot at its start.
    Under(String),
    /// Every host.
    Any,
}

// === impl HostMatch ===

impl HostMatch {
    /// Whether every host of `other` is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Under(_), Self::Any) => false,
            (Self::Under(domain), Self::Under(inner)) => domain == inner || is_under(inner, domain),
            (Self::Under(domain), Self::Exact(host)) => is_under(host, domain),
            (Self::Exact(host), other) => matches!(other, Self::Exact(same) if same == host),
        }
    }

    /// The hosts that both take, if there are any: of two patterns that have some in common one covers the other.
    pub fn common<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        match (self.covers(other), other.covers(self)) {
            (true, _) => Some(other),
            (false, true) => Some(self),
            (false, false) => None,
        }
    }
}

/// The most specific one of `patterns` that covers `host`.
pub fn closest<'a>(host: &HostMatch, patterns: impl IntoIterator<Item = &'a HostMatch>) -> Option<&'a HostMatch> {
    let covering = patterns.into_iter().filter(|pattern| pattern.covers(host));
    covering.reduce(|closest, other| if closest.covers(other) { other } else { closest })
}

fn is_under(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// As it is written: `shop.example.com`, `*.example.com` or `*`.
impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Under(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_pattern_is_closest() {
        let exact = |host: &str| HostMatch::Exact(host.into());
        let under = |domain: &str| HostMatch::Under(domain.into());
        let (example, shop) = (under("example.com"), under("shop.example.com"));
        let patterns = [HostMatch::Any, shop.clone(), example.clone(), exact("a.example.com")];
        for (host, wanted) in [
            (exact("a.example.com"), exact("a.example.com")),
            (exact("b.example.com"), example.clone()),
            (exact("shop.example.com"), example.clone()),
            (exact("a.shop.example.com"), shop.clone()),
            (under("eu.shop.example.com"), shop.clone()),
            (exact("example.com"), HostMatch::Any),
            (exact("notexample.com"), HostMatch::Any),
        ] {
            assert_eq!(closest(&host, &patterns), Some(&wanted), "{host}");
        }
        assert_eq!(closest(&HostMatch::Any, &patterns[1..]), None);
        assert_eq!(example.common(&shop), Some(&shop));
        assert_eq!(shop.common(&exact("b.example.com")), None);
    }
}
