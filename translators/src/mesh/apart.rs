//! Apart: what the proxies of one workload take on a port, where policies say it of them and not of the others.
//!
//! Owns: a port as one workload serves it. May use: `access`, `inbound`. Never: Envoy's types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{Access, Inbound, MtlsMode, Port, Service, Sourced, takes_anything};
use crate::name::QualifiedName;

/// What the proxies of one workload take on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Apart {
    /// Which connections.
    pub mtls: Sourced<MtlsMode>,
    /// As that of the port.
    #[serde(skip)]
    pub callers_use_mtls: bool,
    /// Who may do what.
    pub access: Access,
    /// How much.
    #[serde(skip_serializing_if = "takes_anything")]
    pub inbound: Arc<Inbound>,
}

/// The workloads of which something else holds than of the others that serve a port; most ports have none.
pub type AllApart = Option<Box<BTreeMap<QualifiedName, Apart>>>;

// === impl Port ===

impl Port {
    /// The workloads of which something else holds.
    pub fn apart(&self) -> impl Iterator<Item = (&QualifiedName, &Apart)> {
        self.apart.iter().flat_map(|apart| apart.iter())
    }

    /// What holds for `workload`, where that is something else than for the others.
    pub fn apart_of(&self, workload: &QualifiedName) -> Option<&Apart> {
        self.apart.as_ref()?.get(workload)
    }

    /// The port as `workload` serves it.
    pub fn served_by(&self, workload: &QualifiedName) -> Cow<'_, Self> {
        let Some(own) = self.apart_of(workload) else { return Cow::Borrowed(self) };
        let Apart { mtls, callers_use_mtls, access, inbound } = own.clone();
        Cow::Owned(Self { mtls, callers_use_mtls, access, inbound, apart: None, ..self.clone() })
    }

    /// Which connections the proxies of `workload` take, and whether callers use mTLS towards them where they may.
    pub fn mode_of(&self, workload: &QualifiedName) -> (MtlsMode, bool) {
        match self.apart_of(workload) {
            Some(own) => (own.mtls.value, own.callers_use_mtls),
            None => (self.mtls.value, self.callers_use_mtls),
        }
    }

    /// Who may do what, for those who serve it.
    pub fn accesses(&self) -> impl Iterator<Item = &Access> {
        [&self.access].into_iter().chain(self.apart().map(|(_, own)| &own.access))
    }
}

// === impl Service ===

impl Service {
    /// The modes of those who serve the port called `port`.
    pub fn modes<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = MtlsMode> + 'a {
        let servings = match &self.backing {
            super::Backing::Workloads(servings) if port.apart.is_some() => servings.as_slice(),
            super::Backing::Workloads(_) | super::Backing::Static(_) | super::Backing::Dns(_) => &[],
        };
        let each = servings.iter().filter(|serving| serving.port == port.name);
        let each = each.map(|serving| port.mode_of(&serving.workload).0);
        let all = (port.apart.is_none() || servings.is_empty()).then_some(port.mtls.value);
        each.chain(all)
    }

    /// How callers come to the port called `port`: where those who serve it differ, each of them says what it takes.
    pub fn mode_towards(&self, port: &Port) -> MtlsMode {
        let mut modes = self.modes(port);
        let first = modes.next().unwrap_or(port.mtls.value);
        if modes.all(|mode| mode == first) { first } else { MtlsMode::Permissive }
    }
}
