//! Messages between cores, and where a key lives.

pub mod mailbox;
pub mod router;
