//! The coordinator of a node: commands whose keys are in several shards.

use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::KeyHasher;
use ringraft_shards::transaction::{
    Coordinator, CoordinatorOutput, Event, INSTALL, LockKey, LockSet, Outcome, Overlay, Part,
    ToCoordinator,
};

use crate::command::{Command, Reply};
use crate::counts::Count;
use crate::machine::{self, DATABASE, HASH_SEED};
use crate::replica::Outbox;
use crate::request::{Answer, Origin, Request, Result};
use crate::schedule::Core;
use crate::serve::{Reads, Values};

/// A command under way.
struct Payload {
    origin: Origin,
    command: Command,
    reply: Option<Reply>,
}

type Out = CoordinatorOutput<Reads, Values, Payload>;

/// A node's coordinator and what it runs commands on.
pub struct Transactions {
    coordinator: Coordinator<Reads, Values, Payload>,
    overlay: Overlay,
    shards: u16,
}

/// The shards of a command's keys, each once, ascending.
pub fn shards_of(command: &Command, shards: u16) -> Vec<u16> {
    let shard = |key: &u8| machine::shard_of(&machine::key_name(*key), shards);
    let mut all: Vec<u16> = command.keys().iter().map(shard).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Transactions {
    /// A coordinator that was just started. `address` is where messages for it are delivered.
    pub fn new(address: u64, origin: u64, shards: u16) -> Transactions {
        let overlay = Overlay::new(KeyHasher::new(HASH_SEED));
        Transactions { coordinator: Coordinator::new(address, origin), overlay, shards }
    }

    /// Transactions that are not over.
    pub fn count(&self) -> usize {
        self.coordinator.count()
    }

    /// Begins a client's command.
    pub fn begin(&mut self, request: Request, now_ms: i64, core: &mut Core, outbox: &mut Outbox) {
        core.count(Count::Transactions);
        let hasher = KeyHasher::new(HASH_SEED);
        let mut parts: Vec<Part<Reads>> = Vec::new();
        for shard in shards_of(&request.command, self.shards) {
            let (mut locks, mut fetch) = (LockSet::default(), Reads::new());
            for (key, exclusive) in request.command.access() {
                let name = machine::key_name(key);
                if machine::shard_of(&name, self.shards) == shard {
                    locks.keys.push(LockKey::new(hasher.hash(&name), exclusive));
                    fetch.push(name);
                }
            }
            parts.push(Part { shard: ShardId(shard), locks, fetch });
        }
        let origin = request.origin();
        let payload = Payload { origin, command: request.command, reply: None };
        let mut out = Out::default();
        let now_ns = now_ms as u64 * 1_000_000;
        let id = self.coordinator.begin(now_ns, parts, payload, &mut out);
        core.audit.transaction(id, origin.operation);
        core.note(|| format!("#{} is transaction {id}", origin.operation));
        self.go_on(out, now_ms, core, outbox);
    }

    /// Takes a message.
    pub fn handle(
        &mut self,
        message: ToCoordinator<Values>,
        now_ms: i64,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let mut out = Out::default();
        self.coordinator.handle(message, &mut out);
        self.go_on(out, now_ms, core, outbox);
    }

    /// Time passes.
    pub fn tick(&mut self, now_ms: i64, core: &mut Core, outbox: &mut Outbox) {
        let mut out = Out::default();
        self.coordinator.tick(&mut out);
        self.go_on(out, now_ms, core, outbox);
    }

    /// Does what the coordinator says, until it says nothing more.
    fn go_on(&mut self, mut out: Out, now_ms: i64, core: &mut Core, outbox: &mut Outbox) {
        loop {
            outbox.transactions.append(&mut out.messages);
            let events = std::mem::take(&mut out.events);
            if events.is_empty() {
                return;
            }
            for event in events {
                match event {
                    Event::Run { id, values } => {
                        let effects = self.run(id, values, now_ms, core);
                        self.coordinator.ran(id, effects, &mut out);
                    }
                    Event::Finished { payload, outcome } => {
                        let result = match outcome {
                            Outcome::Committed => {
                                core.count(Count::Committed);
                                Result::Done(payload.reply.expect("it was run"))
                            }
                            Outcome::Aborted(reason) => {
                                core.count(Count::Aborted);
                                core.note(|| {
                                    format!("#{} aborted: {reason}", payload.origin.operation)
                                });
                                Result::Refused { leader: None }
                            }
                            Outcome::Unknown => {
                                core.count(Count::InDoubt);
                                Result::Unknown
                            }
                        };
                        outbox.answers.push(Answer { origin: payload.origin, result });
                    }
                }
            }
        }
    }

    /// Runs a command on what its shards have read. Returns what it changed in each.
    fn run(
        &mut self,
        id: ringraft_shards::transaction::TransactionId,
        values: Vec<(ShardId, Values)>,
        now_ms: i64,
        core: &mut Core,
    ) -> Vec<(ShardId, Vec<u8>)> {
        for fetched in values.into_iter().flat_map(|(_, values)| values) {
            self.overlay.load(fetched, now_ms);
        }
        let payload = self.coordinator.payload(id).expect("it is not finished");
        let operation = payload.origin.operation;
        let (number, arguments) = machine::encode(operation, &payload.command);
        let mut edit = self.overlay.edit(DATABASE, now_ms);
        let reply = machine::run(&mut edit, number, arguments.borrow().tail(1));
        // Everything is locked now, so now is when it happens, if it does.
        core.audit.executed(operation);
        core.note(|| format!("#{operation} runs: {reply}"));
        payload.reply = Some(reply);
        let mut builders: Vec<BatchBuilder> =
            (0..self.shards).map(|_| BatchBuilder::default()).collect();
        let shards = self.shards;
        self.overlay.drain(now_ms, |database, key, arguments| {
            let shard = usize::from(machine::shard_of(key.bytes(), shards));
            builders[shard].push(INSTALL, database, key.hash(), arguments);
        });
        let changed = builders.iter_mut().enumerate().filter(|(_, builder)| builder.count() > 0);
        let seed = core.chance.bits();
        changed
            .map(|(shard, builder)| (ShardId(shard as u16), builder.encode(now_ms, seed)))
            .collect()
    }
}
