//! Messages as canonical proto-JSON, and back.
