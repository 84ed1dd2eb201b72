//! What a node does for its cluster, by what its own replica of the meta group has applied: as the
//! process does it (`src/core/cluster/members.rs`), with the engine's decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DirectoryId, Index, NodeId, ShardId};
use ringraft_shards::keyspace::{KeyHash, Keyspace};
use ringraft_shards::meta::{
    ASKER_LEVEL, Absent, MetaEntry, MetaState, NodeFacts, NodeState, NotAdmitted, Outcome, Renewal,
    Renewals, Step, gone, half_joined, kept_state, level_voter, next_level_voter, next_meta_step,
    next_step, object_to_removal, plan_together, removals, wish_meta,
};
use ringraft_shards::raft::Role;
use ringraft_shards::wire::{Garbage, Reader};

use crate::counts::Count;
use crate::links::Payload;
use crate::machine::{self, DATABASE};
use crate::node::Node;
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::replicas::{META, groups};
use crate::schedule::Core;
use crate::serve::Who;

/// Ticks between two looks at what is to be done.
const LOOK_TICKS: u64 = 2;

/// Ticks between two questions which replica takes the place of one that is lost.
const ASK_TICKS: u64 = 10;

/// Ticks between two attempts to hand the leadership of a shard on.
const TRANSFER_TICKS: u64 = 10;

/// Ticks of silence after which a node counts as dead.
const DEAD_TICKS: u64 = 40;

/// A learner that is so few entries behind is level.
const BEHIND_MAX: u64 = 30;

/// What the operator hears of what it has asked a node for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Done(Outcome),
    /// A directory is this node from now on. The nodes that there are, as far as the one that
    /// answers knows.
    Joined(NodeId, Vec<(NodeId, DirectoryId)>),
    /// It shall not be.
    Objected,
    /// It had no effect. Somebody else is to be asked, or later.
    Refused,
    /// It may have had one.
    Unknown,
}

/// What nodes say to each other about replicas that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMessage {
    /// The sender has lost its replica of a group.
    Lost { group: u16, process: u64 },
    /// It has this one from now on.
    Renewed { group: u16, process: u64, generation: u32 },
}

impl NodeMessage {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let (group, process, generation) = match *self {
            NodeMessage::Lost { group, process } => (group, process, None),
            NodeMessage::Renewed { group, process, generation } => {
                (group, process, Some(generation))
            }
        };
        let mut out = vec![u8::from(generation.is_some())];
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&process.to_le_bytes());
        out.extend_from_slice(&generation.unwrap_or(0).to_le_bytes());
        out.into()
    }

    /// Reads one.
    pub fn decode(bytes: Bytes) -> Result<NodeMessage, Garbage> {
        let mut input = Reader::new(bytes, "an item of a process");
        let (kind, group, process) = (input.u8()?, input.u16()?, input.u64()?);
        let generation = input.u32()?;
        input.end()?;
        match kind {
            0 => Ok(NodeMessage::Lost { group, process }),
            1 => Ok(NodeMessage::Renewed { group, process, generation }),
            other => Err(Reader::unknown("an item of a process", other)),
        }
    }
}

/// What a process remembers of its cluster.
#[derive(Default)]
pub struct Membership {
    ticks: u64,
    renewals: Renewals,
    /// Since when other nodes are silent, in ticks, as long as this one leads.
    silent: BTreeMap<NodeId, u64>,
    /// When leadership of a shard was handed on last, in ticks.
    handed_on: BTreeMap<u16, u64>,
}

/// The state that a meta group's items hold.
pub fn state_of(keyspace: &Keyspace) -> Option<MetaState> {
    Some(kept_state(&keyspace.view(DATABASE, 0))?.1)
}

impl Running {
    /// A change of what the nodes agree on takes its place in the meta group's order; `ticket`: for
    /// whom.
    fn gather_meta(&mut self, ticket: Option<u64>, entry: &MetaEntry, outbox: &mut Outbox) {
        let arguments: OwnedArguments = [&entry.encode()[..]].into_iter().collect();
        let (nowhere, who) = (KeyHash::default(), Who::Meta(ticket));
        self.server.gather_write(who, machine::META_ENTRY, DATABASE, nowhere, arguments.borrow());
        self.stirred = true;
        if self.flaw == Flaw::EarlyState
            && let Some(known) = &mut self.known
        {
            let state = Rc::make_mut(known);
            let outcome = state.apply(Index(self.server.group.last_index().0 + 1), entry);
            outbox.told.extend(ticket.map(|ticket| (ticket, self.tell_agreed(outcome))));
        }
    }

