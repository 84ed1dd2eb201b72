//! The Redis serialization protocol: requests in, replies out.

pub mod listing;
pub mod parse;
pub mod quoting;
pub mod read;
pub mod reply;
