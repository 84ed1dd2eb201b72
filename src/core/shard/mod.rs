//! One shard as its core drives it: items, Raft group, and the requests that wait for the log.
//!
//! Every write of a turn joins one set, which becomes one Raft entry. While entries are on their way to
//! the disk the next set gathers. A read that must see a write before it rides in the same set and runs at
//! its place when the entry is applied. Replies are written where requests are executed, in that order.

pub(in crate::core) mod drive;
pub(in crate::core) mod reclaim;

use crate::commands::events::note_events;
use crate::commands::expire::TURN_BACK;
use crate::commands::table;
use crate::commands::{Answer, Call, Command, Run};
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::client::session::Watched;
use crate::core::disk::snapshots::ShardSnapshots;
use crate::core::disk::storage::ShardFiles;
use crate::core::observe::stats::Stats;
use crate::core::push::writer_of;
use crate::core::shard::reclaim::Evictions;
use crate::core::transact::participate::{Parked, Participant, Wanted, run_record};
use crate::core::wait::acknowledge::SyncWait;
use crate::core::wait::readers::Readers;
use crate::core::wait::waiting::{Interests, Manner, Waiters};
use crate::limits::{BATCH_BYTES_MAX, ENTRIES_IN_FLIGHT_MAX, READS_PER_STAGE};
use crate::refusal::Outcome;
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::batch::{Batch, BatchBuilder, Operation};
use ringraft_shards::clock::{ShardClock, TurnBack};
use ringraft_shards::ids::{DatabaseIndex, Index, ShardId, Term};
use ringraft_shards::keyspace::{Edit, EvictionPolicy, Key, KeyHash, Keyspace};
use ringraft_shards::limits::{RAFT_UNCOMMITTED_BYTES_MAX, STRING_BYTES_DEFAULT};
use ringraft_shards::log::Reserve;
use ringraft_shards::raft::{CommittedEntry, EntryKind, Group, ProposeError};
use ringraft_shards::value::Limits;
use ringraft_shards::waiting::Round;
use std::collections::VecDeque;
use std::time::Instant;

/// One request that waits for its place in the shard's order.
#[derive(Clone, Copy)]
pub(in crate::core) struct Waiting {
    pub(in crate::core) command: &'static Command,
    origin: Origin,
    /// Is it part of the entry, or does it ride along?
    pub(in crate::core) proposed: bool,
    /// Its place among the proposed or the riding ones.
    pub(in crate::core) place: u32,
}

/// Requests that will be proposed together.
#[derive(Default)]
pub(in crate::core) struct Set {
    /// Writes: the entry.
    pub(in crate::core) batch: BatchBuilder,
    /// Reads that wait for writes before them.
    riders: BatchBuilder,
    /// All of them in order.
    pub(in crate::core) order: Vec<Waiting>,
    /// Versions that watched keys must still have when everything before is applied. A set with a guard is
    /// one transaction alone.
    guard: Option<Vec<Watched>>,
    /// Its number among those that serve waiting commands.
    pub(in crate::core) round: Option<Round>,
    /// Must everything before be applied before it is proposed?
    pub(in crate::core) is_behind: bool,
}

impl Set {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Is it proposed only when all before it is applied?
    fn stands_alone(&self) -> bool {
        self.guard.is_some() || self.is_behind
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.riders.clear();
        self.order.clear();
        self.guard = None;
        self.is_behind = false;
    }

    #[inline(always)]
    fn push(&mut self, request: &Request<'_>) {
        let (command, origin, database) = (request.command, request.origin, request.database);
        let (first_key, arguments) = (request.first_key, request.arguments);
        let place = self.batch.push(command.number, database, first_key, arguments) as u32;
        self.order.push(Waiting { command, origin, proposed: true, place });
    }
}

/// A set on its way through the log.
struct Flight {
    index: Index,
    term: Term,
    set: Box<Set>,
}

