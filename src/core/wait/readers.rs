//! Reads that wait at a shard for its keys (XREAD with BLOCK).
//!
//! They change nothing, so nothing of them is logged: who waits is memory of the leader. A read
//! that finds nothing at its place in the order stays here, behind ids that are known from then on;
//! it is run again right after each operation that changed one of its keys, before the next
//! operation, and answered by the first that gave it something.
//!
//! Invariants: a read that waits has an asker that waits for nothing else; while it waits its keys
//! are marked in the keyspace; those of one key are answered in the order in which they came.

use crate::commands::stream_read::{ids_of, with_ids};
use crate::commands::{Call, Command};
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::cluster::relay::UNSURE;
use crate::core::observe::stats::Stats;
use crate::core::shard::{LocalShard, Request, run_read};
use crate::core::wait::waiting::{Asker, End, awaited_keys, has, is_nothing};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::waiting::WaitKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A read that waits.
struct Reader {
    command: &'static Command,
    origin: Origin,
    database: DatabaseIndex,
    first_key: KeyHash,
    arguments: OwnedArguments,
    keys: Vec<WaitKey>,
}

/// All reads that wait at a shard, in the order in which they came.
#[derive(Default)]
pub struct Readers {
    last: u64,
    open: BTreeMap<u64, Reader>,
    places: HashMap<Asker, u64>,
    by_key: HashMap<(DatabaseIndex, Box<[u8]>), BTreeSet<u64>>,
}

impl Readers {
    /// Does nobody wait?
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn add(&mut self, asker: Asker, reader: Reader) {
        self.last += 1;
        for key in &reader.keys {
            let place = (key.database, key.bytes.clone());
            self.by_key.entry(place).or_default().insert(self.last);
        }
        assert!(self.places.insert(asker, self.last).is_none(), "an asker waits once");
        self.open.insert(self.last, reader);
    }

    fn remove(&mut self, place: u64) -> Option<Reader> {
        let reader = self.open.remove(&place)?;
        for key in &reader.keys {
            let of_key = (key.database, key.bytes.clone());
            // A key may be named twice.
            if let Some(places) = self.by_key.get_mut(&of_key) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_key.remove(&of_key);
                }
            }
        }
        if let Target::Block(number) = reader.origin.target {
            self.places.remove(&(reader.origin.core, number));
        }
        Some(reader)
    }
}

impl LocalShard {
    /// Runs a read at its place in the order; without a reply it has found nothing and waits.
    #[cold]
    pub(in crate::core) fn read_or_wait(
        &mut self,
        request: &Request<'_>,
        time: i64,
        stats: &mut Stats,
    ) -> Option<Vec<u8>> {
        let (command, origin, database) = (request.command, request.origin, request.database);
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, origin.protocol);
        let bytes_max = self.string_bytes_max;
        let outcome = run_read(&self.keyspace, request, time, 0, bytes_max, &mut reply);
        stats.finish(outcome, command, 0, &mut reply);
        let Target::Block(number) = origin.target else { unreachable!("the caller looked") };
        if !is_nothing(&out) {
            return Some(out);
        }
        let call = Call {
            command,
            arguments: request.arguments,
            first_key: request.first_key,
            hasher: self.keyspace.hasher(),
            seed: 0,
            string_bytes_max: bytes_max,
        };
        let ids = ids_of(&call, &self.keyspace.view(database, time)).expect("it has just been run");
        let arguments = with_ids(command, request.arguments, ids.into_iter());
        let keys = awaited_keys(command, database, arguments.borrow());
        for key in &keys {
            self.keyspace.start_reading(key.database, &key.bytes);
        }
        let first_key = request.first_key;
        let reader = Reader { command, origin, database, first_key, arguments, keys };
        self.readers.add((origin.core, number), reader);
        None
    }

    /// Answers the reads that wait for what has changed since this was called before.
    #[inline]
    pub(in crate::core) fn serve_readers(&mut self, time: i64, answers: &mut Answers) {
        if self.keyspace.key_to_read_changed() {
            self.serve_some_readers(time, answers);
        }
    }

    #[cold]
    fn serve_some_readers(&mut self, time: i64, answers: &mut Answers) {
        for of_key in self.keyspace.take_keys_to_read() {
            let Some(places) = self.readers.by_key.get(&of_key) else { continue };
            for place in places.clone() {
                let reader = &self.readers.open[&place];
                let (database, view) = (reader.database, self.keyspace.view(of_key.0, time));
                let mut mine = reader.keys.iter().filter(|key| key.bytes == of_key.1);
                if !mine.any(|key| has(&view, key)) {
                    continue;
                }
                let mut out = Vec::new();
                let origin = reader.origin;
                let mut reply = Reply::new(&mut out, origin.protocol);
                let request = Request {
                    command: reader.command,
                    origin,
                    database,
                    first_key: reader.first_key,
                    arguments: reader.arguments.borrow(),
                };
                let bytes_max = self.string_bytes_max;
                let outcome = run_read(&self.keyspace, &request, time, 0, bytes_max, &mut reply);
                if let Err(refusal) = outcome {
                    reply.truncate(0);
                    reply.error_bytes(&refusal.line());
                }
                if !is_nothing(&out) {
                    self.release_reader(place, answers, |to| to.extend_from_slice(&out));
                }
            }
        }
    }

    fn release_reader(
        &mut self,
        place: u64,
        answers: &mut Answers,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(reader) = self.readers.remove(place) else { return };
        for key in &reader.keys {
            self.keyspace.stop_reading(key.database, &key.bytes);
        }
        answers.write(reader.origin, write);
    }

    /// A client no longer wants to wait for what it reads.
    pub(in crate::core) fn end_reading(&mut self, asker: Asker, end: End, answers: &mut Answers) {
        let Some(&place) = self.readers.places.get(&asker) else { return };
        let protocol = self.readers.open[&place].origin.protocol;
        self.release_reader(place, answers, |out| end.write(protocol, out));
    }

    /// Nobody waits to read here any longer: all are told why.
    pub(in crate::core) fn dissolve_readers(&mut self, error: &str, answers: &mut Answers) {
        for place in self.readers.open.keys().copied().collect::<Vec<u64>>() {
            let Origin { protocol, is_relayed, .. } = self.readers.open[&place].origin;
            self.release_reader(place, answers, |out| match is_relayed {
                true => out.extend_from_slice(UNSURE),
                false => Reply::new(out, protocol).error(error),
            });
        }
    }
}
