//! Who belongs: joins, wishes, the members of groups, and who shall lead.
//!
//! What the nodes agree on is in the meta group; its leader plans. Each group's leader compares
//! what is wished with what is and proposes the next step. All groups follow the meta group's
//! leader, so that one node leads them all: it serves every command, whatever its keys, without a
//! message to another node.

use super::fitness::{Unfit, heir};
use super::links::Links;
use super::meta::{self, META};
use super::view::GroupFacts;
use crate::core::Core;
use crate::core::client::answers::Origin;
use crate::core::shard::{Request, ShardTurn};
use crate::limits::{
    HAND_OVER_MS, HELD_FOR_LEADER_MS, LEADERS_APART_TICKS, LEVEL_ENTRIES, LEVEL_HEIR_TICKS,
    LEVEL_LEARNER_TICKS, TRANSFER_TICKS,
};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, DirectoryId, Index, NodeId, ShardId};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::meta::{
    Absent, MetaEntry, MetaState, NodeFacts, Step, gone, half_joined, level_voter,
    next_level_voter, next_meta_step, next_step, object_to_removal, plan_together, removals,
    wish_meta,
};
use ringraft_shards::peer::{Identity, Secret};
use ringraft_shards::raft::{Group, PeerProgress, Role};
use ringraft_shards::serve;
use ringraft_shards::transaction::NO_LEADER;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// What this process is to other nodes.
pub struct PeerIdentity {
    /// What it says of itself at each connection.
    pub identity: Identity,
    /// The cluster's secret.
    pub secret: Secret,
}

/// Where the log of a group ended at the last ticks, the newest first.
#[derive(Default)]
struct Growth([Index; LEVEL_LEARNER_TICKS + 1]);

impl Growth {
    /// A tick: the log ends here now.
    fn note(&mut self, last: Index) {
        if self.0[0] == Index(0) {
            self.0 = [last; LEVEL_LEARNER_TICKS + 1];
        }
        self.0.rotate_right(1);
        self.0[0] = last;
    }

    /// Entries that have come in the last `ticks`, [`LEVEL_LEARNER_TICKS`] at most. None where the
    /// log was cut back.
    fn within(&self, ticks: usize) -> u64 {
        self.0[0].0.saturating_sub(self.0[ticks].0)
    }
}

/// What a core remembers of members from tick to tick.
#[derive(Default)]
pub struct Membership {
    /// The last entry of the meta group that was taken in.
    meta_applied: Index,
    /// How each group's log has grown.
    growth: BTreeMap<ShardId, Growth>,
    /// When leadership of a group was handed on last, in ticks.
    handed_on: BTreeMap<ShardId, u64>,
    /// Since when requests wait for shards that this node does not serve, milliseconds since the
    /// process started.
    stranded_ms: BTreeMap<ShardId, i64>,
    /// Since when a majority has not heard a node, milliseconds since the process started; as long
    /// as this node leads.
    silent_ms: BTreeMap<NodeId, i64>,
    /// For how many ticks other nodes have led some shards.
    apart_ticks: u64,
    /// Until when leadership is to be handed over, if there is a limit, milliseconds since the
    /// process started.
    hand_over_until_ms: Option<i64>,
    /// Until when leadership is being handed over before the end, milliseconds since the process
    /// started.
    pub(super) leaving_until_ms: Option<i64>,
}

impl Membership {
    /// Hands the leadership of a shard's group on, [`TRANSFER_TICKS`] after the last time at the
    /// earliest.
    pub(super) fn hand_on(&mut self, group: &mut Group, shard: ShardId, heir: NodeId, tick: u64) {
        let handed = self.handed_on.entry(shard).or_default();
        if *handed == 0 || tick >= *handed + TRANSFER_TICKS {
            *handed = tick;
            // Refused only while another is under way.
            let _ = group.transfer_leader(heir);
        }
    }
}

impl Core {
    /// What is done for the cluster at each tick.
    pub(in crate::core) fn tick_cluster(&mut self) {
        if !self.shared.cluster.is_clustered() {
            return;
        }
        self.cluster.ticks += 1;
        self.begin_links();
        self.note_groups();
        self.tick_links();
        self.tick_transfers();
        if !self.stop_sent {
            self.tick_fitness();
            self.tick_renewals();
            self.readdress();
            let gone = self.gone();
            let dead = self.dead();
            self.plan(&gone, &dead);
            self.tend_groups(&gone, &dead);
        }
        self.update_route();
        self.tend_hand_over();
        self.tick_following();
        self.tend_held();
        self.tend_questions();
        self.refuse_stranded();
    }