/// A shard and everything that waits on it.
pub struct LocalShard {
    /// Which shard.
    pub id: ShardId,
    /// Its items.
    pub keyspace: Keyspace,
    /// Its Raft group.
    pub group: Group,
    // Boxed: a set changes hands six times on its way.
    pub(in crate::core) sets: VecDeque<Box<Set>>,
    flights: VecDeque<Flight>,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Set>>,
    /// Its time.
    clock: ShardClock,
    /// By how much it was turned back, until that is reported.
    pub(in crate::core) turned_by_ms: Option<i64>,
    chance: u64,
    /// How long a string may get.
    pub string_bytes_max: usize,
    /// Its share of `maxmemory`; 0 is no limit.
    pub memory_limit: u64,
    /// What goes when it is reached.
    pub eviction_policy: EvictionPolicy,
    /// Items looked at for each eviction.
    pub eviction_samples: usize,
    /// What is being evicted.
    pub(in crate::core) evictions: Evictions,
    /// Limits that operations under way will set, in order.
    pub(in crate::core) coming_limits: VecDeque<Limits>,
    /// Operations of its own (expiry, eviction) that are gathered or under way.
    pub(in crate::core) own_count: usize,
    /// Its snapshots.
    pub snapshots: ShardSnapshots,
    /// Operations of entries that were applied since the process started.
    pub(in crate::core) applied_operations: u64,
    /// Who waits for its writes to be on the disk.
    pub(in crate::core) sync_waits: Vec<SyncWait>,
    /// Its log's files; none in `cache` mode.
    pub files: Option<ShardFiles>,
    /// Does this node lead it, with everything committed applied?
    serves: bool,
    /// Its part in transactions over several shards.
    pub(in crate::core) participant: Participant,
    /// What they want done.
    pub(in crate::core) wanted: Wanted,
    /// For each core, the time of the last lock that it asked for.
    pub(in crate::core) last_locks: Vec<u64>,
    /// Requests that came while it did not serve: no more than its clients may have unfinished.
    pub(in crate::core) held: VecDeque<Parked>,
    /// Commands that wait for its keys.
    pub(in crate::core) waiters: Waiters,
    /// Reads that wait for its keys.
    pub(in crate::core) readers: Readers,
    /// Clients that wait for keys of other shards too.
    pub(in crate::core) interests: Interests,
    /// Sets that served waiting commands and are done with.
    pub(in crate::core) settled: Vec<Round>,
    /// Does it serve no longer, while commands may still wait?
    pub(in crate::core) is_deposed: bool,
}

/// A shard as a command of kind [`Run::Shard`] sees it.
pub struct ShardContext<'a> {
    /// The shard.
    pub shard: &'a mut LocalShard,
    /// Who asked: kept by commands that answer later.
    pub origin: Origin,
    /// The request's database.
    pub database: DatabaseIndex,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// A request for a shard, with its arguments borrowed from wherever they lie.
pub struct Request<'a> {
    /// Its row.
    pub command: &'static Command,
    /// Who asked.
    pub origin: Origin,
    /// Its database.
    pub database: DatabaseIndex,
    /// Hash of its first key.
    pub first_key: KeyHash,
    /// Its arguments.
    pub arguments: Arguments<'a>,
}

impl LocalShard {
    /// A shard whose items and group were recovered.
    pub fn new(
        id: ShardId,
        keyspace: Keyspace,
        group: Group,
        snapshots: ShardSnapshots,
        last_time_ms: i64,
        chance: u64,
    ) -> LocalShard {
        LocalShard {
            id,
            keyspace,
            group,
            sets: VecDeque::new(),
            flights: VecDeque::new(),
            spare: Vec::new(),
            clock: ShardClock::new(last_time_ms),
            turned_by_ms: None,
            chance: chance | 1,
            string_bytes_max: STRING_BYTES_DEFAULT,
            memory_limit: 0,
            eviction_policy: EvictionPolicy::default(),
            eviction_samples: 1,
            evictions: Evictions::default(),
            coming_limits: VecDeque::new(),
            own_count: 0,
            snapshots,
            applied_operations: 0,
            sync_waits: Vec::new(),
            files: None,
            serves: false,
            participant: Participant::new(id),
            wanted: Wanted::default(),
            last_locks: Vec::new(),
            held: VecDeque::new(),
            waiters: Waiters::default(),
            readers: Readers::default(),
            interests: Interests::default(),
            settled: Vec::new(),
            is_deposed: false,
        }
    }

