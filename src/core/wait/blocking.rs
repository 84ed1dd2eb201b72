//! Requests of this core's connections that block: their deadlines, and how they end.
//!
//! A blocked request is known by a number. One whose keys lie in one shard waits there, and the
//! shard answers it once, whatever happens (`waiting.rs`). One whose keys lie in several shards
//! waits here: it is tried as a transaction, its shards tell when a key has something, and it is
//! tried again. Until then the connection takes no further requests.
//!
//! Invariants: a request is answered once; a connection has one blocked request at most; a deadline
//! counts from the arrival and is not renewed; nothing is walked but what is due.

use crate::commands::stream_read::{XREAD_TRY, tried_ids, with_ids};
use crate::commands::{Command, Run};
use crate::core::Core;
use crate::core::client::answers::{Origin, StampKey, Target};
use crate::core::client::connection::Hold;
use crate::core::cluster::relay::{AGAIN, UNSURE};
use crate::core::commands::table;
use crate::core::mail::mailbox::Mail;
use crate::core::shard::{LocalShard, Request};
use crate::core::wait::acknowledge::Acknowledged;
use crate::core::wait::waiting::{Asker, End, FORCED, awaited_keys, is_nothing};
use crate::resp::reply::Protocol;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::waiting::WaitKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A blocked request.
struct Blocked {
    target: Target,
    protocol: Protocol,
    /// When it ends, since the core began.
    deadline: Option<Duration>,
    /// What it asks for, if that is keys.
    request: Option<(&'static Command, OwnedArguments)>,
    place: Place,
}

/// Where a blocked request waits.
enum Place {
    /// At the shard that has all its keys.
    Shard(ShardId),
    /// Here.
    Here(Box<Here>),
    /// Nowhere: others are to say that they have something. Some may still say so when it has
    /// ended.
    Others(Acknowledged),
}

/// A request that waits for keys of several shards.
struct Here {
    command: &'static Command,
    database: DatabaseIndex,
    arguments: OwnedArguments,
    keys: BTreeMap<ShardId, Vec<WaitKey>>,
    state: State,
    /// How it ends if the try under way finds nothing.
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first try is under way; no shard knows of it.
    First,
    /// A later try is under way.
    Trying,
    /// A later try is under way, and a key got something since it began.
    Again,
    /// Its shards will tell.
    Waiting,
}

/// The blocked requests of a core.
#[derive(Default)]
pub struct Blocks {
    last_number: u32,
    requests: HashMap<u32, Blocked>,
    deadlines: BTreeSet<(Duration, u32)>,
    /// When the ring's timer for them ends, if it is set.
    timer: Option<Duration>,
    /// Replies that have come for them.
    replies: Vec<(u32, Vec<u8>)>,
    /// Those that are to end and were not answered yet.
    ending: BTreeMap<u32, End>,
}

impl Blocks {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// Whose a blocked request is.
    pub fn target(&self, number: u32) -> Option<Target> {
        self.requests.get(&number).map(|blocked| blocked.target)
    }

