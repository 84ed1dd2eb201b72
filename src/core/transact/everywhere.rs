//! Commands of a transaction that concern every key: DBSIZE, KEYS, SCAN, RANDOMKEY, FLUSHALL,
//! FLUSHDB, SWAPDB, PDEL.
//!
//! All shards are locked whole. What the transaction knows of keys is on its overlay; of all other
//! keys the shards are asked, which leave out those that it knows and those that it has deleted by
//! a pattern. The two parts together are the answer. A command that changes all keys is an effect
//! of its own, between the effects of what stood before it and behind it.

use crate::commands::scan::{Cursor, ScanOptions};
use crate::commands::{Call, Command, Gather, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::commands::table;
use crate::core::gather::{Part, merge_shards, read_page, scan_from, write_page};
use crate::core::shard::LocalShard;
use crate::core::transact::steps::{Progress, Step, Steps};
use crate::glob::Glob;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::{Key, KeyHash, View};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::transaction::INSTALL;
use std::collections::HashSet;
use std::sync::Arc;

/// Must the shards be asked for this command, within a transaction?
pub fn needs_every_key(command: &Command) -> bool {
    matches!(command.spread, Spread::Everywhere(_))
        && matches!(command.run, Run::Read(_) | Run::Write(_))
}

/// What a transaction still sees of one database of the shards.
#[derive(Clone, Default)]
struct Sight {
    /// The database as it was before; `None` once it was emptied.
    origin: Option<DatabaseIndex>,
    /// Keys that match one of these were deleted.
    deleted: Vec<Vec<u8>>,
}

/// What a transaction still sees of the shards' databases: all of them, until it changes them as a
/// whole.
#[derive(Default)]
pub struct Sights(Option<Vec<Sight>>);

impl Sights {
    /// Are they all as they were?
    pub fn are_whole(&self) -> bool {
        self.0.is_none()
    }

    fn of(&self, database: DatabaseIndex) -> Sight {
        match &self.0 {
            Some(sights) => sights[usize::from(database.0)].clone(),
            None => Sight { origin: Some(database), deleted: Vec::new() },
        }
    }

    /// Where a database was before; `None` once it was emptied.
    pub(in crate::core) fn origin(&self, database: DatabaseIndex) -> Option<DatabaseIndex> {
        self.of(database).origin
    }

    /// Is a key gone, whatever the shards have?
    pub fn hides(&self, database: DatabaseIndex, key: &[u8]) -> bool {
        let sight = self.of(database);
        sight.origin.is_none() || sight.deleted.iter().any(|glob| Glob::new(glob).matches(key))
    }

    /// A command has changed all keys of a database.
    pub fn note(&mut self, command: &Command, database: DatabaseIndex, arguments: Arguments<'_>) {
        let sights = self.0.get_or_insert_with(|| {
            let all = (0..DATABASE_COUNT as u8).map(DatabaseIndex);
            all.map(|origin| Sight { origin: Some(origin), deleted: Vec::new() }).collect()
        });
        let here = usize::from(database.0);
        match command.name {
            "flushall" => sights.fill(Sight::default()),
            "flushdb" => sights[here] = Sight::default(),
            "pdel" => sights[here].deleted.push(arguments.at(1).to_vec()),
            "swapdb" => {
                let number = |i| {
                    let number = crate::numbers::parse_integer(arguments.at(i));
                    usize::try_from(number.expect("it was run before")).expect("a database")
                };
                sights.swap(number(1), number(2));
            }
            name => unreachable!("{name} changes every key: say what is left of them"),
        }
    }
}

/// What shards are asked.
struct Question {
    command: &'static Command,
    database: DatabaseIndex,
    arguments: OwnedArguments,
    protocol: Protocol,
    seed: u64,
    /// Keys that the transaction knows of itself.
    known: HashSet<Vec<u8>>,
    /// Keys that match one of these are gone.
    deleted: Vec<Vec<u8>>,
    string_bytes_max: usize,
}

impl Question {
    /// The reply for the keys of a shard.
    fn answer(&self, shard: &LocalShard, now_ms: i64) -> Vec<u8> {
        let view = shard.keyspace.view(self.database, shard.time(now_ms));
        let globs: Vec<Glob<'_>> = self.deleted.iter().map(|deleted| Glob::new(deleted)).collect();
        let hidden =
            |key: &[u8]| self.known.contains(key) || globs.iter().any(|glob| glob.matches(key));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.protocol);
        if self.command.name == "dbsize" && self.deleted.is_empty() {
            // Without a walk.
            let here =
                |key: &&Vec<u8>| view.peek(&Key::new(key, view.hasher().hash(key))).is_some();
            reply.integer(view.count() as i64 - self.known.iter().filter(here).count() as i64);
            return out;
        }
        self.run(&view.without(&hidden), self.arguments.borrow(), &mut reply);
        out
    }

    fn run(&self, view: &View<'_>, arguments: Arguments<'_>, reply: &mut Reply<'_>) {
        let Run::Read(run) = self.command.run else { unreachable!("a question only reads") };
        let call = Call {
            command: self.command,
            arguments,
            first_key: KeyHash::default(),
            hasher: view.hasher(),
            seed: self.seed,
            string_bytes_max: self.string_bytes_max,
        };
        if let Err(refusal) = run(&call, view, reply) {
            reply.error_bytes(&refusal.line());
        }
    }
}

