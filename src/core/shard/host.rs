//! The shard as the engine's server sees it: what the server asks of commands, and how it answers.

use crate::commands::Run;
use crate::commands::expire::TURN_BACK;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::intake::OUT_OF_MEMORY;
use crate::core::client::session::Watched;
use crate::core::cluster::fitness::heir;
use crate::core::cluster::relay::{AGAIN, UNSURE};
use crate::core::commands::table;
use crate::core::shard::run::{prefetch_keys, run_read, seed_of};
use crate::core::shard::{Caller, LocalShard, Request, Set, ShardTurn};
use crate::core::transact::participate::{Ask, Found, Parked, is_step};
use crate::core::transact::transaction::RUN;
use crate::limits::{HAND_OVER_AGAIN_MS, READS_PER_STAGE};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::batch::{Batch, BatchBuilder};
use ringraft_shards::ids::{DatabaseIndex, Index, NodeId};
use ringraft_shards::keyspace::{Key, KeyHash};
use ringraft_shards::raft::{CommittedEntry, ProposeError};
use ringraft_shards::serve::{Certainty, Fate, Host, Server, waits};
use ringraft_shards::transaction::{Fetch, LockSet, NO_LEADER, Record};
use std::time::Instant;

/// What a client is told whose request was not executed, and is not known to have been.
fn fate_text(fate: Fate<'_>) -> String {
    match fate {
        Fate::Refused(ProposeError::NotLeader { .. }) | Fate::NotLeader { .. } => {
            NO_LEADER.to_string()
        }
        Fate::Refused(error @ ProposeError::DiskFull(_)) => format!("MISCONF {error}"),
        Fate::Refused(error) => format!("ERR {error}"),
        Fate::Lost => "leadership lost while committing log".to_string(),
        Fate::Unknown => {
            "ERR the outcome is not known: another node leads, and may have executed it".to_string()
        }
    }
}

