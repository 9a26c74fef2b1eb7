//! Locality: where proxies and endpoints are, and whom callers prefer for it.
//!
//! Owns: the priorities of endpoints as callers of one place see them. May use: `name`. Never: Envoy's types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sourced;
use crate::name::{Label, RuleRef};

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Locality {
    /// The region; never empty.
    pub region: String,
    /// The zone within it; empty is not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The part of the zone; empty is not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subzone: String,
}

/// Which endpoints callers prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// Those of the caller's own zone, then those of its region.
    Zone,
    /// Those of the caller's own region.
    Region,
    /// None.
    None,
}

/// Where callers go from one region before they go anywhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failover {
    /// The region of the callers.
    #[schemars(example = &"north")]
    pub from: String,
    /// The region of the endpoints.
    #[schemars(example = &"south")]
    pub to: String,
}

/// How callers choose by where endpoints are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearness {
    /// Which endpoints they prefer.
    pub prefer: Sourced<Prefer>,
    /// Where they go after their own region, in this order.
    pub failover: Sourced<Vec<Failover>>,
    /// How many times what is healthy counts, in hundredths: with 140, less than 1 of 1.4 moves requests on.
    pub overprovisioning: Sourced<u32>,
}

/// From where callers see endpoints: all of them see the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vantage {
    /// The namespace of the callers, where their calls are made in a way of their own.
    pub consumer: Option<Label>,
    /// Where they are, as far as it matters; `None` is not known.
    pub place: Option<Locality>,
}

// === impl Locality ===

impl Locality {
    /// The region, and the zone where that is known, alone.
    pub fn zone(&self) -> Self {
        Self { subzone: String::new(), ..self.clone() }
    }

    /// The region alone.
    pub fn region(&self) -> Self {
        Self { region: self.region.clone(), zone: String::new(), subzone: String::new() }
    }

    fn is_same_zone(&self, other: &Self) -> bool {
        !self.zone.is_empty() && (&self.region, &self.zone) == (&other.region, &other.zone)
    }
}

// === impl Nearness ===

impl Default for Nearness {
    /// Every built-in default.
    fn default() -> Self {
        Self {
            prefer: Sourced::built_in(Prefer::None),
            failover: Sourced::built_in(Vec::new()),
            overprovisioning: Sourced::built_in(140),
        }
    }
}

impl Nearness {
    /// From where a caller of the namespace `consumer` that is at `place` sees endpoints; `None` where it makes no
    /// difference.
    pub fn vantage(&self, consumer: Option<&Label>, place: Option<&Locality>) -> Option<Vantage> {
        let place = match self.prefer.value {
            Prefer::None => return None,
            Prefer::Region => place.map(Locality::region),
            Prefer::Zone => place.map(Locality::zone),
        };
        Some(Vantage { consumer: consumer.cloned(), place })
    }

    /// The rank of an endpoint for callers at `place`: those of a lower one get requests as long as they are well.
    /// Whoever does not know where it is prefers none.
    pub fn rank(&self, place: Option<&Locality>, endpoint: Option<&Locality>) -> usize {
        let Some(place) = place else { return 0 };
        let routes = || self.failover.value.iter().filter(|failover| failover.from == place.region);
        let rest = || 2 + routes().count();
        let Some(endpoint) = endpoint else { return rest() };
        if self.prefer.value == Prefer::Zone && place.is_same_zone(endpoint) {
            0
        } else if place.region == endpoint.region {
            1
        } else {
            routes().position(|failover| failover.to == endpoint.region).map_or_else(rest, |n| 2 + n)
        }
    }

    /// Where the values come from that are not built in.
    pub fn origins(&self) -> impl Iterator<Item = &RuleRef> {
        let origins = [&self.prefer.origin, &self.failover.origin, &self.overprovisioning.origin];
        origins.into_iter().flatten()
    }

    /// Whether nobody says anything.
    pub(super) fn is_built_in(&self) -> bool {
        self.origins().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(region: &str, zone: &str) -> Locality {
        Locality { region: region.into(), zone: zone.into(), subzone: String::new() }
    }

    #[test]
    fn callers_go_to_their_zone_their_region_the_list_and_the_rest() {
        let failover = |from: &str, to: &str| Failover { from: from.into(), to: to.into() };
        let list = vec![failover("b", "a"), failover("a", "c"), failover("a", "b")];
        let nearness = |prefer| Nearness {
            prefer: Sourced::built_in(prefer),
            failover: Sourced::built_in(list.clone()),
            ..Nearness::default()
        };
        let endpoints = [at("a", "1"), at("a", "2"), at("a", ""), at("c", "1"), at("b", "1"), at("d", "1")];
        let ranks = |prefer, place: Option<&Locality>| {
            let ranked = endpoints.iter().map(Some).chain([None]);
            ranked.map(|endpoint| nearness(prefer).rank(place, endpoint)).collect::<Vec<_>>()
        };
        assert_eq!(ranks(Prefer::Zone, Some(&at("a", "1"))), [0, 1, 1, 2, 3, 4, 4]);
        assert_eq!(ranks(Prefer::Zone, Some(&at("a", ""))), [1, 1, 1, 2, 3, 4, 4]);
        assert_eq!(ranks(Prefer::Region, Some(&at("a", "1"))), [1, 1, 1, 2, 3, 4, 4]);
        assert_eq!(ranks(Prefer::Region, Some(&at("d", ""))), [2, 2, 2, 2, 2, 1, 2]);
        assert_eq!(ranks(Prefer::Zone, None), [0; 7]);
    }
}
