//! Clients: each has one command under way, follows redirects, gives up after a while, and
//! remembers what it was told.

use std::collections::BTreeMap;

use ringraft_shards::random::Random;

use crate::checker::{Operation, Outcome};
use crate::command::{Command, Condition, KeyNumber, Reply};
use crate::counts::Count;
use crate::machine::{key_name, shard_of};
use crate::plan::Plan;
use crate::queues::{self, Told};
use crate::request::{Answer, Request, Result};
use crate::schedule::{Core, Event};
use crate::shelves::{self, Kind};

/// Tries of one command go on for so long.
const PATIENCE_US: u64 = 600_000;

/// Classes of keys: registers, counters, lists, queues.
const CLASSES: u8 = 4;
const QUEUES: u8 = 3;
/// Classes as they are chosen: a third of all are shelves.
const CLASS_CHOICES: [u8; 15] =
    [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, SHELVES, SHELVES, SHELVES, SHELVES, SHELVES];
/// The class of shelves, whose keys have numbers of their own.
const SHELVES: u8 = 4;
/// Names of elements of a shelf.
const NAMES: u64 = 4;
/// Consumers of the group of a stream.
const CONSUMERS: u64 = 3;

/// As many queues are used, so that clients meet there.
const QUEUES_MAX: u64 = 3;

/// The keys of a run.
pub struct Keys {
    /// Which shard has each key.
    shards: Vec<u16>,
    per_class: u8,
}

impl Keys {
    fn new(plan: &Plan) -> Keys {
        let shards = (0..=u8::MAX).map(|key| shard_of(&key_name(key), plan.shards)).collect();
        Keys { shards, per_class: plan.keys_per_class }
    }

    /// All that are read in the end.
    pub fn all(&self) -> impl Iterator<Item = KeyNumber> {
        (0..QUEUES * self.per_class).chain(shelves::keys())
    }

    /// All queues.
    pub fn queues(&self) -> std::ops::Range<KeyNumber> {
        QUEUES * self.per_class..CLASSES * self.per_class
    }

    fn any_queue(&self, chance: &mut Random) -> KeyNumber {
        let count = QUEUES_MAX.min(u64::from(self.per_class));
        QUEUES * self.per_class + chance.below(count) as u8
    }

    pub fn shard(&self, key: KeyNumber) -> u16 {
        self.shards[usize::from(key)]
    }

    /// A key of a class: 0 registers, 1 counters, 2 lists, or a shelf.
    fn any(&self, class: u8, chance: &mut Random) -> KeyNumber {
        if class == SHELVES {
            return shelves::any(chance);
        }
        class * self.per_class + chance.below(u64::from(self.per_class)) as u8
    }

    /// Some keys of a class, each once; half of the time all in the shard of the first.
    fn some(&self, class: u8, chance: &mut Random) -> Vec<KeyNumber> {
        let first = self.any(class, chance);
        let together = chance.below(2) == 0;
        let mut keys = vec![first];
        for _ in 0..chance.below(5) {
            let other = self.any(class, chance);
            let near = !together || self.shard(other) == self.shard(first);
            if near && !keys.contains(&other) {
                keys.push(other);
            }
        }
        keys
    }
}

/// A command under way.
struct Pending {
    /// Its place in the history.
    at: usize,
    attempt: u64,
    shard: u16,
    called_us: u64,
}

struct Client {
    /// It pushes to queues, and waits for them.
    is_of_queues: bool,
    /// It waits for entries of streams: of this one, behind this id.
    reads_on: Option<(KeyNumber, Option<u64>)>,
    /// It reads, and loses little time over a node that does not answer: so it notices what others
    /// have written.
    reads_only: bool,
    pending: Option<Pending>,
    /// Whom it takes for the leader of each shard.
    leaders: Vec<u64>,
    /// Values it saw last.
    seen: BTreeMap<KeyNumber, Vec<u8>>,
    chance: Random,
    /// Reads every key once, and then no more; has no end of patience.
    final_reads: Option<Vec<KeyNumber>>,
}

/// A command in the history; refused ones stay in it without an outcome.
struct Record {
    operation: Operation,
    refused: bool,
}

