//! The Redis serialization protocol: requests in, replies out.

pub mod reply;
