//! What a core tells about itself: the findings that INFO, MEMORY STATS and the metrics page are
//! made of.

use crate::core::Core;
use crate::core::client::clients::client_memory;
use crate::core::cluster::META;
use crate::core::disk::snapshots::SnapshotReport;
use crate::core::observe::rates::Rate;
use crate::core::observe::stats::Stats;
use crate::core::place::board::CoreLoad;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::raft::{Role, Status};

/// One core's findings.
pub struct CoreReport {
    /// Its number.
    pub core: u16,
    /// Its cpu.
    pub cpu: usize,
    /// Is it in use?
    pub is_in_use: bool,
    /// Since when it is, or is not, seconds.
    pub since_seconds: i64,
    /// Share of its time that it worked lately.
    pub busy: f64,
    /// Share of its time in which requests that had come waited for another turn.
    pub behind: f64,
    /// Its counters.
    pub stats: Stats,
    /// How fast they grow.
    pub rate: Rate,
    /// Its shards.
    pub shards: Vec<ShardReport>,
    /// Clients connected to it.
    pub client_count: usize,
    /// Of those, the ones that CLIENT PAUSE holds back.
    pub paused_client_count: usize,
    /// Clients whose request blocks.
    pub blocked_client_count: usize,
    /// Its clients that track keys.
    pub tracking_client_count: usize,
    /// Keys that they track, readers of these, and prefixes.
    pub tracking: (usize, usize, usize),
    /// Its clients that have subscribed to channels.
    pub pubsub_client_count: usize,
    /// Of those, the ones with watched keys.
    pub watching_client_count: usize,
    /// Memory of their buffers.
    pub client_bytes: usize,
    /// Memory of its interpreter of scripts.
    pub script_bytes: usize,
    /// The largest unparsed request among them, and the largest unsent reply.
    pub largest_buffers: (usize, usize),
    /// What its socket ring uses.
    pub features: String,
}

/// One shard as its core sees it.
pub struct ShardReport {
    /// Which.
    pub id: ShardId,
    /// Its slots, first and last.
    pub slots: (usize, usize),
    /// Keys, and keys with a deadline, of each database.
    pub keys: Vec<(u64, u64)>,
    /// Bytes of items, tables and indexes.
    pub used_bytes: u64,
    /// Items that were moved so that memory could be given back.
    pub compacted_count: u64,
    /// Its share of `maxmemory`; 0 is no limit.
    pub memory_limit: u64,
    /// Requests that wait for the log.
    pub waiting_count: usize,
    /// Transactions over several shards, and single requests that wait for them, which hold or
    /// want locks here.
    pub locker_count: usize,
    /// Transactions that are prepared here and not decided.
    pub prepared_count: usize,
    /// Transactions that are committed here and, as far as is known, not everywhere.
    pub unforgotten_count: usize,
    /// Milliseconds that keys with a deadline have left on average, for each database.
    pub average_ttl_ms: Vec<i64>,
    /// Keys found and not found.
    pub lookups: (u64, u64),
    /// Its snapshots.
    pub snapshots: SnapshotReport,
    /// Is there no room for its log to grow?
    pub is_starved: bool,
    /// Its Raft group.
    pub raft: Status,
}

impl ShardReport {
    /// The role of this node in its group, in a word.
    pub fn role(&self) -> &'static str {
        match self.raft.role {
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }

    /// Keys of all databases.
    pub fn key_count(&self) -> u64 {
        self.keys.iter().map(|(keys, _)| keys).sum()
    }
}

