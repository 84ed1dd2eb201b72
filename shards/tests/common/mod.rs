//! A node around a group, for tests: a memory disk, a list as state machine, and the driver's
//! duties done when the test says so. Nothing here looks at a clock.
#![allow(dead_code)] // Each test binary uses its own part.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use raft::eraftpb::Entry;
use ringraft_shards::disk::{MemoryDisk, WriteInFlight};
use ringraft_shards::ids::{ClusterId, Index, MonotonicTime, NodeId, ShardId};
use ringraft_shards::log::{
    AlignedBuffer, FileAction, Log, LogIdentity, LogOptions, LogRead, ReadBackError, RecoverError,
    RecoveredLog, WriteTicket, recover,
};
use ringraft_shards::raft::{
    EntryKind, Group, GroupConfig, MembershipChange, OpenError, Output, PeerMessage, Proposal,
    ProposeError, Role, SnapshotPoint,
};
use ringraft_shards::random::Random;

/// What a node has applied: index, term and data of every command.
pub type State = Vec<(u64, u64, Vec<u8>)>;

/// Entries from `low` up to and without `high`, read back from the disk.
pub fn read_back(
    log: &Log,
    disk: &MemoryDisk,
    (low, high): (u64, u64),
    bytes_max: u64,
) -> Result<Vec<Entry>, ReadBackError> {
    let mut reading = log.read_back(low, high, bytes_max);
    while let Some(read) = log.go_on(&mut reading)? {
        reading.filled(read.run(disk)?);
    }
    Ok(reading.finish())
}

/// Options with small sizes.
pub fn options(node: u64) -> LogOptions {
    let identity = LogIdentity { cluster: ClusterId(7), node: NodeId(node), shard: ShardId(3) };
    LogOptions {
        block_bytes: 512,
        segment_bytes: 16 << 10,
        record_bytes_max: 4 << 10,
        writes_in_flight_max: 4,
        ..LogOptions::new(identity)
    }
}

/// Settings with small bounds.
pub fn config(node: u64, voters: &[u64]) -> GroupConfig {
    let voters = voters.iter().copied().map(NodeId).collect();
    GroupConfig {
        message_bytes_max: 2 << 10,
        messages_in_flight_max: 8,
        uncommitted_bytes_max: 32 << 10,
        entry_cache_bytes: 4 << 10,
        retained_bytes_max: 64 << 10,
        ..GroupConfig::new(NodeId(node), ShardId(3), voters)
    }
}

/// Reads a disk's log from the start on.
pub fn recover_all(disk: &MemoryDisk, options: LogOptions) -> Result<RecoveredLog, RecoverError> {
    recover(Arc::new(disk.clone()), options, Index(0), 1, &mut |_, _| {})
}

/// One node with a log on a memory disk.
pub struct Node {
    pub id: u64,
    pub disk: MemoryDisk,
    pub options: LogOptions,
    pub config: GroupConfig,
    pub group: Option<Group>,
    pub state: State,
    /// The durable snapshot: point and state.
    pub snapshot: Option<(SnapshotPoint, State)>,
    pub writes: Vec<(WriteTicket, WriteInFlight, AlignedBuffer)>,
    pub file_action: Option<FileAction>,
    pub log_reads: Vec<LogRead>,
    pub outbox: Vec<PeerMessage>,
    pub reads_ready: Vec<(u64, u64)>,
    pub reads_failed: Vec<u64>,
    pub lost: Vec<Proposal>,
    pub unknown: Vec<Proposal>,
    pub failures: Vec<String>,
    /// Commands applied between two snapshots; 0 takes none.
    pub snapshot_every: usize,
    pub snapshot_wanted: bool,
    /// Snapshots of others that were installed.
    pub installs: usize,
    /// Its clock: time passes only from tick to tick.
    pub clock: MonotonicTime,
    since_snapshot: usize,
    starts: u64,
    out: Output,
}

