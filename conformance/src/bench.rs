//! Bench: Chancery beside its peers, in one run.
//!
//! Owns: the servers under test as processes, the load, what is measured and the report. May use: the harness, the
//! `chancery` binary as its users do, Go for one of the peers. Never: takes a fast wrong answer for an answer, or fails
//! for being slow.

pub mod board;
pub mod catalogue;
pub mod credentials;
pub mod fanout;
pub mod fleet;
pub mod floor;
pub mod go;
pub mod lab;
pub mod naive;
pub mod orders;
pub mod outcome;
pub mod process;
pub mod report;
pub mod rules;
pub mod server;
pub mod statistics;
pub mod targets;
pub mod wire;
pub mod workloads;
