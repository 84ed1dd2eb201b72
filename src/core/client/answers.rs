//! Where replies go: to a connection of this core, into a gather, or to another core.

use crate::core::client::connection::Connection;
use crate::core::client::slab::Slab;
use crate::core::gather::GatherState;
use crate::core::mail::mailbox::{Mail, Outbox, Spares};
use crate::core::wait::blocking::Blocks;
use crate::resp::listing::{LazyFree, Rest};
use crate::resp::reply::Protocol;
use std::collections::VecDeque;
use std::sync::Arc;

/// Whom a reply is for, on the core that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A request of a connection.
    Connection {
        /// The connection's number.
        index: u32,
        /// The request's sequence number.
        sequence: u32,
    },
    /// A part of a command that runs on several shards.
    Gather {
        /// The gather's number.
        index: u32,
        /// Which part.
        part: u32,
    },
    /// A blocked request.
    Block(u32),
    /// Nobody: the command is the server's own.
    Nobody,
}

/// The stamp of a request that another node has sent on, short; `core::cluster::lanes` knows the
/// long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampKey([u16; 3]);

impl StampKey {
    /// No stamp.
    pub const NONE: StampKey = StampKey([0; 3]);

    /// The place of its lane, never 0, and the lower half of its number.
    pub fn new(place: u16, low: u32) -> StampKey {
        StampKey([place, (low >> 16) as u16, low as u16])
    }

    /// What it was made of; `None` for no stamp.
    pub fn parts(self) -> Option<(u16, u32)> {
        let [place, high, low] = self.0;
        (place != 0).then(|| (place, u32::from(high) << 16 | u32::from(low)))
    }

    /// Is there one?
    #[inline(always)]
    pub fn is_some(self) -> bool {
        self.0[0] != 0
    }
}

/// Who asked, and how the reply is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The core that asked.
    pub core: u16,
    /// Whom on that core.
    pub target: Target,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// Must it wait for the writes before it? True for a request whose connection has unfinished
    /// writes.
    pub rides: bool,
    /// Is an access by it not to be counted (CLIENT NO-TOUCH)?
    pub no_touch: bool,
    /// Was it sent on by another node, which sends it again if it had no effect?
    pub is_relayed: bool,
    /// What it is known by then, if it may write.
    pub stamp: StampKey,
}

// Who waits for a request is kept once for each: it must not grow.
const _: () = assert!(size_of::<Origin>() <= 24);

impl Origin {
    /// Has whoever asked kept the request, to ask elsewhere?
    pub fn is_kept(&self) -> bool {
        self.is_relayed || self.stamp.is_some()
    }

    /// The server itself.
    pub const NOBODY: Origin =
        Origin { rides: false, ..Origin::asks(0, Target::Nobody, Protocol::Resp2) };

    /// The server's own question for a target of a core: it waits for the writes before it, and
    /// counts as no access.
    pub const fn asks(core: u16, target: Target, protocol: Protocol) -> Origin {
        let stamp = StampKey::NONE;
        Origin { core, target, protocol, rides: true, no_touch: true, is_relayed: false, stamp }
    }
}

/// All that replies are written to.
pub struct Answers {
    /// This core.
    pub core: u16,
    /// Its connections.
    pub connections: Slab<Box<Connection>>,
    /// Commands that wait for several shards or cores.
    pub gathers: Slab<GatherState>,
    /// Requests that block.
    pub blocks: Blocks,
    /// What it has for each core; and last what it withholds for a shard that is between two
    /// cores.
    pub outboxes: Vec<Outbox>,
    /// Messages to write into.
    pub spares: Spares,
    /// Connections that have something to send.
    pub dirty: Vec<u32>,
    /// Gathers whose last part has come.
    pub complete: Vec<u32>,
    /// Connections whose long replies go on in a turn to come.
    pub in_slices: VecDeque<u32>,
    /// What long replies from shards of this core leave.
    pub lazy_free: Arc<LazyFree>,
    /// Where replies for nobody go.
    scratch: Vec<u8>,
}

impl Answers {
    /// For a core among `core_count`.
    pub fn new(core: u16, core_count: usize) -> Answers {
        Answers {
            core,
            connections: Slab::default(),
            gathers: Slab::default(),
            blocks: Blocks::default(),
            outboxes: (0..=core_count).map(|_| Outbox::default()).collect(),
            spares: Spares::default(),
            dirty: Vec::new(),
            complete: Vec::new(),
            in_slices: VecDeque::new(),
            lazy_free: Arc::default(),
            scratch: Vec::new(),
        }
    }

