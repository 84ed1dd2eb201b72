//! One run: all nodes, all clients, the network between them, and what is asked of them in the end.

use std::collections::BTreeMap;

use ringraft_shards::limits::RAFT_CLOCK_DRIFT_PERCENT;
use ringraft_shards::random::Random;

use crate::checker;
use crate::client::Clients;
use crate::counts::{Count, Counts};
use crate::machine::DATABASE;
use crate::node::{Input, Node};
use crate::operator::Operator;
use crate::plan::{Flaw, Kind, Plan};
use crate::queues;
use crate::readers;
use crate::registry::Registry;
use crate::replicas::groups;
use crate::schedule::{Core, Event};

/// When faults have ended, everything is well again within so much time.
const RECOVERY_US_MAX: u64 = 20_000_000;

/// A whole world.
pub struct World {
    pub core: Core,
    pub nodes: BTreeMap<u64, Node>,
    pub clients: Clients,
    pub operator: Operator,
    /// Chance of faults.
    pub faults: Random,
    reading: bool,
}

impl World {
    /// The world of a plan, before anything has happened. With `tracing` it can tell what happened.
    pub fn new(plan: Plan, tracing: bool) -> World {
        let ids: Vec<u64> = (1..=plan.nodes).collect();
        let mut faults = plan.chance(3);
        let mut core = Core::new(plan, tracing);
        let mut nodes = Vec::new();
        for id in &ids {
            let chance = core.plan.chance(10_000 + id);
            let mut node = Node::founder(*id, core.plan.shards, &ids, chance);
            node.clock_offset_ms = faults.below(2000) as i64 - 1000;
            let drifts = core.plan.flaw == Flaw::DriftingClocks;
            if core.plan.has(Kind::ClockRate) && (faults.below(2) == 0 || drifts) {
                core.count(Count::ClockRates);
                // Thousandths; any two differ by less than the lease allows, if there is one.
                let spread = match core.plan.lease {
                    _ if drifts => 1500,
                    true => RAFT_CLOCK_DRIFT_PERCENT * 10 - 1,
                    false => 500,
                };
                node.clock_rate = 1000 - spread / 2 + faults.below(spread);
            }
            nodes.push(node);
        }
        core.registry = Registry::found(&nodes, core.plan.shards);
        groups(core.plan.shards).for_each(|group| core.audit.founded(group, &ids));
        let nodes = nodes.into_iter().map(|node| (node.id, node)).collect();
        let clients = Clients::new(&core.plan);
        World { core, nodes, clients, operator: Operator::default(), faults, reading: false }
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes stay once they are there")
    }

    /// Runs to the end. The error says what is wrong.
    pub fn run(&mut self) -> Result<(), String> {
        for node in self.nodes.values_mut() {
            node.start(&mut self.core);
        }
        self.clients.begin(&mut self.core);
        self.core.after(50_000, Event::Fault);
        self.core.after(0, Event::Operate);
        while let Some(event) = self.core.next() {
            self.handle(event);
            if let Some(failure) = self.core.audit.failure.take() {
                return Err(failure);
            }
            let duration_us = self.core.plan.duration_us;
            if !self.core.calm && self.core.now_us > duration_us {
                self.calm();
            }
            if self.core.now_us > duration_us + RECOVERY_US_MAX {
                return Err(format!("not well in time: {}", self.ailments().join("; ")));
            }
            if self.reading && self.core.moment.is_multiple_of(64) && self.ailments().is_empty() {
                break;
            }
        }
        self.compare()?;
        for id in self.core.registry.members() {
            self.core.registry.judge(id, self.nodes[&id].known().as_deref())?;
        }
        self.judge_queues()?;
        readers::judge(self.clients.asked(), self.core.audit.happened())?;
        checker::check(&self.clients.history(&self.core))
    }

    fn handle(&mut self, event: Event) {
        let core = &mut self.core;
        let alive = |nodes: &BTreeMap<u64, Node>, node: u64, incarnation: u64| {
            nodes.get(&node).is_some_and(|node| node.up && node.incarnation == incarnation)
        };
        match event {
            Event::Turn { node, incarnation } => {
                if alive(&self.nodes, node, incarnation) {
                    self.turn(node);
                }
            }
            Event::Input { node, incarnation, input } => {
                if alive(&self.nodes, node, incarnation) {
                    self.nodes.get_mut(&node).expect("it is alive").input(input, core);
                }
            }
            Event::Knock { connection } => {
                let Some(to) = core.knocks(connection) else { return };
                // It may have joined and not know it yet.
                let Some(node) = self.nodes.get_mut(&to) else {
                    return core.answer(connection, None);
                };
                core.answer(connection, node.up.then_some(node.incarnation));
                node.input(Input::Accepted { connection }, core);
            }
            Event::Arrival { connection, side, chunk } => {
                let end = core.end_of(connection, side, chunk.is_none());
                if let Some((node, incarnation)) = end {
                    let input = match chunk {
                        Some(bytes) => Input::Bytes { connection, bytes },
                        None => Input::Ended { connection },
                    };
                    self.handle(Event::Input { node, incarnation, input });
                }
            }
            Event::Stuck { connection, side } => {
                if let Some((node, incarnation)) = core.is_stuck(connection, side) {
                    let input = Input::Ended { connection };
                    self.handle(Event::Input { node, incarnation, input });
                }
            }
            Event::Request { node, request } => {
                let node = self.nodes.get_mut(&node).expect("clients know existing nodes");
                node.input(Input::Request(request), core);
            }
            Event::Answer { client, answer } => self.clients.answered(client, answer, core),
            Event::Client { client } => self.clients.go_on(client, core),
            Event::Timeout { client, attempt } => self.clients.timed_out(client, attempt, core),
            Event::Fault => self.fault(),
            Event::Heal(undo) => self.undo(undo),
            Event::Start { node } => {
                self.nodes.get_mut(&node).expect("nodes stay").start(core);
            }
            Event::Ask { node, ticket, entry } => {
                let node = self.nodes.get_mut(&node).expect("nodes stay");
                node.input(Input::Ask { ticket, entry }, core);
            }
            Event::Told { ticket, told } => self.told(ticket, told),
            Event::Operate => {
                self.operate();
                self.look();
            }
        }
    }

