//! Requests of one turn over several shards, joined into one transaction.
//!
//! A transaction costs messages, locks and log records, whatever is in it. So those commands whose
//! parts the shards run by themselves (MGET and its like; MSET) are not begun one by one: all that
//! arrive in a turn, of whatever connection, go as one transaction for reads and one for writes, in
//! the order of their arrival. Each of them is whole or not at all and sees one moment, because all
//! of them together are and do.
//!
//! A connection's own order is kept by [`Coalesced::must_begin_before`]: what it asks for next is
//! begun behind these, unless it joins them. The bounds, [`JOINED_KEYS_MAX`] and
//! [`JOINED_BYTES_MAX`], are looked at after each request.

use crate::commands::{Command, Gather, Run, Spread};
use crate::core::gather::integer_of;
use crate::core::mail::router::Router;
use crate::core::place::together::Companions;
use crate::core::transact::participate::{Ask, Found, Reads, What};
use crate::core::transact::spread::Member;
use crate::limits::{JOINED_BYTES_MAX, JOINED_KEYS_MAX};
use crate::resp::read::Elements;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::Arguments;
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::transaction::{LockKey, LockSet, Part};
use smallvec::SmallVec;

/// Those of a core.
pub struct Coalesced {
    /// Reads that are not begun.
    pub reads: Together,
    /// Writes that are not begun.
    pub writes: Together,
    /// How often joined requests were begun, plus one: a connection that has this number takes
    /// part in those that are not.
    round: u64,
    is_full: bool,
    /// Which shards are used together, by what is joined and by transactions.
    pub companions: Companions,
}

/// A connection's part in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Membership {
    round: u64,
    writes: bool,
}

/// Requests of one kind.
#[derive(Default)]
pub struct Together {
    members: Vec<Member>,
    /// For each key of each request, whose part it belongs to.
    owners: Vec<u16>,
    /// Count of keys of each request.
    key_counts: Vec<u32>,
    parts: Vec<ShardPart>,
    bytes: usize,
}

/// What one shard gets of them.
struct ShardPart {
    shard: ShardId,
    locks: LockSet,
    batch: BatchBuilder,
    manners: Vec<(Protocol, bool)>,
}

/// How the replies of a together of reads are put together.
pub struct Seams {
    owners: Vec<u16>,
    key_counts: Vec<u32>,
}

/// What shards shall do.
pub type Effects = Vec<(ShardId, BatchBuilder)>;

/// Is a command of the kind that is joined?
#[inline(always)]
pub fn joins(command: &Command) -> bool {
    match command.run {
        Run::Read(_) => matches!(command.spread, Spread::Split(_)),
        Run::Write(_) => command.spread == Spread::Split(Gather::AllOk),
        _ => false,
    }
}

impl Coalesced {
    /// Of a server with so many shards.
    pub fn new(shard_count: usize) -> Coalesced {
        let (reads, writes) = Default::default();
        let companions = Companions::new(shard_count);
        Coalesced { reads, writes, round: 0, is_full: false, companions }
    }

    /// Must what is joined be begun before a request of this connection is taken? Cost: one
    /// comparison for connections that take no part.
    #[inline(always)]
    pub fn must_begin_before(
        &self,
        membership: Membership,
        command: &Command,
        one_shard: bool,
    ) -> bool {
        self.has(membership) && {
            let writes = matches!(command.run, Run::Write(_));
            one_shard || !joins(command) || writes != membership.writes
        }
    }

    /// Does a connection take part in what is not begun?
    #[inline(always)]
    pub fn has(&self, membership: Membership) -> bool {
        membership.round == self.round + 1
    }

    /// Adds a request whose keys may belong to several shards. Its row [`joins`], and it has all
    /// its arguments.
    pub fn add(
        &mut self,
        router: &Router,
        member: Member,
        manner: (Protocol, bool),
        database: DatabaseIndex,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Membership {
        let writes = matches!(command.run, Run::Write(_));
        let together = if writes { &mut self.writes } else { &mut self.reads };
        let first = together.owners.len();
        together.add(router, member, manner, database, command, arguments);
        let shards = together.owners[first..].iter().map(|n| together.parts[usize::from(*n)].shard);
        self.companions.note_all(shards);
        self.is_full |= together.is_full();
        Membership { round: self.round + 1, writes }
    }

    /// Is it time to begin them?
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Takes all requests, to be begun.
    pub fn take(&mut self) -> (Together, Together) {
        self.round += 1;
        self.is_full = false;
        (std::mem::take(&mut self.reads), std::mem::take(&mut self.writes))
    }

    /// Is there none?
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }
}