    /// Random bits (xorshift64*): for the leader's choices, which travel in the entry.
    pub fn random(&mut self) -> u64 {
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The time for reads: the clock's, but never before what was judged by it.
    #[inline(always)]
    pub fn time(&self, now_ms: i64) -> i64 {
        self.clock.read_ms(now_ms)
    }

    /// The latest time that anything was judged by.
    pub fn latest_ms(&self) -> i64 {
        self.clock.latest_ms()
    }

    /// Turns time back when the clock was, before anything else is proposed.
    #[inline]
    pub fn mind_clock(&mut self, now_ms: i64) {
        if let Some(turn) = self.clock.turn_back(now_ms) {
            self.turn_back(turn);
        }
    }

    #[cold]
    fn turn_back(&mut self, turn: TurnBack) {
        if !self.serves() {
            return;
        }
        let command = table::internal(TURN_BACK);
        let to_ms = turn.to_ms.to_string();
        let mut batch = BatchBuilder::default();
        let words = [TURN_BACK.as_bytes(), to_ms.as_bytes()].into_iter();
        batch.push_each(command.number, DatabaseIndex(0), KeyHash::default(), words);
        let seed = self.random();
        // Room for it is kept on a full disk. If it is refused all the same, the next turn tries again.
        if self.group.propose_smaller(batch.encode(turn.from_ms, seed)).is_ok() {
            self.clock.turning(turn);
            self.turned_by_ms = Some(turn.from_ms - turn.to_ms);
        }
    }

    /// Must a request that waits for earlier writes wait here?
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.sets.iter().all(|set| set.is_empty())
    }

    /// Is there something to propose?
    pub fn has_gathered(&self) -> bool {
        self.sets.iter().any(|set| !set.is_empty())
    }

    /// Requests that wait.
    pub fn waiting_count(&self) -> usize {
        let flying = self.flights.iter().map(|flight| flight.set.order.len());
        flying.chain(self.sets.iter().map(|set| set.order.len())).sum()
    }

    /// Appends a write to the entry that gathers. Cost: one copy of its arguments.
    #[inline]
    pub fn gather_write(&mut self, request: &Request<'_>) {
        self.open_set().push(request);
        if !self.waiters.is_empty() {
            self.declare_behind(request);
        }
    }

    /// Appends a write to the newest set, whatever its size.
    pub(in crate::core) fn push_write(&mut self, request: &Request<'_>) {
        self.sets.back_mut().expect("somebody has gathered").push(request);
    }

    /// Appends a transaction that runs only if watched keys did not change.
    pub fn gather_guarded(&mut self, request: &Request<'_>, guard: Vec<Watched>) {
        if !self.open_set().is_empty() {
            let fresh = self.spare.pop().unwrap_or_default();
            self.sets.push_back(fresh);
        }
        self.gather_write(request);
        self.sets.back_mut().expect("just written").guard = Some(guard);
    }

    /// Appends a read behind the writes it must see.
    pub fn gather_rider(&mut self, request: &Request<'_>) {
        let number = request.command.number;
        let set = self.open_set();
        let place =
            set.riders.push(number, request.database, request.first_key, request.arguments) as u32;
        let (command, origin) = (request.command, request.origin);
        set.order.push(Waiting { command, origin, proposed: false, place });
    }

    #[inline]
    pub(in crate::core) fn open_set(&mut self) -> &mut Set {
        let full = |set: &Set| {
            let bytes = set.batch.encoded_bytes().max(set.riders.encoded_bytes());
            set.guard.is_some() || bytes >= BATCH_BYTES_MAX
        };
        if self.sets.back().is_none_or(|set| full(set)) {
            let fresh = self.spare.pop().unwrap_or_default();
            self.sets.push_back(fresh);
        }
        self.sets.back_mut().expect("just pushed")
    }