    /// Requests wait for shards here that this node does not come to serve: they are told.
    fn refuse_stranded(&mut self) {
        let steady_ms = self.turn.steady_ms;
        for shard in &mut self.shards {
            let id = shard.server.id;
            if shard.serves() || !shard.holds_any() && shard.is_settled() {
                self.cluster.membership.stranded_ms.remove(&id);
                continue;
            }
            let since_ms = *self.cluster.membership.stranded_ms.entry(id).or_insert(steady_ms);
            if steady_ms - since_ms >= HELD_FOR_LEADER_MS {
                shard.refuse_held(NO_LEADER, &mut self.answers);
                let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
                serve::give_up(shard, &mut turn);
            }
        }
    }

    /// Makes the links, on the core that shall have them.
    pub(super) fn begin_links(&mut self) {
        // Before clients are let in it is not decided which core that is.
        let is_decided = self.shared.may_listen.load(Ordering::Acquire);
        let is_here = self.shared.cluster.link_core() == self.id;
        if self.cluster.links.is_some() || !is_decided || !is_here {
            return;
        }
        let Some(peer) = &self.shared.peer else { return };
        let links = Links::new(peer.identity.clone(), peer.secret.clone(), self.chance.bits());
        self.cluster.links = Some(Box::new(links));
    }

    /// Tells the others what the groups of this core are.
    pub(super) fn note_groups(&mut self) {
        let is_fit = !self.shared.cluster.fitness.own().is_any();
        for shard in &mut self.shards {
            let group = &mut shard.server.group;
            rank(group, is_fit);
            let facts = GroupFacts {
                term: group.term(),
                leader: group.leader(),
                applied: group.applied_index(),
                is_current: group.is_current(),
                is_member: group.membership().contains(group.config().node),
                members: group.membership().clone(),
                peers: group.peers(),
            };
            let id = shard.server.id;
            if id == META {
                self.shared.cluster.set_meta_leader(facts.leader);
            }
            self.shared.cluster.note_group(id, facts);
        }
    }

    /// A shard of this core was driven: what others must know of it at once.
    pub(in crate::core) fn note_driven(&mut self, local: usize) {
        let shard = &self.shards[local];
        let (id, serves) = (shard.server.id, shard.serves());
        if id == META {
            let applied = shard.group.applied_index();
            if applied != self.cluster.membership.meta_applied {
                self.cluster.membership.meta_applied = applied;
                if let Some((_, state)) = meta::state_of(shard) {
                    self.note_companions(&state);
                    self.shared.cluster.set_state(state);
                }
            }
            self.shared.cluster.set_meta_leader(self.shards[local].group.leader());
        }
        self.shared.cluster.note_applied(id, self.shards[local].group.applied_index());
        if self.shared.cluster.note_serving(id, serves) {
            self.update_route();
        }
    }

    /// This node is alone and is to take another one in: founds the meta group. Does nothing if it
    /// is there. Errors: why it cannot.
    pub(super) fn found_meta(&mut self) -> Result<(), String> {
        if self.router.local(META).is_some() {
            return Ok(());
        }
        let Some(peer) = &self.shared.peer else {
            return Err(
                "ERR this server runs in cache mode: it has no directory to belong by".into()
            );
        };
        let identity = &peer.identity;
        let facts = NodeFacts {
            address: identity.address.clone(),
            zone: String::new(),
            cores: self.core_count() as u16,
            level: identity.level,
        };
        let own = (identity.node, identity.directory, facts);
        let state = MetaState::found(&[own], self.router.shard_count() as u16);
        let shard = self.recover(META)?;
        tracing::info!("this node founds a cluster that others can join");
        self.router.put(META, self.shards.len());
        self.shards.push(shard);
        self.shared.cluster.begin();
        let core = self.id;
        self.everywhere(move |other| {
            other.router.send_to(META, core);
        });
        self.begin_links();
        // It waits there until the group has elected its only member.
        self.propose_meta(Origin::NOBODY, meta::founding(&state));
        for local in 0..self.shards.len() {
            self.note_driven(local);
        }
        Ok(())
    }

