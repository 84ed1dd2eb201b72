//! Files: what the log wants written, snapshots, and a disk that is full.

pub mod background;
pub mod directory;
pub mod full_disk;
pub mod journal;
pub mod snapshots;
pub mod storage;
pub mod times;
pub mod together;
