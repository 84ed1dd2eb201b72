//! See `ringraft_fuzz::scripts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::scripts::check(data));
