//! The clients of a core: their connections, what they ask, what they are answered.

pub mod answers;
pub mod clients;
pub mod connection;
pub(in crate::core) mod dispatch;
pub mod evict;
pub(in crate::core) mod intake;
pub(in crate::core) mod lifecycle;
pub(in crate::core) mod output;
pub mod replies;
pub mod rights;
pub(in crate::core) mod secure;
pub mod session;
pub mod slab;
