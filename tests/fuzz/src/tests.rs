//! The corpus and everything that was ever found, through its target.

use std::{fs, panic, path::Path};

use super::*;

#[test]
fn every_input_of_the_corpus_and_every_finding_holds() {
    for target in TARGETS {
        for place in ["corpus", "found"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(place)
                .join(target.name);
            let inputs = fs::read_dir(&dir).map(|entries| entries.map(|e| e.expect("listed").path()));
            let inputs: Vec<_> = inputs.map(Iterator::collect).unwrap_or_default();
            assert!(
                place == "found" || inputs.len() > 2,
                "{}: there is no corpus",
                target.name
            );
            for input in inputs {
                let bytes = fs::read(&input).expect("readable");
                let held = panic::catch_unwind(|| (target.run)(&bytes));
                assert!(held.is_ok(), "{}: {}", target.name, input.display());
            }
        }
    }
}
