//! Commands that wait: for a key, for a reader, for copies on other nodes or on the disk.

pub mod acknowledge;
pub mod blocking;
pub mod readers;
pub mod waiting;