    /// Takes a node in; the answer goes to `origin`. On the core that has the links.
    pub fn take_in(
        &mut self,
        origin: Origin,
        directory: DirectoryId,
        facts: NodeFacts,
        told: String,
    ) {
        if let Err(error) = self.found_meta() {
            return self.answer_error(origin, &error);
        }
        let entries = match self.shared.cluster.state() {
            Some(state) => state.admit(directory, &facts, &self.heard()),
            None => Ok(vec![MetaEntry::Join { directory, facts }]),
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.answer_error(origin, &format!("ERR {error}")),
        };
        for entry in entries {
            if let MetaEntry::Leave(holder) = entry {
                tracing::info!("node {holder} leaves: its address has a new directory");
                self.propose_meta(Origin::NOBODY, meta::entry(&entry, ""));
            } else {
                self.propose_meta(origin, meta::entry(&entry, &told));
            }
        }
    }

    /// Nodes that are connected, and this one.
    fn heard(&self) -> BTreeSet<NodeId> {
        let links = self.cluster.links.as_ref();
        let nodes = links.into_iter().flat_map(|links| links.addresses().map(|(node, _)| node));
        nodes.chain([self.shared.cluster.own()]).collect()
    }

    /// A node shall leave; the answer goes to `origin`. Refused when that would leave a shard
    /// without a majority, unless it is `forced`. On the core that has the links.
    pub fn let_leave(&mut self, origin: Origin, node: NodeId, forced: bool) {
        let has_meta = self.router.local(META).is_some();
        let Some(state) = self.shared.cluster.state().filter(|_| has_meta) else {
            return self.answer_error(origin, "ERR this node is alone: there is no cluster yet");
        };
        if !forced && let Err(objection) = object_to_removal(&state, node, &self.heard()) {
            let text = format!("ERR {objection}; FORCE removes it all the same");
            return self.answer_error(origin, &text);
        }
        self.propose_meta(origin, meta::entry(&MetaEntry::Leave(node), ""));
    }

    /// Proposes a change of what the nodes agree on; the answer goes to `origin`. On the core that
    /// has the meta group.
    pub(super) fn propose_meta(&mut self, origin: Origin, arguments: OwnedArguments) {
        let local = self.router.local(META).expect("the caller has seen to it");
        self.turn.has_new_work = true;
        let request = Request {
            command: meta::row(),
            origin,
            database: DatabaseIndex(0),
            first_key: KeyHash::default(),
            arguments: arguments.borrow(),
        };
        self.shards[local].admit(&request, &mut self.stats);
    }

    /// Does this node lead the meta group, with nothing under way?
    pub(super) fn may_plan(&self) -> bool {
        let Some(local) = self.router.local(META) else { return false };
        let shard = &self.shards[local];
        shard.serves() && shard.is_quiet()
    }

    /// A node that names another address is reached there from now on, and one that knows more is
    /// known to.
    fn readdress(&mut self) {
        let Some(state) = self.shared.cluster.state().filter(|_| self.may_plan()) else { return };
        let Some(links) = &self.cluster.links else { return };
        let heard = links.identities();
        let heard = heard.map(|it| (it.node, it.address.as_str(), it.level));
        let changed = state.describe_heard(heard);
        if let Some(entry) = changed {
            self.propose_meta(Origin::NOBODY, meta::entry(&entry, ""));
        }
    }

    /// Plans who shall have which shard, and sees those off who leave.
    fn plan(&mut self, gone: &BTreeSet<NodeId>, dead: &BTreeSet<NodeId>) {
        let Some(state) = self.shared.cluster.state().filter(|_| self.may_plan()) else { return };
        let half_joined = self.half_joined(dead);
        let mut entries = plan_together(&state, Absent { dead, half_joined: &half_joined });
        entries.extend(state.raise_level());
        if let Some(meta) = self.shared.cluster.group(META) {
            entries.extend(removals(&state, gone, &meta.members));
        }
        for entry in entries {
            self.propose_meta(Origin::NOBODY, meta::entry(&entry, ""));
        }
    }

    /// Nodes that have no replica of any shard, as far as this node leads and so knows all groups.
    /// None on a core that has not the meta group: only it is to know.
    fn gone(&self) -> BTreeSet<NodeId> {
        let view = &self.shared.cluster;
        let is_asked = self.router.local(META).is_some() && view.serves_all();
        let Some(state) = view.state().filter(|_| is_asked) else {
            return BTreeSet::new();
        };
        gone(&state, view.groups().iter().map(|group| &group.members))
    }

