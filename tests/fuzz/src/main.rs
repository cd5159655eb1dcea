//! The targets under libFuzzer; `tests/fuzz/run` builds it and names the target in `CAROUSEL_FUZZ`.
#![no_main]

use std::sync::OnceLock;

use carousel_fuzz::{TARGETS, Target, made};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = runtime::config::env("CAROUSEL_FUZZ").ok().flatten().unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == name);
        TARGET.set(found.unwrap_or_else(|| panic!("CAROUSEL_FUZZ={name:?} is no target"))).ok();
        made::made();
    },
    |data: &[u8]| TARGET.get().map_or((), |target| (target.run)(data))
);
