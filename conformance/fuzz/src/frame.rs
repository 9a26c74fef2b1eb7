//! The body of a gRPC request, and the requests in it.
//!
//! Owns: nothing; what must hold is in `chancery::stream::fuzz`. May use: libFuzzer. Never: checks anything itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| chancery::stream::fuzz::frame(data));
