//! See `ringraft_fuzz::values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::values::check(data));
