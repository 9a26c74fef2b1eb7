//! Tests of the protocol: scenarios by number, laws, and the service over a socket.

mod grpc;
mod laws;
mod peer;
mod scenarios;
mod sharing;
mod transports;
