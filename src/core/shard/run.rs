//! What a shard's commands do to its items: sets in their order, entries that nobody waits for,
//! single reads.

use crate::commands::events::note_events;
use crate::commands::{Answer, Call, Command, Run};
use crate::core::client::answers::{Answers, Target};
use crate::core::commands::table;
use crate::core::observe::stats::Stats;
use crate::core::push::writer_of;
use crate::core::shard::{Caller, LocalShard, Request, Set, ShardContext};
use crate::core::transact::participate::run_record;
use crate::core::wait::waiting::Manner;
use crate::limits::READS_PER_STAGE;
use crate::refusal::Outcome;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::Arguments;
use ringraft_shards::batch::{Batch, Operation};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Key, KeyHash, Keyspace};
use ringraft_shards::serve;
use ringraft_shards::stamp::{Answer as Told, Stamp, StampReader, Stamped};
use ringraft_shards::value::spot::{Spot, step_all};
use smallvec::SmallVec;
use std::iter::Peekable;
use std::time::Instant;

type Waiting = serve::Waiting<Caller>;

impl LocalShard {
    /// Applies a batch that nobody waits for: recovery, or a follower.
    pub(super) fn run_unasked(&mut self, batch: Batch<'_>, stats: &mut Stats) {
        let time = batch.leader_time_ms();
        let mut discarded = Vec::new();
        let mut stamps = StampsAt::of(Some(&batch));
        self.keyspace.begin_entry();
        for start in (0..batch.count()).step_by(READS_PER_STAGE) {
            let end = batch.count().min(start + READS_PER_STAGE);
            prefetch(&self.keyspace, (start..end).map(|i| batch.operation(i).0));
            let keyspace = &self.server.keyspace;
            let commands = (start..end).map(|i| (i, numbered(batch.operation(i).0.command())));
            let seeking = commands.filter(|(_, command)| command.member_at > 0);
            fetch_members(
                seeking.map(|(i, command)| Seeking::of(keyspace, command, batch.operation(i))),
            );
            for i in start..end {
                let (operation, arguments) = batch.operation(i);
                let command = numbered(operation.command());
                let seed = seed_of(batch.seed(), i);
                discarded.clear();
                let stamped = stamps.at(i as u32);
                let protocol = stamped.map_or(Protocol::default(), |(_, protocol)| protocol);
                let mut reply = Reply::new(&mut discarded, protocol);
                let outcome = run_write(
                    &mut self.server.keyspace,
                    command,
                    operation,
                    arguments,
                    time,
                    seed,
                    batch.string_bytes_max(),
                    &mut reply,
                );
                if let Some((stamp, _)) = stamped {
                    if let Err(refusal) = outcome {
                        reply.truncate(0);
                        reply.error_bytes(&refusal.line());
                    }
                    self.keyspace.remember(stamp, Some(&discarded));
                }
            }
        }
        // Nobody is told of what is not news.
        self.keyspace.forget_events();
        stats.replayed_operations += batch.count() as u64;
    }

