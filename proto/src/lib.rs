//! The wire: Envoy's messages, our own, and the descriptors of both.
//!
//! Owns: the generated code and the descriptor pool. May use: prost and envoy-types. Never: any logic;
//! what turns a message into JSON or YAML lives in `translators::json`.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use envoy_types::pb::envoy;
pub use envoy_types::pb::google;
pub use envoy_types::pb::io;
pub use envoy_types::pb::opentelemetry;
pub use envoy_types::pb::xds;

/// Discovery messages whose bodies are shared bytes: `chancery/wire/discovery.proto`.
#[allow(missing_docs)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/chancery.wire.rs"));
}

/// The descriptors of every Envoy v3 message, decoded on first use (about 25 ms).
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        let bytes: &[u8] = include_bytes!("../descriptors/envoy.bin");
        DescriptorPool::decode(bytes).expect("the embedded descriptor set was written from a valid one")
    });
    &POOL
}
