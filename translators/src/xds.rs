//! Mesh to Envoy resources.