    /// Takes the reply to a blocked request.
    pub fn reply(&mut self, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut reply = Vec::new();
        write(&mut reply);
        self.replies.push((number, reply));
    }
}

impl Core {
    /// Starts a request that may block, for `timeout` or for ever. Further requests of the
    /// connection wait.
    pub(in crate::core) fn block(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: OwnedArguments,
        timeout: Option<Duration>,
    ) {
        let connection = self.answers.connections.at_mut(index);
        let (protocol, database) = (connection.session.protocol, connection.session.database);
        let no_touch = connection.session.no_touch;
        let is_relayed = connection.owner.is_some();
        let stamp = match target {
            Target::Connection { sequence, .. } => connection.stamp_at(sequence),
            _ => StampKey::NONE,
        };
        connection.hold = Hold::Answer;
        let now = self.steady.read();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let view = arguments.borrow();
        // Where BLMOVE puts what it takes has a shard too.
        let mut shards =
            command.keys.positions(view).map(|i| self.router.shard(self.router.hash(view.at(i))));
        let first = shards.next().expect("a request without keys does not block");
        let is_one = shards.all(|shard| shard == first);
        drop(shards);
        let place = match is_one {
            true => Place::Shard(first),
            false => Place::Here(Box::new(Here {
                command: match command.run {
                    Run::Read(_) => table::internal(XREAD_TRY),
                    _ => command,
                },
                database,
                arguments: arguments.clone(),
                keys: self.keys_by_shard(command, database, view),
                state: State::First,
                end: None,
            })),
        };
        let blocks = &mut self.answers.blocks;
        blocks.last_number = blocks.last_number.wrapping_add(1);
        let number = blocks.last_number;
        blocks.deadlines.extend(deadline.map(|deadline| (deadline, number)));
        self.answers.connections.at_mut(index).blocked_number = Some(number);
        if is_one {
            let target = Target::Block(number);
            let origin =
                Origin { no_touch, is_relayed, stamp, ..Origin::asks(self.id, target, protocol) };
            let first_key = command.first_key(view, self.router.hasher());
            self.forward(first, &Request { command, origin, database, first_key, arguments: view });
        }
        let request = Some((command, arguments));
        let blocked = Blocked { target, protocol, deadline, request, place };
        let before = self.answers.blocks.requests.insert(number, blocked);
        assert!(before.is_none(), "four billion are blocked");
        if !is_one {
            self.try_again(number);
        }
        if self.answers.connections.at(index).ended {
            self.end_block(number, End::Empty);
        }
    }

    /// Has a request wait for what others are to say, for `timeout` or for ever. Further requests
    /// of the connection wait. Returns its number.
    pub(in crate::core) fn block_for_others(
        &mut self,
        index: u32,
        target: Target,
        acknowledged: Acknowledged,
        timeout: Option<Duration>,
    ) -> u32 {
        let connection = self.answers.connections.at_mut(index);
        let protocol = connection.session.protocol;
        connection.hold = Hold::Answer;
        let deadline = timeout.and_then(|timeout| self.steady.read().checked_add(timeout));
        let blocks = &mut self.answers.blocks;
        blocks.last_number = blocks.last_number.wrapping_add(1);
        let number = blocks.last_number;
        blocks.deadlines.extend(deadline.map(|deadline| (deadline, number)));
        let place = Place::Others(acknowledged);
        let blocked = Blocked { target, protocol, deadline, request: None, place };
        assert!(blocks.requests.insert(number, blocked).is_none(), "four billion are blocked");
        self.answers.connections.at_mut(index).blocked_number = Some(number);
        if self.answers.connections.at(index).ended {
            self.end_block(number, End::Empty);
        }
        number
    }

    /// The keys that a command waits for, by shard.
    fn keys_by_shard(
        &self,
        command: &'static Command,
        database: DatabaseIndex,
        arguments: Arguments<'_>,
    ) -> BTreeMap<ShardId, Vec<WaitKey>> {
        let mut keys: BTreeMap<ShardId, Vec<WaitKey>> = BTreeMap::new();
        for key in awaited_keys(command, database, arguments) {
            keys.entry(self.router.shard(self.router.hash(&key.bytes))).or_default().push(key);
        }
        keys
    }

    /// Tries a request of several shards as a transaction.
    fn try_again(&mut self, number: u32) {
        let Some(Blocked { protocol, place: Place::Here(here), .. }) =
            self.answers.blocks.requests.get(&number)
        else {
            return;
        };
        let (protocol, command, database) = (*protocol, here.command, here.database);
        let arguments = here.arguments.clone();
        self.spread(Target::Block(number), protocol, database, command, arguments);
    }

    /// Looks at the replies that have come for blocked requests, and at deadlines. True when there
    /// was something to do.
    #[inline]
    pub(in crate::core) fn tend_blocked(&mut self) -> bool {
        if self.answers.blocks.requests.is_empty() {
            return false;
        }
        self.tend_some_blocked()
    }

    #[cold]
    fn tend_some_blocked(&mut self) -> bool {
        let now = self.steady.read();
        let mut expired = false;
        while let Some(&(deadline, number)) = self.answers.blocks.deadlines.first() {
            if deadline > now {
                break;
            }
            self.answers.blocks.deadlines.pop_first();
            self.end_block(number, End::Empty);
            expired = true;
        }
        let replies = std::mem::take(&mut self.answers.blocks.replies);
        let any = expired || !replies.is_empty();
        for (number, reply) in replies {
            self.block_replied(number, reply);
        }
        self.set_deadline_timer(now);
        any
    }

