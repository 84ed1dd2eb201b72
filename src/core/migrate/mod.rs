//! MIGRATE: keys move to another server, and are never at none of the two (decision 0021).
//!
//! A transaction locks the keys, one shard or many, and stays open while a *carrier* works: a
//! thread of its own, which may block. The carrier asks for the keys in slices, which the shards'
//! cores read between their other work; it makes payloads of them, sends RESTORE after RESTORE, and
//! hears what the target says. What the target has acknowledged is deleted by the transaction's
//! effects. Dies this process before, the keys are here, and perhaps there too.
//!
//! A carrier keeps its connection for a while and carries for others to the same target:
//! [`MIGRATE_LINES_KEPT_MS`].

mod carrier;
mod line;

use crate::core::client::answers::Target;
use crate::core::client::connection::Hold;
use crate::core::commands::table;
use crate::core::mail::mailbox::MailboxSender;
use crate::core::shard::LocalShard;
use crate::core::transact::participate::{Ask, Copies, Found, What};
use crate::core::{Core, SessionContext};
use crate::limits::{
    MIGRATE_LINES_KEPT_MAX, MIGRATE_LINES_KEPT_MS, MIGRATE_SLICE_KEYS_MAX, MIGRATIONS_MAX,
};
use crate::resp::reply::{Protocol, Reply};
use carrier::{Carriage, Stage};
use crossbeam_channel::Sender;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::Key;
use ringraft_shards::limits::ITEM_PIECE_BYTES;
use ringraft_shards::rdb::write_item;
use ringraft_shards::transaction::{LockKey, LockSet, Part, TransactionId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client is told whose keys were not begun to move when the process ends.
const STOPPING: &str = "ERR the server is shutting down";

/// Where keys go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name or an address.
    pub host: Vec<u8>,
    /// As it was given.
    pub port: Vec<u8>,
}

/// What a MIGRATE asks for.
#[derive(Debug)]
pub struct Migration {
    /// The target.
    pub destination: Destination,
    /// The target's database.
    pub database: i64,
    /// For how long the target may be silent.
    pub patience: Duration,
    /// The keys, in the order given.
    pub keys: Vec<Vec<u8>>,
    /// Do they stay here?
    pub copies: bool,
    /// May they replace what the target has?
    pub replaces: bool,
    /// What AUTH is sent with, if anything.
    pub credentials: Vec<Vec<u8>>,
}

/// A MIGRATE of a client.
pub struct Moving {
    target: Target,
    protocol: Protocol,
    /// Where the keys are here.
    database: DatabaseIndex,
    migration: Arc<Migration>,
    arguments: OwnedArguments,
    asked: Instant,
}

/// One whose carrier works.
struct Running {
    moving: Box<Moving>,
    stage: Arc<Stage>,
    carrier: Sender<Carriage>,
}

/// A carrier that waits for work.
struct Idle {
    destination: Destination,
    carrier: Sender<Carriage>,
    since_ms: i64,
}

/// The MIGRATEs of a core.
#[derive(Default)]
pub struct Migrations {
    running: BTreeMap<TransactionId, Running>,
    /// Begun, and waiting for their locks.
    locking: usize,
    /// Not begun: so many are under way.
    waiting: VecDeque<Box<Moving>>,
    idle: Vec<Idle>,
}

impl Migrations {
    /// Is there anything to be looked after?
    pub fn has_any(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty() || !self.idle.is_empty()
    }
}

/// A slice of a key's item.
#[derive(Debug)]
pub(in crate::core) struct Slice {
    /// A record of it, as in snapshots; empty when there is no such key.
    pub record: Vec<u8>,
    /// Where it goes on.
    pub next: Option<u64>,
}

/// What a carrier wants to know: the keys of one shard from a place on.
pub(in crate::core) struct Question {
    id: TransactionId,
    shard: ShardId,
    database: DatabaseIndex,
    keys: Arc<[Vec<u8>]>,
    /// Which key, and where in its value.
    from: (usize, u64),
    /// `None`: the keys are not locked any more.
    answer: Sender<Option<Vec<Slice>>>,
}

/// How a carriage ended.
pub(in crate::core) struct Arrived {
    /// Keys that the target has taken.
    acknowledged: Vec<Vec<u8>>,
    /// The error that the client is told.
    error: Option<Vec<u8>>,
    after: After,
}

/// What a carrier does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It waits for others to the same target, with its connection.
    Waits,
    /// It is of no more use: its connection is gone.
    Ends,
}

