//! Reads that wait at a shard for its keys (XREAD with BLOCK): what they are told. Who waits is the
//! engine's ([`readers`](ringraft_shards::serve::readers)).

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
use ringraft_shards::keyspace::{KeyHash, Keyspace};
use ringraft_shards::serve::readers;

/// A read that waits.
pub struct Reader {
    command: &'static Command,
    origin: Origin,
    database: DatabaseIndex,
    first_key: KeyHash,
    arguments: OwnedArguments,
}

/// All reads that wait at a shard.
pub type Readers = readers::Readers<Asker, Reader>;

impl Reader {
    /// Runs it again. `None`: it has found nothing.
    fn run(&self, keyspace: &Keyspace, now_ms: i64, string_bytes_max: usize) -> Option<Vec<u8>> {
        let Reader { command, origin, database, first_key, .. } = *self;
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, origin.protocol);
        let arguments = self.arguments.borrow();
        let request = Request { command, origin, database, first_key, arguments };
        let outcome = run_read(keyspace, &request, now_ms, 0, string_bytes_max, &mut reply);
        if let Err(refusal) = outcome {
            reply.truncate(0);
            reply.error_bytes(&refusal.line());
        }
        (!is_nothing(&out)).then_some(out)
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
        let first_key = request.first_key;
        let reader = Reader { command, origin, database, first_key, arguments };
        let keyspace = &mut self.server.keyspace;
        self.readers.add(keyspace, (origin.core, number), keys, reader);
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
        let bytes_max = self.string_bytes_max;
        let run = |keyspace: &Keyspace, reader: &Reader| reader.run(keyspace, time, bytes_max);
        for (reader, told) in self.readers.serve(&mut self.server.keyspace, time, has, run) {
            answers.write(reader.origin, |to| to.extend_from_slice(&told));
        }
    }

    /// A client no longer wants to wait for what it reads.
    pub(in crate::core) fn end_reading(&mut self, asker: Asker, end: End, answers: &mut Answers) {
        if let Some(reader) = self.readers.end(&mut self.server.keyspace, asker) {
            answers.write(reader.origin, |out| end.write(reader.origin.protocol, out));
        }
    }

    /// Nobody waits to read here any longer: all are told why.
    pub(in crate::core) fn dissolve_readers(&mut self, error: &str, answers: &mut Answers) {
        for Reader { origin, .. } in self.readers.end_all(&mut self.server.keyspace) {
            answers.write(origin, |out| match origin.is_relayed {
                true => out.extend_from_slice(UNSURE),
                false => Reply::new(out, origin.protocol).error(error),
            });
        }
    }
}
