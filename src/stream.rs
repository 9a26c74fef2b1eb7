//! 5. Stream: the xDS protocol.
//!
//! Owns: what a proxy is sent next, and what its answers mean. [`session`] is the protocol as a plain value;
//! [`service`] is the gRPC services around it, whose response bodies are shared bytes: those of the resources, or of a
//! whole frame that a [`Group`] of streams is sent. Whoever asks once or polls over plain HTTP is answered by a session
//! that lives for one request.
//! May use: `publish` and `report`. Never: decides what a group of proxies is to hold, or who a proxy is
//! (that is a [`Directory`]'s).

mod board;
mod body;
mod delta;
mod fetch;
mod frame;
mod gate;
mod group;
mod heartbeat;
mod interest;
mod limits;
mod lobby;
mod methods;
mod names;
mod news;
mod node;
mod poll;
mod pollers;
mod pulse;
mod push;
mod refusal;
mod refused;
mod request;
mod respond;
mod rest;
pub mod service;
pub mod session;
mod shelf;
mod sotw;
mod stance;
mod status;
mod subscription;
mod types;
mod warmth;

pub use group::Group;
pub use limits::{Limits, about};
pub use lobby::Lobby;
pub use methods::services;
pub use node::{Client, is_proxyless};
pub use pulse::Pulse;
pub use request::Request;
pub use rest::status_code;
pub use service::{Admission, Directory, Refusal, Service};
pub use session::{Answer, Fault, Outcome, Protocol, Response, Session};

#[cfg(any(test, fuzzing))]
mod tests;

#[cfg(fuzzing)]
pub use tests::fuzz;
