//! The scenarios of the xDS protocol by number, played by a scripted client against the running control plane.
//!
//! They share one control plane, on which each has a node and an EnvoySnapshot of its own.

mod incremental;
mod life;
mod order;
mod reader;
mod reconnect;
mod replicas;
mod status;
mod subscription;
mod warming;
