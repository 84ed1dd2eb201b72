//! One shard as its core drives it: items, Raft group, and the requests that wait for the log.
//!
//! What is proposed together, what waits behind which entry and who is answered when is the
//! engine's (`ringraft_shards::serve`): the same code that the simulation drives. Here is what
//! commands mean (`run.rs`) and how the server answers (`host.rs`). Every write of a turn joins one
//! set, which becomes one Raft entry. While entries are on their way to the disk the next set
//! gathers. A read that must see a write before it rides in the same set and runs at its place when
//! the entry is applied. Replies are written where requests are executed, in that order.

#[cfg(test)]
mod beforehand_tests;
pub(in crate::core) mod drive;
mod host;
mod lease;
pub(in crate::core) mod reclaim;
#[cfg(test)]
mod replicas_tests;
mod run;
#[cfg(test)]
mod twins_tests;

use crate::commands::{Command, Run};
use crate::core::Chance;
use crate::core::Shared;
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::client::session::Watched;
use crate::core::cluster::fitness::Fitness;
use crate::core::cluster::follow::Told;
use crate::core::cluster::lanes::Lanes;
use crate::core::cluster::transfer::Replication;
use crate::core::disk::snapshots::ShardSnapshots;
use crate::core::disk::storage::ShardFiles;
use crate::core::observe::stats::Stats;
use crate::core::shard::reclaim::Evictions;
use crate::core::transact::ahead::Ahead;
use crate::core::transact::participate::Parked;
use crate::core::wait::acknowledge::{CopyWait, SyncWait};
use crate::core::wait::readers::Readers;
use crate::core::wait::waiting::{Interests, Waiters};
use crate::resp::reply::Protocol;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::batch::Batch;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::{EvictionPolicy, KeyHash, Keyspace};
use ringraft_shards::limits::STRING_BYTES_DEFAULT;
use ringraft_shards::raft::Group;
use ringraft_shards::remembered::Recollection;
use ringraft_shards::serve::{self, Server};
use ringraft_shards::stamp::{Answer, Stamp, Stamped};
use ringraft_shards::value::Limits;
use std::collections::{BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

pub use run::{Seeking, fetch_members, numbered, run_operation, run_read, seed_of};

/// Who waits for a request.
#[derive(Clone, Copy)]
pub struct Caller {
    /// Its row.
    pub command: &'static Command,
    /// Who asked.
    pub origin: Origin,
}

/// Requests that will be proposed together.
pub(in crate::core) type Set = serve::Set<LocalShard>;

/// Where a shard's answers go, and what is counted.
pub struct ShardTurn<'a> {
    /// Replies.
    pub answers: &'a mut Answers,
    /// Counts; they know the time.
    pub stats: &'a mut Stats,
}

/// A shard and everything that waits on it: the engine's server of it, and what this process adds.
pub struct LocalShard {
    /// Items, Raft group, and the requests that wait for the log.
    pub server: Server<LocalShard>,
    chance: Chance,
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
    /// Who waits for other nodes to have them.
    pub(in crate::core) copy_waits: Vec<CopyWait>,
    /// Its log's files; none in `cache` mode.
    pub files: Option<ShardFiles>,
    /// For each core, the time of the last lock that it asked for.
    pub(in crate::core) last_locks: Vec<u64>,
    /// Requests that came while it did not serve: no more than its clients may have unfinished.
    pub(in crate::core) held: VecDeque<Parked>,
    /// Commands that wait for its keys.
    pub(in crate::core) waiters: Waiters,
    /// What scripts have done that the log does not have yet.
    pub(in crate::core) ahead: Ahead,
    /// Reads that wait for its keys.
    pub(in crate::core) readers: Readers,
    /// Clients that wait for keys of other shards too.
    pub(in crate::core) interests: Interests,
    /// Does it serve no longer, while commands may still wait?
    pub(in crate::core) is_deposed: bool,
    /// Requests that had no effect here, because another node leads.
    pub(in crate::core) sent_back: Vec<Parked>,
    /// What stamps of other nodes' requests stand for.
    pub(in crate::core) lanes: Arc<Lanes>,
    /// Who may lead in this node's place.
    pub(in crate::core) fitness: Arc<Fitness>,
    /// When it was last handed over for lack of room, milliseconds since the Unix epoch.
    handed_over_ms: i64,
    /// How often its replica was lost while the process runs.
    pub(in crate::core) losses: u64,
    /// Has it ever had such a request?
    serves_sessions: bool,
    /// Answers to other nodes' questions, to be sent.
    pub(in crate::core) told: Vec<Told>,
    /// What goes to other nodes and comes from them.
    pub(in crate::core) replication: Option<Box<Replication>>,
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

/// What the engine's server knows is the shard's: items, group, participant.
impl Deref for LocalShard {
    type Target = Server<LocalShard>;

