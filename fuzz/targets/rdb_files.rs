//! See `ringraft_fuzz::rdb_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::rdb_files::check(data));
