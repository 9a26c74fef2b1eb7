//! Certificates: the built-in authorities, the leaves that they sign, and the renewal of workload leaves.
//!
//! Owns: `ca/` in the data directory. May use: `clock`, `durable`, rcgen, `translators` names and resources.
//! Never: knows a protocol, decides who is who, or lets a private key into a log, an error or a `Debug`.

pub mod authority;
pub mod further;
pub mod leaf;
mod remains;
pub mod rotation;
mod store;

pub use authority::{Authorities, Authority, AuthorityError};
pub use leaf::{IssueError, Leaf, Profile};
pub use rotation::{Issuance, Issued, Issuer, Wanted};
