//! The load generator.
//!
//! The one idea: everything that costs time is done before the measured time or by the kernel.
//! Requests lie encoded in books, replies are judged where they were received, a thread shares
//! nothing with another but counters. So a client thread spends per request about what the kernel's
//! TCP takes, and several threads drive any server to its limit. It imports nothing of the server.

pub mod book;
pub mod call;
pub mod connection;
pub mod epoll;
pub mod keys;
pub mod line;
pub mod operations;
pub mod plan;
pub mod progress;
pub mod random;
pub mod resp;
pub mod run;
pub mod schedule;
pub mod tally;
pub mod values;
pub mod worker;
