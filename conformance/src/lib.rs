//! Conformance: Chancery against the real peers, never published.
//!
//! Owns: the harness that starts them, and the tests and tools that use it. May use: the `chancery` binary as its
//! users do. Never: reaches into the control plane's own state.

pub mod bench;
pub mod golden;
pub mod harness;
pub mod mutation;
