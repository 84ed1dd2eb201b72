//! See `ringraft_fuzz::links`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::links::check_frames(data));
