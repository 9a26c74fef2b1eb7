//! Chancery: an Envoy-compatible xDS control plane.
//!
//! The modules are the pipeline; data flows one way, and what proxies say comes back only through `report`
//! and `telemetry`:
//!
//! ```text
//! sources ──▶ fold ──▶ translate ──▶ publish ──▶ stream ──▶ Envoy
//!                          │                        │
//!                          └─── findings ──▶ report ◀── ACK / NACK / metrics
//! ```

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod envoy;
pub mod escape;
pub mod pace;
pub mod ports;
pub mod publish;
pub mod report;
pub mod task;
pub mod telemetry;