impl Node {
    /// A node that is not running yet. Without `voters` it waits to be invited.
    pub fn new(id: u64, voters: &[u64]) -> Node {
        Node {
            id,
            disk: MemoryDisk::new(),
            options: options(id),
            config: config(id, voters),
            group: None,
            state: State::new(),
            snapshot: None,
            writes: Vec::new(),
            file_action: None,
            log_reads: Vec::new(),
            outbox: Vec::new(),
            reads_ready: Vec::new(),
            reads_failed: Vec::new(),
            lost: Vec::new(),
            unknown: Vec::new(),
            failures: Vec::new(),
            snapshot_every: 0,
            snapshot_wanted: false,
            installs: 0,
            clock: MonotonicTime(0),
            since_snapshot: 0,
            starts: 0,
            out: Output::default(),
        }
    }

    /// Starts, from snapshot and log.
    pub fn start(&mut self, seed: u64) -> Result<(), OpenError> {
        self.starts += 1;
        let seed = seed ^ (self.starts << 32) ^ self.id;
        let keep_after = self.snapshot.as_ref().map_or(Index(0), |(point, _)| point.index);
        let disk = Arc::new(self.disk.clone());
        let log = recover(disk, self.options, keep_after, seed, &mut |_, _| {})?;
        let point = self.snapshot.as_ref().map(|(point, _)| point.clone());
        self.state = self.snapshot.as_ref().map_or(State::new(), |(_, state)| state.clone());
        let mut group = Group::open(self.config.clone(), Some(log), point.clone(), seed)?;
        if let Some(point) = point {
            let token = point.index.to_string();
            group.snapshot_taken(point, token);
        }
        self.group = Some(group);
        self.poll();
        Ok(())
    }

    /// Stops at once; with `power` lost the disk forgets what was not synced.
    pub fn crash(&mut self, power: Option<&mut Random>) {
        self.group = None;
        self.writes.clear();
        self.file_action = None;
        self.log_reads.clear();
        self.outbox.clear();
        match power {
            Some(chance) => self.disk.crash(chance),
            None => self.disk.kill(),
        }
    }

    pub fn group(&mut self) -> &mut Group {
        self.group.as_mut().expect("the node is up")
    }

    pub fn is_leader(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.role() == Role::Leader)
    }

    /// One tick time later.
    pub fn tick(&mut self) {
        self.clock.0 += self.config.tick_us;
        let now = self.clock;
        self.group().tick(now);
    }

    /// Does what the group says, but for ending writes and work on files.
    pub fn poll(&mut self) {
        loop {
            let Some(group) = &mut self.group else { return };
            self.out.clear();
            group.poll(&mut self.out);
            if let Some(failure) = &self.out.failure {
                self.failures.push(failure.to_string());
                return;
            }
            self.outbox.append(&mut self.out.messages);
            for write in self.out.writes.drain(..) {
                let started = self.disk.start_write(
                    &write.file_name(),
                    write.offset,
                    write.buffer.as_slice(),
                );
                match started {
                    Ok(id) => self.writes.push((write.ticket, id, write.buffer)),
                    Err(error) => group.write_failed(write.ticket, &error.to_string()),
                }
            }
            if let Some(action) = self.out.file_action.take() {
                assert!(self.file_action.is_none(), "one at a time");
                self.file_action = Some(action);
            }
            self.log_reads.append(&mut self.out.log_reads);
            self.snapshot_wanted |= self.out.snapshot_wanted;
            for read in &self.out.read_ready {
                self.reads_ready.push((read.context, read.index.0));
            }
            self.reads_failed.append(&mut self.out.read_failed);
            self.lost.append(&mut self.out.lost);
            self.unknown.append(&mut self.out.unknown);
            if let Some(install) = self.out.install.take() {
                let (point, state) = self.snapshot.as_ref().expect("received before the message");
                assert_eq!(*point, install.point, "the newest one");
                self.state = state.clone();
                self.installs += 1;
                group.applied(install.point.index);
            }
            let again = self.out.more || !self.out.committed.is_empty();
            for entry in self.out.committed.drain(..) {
                assert_eq!(entry.index.0, group.applied_index().0 + 1, "no gaps");
                if entry.kind == EntryKind::Command {
                    self.state.push((entry.index.0, entry.term.0, entry.data.to_vec()));
                    self.since_snapshot += 1;
                }
                group.applied(entry.index);
            }
            let due = self.snapshot_every > 0 && self.since_snapshot >= self.snapshot_every;
            if due || self.snapshot_wanted {
                self.take_snapshot();
            }
            if !again {
                return;
            }
        }
    }

    /// Takes a snapshot at the applied index and compacts the log.
    pub fn take_snapshot(&mut self) {
        let Some(group) = &mut self.group else { return };
        let point = group.snapshot_point();
        self.snapshot = Some((point.clone(), self.state.clone()));
        self.since_snapshot = 0;
        self.snapshot_wanted = false;
        let index = point.index;
        group.snapshot_taken(point, index.to_string());
        group.compact(index);
    }

    /// Ends the write at this position among those in flight.
    pub fn finish_write(&mut self, at: usize) {
        let (ticket, id, buffer) = self.writes.remove(at);
        self.disk.complete_write(id);
        self.group().written(ticket, buffer);
    }

    /// Does the work on files that is out.
    pub fn finish_file_action(&mut self) {
        if let Some(action) = self.file_action.take() {
            let result = action.run(&self.disk);
            self.group().file_action_done(action.id, result);
        }
    }

    /// Does the reads of the log that are out.
    pub fn finish_log_reads(&mut self) {
        for read in std::mem::take(&mut self.log_reads) {
            let result = read.run(&self.disk);
            self.group().log_read_done(read.id, result);
        }
    }

    /// Ends all disk work, until there is none.
    pub fn settle(&mut self) {
        self.poll();
        let has_work = |node: &Node| {
            !node.writes.is_empty() || node.file_action.is_some() || !node.log_reads.is_empty()
        };
        while has_work(self) {
            self.finish_file_action();
            self.finish_log_reads();
            while !self.writes.is_empty() {
                self.finish_write(0);
            }
            self.poll();
        }
    }

    /// Proposes and settles.
    pub fn propose(&mut self, data: &[u8]) -> Result<Proposal, ProposeError> {
        let proposal = self.group().propose(data.to_vec());
        self.settle();
        proposal
    }

    /// Data of all commands applied.
    pub fn applied(&self) -> Vec<&[u8]> {
        self.state.iter().map(|(_, _, data)| data.as_slice()).collect()
    }
}

