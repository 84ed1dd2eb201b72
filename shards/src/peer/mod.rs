//! Links between nodes: what a stream of bytes between two cores means, as state machines without
//! sockets or clocks.
//!
//! | part | where |
//! |---|---|
//! | frames: heads, checksums, numbers | `frame.rs` |
//! | items: what one core says to another; Raft's messages of all its groups | `item.rs`, `messages.rs` |
//! | who is there, and that it knows the secret | `hello.rs` |
//! | one connection | `link.rs`; what waits in it, and the bounds, `outbox.rs` |
//! | which connection to which core stays; whom to dial, and when | `peers.rs` |
//!
//! A link joins two cores: (node, core) and (node, core). A connection is one life of it: numbered,
//! in order, without gaps, and what was on its way when it ended is lost. So messages come at most
//! once and in the order sent, which is what groups and transactions ask for. `docs/cluster.md`
//! tells the whole of it, `docs/formats.md` has the bytes.

mod frame;
mod hello;
mod item;
mod link;
mod messages;
mod outbox;
mod peers;
#[cfg(test)]
mod tests;

pub use frame::{FrameError, FrameKind, HEAD_BYTES};
pub use hello::{
    Hello, Identity, NONCE_BYTES, PREFACE, PROTOCOLS, PeerCore, Purpose, Refusal, Secret, Side,
};
pub use item::{Class, Item, encode_items, take_all};
pub use link::{Link, LinkError, LinkEvent};
pub use outbox::Full;
pub use peers::{Connection, Peers};