    /// What the operator is told of something that was agreed on.
    pub fn tell_agreed(&self, outcome: Outcome) -> Told {
        let Outcome::Joined(node) = outcome else { return Told::Done(outcome) };
        let nodes = self.known.iter().flat_map(|known| &known.nodes);
        let there = nodes.filter(|(_, node)| node.state != NodeState::Removed);
        Told::Joined(node, there.map(|(id, node)| (*id, node.directory)).collect())
    }

    fn gather_founding(&mut self, state: &MetaState) {
        let arguments: OwnedArguments = [&state.encode()[..]].into_iter().collect();
        let (nowhere, who) = (KeyHash::default(), Who::Meta(None));
        self.server.gather_write(who, machine::META_FOUND, DATABASE, nowhere, arguments.borrow());
        self.stirred = true;
    }

    /// May this replica of the meta group propose what it plans?
    fn may_plan(&self) -> bool {
        self.server.serves() && self.server.is_quiet()
    }

    /// An entry of the meta group was applied: what is agreed on now?
    pub fn note_agreed(&mut self, index: u64, core: &mut Core) {
        self.known = state_of(&self.server.keyspace).map(Rc::new);
        match core.registry.applied(index, self.known.as_deref()) {
            Ok(removed) => removed.into_iter().for_each(|node| {
                core.note(|| format!("n{node} is removed for ever"));
                core.audit.removed(node);
            }),
            Err(error) => core.audit.fail(|| error),
        }
    }

    /// The items were loaded: what is agreed on, as far as this replica knows?
    pub fn note_loaded(&mut self, index: u64, core: &mut Core) {
        self.known = state_of(&self.server.keyspace).map(Rc::new);
        if let Err(error) = core.registry.loaded(index, self.known.as_deref()) {
            core.audit.fail(|| error);
        }
    }
}

impl Node {
    /// What is agreed on, as far as this node knows.
    pub fn known(&self) -> Option<Rc<MetaState>> {
        self.replicas[META].running.as_ref()?.known.clone()
    }

    fn meta(&mut self) -> &mut Running {
        self.replicas[META].running.as_mut().expect("it is up")
    }

    /// What is done at a tick.
    pub fn tick_members(&mut self, core: &mut Core, outbox: &mut Outbox) {
        self.membership.ticks += 1;
        let known = self.known();
        if self.membership.ticks.is_multiple_of(ASK_TICKS) {
            self.ask_for_replicas(known.as_deref(), outbox);
        }
        if !self.membership.ticks.is_multiple_of(LOOK_TICKS) {
            return;
        }
        let meta = &self.meta().server.group;
        if !meta.membership().contains(meta.config().node) {
            self.hand_everything_over(core);
        }
        let Some(known) = known else {
            if self.is_founder() && self.meta().may_plan() {
                let founded = core.registry.state.clone();
                self.meta().gather_founding(&founded);
            }
            return;
        };
        let (dead, gone) = (self.dead(&known), self.gone(&known));
        if self.meta().may_plan() {
            self.plan(&known, &dead, &gone, core, outbox);
        }
        self.take_steps(&known, &dead, &gone, core);
    }

    /// Proposes what is missing.
    fn plan(
        &mut self,
        known: &MetaState,
        dead: &BTreeSet<NodeId>,
        gone: &BTreeSet<NodeId>,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let half_joined = match self.serves_all() {
            true => half_joined(dead, self.memberships()),
            false => BTreeSet::new(),
        };
        let mut entries = plan_together(known, Absent { dead, half_joined: &half_joined });
        let meta = self.meta().server.group.membership().clone();
        entries.extend(removals(known, gone, &meta));
        let heard = self.links.identities();
        let heard = heard.map(|it| (it.node, it.address.as_str(), it.level));
        entries.extend(known.describe_heard(heard));
        for entry in entries {
            core.count(match &entry {
                MetaEntry::Describe { .. } => Count::AddressesChanged,
                MetaEntry::Remove(_) => Count::Removals,
                _ => Count::Wishes,
            });
            let id = self.id;
            core.note(|| format!("n{id} plans {entry:?}"));
            self.meta().gather_meta(None, &entry, outbox);
        }
    }