    /// Runs a set in order: its writes from the entry, its reads from beside it.
    pub(super) fn run_set(
        &mut self,
        set: &Set,
        batch: Option<Batch<'_>>,
        answers: &mut Answers,
        stats: &mut Stats,
    ) {
        assert!(batch.is_some() || self.serves(), "reads ask whether the shard serves");
        let time = batch.map_or(self.time(stats.now_ms), |batch| batch.leader_time_ms());
        let read_bytes_max = self.string_bytes_max;
        let write_bytes_max = batch.map_or(read_bytes_max, |batch| batch.string_bytes_max());
        // Reads alone need no agreement with other replicas: any chance will do.
        let batch_seed = batch.map_or_else(|| self.random(), |batch| batch.seed());
        let fetch = |waiting: &Waiting| set.operation(waiting, batch.as_ref());
        let mut stamps = StampsAt::of(batch.as_ref());
        self.keyspace.begin_entry();
        let mut clock = Instant::now();
        for stage in set.order.chunks(READS_PER_STAGE) {
            prefetch(&self.keyspace, stage.iter().map(|waiting| fetch(waiting).0));
            let seeking = stage.iter().filter(|waiting| waiting.who.command.member_at > 0);
            if seeking.clone().nth(1).is_some() {
                let keyspace = &self.server.keyspace;
                fetch_members(seeking.map(|it| Seeking::of(keyspace, it.who.command, fetch(it))));
            }
            for run in stage.chunk_by(|a, b| std::ptr::eq(a.who.command, b.who.command)) {
                for waiting in run {
                    let (operation, arguments) = fetch(waiting);
                    let seed = seed_of(batch_seed, waiting.place as usize);
                    let Caller { command, origin } = waiting.who;
                    match command.run {
                        Run::Shard => {
                            if let Some(reply) = self.tend(operation, waiting.who, arguments, stats)
                            {
                                answers.write(origin, |out| out.extend_from_slice(&reply));
                            }
                            continue;
                        }
                        Run::Record if origin.target != Target::Nobody => {
                            self.apply_ahead(arguments, (time, seed), origin, answers);
                            self.serve_readers(time, answers);
                            continue;
                        }
                        Run::Record => {
                            self.apply_record(arguments, time, seed);
                            self.serve_readers(time, answers);
                            continue;
                        }
                        Run::Serve => {
                            let manner = Manner { seed, string_bytes_max: write_bytes_max };
                            self.apply_serve(arguments, time, manner, answers, stats);
                            self.serve_readers(time, answers);
                            continue;
                        }
                        _ => self.note_own(command, origin),
                    }
                    if let (Target::Block(_), Run::Read(_)) = (origin.target, command.run) {
                        let (database, first_key) = (operation.database(), operation.first_key());
                        let request = Request { command, origin, database, first_key, arguments };
                        if let Some(reply) = self.read_or_wait(&request, time, stats) {
                            answers.write(origin, |out| out.extend_from_slice(&reply));
                        }
                        continue;
                    }
                    let keyspace = &mut self.server.keyspace;
                    let stamped = match waiting.proposed && origin.stamp.is_some() {
                        true => stamps.at(waiting.place),
                        false => None,
                    };
                    let mut size = 0;
                    answers.write_with_rest(origin, |out, mut rest| {
                        let start = out.len();
                        // What a stamp remembers is the whole reply.
                        let place = rest.as_deref_mut().filter(|_| stamped.is_none());
                        let mut reply = Reply::with_rest(out, origin.protocol, place);
                        let outcome = if waiting.proposed {
                            // Records and servings were run above.
                            let mut edit = keyspace.edit(operation.database(), time);
                            run_operation(
                                &mut edit,
                                command,
                                operation.first_key(),
                                arguments,
                                seed,
                                write_bytes_max,
                                &mut reply,
                            )
                        } else {
                            let request = Request {
                                command,
                                origin,
                                database: operation.database(),
                                first_key: operation.first_key(),
                                arguments,
                            };
                            run_read(keyspace, &request, time, seed, read_bytes_max, &mut reply)
                        };
                        stats.finish(outcome, command, start, &mut reply);
                        size = out.len() - start;
                        if let Some((stamp, _)) = stamped {
                            keyspace.remember(stamp, Some(&out[start..]));
                        }
                        if let Some(rest) = rest.and_then(Option::as_deref_mut) {
                            stats.noted.note_long(rest, command, arguments, &mut size);
                        }
                    });
                    if stats.noted.is_large_reply(size) {
                        let log = &mut stats.noted.large_replies;
                        log.note(command, time, size as u64, arguments, origin, answers);
                    }
                    if self.keyspace.key_to_read_changed() {
                        self.serve_readers(time, answers);
                    }
                    if self.keyspace.has_events() {
                        self.keyspace.sign_events(writer_of(origin.core, origin.target));
                    }
                }
                let start = clock;
                clock = stats.count(run[0].who.command, run.len() as u64, start);
                if stats.noted.is_slow(clock - start) {
                    stats.noted.note_latency(run[0].who.command, clock - start, time);
                    let all = stats.noted.slow.takes_all();
                    let slow = if all { run } else { &run[run.len() - 1..] };
                    for waiting in slow {
                        let (took, arguments) =
                            ((clock - start) / slow.len() as u32, fetch(waiting).1);
                        let Caller { command, origin } = waiting.who;
                        let took_us = took.as_micros() as u64;
                        let log = &mut stats.noted.slow;
                        log.note(command, time, took_us, arguments, origin, answers);
                    }
                }
            }
        }
    }

