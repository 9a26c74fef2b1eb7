//! Rules to mesh.