/// All clients and their history.
pub struct Clients {
    pub keys: Keys,
    clients: Vec<Client>,
    history: Vec<Record>,
    attempts: u64,
    /// Of each stream the greatest id that anybody was told.
    last_ids: BTreeMap<KeyNumber, u64>,
    /// Nodes that they know of.
    pub nodes: Vec<u64>,
    /// Is no command begun any more?
    pub closing: bool,
}

impl Clients {
    pub fn new(plan: &Plan) -> Clients {
        let of_queues = plan.clients..plan.clients + plan.queue_clients;
        let all = of_queues.end + plan.readers;
        let client = |number: usize| Client {
            is_of_queues: of_queues.contains(&number),
            reads_on: (of_queues.end..all).contains(&number).then_some((shelves::STREAMS[0], None)),
            reads_only: number % 3 == 1,
            pending: None,
            leaders: vec![1; usize::from(plan.shards)],
            seen: BTreeMap::new(),
            chance: plan.chance(100 + number as u64),
            final_reads: None,
        };
        Clients {
            keys: Keys::new(plan),
            clients: (0..=all).map(client).collect(),
            history: Vec::new(),
            attempts: 0,
            last_ids: BTreeMap::new(),
            nodes: (1..=plan.nodes).collect(),
            closing: false,
        }
    }

    /// All but the last one begin.
    pub fn begin(&mut self, core: &mut Core) {
        for client in 0..self.clients.len() - 1 {
            let delay_us = core.chance.below(100_000);
            core.after(delay_us, Event::Client { client });
        }
    }

    /// The last one reads everything.
    pub fn begin_final_reads(&mut self, core: &mut Core) {
        let client = self.clients.len() - 1;
        self.clients[client].final_reads = Some(self.keys.all().collect());
        core.after(0, Event::Client { client });
    }

    /// Is nothing under way?
    pub fn are_idle(&self) -> bool {
        self.clients.iter().all(|client| {
            client.pending.is_none() && client.final_reads.as_ref().is_none_or(Vec::is_empty)
        })
    }

    /// What is under way, for messages.
    pub fn describe_pending(&self) -> Vec<String> {
        let pending = self.clients.iter().filter_map(|client| client.pending.as_ref());
        pending.map(|pending| self.history[pending.at].operation.describe()).collect()
    }

    /// The history for the checker.
    pub fn history(&self, core: &Core) -> Vec<Operation> {
        let judged = |record: &&Record| {
            let command = &record.operation.command;
            !record.refused && !command.is_queue() && !command.awaits_entries()
        };
        let kept = self.history.iter().filter(judged);
        let hinted = |record: &Record| {
            let mut operation = record.operation.clone();
            let is_done = operation.outcome != Outcome::Unknown;
            operation.hint = core.audit.hint(operation.number, is_done);
            operation
        };
        kept.map(hinted).collect()
    }