    fn memberships(&self) -> impl Iterator<Item = &ringraft_shards::snapshot::Membership> {
        let running = self.replicas.iter().filter_map(|replica| replica.running.as_ref());
        running.map(|running| running.server.group.membership())
    }

    /// Does it serve every shard?
    fn serves_all(&self) -> bool {
        let shards = 0..self.replicas.shards();
        let serves = |running: &Running| running.server.serves();
        shards.into_iter().all(|id| self.replicas[id].running.as_ref().is_some_and(serves))
    }

    /// Nodes without a replica of any shard, as far as this one leads all.
    fn gone(&mut self, known: &MetaState) -> BTreeSet<NodeId> {
        if !self.serves_all() || !self.meta().server.serves() {
            return BTreeSet::new();
        }
        let shards = 0..self.replicas.shards();
        let running = shards.filter_map(|id| self.replicas[id].running.as_ref());
        gone(known, running.map(|running| running.server.group.membership()))
    }

    /// Members that this leader has not heard for long.
    fn dead(&mut self, known: &MetaState) -> BTreeSet<NodeId> {
        if !self.meta().server.serves() {
            self.membership.silent.clear();
            return BTreeSet::new();
        }
        let (own, now) = (NodeId(self.id), self.membership.ticks);
        let silent = &mut self.membership.silent;
        for (node, _) in known.members().filter(|(node, _)| *node != own) {
            match self.links.is_linked(node.0) {
                true => drop(silent.remove(&node)),
                false => drop(silent.entry(node).or_insert(now)),
            }
        }
        let long = silent.iter().filter(|(_, since)| now - **since >= DEAD_TICKS);
        long.map(|(node, _)| *node).collect()
    }

    /// The groups that this node leads come nearer to what is wished.
    fn take_steps(
        &mut self,
        known: &MetaState,
        dead: &BTreeSet<NodeId>,
        gone: &BTreeSet<NodeId>,
        core: &mut Core,
    ) {
        let own = NodeId(self.id);
        let is_current = self.meta().server.group.is_current();
        let meta_leader = self.meta().server.group.leader().map(NodeId::node);
        let meta_leader = meta_leader.filter(|_| core.plan.together || core.calm);
        for id in groups(self.replicas.shards()) {
            let running = self.replicas[id].running.as_mut().expect("it is up");
            let group = &mut running.server.group;
            if group.role() != Role::Leader {
                continue;
            }
            let me = group.config().node;
            let step = match id {
                _ if !is_current => None,
                META => {
                    let wish = wish_meta(known, group.membership(), dead, gone);
                    next_meta_step(group, me, &wish, BEHIND_MAX)
                }
                _ => next_step(group, me, &known.lasting_wish(ShardId(id)), BEHIND_MAX),
            };
            let heir = match step {
                Some(Step::Change(changes)) => {
                    if group.propose_membership(&changes).is_ok() {
                        running.stirred = true;
                        core.count(Count::MembershipChanges);
                        core.note(|| format!("n{own}/s{id} proposes {changes:?}"));
                    }
                    continue;
                }
                Some(Step::HandOver(heir)) => {
                    core.count(Count::HandOvers);
                    Some(heir)
                }
                None => {
                    let leader = meta_leader.filter(|leader| id != META && *leader != own);
                    leader.and_then(|leader| level_voter(group, leader, BEHIND_MAX))
                }
            };
            if let Some(heir) = heir {
                self.hand_on(id, heir);
            }
        }
    }

    /// The leadership of a group goes to another member, unless that was tried just now.
    fn hand_on(&mut self, id: u16, heir: NodeId) {
        let tick = self.membership.ticks;
        let handed_on = self.membership.handed_on.entry(id).or_default();
        if *handed_on == 0 || tick >= *handed_on + TRANSFER_TICKS {
            *handed_on = tick;
            let running = self.replicas[id].running.as_mut().expect("it is up");
            running.stirred |= running.server.group.transfer_leader(heir).is_ok();
        }
    }

    /// It has no part in the meta group: others lead.
    fn hand_everything_over(&mut self, core: &mut Core) {
        for id in 0..self.replicas.shards() {
            let Some(running) = &self.replicas[id].running else { continue };
            let group = &running.server.group;
            if let Some(heir) = next_level_voter(group, BEHIND_MAX) {
                core.count(Count::HandOvers);
                self.hand_on(id, heir);
            }
        }
    }

