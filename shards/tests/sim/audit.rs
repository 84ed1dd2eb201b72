//! What the simulator knows and no node does: everything that happened anywhere, and what must
//! never happen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::queues::Served;
use raft::eraftpb::MessageType;
use ringraft_shards::ids::NodeId;
use ringraft_shards::raft::{CommittedEntry, EntryKind, PeerMessage};
use ringraft_shards::snapshot::Membership;
use ringraft_shards::transaction::TransactionId;

/// Writes are counted in steps of this, when the first leader that serves has executed them: nobody
/// sees them before. A read counts as coming right after the last write that it can have seen.
const HINT_STEP: u64 = 1 << 20;

/// Sums over the whole run. The maps are only looked up, so their order does not matter.
#[derive(Default)]
pub struct Audit {
    /// The first thing that went wrong.
    pub failure: Option<String>,
    /// Term and hash of every entry that was applied anywhere.
    entries: HashMap<(u16, u64), (u64, u32)>,
    /// Where each operation was applied.
    operations: HashMap<(u16, u64), u64>,
    /// When each operation was executed, in some count; see [`HINT_STEP`].
    hints: HashMap<u64, u64>,
    executions: u64,
    reads: u64,
    /// The latest of the operations that a shard's state at some index holds.
    positions: BTreeMap<(u16, u64), u64>,
    /// Operations of entries that only followers have applied.
    unseen: BTreeMap<(u16, u64), Vec<u64>>,
    /// Operations of transactions by the transaction's name.
    transactions: HashMap<TransactionId, u64>,
    /// Operations whose effects are in some state.
    happened: HashSet<u64>,
    digests: HashMap<(u16, u64), [u8; 20]>,
    leaders: HashMap<(u16, u64), u64>,
    votes: HashMap<(u16, u64, u64), u64>,
    /// Last entry that each replica told a leader it had.
    acknowledged: HashMap<(u16, u64), u64>,
    /// Nodes whose directory was emptied: what they said before is not theirs any more.
    wiped: HashSet<u64>,
    /// Who was served what by the queues.
    pub served: Served,
    /// Greatest commit index known to anybody.
    committed: HashMap<u16, u64>,
    /// The members of each group after the latest change that anybody has applied, and its index.
    members: BTreeMap<u16, (u64, Membership)>,
    /// Nodes that are removed for ever.
    removed: BTreeSet<u64>,
}

