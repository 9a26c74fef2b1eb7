//! 1. Observe: everything that the control plane learns comes in through a source.
//!
//! Owns: reading files, and turning what proxies report into the set of instances. May use: `report` (as
//! data), `translators::rules`. Never: interprets a rule. Each source holds its whole state in a `watch`
//! channel, so that nothing queues up, and says `synced` once it knows everything that there is.

pub mod files;
pub mod instances;
