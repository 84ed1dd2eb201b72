//! Reads that wait for entries of streams, as XREAD with BLOCK does: the engine's own [`Readers`],
//! with the machine's streams.
//!
//! What is looked at here besides, at every leader: nobody waits beside entries that he wants once
//! nothing is under way any more.

use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::Keyspace;
use ringraft_shards::serve::readers::Readers;

use super::answer;
use crate::command::Reply;
use crate::counts::Count;
use crate::machine::DATABASE;
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::request::{Origin, Result};
use crate::schedule::Core;
use crate::shelves;

/// How long a read waits at most.
const WAIT_US_MAX: u64 = 120_000;

/// A read that waits for entries behind an id.
#[derive(Clone)]
struct Reader {
    origin: Origin,
    key: Vec<u8>,
    from: u64,
}

impl Reader {
    /// What it is told, if there is something.
    fn read(&self, keyspace: &Keyspace, now_ms: i64) -> Option<Reply> {
        let entries = shelves::behind(&keyspace.view(DATABASE, now_ms), &self.key, self.from);
        let told = [Reply::Integer(self.from as i64)].into_iter().chain(entries);
        Some(Reply::List(told.collect())).filter(|reply| !reply.is_start_alone())
    }
}

/// All that wait in a shard.
#[derive(Default)]
pub struct Reading {
    readers: Readers<u64, Reader>,
    /// The same as the checks know them, and when their time is over.
    waiting: Vec<(Reader, u64)>,
}

impl Running {
    /// Runs a read at its place in the order. Without a reply it has found nothing and waits.
    pub(super) fn await_entries(
        &mut self,
        origin: Origin,
        arguments: Arguments<'_>,
        core: &mut Core,
    ) -> Option<Reply> {
        let now_ms = self.server.clock.read_ms(self.wall_ms);
        let key = arguments.at(1).to_vec();
        let last = || shelves::last_id(&self.server.keyspace.view(DATABASE, now_ms), &key);
        let from = arguments.get(2).map_or_else(last, shelves::number_of);
        let reader = Reader { origin, key, from };
        let found = reader.read(&self.server.keyspace, now_ms);
        if found.is_some() {
            core.count(Count::ReadersAhead);
            return found;
        }
        core.count(Count::ReadersWait);
        core.note(|| format!("s{}: #{} waits behind {from}", self.shard, origin.operation));
        let until_us = core.now_us + core.chance.below(WAIT_US_MAX);
        self.reading.waiting.push((reader.clone(), until_us));
        let keys = vec![shelves::awaited(&reader.key)];
        self.reading.readers.add(&mut self.server.keyspace, origin.attempt, keys, reader);
        None
    }

    /// Tells those who wait what an operation has added.
    pub(super) fn serve_readers(&mut self, core: &mut Core, outbox: &mut Outbox) {
        if !self.server.keyspace.key_to_read_changed() || self.flaw == Flaw::UnservedReaders {
            return;
        }
        let now_ms = self.server.clock.read_ms(self.wall_ms);
        let run = |keyspace: &Keyspace, reader: &Reader| reader.read(keyspace, now_ms);
        let keyspace = &mut self.server.keyspace;
        for (reader, reply) in self.reading.readers.serve(keyspace, now_ms, shelves::has, run) {
            core.count(Count::ReadersServed);
            core.note(|| format!("#{} is told {reply}", reader.origin.operation));
            self.end_reader(reader.origin, Result::Done(reply), outbox);
        }
    }

    fn end_reader(&mut self, origin: Origin, result: Result, outbox: &mut Outbox) {
        self.reading.waiting.retain(|(one, _)| one.origin.attempt != origin.attempt);
        answer(outbox, origin, result);
    }

    /// This replica leads no more.
    pub(super) fn dissolve_readers(&mut self, core: &mut Core, outbox: &mut Outbox) {
        for reader in self.reading.readers.end_all(&mut self.server.keyspace) {
            core.count(Count::ReadersDissolved);
            self.end_reader(reader.origin, Result::Unknown, outbox);
        }
    }

    /// The time of some is over.
    pub(super) fn end_readers(&mut self, core: &mut Core, outbox: &mut Outbox) {
        let over = self.reading.waiting.iter().filter(|(_, until_us)| *until_us <= core.now_us);
        let origins: Vec<Origin> = over.map(|(one, _)| one.origin).collect();
        for origin in origins {
            core.count(Count::ReadersInVain);
            self.reading.readers.end(&mut self.server.keyspace, origin.attempt);
            self.end_reader(origin, Result::Done(Reply::Nil), outbox);
        }
    }

    /// Nothing is under way: then nobody waits beside entries.
    pub(super) fn check_readers(&self, core: &mut Core) {
        let now_ms = self.server.clock.read_ms(self.wall_ms);
        for (one, _) in &self.reading.waiting {
            if one.read(&self.server.keyspace, now_ms).is_some() {
                let (shard, operation, from) = (self.shard, one.origin.operation, one.from);
                core.audit.fail(|| {
                    format!("shard {shard}: #{operation} waits beside entries behind {from}")
                });
            }
        }
    }
}
