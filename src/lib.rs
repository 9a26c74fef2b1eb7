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

// The pipeline.
pub mod sources;

pub mod fold;

pub mod snapshot;
pub mod translate;

pub mod publish;

pub mod stream;

// What comes back.
pub mod report;
pub mod settled;
pub mod telemetry;

// Who a proxy is, and what it may have.
pub mod admission;
pub mod ca;
pub mod identity;
pub mod materials;
pub mod wanted;

// What an operator sees.
pub mod admin;
pub mod cli;
pub mod csds;
pub mod status;

// The process.
pub mod app;
pub mod bell;
pub mod clock;
pub mod config;
pub mod cores;
pub mod descriptors;
pub mod durable;
pub mod escape;
pub mod journal;
pub mod pace;
pub mod server;
pub mod task;

// The demo, and the stock Envoy that it and the tests run.
pub mod demo;
pub mod envoy;
pub mod ports;