impl Together {
    fn add(
        &mut self,
        router: &Router,
        member: Member,
        manner: (Protocol, bool),
        database: DatabaseIndex,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) {
        let exclusive = matches!(command.run, Run::Write(_));
        let first_owner = self.owners.len();
        let mut hashes: SmallVec<[KeyHash; 16]> = SmallVec::new();
        // Bit n: part n has a key of this request. Parts beyond 64 share a bit and are looked at.
        let mut present = 0u64;
        for i in command.keys.positions(arguments) {
            let hash = router.hash(arguments.at(i));
            let owner = self.part_of(router.shard(hash));
            self.parts[owner].locks.keys.push(LockKey::new(hash, exclusive));
            self.owners.push(owner as u16);
            hashes.push(hash);
            present |= 1 << (owner % 64);
        }
        let owners = &self.owners[first_owner..];
        let (head, step) = (command.keys.first, command.keys.step);
        for (n, part) in self.parts.iter_mut().enumerate() {
            if present & 1 << (n % 64) == 0 {
                continue;
            }
            let mine = |&(_, owner): &(usize, &u16)| usize::from(*owner) == n;
            let Some((first, _)) = owners.iter().enumerate().find(mine) else { continue };
            let keys = owners.iter().enumerate().filter(mine);
            let words = keys.flat_map(|(nth, _)| head + nth * step..head + (nth + 1) * step);
            let words = (0..head).chain(words).map(|i| arguments.at(i));
            part.batch.push_each(command.number, database, hashes[first], words);
            part.manners.push(manner);
        }
        self.bytes += arguments.iter_from(0).map(<[u8]>::len).sum::<usize>();
        self.key_counts.push(hashes.len() as u32);
        self.members.push(member);
    }

    /// The place of a shard's part. Few shards: a search is as fast as a table.
    fn part_of(&mut self, shard: ShardId) -> usize {
        if let Some(place) = self.parts.iter().position(|part| part.shard == shard) {
            return place;
        }
        let (locks, batch, manners) = Default::default();
        self.parts.push(ShardPart { shard, locks, batch, manners });
        self.parts.len() - 1
    }

    /// Is it nobody?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn is_full(&self) -> bool {
        self.owners.len() >= JOINED_KEYS_MAX || self.bytes >= JOINED_BYTES_MAX
    }

    /// As a transaction of reads: who asks, what each shard locks and reads, and how replies are
    /// put together.
    pub fn into_reads(self) -> (Vec<Member>, Vec<Part<Box<Ask>>>, Seams) {
        let part = |part: ShardPart| {
            let what = What::Replies(Reads { batch: part.batch, manners: part.manners });
            let fetch = Box::new(Ask { what, ..Ask::default() });
            Part { shard: part.shard, locks: part.locks, fetch }
        };
        let Together { members, owners, key_counts, parts, .. } = self;
        (members, parts.into_iter().map(part).collect(), Seams { owners, key_counts })
    }

    /// As a transaction of writes: who asks, what each shard locks, and the effects.
    pub fn into_writes(self) -> (Vec<Member>, Vec<Part<Box<Ask>>>, Effects) {
        let mut effects = Vec::with_capacity(self.parts.len());
        let part = |part: ShardPart| {
            effects.push((part.shard, part.batch));
            // All rows that are joined and write may grow memory.
            let fetch = Box::new(Ask { grows: true, ..Ask::default() });
            Part { shard: part.shard, locks: part.locks, fetch }
        };
        let parts = self.parts.into_iter().map(part).collect();
        (self.members, parts, effects)
    }
}

/// The replies of one shard, read one after the other.
struct Strip<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
    next: usize,
    /// Those of the present reply that are not taken, once it was begun.
    elements: Option<Elements<'a>>,
}

impl<'a> Strip<'a> {
    fn reply(&mut self) -> &'a [u8] {
        let start = self.next.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.next += 1;
        &self.bytes[start..self.ends[self.next - 1]]
    }
}

impl Seams {
    /// Writes the replies of all members, one after the other, and notes where each ends. `found`
    /// is what the shards have read, in the order of the parts.
    pub fn sew(&self, members: &mut [Member], found: Vec<Found>, out: &mut Vec<u8>) {
        let found: Vec<_> = found.into_iter().map(Found::into_replies).collect();
        let strips = found.iter().map(|(bytes, ends)| {
            let (next, elements) = (0, None);
            Strip { bytes, ends, next, elements }
        });
        let mut strips: SmallVec<[Strip<'_>; 8]> = strips.collect();
        let mut owners = self.owners.as_slice();
        for (member, &count) in members.iter_mut().zip(&self.key_counts) {
            let (own, rest) = owners.split_at(count as usize);
            owners = rest;
            let in_order = member
                .command
                .is_some_and(|command| command.spread == Spread::Split(Gather::InOrder));
            let mut reply = Reply::new(out, member.protocol);
            let mut sum = 0;
            if in_order {
                reply.array(own.len());
            }
            for &owner in own {
                let strip = &mut strips[usize::from(owner)];
                if strip.elements.is_none() {
                    let part = strip.reply();
                    sum += integer_of(part).unwrap_or(0);
                    strip.elements = Some(Elements::of(part));
                }
                if in_order {
                    let element = strip.elements.as_mut().and_then(Iterator::next);
                    reply.raw(element.expect("an element for every key"));
                }
            }
            if !in_order {
                reply.integer(sum);
            }
            for &owner in own {
                strips[usize::from(owner)].elements = None;
            }
            member.end = out.len();
        }
    }
}
