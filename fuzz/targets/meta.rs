//! See `ringraft_fuzz::meta`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::meta::check(data));