    /// Writes the reply to a request. Cost for a local request in its turn: no copy, no allocation.
    #[inline(always)]
    pub fn write(&mut self, origin: Origin, write: impl FnOnce(&mut Vec<u8>)) {
        if origin.target == Target::Nobody {
            self.scratch.clear();
            write(&mut self.scratch);
        } else if origin.core == self.core {
            self.write_here(origin.target, write);
        } else {
            self.outboxes[usize::from(origin.core)].reply(origin.target, write);
        }
    }

    /// Writes the reply to a request, which may leave a rest where a connection awaits it. Cost: as
    /// [`Answers::write`].
    #[inline(always)]
    pub fn write_with_rest(
        &mut self,
        origin: Origin,
        write: impl FnOnce(&mut Vec<u8>, Option<&mut Option<Box<Rest>>>),
    ) {
        let Target::Connection { index, sequence } = origin.target else {
            return self.write(origin, |out| write(out, None));
        };
        let mut rest = None;
        if origin.core == self.core {
            let connection = self.connections.at_mut(index);
            let is_sent = connection.replies.write(sequence, |out| write(out, Some(&mut rest)));
            self.mark_dirty(index);
            if let Some(rest) = rest.filter(|_| is_sent) {
                self.keep_rest((index, sequence), rest);
            }
        } else {
            let outbox = &mut self.outboxes[usize::from(origin.core)];
            outbox.reply(origin.target, |out| write(out, Some(&mut rest)));
            if let Some(mut rest) = rest {
                rest.leave_to(&self.lazy_free);
                outbox.put_rest(rest);
            }
        }
    }

    #[cold]
    fn keep_rest(&mut self, (index, sequence): (u32, u32), mut rest: Box<Rest>) {
        rest.leave_to(&self.lazy_free);
        self.connections.at_mut(index).replies.put_rest(sequence, rest);
    }

    /// Writes a reply that another core has begun to a target of this one, with its rest.
    #[cold]
    pub fn write_begun(&mut self, target: Target, bytes: &[u8], mut rest: Box<Rest>) {
        let Target::Connection { index, sequence } = target else {
            unreachable!("replies to connections alone leave rests");
        };
        let replies = &mut self.connections.at_mut(index).replies;
        let is_sent = replies.write(sequence, |out| {
            out.extend_from_slice(bytes);
            rest.at = out.len();
        });
        if is_sent {
            replies.put_rest(sequence, rest);
        }
        self.mark_dirty(index);
    }

    /// Writes a reply to a target of this core.
    #[inline(always)]
    pub fn write_here(&mut self, target: Target, write: impl FnOnce(&mut Vec<u8>)) {
        match target {
            Target::Connection { index, sequence } => {
                let connection = self.connections.at_mut(index);
                connection.replies.write(sequence, write);
                self.mark_dirty(index);
            }
            Target::Gather { index, part } => {
                let gather = self.gathers.at_mut(index);
                if gather.write_part(part, write) {
                    self.complete.push(index);
                }
            }
            Target::Block(number) => self.blocks.reply(number, write),
            Target::Nobody => {}
        }
    }

    /// Where things go that are withheld: it stands for a core.
    pub fn between_cores(&self) -> u16 {
        (self.outboxes.len() - 1) as u16
    }

    /// Takes what was withheld, in order.
    pub fn take_withheld(&mut self) -> VecDeque<Mail> {
        let withheld = self.outboxes.last_mut().expect("there is one more than cores");
        withheld.take_all(&mut self.spares)
    }

    /// The outboxes of cores.
    pub fn sendable(&mut self) -> (&mut [Outbox], &mut Spares) {
        let between = self.outboxes.len() - 1;
        (&mut self.outboxes[..between], &mut self.spares)
    }

    /// Does mail wait for the full mailbox of a core?
    pub fn has_unsent(&self) -> bool {
        self.outboxes[..self.outboxes.len() - 1].iter().any(Outbox::is_waiting)
    }

    /// Sends a message to another core, behind what it has for that core already.
    pub fn post(&mut self, core: u16, mail: Mail) {
        self.outboxes[usize::from(core)].push(mail, &mut self.spares);
    }

    /// Fetches a connection into the cache, where there is one to come.
    #[inline(always)]
    pub fn fetch(&self, index: Option<u32>) {
        if let Some(connection) = index.and_then(|index| self.connections.get(index)) {
            connection.fetch();
        }
    }

    /// Lists a connection for sending at the turn's end.
    #[inline(always)]
    pub fn mark_dirty(&mut self, index: u32) {
        let connection = self.connections.at_mut(index);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }
}
