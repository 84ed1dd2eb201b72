//! What one turn gathers before it executes: parsed reads and where their bytes lie.

pub(in crate::core) mod adopt;
pub mod clock;
pub mod doors;
pub(in crate::core) mod spin;
pub(in crate::core) mod tick;

use crate::commands::Command;
use crate::core::client::answers::Origin;
use crate::core::client::connection::Connection;
use crate::core::client::slab::Slab;
use crate::core::mail::mailbox::Requests;
use crate::net::ring::Ring;
use ringraft_shards::arguments::{Arguments, Span};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::KeyHash;
use std::time::Duration;

/// Where the arguments of a request lie until the turn has executed it.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// In a provided receive buffer: its number and how much of it is filled.
    Buffer(u16, u16),
    /// In the input of a connection.
    Input(u32),
    /// In message number `message` of this turn, operation number `operation`.
    Mail {
        /// Which message.
        message: u32,
        /// Which of its operations.
        operation: u32,
    },
}

/// A read that will run with its stage.
#[derive(Clone, Copy)]
pub struct StagedRead {
    /// Its row.
    pub command: &'static Command,
    /// Who asked.
    pub origin: Origin,
    /// Where its arguments lie.
    pub source: Source,
    /// Its spans among those of the turn (unused for mail).
    pub spans: (u32, u32),
    /// Hash of its first key.
    pub first_key: KeyHash,
    /// Its database.
    pub database: DatabaseIndex,
    /// Place of its shard among those of this core.
    pub shard: u16,
}

impl StagedRead {
    /// Its arguments, where they lie.
    pub fn arguments<'a>(
        &self,
        turn: &'a Turn,
        ring: &'a Ring,
        connections: &'a Slab<Box<Connection>>,
    ) -> Arguments<'a> {
        let spans = &turn.spans[self.spans.0 as usize..][..self.spans.1 as usize];
        match self.source {
            Source::Buffer(buffer, length) => {
                Arguments::new(ring.buffer(buffer, usize::from(length)), spans)
            }
            Source::Input(index) => Arguments::new(&connections.at(index).input, spans),
            Source::Mail { message, operation } => {
                turn.mail[message as usize].batch.operation(operation as usize).1
            }
        }
    }
}

/// Everything that lives for one turn. Its memory is used again in the next.
#[derive(Default)]
pub struct Turn {
    /// Spans of the requests parsed in this stage.
    pub spans: Vec<Span>,
    /// Reads of this stage.
    pub reads: Vec<StagedRead>,
    /// Messages whose requests are read in place.
    pub mail: Vec<Box<Requests>>,
    /// Provided buffers to give back at its end.
    pub used_buffers: Vec<u16>,
    /// Connections that are sent to together, while that is under way.
    pub sending: Vec<u32>,
    /// What became of these sends: their places, and bytes or negative errnos. Empty but meanwhile.
    pub sent: Vec<(u32, i32)>,
    /// Connections whose input is to be compacted at its end.
    pub consumed: Vec<u32>,
    /// Closed connections that nothing refers to any more.
    pub released: Vec<u32>,
    /// Connections that move, and to which core.
    pub moving: Vec<(u32, u16)>,
    /// Has something been given to a shard of this core since the shards were driven? Then another
    /// turn follows at once.
    pub has_new_work: bool,
    /// May scripts be done before their entry is proposed? While requests are taken in.
    pub takes_beforehand: bool,
    /// Has one been?
    pub has_beforehand: bool,
    /// When it began, by the steady clock; `None` once the core has gone to sleep after it.
    pub began: Option<Duration>,
    /// Milliseconds since the Unix epoch, by a clock that may be set: for deadlines and for
    /// people.
    pub now_ms: i64,
    /// Milliseconds since the process started, by one that is not: for spans.
    pub steady_ms: i64,
}
