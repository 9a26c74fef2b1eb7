//! Harness: real processes on loopback, ended by their id when their value is dropped.
//!
//! Owns: everything that a test of the whole needs: the control plane, Envoys, applications, load, TLS clients, and
//! waiting. May use: the `chancery` binary, a stock Envoy (native, or in docker), free ports. Never: a fixed port, a
//! fixed sleep, or a process that outlives its test.

mod app;
mod background;
mod binary;
pub mod bootstrap;
mod chancery;
mod child;
mod credential;
mod envoy;
pub mod gateway;
mod https;
mod image;
mod kept;
mod load;
mod peer;
mod proxyless;
mod relay;
mod resolver;
mod script;
pub mod shop;
mod tls;
mod wait;

pub use app::{App, Echo, greeting};
pub(crate) use background::Background;
pub use binary::{build_chancery, chancery_binary, root};
pub use chancery::Chancery;
pub use child::Child;
pub use credential::Credential;
pub use envoy::{EnvoyProxy, EnvoySource};
pub use https::Authority;
pub use image::build_image;
pub use kept::kept;
pub use load::{Load, LoadCounts};
pub use peer::{Delta, Peer, Received};
pub use proxyless::{Answered, GrpcClient, Library};
pub use relay::Relay;
pub use resolver::Resolver;
pub use script::{Script, World, kind, written};
pub use tls::{ClientIdentity, TlsConnection};
pub use wait::eventually;
