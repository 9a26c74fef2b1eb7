//! What the fuzzers have found so far, run again, `conformance/fuzz/corpus/<target>/*`; and what they run with bytes by
//! lot.

use std::path::Path;

use proptest::prelude::*;

use super::fuzz;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/fuzz/corpus").join(target);
    let inputs = std::fs::read_dir(&folder).expect("a folder of the tree");
    let mut count = 0;
    for input in inputs {
        let path = input.expect("an entry").path();
        println!("{}", path.display());
        run(&std::fs::read(path).expect("a readable file"));
        count += 1;
    }
    assert!(count > 10, "{} is a corpus", folder.display());
}

#[test]
fn frames() {
    replay("frame", fuzz::frame);
}

#[test]
fn sessions() {
    replay("session", fuzz::session);
}

#[test]
fn texts() {
    replay("json", fuzz::json);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_body(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::frame(&bytes);
    }

    #[test]
    fn any_bytes_are_a_conversation(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::session(&bytes);
    }
}
