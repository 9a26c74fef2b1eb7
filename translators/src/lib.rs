//! The pure core: rules in, Envoy resources and findings out.
//!
//! Data flows one way: `rules` (what people write) -> `mesh` (resolved and typed, every value with its
//! origin) -> `xds` (Envoy resources). Everything here is total, deterministic, closed and local; the laws
//! are property tests in `tests/`.
//!
//! Owns: the meaning of the rule language. May use: serde, prost, the `proto` crate. Never: a clock, the
//! environment, the file system, randomness, the order of a hash map, tokio, tonic or kube.

pub mod describe;
pub mod explain;
pub mod finding;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod json;
pub mod mesh;
pub mod name;
pub mod resource;
pub mod rules;
mod suggest;
pub mod telemetry_names;
pub mod xds;
pub mod xdstp;
