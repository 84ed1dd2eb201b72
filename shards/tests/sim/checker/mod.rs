//! Decides whether what clients saw can have happened: one command after the other, each between
//! its call and its answer.
//!
//! Two judges look at every history. [`order`] searches for such an order of all commands on all
//! keys at once (strict serializability, after Wing & Gong, with Lowe's memory of dead ends).
//! [`graph`] knows nothing of most commands, but what it finds on lists of appends it can explain:
//! which command must come before which, and the circle that they form. Neither knows anything of
//! shards, logs or leaders, but for a hint where to search first.

pub mod cases;
pub mod graph;
pub mod model;
pub mod order;

use crate::command::{Command, Reply};

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Executed, with this answer.
    Done(Reply),
    /// Executed or not, now or ever.
    Unknown,
}

/// One command of a client. Commands that were refused for sure are in no history: they must leave
/// no trace.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its name in messages.
    pub number: u64,
    /// What was asked.
    pub command: Command,
    /// Moment of the call; all moments of a history differ.
    pub called: u64,
    /// Moment of the answer; greater than any call when there was none.
    pub answered: u64,
    /// What was answered.
    pub outcome: Outcome,
    /// Where in the order to search first, if the one who checks has an idea. Never decides.
    pub hint: Option<u64>,
}

impl Operation {
    /// For messages.
    pub fn describe(&self) -> String {
        let (number, command, called) = (self.number, &self.command, self.called);
        match &self.outcome {
            Outcome::Done(reply) => {
                format!("#{number} {command} -> {reply} (from {called} to {})", self.answered)
            }
            Outcome::Unknown => format!("#{number} {command} -> ? (from {called})"),
        }
    }
}

/// Judges a history. The error says what is wrong with it.
pub fn check(history: &[Operation]) -> Result<(), String> {
    graph::check(history)?;
    order::check(history)
}
