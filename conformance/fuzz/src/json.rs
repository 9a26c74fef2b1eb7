//! Resources as JSON, and the bodies of requests by REST.
//!
//! Owns: nothing; what must hold is in `chancery::stream::fuzz`. May use: libFuzzer. Never: checks anything itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| chancery::stream::fuzz::json(data));