    /// Members that a majority of the meta group's voters has not heard for `replace-after`: others
    /// shall have what they have. Whoever comes to lead begins to count anew.
    fn dead(&mut self) -> BTreeSet<NodeId> {
        let (after_ms, now_ms) = (self.settings.replace_after_ms, self.turn.steady_ms);
        let leading = self.router.local(META).filter(|local| self.shards[*local].serves());
        let state = self.shared.cluster.state().filter(|_| after_ms > 0);
        let (Some(local), Some(state), Some(links)) = (leading, state, &self.cluster.links) else {
            self.cluster.membership.silent_ms.clear();
            return BTreeSet::new();
        };
        let (own, fitness) = (self.shared.cluster.own(), &self.shared.cluster.fitness);
        let voters = &self.shards[local].server.group.membership().voters;
        let misses = |voter: NodeId, node: NodeId| match voter == own {
            true => !links.is_linked(node),
            false => fitness.hears(voter, node) == Some(false),
        };
        let silent = &mut self.cluster.membership.silent_ms;
        for (node, _) in state.members().filter(|(node, _)| *node != own) {
            let missed_by = voters.iter().filter(|voter| misses(voter.node(), node)).count();
            match 2 * missed_by > voters.len() {
                true => drop(silent.entry(node).or_insert(now_ms)),
                false => drop(silent.remove(&node)),
            }
        }
        let long = silent.iter().filter(|(_, since_ms)| now_ms - **since_ms >= after_ms);
        long.map(|(node, _)| *node).collect()
    }

    /// Those of the dead that have never had a vote: their joins have ended half-way, and hold
    /// others up.
    fn half_joined(&self, dead: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let view = &self.shared.cluster;
        if dead.is_empty() || !view.serves_all() {
            return BTreeSet::new();
        }
        let groups: Vec<GroupFacts> = view.groups().into_iter().chain(view.group(META)).collect();
        half_joined(dead, groups.iter().map(|group| &group.members))
    }

    /// The next steps of the groups that this core leads.
    fn tend_groups(&mut self, gone: &BTreeSet<NodeId>, dead: &BTreeSet<NodeId>) {
        let meta = self.shared.cluster.group(META);
        if meta.as_ref().is_some_and(|meta| !meta.is_member) {
            return self.hand_everything_over();
        }
        let Some(state) = self.shared.cluster.state() else { return };
        let own = self.shared.cluster.own();
        let fitness = &self.shared.cluster.fitness;
        let is_unfit = |node: NodeId| fitness.of(node).is_some_and(|unfit| unfit.is_any());
        let meta_leader = self.shared.cluster.meta_leader().map(NodeId::node);
        // One that is not fit hands the meta group over as well, unless nobody is: then it is as
        // good as this one.
        let is_own_unfit = fitness.own().is_any();
        let meta_leader =
            meta_leader.filter(|leader| *leader == own || is_own_unfit || !is_unfit(*leader));
        // What this node has known before it was started again may be old: it would take in again
        // who is removed since.
        let is_current = meta.is_some_and(|meta| meta.is_current);
        let tick = self.cluster.ticks;
        let mut led_elsewhere = None;
        for shard in &mut self.shards {
            let id = shard.server.id;
            let group = &mut shard.server.group;
            let me = group.config().node;
            let growth = self.cluster.membership.growth.entry(id).or_default();
            growth.note(group.last_index());
            if group.role() != Role::Leader {
                if id != META {
                    led_elsewhere = led_elsewhere.or(group.leader());
                }
                continue;
            }
            let of_learner = growth.within(LEVEL_LEARNER_TICKS) + LEVEL_ENTRIES;
            let of_heir = growth.within(LEVEL_HEIR_TICKS) + LEVEL_ENTRIES;
            let step = match id {
                _ if !is_current => None,
                META => {
                    let wish = wish_meta(&state, group.membership(), dead, gone);
                    next_meta_step(group, me, &wish, of_learner)
                }
                _ => next_step(group, me, &state.lasting_wish(id), of_learner),
            };
            let heir = match step {
                Some(Step::Change(changes)) => {
                    tracing::info!(shard = id.0, ?changes, "the members of a group change");
                    if let Err(error) = group.propose_membership(&changes) {
                        tracing::debug!(shard = id.0, "the members do not change yet: {error}");
                    }
                    continue;
                }
                Some(Step::HandOver(heir)) => Some(heir),
                None => {
                    let leader = meta_leader.filter(|leader| id != META && *leader != own);
                    leader.and_then(|leader| level_voter(group, leader, of_heir))
                }
            };
            if let Some(heir) = heir {
                self.cluster.membership.hand_on(group, id, heir, tick);
            }
        }
        self.follow_the_shards(led_elsewhere);
    }

