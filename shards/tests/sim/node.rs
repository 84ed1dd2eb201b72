//! A node: one process with a member of every shard, its clocks, its links, and the pace at which
//! it works.

use raft::eraftpb::MessageType;
use ringraft_shards::ids::{DirectoryId, MonotonicTime, NodeId};
use ringraft_shards::meta::MetaEntry;
use ringraft_shards::raft::PeerMessage;
use ringraft_shards::random::Random;
use ringraft_shards::transaction::Message;

use crate::counts::Count;
use crate::links::{Arrived, Links, Payload};
use crate::members::{Membership, directory};
use crate::operator::members_of;
use crate::plan::Flaw;
use crate::replica::{Outbox, Replica};
use crate::replicas::{Replicas, groups};
use crate::request::Request;
use crate::schedule::{Core, Event};
use crate::serve::WAITING_MAX;
use crate::steps::step;
use crate::transact::{Transactions, shards_of};

/// Ticks of a process by its own clock.
pub const TICK_US: u64 = 10_000;

/// Ticks of transactions in each of them: what is given up after a while is so within a run.
const TRANSACTION_TICKS: u32 = 3;

/// Wall clock at the start of a run, milliseconds since the Unix epoch.
const WALL_CLOCK_MS: i64 = 1_700_000_000_000;

/// What reaches a process.
pub enum Input {
    Tick,
    Request(Box<Request>),
    Payload {
        from: u64,
        payload: Box<Payload>,
    },
    /// The disk is done with a write of the log.
    Written {
        shard: u16,
        ticket: u64,
    },
    /// It is time for the work on files that is out.
    FileWork {
        shard: u16,
    },
    /// It is time to read a piece of the log.
    LogRead {
        shard: u16,
        id: u64,
    },
    /// It is time to write the snapshot that was cut.
    SnapshotWritten {
        shard: u16,
    },
    /// It is time to write the snapshot that came in.
    PieceStored {
        shard: u16,
        from: u64,
        message: Box<PeerMessage>,
    },
    /// Another node has dialled.
    Accepted {
        connection: u64,
    },
    /// Bytes have come.
    Bytes {
        connection: u64,
        bytes: Vec<u8>,
    },
    /// A connection has ended.
    Ended {
        connection: u64,
    },
    /// The operator wants something agreed on.
    Ask {
        ticket: u64,
        entry: MetaEntry,
    },
}

impl Input {
    fn is_disk_work(&self) -> bool {
        use Input::*;
        matches!(
            self,
            Written { .. }
                | FileWork { .. }
                | LogRead { .. }
                | SnapshotWritten { .. }
                | PieceStored { .. }
        )
    }
}

/// A node.
pub struct Node {
    pub id: u64,
    pub up: bool,
    /// Counts its starts.
    pub incarnation: u64,
    pub replicas: Replicas,
    inbox: Vec<Input>,
    turn_is_due: bool,
    /// The process stands still until then.
    paused_until_us: u64,
    /// What it read from its clocks before it stood still, and still takes for the time.
    stale_clocks: Option<(i64, MonotonicTime)>,
    /// It dies at the end of its turn.
    trapped: bool,
    /// How far its wall clock is off.
    pub clock_offset_ms: i64,
    /// How often it has jumped.
    pub clock_jumps: u64,
    /// Its second, in thousandths of a true one.
    pub clock_rate: u64,
    pub slow_disk: bool,
    /// A bit of its disk was flipped: it may refuse to start.
    pub flipped: bool,
    /// What it said when it refused. It never starts again.
    pub refused: Option<String>,
    /// The group whose replica was the reason.
    pub damaged: Option<u16>,
    /// What its data directory is known by.
    pub directory: DirectoryId,
    /// Its directory was emptied.
    pub wiped: bool,
    /// It was, and nobody starts it again: who is there now is another node.
    pub is_emptied: bool,
    founders: Vec<u64>,
    /// Nodes that it has known from the beginning.
    told: Vec<(NodeId, DirectoryId)>,
    pub links: Links,
    pub membership: Membership,
    transactions: Transactions,
    chance: Random,
}