    /// Proposes what was gathered, as far as the pipeline allows.
    pub fn propose(&mut self, now_ms: i64, answers: &mut Answers, stats: &mut Stats) {
        while let Some(set) = self.sets.front() {
            if set.is_empty() || self.flights.len() >= ENTRIES_IN_FLIGHT_MAX {
                return;
            }
            if set.stands_alone() && !self.flights.is_empty()
                || self.awaits_room(set)
                || self.awaits_commit(set)
            {
                return;
            }
            let mut set = self.sets.pop_front().expect("just seen");
            if set.is_behind {
                self.forget_served(&mut set);
            }
            if let Some(guard) = set.guard.take()
                && !self.resolve_guard(&guard, now_ms)
            {
                let origin = set.order[0].origin;
                answers.write(origin, |out| Reply::new(out, origin.protocol).null_array());
                self.recycle(set);
                continue;
            }
            self.propose_set(set, Reserve::Kept, now_ms, answers, stats);
        }
    }

    /// Must a set wait until a segment of the log is made, or proves impossible?
    fn awaits_room(&self, set: &Set) -> bool {
        set.batch.count() > 0 && self.group.awaits_room(set.batch.encoded_bytes())
    }

    /// Is a set too large to be proposed beside those under way? Alone, any set is taken.
    fn awaits_commit(&self, set: &Set) -> bool {
        let flying = self.flights.iter().map(|flight| flight.set.batch.encoded_bytes() as u64);
        let flying: u64 = flying.sum();
        let all = flying + set.batch.encoded_bytes() as u64;
        flying > 0 && set.batch.count() > 0 && all > RAFT_UNCOMMITTED_BYTES_MAX
    }

    /// Have the watched keys not changed? Ends the interest in them.
    fn resolve_guard(&mut self, guard: &[Watched], now_ms: i64) -> bool {
        let now_ms = self.time(now_ms);
        let unchanged = guard.iter().all(|watched| {
            let key = Key::new(&watched.key, self.keyspace.hasher().hash(&watched.key));
            let version = self.keyspace.watch_version(watched.database, &key, now_ms);
            version == Some(watched.version)
        });
        for watched in guard {
            self.keyspace.unwatch(watched.database, &watched.key);
        }
        unchanged
    }

    /// Proposes a set; on a full disk first whole, then what of it may use the reserve.
    pub(in crate::core) fn propose_set(
        &mut self,
        mut set: Box<Set>,
        reserve: Reserve,
        now_ms: i64,
        answers: &mut Answers,
        stats: &mut Stats,
    ) {
        if set.batch.count() == 0 {
            match self.flights.back() {
                // Reads alone: behind the last entry on its way, or at once.
                Some(last) => {
                    let (index, term) = (last.index, last.term);
                    self.flights.push_back(Flight { index, term, set });
                }
                None if self.serves => self.run_set(set, None, answers, stats),
                None => self.lose(set, answers),
            }
            return;
        }
        self.mind_clock(now_ms);
        let time = self.clock.entry_ms(now_ms);
        let seed = self.random();
        let data = set.batch.encode_bounded(time, seed, self.string_bytes_max);
        let proposed = match reserve {
            Reserve::Kept => self.group.propose(data),
            Reserve::Used => self.group.propose_smaller(data),
        };
        match proposed {
            Ok(proposal) => {
                self.flights.push_back(Flight { index: proposal.index, term: proposal.term, set });
            }
            Err(error @ ProposeError::DiskFull(_)) if reserve == Reserve::Kept => {
                self.propose_smaller(set, &refusal_text(&error), answers, stats);
            }
            Err(error) => self.refuse(set, &refusal_text(&error), answers, stats),
        }
    }

