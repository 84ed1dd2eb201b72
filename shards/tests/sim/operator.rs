//! The operator: somebody who wants nodes to join, to leave and to be replaced, and looks after
//! those that do not start. What is wanted is asked of nodes that believe to lead the meta group,
//! again and again; everything else nodes do themselves (`members.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ringraft_shards::ids::{DirectoryId, NodeId};
use ringraft_shards::meta::{
    Absent, MetaEntry, MetaWish, NodeFacts, Outcome, plan_together, wish_meta,
};
use ringraft_shards::snapshot::Membership;

use crate::counts::Count;
use crate::members::{Told, address, directory, facts};
use crate::node::Node;
use crate::replicas::META;
use crate::schedule::Event;
use crate::world::World;

/// Time between two looks at the nodes.
const LOOK_EVERY_US: u64 = 25_000;

/// Time after which what was asked for is asked for again.
const PATIENCE_US: u64 = 100_000;

/// Nodes that ever exist in one run, at most.
const NODES_MAX: usize = 8;

/// What the operator has in mind.
#[derive(Default)]
pub struct Operator {
    /// What is wanted, and when it was asked for last.
    wanted: Vec<(MetaEntry, Option<u64>)>,
    /// What was asked for, by ticket.
    asked: BTreeMap<u64, MetaEntry>,
    tickets: u64,
    /// Directories that ever wanted to be nodes.
    directories: u64,
    /// Nodes that are being replaced.
    replaced: BTreeSet<u64>,
}

impl Operator {
    fn want(&mut self, entry: MetaEntry) {
        if self.wanted.iter().all(|(known, _)| *known != entry) {
            self.wanted.push((entry, None));
        }
    }

    /// It does not want that any more. Did it?
    fn forget(&mut self, entry: &MetaEntry) -> bool {
        let before = self.wanted.len();
        self.wanted.retain(|(known, _)| known != entry);
        self.wanted.len() < before
    }

    /// What it still wants.
    pub fn wants(&self) -> Vec<String> {
        self.wanted.iter().map(|(entry, _)| format!("{entry:?}")).collect()
    }

    fn joins(&self) -> usize {
        let joins = |(entry, _): &&(MetaEntry, _)| matches!(entry, MetaEntry::Join { .. });
        self.wanted.iter().filter(joins).count()
    }
}

/// Members of a group that are replicas of a node.
pub fn members_of(members: &Membership, node: u64) -> BTreeSet<NodeId> {
    let Membership { voters, learners, voters_outgoing, learners_next, .. } = members;
    let all = [voters, learners, voters_outgoing, learners_next].into_iter().flatten();
    all.filter(|member| member.node().0 == node).copied().collect()
}

impl World {
    /// Somebody joins, leaves, or is replaced.
    pub fn change_members(&mut self) {
        let members = self.core.registry.members();
        let some = members[self.faults.below(members.len() as u64) as usize];
        match self.faults.below(3) {
            0 if members.len() > 3 => self.leave(some),
            1 if members.len() < 6 => {
                self.join();
            }
            _ => {
                if self.join() {
                    self.leave(some);
                }
            }
        }
    }

    /// A new directory wants to be a node.
    fn join(&mut self) -> bool {
        if !self.may_join() {
            return false;
        }
        self.operator.directories += 1;
        let number = self.core.plan.nodes + self.operator.directories;
        self.let_in(directory(number), facts(directory(number)));
        true
    }

    /// Is there room for another node?
    pub fn may_join(&self) -> bool {
        self.nodes.len() + self.operator.joins() < NODES_MAX
    }

    fn let_in(&mut self, directory: DirectoryId, facts: NodeFacts) {
        self.core.note(|| format!("operator: {} is to join", facts.address));
        self.operator.want(MetaEntry::Join { directory, facts });
    }

    /// A node's directory was emptied, and it is started as one that is to join, where it was.
    pub fn come_anew(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        node.is_emptied = true;
        let directory = DirectoryId(node.directory.0 + 1);
        let address = address(node.directory, node.incarnation);
        self.operator.replaced.insert(id);
        self.let_in(directory, NodeFacts { address, ..facts(directory) });
    }

    /// A node is to leave; one at a time.
    fn leave(&mut self, id: u64) {
        let leaves = |(entry, _): &(MetaEntry, _)| matches!(entry, MetaEntry::Leave(_));
        if !self.operator.wanted.iter().any(leaves) {
            self.core.note(|| format!("operator: n{id} is to leave"));
            self.operator.want(MetaEntry::Leave(NodeId(id)));
        }
    }

    /// Looks at the nodes, and asks for what is wanted.
    pub fn operate(&mut self) {
        self.core.after(LOOK_EVERY_US, Event::Operate);
        self.mend();
        let now_us = self.core.now_us;
        let meta = usize::from(self.core.plan.shards);
        let joins = self.operator.joins() > 0;
        for (entry, asked_us) in &mut self.operator.wanted {
            // Nobody leaves before those have joined who are to take its place.
            if joins && matches!(entry, MetaEntry::Leave(_)) {
                continue;
            }
            let leading = self.core.leading[meta].clone();
            if leading.is_empty() || asked_us.is_some_and(|at_us| now_us < at_us + PATIENCE_US) {
                continue;
            }
            if asked_us.replace(now_us).is_some() && matches!(entry, MetaEntry::Join { .. }) {
                self.core.count(Count::JoinsRepeated);
            }
            let node = leading[self.faults.below(leading.len() as u64) as usize];
            self.operator.tickets += 1;
            let (ticket, entry) = (self.operator.tickets, entry.clone());
            self.operator.asked.insert(ticket, entry.clone());
            self.core.count(Count::Asked);
            if let Some(delay_us) = self.core.client_delay() {
                self.core.after(delay_us, Event::Ask { node, ticket, entry });
            }
        }
    }