/// What the node is told that has sent a request on; `None`: what its client is told.
fn session_text(fate: Fate<'_>) -> Option<&'static [u8]> {
    match fate {
        Fate::Unknown => Some(UNSURE),
        _ => had_no_effect(fate).then_some(AGAIN),
    }
}

/// Is it certain that another node may be asked for the same?
fn had_no_effect(fate: Fate<'_>) -> bool {
    match fate {
        Fate::NotLeader { .. } | Fate::Lost => true,
        Fate::Refused(error) => {
            matches!(error, ProposeError::NotLeader { .. } | ProposeError::Transferring)
        }
        Fate::Unknown => false,
    }
}

impl Host for LocalShard {
    type Who = Caller;
    type Kept = Parked;
    type Ask = Box<Ask>;
    type Found = Found;
    type Reply = Vec<u8>;
    type Guard = Vec<Watched>;
    type Turn<'a> = ShardTurn<'a>;

    #[inline(always)]
    fn server(&self) -> &Server<LocalShard> {
        &self.server
    }

    #[inline(always)]
    fn server_mut(&mut self) -> &mut Server<LocalShard> {
        &mut self.server
    }

    #[inline]
    fn random(&mut self) -> u64 {
        LocalShard::random(self)
    }

    #[inline]
    fn string_bytes_max(&self) -> usize {
        self.string_bytes_max
    }

    #[inline]
    fn is_step(who: &Caller) -> bool {
        is_step(who.command) && who.origin.target == Target::Nobody
    }

    fn shrinks(&self, who: &Caller, arguments: Arguments<'_>) -> bool {
        LocalShard::shrinks(self, who.command, arguments)
    }

    fn push_turn_back(&self, batch: &mut BatchBuilder, to_ms: i64) {
        let command = table::internal(TURN_BACK);
        let to_ms = to_ms.to_string();
        let words = [TURN_BACK.as_bytes(), to_ms.as_bytes()].into_iter();
        batch.push_each(command.number, DatabaseIndex(0), KeyHash::default(), words);
    }

    fn gather_fetch(&mut self, fetch: Fetch) {
        LocalShard::gather_fetch(self, fetch);
    }

    fn gather_record(&mut self, record: &Record) {
        LocalShard::gather_record(self, record);
    }

    fn locks(&self, parked: &Parked) -> LockSet {
        self.locks_of(&parked.request())
    }

    fn is_held_up(&self, parked: &Parked) -> bool {
        !self.participant.is_idle() && self.is_held_from(&parked.request())
    }

    fn last_lock(&self, parked: &Parked) -> u64 {
        self.last_lock_of(parked.caller().origin.core)
    }

    fn who(parked: &Parked) -> Caller {
        parked.caller()
    }

    fn admit(&mut self, parked: Parked, turn: &mut ShardTurn<'_>) {
        let caller = parked.caller();
        if !self.admit_parked(parked, turn.stats) {
            refuse(caller, OUT_OF_MEMORY, turn);
        }
    }

    fn resolve(&mut self, guard: &Vec<Watched>, now_ms: i64) -> bool {
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

    fn guard_failed(&mut self, who: &Caller, turn: &mut ShardTurn<'_>) {
        let origin = who.origin;
        turn.answers.write(origin, |out| Reply::new(out, origin.protocol).null_array());
    }

    fn serve_postponed(&mut self) {
        waits::serve_postponed(self);
    }

    fn awaits_any(&self) -> bool {
        !self.waiters.is_empty()
    }

    fn forget_served(&mut self, set: &mut Set) {
        waits::forget_served(self, set);
    }

    #[inline(always)]
    fn stamp(&self, set: &mut Set) {
        if self.serves_sessions {
            self.stamp_set(set);
        }
    }

    #[cold]
    fn hand_over(&mut self, now_ms: i64) -> bool {
        if self.group.hands_over() {
            return true;
        }
        // One that did not come off says that nobody takes it.
        if now_ms.abs_diff(self.handed_over_ms) < HAND_OVER_AGAIN_MS {
            return false;
        }
        let fitness = self.fitness.clone();
        let own = self.group.config().node.node();
        let Some(heir) = heir(&self.group.peers(), own, |node| fitness.is_fit(node)) else {
            return false;
        };
        self.handed_over_ms = now_ms;
        self.group.transfer_leader(heir).is_ok()
    }

    #[inline]
    fn begin_entry(&mut self, entry: &CommittedEntry, batch: &Batch<'_>) {
        self.snapshots.note_applied(entry.data.len(), batch.count());
        self.applied_operations += batch.count() as u64;
    }

    #[inline]
    fn run(
        &mut self,
        set: &Set,
        entry: Option<(&CommittedEntry, Batch<'_>)>,
        turn: &mut ShardTurn<'_>,
    ) {
        self.run_set(set, entry.map(|(_, batch)| batch), turn.answers, turn.stats);
    }

    fn run_withheld(
        &mut self,
        set: &Set,
        replies: &mut Vec<(Caller, Vec<u8>)>,
        turn: &mut ShardTurn<'_>,
    ) {
        self.run_set_withheld(set, replies, turn.stats);
    }

    fn replay(&mut self, _: &CommittedEntry, batch: Batch<'_>, turn: &mut ShardTurn<'_>) {
        self.run_unasked(batch, turn.stats);
    }

    fn turned_back(&mut self, removed: usize, turn: &mut ShardTurn<'_>) {
        turn.stats.expired_keys += removed as u64;
    }

    fn read(&mut self, parked: &Parked, turn: &mut ShardTurn<'_>) -> Vec<u8> {
        self.read_by(parked, None, turn)
    }

    fn read_by(
        &mut self,
        parked: &Parked,
        time_ms: Option<i64>,
        turn: &mut ShardTurn<'_>,
    ) -> Vec<u8> {
        let time = time_ms.unwrap_or_else(|| self.time(turn.stats.now_ms));
        let seed = LocalShard::random(self);
        let (request, bytes_max) = (parked.request(), self.string_bytes_max);
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, request.origin.protocol);
        let start = Instant::now();
        let outcome = run_read(&self.keyspace, &request, time, seed, bytes_max, &mut reply);
        turn.stats.finish(outcome, request.command, 0, &mut reply);
        turn.stats.count(request.command, 1, start);
        out
    }

    fn read_all_by(&mut self, all: &[Parked], time_ms: Option<i64>, turn: &mut ShardTurn<'_>) {
        let time = time_ms.unwrap_or_else(|| self.time(turn.stats.now_ms));
        let (seed, bytes_max) = (LocalShard::random(self), self.string_bytes_max);
        let (keyspace, mut clock) = (&self.server.keyspace, Instant::now());
        let mut place = 0;
        for stage in all.chunks(READS_PER_STAGE) {
            let requests = stage.iter().map(Parked::request);
            prefetch_keys(keyspace, requests.map(|request| (request.database, request.first_key)));
            let is_same =
                |a: &Parked, b: &Parked| std::ptr::eq(a.caller().command, b.caller().command);
            for run in stage.chunk_by(is_same) {
                let command = run[0].caller().command;
                for request in run.iter().map(Parked::request) {
                    let seed = seed_of(seed, place);
                    place += 1;
                    let stats = &mut *turn.stats;
                    turn.answers.write(request.origin, |out| {
                        let start = out.len();
                        let mut reply = Reply::new(out, request.origin.protocol);
                        let outcome =
                            run_read(keyspace, &request, time, seed, bytes_max, &mut reply);
                        stats.finish(outcome, command, start, &mut reply);
                    });
                }
                clock = turn.stats.count(command, run.len() as u64, clock);
            }
        }
    }

    fn tell(
        &mut self,
        asker: NodeId,
        question: u64,
        certain: Option<Index>,
        turn: &mut ShardTurn<'_>,
    ) {
        let time_ms = self.time(turn.stats.now_ms);
        let certainty = certain.map(|index| Certainty { index, time_ms });
        self.told.push((asker, question, certainty));
    }

    fn answer(&mut self, who: Caller, reply: Vec<u8>, turn: &mut ShardTurn<'_>) {
        turn.answers.write(who.origin, |out| out.extend_from_slice(&reply));
    }

    #[cold]
    fn fail(
        &mut self,
        who: &Caller,
        asked: Option<(DatabaseIndex, Arguments<'_>)>,
        fate: Fate<'_>,
        turn: &mut ShardTurn<'_>,
    ) {
        if matches!(who.command.run, Run::Record)
            && let Some((_, record)) = asked
        {
            return self.fail_ahead(who.origin, record, fate, turn);
        }
        if self.is_sent_back(who, asked, fate, turn) {
            return;
        }
        let text = fate_text(fate);
        match (who.command.run, asked) {
            (Run::Serve, Some((_, arguments))) => {
                self.serve_refused(arguments, &text, session_text(fate), turn.answers);
            }
            _ => {
                self.note_own(who.command, who.origin);
                refuse(*who, &text, turn);
            }
        }
    }

    #[cold]
    fn fail_kept(&mut self, kept: Parked, fate: Fate<'_>, turn: &mut ShardTurn<'_>) {
        let (who, request) = (kept.caller(), kept.request());
        self.fail(&who, Some((request.database, request.arguments)), fate, turn);
    }

    fn leads(&mut self) {}

    fn deposed(&mut self, _: &mut ShardTurn<'_>) {
        self.is_deposed = true;
    }
}

impl LocalShard {
    /// What a script has done ahead of the log comes to nothing.
    fn fail_ahead(
        &mut self,
        origin: Origin,
        record: Arguments<'_>,
        fate: Fate<'_>,
        turn: &mut ShardTurn<'_>,
    ) {
        let outcome = self.ahead.failed(record);
        let who = Caller { command: outcome.command, origin };
        let asked = Some((outcome.database, outcome.arguments.borrow()));
        if !self.is_sent_back(&who, asked, fate, turn) {
            refuse(who, &fate_text(fate), turn);
        }
    }

    /// A client's request had no effect here and may have one at the node that leads: it goes
    /// there, or waits for one.
    fn is_sent_back(
        &mut self,
        who: &Caller,
        asked: Option<(DatabaseIndex, Arguments<'_>)>,
        fate: Fate<'_>,
        turn: &mut ShardTurn<'_>,
    ) -> bool {
        let Caller { command, origin } = *who;
        // The transactions of its own clients are kept by their cores.
        let is_kept = origin.is_relayed || command.name == RUN;
        if let Some(text) = session_text(fate).filter(|_| is_kept) {
            // For a part of several it stands for all of them: they only read.
            turn.answers.write(origin, |out| out.extend_from_slice(text));
            return true;
        }
        if !had_no_effect(fate) {
            return false;
        }
        match (asked, origin.target) {
            (Some((database, arguments)), Target::Connection { .. })
                if !command.flags.internal && !self.group.membership().voters.is_empty() =>
            {
                let first_key = KeyHash::default();
                let request = Request { command, origin, database, first_key, arguments };
                self.sent_back.push(Parked::copy(&request, None));
                true
            }
            _ => false,
        }
    }
}

fn refuse(Caller { origin, .. }: Caller, text: &str, turn: &mut ShardTurn<'_>) {
    let stats = &mut *turn.stats;
    turn.answers.write(origin, |out| {
        let start = out.len();
        stats.refuse(text, start, &mut Reply::new(out, origin.protocol));
    });
}