/// Nodes and the network between them: messages between two nodes keep their order or are lost.
pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    pub links: BTreeMap<(u64, u64), VecDeque<PeerMessage>>,
    pub cut: Vec<(u64, u64)>,
    /// It receives neither entries nor snapshots.
    pub starved: Option<u64>,
    pub chance: Random,
    pub seed: u64,
    /// One message in so many is lost; 0 loses none.
    pub loss: u64,
    /// What was applied anywhere, by index: the same everywhere.
    pub history: HashMap<u64, (u64, Vec<u8>)>,
    checked: HashMap<u64, u64>,
}

impl Cluster {
    /// Founders 1 to `count`, started.
    pub fn new(count: u64, seed: u64) -> Cluster {
        let ids: Vec<u64> = (1..=count).collect();
        let nodes = ids.iter().map(|&id| (id, Node::new(id, &ids))).collect();
        let mut cluster = Cluster {
            nodes,
            links: BTreeMap::new(),
            cut: Vec::new(),
            starved: None,
            chance: Random::new(seed),
            seed,
            loss: 0,
            history: HashMap::new(),
            checked: HashMap::new(),
        };
        for id in ids {
            cluster.start(id);
        }
        cluster
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the cluster")
    }

    pub fn start(&mut self, id: u64) {
        let seed = self.seed;
        self.checked.remove(&id);
        self.node(id).start(seed).expect("the log is good");
        self.collect(id);
    }

    pub fn crash(&mut self, id: u64, power: bool) {
        let mut chance = self.chance.clone();
        self.chance.bits();
        self.node(id).crash(power.then_some(&mut chance));
        self.links.retain(|(_, to), _| *to != id);
        // The others notice that the connection is gone.
        for node in self.nodes.values_mut() {
            if let Some(group) = &mut node.group {
                group.unreachable(NodeId(id));
            }
        }
    }

    pub fn leader(&self) -> Option<u64> {
        // An old leader that was cut off may believe so too: the greatest term is right.
        let leaders = self.nodes.values().filter(|node| node.is_leader());
        leaders.max_by_key(|node| node.group.as_ref().map(|group| group.term())).map(|node| node.id)
    }

