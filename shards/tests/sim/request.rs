//! What clients and nodes say to each other.

use crate::command::{Command, Reply};

/// A client's command on its way to a shard's leader.
#[derive(Clone, Debug)]
pub struct Request {
    pub client: usize,
    /// Which of the client's tries this is: answers to earlier ones come too late.
    pub attempt: u64,
    /// The operation, the same in all tries.
    pub operation: u64,
    pub command: Command,
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub client: usize,
    pub attempt: u64,
    pub operation: u64,
}

impl Request {
    pub fn origin(&self) -> Origin {
        Origin { client: self.client, attempt: self.attempt, operation: self.operation }
    }
}

/// What a node answers.
#[derive(Clone, Debug)]
pub struct Answer {
    pub origin: Origin,
    pub result: Result,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Result {
    Done(Reply),
    /// Not executed, and never will be. Ask this node, if known.
    Refused {
        leader: Option<u64>,
    },
    /// Executed or not.
    Unknown,
}