    /// The ring wakes the core at the next deadline, to the millisecond.
    fn set_deadline_timer(&mut self, now: Duration) {
        let blocks = &mut self.answers.blocks;
        let Some(&(deadline, _)) = blocks.deadlines.first() else { return };
        if blocks.timer.is_none_or(|set| set > deadline || set <= now) {
            blocks.timer = Some(deadline);
            self.doors.ring.start_deadline(deadline - now.min(deadline));
        }
    }

    fn block_replied(&mut self, number: u32, reply: Vec<u8>) {
        let Some(blocked) = self.answers.blocks.requests.get_mut(&number) else {
            // A shard says that something is on the disk for which nobody waits any more.
            return;
        };
        let here = match &mut blocked.place {
            Place::Here(here) => here,
            Place::Shard(_) => return self.finish_block(number, &reply),
            Place::Others(acknowledged) => {
                if acknowledged.take(&reply) {
                    let mut out = Vec::new();
                    acknowledged.write(blocked.protocol, &mut out);
                    self.finish_block(number, &out);
                }
                return;
            }
        };
        if !is_nothing(&reply) {
            return self.finish_block(number, &reply);
        }
        if let Some(end) = here.end.take() {
            let mut out = Vec::new();
            end.write(blocked.protocol, &mut out);
            return self.finish_block(number, &out);
        }
        match std::mem::replace(&mut here.state, State::Waiting) {
            State::First => {
                if matches!(here.command.run, Run::Read(_)) {
                    // From now on it is known what `$` is.
                    let ids = tried_ids(&reply);
                    here.arguments = with_ids(here.command, here.arguments.borrow(), ids);
                    let (command, database) = (here.command, here.database);
                    let arguments = here.arguments.clone();
                    let keys = self.keys_by_shard(command, database, arguments.borrow());
                    self.set_keys_here(number, keys);
                }
                self.tell_shards(number, LocalShard::add_interest);
            }
            State::Trying => self.tell_shards(number, LocalShard::keep_interest),
            State::Again => {
                here.state = State::Trying;
                self.try_again(number);
            }
            State::Waiting => unreachable!("a try was under way"),
        }
    }

    fn set_keys_here(&mut self, number: u32, to: BTreeMap<ShardId, Vec<WaitKey>>) {
        if let Some(Blocked { place: Place::Here(here), .. }) =
            self.answers.blocks.requests.get_mut(&number)
        {
            here.keys = to;
        }
    }

    /// Tells the shards of a request something about it; whoever is to try then does.
    fn tell_shards(
        &mut self,
        number: u32,
        tell: fn(&mut LocalShard, Asker, &[WaitKey], i64) -> Vec<Asker>,
    ) {
        let blocked = self.answers.blocks.requests.get(&number);
        let Some(Place::Here(here)) = blocked.map(|blocked| &blocked.place) else { return };
        let asker = (self.id, number);
        for (shard, keys) in here.keys.clone() {
            self.at_shard(shard, move |core, local| {
                let now_ms = core.now_ms();
                let ready = tell(&mut core.shards[local], asker, &keys, now_ms);
                core.notify(ready);
            });
        }
    }

    /// Tells clients of several shards that a key has something.
    pub(in crate::core) fn notify(&mut self, ready: Vec<Asker>) {
        for (core, number) in ready {
            if core == self.id {
                self.key_is_ready(number);
            } else {
                let task = move |core: &mut Core| core.key_is_ready(number);
                self.answers.post(core, Mail::Task(Box::new(task)));
            }
        }
    }

    fn key_is_ready(&mut self, number: u32) {
        // It may have found something, or given up, meanwhile: the shard learns that by itself.
        let Some(blocked) = self.answers.blocks.requests.get_mut(&number) else { return };
        let Place::Here(here) = &mut blocked.place else { return };
        match here.state {
            State::Waiting => {
                here.state = State::Trying;
                self.try_again(number);
            }
            State::Trying => here.state = State::Again,
            State::First | State::Again => {}
        }
    }