    /// Takes a node's messages into the network and checks what it applied.
    pub fn collect(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        for message in node.outbox.drain(..) {
            let link = (id, message.to().0);
            let food = !message.0.entries.is_empty() || message.snapshot().is_some();
            let lost = self.loss > 0 && self.chance.below(self.loss) == 0
                || (food && self.starved == Some(link.1));
            if lost || self.cut.contains(&link) {
                if message.snapshot().is_some() {
                    node.group.as_mut().expect("it is up").snapshot_sent(message.to(), false);
                }
                continue;
            }
            self.links.entry(link).or_default().push_back(message);
        }
        let node = &self.nodes[&id];
        let from = self.checked.entry(id).or_default();
        // An installed snapshot may hold what this node never applied itself; look at all of it
        // then.
        let start = node.state.partition_point(|(index, ..)| *index <= *from);
        for (index, term, data) in &node.state[start..] {
            let known = self.history.entry(*index).or_insert_with(|| (*term, data.clone()));
            assert_eq!(
                *known,
                (*term, data.clone()),
                "node {id} differs at {index}, seed {}",
                self.seed
            );
            *from = *index;
        }
        assert!(node.failures.is_empty(), "node {id}: {:?}, seed {}", node.failures, self.seed);
    }

    pub fn poll(&mut self, id: u64) {
        self.node(id).poll();
        self.collect(id);
    }

    /// Delivers the oldest message of a link.
    pub fn deliver(&mut self, link: (u64, u64)) {
        let Some(message) = self.links.get_mut(&link).and_then(VecDeque::pop_front) else {
            return;
        };
        let (from, to) = link;
        let up = self.nodes.get(&to).is_some_and(|node| node.group.is_some());
        if let Some(install) = message.snapshot() {
            let sent = self.nodes[&from].snapshot.clone();
            let sent = sent.filter(|(point, _)| *point == install.point);
            let delivered = up && sent.is_some();
            if let Some(group) = &mut self.node(from).group {
                group.snapshot_sent(NodeId(to), delivered);
            }
            if !delivered {
                return;
            }
            let node = self.node(to);
            let newer = |(point, _): &(SnapshotPoint, State)| point.index < install.point.index;
            if node.snapshot.as_ref().is_none_or(newer)
                && node.group().applied_index() < install.point.index
            {
                node.snapshot = sent;
            }
        }
        if up {
            // A refusal is as good as a loss.
            let _ = self.node(to).group().step(message);
            self.poll(to);
        }
    }