impl SessionContext<'_> {
    /// Moves keys. The connection goes on when it is answered.
    pub fn migrate(&mut self, migration: Migration, arguments: Arguments<'_>) {
        let connection = self.connection();
        connection.hold = Hold::Answer;
        let (protocol, database) = (connection.session.protocol, connection.session.database);
        if let Target::Connection { sequence, .. } = self.target {
            self.connection().last_ordered = Some(sequence);
        }
        let moving = Box::new(Moving {
            target: self.target,
            protocol,
            database,
            migration: Arc::new(migration),
            arguments: OwnedArguments::copy(arguments),
            asked: Instant::now(),
        });
        self.core.migrations.waiting.push_back(moving);
        self.core.begin_migrations();
    }
}

impl Core {
    /// Begins those that wait, as many as may be under way.
    fn begin_migrations(&mut self) {
        while self.migrations.running.len() + self.migrations.locking < MIGRATIONS_MAX
            && let Some(moving) = self.migrations.waiting.pop_front()
        {
            self.migrations.locking += 1;
            let mut needs: BTreeMap<ShardId, (LockSet, Vec<_>)> = BTreeMap::new();
            for key in &moving.migration.keys {
                let hash = self.router.hash(key);
                let (locks, items) = needs.entry(self.router.shard(hash)).or_default();
                locks.keys.push(LockKey::new(hash, !moving.migration.copies));
                items.push((moving.database, key.clone()));
            }
            let part = |(shard, (locks, items))| {
                let what = What::Items(items, Copies::Presence);
                Part { shard, locks, fetch: Box::new(Ask { what, ..Ask::default() }) }
            };
            let parts = needs.into_iter().map(part).collect();
            let whose = (moving.target, moving.protocol);
            self.begin_migration(moving, whose, parts);
        }
    }

    /// One that waited for its locks ended without them.
    pub(in crate::core) fn migration_not_locked(&mut self) {
        self.migrations.locking -= 1;
        self.begin_migrations();
    }

    /// The keys are locked, and it is known which there are.
    pub(in crate::core) fn carry(
        &mut self,
        id: TransactionId,
        moving: Box<Moving>,
        found: Vec<(ShardId, Found)>,
    ) {
        self.migrations.locking -= 1;
        let mut parts = Vec::new();
        for (shard, found) in found {
            let present = found.into_items().into_iter().filter(|fetched| fetched.item.is_some());
            let mut keys: Vec<Vec<u8>> = present.map(|fetched| fetched.key).collect();
            // One that is named twice moves once: the second time it is gone.
            let mut seen = std::collections::HashSet::new();
            keys.retain(|key| seen.insert(key.clone()));
            if !keys.is_empty() {
                parts.push((shard, Arc::from(keys)));
            }
        }
        if parts.is_empty() {
            return self.moved(id, &moving, Vec::new(), |reply| reply.simple("NOKEY"));
        }
        let stage = Arc::new(Stage::default());
        let carriage = Carriage {
            id,
            migration: moving.migration.clone(),
            database: moving.database,
            parts,
            hasher: self.router.hasher(),
            core: self.own_mailbox(),
            stage: stage.clone(),
        };
        let destination = moving.migration.destination.clone();
        match self.find_carrier(&destination) {
            Ok(carrier) => {
                carrier.send(carriage).expect("a carrier lives as long as the way to it");
                self.migrations.running.insert(id, Running { moving, stage, carrier });
            }
            Err(error) => self.moved(id, &moving, Vec::new(), |reply| {
                reply.error(&format!("ERR no thread for MIGRATE: {error}"));
            }),
        }
    }

    fn own_mailbox(&self) -> MailboxSender {
        self.doors.mailboxes[usize::from(self.id)].clone()
    }

    /// A carrier with a connection to the target, or a new one.
    fn find_carrier(&mut self, destination: &Destination) -> std::io::Result<Sender<Carriage>> {
        let idle = &mut self.migrations.idle;
        let kept = idle.iter().rposition(|idle| idle.destination == *destination);
        kept.map_or_else(carrier::start, |at| Ok(idle.remove(at).carrier))
    }

