//! Instances: the connected proxies that serve, as the mesh sees them.
//!
//! Owns: the instance, and the map in which those of one workload stand together. May use: `name`. Never: knows when a
//! proxy becomes an instance or stops being one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::name::QualifiedName;

/// A connected proxy that serves: an endpoint of what its workload serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its workload.
    pub workload: QualifiedName,
    /// Its node id.
    pub node: String,
    /// Its own address, for listeners on a wildcard address.
    pub address: IpAddr,
    /// The inbound listeners that it has accepted at least once, by resource name.
    pub listeners: BTreeSet<String>,
    /// Whether it has ever accepted a certificate; from then on callers use mTLS where the mode allows it.
    pub has_certificate: bool,
}

/// A workload and the node id of one of its proxies.
pub type InstanceKey = (QualifiedName, String);

/// All instances: a persistent map, so that two of them are told apart in the size of their difference.
pub type Instances = OrdMap<InstanceKey, Arc<Instance>>;

// === impl Instance ===

impl Instance {
    /// Its place among the [`Instances`].
    pub fn key(&self) -> InstanceKey {
        (self.workload.clone(), self.node.clone())
    }
}

/// The map that holds `instances`; of several with one key the last stays.
pub fn keyed(instances: impl IntoIterator<Item = Instance>) -> Instances {
    instances.into_iter().map(|instance| (instance.key(), Arc::new(instance))).collect()
}

/// The instances of one workload, by node id; the others are not looked at.
pub fn instances_of<'a>(
    instances: &'a Instances,
    workload: &'a QualifiedName,
) -> impl Iterator<Item = &'a Arc<Instance>> {
    let from = (workload.clone(), String::new());
    instances.range(from..).take_while(move |((of, _), _)| of == workload).map(|(_, instance)| instance)
}