    /// Runs a set of reads in order; their replies are withheld.
    #[cold]
    pub(super) fn run_set_withheld(
        &mut self,
        set: &Set,
        replies: &mut Vec<(Caller, Vec<u8>)>,
        stats: &mut Stats,
    ) {
        let (time, seed) = (self.time(stats.now_ms), self.random());
        let bytes_max = self.string_bytes_max;
        self.keyspace.begin_entry();
        for waiting in &set.order {
            let (operation, arguments) = set.operation(waiting, None);
            let Caller { command, origin } = waiting.who;
            let (database, first_key) = (operation.database(), operation.first_key());
            let request = Request { command, origin, database, first_key, arguments };
            let start = Instant::now();
            let reply = match (command.run, origin.target) {
                (Run::Shard, _) => self.tend(operation, waiting.who, arguments, stats),
                (_, Target::Block(_)) => self.read_or_wait(&request, time, stats),
                _ => {
                    let mut out = Vec::new();
                    let mut reply = Reply::new(&mut out, origin.protocol);
                    let seed = seed_of(seed, waiting.place as usize);
                    let keyspace = &self.server.keyspace;
                    let outcome = run_read(keyspace, &request, time, seed, bytes_max, &mut reply);
                    stats.finish(outcome, command, 0, &mut reply);
                    Some(out)
                }
            };
            stats.count(command, 1, start);
            replies.extend(reply.map(|reply| (waiting.who, reply)));
        }
    }

    /// Runs a command that works beside the items. Without a reply it answers later.
    fn tend(
        &mut self,
        operation: &Operation,
        Caller { command, origin }: Caller,
        arguments: Arguments<'_>,
        stats: &mut Stats,
    ) -> Option<Vec<u8>> {
        let run = table::shard_work(command);
        let seed = self.random();
        let (first_key, hasher) = (operation.first_key(), self.keyspace.hasher());
        let string_bytes_max = self.string_bytes_max;
        let call = Call { command, arguments, first_key, hasher, seed, string_bytes_max };
        let (database, now_ms) = (operation.database(), self.time(stats.now_ms));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, origin.protocol);
        let mut context = ShardContext { shard: self, origin, database, now_ms };
        match run(&mut context, &call, &mut reply) {
            Ok(Answer::Later | Answer::LaterCounted) => return None,
            Ok(Answer::Now) => {}
            Err(refusal) => stats.finish(Err(refusal), command, 0, &mut reply),
        }
        Some(out)
    }
}

/// The stamps of an entry's operations, asked for in order.
struct StampsAt<'a>(Peekable<StampReader<'a>>);

impl<'a> StampsAt<'a> {
    fn of(batch: Option<&Batch<'a>>) -> StampsAt<'a> {
        StampsAt(batch.map(|batch| batch.stamps()).unwrap_or_default().peekable())
    }

    /// That of the operation at this place, and how its reply is written.
    #[inline]
    fn at(&mut self, at: u32) -> Option<(Stamp, Protocol)> {
        let Stamped { stamp, answer: Told::Operation { place, manner } } = *self.0.peek()? else {
            unreachable!("a shard stamps operations");
        };
        if place != at {
            return None;
        }
        self.0.next();
        Some((stamp, if manner == 1 { Protocol::Resp3 } else { Protocol::Resp2 }))
    }
}

/// Makes the seeds of a batch's operations differ (splitmix64's increment).
pub fn seed_of(batch_seed: u64, place: usize) -> u64 {
    batch_seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn prefetch<'a>(keyspace: &Keyspace, operations: impl Iterator<Item = &'a Operation> + Clone) {
    let keys = operations.map(|operation| (operation.database(), operation.first_key()));
    prefetch_keys(keyspace, keys);
}

/// Fetches what some lookups will read, side by side.
pub(super) fn prefetch_keys(
    keyspace: &Keyspace,
    keys: impl Iterator<Item = (DatabaseIndex, KeyHash)> + Clone,
) {
    keys.clone().for_each(|(database, key)| keyspace.prefetch_bucket(database, key));
    keys.for_each(|(database, key)| keyspace.prefetch_item(database, key));
}

/// A request that names a member of the collection of its first key.
pub struct Seeking<'a> {
    /// Where the collection is.
    pub keyspace: &'a Keyspace,
    /// Knows which argument is the member.
    pub command: &'static Command,
    /// The collection's database.
    pub database: DatabaseIndex,
    /// Hash of its key.
    pub first_key: KeyHash,
    /// The request's.
    pub arguments: Arguments<'a>,
}

