//! Texts as rules: what is read, and what is said of the rest.
//!
//! Owns: nothing; what must hold is in `translators::fuzz`. May use: libFuzzer. Never: checks anything itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| translators::fuzz::rules(data));