impl Core {
    /// Runs the present step, which concerns every key.
    pub(in crate::core) fn run_everywhere(&mut self, steps: &mut Steps) -> Progress {
        let protocol = self.protocol_of(steps);
        let Step { command, arguments, .. } = steps.current();
        let (command, arguments) = (*command, arguments.clone());
        if let Err(refusal) = self.check_arguments(command, arguments.borrow()) {
            Reply::new(&mut steps.replies, protocol).error_bytes(&refusal.line());
            return Progress::Done;
        }
        if command.run.writes() && command.spread != Spread::Everywhere(Gather::Sum) {
            self.change_everything(steps);
            return Progress::Done;
        }
        let question = self.question(steps, protocol).map(Arc::new);
        let shards = match command.spread {
            Spread::Everywhere(Gather::Cursor) => {
                let at = Cursor::of(arguments.borrow()).ok().and_then(Cursor::position);
                at.map_or(0, |at| self.router.shard_of_slot(at.slot).0)
            }
            _ => 0,
        }..self.router.shard_count() as u16;
        let gather = self.step_gather(protocol, shards.len());
        for (part, shard) in shards.enumerate() {
            let target = Target::Gather { index: gather, part: part as u32 };
            let origin = Origin::asks(self.id, target, protocol);
            let question = question.clone();
            self.at_shard(ShardId(shard), move |core, local| {
                // There is nothing to ask for in a database that was emptied.
                let now_ms = core.turn.now_ms;
                let answer = question.map(|asked| asked.answer(&core.shards[local], now_ms));
                core.answers.write(origin, |out| out.extend(answer.unwrap_or_default()));
            });
        }
        Progress::Waits
    }

    /// What the shards are asked for the present step; `None` when the database was emptied.
    fn question(&self, steps: &Steps, protocol: Protocol) -> Option<Question> {
        let Step { command, database, arguments, .. } = steps.current();
        let sight = steps.sights.of(*database);
        let command = match command.run {
            Run::Write(_) => table::internal("count-matching"),
            _ => command,
        };
        let overlay = steps.overlay.as_ref().expect("it is there while steps are locked");
        Some(Question {
            command,
            database: sight.origin?,
            arguments: arguments.clone(),
            protocol,
            seed: steps.current_seed(),
            known: overlay.loaded(*database).map(<[u8]>::to_vec).collect(),
            deleted: sight.deleted,
            string_bytes_max: self.settings.proto_max_bulk_len as usize,
        })
    }

    /// Puts the answers of the shards and what the overlay has together.
    pub(in crate::core) fn conclude_everywhere(&mut self, steps: &mut Steps, mut parts: Vec<Part>) {
        let protocol = self.protocol_of(steps);
        let refusal = parts.iter().find(|part| part.reply.first() == Some(&b'-'));
        if let Some(refusal) = refusal {
            return steps.replies.extend_from_slice(&refusal.reply);
        }
        let Step { command, database, arguments, .. } = steps.current();
        let (command, database, arguments) = (*command, *database, arguments.clone());
        let Spread::Everywhere(rule) = command.spread else { unreachable!("the caller looked") };
        if command.run.writes() {
            let own = self.change_everything(steps);
            parts.push(Part { reply: steps.replies.split_off(own) });
        } else {
            let overlay = steps.overlay.as_ref().expect("it is there while steps are locked");
            let asked = Question {
                command,
                database,
                arguments: arguments.clone(),
                protocol,
                seed: steps.current_seed(),
                known: HashSet::new(),
                deleted: Vec::new(),
                string_bytes_max: self.settings.proto_max_bulk_len as usize,
            };
            let view = overlay.view(database, self.turn.now_ms);
            if rule == Gather::Cursor {
                return self.conclude_scan(&asked, &view, &parts, &mut steps.replies);
            }
            let mut own = Vec::new();
            asked.run(&view, arguments.borrow(), &mut Reply::new(&mut own, protocol));
            parts.push(Part { reply: own });
        }
        // An emptied database has no part.
        parts.retain(|part| !part.reply.is_empty());
        let seed = steps.current_seed();
        let mut reply = Reply::new(&mut steps.replies, protocol);
        merge_shards(rule, &parts, &arguments, seed, &mut reply);
    }