impl Node {
    /// A founder of the cluster, that does not run yet.
    pub fn founder(id: u64, shards: u16, founders: &[u64], chance: Random) -> Node {
        let told = founders.iter().map(|id| (NodeId(*id), directory(*id))).collect();
        let mut node = Node::new(id, directory(id), told, shards, chance);
        node.replicas = Replicas::new(id, shards, founders);
        node.founders = founders.to_vec();
        node
    }

    /// A node that has joined, and does not run yet. `told`: the nodes that there are.
    pub fn new(
        id: u64,
        directory: DirectoryId,
        told: Vec<(NodeId, DirectoryId)>,
        shards: u16,
        mut chance: Random,
    ) -> Node {
        Node {
            id,
            up: false,
            incarnation: 0,
            replicas: Replicas::new(id, shards, &[]),
            inbox: Vec::new(),
            turn_is_due: false,
            paused_until_us: 0,
            stale_clocks: None,
            trapped: false,
            clock_offset_ms: 0,
            clock_jumps: 0,
            clock_rate: 1000,
            slow_disk: false,
            flipped: false,
            refused: None,
            damaged: None,
            directory,
            wiped: false,
            is_emptied: false,
            founders: Vec::new(),
            told,
            membership: Membership::default(),
            links: Links::new(id, directory, 0, Random::new(chance.bits())),
            transactions: Transactions::new(id, 0, shards),
            chance,
        }
    }

    /// Starts the process.
    pub fn start(&mut self, core: &mut Core) {
        if self.up || self.refused.is_some() || self.is_emptied {
            return;
        }
        self.incarnation += 1;
        core.note(|| format!("n{} starts, incarnation {}", self.id, self.incarnation));
        for group in groups(self.replicas.shards()) {
            let seed = self.chance.bits();
            if let Err(error) = self.replicas[group].start(core, seed) {
                let error = format!("s{group}: {error}");
                self.replicas.iter_mut().for_each(Replica::stop);
                if !self.flipped {
                    core.audit.fail(|| format!("node {} does not start: {error}", self.id));
                }
                core.count(Count::FlipsRefused);
                core.note(|| format!("n{} refuses to start: {error}", self.id));
                (self.refused, self.damaged) = (Some(error), Some(group));
                return;
            }
        }
        self.up = true;
        self.transactions = Transactions::new(self.id, self.chance.bits(), self.replicas.shards());
        self.membership = Membership::default();
        core.count(Count::Restarts);
        core.incarnations.insert(self.id, self.incarnation);
        (self.turn_is_due, self.trapped) = (false, false);
        self.go_on();
        let chance = Random::new(self.chance.bits());
        self.links = Links::new(self.id, self.directory, self.incarnation, chance);
        self.schedule_tick(core);
        self.schedule_turn(core);
    }

    /// The process ends at once; with `power` lost the disks forget what was not synced.
    pub fn crash(&mut self, power: bool, core: &mut Core) {
        if !self.up {
            return;
        }
        core.note(|| format!("n{} {}", self.id, if power { "loses power" } else { "is killed" }));
        self.up = false;
        self.inbox.clear();
        for replica in self.replicas.iter_mut() {
            core.note_leader(replica.shard, self.id, false);
            replica.stop();
            if power {
                replica.disk.crash(&mut self.chance);
            } else {
                replica.disk.kill();
            }
        }
    }

    /// A replica that cannot be read makes room for an empty one, which the cluster is to name.
    pub fn set_aside(&mut self, group: u16, flaw: Flaw) {
        let id = match flaw {
            Flaw::KeptReplica => self.replicas[group].id,
            _ => NodeId(self.id).lost_replica(),
        };
        self.replicas[group] = Replica::new(id, group, &[]);
    }

    /// Is it one of those that found the cluster?
    pub fn is_founder(&self) -> bool {
        !self.founders.is_empty()
    }

