//! Scripts in Lua 5.1: the interpreter of a core, its sandbox, and the libraries that Redis gives
//! to scripts.
//!
//! A script runs to its end on a copy of the items that it names, and nothing is written before:
//! when it touches what is not there, it runs again with it (`core/transact/scripts.rs`; decisions
//! 0013 and 0023). On one shard that has no log it runs on the items themselves, and what it did
//! can be undone (`core/transact/in_place.rs`; decision 0028).
//!
//! - `library.rs`: the scripts that the process knows, by digest
//! - `interpreter.rs`, `sandbox.rs`, `fiber.rs`: what a core runs them with
//! - `shebang.rs`, `functions.rs`: what first lines say; libraries of functions
//! - `bytecode.rs`: what can be said of a script before it runs
//! - `ground.rs`: where commands run
//! - `call.rs`: `redis.call`; `quick.rs`: its plain cases past the bridge; `values.rs`: replies as
//!   values of Lua, and back
//! - `bit.rs`, `json.rs`, `msgpack.rs`, `pack.rs`: the libraries

mod arguments;
mod bit;
mod bytecode;
pub mod call;
pub mod fiber;
pub mod functions;
pub mod ground;
mod interface;
pub mod interpreter;
mod json;
mod json_read;
pub mod library;
mod msgpack;
mod pack;
mod printing;
mod quick;
mod raise;
mod random;
mod sandbox;
pub mod sha1;
pub mod shebang;
mod values;