    /// A page of SCAN: parts of shards in the order of their slots, until there is enough, and the
    /// keys of the overlay between its start and its end.
    fn conclude_scan(
        &self,
        asked: &Question,
        overlay: &View<'_>,
        parts: &[Part],
        replies: &mut Vec<u8>,
    ) {
        let (cursor, options) =
            (Cursor::of(asked.arguments.borrow()), ScanOptions::of(asked.arguments.borrow()));
        let (cursor, options) = match (cursor, options) {
            (Ok(cursor), Ok(options)) => (cursor, options),
            (Err(refusal), _) | (_, Err(refusal)) => {
                return Reply::new(replies, asked.protocol).error_bytes(&refusal.line());
            }
        };
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut next = Cursor::END;
        let first = self.router.shard_count() - parts.len();
        for (i, part) in parts.iter().enumerate() {
            next = read_page(&part.reply, &mut found);
            if next == Cursor::END && found.len() >= options.count && i + 1 < parts.len() {
                let slot = self.router.first_slot(ShardId((first + i + 1) as u16));
                let at = ringraft_shards::keyspace::ScanPosition { slot, hash: 0 };
                next = Cursor::new(Some(at));
            }
            if next != Cursor::END {
                break;
            }
        }
        // Some of those behind the end may come as well, and once more with the next page.
        let mut at = Some(cursor);
        while let Some(from) = at.filter(|at| next == Cursor::END || at.0 < next.0) {
            let mut own = Vec::new();
            let arguments = scan_from(from, asked.arguments.borrow());
            asked.run(overlay, arguments.borrow(), &mut Reply::new(&mut own, asked.protocol));
            at = Some(read_page(&own, &mut found)).filter(|at| *at != Cursor::END);
        }
        write_page(next, &found, &mut Reply::new(replies, asked.protocol));
    }

    /// Runs the present step, which changes every key, on the overlay, and makes it an effect on
    /// every shard, behind those of what was changed before. Returns where its reply begins.
    fn change_everything(&mut self, steps: &mut Steps) -> usize {
        let protocol = self.protocol_of(steps);
        let Step { command, database, arguments, .. } = steps.current();
        let (command, database, arguments) = (*command, *database, arguments.clone());
        let now_ms = self.turn.now_ms;
        let router = &self.router;
        let mut overlay = steps.overlay.take().expect("it is there while steps are locked");
        overlay.flush(now_ms, |database, key, arguments| {
            let shard = router.shard(key.hash());
            steps.push_effect(shard, (INSTALL, database, key.hash()), arguments);
        });
        for shard in 0..router.shard_count() as u16 {
            let effect = (command.number, database, KeyHash::default());
            steps.push_effect(ShardId(shard), effect, arguments.borrow());
        }
        let start = steps.replies.len();
        let seed = steps.current_seed();
        let mut edit = overlay.edit(database, now_ms);
        let mut reply = Reply::new(&mut steps.replies, protocol);
        let bytes_max = self.settings.proto_max_bulk_len as usize;
        let (run, key, view) =
            (crate::core::shard::run_operation, KeyHash::default(), arguments.borrow());
        if let Err(refusal) = run(&mut edit, command, key, view, seed, bytes_max, &mut reply) {
            unreachable!("{} was checked: {refusal}", command.name);
        }
        // The shards will be told by the effect.
        overlay.flush(now_ms, |_, _, _| {});
        steps.sights.note(command, database, arguments.borrow());
        steps.overlay = Some(overlay);
        start
    }
}
