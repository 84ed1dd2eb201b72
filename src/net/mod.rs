//! Sockets: the ring of a core, its listeners, and what Linux needs to be told about them.

mod buffers;
pub mod listener;
pub mod ring;
mod sends;
pub mod tls;
pub mod unix;