    /// A node has answered. Now and then the answer to a join is lost.
    pub fn told(&mut self, ticket: u64, told: Told) {
        let entry = self.operator.asked[&ticket].clone();
        self.core.note(|| format!("operator: {entry:?} has come to {told:?}"));
        let is_join = matches!(entry, MetaEntry::Join { .. });
        if is_join && !self.core.calm && self.faults.below(3) == 0 {
            return;
        }
        match told {
            Told::Done(outcome) => self.done(entry, outcome, Vec::new()),
            Told::Joined(node, told) => self.done(entry, Outcome::Joined(node), told),
            Told::Refused | Told::Unknown => self.core.count(Count::AskedInVain),
            Told::Objected => {
                self.core.count(Count::Objections);
                // One that must be replaced is tried again at the next look.
                self.operator.forget(&entry);
            }
        }
    }

    fn done(&mut self, entry: MetaEntry, outcome: Outcome, told: Vec<(NodeId, DirectoryId)>) {
        let known = self.core.registry.acknowledge(entry.clone(), outcome.clone());
        if let Err(error) = known {
            return self.core.audit.fail(|| error);
        }
        let is_new = self.operator.forget(&entry);
        match (entry, outcome) {
            (MetaEntry::Join { directory, .. }, Outcome::Joined(node)) if is_new => {
                self.begin(node.0, directory, told);
            }
            (MetaEntry::Leave(_), Outcome::Done) if is_new => self.core.count(Count::Leaves),
            _ => {}
        }
    }

    /// A directory is a node now, which starts.
    fn begin(&mut self, id: u64, directory: DirectoryId, told: Vec<(NodeId, DirectoryId)>) {
        if self.nodes.contains_key(&id) {
            return self.core.audit.fail(|| format!("n{id} is another node already"));
        }
        let chance = self.core.plan.chance(10_000 + id);
        let mut node = Node::new(id, directory, told, self.core.plan.shards, chance);
        node.start(&mut self.core);
        self.nodes.insert(id, node);
        self.clients.nodes.push(id);
        self.core.count(Count::Joins);
        self.core.note(|| format!("operator: n{id} has joined"));
    }

    /// A node that refuses to start gets another replica in the place of the one that is damaged,
    /// or is replaced.
    fn mend(&mut self) {
        let members = self.core.registry.members();
        let is_lost = |node: &Node| match node.is_emptied {
            // It leaves by itself, unless that was lost with its leader.
            true => self.core.calm && self.operator.joins() == 0,
            false => node.refused.is_some(),
        };
        let is_refused = |id: &&u64| self.nodes.get(id).is_some_and(is_lost);
        let Some(id) = members.iter().find(is_refused).copied() else { return };
        let node = self.nodes.get_mut(&id).expect("it has refused");
        if let Some(group) = node.damaged.take()
            && self.faults.below(2) == 0
        {
            self.core.count(Count::SetAside);
            self.core.note(|| format!("operator: n{id}/s{group} is set aside"));
            node.set_aside(group, self.core.plan.flaw);
            node.refused = None;
            node.start(&mut self.core);
            return;
        }
        // It may be the one too many: then nobody comes in its place.
        let is_new = self.operator.replaced.insert(id);
        if !is_new || self.join() || members.len() > 2 {
            self.leave(id);
        }
    }

    /// The node that leads a group in the greatest term.
    pub fn leader(&self, group: u16) -> Option<u64> {
        let leaders = self.nodes.values().filter(|node| node.replicas[group].is_leader());
        let term = |node: &&Node| {
            node.replicas[group].running.as_ref().map(|running| running.server.group.term())
        };
        leaders.max_by_key(term).map(|node| node.id)
    }

    /// What a group shall be, by all that is agreed on.
    pub fn wish_of(&self, group: u16, now: &Membership) -> MetaWish {
        let mut wish = match group {
            META => wish_meta(&self.core.registry.state, now, &BTreeSet::new(), &BTreeSet::new()),
            _ => MetaWish { voters: self.core.registry.wish(group).members, learners: Vec::new() },
        };
        wish.voters.sort_unstable();
        wish.learners.sort_unstable();
        wish
    }

    /// What is not well yet with those who belong.
    pub fn ailments_of_members(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.operator.wants().iter().map(|entry| format!("wanted: {entry}")).collect();
        let registry = &self.core.registry;
        let none = &BTreeSet::new();
        let absent = Absent { dead: none, half_joined: none };
        if !plan_together(&registry.state, absent).is_empty() {
            found.push("more is planned".into());
        }
        found.extend(registry.leaving().iter().map(|id| format!("n{id} has not left yet")));
        for id in registry.members() {
            let Some(node) = self.nodes.get(&id) else {
                found.push(format!("n{id} has not heard that it has joined"));
                continue;
            };
            for removed in registry.removed().filter(|id| node.links.is_linked(*id)) {
                found.push(format!("n{id} speaks to n{removed}, which was removed"));
            }
            if node.known().as_deref() != Some(&registry.state) {
                found.push(format!("n{id} does not know what is agreed on"));
            }
            let known = &registry.state.nodes[&NodeId(id)].facts.address;
            if *known != address(node.directory, node.incarnation) {
                found.push(format!("n{id} is not at {known}"));
            }
        }
        found
    }
}
