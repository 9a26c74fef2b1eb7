//! A session, and a client that takes or makes of it what it will.
//!
//! Owns: nothing; what must hold is in `chancery::stream::fuzz`. May use: libFuzzer. Never: checks anything itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| chancery::stream::fuzz::session(data));