    /// Answers every write of a set with an error; reads still run.
    fn refuse(&mut self, mut set: Box<Set>, error: &str, answers: &mut Answers, stats: &mut Stats) {
        for waiting in set.order.iter().filter(|waiting| waiting.proposed) {
            let arguments = set.batch.operation(waiting.place as usize).1;
            self.refuse_one(waiting, arguments, error, answers, stats);
        }
        set.order.retain(|waiting| !waiting.proposed);
        set.batch.clear();
        self.propose_set(set, Reserve::Kept, stats.now_ms, answers, stats);
    }

    /// Answers a write with an error.
    pub(in crate::core) fn refuse_one(
        &mut self,
        waiting: &Waiting,
        arguments: Arguments<'_>,
        error: &str,
        answers: &mut Answers,
        stats: &mut Stats,
    ) {
        if matches!(waiting.command.run, Run::Record) {
            return self.record_refused(arguments, error);
        }
        if matches!(waiting.command.run, Run::Serve) {
            return self.serve_refused(arguments, error, answers);
        }
        self.note_own(waiting.command, waiting.origin);
        answers.write(waiting.origin, |out| {
            let start = out.len();
            stats.refuse(error, start, &mut Reply::new(out, waiting.origin.protocol));
        });
    }

    /// Applies a committed entry and answers those who wait for it.
    /// Panics when the entry is not a batch: its checksum was right, so the writer was wrong.
    pub fn apply(&mut self, entry: &CommittedEntry, answers: &mut Answers, stats: &mut Stats) {
        while let Some(flight) = self.flights.front() {
            if flight.index >= entry.index {
                break;
            }
            let flight = self.flights.pop_front().expect("just seen");
            self.lose(flight.set, answers);
        }
        if entry.kind == EntryKind::Command {
            let batch = Batch::read(&entry.data).expect("a committed entry is a batch");
            self.snapshots.note_applied(entry.data.len(), batch.count());
            self.applied_operations += batch.count() as u64;
            self.clock.applied(batch.leader_time_ms());
            let ours = self
                .flights
                .front()
                .is_some_and(|flight| flight.index == entry.index && flight.term == entry.term);
            if ours {
                let flight = self.flights.pop_front().expect("just seen");
                self.run_set(flight.set, Some(batch), answers, stats);
            } else {
                self.replay(batch, stats);
            }
            if let Some(turned) = self.keyspace.take_turned() {
                if self.clock.is_turning() {
                    stats.expired_keys += turned.removed as u64;
                }
                self.clock.turned_back(turned.to_ms);
            }
        }
        self.run_reads_behind(entry.index, answers, stats);
    }

    /// Runs the sets of reads that waited for this entry.
    fn run_reads_behind(&mut self, index: Index, answers: &mut Answers, stats: &mut Stats) {
        while let Some(flight) = self.flights.front() {
            if flight.index > index || flight.set.batch.count() > 0 {
                break;
            }
            let flight = self.flights.pop_front().expect("just seen");
            match self.serves {
                true => self.run_set(flight.set, None, answers, stats),
                false => self.lose(flight.set, answers),
            }
        }
    }

    /// Answers those whose entry was replaced by another leader's.
    fn lose(&mut self, set: Box<Set>, answers: &mut Answers) {
        for waiting in &set.order {
            let origin = waiting.origin;
            self.note_own(waiting.command, origin);
            answers.write(origin, |out| {
                Reply::new(out, origin.protocol).error("leadership lost while committing log");
            });
        }
        self.recycle(set);
    }

    /// Applies a batch that nobody waits for: recovery, or a follower.
    pub fn replay(&mut self, batch: Batch<'_>, stats: &mut Stats) {
        let time = batch.leader_time_ms();
        let mut discarded = Vec::new();
        self.keyspace.begin_entry();
        for start in (0..batch.count()).step_by(READS_PER_STAGE) {
            let end = batch.count().min(start + READS_PER_STAGE);
            prefetch(&self.keyspace, (start..end).map(|i| batch.operation(i).0));
            for i in start..end {
                let (operation, arguments) = batch.operation(i);
                let command = numbered(operation.command());
                let seed = seed_of(batch.seed(), i);
                discarded.clear();
                let mut reply = Reply::new(&mut discarded, Default::default());
                run_write(
                    &mut self.keyspace,
                    command,
                    operation,
                    arguments,
                    time,
                    seed,
                    batch.string_bytes_max(),
                    &mut reply,
                )
                .unwrap_or_default();
            }
        }
        // Nobody is told of what is not news.
        self.keyspace.forget_events();
        stats.replayed_operations += batch.count() as u64;
    }

