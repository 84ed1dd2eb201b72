//! What breaks, when, and for how long.

use ringraft_shards::disk::Disk;
use ringraft_shards::meta::{Node, NodeState};

use crate::counts::Count;
use crate::node::Input;
use crate::operator::members_of;
use crate::plan::Kind;
use crate::replicas::group_at;
use crate::schedule::Event;
use crate::snapshots;
use crate::steps::{STEPS, Trap};
use crate::world::World;

/// What ends a fault.
pub enum Undo {
    /// These links work again.
    Mend(Vec<(u64, u64)>),
    /// This link is as fast as others.
    Fast((u64, u64)),
    /// This node's disk is.
    FastDisk(u64),
    /// And has room.
    Room(u64),
}

/// Faults that begin at some time. The others are in the network all the time.
const TIMED: &[Kind] = &[
    Kind::Partition,
    Kind::OneWay,
    Kind::SlowLink,
    Kind::Reset,
    Kind::Kill,
    Kind::Power,
    Kind::Blackout,
    Kind::TransactionCrash,
    Kind::Pause,
    Kind::ClockJump,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::FailedWrite,
    Kind::FailedFileWork,
    Kind::Flip,
    Kind::Wipe,
    Kind::Transfer,
    Kind::Membership,
];

/// Operations of a disk that may fail.
const FILE_OPERATIONS: &[&str] = &["create", "write", "sync", "rename", "remove", "sync directory"];

impl World {
    /// Something breaks, and the next time is set.
    pub fn fault(&mut self) {
        if self.core.calm {
            return;
        }
        let delay_us = self.core.around(self.core.plan.fault_every_us);
        self.core.after(delay_us, Event::Fault);
        let possible: Vec<Kind> =
            TIMED.iter().copied().filter(|kind| self.core.plan.has(*kind)).collect();
        let up: Vec<u64> = self.nodes.values().filter(|node| node.up).map(|node| node.id).collect();
        if possible.is_empty() || up.is_empty() {
            return;
        }
        let chance = &mut self.faults;
        let kind = possible[chance.below(possible.len() as u64) as usize];
        let mut node = up[chance.below(up.len() as u64) as usize];
        let shard = chance.below(u64::from(self.core.plan.shards) + 1) as usize;
        // Leaders have most to lose.
        if let Some(leader) = self.core.leading[shard].last().filter(|_| chance.below(2) == 0) {
            node = *leader;
        }
        let length_us = 1_000 + chance.below(2 * self.core.plan.fault_length_us);
        self.core.note(|| format!("fault: {} at n{node} for {length_us} us", kind.name()));
        match kind {
            Kind::Partition => self.partition(node, length_us),
            Kind::OneWay | Kind::SlowLink => {
                let others: Vec<u64> =
                    self.nodes.keys().copied().filter(|other| *other != node).collect();
                let other = others[self.faults.below(others.len() as u64) as usize];
                if kind == Kind::OneWay {
                    self.core.count(Count::OneWayCuts);
                    self.core.network.cut(&[(node, other)]);
                    let links = vec![(node, other)];
                    self.core.after(length_us, Event::Heal(Undo::Mend(links)));
                } else {
                    self.core.count(Count::SlowLinks);
                    self.core.network.set_slow((node, other), true);
                    self.core.after(length_us, Event::Heal(Undo::Fast((node, other))));
                }
            }
            Kind::Reset => {
                if let Some((connection, node, incarnation)) = self.core.reset(node) {
                    let input = Input::Ended { connection };
                    self.core.after(0, Event::Input { node, incarnation, input });
                }
            }
            Kind::Kill => {
                self.core.count(Count::Kills);
                self.crash(node, false, length_us / 4);
            }
            Kind::Power => {
                self.core.count(Count::PowerLosses);
                self.crash(node, true, length_us);
            }
            Kind::TransactionCrash => {
                let step = STEPS[self.faults.below(STEPS.len() as u64) as usize];
                let sends = self.faults.below(2) == 0;
                // One that is seldom walked into stays until it is.
                let waits = |trap: &Trap| trap.is_rare();
                if !self.core.trap.as_ref().is_some_and(waits) {
                    self.core.trap = Some(Trap { step, sends });
                }
            }
            Kind::Blackout => {
                self.core.count(Count::Blackouts);
                for id in up {
                    let back_us = length_us + self.faults.below(50_000);
                    self.crash(id, true, back_us);
                }
            }
            Kind::Pause => {
                self.core.count(Count::Pauses);
                let node = self.nodes.get_mut(&node).expect("it is up");
                node.pause(length_us, &mut self.core);
            }
            Kind::ClockJump => {
                self.core.count(Count::ClockJumps);
                let jump = self.faults.below(7_200_000) as i64 - 3_600_000;
                let node = self.node(node);
                node.clock_offset_ms += jump;
                node.clock_jumps += 1;
            }
            Kind::SlowDisk => {
                self.core.count(Count::SlowDisks);
                self.node(node).slow_disk = true;
                self.core.after(length_us, Event::Heal(Undo::FastDisk(node)));
            }
            Kind::FullDisk => {
                self.core.count(Count::FullDisks);
                for replica in self.node(node).replicas.iter() {
                    replica.disk.set_capacity(Some(replica.disk.used_bytes()));
                }
                self.core.after(length_us, Event::Heal(Undo::Room(node)));
            }
            Kind::FailedWrite | Kind::FailedFileWork => self.fail_disk(node, kind),
            Kind::Flip => self.flip(node),
            Kind::Wipe => self.wipe(node),
            Kind::Transfer => self.transfer(node),
            Kind::Membership => self.change_members(),
            _ => unreachable!("not a timed fault"),
        }
    }

