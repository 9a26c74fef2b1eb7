//! Rules as resources: whatever they come to.
//!
//! Owns: how a text becomes another that is still one of rules, most of the time: words of the golden cases change places.
//! What must hold is in `translators::fuzz`. May use: libFuzzer, `mutation`. Never: checks anything itself.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[path = "../../src/mutation.rs"]
mod mutation;

/// The rules of the golden cases.
static CASES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/cases");
    let cases = std::fs::read_dir(folder).into_iter().flatten().flatten();
    cases.filter_map(|case| std::fs::read_to_string(case.path().join("1-rules.yaml")).ok()).collect()
});

fuzz_target!(|data: &[u8]| translators::fuzz::translate(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut text = match std::str::from_utf8(&data[..size]) {
        // One of eight is changed byte by byte.
        Ok(text) if seed % 8 != 0 => text.to_owned(),
        _ => return fuzzer_mutate(data, size, max_size),
    };
    mutation::mutate(&mut text, &CASES, &mut StdRng::seed_from_u64(seed.into()));
    match data.get_mut(..text.len()).filter(|_| text.len() <= max_size) {
        Some(place) => {
            place.copy_from_slice(text.as_bytes());
            text.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});