impl<'a> Seeking<'a> {
    fn of(
        keyspace: &'a Keyspace,
        command: &'static Command,
        (operation, arguments): (&Operation, Arguments<'a>),
    ) -> Seeking<'a> {
        let (database, first_key) = (operation.database(), operation.first_key());
        Seeking { keyspace, command, database, first_key, arguments }
    }

    fn spot(&self) -> Option<Spot<'a>> {
        let key = Key::new(self.arguments.get(self.command.keys.first)?, self.first_key);
        let member = self.arguments.get(self.command.member_at.into())?;
        self.keyspace.spot_of(self.database, &key, member)
    }
}

/// Fetches what some requests will look into.
#[inline(never)]
pub fn fetch_members<'a>(requests: impl Iterator<Item = Seeking<'a>>) {
    let spots = requests.filter_map(|request| request.spot());
    let mut spots: SmallVec<[Spot<'a>; READS_PER_STAGE]> = spots.collect();
    step_all(&mut spots);
}

#[inline]
fn run_write(
    keyspace: &mut Keyspace,
    command: &'static Command,
    operation: &Operation,
    arguments: Arguments<'_>,
    time: i64,
    seed: u64,
    string_bytes_max: usize,
    reply: &mut Reply<'_>,
) -> Outcome {
    let mut edit = keyspace.edit(operation.database(), time);
    if matches!(command.run, Run::Record) {
        run_record(&mut edit, arguments, seed);
        return Ok(());
    }
    if matches!(command.run, Run::Serve) {
        let manner = Manner { seed, string_bytes_max };
        crate::core::wait::waiting::serve(&mut edit, arguments, manner, &mut |_, _| {});
        return Ok(());
    }
    let first_key = operation.first_key();
    run_operation(&mut edit, command, first_key, arguments, seed, string_bytes_max, reply)
}

/// Runs a replicated command on the items.
#[inline]
pub fn run_operation(
    edit: &mut Edit<'_>,
    command: &'static Command,
    first_key: KeyHash,
    arguments: Arguments<'_>,
    seed: u64,
    string_bytes_max: usize,
    reply: &mut Reply<'_>,
) -> Outcome {
    let hasher = edit.view().hasher();
    let call = Call { command, arguments, first_key, hasher, seed, string_bytes_max };
    let outcome = match command.run {
        Run::Write(run) | Run::Block(run) => run(&call, edit, reply),
        Run::Read(run) => run(&call, &edit.view(), reply),
        _ => unreachable!("only reads and writes are replicated"),
    };
    if edit.has_changes() {
        note_events(edit, command, arguments);
    }
    outcome
}

/// Runs a read on the items as they are.
#[inline(always)]
pub fn run_read(
    keyspace: &Keyspace,
    request: &Request<'_>,
    time: i64,
    seed: u64,
    string_bytes_max: usize,
    reply: &mut Reply<'_>,
) -> Outcome {
    let Run::Read(run) = request.command.run else {
        unreachable!("the router sends only reads here");
    };
    let call = Call {
        command: request.command,
        arguments: request.arguments,
        first_key: request.first_key,
        hasher: keyspace.hasher(),
        seed,
        string_bytes_max,
    };
    let view = keyspace.view(request.database, time).counted();
    run(&call, &if request.origin.no_touch { view.untouched() } else { view }, reply)
}

/// The row that an operation names. Panics when there is none: an entry of a newer server was
/// accepted.
pub fn numbered(number: u16) -> &'static Command {
    table::by_number(number).expect("entries name commands of this version or older")
}