    /// Runs a set in order: its writes from the entry, its reads from beside it.
    fn run_set(
        &mut self,
        set: Box<Set>,
        batch: Option<Batch<'_>>,
        answers: &mut Answers,
        stats: &mut Stats,
    ) {
        assert!(batch.is_some() || self.serves, "reads ask whether the shard serves");
        let time = batch.map_or(self.time(stats.now_ms), |batch| batch.leader_time_ms());
        let read_bytes_max = self.string_bytes_max;
        let write_bytes_max = batch.map_or(read_bytes_max, |batch| batch.string_bytes_max());
        // Reads alone need no agreement with other replicas: any chance will do.
        let batch_seed = batch.map_or_else(|| self.random(), |batch| batch.seed());
        let fetch = |waiting: &Waiting| {
            let place = waiting.place as usize;
            match (waiting.proposed, &batch) {
                (true, Some(batch)) => batch.operation(place),
                (true, None) => unreachable!("a set with writes is run with its entry"),
                (false, _) => set.riders.operation(place),
            }
        };
        self.keyspace.begin_entry();
        let mut clock = Instant::now();
        for stage in set.order.chunks(READS_PER_STAGE) {
            prefetch(&self.keyspace, stage.iter().map(|waiting| fetch(waiting).0));
            for run in stage.chunk_by(|a, b| std::ptr::eq(a.command, b.command)) {
                for waiting in run {
                    let (operation, arguments) = fetch(waiting);
                    let seed = seed_of(batch_seed, waiting.place as usize);
                    let (command, origin) = (waiting.command, waiting.origin);
                    match command.run {
                        Run::Shard(_) => {
                            self.tend(operation, command, origin, arguments, answers, stats);
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
                        self.read_or_wait(&request, time, answers, stats);
                        continue;
                    }
                    let keyspace = &mut self.keyspace;
                    answers.write(origin, |out| {
                        let start = out.len();
                        let mut reply = Reply::new(out, origin.protocol);
                        let outcome = if waiting.proposed {
                            run_write(
                                keyspace,
                                command,
                                operation,
                                arguments,
                                time,
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
                    });
                    if self.keyspace.key_to_read_changed() {
                        self.serve_readers(time, answers);
                    }
                    if self.keyspace.has_events() {
                        self.keyspace.sign_events(writer_of(origin.core, origin.target));
                    }
                }
                let start = clock;
                clock = stats.count(run[0].command, run.len() as u64, start);
                if stats.slowlog.is_slow(clock - start) {
                    let all = stats.slowlog.takes_all();
                    let slow = if all { run } else { &run[run.len() - 1..] };
                    for waiting in slow {
                        let (took, arguments) =
                            ((clock - start) / slow.len() as u32, fetch(waiting).1);
                        let (command, origin) = (waiting.command, waiting.origin);
                        stats.slowlog.note(command, time, took, arguments, origin, answers);
                    }
                }
            }
        }
        self.recycle(set);
    }

    fn recycle(&mut self, mut set: Box<Set>) {
        self.settled.extend(set.round.take());
        set.clear();
        if self.spare.len() < ENTRIES_IN_FLIGHT_MAX {
            self.spare.push(set);
        }
    }

    /// Runs a command that works beside the items.
    fn tend(
        &mut self,
        operation: &Operation,
        command: &'static Command,
        origin: Origin,
        arguments: Arguments<'_>,
        answers: &mut Answers,
        stats: &mut Stats,
    ) {
        let Run::Shard(run) = command.run else {
            unreachable!("the caller looked");
        };
        let seed = self.random();
        let (first_key, hasher) = (operation.first_key(), self.keyspace.hasher());
        let string_bytes_max = self.string_bytes_max;
        let call = Call { command, arguments, first_key, hasher, seed, string_bytes_max };
        let (database, now_ms) = (operation.database(), self.time(stats.now_ms));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, origin.protocol);
        let mut context = ShardContext { shard: self, origin, database, now_ms };
        match run(&mut context, &call, &mut reply) {
            Ok(Answer::Later) => return,
            Ok(Answer::Now) => {}
            Err(refusal) => stats.finish(Err(refusal), command, 0, &mut reply),
        }
        answers.write(origin, |to| to.extend_from_slice(&out));
    }
}

/// Makes the seeds of a batch's operations differ (splitmix64's increment).
pub fn seed_of(batch_seed: u64, place: usize) -> u64 {
    batch_seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn prefetch<'a>(keyspace: &Keyspace, operations: impl Iterator<Item = &'a Operation> + Clone) {
    for operation in operations.clone() {
        keyspace.prefetch_bucket(operation.database(), operation.first_key());
    }
    for operation in operations {
        keyspace.prefetch_item(operation.database(), operation.first_key());
    }
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

/// What a write answers that was not taken. It had no effect.
fn refusal_text(error: &ProposeError) -> String {
    match error {
        ProposeError::NotLeader { .. } => "ERR leader not known".to_string(),
        ProposeError::DiskFull(_) => format!("MISCONF {error}"),
        _ => format!("ERR {error}"),
    }
}

/// The row that an operation names. Panics when there is none: an entry of a newer server was accepted.
pub fn numbered(number: u16) -> &'static Command {
    table::by_number(number).expect("entries name commands of this version or older")
}

impl LocalShard {
    /// Gathers a request for its place in the shard's order. False: it would grow memory past the bound
    /// and nothing can be evicted.
    #[inline]
    pub fn admit(&mut self, request: &Request<'_>, stats: &mut Stats) -> bool {
        if !self.is_open() && self.park(request, None) {
            return true;
        }
        self.gather(request, stats)
    }

    /// Gathers a request that no transaction holds up.
    #[inline]
    pub fn gather(&mut self, request: &Request<'_>, stats: &mut Stats) -> bool {
        if !matches!(request.command.run, Run::Write(_)) {
            if matches!(request.command.run, Run::Block(_)) {
                return self.gather_block(request, stats);
            }
            self.gather_rider(request);
            return true;
        }
        if request.command.flags.grows && !self.has_room(stats) {
            return false;
        }
        self.gather_write(request);
        true
    }

    #[cold]
    fn gather_block(&mut self, request: &Request<'_>, stats: &mut Stats) -> bool {
        if request.command.flags.grows && !self.has_room(stats) {
            return false;
        }
        self.gather_waiting(request);
        true
    }

    /// Does this node lead the shard, with everything committed applied?
    #[inline(always)]
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// Looks whether this node leads.
    pub fn note_role(&mut self) {
        let served = self.serves;
        self.serves = self.group.is_ready_to_read()
            && self.group.applied_index() >= self.group.commit_index();
        if self.serves && !served {
            let alone = self.group.membership().voters.len() == 1;
            self.participant.lead(self.keyspace.ledger(), alone);
        } else if served && !self.group.is_ready_to_read() {
            self.clock.step_down();
            self.participant.step_down(&mut self.wanted);
            self.is_deposed = true;
        }
    }

    /// Is there a set that the pipeline has room for?
    pub fn has_room_to_propose(&self) -> bool {
        let next = self.sets.front().filter(|set| !set.is_empty());
        next.is_some_and(|set| {
            let room = self.flights.len() < ENTRIES_IN_FLIGHT_MAX;
            room && (!set.stands_alone() || self.flights.is_empty())
                && !self.awaits_room(set)
                && !self.awaits_commit(set)
        })
    }

    /// Keeps a sorted index of a database, for pages of KEYS.
    pub fn keep_order(&mut self, database: DatabaseIndex, now_ms: i64) {
        self.keyspace.order(database, now_ms);
    }
}
