//! See `ringraft_fuzz::log_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::log_records::check(data));
