//! Where shards live, and how they come to live elsewhere.
//!
//! | file | what |
//! |---|---|
//! | `moving.rs` | takes a shard from one core to another while it serves |
//! | `load.rs`, `board.rs` | how busy a core and its cpu are; where the cores tell each other |
//! | `together.rs` | which shards commands use together |
//! | `policy.rs` | loads in, moves out: a pure function and its memory |
//! | `govern.rs` | the home core looks at the board, asks the policy, and has shards and connections move |

pub mod board;
pub mod govern;
pub mod load;
pub mod moving;
pub mod policy;
pub mod together;
