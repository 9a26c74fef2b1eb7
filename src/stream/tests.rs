//! Tests of the protocol: scenarios by number, laws, the service over a socket, and what fuzzing runs.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod corpus;
pub mod fuzz;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod interests;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod living;
mod model;
mod peer;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod siblings;
#[cfg(test)]
mod transports;