    /// All that was asked.
    pub fn asked(&self) -> impl Iterator<Item = Asked<'_>> + Clone {
        self.history.iter().map(|Record { operation, refused }| Asked {
            operation: operation.number,
            called: operation.called,
            answered: operation.answered,
            command: &operation.command,
            outcome: &operation.outcome,
            is_refused: *refused,
        })
    }

    /// What the clients of queues were told.
    pub fn told(&self) -> impl Iterator<Item = Told<'_>> {
        let all = self.history.iter().filter(|record| record.operation.command.is_queue());
        all.map(|Record { operation, refused }| Told {
            operation: operation.number,
            command: &operation.command,
            outcome: &operation.outcome,
            is_refused: *refused,
        })
    }

    /// A client goes on: with its command, or with a new one.
    pub fn go_on(&mut self, client: usize, core: &mut Core) {
        if self.clients[client].pending.is_none() {
            let Some(command) = self.next_command(client, core) else { return };
            let shard = self.keys.shard(command.keys()[0]);
            let number = self.history.len() as u64 + 1;
            core.note(|| format!("client {client} calls #{number} {command}"));
            let (called, answered) = (core.moment, u64::MAX);
            let outcome = Outcome::Unknown;
            let operation = Operation { number, command, called, answered, outcome, hint: None };
            self.history.push(Record { operation, refused: false });
            let (at, called_us) = (self.history.len() - 1, core.now_us);
            self.clients[client].pending = Some(Pending { at, attempt: 0, shard, called_us });
        }
        self.try_again(client, core);
    }

    fn try_again(&mut self, client: usize, core: &mut Core) {
        self.attempts += 1;
        let attempt = self.attempts;
        let state = &mut self.clients[client];
        let Some(pending) = &mut state.pending else { return };
        pending.attempt = attempt;
        let shard = pending.shard;
        let operation = &self.history[pending.at].operation;
        let request = Request {
            client,
            attempt,
            operation: operation.number,
            command: operation.command.clone(),
        };
        // Whoever led once is asked again now and then, so that one who wrongly believes to lead is
        // found out.
        let leading = &core.leading[usize::from(shard)];
        let node = if leading.len() > 1 && state.chance.below(2) == 0 {
            // Nobody but the simulator knows how many believe to lead, and that it is worth asking
            // the wrong one.
            leading[state.chance.below(leading.len() as u64) as usize]
        } else if state.chance.below(10) == 0 {
            self.nodes[state.chance.below(self.nodes.len() as u64) as usize]
        } else {
            state.leaders[usize::from(shard)]
        };
        // A transaction may wait for others.
        let keys = operation.command.keys();
        let patience = if keys.len() > 1 { 4 } else { 1 };
        let most_us = core.plan.patience_us / if state.reads_only { 4 } else { 1 };
        let timeout_us = 20_000 + state.chance.below(most_us) * patience;
        core.after(timeout_us, Event::Timeout { client, attempt });
        if let Some(delay_us) = core.client_delay() {
            core.after(delay_us, Event::Request { node, request: Box::new(request) });
        }
    }

    /// An answer arrives.
    pub fn answered(&mut self, client: usize, answer: Answer, core: &mut Core) {
        let state = &mut self.clients[client];
        let attempt = answer.origin.attempt;
        let Some(pending) = state.pending.take_if(|pending| pending.attempt == attempt) else {
            return;
        };
        let operation = &mut self.history[pending.at].operation;
        match answer.result {
            Result::Done(reply) => {
                core.count(Count::Done);
                if operation.command.keys().len() > 1 {
                    core.count(Count::MultiKey);
                }
                let number = operation.number;
                core.note(|| format!("client {client} hears #{number} {reply}"));
                if let (Command::Get(key), Reply::Bytes(value)) = (&operation.command, &reply) {
                    state.seen.insert(*key, value.clone());
                }
                note_shelves(&operation.command, &reply, false, &mut self.last_ids, core);
                if let Some((_, from)) = &mut state.reads_on {
                    *from = told_last(&reply).or(*from);
                }
                operation.answered = core.moment;
                operation.outcome = Outcome::Done(reply);
                self.finish(client, core);
            }
            Result::Unknown => self.unknown(client, pending, core),
            Result::Refused { leader } => {
                core.count(Count::Redirects);
                let shard = usize::from(pending.shard);
                let patient = state.final_reads.is_some();
                if !patient && core.now_us > pending.called_us + PATIENCE_US {
                    core.count(Count::Refused);
                    self.history[pending.at].refused = true;
                    self.finish(client, core);
                    return;
                }
                let any = self.nodes[state.chance.below(self.nodes.len() as u64) as usize];
                state.leaders[shard] = leader.unwrap_or(any);
                let delay_us = if leader.is_some() { 0 } else { state.chance.below(15_000) };
                state.pending = Some(Pending { attempt: 0, ..pending });
                core.after(delay_us, Event::Client { client });
            }
        }
    }

    /// No answer came in time.
    pub fn timed_out(&mut self, client: usize, attempt: u64, core: &mut Core) {
        let state = &mut self.clients[client];
        let Some(pending) = state.pending.take_if(|pending| pending.attempt == attempt) else {
            return;
        };
        let any = self.nodes[state.chance.below(self.nodes.len() as u64) as usize];
        state.leaders[usize::from(pending.shard)] = any;
        self.unknown(client, pending, core);
    }

    fn unknown(&mut self, client: usize, pending: Pending, core: &mut Core) {
        let operation = &self.history[pending.at].operation;
        let number = operation.number;
        core.note(|| format!("client {client} does not know about #{number}"));
        let state = &mut self.clients[client];
        if state.final_reads.is_some() {
            // A read may be asked again.
            state.pending = Some(Pending { attempt: 0, ..pending });
            core.after(5_000, Event::Client { client });
            return;
        }
        core.count(Count::Unknown);
        self.finish(client, core);
    }

    fn finish(&mut self, client: usize, core: &mut Core) {
        let state = &mut self.clients[client];
        state.pending = None;
        let think_us = if state.final_reads.is_some() { 0 } else { core.plan.think_us };
        let delay_us = state.chance.below(2 * think_us + 1);
        core.after(delay_us, Event::Client { client });
    }

    fn next_command(&mut self, client: usize, core: &Core) -> Option<Command> {
        let is_last = client == self.clients.len() - 1;
        let state = &mut self.clients[client];
        if let Some(left) = &mut state.final_reads {
            return left.pop().map(Command::Get);
        }
        if self.closing || is_last {
            return None;
        }
        let number = self.history.len() as u64 + 1;
        let (keys, chance) = (&self.keys, &mut state.chance);
        if state.is_of_queues {
            return Some(queue_command(keys, number, chance));
        }
        if let Some((key, from)) = &mut state.reads_on {
            if from.is_none() || chance.below(4) == 0 {
                (*key, *from) = (shelves::STREAMS[chance.below(2) as usize], None);
            }
            return Some(Command::AwaitEntries(*key, *from));
        }
        let value = format!("v{number}").into_bytes();
        let element = format!("{number:05}").into_bytes();
        let several = chance.below(100) < core.plan.multi_key_percent;
        let class = CLASS_CHOICES[chance.below(CLASS_CHOICES.len() as u64) as usize];
        let (key, some) = (keys.any(class, chance), keys.some(class, chance));
        if state.reads_only {
            return Some(if several { Command::MGet(some) } else { Command::Get(key) });
        }
        Some(match (class, several) {
            (SHELVES, false) => match chance.below(4) {
                0 => Command::Get(key),
                _ => shelf_command(key, element, &self.last_ids, chance),
            },
            (SHELVES, true) => match chance.below(4) {
                0 => Command::MGet(some),
                _ => {
                    let one = |key| shelf_command(key, element.clone(), &self.last_ids, chance);
                    Command::Exec(some.into_iter().map(one).collect())
                }
            },
            (0, false) => match chance.below(15) {
                0..6 => Command::Get(key),
                6..10 => Command::Set(key, value, Condition::Always),
                10 => Command::Set(key, value, Condition::Absent),
                11 => Command::Set(key, value, Condition::Present),
                12..14 => {
                    let old = state.seen.get(&key).cloned().unwrap_or_default();
                    Command::Set(key, value, Condition::Equals(old))
                }
                _ => Command::Exchange(key, value),
            },
            (0, true) => {
                let pairs: Vec<_> = some.iter().map(|key| (*key, value.clone())).collect();
                let last = some[some.len() - 1];
                let replace = chance.below(2) == 0;
                match chance.below(20) {
                    0..2 => Command::Delete(some),
                    2..9 => Command::MGet(some),
                    9..13 => Command::MSet(pairs),
                    13 => Command::MSetAbsent(pairs),
                    14..16 => Command::Rename(some[0], last),
                    16 => Command::Copy { from: some[0], to: last, replace },
                    _ => {
                        // What it reads in one place it writes in another only if nobody else came
                        // between.
                        let mut commands: Vec<_> = some.iter().copied().map(Command::Get).collect();
                        commands.push(Command::Set(last, value, Condition::Always));
                        Command::Exec(commands)
                    }
                }
            }
            (1, false) => match chance.below(3) {
                0 => Command::Get(key),
                _ => Command::Increment(key),
            },
            (1, true) => match chance.below(3) {
                0 => Command::MGet(some),
                _ => Command::Exec(some.into_iter().map(Command::Increment).collect()),
            },
            (_, false) => match chance.below(8) {
                0..3 => Command::Get(key),
                _ => Command::Append(key, element),
            },
            (_, true) => match chance.below(2) {
                0 => Command::MGet(some),
                _ => {
                    let append = |key| match chance.below(3) {
                        0 => Command::Get(key),
                        _ => Command::Append(key, element.clone()),
                    };
                    Command::Exec(some.into_iter().map(append).collect())
                }
            },
        })
    }
}

