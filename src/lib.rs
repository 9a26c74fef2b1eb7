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
pub mod admission;
pub mod app;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod durable;
pub mod envoy;
pub mod escape;
pub mod fold;
pub mod identity;
pub mod pace;
pub mod ports;
pub mod publish;
pub mod report;
pub mod server;
pub mod settled;
pub mod sources;
pub mod stream;
pub mod task;
pub mod telemetry;
pub mod translate;
