//! See `ringraft_fuzz::acl_rules`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringraft_fuzz::acl_rules::check(data));
