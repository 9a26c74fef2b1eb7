//! The command line: one file per subcommand.
//!
//! Owns: arguments, and what a person reads. May use: `admin::view` and whatever a command is about. Never:
//! holds logic that the server needs too.

pub mod client;
pub mod demo;
pub mod edges;
pub mod findings;
pub mod nacks;
pub mod proxies;
pub mod table;
