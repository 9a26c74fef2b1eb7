//! Descriptors: how many files and connections the process may have open.
//!
//! Owns: the soft limit of the process. May use: the system's limits. Never: raises the hard one, or counts what is open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and returns what may be open from now on; `None` where there is no limit.
/// A shell gives 1,024, which a fleet of connections exceeds.
pub fn raise() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}
