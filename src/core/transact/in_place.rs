//! Scripts on a shard of this core that nobody else has and that has no log, or one that does not
//! wait for the disk: they run on its items (decisions 0028 and 0032).
//!
//! What a script did is done when it ends, without copies and without a record. Where there is a
//! log the commands that it ran are operations of the turn's next entry, done beforehand. What was
//! gathered before is applied before. Each key is saved before its first change, so that nothing is
//! left of a script that is killed, that runs for long, that wants more than this shard has or does
//! more than its log takes: all but the first run again on copies (`ahead.rs`, `scripts.rs`).

use crate::acl::user::User;
use crate::commands::Command;
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::push::writer_of;
use crate::core::shard::{LocalShard, seed_of};
use crate::core::transact::everywhere::Sights;
use crate::limits::{
    SCRIPT_AHEAD_TIME_MAX, SCRIPT_ARGUMENTS_KEPT_BYTES, SCRIPT_DETOURS, SCRIPT_REPLY_KEPT_BYTES,
};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use crate::script::call::{Done, Run};
use crate::script::ground::{Draft, Ground, OwnItems, run_in_place};
use crate::script::interpreter::{Job, Script};
use crate::settings::values::Fsync;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::Keyspace;
use ringraft_shards::log::Layout;
use ringraft_shards::slot::SLOT_COUNT;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What runs of scripts leave for the next one, so that it allocates nothing.
#[derive(Default)]
pub struct Spare {
    run: Option<Box<Run>>,
    reply: Vec<u8>,
    /// Of no meaning.
    pub(in crate::core) arguments: OwnedArguments,
    /// Empty.
    pub(super) effects: BatchBuilder,
}

/// What a client asks for: its arguments, and whose rights it has if they are not all.
type Asked = (OwnedArguments, Option<Arc<User>>);

impl LocalShard {
    /// May a script run on its items, when everything gathered is applied? Nobody waits for its
    /// keys, who would have to be served between this script and the next.
    fn lets_scripts_in(&self) -> bool {
        (self.group.is_alone() || self.logs_at_once())
            && self.is_open()
            && self.waiters.is_empty()
            && self.readers.is_empty()
            && self.interests.is_empty()
    }

    /// Has it a log that does not wait for the disk?
    fn logs_at_once(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.fsync() != Fsync::Always)
    }

    /// A script has ended, or is given up: its changes stay, or they are undone. False: the log
    /// would not take them, and they are undone too.
    fn conclude_in_place(&mut self, run: &mut Run, events: usize, mut stays: bool) -> bool {
        let (group, keyspace) = (&self.server.group, &mut self.server.keyspace);
        let items = run.ground.own_items().expect("it was made with them");
        let draft = items.draft.take();
        let has_room = draft
            .as_ref()
            .is_none_or(|draft| !draft.has_grown() || group.takes_at_once(draft.bytes()));
        stays &= has_room;
        if stays {
            items.undo.clear();
        } else {
            items.undo.roll_back(keyspace, run.now_ms);
            keyspace.forget_events_behind(events);
            run.done.wrote = false;
            run.done.published.clear();
        }
        match draft {
            Some(draft) if stays => self.server.end_beforehand(draft.into_batch()),
            Some(draft) => self.server.end_beforehand(draft.into_batch_before()),
            None if run.done.wrote => {
                self.snapshots.note_applied(0, 1);
                self.applied_operations += 1;
            }
            None => {}
        }
        has_room
    }
}