    /// Ends a wait that found nothing. The request is answered, if need be once a try under way has
    /// ended.
    pub(in crate::core) fn end_block(&mut self, number: u32, end: End) {
        let Some(blocked) = self.answers.blocks.requests.get_mut(&number) else { return };
        match &mut blocked.place {
            Place::Shard(shard) => {
                let (shard, asker) = (*shard, (self.id, number));
                let end = self.answers.blocks.ending.entry(number).or_insert(end).clone();
                self.at_shard(shard, move |core, local| {
                    core.shards[local].end_wait(asker, end.clone(), &mut core.answers);
                });
            }
            Place::Others(acknowledged) => {
                let mut out = Vec::new();
                match end {
                    End::Empty => acknowledged.write(blocked.protocol, &mut out),
                    End::Unblocked | End::Denied(_) => end.write(blocked.protocol, &mut out),
                }
                self.finish_block(number, &out);
            }
            Place::Here(here) if here.state == State::Waiting => {
                let mut out = Vec::new();
                end.write(blocked.protocol, &mut out);
                self.finish_block(number, &out);
            }
            Place::Here(here) => {
                here.end.get_or_insert(end);
            }
        }
    }

    /// Asks again for the end of waits: a request that a transaction held up was not found where it
    /// is to wait.
    pub(in crate::core) fn tick_blocked(&mut self) {
        for (number, end) in self.answers.blocks.ending.clone() {
            self.end_block(number, end);
        }
        // A shard may have come here whose writes are on the disk since.
        self.shards.iter_mut().for_each(|shard| shard.answer_synced(&mut self.answers));
    }

    fn finish_block(&mut self, number: u32, reply: &[u8]) {
        let blocked = &self.answers.blocks.requests[&number];
        if let Place::Here(here) = &blocked.place
            && here.state != State::First
        {
            self.tell_shards(number, LocalShard::drop_interest);
        }
        let blocked = self.answers.blocks.requests.remove(&number).expect("just seen");
        if let Place::Others(acknowledged) = &blocked.place
            && acknowledged.is_watched()
            && self.shared.cluster.is_clustered()
        {
            self.forget_copies(number);
        }
        self.answers.blocks.ending.remove(&number);
        if let Some(deadline) = blocked.deadline {
            self.answers.blocks.deadlines.remove(&(deadline, number));
        }
        if let Target::Connection { index, .. } = blocked.target {
            self.answers.connections.at_mut(index).blocked_number = None;
        }
        if reply == AGAIN || reply == UNSURE {
            self.release_hold(blocked.target);
            return self.goes_on_elsewhere(blocked.target, reply == AGAIN);
        }
        self.answers.write_here(blocked.target, |out| out.extend_from_slice(reply));
        self.release_hold(blocked.target);
    }

    /// Another node leads: it is not known here any more who has what.
    pub(in crate::core) fn unblock_who_waits_for_others(&mut self) {
        let requests = self.answers.blocks.requests.iter();
        let waiting = requests.filter(|(_, blocked)| matches!(blocked.place, Place::Others(_)));
        let waiting: Vec<u32> = waiting.map(|(number, _)| *number).collect();
        for number in waiting {
            self.end_block(number, End::Denied(FORCED.as_bytes().into()));
        }
    }

    /// Closes the connections whose requests block, as the server stops.
    pub(in crate::core) fn close_blocked(&mut self) {
        let connections = self.answers.connections.iter();
        let blocked = connections.filter(|(_, c)| c.blocked_number.is_some());
        for index in blocked.map(|(index, _)| index).collect::<Vec<u32>>() {
            self.close(index);
        }
    }

    /// What a connection waits for, if that is keys.
    pub(in crate::core) fn awaited_by(
        &self,
        index: u32,
    ) -> Option<(&'static Command, OwnedArguments)> {
        let number = self.answers.connections.at(index).blocked_number?;
        self.answers.blocks.requests.get(&number)?.request.clone()
    }

    /// Ends the wait of a connection, if it waits. Did it?
    pub fn unblock(&mut self, index: u32, end: End) -> bool {
        let number = self.answers.connections.at(index).blocked_number;
        if let Some(number) = number {
            self.end_block(number, end);
        }
        number.is_some()
    }
}
