//! Further certificates: one more for the identity that a workload has already.
//!
//! Owns: that nobody but the issuer says who a workload is. May use: `ca::leaf`, `ca::store`. Never: stores what it
//! issues.

use std::path::Path;
use std::time::SystemTime;

use translators::name::{QualifiedName, SpiffeId};

use super::authority::Authority;
use super::leaf::{self, IssueError, Leaf, Profile};
use super::store::LeafStore;

/// A certificate of its own for one more holder of the identity of `workload`, valid as long as those that the issuer
/// makes; `None` where the issuer of the data directory `data_dir` has made none that is valid at `now`.
pub fn certificate(
    authority: &Authority,
    data_dir: &Path,
    workload: &QualifiedName,
    now: SystemTime,
) -> Result<Option<(SpiffeId, Leaf)>, IssueError> {
    let Some(held) = LeafStore::new(data_dir, authority).load(workload, now) else { return Ok(None) };
    let leaf = leaf::issue(authority, Profile::Workload(&held.identity), held.ttl, now)?;
    Ok(Some((held.identity, leaf)))
}