    /// Delivers and settles until nothing moves.
    pub fn settle(&mut self) {
        loop {
            let mut moved = false;
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for id in ids {
                if self.nodes[&id].group.is_some() {
                    self.node(id).settle();
                    self.collect(id);
                }
            }
            let links: Vec<_> = self.links.keys().copied().collect();
            for link in links {
                while self.links.get(&link).is_some_and(|queue| !queue.is_empty()) {
                    self.deliver(link);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// A tick everywhere, and all that follows from it.
    pub fn tick(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.node(id).group.is_some() {
                self.node(id).tick();
                self.poll(id);
            }
        }
    }

    /// Ticks until the condition holds.
    pub fn run_until(&mut self, what: &str, mut condition: impl FnMut(&mut Cluster) -> bool) {
        for _ in 0..400 {
            if condition(self) {
                return;
            }
            self.tick();
            self.settle();
        }
        panic!("never: {what}, seed {}", self.seed);
    }

    /// Ticks until there is a leader that everybody who is up follows.
    pub fn elect(&mut self) -> u64 {
        self.run_until("a leader", |cluster| {
            let Some(leader) = cluster.leader() else { return false };
            cluster.nodes.values().all(|node| {
                node.group.as_ref().is_none_or(|group| group.leader() == Some(NodeId(leader)))
            })
        });
        self.leader().expect("just elected")
    }

    /// Proposes on the leader and settles.
    pub fn propose(&mut self, data: &[u8]) -> Proposal {
        let leader = self.leader().expect("there is a leader");
        let proposal = self.node(leader).group().propose(data.to_vec()).expect("it leads");
        self.poll(leader);
        self.settle();
        proposal
    }

    /// Ticks until all that are up have applied the same, to the end.
    pub fn converge(&mut self) {
        self.run_until("equal states", |cluster| {
            let Some(leader) = cluster.leader() else { return false };
            let commit = cluster.node(leader).group().commit_index();
            let caught_up = |node: &Node| {
                node.group.as_ref().is_none_or(|group| group.applied_index() == commit)
            };
            let leads = cluster.nodes[&leader].group.as_ref().expect("it is up");
            commit == leads.last_index() && cluster.nodes.values().all(caught_up)
        });
        let states: Vec<_> =
            self.nodes.values().filter(|n| n.group.is_some()).map(|n| &n.state).collect();
        for pair in states.windows(2) {
            assert_eq!(pair[0], pair[1], "seed {}", self.seed);
        }
    }
}

/// What can happen to a cluster in one step, by chance.
impl Cluster {
    /// One random event: a message, the end of a write, a tick, a proposal, a crash, a restart, a
    /// cut link.
    pub fn step(&mut self, faults: u64) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let id = ids[self.chance.below(ids.len() as u64) as usize];
        let up = self.nodes[&id].group.is_some();
        match self.chance.below(100) {
            0..40 => {
                let links: Vec<_> = self.links.keys().copied().collect();
                if !links.is_empty() {
                    let link = links[self.chance.below(links.len() as u64) as usize];
                    self.deliver(link);
                }
            }
            40..70 if up && !self.nodes[&id].writes.is_empty() => {
                let at = self.chance.below(self.nodes[&id].writes.len() as u64) as usize;
                self.node(id).finish_write(at);
                self.poll(id);
            }
            70..75 if up => {
                self.node(id).finish_file_action();
                self.node(id).finish_log_reads();
                self.poll(id);
            }
            75..89 if up => {
                self.node(id).tick();
                self.poll(id);
            }
            89..97 if up => {
                let size = 1 + self.chance.below(600) as usize;
                let data = vec![self.chance.bits() as u8; size];
                let _ = self.node(id).group().propose(data);
                self.poll(id);
            }
            97 if self.chance.below(100) < faults => {
                if up {
                    let power = self.chance.below(2) == 0;
                    self.crash(id, power);
                } else {
                    self.start(id);
                }
            }
            98 if self.chance.below(100) < faults => {
                let other = ids[self.chance.below(ids.len() as u64) as usize];
                match self.chance.below(4) {
                    0 => self.cut.push((id, other)),
                    1 => self.cut.extend([(id, other), (other, id)]),
                    2 => {
                        // Mostly who leads: its last writes are then replaced.
                        let id = self.leader().unwrap_or(id);
                        self.cut =
                            ids.iter().flat_map(|&other| [(id, other), (other, id)]).collect()
                    }
                    _ => self.cut.clear(),
                }
            }
            99 if up => self.change_members(id, &ids),
            _ => {}
        }
    }

    /// Leadership goes to somebody, or votes are taken and given, one at a time or jointly.
    fn change_members(&mut self, id: u64, ids: &[u64]) {
        let one = NodeId(ids[self.chance.below(ids.len() as u64) as usize]);
        let two = NodeId(ids[self.chance.below(ids.len() as u64) as usize]);
        let choice = self.chance.below(4);
        let group = self.node(id).group();
        let changes: &[MembershipChange] = match choice {
            0 => {
                let _ = group.transfer_leader(one);
                &[]
            }
            1 if group.membership().voters.len() > 1 => &[MembershipChange::AddLearner(one)],
            2 if one != two => {
                &[MembershipChange::AddLearner(one), MembershipChange::AddVoter(two)]
            }
            _ => &[MembershipChange::AddVoter(one)],
        };
        let _ = group.propose_membership(changes);
        self.poll(id);
    }

    /// Ends all faults and lets everybody catch up; then nothing that was ever applied may be
    /// missing.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.nodes[&id].group.is_none() {
                self.start(id);
            }
        }
        self.settle();
        // Leadership may just be changing hands.
        self.run_until("a proposal is taken", |cluster| {
            let leader = cluster.elect();
            cluster.node(leader).group().propose("the end".as_bytes()).is_ok()
        });
        self.converge();
        let node = self.nodes.values().next().expect("some");
        assert_eq!(node.state.len(), self.history.len(), "seed {}", self.seed);
    }
}