/// What a client was asked for, and what it was told.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub operation: u64,
    pub called: u64,
    pub answered: u64,
    pub command: &'a Command,
    pub outcome: &'a Outcome,
    pub is_refused: bool,
}

/// The last entry that a client that waits for some was told of.
fn told_last(reply: &Reply) -> Option<u64> {
    let Reply::List(parts) = reply else { return None };
    let Some(Reply::List(entry)) = parts.last() else { return None };
    match entry.first() {
        Some(Reply::Integer(id)) => Some(*id as u64),
        _ => None,
    }
}

/// Notes what a command has done with shelves, of which each kind must happen.
fn note_shelves(
    command: &Command,
    reply: &Reply,
    is_together: bool,
    last_ids: &mut BTreeMap<KeyNumber, u64>,
    core: &mut Core,
) {
    let counts = match (command, reply) {
        (Command::Exec(commands), Reply::List(replies)) => {
            for (command, reply) in commands.iter().zip(replies) {
                note_shelves(command, reply, true, last_ids, core);
            }
            return;
        }
        (Command::Add(key, ..), Reply::Integer(id)) => {
            let last = last_ids.entry(*key).or_default();
            *last = (*last).max(*id as u64);
            return;
        }
        (Command::Remove(key, _), Reply::Integer(1)) => match shelves::kind(*key) {
            Some(Kind::Set) => [Count::SetRemovals, Count::SetRemovalsTogether],
            Some(Kind::Hash) => [Count::HashRemovals, Count::HashRemovalsTogether],
            Some(Kind::SortedSet) => [Count::SortedSetRemovals, Count::SortedSetRemovalsTogether],
            Some(Kind::Stream) => [Count::StreamRemovals, Count::StreamRemovalsTogether],
            None => unreachable!("elements are removed from shelves"),
        },
        (Command::Give(..), Reply::List(_)) => [Count::Given, Count::GivenTogether],
        (Command::Acknowledge(..), Reply::Integer(1)) => {
            [Count::Acknowledged, Count::AcknowledgedTogether]
        }
        _ => return,
    };
    core.count(counts[usize::from(is_together)]);
}

