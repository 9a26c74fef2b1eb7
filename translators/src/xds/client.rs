//! Clients: what those of a group are, and which groups get a resource.
//!
//! Owns: who is told apart from whom. May use: `forms`. Never: decides what a resource says.

use super::{Forms, OtlpLogs};
use crate::version::EnvoyVersion;

/// What the clients of a group are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Features {
    /// Who asks.
    pub client: Client,
    /// The version of a proxy; of others, the least.
    pub version: EnvoyVersion,
}

/// Who asks for resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// A proxy.
    #[default]
    Envoy,
    /// An application that is itself a client of gRPC's own.
    Grpc {
        /// Whether its bootstrap has the certificate provider [`CERTIFICATES`](super::CERTIFICATES).
        certificates: bool,
    },
}

/// Which groups of the workloads that need a resource get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// Those of gRPC clients that have, or have not, a certificate provider.
    Grpc {
        /// Whether they have.
        certificates: bool,
    },
    /// Those of proxies that take these forms.
    Taking(Forms),
    /// Those of proxies.
    Proxies,
    /// Those of proxies that know this form of logger.
    Logging(OtlpLogs),
    /// Those of gRPC clients without a proxy.
    Proxyless,
}

// === impl Features ===

impl Features {
    /// What Envoy `major.minor` can do.
    pub fn of_envoy(major: u32, minor: u32) -> Self {
        Self::of_version(EnvoyVersion::new(major, minor))
    }

    /// What Envoys of a version can do.
    pub fn of_version(version: EnvoyVersion) -> Self {
        Self { client: Client::Envoy, version }
    }

    /// The forms in which a proxy takes what it gets.
    pub fn forms(self) -> Forms {
        Forms::of(self.version)
    }

    /// What a gRPC client without a proxy can do; `certificates` as in [`Client::Grpc`].
    pub fn of_grpc(certificates: bool) -> Self {
        Self { client: Client::Grpc { certificates }, ..Self::default() }
    }
}

// === impl Client ===

impl Client {
    /// Whether it is no proxy.
    pub fn is_proxyless(self) -> bool {
        match self {
            Self::Envoy => false,
            Self::Grpc { .. } => true,
        }
    }
}

// === impl Audience ===

impl Audience {
    /// Whether the groups of these features belong to it.
    pub fn takes(self, features: Features) -> bool {
        match self {
            Self::Grpc { certificates } => features.client == Client::Grpc { certificates },
            Self::Taking(forms) => !features.client.is_proxyless() && features.forms() == forms,
            Self::Proxies => !features.client.is_proxyless(),
            Self::Logging(otlp) => !features.client.is_proxyless() && features.forms().otlp_logs == otlp,
            Self::Proxyless => features.client.is_proxyless(),
        }
    }
}
