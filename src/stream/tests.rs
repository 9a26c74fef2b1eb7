//! Tests of the protocol: scenarios by number, laws, and the service over a socket.

mod bounds;
mod grpc;
mod interests;
mod kinds;
mod laws;
mod living;
mod model;
mod peer;
mod refusals;
mod scenarios;
mod sharing;
mod transports;
