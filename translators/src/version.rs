//! Versions of Envoy.
//!
//! Owns: what a version is, and ranges of them as patches write them. May use: serde. Never: knows what a version can do.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A version of Envoy, `1.40`: the last part of its number makes no difference.
///
/// Whatever a node says that it is, it is one of few: nobody makes groups by saying numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvoyVersion {
    major: u32,
    minor: u32,
}

/// Some versions: those for which every condition holds, `>=1.36 <1.42`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionRange(Vec<Condition>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    relation: Relation,
    version: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    AtLeast,
    AtMost,
    Above,
    Below,
    Is,
}

/// Why a text is no range of versions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of versions of Envoy: write >=, >, <=, < or = and MAJOR.MINOR, such as \">=1.36 <1.42\"")]
pub struct InvalidRange(String);

// === impl EnvoyVersion ===

impl EnvoyVersion {
    /// All that are older are alike, and so are all whose version is not known.
    pub const LEAST: Self = Self { major: 1, minor: 30 };
    /// The oldest that is supported.
    pub const OLDEST: Self = Self { major: 1, minor: 36 };
    /// The newest that is known well.
    pub const NEWEST: Self = Self { major: 1, minor: 40 };
    /// All that are newer are alike.
    const MOST: Self = Self { major: 1, minor: 79 };

    /// Envoy `major.minor`.
    pub fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }.clamp(Self::LEAST, Self::MOST)
    }

    /// Those that are supported, from the oldest to the newest.
    pub fn supported() -> impl DoubleEndedIterator<Item = Self> {
        (Self::OLDEST.minor..=Self::NEWEST.minor).map(|minor| Self { major: 1, minor })
    }
}

/// The least.
impl Default for EnvoyVersion {
    fn default() -> Self {
        Self::LEAST
    }
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

// === impl VersionRange ===

impl VersionRange {
    /// Whether `version` is one of them.
    pub fn takes(&self, version: EnvoyVersion) -> bool {
        let version = (version.major, version.minor);
        self.0.iter().all(|condition| match condition.relation {
            Relation::AtLeast => version >= condition.version,
            Relation::AtMost => version <= condition.version,
            Relation::Above => version > condition.version,
            Relation::Below => version < condition.version,
            Relation::Is => version == condition.version,
        })
    }

    /// Whether nothing is said.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for VersionRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRange(text.to_owned());
        let mut conditions = Vec::new();
        let mut rest = text.trim_start_matches([' ', ',']);
        while !rest.is_empty() {
            let signs = [
                (">=", Relation::AtLeast),
                ("<=", Relation::AtMost),
                (">", Relation::Above),
                ("<", Relation::Below),
                ("=", Relation::Is),
            ];
            let relation = signs.into_iter().find_map(|(sign, relation)| Some((relation, rest.strip_prefix(sign)?)));
            let (relation, after) = relation.ok_or_else(invalid)?;
            let after = after.trim_start_matches(' ');
            let end = after.find([' ', ',', '<', '>', '=']).unwrap_or(after.len());
            let (major, minor) = after[..end].split_once('.').ok_or_else(invalid)?;
            let number = |digits: &str| {
                let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
                digits.parse().ok().filter(|_| plain).ok_or_else(invalid)
            };
            conditions.push(Condition { relation, version: (number(major)?, number(minor)?) });
            rest = after[end..].trim_start_matches([' ', ',']);
        }
        if conditions.is_empty() { Err(invalid()) } else { Ok(Self(conditions)) }
    }
}

/// As it can be written; nothing for every version.
impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Condition { relation, version: (major, minor) }) in self.0.iter().enumerate() {
            let sign = match relation {
                Relation::AtLeast => ">=",
                Relation::AtMost => "<=",
                Relation::Above => ">",
                Relation::Below => "<",
                Relation::Is => "=",
            };
            let between = if index == 0 { "" } else { " " };
            write!(f, "{between}{sign}{major}.{minor}")?;
        }
        Ok(())
    }
}

impl Serialize for VersionRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> VersionRange {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_range_takes_what_every_condition_takes() {
        let versions = |text: &str| -> Vec<u32> {
            let range = range(text);
            (34..43).filter(|minor| range.takes(EnvoyVersion::new(1, *minor))).collect()
        };
        for (text, taken) in [
            (">=1.36 <1.38", vec![36, 37]),
            (">=1.36,<1.38", vec![36, 37]),
            (" > 1.40, ", vec![41, 42]),
            ("<=1.34", vec![34]),
            ("=1.38", vec![38]),
            (">=1.36<1.37", vec![36]),
            (">=2.0", vec![]),
            ("<2.0 >=1.41", vec![41, 42]),
        ] {
            assert_eq!(versions(text), taken, "{text}");
            assert_eq!(range(&range(text).to_string()), range(text));
        }
    }

    #[test]
    fn what_is_no_range_is_said() {
        for text in ["", " ", ",", "1.36", ">=1", ">=1.x", ">=1.36.2", "=>1.36", ">=1.+3", "1.36 - 1.40", "~1.36", ">="]
        {
            assert!(text.parse::<VersionRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn whatever_is_said_is_one_of_few() {
        let said = [(0, 0), (0, u32::MAX), (1, 29), (1, 30), (1, 31), (1, 80), (1, u32::MAX), (2, 0), (u32::MAX, 1)];
        let versions = said.map(|(major, minor)| EnvoyVersion::new(major, minor).to_string());
        assert_eq!(versions, ["1.30", "1.30", "1.30", "1.30", "1.31", "1.79", "1.79", "1.79", "1.79"]);
    }
}