    /// The operator asks for something.
    pub fn take_ask(&mut self, ticket: u64, entry: &MetaEntry, outbox: &mut Outbox) {
        let known = self.known().filter(|_| self.meta().server.serves());
        let Some(known) = known else { return outbox.told.push((ticket, Told::Refused)) };
        let heard = self.links.identities().map(|identity| identity.node).collect();
        match entry {
            MetaEntry::Join { directory, facts } => {
                let entries = match known.admit(*directory, facts, &heard) {
                    Ok(entries) => entries,
                    // It has left before it has heard that it had joined.
                    Err(NotAdmitted::Rejected(rejection)) => {
                        let told = Told::Done(Outcome::Rejected(rejection));
                        return outbox.told.push((ticket, told));
                    }
                    Err(NotAdmitted::AddressTaken(_)) => {
                        return outbox.told.push((ticket, Told::Refused));
                    }
                };
                for (n, entry) in entries.iter().enumerate() {
                    self.meta().gather_meta((n == 0).then_some(ticket), entry, outbox);
                }
            }
            MetaEntry::Leave(node) if object_to_removal(&known, *node, &heard).is_err() => {
                outbox.told.push((ticket, Told::Objected));
            }
            _ => self.meta().gather_meta(Some(ticket), entry, outbox),
        }
    }

    /// Asks which replicas are to take the place of those that are lost, or whose number was
    /// overtaken by another one.
    fn ask_for_replicas(&mut self, known: Option<&MetaState>, outbox: &mut Outbox) {
        let own = NodeId(self.id);
        let process = self.links.process();
        for replica in self.replicas.iter() {
            let group = replica.shard;
            let named =
                known.map_or(0, |known| known.lasting_member(ShardId(group), own).generation());
            let has_begun =
                replica.running.as_ref().is_some_and(|one| one.server.group.has_begun());
            let is_overtaken = !has_begun && named > replica.id.generation();
            if replica.id.is_lost_replica() || is_overtaken {
                let message = NodeMessage::Lost { group, process };
                let all = self.links.identities().map(|identity| identity.node.0);
                outbox.payloads.extend(all.map(|to| (to, Payload::Node(message))));
            }
        }
    }

    /// Another node says something about a replica.
    pub fn take_node_message(
        &mut self,
        from: u64,
        message: NodeMessage,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        match message {
            NodeMessage::Lost { group, process } => {
                let Some(known) = self.known().filter(|_| self.meta().may_plan()) else { return };
                let renewals = &mut self.membership.renewals;
                match renewals.ask(&known, ShardId(group), NodeId(from), process) {
                    Renewal::Wait => {}
                    Renewal::Named(generation) => {
                        let message = NodeMessage::Renewed { group, process, generation };
                        outbox.payloads.push((from, Payload::Node(message)));
                    }
                    Renewal::Propose(entry) => {
                        core.count(Count::Renewals);
                        core.note(|| format!("n{from}/s{group} is to be begun anew: {entry:?}"));
                        self.meta().gather_meta(None, &entry, outbox);
                    }
                }
            }
            NodeMessage::Renewed { group, process, generation } => {
                if process == self.links.process() && self.replicas[group].rename(generation) {
                    core.count(Count::FreshReplicas);
                    let id = self.id;
                    core.note(|| format!("n{id}/s{group} is replica {generation} now"));
                }
            }
        }
    }
}

/// The directory of the n-th machine that ever had one. When it is emptied, the next one is on the
/// same machine.
pub fn directory(number: u64) -> DirectoryId {
    DirectoryId(u128::from(number) << 32)
}

/// Where a directory's process is reached: after some starts elsewhere.
pub fn address(directory: DirectoryId, incarnation: u64) -> String {
    let machine = directory.0 >> 32;
    format!("machine-{machine}:{}", 7481 + incarnation / 3)
}

/// What a node says of itself at its first start.
pub fn facts(directory: DirectoryId) -> NodeFacts {
    let zone = ["", "a", "b"][(directory.0 >> 32) as usize % 3].to_owned();
    NodeFacts { address: address(directory, 1), zone, cores: 1, level: ASKER_LEVEL }
}