    /// All that it has is lost, and somebody starts it again under its old id.
    pub fn wipe(&mut self) {
        for replica in self.replicas.iter_mut() {
            let (id, group) = (replica.id, replica.shard);
            let founders = if id.generation() == 0 { &self.founders[..] } else { &[] };
            *replica = Replica::new(id, group, founders);
        }
        self.directory = DirectoryId(self.directory.0 + 1);
        self.wiped = true;
    }

    /// The process stands still; it may have read its clocks just before.
    pub fn pause(&mut self, length_us: u64, core: &mut Core) {
        self.paused_until_us = core.now_us + length_us;
        if core.once_in(2) {
            self.stale_clocks = Some((self.wall_clock_ms(core), self.clock(core)));
        }
    }

    /// And goes on.
    pub fn go_on(&mut self) {
        (self.paused_until_us, self.stale_clocks) = (0, None);
    }

    /// Transactions that its coordinator has not ended.
    pub fn transaction_count(&self) -> usize {
        self.transactions.count()
    }

    /// The wall clock, milliseconds since the Unix epoch.
    fn wall_clock_ms(&self, core: &Core) -> i64 {
        let passed = core.now_us * self.clock_rate / 1_000_000;
        WALL_CLOCK_MS + self.clock_offset_ms + passed as i64
    }

    /// The clock that never goes back.
    fn clock(&self, core: &Core) -> MonotonicTime {
        MonotonicTime(core.now_us * self.clock_rate / 1000)
    }

    fn schedule_tick(&mut self, core: &mut Core) {
        let (node, incarnation) = (self.id, self.incarnation);
        let event = Event::Input { node, incarnation, input: Input::Tick };
        core.after(TICK_US * 1000 / self.clock_rate, event);
    }

    fn schedule_turn(&mut self, core: &mut Core) {
        if !self.turn_is_due {
            self.turn_is_due = true;
            let (node, incarnation) = (self.id, self.incarnation);
            let delay_us = 5 + self.chance.below(60);
            core.after(delay_us, Event::Turn { node, incarnation });
        }
    }

    /// Something comes in; the next turn handles it.
    pub fn input(&mut self, input: Input, core: &mut Core) {
        if !self.up {
            return;
        }
        match &input {
            // The disk works on while the process stands still.
            Input::Written { shard, ticket } => {
                self.replicas[*shard].complete_write(*ticket, core);
            }
            Input::Tick => self.schedule_tick(core),
            _ => {}
        }
        self.inbox.push(input);
        self.schedule_turn(core);
    }

    /// Handles what has come in. The error ends the process.
    pub fn turn(&mut self, core: &mut Core) -> Result<(), String> {
        if core.now_us < self.paused_until_us {
            let (node, incarnation) = (self.id, self.incarnation);
            let delay_us = self.paused_until_us - core.now_us;
            core.after(delay_us, Event::Turn { node, incarnation });
            return Ok(());
        }
        self.turn_is_due = false;
        let mut outbox = Outbox::default();
        let (mut now_ms, mut clock) = (self.wall_clock_ms(core), self.clock(core));
        let mut inbox = std::mem::take(&mut self.inbox);
        if let Some(stale) = self.stale_clocks.take() {
            // It stood still between its clocks and its clients, and hears of nothing else in this
            // turn.
            (now_ms, clock) = stale;
            let is_request = |input: &mut Input| matches!(input, Input::Request(_));
            let requests: Vec<Input> = inbox.extract_if(.., is_request).collect();
            self.inbox = std::mem::replace(&mut inbox, requests);
            self.turn_is_due = !self.inbox.is_empty();
        }
        for running in self.replicas.iter_mut().filter_map(|replica| replica.running.as_mut()) {
            (running.wall_ms, running.jumps) = (now_ms, self.clock_jumps);
            running.began = clock;
        }
        for input in inbox.drain(..) {
            self.handle(input, now_ms, core, &mut outbox);
        }
        if self.inbox.is_empty() {
            self.inbox = inbox;
        }
        let now = self.clock(core);
        for replica in self.replicas.iter_mut() {
            let Some(running) = &mut replica.running else { continue };
            running.propose(clock, core, &mut outbox);
            if running.stirred {
                replica.poll(core, &mut outbox)?;
            }
            let shard = replica.shard;
            let running = replica.running.as_mut().expect("it still runs");
            running.cut(shard, core, &mut outbox);
            // Most of the time at once, now and then only when something else was done first.
            if !core.once_in(4) {
                running.end_leased(now, core, &mut outbox);
            }
            if running.stirred {
                self.turn_is_due = true;
            }
        }
        if std::mem::take(&mut self.turn_is_due) {
            self.schedule_turn(core);
        }
        self.send(outbox, core);
        match &self.refused {
            Some(reason) => Err(reason.clone()),
            None if self.trapped => Err("a trap".into()),
            None => Ok(()),
        }
    }