    /// This node has no part in the meta group, because it has lost its replica or leaves: others
    /// lead.
    #[cold]
    fn hand_everything_over(&mut self) {
        let tick = self.cluster.ticks;
        for shard in &mut self.shards {
            let group = &mut shard.server.group;
            if let Some(heir) = next_level_voter(group, LEVEL_ENTRIES) {
                self.cluster.membership.hand_on(group, shard.server.id, heir, tick);
            }
        }
    }

    /// The meta group's leader cannot lead all shards for a while, perhaps because it lacks much,
    /// or has none: then it follows them.
    fn follow_the_shards(&mut self, led_elsewhere: Option<NodeId>) {
        let Some(local) = self.router.local(META) else { return };
        let Some(state) = self.shared.cluster.state() else { return };
        let own = self.shared.cluster.own();
        let shard = &mut self.shards[local];
        let group = &mut shard.server.group;
        let (may_lead, leads) = (state.has_replicas(own), group.role() == Role::Leader);
        let peers = group.peers();
        let has_shards = |peer: &&PeerProgress| {
            peer.voter && peer.active && state.has_replicas(peer.node.node())
        };
        let heir = match (may_lead, led_elsewhere.map(NodeId::node)) {
            (true, leader) => peers.iter().find(|peer| Some(peer.node.node()) == leader),
            (false, _) => peers.iter().find(has_shards),
        };
        let heir = heir.map(|peer| peer.node);
        let membership = &mut self.cluster.membership;
        let Some(heir) = heir.filter(|heir| leads && heir.node() != own) else {
            membership.apart_ticks = 0;
            return;
        };
        membership.apart_ticks += 1;
        let patience = if may_lead { LEADERS_APART_TICKS } else { TRANSFER_TICKS };
        if membership.apart_ticks >= patience {
            membership.apart_ticks = 0;
            let _ = group.transfer_leader(heir);
        }
    }

