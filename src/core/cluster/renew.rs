//! Replicas that have lost their logs: the node gets the shard anew, as another member of its
//! group.
//!
//! At the start a shard that cannot be read is set aside (`node/recover.rs`). While the process
//! runs, a group finds that its log has less than it had promised (an old copy was put back): it is
//! set aside then, on the core where it lives, and the node's other shards go on. What takes its
//! place is a member of no group, and asks the node that leads, again and again, which one it is to
//! be. That one has the meta group name another replica of the same node, once for each that asks
//! (a process, and each loss while it runs), and answers with its number; the group's leader does
//! the rest, as for any learner. What is agreed on twice has an effect once.

use super::meta;
use super::wire::NodeMessage;
use crate::core::Core;
use crate::core::client::answers::Origin;
use crate::core::disk::storage::Done;
use crate::core::shard::{LocalShard, ShardTurn};
use crate::limits::{LOST_ASK_TICKS, LOST_REST_TICKS};
use ringraft_shards::ids::{NodeId, ShardId};
use ringraft_shards::meta::{MetaState, Renewal};
use ringraft_shards::raft::{GroupFailure, Role};
use ringraft_shards::serve;
use ringraft_shards::transaction::NO_LEADER;

/// What a core remembers of lost replicas.
#[derive(Default)]
pub struct Renewals {
    /// Shards of this core that are about to be set aside, and since when, in ticks.
    lost: std::collections::BTreeMap<ShardId, u64>,
    /// Who has asked for a number. At the node that leads.
    asked: ringraft_shards::meta::Renewals,
    /// How many others have the shards, as the directory says.
    companions: Option<usize>,
}

/// Who asks which replica a shard is to be: another one after each loss, so that no replica that
/// was lost is named again.
fn asker(process: u64, shard: &LocalShard) -> u64 {
    process.wrapping_add(shard.losses)
}

/// Why a shard is set aside.
const CAUSE: &str =
    "its log ends before what this node has acknowledged: an old copy of it was put back";

impl Core {
    /// A group has found that it has lost what it had promised. True when others can make up for
    /// that.
    #[cold]
    pub(in crate::core) fn is_made_up_for(&mut self, local: usize, failure: &GroupFailure) -> bool {
        if !matches!(failure, GroupFailure::LostEntries { .. }) || !self.has_others(local) {
            return false;
        }
        let (id, tick) = (self.shards[local].server.id, self.cluster.ticks);
        self.cluster.renewals.lost.entry(id).or_insert_with(|| {
            tracing::error!("{failure}");
            tick
        });
        true
    }

    /// Are the others a majority of the shard's group?
    fn has_others(&self, local: usize) -> bool {
        let members = self.shards[local].group.membership();
        let own = self.shared.cluster.own();
        let others = members.voters.iter().filter(|voter| voter.node() != own).count();
        let is_stored = self.shards[local].files.is_some();
        is_stored && !members.is_joint() && others > members.voters.len() / 2
    }