impl Core {
    /// Runs a script on a shard's items if it can be. Else what was asked comes back, and nothing
    /// has happened.
    pub(super) fn run_in_place(
        &mut self,
        (index, target): (u32, Target),
        (command, database): (&'static Command, DatabaseIndex),
        arguments: OwnedArguments,
        user: Option<Arc<User>>,
    ) -> Option<Asked> {
        let asked = (arguments, user);
        let Some(local) = self.shard_of_script(command, asked.0.borrow()) else {
            return Some(asked);
        };
        if !self.takes_in_place(local) || self.stamp_of(target).is_some() {
            return Some(asked);
        }
        let clock = Instant::now();
        let found = self.find_script(command, asked.0.borrow());
        let found = found.and_then(|(script, key_count)| {
            Ok((self.check_traits(script.traits, command, asked.0.borrow())?, script, key_count))
        });
        let (lacks_memory, script, key_count) = match found {
            Ok(found) => found,
            Err(refusal) => {
                let outcome = Err(refusal);
                self.answer_script(
                    (index, target),
                    command,
                    &asked.0,
                    (Vec::new(), outcome),
                    clock,
                );
                return None;
            }
        };
        let detours = script.detours.get();
        if detours > 0 {
            script.detours.set(detours - 1);
            return Some(asked);
        }
        if !self.is_ready_for_script(local) {
            return Some(asked);
        }
        let mut run = self.new_run(local, (command, database), &script, asked.1);
        run.out_of_memory = lacks_memory;
        run.is_tracked = self.remembers_reads(index);
        self.run_on_items(local, (index, target), command, (script, key_count, asked.0), run, clock)
    }

    /// May a script run on a shard's items, when staged reads are done and, without a log, what was
    /// gathered is applied?
    fn takes_in_place(&self, local: usize) -> bool {
        let shard = &self.shards[local];
        shard.lets_scripts_in()
            && (shard.group.is_alone()
                || self.turn.takes_beforehand
                    && self.storage.layout(shard.server.id) == Layout::Padded
                    && shard.may_do_beforehand(self.turn.now_ms))
    }

    /// Everything that came before is done. False: something keeps the shard from being changed at
    /// once.
    fn is_ready_for_script(&mut self, local: usize) -> bool {
        self.run_stage();
        let shard = &self.shards[local];
        let is_due = match shard.group.is_alone() {
            true => !shard.needs_no_entry(),
            false => shard.must_propose_beforehand(shard.string_bytes_max),
        };
        if is_due {
            self.settle_shard(local);
        }
        let shard = &self.shards[local];
        self.failure.is_none()
            && self.takes_in_place(local)
            && (!shard.group.is_alone() || shard.needs_no_entry())
    }

    /// What a script runs with.
    fn new_run(
        &mut self,
        local: usize,
        (command, database): (&'static Command, DatabaseIndex),
        script: &Script,
        user: Option<Arc<User>>,
    ) -> Box<Run> {
        let shard = &self.shards[local];
        let string_bytes_max = shard.string_bytes_max;
        let slots = match self.router.shard_count() {
            1 => 0..SLOT_COUNT,
            _ => self.router.first_slot(shard.id)..self.router.first_slot(ShardId(shard.id.0 + 1)),
        };
        let mut run = self.spares.run.run.take().unwrap_or_else(|| {
            Box::new(Run {
                ground: Ground::Shard(Box::new(OwnItems::of(0..0))),
                sights: Sights::default(),
                push: Default::default(),
                database,
                now_ms: 0,
                hasher: self.router.hasher(),
                last_key: (Vec::new(), self.router.hash(b"")),
                seed: 0,
                string_bytes_max: 0,
                read_only: false,
                out_of_memory: false,
                is_whole: false,
                answers: Vec::new(),
                is_watched: false,
                is_tracked: false,
                user: None,
                done: Done::default(),
            })
        });
        let items = run.ground.own_items().expect("it was made with them");
        items.choose(slots);
        (run.now_ms, run.seed) = (shard.time(self.turn.now_ms), seed_of(self.chance.bits(), 0));
        if shard.files.is_some() {
            let (server, bytes_max) = (&mut self.shards[local].server, string_bytes_max);
            let seed = self.chance.bits();
            let (conditions, batch) = server.begin_beforehand(self.turn.now_ms, seed, bytes_max);
            run.now_ms = conditions.time_ms;
            items.draft = Some(Draft::new(batch, conditions.seed));
        }
        std::mem::swap(&mut run.push, &mut self.push);
        (run.database, run.user) = (database, user);
        run.string_bytes_max = string_bytes_max;
        run.read_only = command.flags.readonly || script.traits.no_writes();
        run.is_watched = self.shared.monitor_count.load(Ordering::Relaxed) > 0;
        run
    }

    fn run_on_items(
        &mut self,
        local: usize,
        (index, target): (u32, Target),
        command: &'static Command,
        (script, key_count, arguments): (Rc<Script>, usize, OwnedArguments),
        run: Box<Run>,
        clock: Instant,
    ) -> Option<Asked> {
        let protocol = self.answers.connections.at(index).session.protocol;
        let limit = self.settings.script_time_limit;
        let job = Job {
            script,
            arguments,
            key_count,
            protocol,
            limit: (limit > 0).then(|| Duration::from_millis(limit.into())),
            is_told: false,
            patience: SCRIPT_AHEAD_TIME_MAX,
            began: clock,
        };
        let mut reply = std::mem::take(&mut self.spares.run.reply);
        let keyspace: &mut Keyspace = &mut self.shards[local].server.keyspace;
        keyspace.begin_entry();
        let events = keyspace.event_count();
        let interpreter = self.scripts.interpreter.as_mut().expect("the script was compiled there");
        let (mut run, outcome) = run_in_place(interpreter, &job, run, &mut reply, keyspace);
        let was_stopped = interpreter.was_stopped();
        let Job { script, arguments, .. } = job;
        std::mem::swap(&mut run.push, &mut self.push);
        let user = run.user.take();
        let is_killed = run.done.ended.is_some();
        let shard = &mut self.shards[local];
        let has_room = shard.conclude_in_place(&mut run, events, !is_killed && !was_stopped);
        self.turn.has_beforehand |= shard.has_beforehand();
        if !is_killed && (was_stopped || !has_room) {
            script.detours.set(SCRIPT_DETOURS);
            self.keep_run(run, reply, OwnedArguments::default());
            return Some((arguments, user));
        }
        self.tell_of(target, user.as_ref(), &mut run.done);
        let shard = &mut self.shards[local];
        if shard.keyspace.has_events() {
            shard.keyspace.sign_events(writer_of(self.id, target));
        }
        if !run.done.published.is_empty() {
            shard.ahead.publish(std::mem::take(&mut run.done.published));
        }
        let ended = (reply, outcome);
        let reply = self.answer_script((index, target), command, &arguments, ended, clock);
        self.keep_run(run, reply, arguments);
        None
    }

    fn keep_run(&mut self, mut run: Box<Run>, mut reply: Vec<u8>, arguments: OwnedArguments) {
        run.done.reset();
        reply.clear();
        reply.shrink_to(SCRIPT_REPLY_KEPT_BYTES);
        let spare = &mut self.spares.run;
        (spare.run, spare.reply) = (Some(run), reply);
        if arguments.room() <= SCRIPT_ARGUMENTS_KEPT_BYTES {
            spare.arguments = arguments;
        }
    }

    /// Answers a script that has ended, and counts it.
    fn answer_script(
        &mut self,
        (index, target): (u32, Target),
        command: &'static Command,
        arguments: &OwnedArguments,
        (mut reply, outcome): (Vec<u8>, Result<(), Refusal>),
        clock: Instant,
    ) -> Vec<u8> {
        let protocol = self.answers.connections.at(index).session.protocol;
        self.stats.finish(outcome, command, 0, &mut Reply::new(&mut reply, protocol));
        self.answers.write_here(target, |out| out.extend_from_slice(&reply));
        let took = self.stats.count(command, 1, clock).duration_since(clock);
        self.note_script(command, (took, reply.len()), index, arguments.borrow());
        reply
    }
}
