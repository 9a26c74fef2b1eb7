//! Tests of the protocol: scenarios by number, laws, and the service over a socket.

mod bounds;
mod grpc;
mod kinds;
mod laws;
mod living;
mod peer;
mod refusals;
mod scenarios;
mod sharing;
mod siblings;
mod transports;