    fn turn(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it is alive");
        let Err(failure) = node.turn(&mut self.core) else { return };
        self.core.note(|| format!("n{id} stops: {failure}"));
        let flipped = node.flipped;
        if failure.contains("has lost entries") || (failure.contains("cannot be read") && !flipped)
        {
            self.core.audit.fail(|| format!("node {id}: {failure}"));
        }
        let back_us = 1000 + self.faults.below(50_000);
        let power = self.faults.below(2) == 0;
        self.crash(id, power, back_us);
    }

    /// All faults end, and clients begin nothing new.
    fn calm(&mut self) {
        self.core.note(|| "calm".into());
        (self.core.calm, self.core.trap) = (true, None);
        self.core.calm_network();
        self.clients.closing = true;
        for node in self.nodes.values_mut() {
            node.slow_disk = false;
            node.go_on();
            for replica in node.replicas.iter_mut() {
                replica.disk.set_capacity(None);
                replica.fail_next_write = false;
            }
            node.start(&mut self.core);
        }
    }

    /// Everything settles, then everything is read.
    fn look(&mut self) {
        if self.core.calm && !self.reading && self.ailments().is_empty() {
            self.reading = true;
            self.core.note(|| "final reads".into());
            self.clients.begin_final_reads(&mut self.core);
        }
    }

    /// What is not well yet.
    fn ailments(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.clients.are_idle() {
            found.push(format!("clients wait: {:?}", self.clients.describe_pending()));
        }
        for node in self.nodes.values().filter(|node| node.up && node.transaction_count() > 0) {
            found.push(format!(
                "n{} coordinates {} transactions",
                node.id,
                node.transaction_count()
            ));
        }
        found.extend(self.ailments_of_members());
        for group in groups(self.core.plan.shards) {
            found.extend(self.ailments_of(group));
        }
        found
    }

    /// What is not well yet in a group.
    fn ailments_of(&self, shard: u16) -> Vec<String> {
        let mut found = Vec::new();
        let Some(leader) = self.leader(shard) else {
            return vec![format!("shard {shard} has no leader")];
        };
        let running = self.nodes[&leader].replicas[shard].running.as_ref();
        let group = &running.expect("it leads").server.group;
        let (last, members) = (group.last_index(), group.membership());
        let wish = self.wish_of(shard, members);
        let (voters, learners) = (&wish.voters, &wish.learners);
        if members.voters != *voters || members.is_joint() || members.learners != *learners {
            found.push(format!("shard {shard} has {members:?}, not {wish:?}"));
        }
        for id in voters.iter().chain(learners).map(|member| member.node().0) {
            let Some(node) = self.nodes.get(&id) else { continue };
            let running = node.replicas[shard].running.as_ref();
            let applied = running.map(|running| running.server.group.applied_index());
            if running.is_some_and(|running| !running.server.keyspace.ledger().is_empty()) {
                found.push(format!("n{id}/s{shard} remembers transactions"));
            }
            if running.is_some_and(|running| running.server.participant.count() > 0) {
                found.push(format!("n{id}/s{shard} has locks"));
            }
            if applied != Some(last) {
                found.push(format!("n{id}/s{shard} is at {applied:?} of {last}"));
            }
        }
        found
    }

    /// In the end all replicas are equal.
    fn compare(&mut self) -> Result<(), String> {
        for shard in groups(self.core.plan.shards) {
            let mut digests = BTreeMap::new();
            for id in self.core.registry.members() {
                let running = self.nodes[&id].replicas[shard].running.as_ref();
                let digest = running.expect("all are up").server.keyspace.digest_all();
                digests.entry(digest).or_insert_with(Vec::new).push(id);
            }
            if digests.len() > 1 {
                let sides: Vec<_> = digests.into_values().collect();
                return Err(format!("shard {shard}: these differ in the end: {sides:?}"));
            }
        }
        Ok(())
    }

    /// In the end every element is accounted for.
    fn judge_queues(&self) -> Result<(), String> {
        let mut left = Vec::new();
        for key in self.clients.keys.queues() {
            let shard = self.clients.keys.shard(key);
            let member = self.core.registry.members()[0];
            let running = self.nodes[&member].replicas[shard].running.as_ref();
            let keyspace = &running.expect("all are up").server.keyspace;
            left.extend(queues::elements(&keyspace.view(DATABASE, 0), key));
        }
        let audit = &self.core.audit;
        audit.served.judge(self.clients.told(), audit.happened(), left)
    }

    pub fn counts(&self) -> &Counts {
        &self.core.counts
    }
}