    /// A fault ends.
    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Mend(links) => self.core.mend(&links),
            Undo::Fast(link) => self.core.network.set_slow(link, false),
            Undo::FastDisk(node) => self.node(node).slow_disk = false,
            Undo::Room(node) => {
                for replica in self.node(node).replicas.iter() {
                    replica.disk.set_capacity(None);
                }
            }
        }
    }

    /// A process ends, and starts again after a while. Those who had a connection to it notice.
    pub fn crash(&mut self, id: u64, power: bool, back_us: u64) {
        let core = &mut self.core;
        self.nodes.get_mut(&id).expect("it is there").crash(power, core);
        core.after(back_us, Event::Start { node: id });
        core.process_ended(id, power);
    }

    /// Cuts the cluster in two, half of the time with `node` alone on one side.
    fn partition(&mut self, node: u64, length_us: u64) {
        self.core.count(Count::Partitions);
        let alone = self.faults.below(2) == 0;
        let mut side = |id: u64| if alone { id == node } else { self.faults.below(2) == 0 };
        let side: std::collections::BTreeMap<u64, bool> =
            self.nodes.keys().map(|id| (*id, side(*id))).collect();
        let mut links = Vec::new();
        for (from, one) in &side {
            for (to, other) in &side {
                if one != other {
                    links.push((*from, *to));
                }
            }
        }
        self.core.network.cut(&links);
        self.core.after(length_us, Event::Heal(Undo::Mend(links)));
    }

    fn fail_disk(&mut self, node: u64, kind: Kind) {
        let shard = self.some_group();
        let operation = FILE_OPERATIONS[self.faults.below(FILE_OPERATIONS.len() as u64) as usize];
        let successes = self.faults.below(3) as usize;
        let replica = &mut self.node(node).replicas[shard];
        if kind == Kind::FailedWrite {
            replica.fail_next_write = true;
            self.core.count(Count::FailedWrites);
        } else {
            replica.disk.fail(operation, successes);
            self.core.count(Count::FailedFileWork);
        }
    }

    /// Flips a bit that a restart must notice: in a log write that a later one vouches for, or in a
    /// snapshot. One node of a run at most, which the operator replaces; and only when a
    /// majority is left.
    fn flip(&mut self, node: u64) {
        let healthy = self.nodes.values().filter(|node| node.up && !node.flipped).count();
        if self.is_spoilt() || healthy < 3 {
            return;
        }
        let shard = self.some_group();
        let pick = self.faults.bits();
        let replica = &mut self.nodes.get_mut(&node).expect("it is there").replicas[shard];
        let listed = replica.disk.list().expect("listing never fails here");
        let there = |name: &str| listed.iter().any(|file| file.name == name);
        let snapshot = snapshots::files(&replica.disk).pop();
        let vouched = replica.vouched;
        let writes: Vec<_> = replica
            .durable
            .iter()
            .filter(|write| write.ticket <= vouched && there(&write.file))
            .cloned()
            .collect();
        let (file, offset) = match snapshot {
            Some(file) if pick.is_multiple_of(4) || writes.is_empty() => {
                let size = replica.disk.read_all(&file).len() as u64;
                (file, (pick >> 8) % size)
            }
            _ if writes.is_empty() => return,
            _ => {
                let write = &writes[(pick >> 8) as usize % writes.len()];
                // Much of a write is padding, where a flipped bit means nothing.
                let within = [96, 96, write.bytes as u64][pick as usize % 3];
                (write.file.clone(), write.offset + (pick >> 32) % within)
            }
        };
        replica.disk.flip(&file, offset, 1 << ((pick >> 5) % 8));
        self.core.count(Count::Flips);
        self.core.note(|| format!("n{node}/s{shard} has a flipped bit in {file} at {offset}"));
        self.node(node).flipped = true;
        // Most of the time it is noticed at once.
        if !pick.is_multiple_of(8) {
            let back_us = self.faults.below(50_000);
            self.crash(node, pick.is_multiple_of(3), back_us);
        }
    }

    /// A node loses its directory and is started again, empty: to join where it was, or under its
    /// old id. One of a run at most, as above.
    fn wipe(&mut self, node: u64) {
        let healthy = self.nodes.values().filter(|node| node.up && node.refused.is_none()).count();
        let spoilt = self.is_spoilt();
        // What it loses shall be something.
        let is_early = self.core.now_us < self.core.plan.duration_us / 4;
        // All know the directory of a founder from the beginning; who does not know one cannot tell
        // it from another.
        let keeps_id = self.nodes[&node].is_founder() && self.faults.below(2) == 0;
        let is_member = self.core.registry.members().contains(&node);
        let is_member = is_member && (keeps_id || self.may_join());
        // One that leaves counts no more: its replicas may be given up at any moment.
        let leaves = |node: &Node| node.state == NodeState::Leaving;
        let some_leave = self.core.registry.state.nodes.values().any(leaves);
        if spoilt || healthy < 3 || is_early || !is_member || some_leave {
            return;
        }
        self.core.count(Count::Wipes);
        self.core.note(|| format!("n{node} is wiped"));
        let back_us = self.faults.below(50_000);
        self.crash(node, true, back_us);
        if keeps_id {
            self.node(node).wipe();
            self.core.audit.wiped(node);
        } else {
            self.core.count(Count::Emptied);
            self.come_anew(node);
        }
    }

    /// Has some node lost something for good?
    fn is_spoilt(&self) -> bool {
        self.nodes.values().any(|node| node.flipped || node.wiped || node.is_emptied)
    }

    /// A shard, or the meta group.
    fn some_group(&mut self) -> u16 {
        let shards = self.core.plan.shards;
        group_at(self.faults.below(u64::from(shards) + 1), shards)
    }

    fn transfer(&mut self, to: u64) {
        let shard = self.some_group();
        let leader = self.nodes.values_mut().find(|node| node.replicas[shard].is_leader());
        let Some(leader) = leader else { return };
        let running = leader.replicas[shard].running.as_mut().expect("it leads");
        let members = members_of(running.server.group.membership(), to);
        let Some(to) = members.first().copied() else { return };
        if running.server.group.transfer_leader(to).is_ok() {
            running.stirred = true;
            self.core.count(Count::Transfers);
        }
    }
}
