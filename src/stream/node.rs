//! The node of a stream: read once, then only compared.
//!
//! Owns: what of a node must not change. May use: the wire messages. Never: keeps a node (60 kB each).

use prost::Message;
use proto::wire;
use translators::resource::Version;

use super::session::Fault;

/// What is remembered of a stream's node.
#[derive(Debug)]
pub(super) struct Remembered {
    digest: Version,
    id: Box<str>,
    cluster: Box<str>,
}

/// What a client can do beyond what all can, as far as its node tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// In state of the world, it takes a resource in the wrapper that has its time to live.
    pub(super) unwraps: bool,
    /// It uses the errors of a response, by which a resource is told not to exist.
    pub(super) takes_errors: bool,
}

// === impl Client ===

impl Client {
    /// What the node says of itself. That a client uses errors is no feature that it could announce: of the clients
    /// known, those of gRPC do; to the others they are not sent.
    pub fn of(node: &wire::Node) -> Self {
        let unwraps = |feature: &String| {
            matches!(feature.as_str(), "xds.config.supports-resource-in-sotw" | "xds.config.resource-in-sotw")
        };
        Self { unwraps: node.client_features.iter().any(unwraps), takes_errors: is_proxyless(node) }
    }
}

/// Whether a node is an application that speaks xDS itself, by one of gRPC's own libraries.
pub fn is_proxyless(node: &wire::Node) -> bool {
    node.user_agent_name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("grpc"))
}

// === impl Remembered ===

impl Remembered {
    /// Reads the node of a stream's first request.
    pub(super) fn first(bytes: &[u8]) -> Result<(Self, wire::Node), Fault> {
        let node = read(bytes)?;
        if node.id.is_empty() {
            return Err(Fault::NoNode);
        }
        let remembered =
            Self { digest: Version::of(bytes), id: node.id.as_str().into(), cluster: node.cluster.as_str().into() };
        Ok((remembered, node))
    }

    /// Checks the node of a later request, which may be left out. Other members may change: Envoy sends the
    /// node again when its dynamic parameters do.
    pub(super) fn again(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let digest = Version::of(bytes);
        if bytes.is_empty() || digest == self.digest {
            return Ok(());
        }
        let node = read(bytes)?;
        if *node.id != *self.id || *node.cluster != *self.cluster {
            return Err(Fault::NodeChanged);
        }
        self.digest = digest;
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<wire::Node, Fault> {
    wire::Node::decode(bytes).map_err(|_| Fault::InvalidNode)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn node(id: &str, cluster: &str, agent: &str) -> Bytes {
        let node = wire::Node {
            id: id.into(),
            cluster: cluster.into(),
            user_agent_name: agent.into(),
            ..wire::Node::default()
        };
        node.encode_to_vec().into()
    }

    #[test]
    fn what_a_client_can_do_is_told_by_its_node() {
        let client = |agent: &str, features: &[&str]| {
            let client_features = features.iter().map(ToString::to_string).collect();
            let node = wire::Node { user_agent_name: agent.into(), client_features, ..wire::Node::default() };
            let Client { unwraps, takes_errors } = Client::of(&node);
            (unwraps, takes_errors)
        };
        assert_eq!(client("envoy", &["envoy.lrs.supports_send_all_clusters"]), (false, false));
        assert_eq!(client("envoy", &["xds.config.supports-resource-in-sotw"]), (true, false));
        assert_eq!(client("gRPC C-core Linux", &["xds.config.resource-in-sotw"]), (true, true));
        assert_eq!(client("grpc-node-js", &[]), (false, true));
    }

    #[test]
    fn scenario_43_a_node_is_given_first_and_stays() {
        for bytes in [Bytes::new(), node("", "c", "envoy")] {
            assert_eq!(Remembered::first(&bytes).err(), Some(Fault::NoNode));
        }
        assert_eq!(Remembered::first(&Bytes::from_static(b"\xff\xff")).err(), Some(Fault::InvalidNode));
        let (mut remembered, read) = Remembered::first(&node("n", "c", "envoy")).expect("valid");
        assert_eq!(read.id, "n");
        for (bytes, expected) in [
            (Bytes::new(), Ok(())),
            (node("n", "c", "envoy"), Ok(())),
            (node("n", "c", "other"), Ok(())),
            (node("m", "c", "envoy"), Err(Fault::NodeChanged)),
            (node("n", "d", "envoy"), Err(Fault::NodeChanged)),
        ] {
            assert_eq!(remembered.again(&bytes), expected);
        }
    }
}