    /// A carrier has come to its end with a carriage.
    fn arrived(&mut self, id: TransactionId, arrived: Arrived) {
        let Some(running) = self.migrations.running.remove(&id) else { return };
        let Running { moving, carrier, .. } = running;
        if arrived.after == After::Waits {
            let destination = moving.migration.destination.clone();
            let since_ms = self.turn.steady_ms;
            self.migrations.idle.push(Idle { destination, carrier, since_ms });
            if self.migrations.idle.len() > MIGRATE_LINES_KEPT_MAX {
                self.migrations.idle.remove(0);
            }
        }
        let gone = match moving.migration.copies {
            true => Vec::new(),
            false => arrived.acknowledged,
        };
        match arrived.error {
            None => self.moved(id, &moving, gone, |reply| reply.ok()),
            Some(error) => self.moved(id, &moving, gone, |reply| reply.error_bytes(&error)),
        }
    }

    /// Deletes what has moved, and answers when that is committed.
    fn moved(
        &mut self,
        id: TransactionId,
        moving: &Moving,
        gone: Vec<Vec<u8>>,
        write: impl FnOnce(&mut Reply<'_>),
    ) {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, moving.protocol));
        let row = table::find(b"migrate").expect("a row");
        let is_error = out.first() == Some(&b'-');
        if is_error {
            self.stats.commands[usize::from(row.number)].failed += 1;
            let line = out[1..].strip_suffix(b"\r\n").unwrap_or(&out[1..]).to_vec();
            self.stats.refuse(line, 0, &mut Reply::new(&mut out, moving.protocol));
        }
        let took = self.stats.count(row, 1, moving.asked).duration_since(moving.asked);
        if let Target::Connection { index, .. } = moving.target {
            self.note_slow(row, took, index, moving.arguments.borrow());
        }
        let mut effects: BTreeMap<ShardId, BatchBuilder> = BTreeMap::new();
        let del = table::find(b"del").expect("a row");
        for key in &gone {
            let hash = self.router.hash(key);
            let words: OwnedArguments = [&b"del"[..], key].into_iter().collect();
            let batch = effects.entry(self.router.shard(hash)).or_default();
            batch.push(del.number, moving.database, hash, words.borrow());
        }
        self.carried(id, out, effects.into_iter().collect());
        self.begin_migrations();
    }

    /// Lets a shard answer a carrier.
    fn ask_slices(&mut self, question: Question) {
        self.at_shard(question.shard, move |core, local| {
            let shard = &core.shards[local];
            let found = shard
                .participant
                .holds(question.id)
                .then(|| slices(shard, &question, shard.time(core.turn.now_ms)));
            // A carrier that was given up does not listen any more.
            let _ = question.answer.send(found);
        });
    }

    /// What is to be done for MIGRATEs ten times a second.
    pub(in crate::core) fn tend_migrations(&mut self) {
        for id in self.migrations.running.keys() {
            self.transactions.coordinator.keep(*id, &mut self.transactions.coordinated);
        }
        let steady_ms = self.turn.steady_ms;
        self.migrations.idle.retain(|idle| steady_ms - idle.since_ms < MIGRATE_LINES_KEPT_MS);
    }

    /// The end of the process: nothing is begun any more, and what is under way ends.
    pub(in crate::core) fn stop_migrations(&mut self) {
        for moving in std::mem::take(&mut self.migrations.waiting) {
            self.answers.write_here(moving.target, |out| {
                Reply::new(out, moving.protocol).error(STOPPING);
            });
            self.release_hold(moving.target);
        }
        let running = &self.migrations.running;
        let silent = running.iter().filter(|(_, running)| running.stage.give_up());
        let silent: Vec<TransactionId> = silent.map(|(id, _)| *id).collect();
        for id in silent {
            // It has sent nothing and never will.
            let error = Some(STOPPING.into());
            self.arrived(id, Arrived { acknowledged: Vec::new(), error, after: After::Ends });
        }
    }
}

/// The next slices of a shard's keys: about as much as a piece of one value.
fn slices(shard: &LocalShard, question: &Question, now_ms: i64) -> Vec<Slice> {
    let (mut nth, mut from) = question.from;
    let (mut slices, mut bytes) = (Vec::new(), 0);
    let view = shard.keyspace.view(question.database, now_ms);
    while let Some(key) = question.keys.get(nth)
        && bytes < ITEM_PIECE_BYTES
        && slices.len() < MIGRATE_SLICE_KEYS_MAX
    {
        let mut record = Vec::new();
        let item = view.peek(&Key::new(key, view.hasher().hash(key)));
        let next = item.and_then(|item| write_item(&mut record, question.database, item, from));
        bytes += record.len();
        slices.push(Slice { record, next });
        (nth, from) = next.map_or((nth + 1, 0), |next| (nth, next));
    }
    slices
}