    fn handle(&mut self, input: Input, now_ms: i64, core: &mut Core, outbox: &mut Outbox) {
        let clock = self.clock(core);
        let replicas = &mut self.replicas;
        match input {
            Input::Tick => {
                for _ in 0..TRANSACTION_TICKS {
                    self.transactions.tick(now_ms, core, outbox);
                }
                for replica in self.replicas.iter_mut() {
                    replica.tick_transfers(outbox);
                    let running = replica.running.as_mut().expect("it is up");
                    running.server.group.tick(clock);
                    running.stirred = true;
                    for _ in 0..TRANSACTION_TICKS {
                        running.tick_participant(core, outbox);
                    }
                    running.check_bounds(core);
                }
                self.tick_members(core, outbox);
                let known = self.known();
                let arrived = self.links.tick(clock, known.as_deref(), &self.told, core);
                self.take_arrived(arrived, now_ms, core, outbox);
            }
            Input::Request(request) => {
                let shards = shards_of(&request.command, replicas.shards());
                if shards.len() > 1 {
                    return self.transactions.begin(*request, now_ms, core, outbox);
                }
                let running = replicas[shards[0]].running.as_mut();
                running.expect("it is up").take(*request, core, outbox);
            }
            Input::Payload { from, payload } => {
                self.take_payload(from, *payload, now_ms, core, outbox);
            }
            Input::Accepted { connection } => self.links.accepted(connection, clock),
            Input::Bytes { connection, bytes } => {
                let arrived = self.links.receive(connection, &bytes, clock, core);
                self.take_arrived(arrived, now_ms, core, outbox);
            }
            Input::Ended { connection } => {
                let arrived = self.links.ended(connection, clock, core);
                self.take_arrived(arrived, now_ms, core, outbox);
            }
            Input::Ask { ticket, entry } => self.take_ask(ticket, &entry, outbox),
            Input::Written { shard, ticket } => replicas[shard].written(ticket),
            Input::FileWork { shard } => replicas[shard].finish_file_action(),
            Input::LogRead { shard, id } => replicas[shard].finish_log_read(id, core),
            Input::SnapshotWritten { shard } => replicas[shard].write_snapshot(core),
            Input::PieceStored { shard, from, message } => {
                replicas[shard].store_incoming(from, *message, core, outbox);
            }
        }
    }

    /// What came over links, in order, and links that are lost.
    fn take_arrived(
        &mut self,
        arrived: Arrived,
        now_ms: i64,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        for (from, payload) in arrived.payloads {
            self.take_payload(from, payload, now_ms, core, outbox);
        }
        for peer in arrived.lost {
            for replica in self.replicas.iter_mut() {
                let running = replica.running.as_mut().expect("it is up");
                running.outgoing.remove(&peer);
                running.incoming.remove(&peer);
                for member in members_of(running.server.group.membership(), peer) {
                    running.server.group.unreachable(member);
                }
                running.stirred = true;
            }
        }
        if let Some(reason) = arrived.ended {
            core.count(Count::Dismissals);
            self.refused = Some(format!("told to end: {reason}"));
        }
    }