    /// Another node shall lead, if it does before so much time has passed; without one named, that
    /// which has most. The answer goes to `origin` when that is begun. On the core that has the
    /// links.
    pub fn let_lead_within(&mut self, origin: Origin, node: Option<NodeId>, time_ms: Option<i64>) {
        let own = self.shared.cluster.own();
        let heir = node.or_else(|| {
            let group = &self.shards[self.router.local(META)?].server.group;
            let heirs = group.peers().into_iter().filter(|peer| {
                let lacks_nothing = peer.voter && peer.active && !peer.in_snapshot;
                let state = self.shared.cluster.state();
                let has = state.is_some_and(|state| state.has_replicas(peer.node.node()));
                peer.node.node() != own && lacks_nothing && has
            });
            let best = heirs.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.node)));
            Some(best?.node.node())
        });
        let Some(heir) = heir else {
            return self.answer_error(origin, "ERR FAILOVER requires connected replicas.");
        };
        self.let_lead(origin, heir);
        self.cluster.membership.hand_over_until_ms =
            time_ms.map(|time_ms| self.turn.steady_ms.saturating_add(time_ms));
    }

    /// What was to lead shall not, if that is in time; the answer goes to `origin`. On the core
    /// that has the links.
    pub fn keep_leading(&mut self, origin: Origin) {
        self.end_hand_over();
        self.answers.write(origin, |out| Reply::new(out, origin.protocol).ok());
    }

    fn end_hand_over(&mut self) {
        if let Some(local) = self.router.local(META) {
            self.shards[local].server.group.keep_leading();
        }
        self.shared.cluster.note_hand_over(None);
        self.turn.has_new_work = true;
    }

    /// Leadership is being handed over: is that done, or has it taken too long?
    fn tend_hand_over(&mut self) {
        let Some(local) = self.router.local(META) else { return };
        if self.shared.cluster.hands_over_since_ms().is_none() {
            return;
        }
        let until_ms = self.cluster.membership.hand_over_until_ms;
        if until_ms.is_some_and(|until_ms| self.turn.steady_ms >= until_ms) {
            tracing::warn!("leadership is not handed over: that has taken too long");
            return self.end_hand_over();
        }
        let group = &self.shards[local].server.group;
        // The shards follow the meta group.
        let goes_on = group.hands_over() || group.role() != Role::Leader;
        let leads = self.shared.cluster.route() == Some(self.shared.cluster.own());
        if !(goes_on && leads) {
            self.shared.cluster.note_hand_over(None);
        }
    }

    /// Another node shall lead; the answer goes to `origin` when that is begun. On the core that
    /// has the links.
    pub fn let_lead(&mut self, origin: Origin, node: NodeId) {
        let local = self.router.local(META).filter(|local| self.shards[*local].serves());
        let Some(local) = local else {
            return self.answer_error(origin, "ERR this node does not lead");
        };
        if node == self.shared.cluster.own() {
            return self.answers.write(origin, |out| Reply::new(out, origin.protocol).ok());
        }
        let state = self.shared.cluster.state();
        if !state.is_some_and(|state| state.has_replicas(node)) {
            return self
                .answer_error(origin, "ERR the node stands by: it has no replica to lead with");
        }
        if let Some(unfit) = self.shared.cluster.fitness.of(node).filter(|unfit| unfit.is_any()) {
            let text = format!("ERR the node shall not lead: {unfit}");
            return self.answer_error(origin, &text);
        }
        let group = &mut self.shards[local].server.group;
        let peers = group.peers();
        let mut may = peers.iter().filter(|p| p.node.node() == node && p.voter && p.active);
        let Some(heir) = may.next() else {
            return self.answer_error(origin, "ERR the node has no vote, or is not reached");
        };
        self.turn.has_new_work = true;
        match group.transfer_leader(heir.node) {
            Ok(()) => {
                self.cluster.membership.hand_over_until_ms = None;
                self.shared.cluster.note_hand_over(Some(self.turn.steady_ms));
                self.answers.write(origin, |out| Reply::new(out, origin.protocol).ok());
            }
            Err(error) => self.answer_error(origin, &format!("ERR {error}")),
        }
    }

    /// The end was asked for: leadership is handed over first. True while that is under way.
    pub(in crate::core) fn hands_over(&mut self) -> bool {
        if !self.shared.cluster.is_clustered() {
            return false;
        }
        let steady_ms = self.turn.steady_ms;
        let until_ms =
            *self.cluster.membership.leaving_until_ms.get_or_insert(steady_ms + HAND_OVER_MS);
        if steady_ms >= until_ms {
            return false;
        }
        let mut leads = false;
        for shard in &mut self.shards {
            let group = &mut shard.server.group;
            if group.role() != Role::Leader {
                continue;
            }
            let own = self.shared.cluster.own();
            let (fitness, peers) = (&self.shared.cluster.fitness, group.peers());
            let is_fit = |node| fitness.of(node).is_none_or(|unfit| !unfit.is_any());
            let stays = |node| fitness.of(node).is_none_or(|unfit| !unfit.has(Unfit::STOPPING));
            let heir = heir(&peers, own, is_fit).or_else(|| heir(&peers, own, stays));
            let Some(heir) = heir else { continue };
            leads = true;
            let _ = group.transfer_leader(heir);
        }
        self.turn.has_new_work = true;
        leads
    }

    /// The end was asked for so long ago that nobody waits any more for entries that no majority
    /// takes.
    pub(in crate::core) fn waits_no_more(&self) -> bool {
        let until_ms = self.cluster.membership.leaving_until_ms;
        until_ms.is_some_and(|until_ms| self.turn.steady_ms > until_ms + HAND_OVER_MS)
    }
}

/// Who stands first when the leader is lost: the voter with the smallest number, in all groups the
/// same; last who is not fit to lead.
fn rank(group: &mut Group, is_fit: bool) {
    let (leader, own) = (group.leader(), group.config().node);
    let voters = &group.membership().voters;
    let before = voters
        .iter()
        .filter(|voter| **voter != own && Some(**voter) != leader)
        .filter(|voter| voter.node() < own.node() || !is_fit);
    let rank = before.count();
    group.set_rank(rank);
}