    #[inline(always)]
    fn deref(&self) -> &Server<LocalShard> {
        &self.server
    }
}

impl DerefMut for LocalShard {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Server<LocalShard> {
        &mut self.server
    }
}

impl Request<'_> {
    /// Who waits for it.
    #[inline(always)]
    pub fn caller(&self) -> Caller {
        Caller { command: self.command, origin: self.origin }
    }
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
            server: Server::new(id, keyspace, group, last_time_ms),
            chance: Chance::new(chance),
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
            copy_waits: Vec::new(),
            files: None,
            last_locks: Vec::new(),
            held: VecDeque::new(),
            waiters: Waiters::default(),
            ahead: Ahead::default(),
            readers: Readers::default(),
            interests: Interests::default(),
            is_deposed: false,
            sent_back: Vec::new(),
            lanes: Arc::default(),
            fitness: Arc::default(),
            handed_over_ms: 0,
            losses: 0,
            serves_sessions: false,
            told: Vec::new(),
            replication: None,
        }
    }

    /// Takes part in what all shards of the process share.
    pub(in crate::core) fn share(&mut self, shared: &Shared) {
        self.lanes = shared.lanes.clone();
        self.fitness = shared.cluster.fitness.clone();
    }

    /// Random bits: for the leader's choices, which travel in the entry.
    pub fn random(&mut self) -> u64 {
        self.chance.bits()
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

    /// Appends a write to the entry that gathers. Cost: one copy of its arguments.
    #[inline]
    pub fn gather_write(&mut self, request: &Request<'_>) {
        self.server.gather_write(
            request.caller(),
            request.command.number,
            request.database,
            request.first_key,
            request.arguments,
        );
        self.serves_sessions |= request.origin.stamp.is_some();
        if !self.waiters.is_empty() {
            self.declare_behind(request);
        }
    }

    /// Says in a set, which is about to be proposed, whose requests are in it.
    #[cold]
    fn stamp_set(&self, set: &mut Set) {
        let stamps = set.batch.stamps_mut();
        stamps.clear();
        let stamped = set.order.iter().filter(|waiting| waiting.who.origin.stamp.is_some());
        for waiting in stamped.filter(|waiting| waiting.proposed) {
            let origin = waiting.who.origin;
            if let Some(stamp) = self.lanes.stamp(origin.stamp) {
                let manner = u8::from(origin.protocol == Protocol::Resp3);
                let answer = Answer::Operation { place: waiting.place, manner };
                stamps.push(&Stamped { stamp, answer });
            }
        }
    }

    /// What this shard remembers of these requests; `None` while one of them may still be decided.
    pub(in crate::core) fn recall(
        &self,
        asked: &BTreeSet<Stamp>,
    ) -> Option<Vec<(Stamp, Recollection)>> {
        let decides = |effects: &[u8]| {
            let batch = Batch::read(effects).expect("effects are a batch");
            batch.stamps().any(|stamped| asked.contains(&stamped.stamp))
        };
        let is_known = self.serves() && !self.keyspace.ledger().undecided().any(decides);
        is_known.then(|| self.keyspace.remembered().recall(asked))
    }

    /// Appends a write to the newest set, whatever its size.
    pub(in crate::core) fn gather_beside(&mut self, request: &Request<'_>) {
        let (number, database) = (request.command.number, request.database);
        let (first_key, arguments) = (request.first_key, request.arguments);
        self.server.gather_beside(request.caller(), number, database, first_key, arguments);
    }

    /// Appends a transaction that runs only if watched keys did not change.
    pub fn gather_guarded(&mut self, request: &Request<'_>, guard: Vec<Watched>) {
        self.server.begin_guarded();
        self.gather_write(request);
        self.server.guard(guard);
    }

    /// Appends a read behind the writes it must see.
    pub fn gather_rider(&mut self, request: &Request<'_>) {
        let (number, database) = (request.command.number, request.database);
        let (first_key, arguments) = (request.first_key, request.arguments);
        self.server.gather_rider(request.caller(), number, database, first_key, arguments);
    }

    /// Gathers a request for its place in the shard's order. False: it would grow memory past the
    /// bound and nothing can be evicted.
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
            self.gather_read(request);
            return true;
        }
        if request.command.flags.grows && !self.has_room(stats) {
            return false;
        }
        self.gather_write(request);
        true
    }

    /// A read takes its place behind the writes before it. Where another node may lead, one that
    /// has nothing before it waits for the certainty that this one does.
    #[inline]
    fn gather_read(&mut self, request: &Request<'_>) {
        let is_plain = matches!(request.command.run, Run::Read(_)) && !request.origin.rides;
        let waits = matches!(request.origin.target, Target::Block(_));
        if is_plain && !waits && !self.is_alone() {
            self.server.gather_read(Parked::copy(request, None));
        } else {
            self.gather_rider(request);
        }
    }

    #[cold]
    fn gather_block(&mut self, request: &Request<'_>, stats: &mut Stats) -> bool {
        if request.command.flags.grows && !self.has_room(stats) {
            return false;
        }
        self.gather_waiting(request);
        true
    }

    /// Keeps a sorted index of a database, for pages of KEYS.
    pub fn keep_order(&mut self, database: DatabaseIndex, now_ms: i64) {
        self.keyspace.order(database, now_ms);
    }
}
