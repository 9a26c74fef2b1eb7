//! Locality: where something is, and which endpoints callers prefer for it.
//!
//! Owns: the shape of both. May use: `scalar`. Never: ranks an endpoint.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scalar::Setting;
use crate::mesh::{Failover, Locality, Prefer};

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalitySpec {
    /// The region.
    #[schemars(example = &"north")]
    pub region: String,
    /// The zone within the region; not said by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"north-1")]
    pub zone: Option<String>,
    /// The part of the zone, which proxies are told and no policy looks at; not said by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"rack-7")]
    pub subzone: Option<String>,
}

/// Which endpoints callers prefer by where they are: those of their zone, of their region, of the regions of `failover`, and
/// then the rest. The next get requests only when the former lack healthy endpoints. An endpoint that says nothing of where
/// it is belongs to the rest, and a caller that says nothing of it prefers none. The addresses of `dns` have no locality.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NearnessSpec {
    /// Which come first; `none` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub prefer: Setting<Prefer>,
    /// Where callers of a region go after their own, in this order, before they go anywhere else; nowhere by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("examples" = [[{"from": "north", "to": "south"}]]))]
    pub failover: Setting<Vec<Failover>>,
    /// How many times the healthy share of endpoints counts before requests go to the next ones: with 1.4, up to 28 of 100
    /// may be unhealthy and the others get all; `1.4` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub overprovisioning: Setting<Factor>,
}

/// A factor of 1 or more, with two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor {
    /// In hundredths.
    pub hundredths: u32,
}

// === impl LocalitySpec ===

impl LocalitySpec {
    /// The place.
    pub fn locality(&self) -> Locality {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Locality { region: self.region.clone(), zone: text(&self.zone), subzone: text(&self.subzone) }
    }
}

/// The largest factor: one healthy endpoint of a thousand is enough.
const MOST: u32 = 1000;

// === impl Factor ===

/// A number.
struct FactorVisitor;

fn refused<E: de::Error>(number: impl fmt::Display) -> E {
    E::custom(format!("{number} is no such factor: write a number from 1 to {MOST}, such as 1.4"))
}

impl Visitor<'_> for FactorVisitor {
    type Value = Factor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from 1 to {MOST}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Factor, E> {
        let whole = u32::try_from(number).ok().filter(|number| (1..=MOST).contains(number));
        whole.map(|number| Factor { hundredths: number * 100 }).ok_or_else(|| refused(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Factor, E> {
        u64::try_from(number).map_err(|_| refused(number)).and_then(|number| self.visit_u64(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Factor, E> {
        let hundredths = (number * 100.0).round();
        if !(100.0..=f64::from(MOST) * 100.0).contains(&hundredths) {
            return Err(refused(number));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number of that range")]
        Ok(Factor { hundredths: hundredths as u32 })
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_f64(FactorVisitor)
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.hundredths % 100 {
            0 => serializer.serialize_u32(self.hundredths / 100),
            _ => serializer.serialize_f64(f64::from(self.hundredths) / 100.0),
        }
    }
}

impl JsonSchema for Factor {
    fn schema_name() -> Cow<'static, str> {
        "Factor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 1, "maximum": MOST, "examples": [1.4] })
    }
}