    /// Goes on with replicas that are lost.
    pub(super) fn tick_renewals(&mut self) {
        self.note_old_replicas();
        let tick = self.cluster.ticks;
        let rested = |since: &u64| tick >= since + LOST_REST_TICKS;
        let lost = self.cluster.renewals.lost.iter().filter(|(_, since)| rested(since));
        let lost: Vec<ShardId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(local) = self.router.local(id) {
                self.begin_anew(local);
            } else {
                self.cluster.renewals.lost.remove(&id);
            }
        }
        if tick.is_multiple_of(LOST_ASK_TICKS) {
            self.ask_for_numbers();
        }
    }

    /// A replica that was set aside was put back: what it has promised since is not known to it.
    fn note_old_replicas(&mut self) {
        let Some(state) = self.shared.cluster.state() else { return };
        let (own, tick) = (self.shared.cluster.own(), self.cluster.ticks);
        for local in 0..self.shards.len() {
            let shard = &self.shards[local];
            let (id, member) = (shard.server.id, shard.group.config().node);
            let named = state.lasting_member(id, own);
            if named.generation() > member.generation() && self.has_others(local) {
                self.cluster.renewals.lost.entry(id).or_insert(tick);
            }
        }
    }

    /// Sets a shard aside, once nothing of it is under way, and begins with an empty replica.
    fn begin_anew(&mut self, local: usize) {
        let shard = &mut self.shards[local];
        let id = shard.server.id;
        let leads = shard.group.role() == Role::Leader;
        if leads || self.is_moving_shards() || !self.storage.is_idle_for(id) {
            return;
        }
        self.give_up_snapshot(local, "ERR the shard is lost on this node");
        let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
        serve::give_up(&mut self.shards[local], &mut turn);
        self.send_held_back(local);
        let shard = &mut self.shards[local];
        // Parts of what is asked of several shards.
        shard.refuse_held(NO_LEADER, &mut self.answers);
        if std::mem::take(&mut shard.snapshots.is_short) {
            self.shared.short_count.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        }
        self.cluster.renewals.lost.remove(&id);
        let shard_count = self.router.shard_count();
        let losses = self.shards[local].losses + 1;
        let fresh = self.storage.directory().begin_anew(id, CAUSE);
        let fresh = fresh.and_then(|()| self.recover(id));
        let fresh = fresh.and_then(|mut fresh| {
            fresh.adopt_settings(&self.settings, shard_count).map_err(|error| error.to_string())?;
            fresh.losses = losses;
            Ok(fresh)
        });
        match fresh {
            Ok(fresh) => self.shards[local] = fresh,
            Err(error) => return self.fail(error),
        }
        self.turn.has_new_work = true;
        // From now on it is not read here.
        self.note_groups();
        self.note_driven(local);
    }

    /// Asks the node that leads which replicas the lost ones are to be.
    fn ask_for_numbers(&mut self) {
        let shared = self.shared.clone();
        let Some(peer) = &shared.peer else { return };
        let Some(leader) = shared.cluster.route().filter(|leader| *leader != shared.cluster.own())
        else {
            return;
        };
        let (own, state) = (shared.cluster.own(), shared.cluster.state());
        // Or another one was named since, for a question that came late.
        let is_overtaken = |shard: &&LocalShard| {
            let (id, member) = (shard.server.id, shard.group.config().node);
            let named = state.as_ref().map_or(0, |s| s.lasting_member(id, own).generation());
            member.is_lost_replica() || !shard.group.has_begun() && named > member.generation()
        };
        let lost = self.shards.iter().filter(is_overtaken);
        let lost = lost.map(|shard| (shard.server.id, asker(peer.identity.process, shard)));
        for (shard, asker) in lost.collect::<Vec<(ShardId, u64)>>() {
            self.send_message(leader, &NodeMessage::Lost { shard, asker });
        }
    }

    /// A node has lost its replica of a shard. On the core that has the links.
    pub(super) fn replica_is_lost(&mut self, node: NodeId, shard: ShardId, asker: u64) {
        let Some(state) = self.shared.cluster.state().filter(|_| self.may_plan()) else { return };
        match self.cluster.renewals.asked.ask(&state, shard, node, asker) {
            Renewal::Wait => {}
            Renewal::Named(generation) => {
                self.send_message(node, &NodeMessage::Renewed { shard, asker, generation });
            }
            Renewal::Propose(entry) => {
                tracing::warn!("node {node} has lost shard {shard}: it gets it anew");
                self.propose_meta(Origin::NOBODY, meta::entry(&entry, ""));
            }
        }
    }

    /// The node that leads says which replica of a shard this node has from now on.
    pub(super) fn replica_is_named(&mut self, shard: ShardId, asked: u64, generation: u32) {
        let Some(process) = self.shared.peer.as_ref().map(|peer| peer.identity.process) else {
            return;
        };
        let member = self.shared.cluster.own().replica(generation);
        self.tell_shard(shard, move |core, local| {
            let shard = &mut core.shards[local];
            let id = shard.server.id;
            let known = shard.group.config().node;
            let is_older = known.is_lost_replica() || known.generation() < generation;
            if asker(process, shard) != asked || shard.group.has_begun() || !is_older {
                return;
            }
            match core.storage.directory().name(id, member) {
                Ok(()) => {
                    tracing::info!("shard {id} comes anew, as replica {generation} of this node");
                    shard.group.become_member(member);
                    core.turn.has_new_work = true;
                }
                Err(error) => core.fail(error),
            }
        });
    }

    /// Writes down how many others have the shards, where that has changed. On the core that has
    /// the meta group.
    pub(super) fn note_companions(&mut self, state: &MetaState) {
        let own = self.shared.cluster.own();
        let others = |shard: &ringraft_shards::meta::Shard| {
            shard.replicas.iter().filter(|replica| replica.node != own).count()
        };
        let count = state.shards.values().map(others).min().unwrap_or(0);
        if self.cluster.renewals.companions.replace(count) == Some(count) {
            return;
        }
        let directory = self.storage.directory().clone();
        let report = |result: Result<(), String>| {
            if let Err(error) = result {
                tracing::warn!("{error}");
            }
            Done::Nothing
        };
        self.storage.in_background(move || directory.note_companions(count), report);
    }
}