impl Audit {
    /// Something went wrong; only the first is kept.
    pub fn fail(&mut self, message: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(message());
        }
    }

    /// A replica applies an entry: the same at this place as everywhere.
    pub fn entry(&mut self, node: u64, shard: u16, entry: &CommittedEntry) {
        let hash = crc32fast::hash(&entry.data) ^ u32::from(entry.kind == EntryKind::Membership);
        let found = (entry.term.0, hash);
        let known = *self.entries.entry((shard, entry.index.0)).or_insert(found);
        let committed = self.committed.entry(shard).or_default();
        *committed = (*committed).max(entry.index.0);
        if known != found {
            let index = entry.index;
            self.fail(|| {
                format!("shard {shard}: node {node} applies another entry {index} than others")
            });
        }
    }

    /// An operation of an entry is applied: at one place only. Returns when it was executed.
    pub fn operation(&mut self, shard: u16, operation: u64, index: u64, serves: bool) -> u64 {
        let known = *self.operations.entry((shard, operation)).or_insert(index);
        if known != index {
            self.fail(|| {
                format!("shard {shard}: operation #{operation} is in entries {known} and {index}")
            });
        }
        self.happened.insert(operation);
        self.seen(shard, operation, index, serves)
    }

    fn seen(&mut self, shard: u16, operation: u64, index: u64, serves: bool) -> u64 {
        if serves && !self.hints.contains_key(&operation) {
            self.executed(operation);
        } else if !serves && !self.positions.contains_key(&(shard, index)) {
            self.unseen.entry((shard, index)).or_default().push(operation);
        }
        self.hints.get(&operation).copied().unwrap_or_default()
    }

    /// The state of a leader at an index holds operations up to this one.
    pub fn reached(&mut self, shard: u16, index: u64, hint: u64) {
        self.positions.entry((shard, index)).or_insert(hint);
        self.unseen.remove(&(shard, index));
    }

    /// A leader begins to serve. Returns up to which operation its state holds some.
    pub fn serves(&mut self, shard: u16, index: u64) -> u64 {
        let before = self.positions.range((shard, 0)..=(shard, index)).next_back();
        let mut position = before.map_or(0, |(_, position)| *position);
        let places: Vec<_> =
            self.unseen.range((shard, 0)..=(shard, index)).map(|(place, _)| *place).collect();
        for place in places {
            for operation in self.unseen.remove(&place).unwrap_or_default() {
                if !self.hints.contains_key(&operation) {
                    self.executed(operation);
                }
                position = position.max(self.hints[&operation]);
            }
        }
        self.reached(shard, index, position);
        position
    }

    /// A transaction begins.
    pub fn transaction(&mut self, id: TransactionId, operation: u64) {
        self.transactions.insert(id, operation);
    }

    /// A shard has applied its part of a transaction. Returns when the transaction was run.
    pub fn committed(&mut self, id: TransactionId, shard: u16, index: u64, serves: bool) -> u64 {
        let Some(operation) = self.transactions.get(&id).copied() else { return 0 };
        self.happened.insert(operation);
        self.seen(shard, operation, index, serves)
    }

    /// An operation is executed for its client now.
    pub fn executed(&mut self, operation: u64) {
        self.executions += HINT_STEP;
        self.hints.insert(operation, self.executions);
    }

    /// Operations whose effects are in some state.
    pub fn happened(&self) -> &HashSet<u64> {
        &self.happened
    }

    /// An operation has read a state that holds operations up to this one.
    pub fn read(&mut self, operation: u64, after: u64) {
        self.reads = (self.reads + 1) % HINT_STEP;
        self.hints.insert(operation, after + self.reads);
    }

    /// When it was executed, in that count; nothing when it was, but came to nothing for all that
    /// is known.
    pub fn hint(&self, operation: u64, is_done: bool) -> Option<u64> {
        let counts = is_done || self.happened.contains(&operation);
        self.hints.get(&operation).copied().filter(|_| counts)
    }

    /// Everybody has the same after the same entry.
    pub fn digest(&mut self, node: u64, shard: u16, index: u64, digest: [u8; 20]) {
        if *self.digests.entry((shard, index)).or_insert(digest) != digest {
            self.fail(|| format!("shard {shard}: node {node} differs after entry {index}"));
        }
    }

    /// There is one leader in a term.
    pub fn leader(&mut self, node: u64, shard: u16, term: u64) -> bool {
        let mut new = false;
        let known = *self.leaders.entry((shard, term)).or_insert_with(|| {
            new = true;
            node
        });
        if known != node {
            self.fail(|| format!("shard {shard}: nodes {known} and {node} both lead term {term}"));
        }
        new
    }

    /// A message leaves a node: a vote is given once, and what is acknowledged is kept.
    pub fn message(&mut self, shard: u16, message: &PeerMessage) {
        let message = &message.0;
        if message.reject || self.wiped.contains(&NodeId(message.from).node().0) {
            return;
        }
        let (node, to, term) = (message.from, message.to, message.term);
        match message.msg_type {
            MessageType::MsgRequestVoteResponse => {
                let known = *self.votes.entry((shard, node, term)).or_insert(to);
                if known != to {
                    self.fail(|| {
                        format!("shard {shard}: node {node} votes for {known} and {to} in {term}")
                    });
                }
            }
            MessageType::MsgRequestVote => {
                let known = *self.votes.entry((shard, node, term)).or_insert(node);
                if known != node {
                    self.fail(|| {
                        format!("shard {shard}: node {node} stands in {term}, voted for {known}")
                    });
                }
            }
            MessageType::MsgAppendResponse => {
                let known = self.acknowledged.entry((shard, node)).or_default();
                *known = (*known).max(message.index);
            }
            _ => {}
        }
    }

    /// A group begins with these nodes.
    pub fn founded(&mut self, shard: u16, founders: &[u64]) {
        let voters = founders.iter().copied().map(NodeId).collect();
        self.members.insert(shard, (0, Membership { voters, ..Membership::default() }));
    }

    /// A group has these members after an entry. Who is removed comes in nowhere.
    pub fn members(&mut self, shard: u16, index: u64, members: &Membership) {
        let known = self.members.entry(shard).or_default();
        if known.0 >= index {
            return;
        }
        let before = std::mem::replace(known, (index, members.clone())).1;
        let all = members.voters.iter().chain(&members.learners);
        let new = all.filter(|member| !before.contains(**member));
        let returned = new.map(|member| member.node().0).find(|id| self.removed.contains(id));
        if let Some(node) = returned {
            self.fail(|| format!("shard {shard}: n{node} was removed, and comes in again"));
        }
    }

    /// A node is removed for ever: no group counts on its vote any more.
    pub fn removed(&mut self, node: u64) {
        self.removed.insert(node);
        let votes = |members: &Membership| {
            let mut voters = members.voters.iter().chain(&members.voters_outgoing);
            voters.any(|voter| voter.node().0 == node)
        };
        let found = self.members.iter().find(|(_, (_, members))| votes(members));
        if let Some(shard) = found.map(|(shard, _)| *shard) {
            self.fail(|| format!("shard {shard}: n{node} is removed, and has a vote"));
        }
    }

    /// A node has lost everything.
    pub fn wiped(&mut self, node: u64) {
        self.wiped.insert(node);
        self.acknowledged.retain(|(_, of), _| NodeId(*of).node().0 != node);
    }

    /// A replica's log ends here now: what it acknowledged beyond was replaced by a leader, which
    /// is no loss.
    pub fn log_ends(&mut self, node: u64, shard: u16, last: u64, commit: u64) {
        if let Some(acknowledged) = self.acknowledged.get_mut(&(shard, node)) {
            *acknowledged = (*acknowledged).min(last);
        }
        let committed = self.committed.entry(shard).or_default();
        *committed = (*committed).max(commit);
    }

    /// A replica is back: what it acknowledged, and is committed, is there.
    pub fn started(&mut self, node: u64, shard: u16, last: u64) {
        let acknowledged = self.acknowledged.get(&(shard, node)).copied().unwrap_or_default();
        let committed = self.committed.get(&shard).copied().unwrap_or_default();
        let must = acknowledged.min(committed);
        if last < must {
            self.fail(|| {
                format!("shard {shard}: node {node} ends at {last}, but acknowledged {must}")
            });
        }
    }
}
