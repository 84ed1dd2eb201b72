//! ringraft.
fn main() {}