    fn take_payload(
        &mut self,
        from: u64,
        payload: Payload,
        now_ms: i64,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let replicas = &mut self.replicas;
        match payload {
            Payload::Raft { shard, message } => {
                let running = replicas[shard].running.as_mut();
                let running = running.expect("it is up");
                // A refusal is as good as a loss.
                let _ = running.server.group.step(message);
                running.stirred = true;
            }
            Payload::Transaction(Message::Shard(shard, message)) => {
                let running = replicas[shard.0].running.as_mut();
                running.expect("it is up").take_message(message, core, outbox);
            }
            Payload::Transaction(Message::Coordinator(_, message)) => {
                self.transactions.handle(message, now_ms, core, outbox);
            }
            Payload::Piece { shard, piece } => {
                replicas[shard].take_piece(from, piece, core, outbox);
            }
            Payload::Node(message) => self.take_node_message(from, message, core, outbox),
            Payload::PieceAnswer { shard, answer } => {
                replicas[shard].take_piece_answer(from, answer, outbox);
            }
        }
    }

    /// Messages of transactions find their way: to this node itself, to another one, or back with a
    /// refusal.
    fn route_transactions(&mut self, outbox: &mut Outbox, core: &mut Core) {
        let mut messages =
            std::collections::VecDeque::from(std::mem::take(&mut outbox.transactions));
        while let Some(message) = messages.pop_front() {
            let to = match &message {
                Message::Coordinator(node, _) => Some(*node),
                Message::Shard(shard, _) => {
                    let running = self.replicas[shard.0].running.as_ref();
                    running.expect("it is up").server.group.leader().map(|member| member.node().0)
                }
            };
            core.count(Count::TransactionMessages);
            let step = step(&message);
            if let Some(trap) = core.trap.take_if(|trap| trap.step == step) {
                core.count(step);
                core.note(|| format!("n{} walks into {trap:?}", self.id));
                self.trapped = true;
                messages.clear();
                if !trap.sends {
                    return;
                }
            }
            match (to, message) {
                (Some(to), message) => outbox.payloads.push((to, Payload::Transaction(message))),
                (None, Message::Shard(shard, message)) => {
                    messages.extend(message.refusal(shard));
                }
                (None, _) => {}
            }
        }
    }

    /// What a turn brought forth goes its ways.
    fn send(&mut self, mut outbox: Outbox, core: &mut Core) {
        self.route_transactions(&mut outbox, core);
        for (to, payload) in outbox.payloads {
            if to == self.id {
                let payload = Box::new(payload);
                self.input(Input::Payload { from: to, payload }, core);
                continue;
            }
            let appends = match &payload {
                Payload::Raft { shard, message } => {
                    let is_append = message.0.msg_type == MessageType::MsgAppend;
                    is_append.then(|| (*shard, message.to()))
                }
                _ => None,
            };
            if let (false, Some((shard, member))) = (self.links.send(to, payload), appends)
                && let Some(running) = &mut self.replicas[shard].running
            {
                running.server.group.unreachable(member);
            }
        }
        let clock = self.clock(core);
        self.links.flush(clock, core);
        for answer in outbox.answers {
            if let Some(delay_us) = core.client_delay() {
                core.after(delay_us, Event::Answer { client: answer.origin.client, answer });
            }
        }
        for (ticket, told) in outbox.told {
            if let Some(delay_us) = core.client_delay() {
                core.after(delay_us, Event::Told { ticket, told });
            }
        }
        for (mut delay_us, input) in outbox.later {
            if self.slow_disk && input.is_disk_work() {
                delay_us += 3_000 + core.chance.below(60_000);
            }
            let (node, incarnation) = (self.id, self.incarnation);
            core.after(delay_us, Event::Input { node, incarnation, input });
        }
    }
}

impl crate::replica::Running {
    /// Nothing grows without limit.
    fn check_bounds(&self, core: &mut Core) {
        let status = self.server.group.status();
        let waiting = self.waiting();
        // The cache may hold what is not applied yet; the log what the last snapshots do not cover.
        let cache_max = (4 << 10) + (64 << 10);
        let log_max = 512 << 10;
        if status.cache_bytes > cache_max || status.log_bytes > log_max || waiting > WAITING_MAX {
            core.audit.fail(|| format!("a bound is passed: {status:?}, {waiting} requests wait"));
        }
        if status.commit_index > status.last_index {
            core.audit.fail(|| format!("the log ends before the commit index: {status:?}"));
        }
    }
}