/// Something that is done with a shelf. `value` is of this operation alone.
fn shelf_command(
    key: KeyNumber,
    value: Vec<u8>,
    last_ids: &BTreeMap<KeyNumber, u64>,
    chance: &mut Random,
) -> Command {
    if shelves::kind(key) != Some(Kind::Stream) {
        let name = vec![b'a' + chance.below(NAMES) as u8];
        return match chance.below(5) {
            0..3 => Command::Add(key, name, value),
            _ => Command::Remove(key, name),
        };
    }
    // One of the last entries, or the next one.
    let last = last_ids.get(&key).copied().unwrap_or(0);
    let id = shelves::digits((last + 1).saturating_sub(chance.below(6)));
    match chance.below(10) {
        0..4 => Command::Add(key, Vec::new(), value),
        4 => Command::Remove(key, id),
        5..8 => Command::Give(key, format!("c{}", chance.below(CONSUMERS)).into_bytes()),
        _ => Command::Acknowledge(key, id),
    }
}

/// What a client of queues does next.
fn queue_command(keys: &Keys, operation: u64, chance: &mut Random) -> Command {
    let key = keys.any_queue(chance);
    let mut others: Vec<KeyNumber> = vec![key];
    for _ in 0..2 {
        let other = keys.any_queue(chance);
        if !others.contains(&other) {
            others.push(other);
        }
    }
    let push = |key: KeyNumber| Command::Push(key, queues::element(operation, key));
    match chance.below(100) {
        0..27 => push(key),
        27..35 => Command::Exec(others.into_iter().map(push).collect()),
        which => {
            others.retain(|other| keys.shard(*other) == keys.shard(key));
            match others[..] {
                [from, to, ..] if which < 55 => Command::Move(from, to),
                _ => Command::Pop(others),
            }
        }
    }
}