impl Core {
    /// Describes this core and its shards, and brings what the process knows of their memory up to
    /// date.
    pub fn report(&mut self) -> CoreReport {
        self.give_back_memory(0);
        let clients = || {
            let connections = self.answers.connections.iter();
            connections.map(|(_, c)| c).filter(|c| c.kind.is_client() && !c.closed)
        };
        let board = &self.shared.board;
        let load = match self.governor.is_resting {
            true => CoreLoad::default(),
            false => board.read(self.id),
        };
        CoreReport {
            core: self.id,
            cpu: self.cpu(),
            is_in_use: board.is_in_use(self.id),
            since_seconds: (self.steady_ms() - board.since_ms(self.id)) / 1000,
            busy: load.busy,
            behind: load.behind,
            stats: self.stats.clone(),
            rate: self.rates.rate(),
            shards: self.shard_reports(),
            client_count: clients().count(),
            paused_client_count: self.paused_clients(),
            blocked_client_count: self.answers.blocks.count(),
            tracking_client_count: self.tracker_count(),
            tracking: self.tracking.sizes(),
            pubsub_client_count: clients().filter(|c| c.session.subscriptions.is_some()).count(),
            watching_client_count: clients().filter(|c| !c.session.watched.is_empty()).count(),
            client_bytes: clients().map(|c| client_memory(c)).sum(),
            script_bytes: self.scripts.used_bytes(),
            largest_buffers: (
                clients().map(|c| c.unparsed()).max().unwrap_or(0),
                clients().map(|c| c.replies.waiting_bytes()).max().unwrap_or(0),
            ),
            features: self.doors.ring.features().to_string(),
        }
    }

    fn shard_reports(&self) -> Vec<ShardReport> {
        let databases = (0..DATABASE_COUNT).map(|n| DatabaseIndex(n as u8));
        let report = |shard: &crate::core::shard::LocalShard| {
            let slots = self.router.slot_range(shard.id);
            let keyspace = &shard.keyspace;
            ShardReport {
                id: shard.id,
                slots: (slots.first.number(), slots.last.number()),
                keys: databases
                    .clone()
                    .map(|database| (keyspace.count(database), keyspace.expiring_count(database)))
                    .collect(),
                used_bytes: shard.used_bytes(),
                compacted_count: keyspace.compacted_count(),
                memory_limit: shard.memory_limit,
                waiting_count: shard.waiting_count(),
                locker_count: shard.participant.count(),
                prepared_count: keyspace.ledger().prepared_count(),
                unforgotten_count: keyspace.ledger().committed_count(),
                average_ttl_ms: databases.clone().map(|d| keyspace.average_ttl_ms(d)).collect(),
                lookups: keyspace.lookups(),
                snapshots: shard.snapshots.report(),
                is_starved: shard.is_starved(),
                raft: shard.group.status(),
            }
        };
        self.shards.iter().filter(|shard| shard.id != META).map(report).collect()
    }
}

/// What several cores found, added up.
pub struct Totals {
    /// The findings, in the order of the cores.
    pub cores: Vec<CoreReport>,
    /// All counters together.
    pub stats: Stats,
    /// All growth together.
    pub rate: Rate,
}

impl Totals {
    /// Adds up.
    pub fn of(cores: Vec<CoreReport>) -> Totals {
        let (mut stats, mut rate) = (Stats::default(), Rate::default());
        for core in &cores {
            stats.add(&core.stats);
            rate += core.rate;
            for shard in &core.shards {
                stats.keyspace_hits += shard.lookups.0;
                stats.keyspace_misses += shard.lookups.1;
            }
        }
        Totals { cores, stats, rate }
    }

    /// The shards of all cores, in the order of their numbers, each with its core.
    pub fn shards(&self) -> Vec<(u16, &ShardReport)> {
        let mut shards: Vec<(u16, &ShardReport)> = self
            .cores
            .iter()
            .flat_map(|core| core.shards.iter().map(move |shard| (core.core, shard)))
            .collect();
        shards.sort_by_key(|(_, shard)| shard.id);
        shards
    }

    /// A sum over the cores.
    pub fn sum(&self, of: impl Fn(&CoreReport) -> usize) -> usize {
        self.cores.iter().map(of).sum()
    }

    /// Bytes of items, tables and indexes of all shards.
    pub fn data_bytes(&self) -> u64 {
        self.cores.iter().flat_map(|core| &core.shards).map(|shard| shard.used_bytes).sum()
    }

    /// Bytes of the logs of all shards that are kept in memory.
    pub fn log_bytes(&self) -> u64 {
        let shards = self.cores.iter().flat_map(|core| &core.shards);
        shards.map(|shard| shard.raft.cache_bytes).sum()
    }

    /// Keys of all shards and databases.
    pub fn key_count(&self) -> u64 {
        self.cores.iter().flat_map(|core| &core.shards).map(ShardReport::key_count).sum()
    }
}
