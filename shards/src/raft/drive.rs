//! The Ready loop: from raft-rs' readies to outputs, and from durability back to raft-rs.

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{Ready, StateRole};

use super::group::{Group, Unpersisted};
use super::lease;
use super::output::{
    CommittedEntry, EntryKind, GroupFailure, Output, PeerMessage, ReadReady, Role,
    SnapshotToInstall,
};
use crate::ids::{Index, Term};
use crate::snapshot::Membership;

impl Group {
    /// Collects all that is to be done now into `out`, which the caller has emptied.
    ///
    /// In memory a proposal of a group's only voter comes out as committed in the poll that follows
    /// it; with a log in the poll that follows the report of its write.
    /// Cost with one entry: a raft-rs cycle of some 2,500 instructions; a third of that for an only
    /// member in memory.
    pub fn poll(&mut self, out: &mut Output) {
        if self.failure.is_some() {
            out.failure = self.failure.clone();
            return;
        }
        if self.eager && self.applied >= self.node.raft.raft_log.committed {
            self.eager = false;
            self.stand();
        }
        if std::mem::take(&mut self.appends_due) && self.node.raft.state == StateRole::Leader {
            self.node.raft.bcast_append();
        }
        if self.alone && self.commit_alone(out) {
            return;
        }
        if self.handed_out_alone > self.applied {
            // A ready would hand it out again.
            return;
        }
        let mut committed_bytes = 0;
        loop {
            self.persist(out);
            if committed_bytes > self.config.committed_bytes_per_poll {
                out.more = self.node.has_ready();
                break;
            }
            if !self.node.has_ready() {
                break;
            }
            committed_bytes += self.take_ready(out);
        }
        if let Some(log) = &mut self.node.mut_store().log {
            log.build(&mut out.writes);
            out.file_action = log.take_file_action();
        }
        self.node.mut_store().take_log_reads(&mut out.log_reads);
        if self.role() != Role::Leader {
            out.read_failed.append(&mut self.reads);
        }
        out.snapshot_wanted |= self.node.store().take_snapshot_wanted();
        if let Some(message) = self.node.mut_store().take_read_failure() {
            let failure = GroupFailure::LogRead { shard: self.config.shard.0, message };
            self.failure = Some(failure.clone());
            out.failure = Some(failure);
        }
    }

    /// Commits the proposals of an only member that leads and keeps its log in memory: a ready
    /// would say the same. False when there may be something else to do.
    ///
    /// raft-rs does not learn what is handed out here. It does not hand it out again all the same:
    /// without a log what is applied leaves the store, and no ready is made before that.
    fn commit_alone(&mut self, out: &mut Output) -> bool {
        if !self.has_only_proposals() {
            return false;
        }
        let raft = &mut self.node.raft;
        let entries = raft.raft_log.unstable_entries();
        let bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
        let plain = entries.iter().all(|entry| entry.get_entry_type() == EntryType::EntryNormal);
        if !plain || bytes as u64 > self.config.committed_bytes_per_poll {
            return false;
        }
        let Some(last) = entries.last() else { return true };
        let (index, term) = (last.index, last.term);
        let entries = std::mem::take(&mut raft.raft_log.unstable.entries);
        raft.reduce_uncommitted_size(&entries);
        raft.mut_store().append(&entries);
        self.hand_out(&entries, out);
        self.handed_out_alone = index;
        let raft = &mut self.node.raft;
        raft.raft_log.unstable.entries = entries;
        raft.raft_log.stable_entries(index, term);
        raft.on_persist_entries(index, term);
        assert_eq!(raft.raft_log.committed, index, "an only member commits what it has");
        true
    }

    /// Is there nothing that a ready would tell but proposals?
    fn has_only_proposals(&self) -> bool {
        let raft = &self.node.raft;
        raft.msgs.is_empty()
            && raft.read_states.is_empty()
            && raft.raft_log.unstable_snapshot().is_none()
            && raft.raft_log.committed == self.handed_out
    }

    /// Has raft-rs nothing to tell? Of an only member in memory it would still tell the commit
    /// index.
    pub(super) fn has_nothing_to_tell(&self) -> bool {
        if self.alone {
            self.has_only_proposals() && self.node.raft.raft_log.unstable_entries().is_empty()
        } else {
            !self.node.has_ready()
        }
    }

    /// Handles one ready. Returns the bytes of committed entries that came with it.
    fn take_ready(&mut self, out: &mut Output) -> u64 {
        let mut ready = self.node.ready();
        if ready.ss().is_some() || ready.hs().is_some_and(|state| state.term != self.saved.0) {
            out.role_changed = true;
        }
        if !ready.snapshot().is_empty() {
            self.take_snapshot(&ready, out);
        }
        if let Some(state) = ready.hs() {
            let saved = (state.term, state.vote);
            let commit = state.commit;
            if let Some(log) = &mut self.node.mut_store().log {
                log.set_commit(commit);
                // Before the entries: a log must not end in a term that it does not know.
                if saved != self.saved {
                    log.set_state(saved.0, saved.1);
                    self.saved_part = log.appended();
                }
            }
            self.saved = saved;
        }
        self.node.mut_store().append(ready.entries());
        for read in ready.take_read_states() {
            let context = read.request_ctx.try_into().expect("contexts are 8 bytes");
            let context = u64::from_le_bytes(context);
            self.reads.retain(|pending| *pending != context);
            out.read_ready.push(ReadReady { context, index: Index(read.index) });
        }
        let mut bytes = self.hand_out(&ready.take_committed_entries(), out);
        if self.node.store().log.is_none() {
            let leading = self.stamped(ready.take_messages());
            out.messages.extend(leading.into_iter().map(PeerMessage));
            out.messages.extend(ready.take_persisted_messages().into_iter().map(PeerMessage));
            let mut light = self.node.advance_append(ready);
            let leading = self.stamped(light.take_messages());
            out.messages.extend(leading.into_iter().map(PeerMessage));
            bytes += self.hand_out(&light.take_committed_entries(), out);
        } else {
            self.queue(ready, out);
        }
        self.take_changes(out);
        let raft = &self.node.raft;
        self.alone = raft.state == StateRole::Leader
            && raft.prs().iter().len() == 1
            && self.node.store().log.is_none();
        bytes
    }

    /// Puts a ready behind the log parts that it needs.
    fn queue(&mut self, mut ready: Ready, out: &mut Output) {
        let log = self.node.store().log.as_ref().expect("only with a log");
        let (parts, durable) = (log.appended(), log.durable());
        let mut messages = ready.take_persisted_messages();
        let leading = self.stamped(ready.take_messages());
        if durable >= self.saved_part {
            self.release(leading, self.saved_part, out);
        } else {
            messages.extend(leading);
        }
        let number = ready.number();
        self.node.advance_append_async(ready);
        self.unpersisted.push_back(Unpersisted { number, parts, messages });
    }

    /// Tells raft-rs what has become durable, and lets the messages go that waited for it.
    fn persist(&mut self, out: &mut Output) {
        let Some(log) = self.node.store().log.as_ref() else { return };
        let durable = log.durable();
        let mut number = None;
        while self.unpersisted.front().is_some_and(|ready| ready.parts <= durable) {
            let ready = self.unpersisted.pop_front().expect("looked at above");
            number = Some(ready.number);
            self.release(ready.messages, ready.parts, out);
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
            self.advance_applied();
        }
    }

    /// Messages may go: the log holds what they say of this node, which is its first `parts` parts.
    fn release(&self, messages: Vec<Message>, parts: u64, out: &mut Output) {
        if messages.is_empty() {
            return;
        }
        let durable = self.node.store().log.as_ref().map_or(0, |log| log.durable());
        assert!(durable >= parts, "a message would go before part {parts} of the log is durable");
        out.messages.extend(messages.into_iter().map(PeerMessage));
    }

    /// Heartbeats carry when they were made. The time of the last tick is early enough for every
    /// later one.
    fn stamped(&self, mut messages: Vec<Message>) -> Vec<Message> {
        for message in &mut messages {
            if message.msg_type == MessageType::MsgHeartbeat {
                message.context = lease::stamp(&message.context, self.now);
            }
        }
        messages
    }

    fn take_snapshot(&mut self, ready: &Ready, out: &mut Output) {
        let install = SnapshotToInstall::from_raft(ready.snapshot());
        let point = &install.point;
        self.node.mut_store().reset(point.index.0, point.term.0);
        self.memberships.clear();
        self.memberships.push_back((point.index.0, point.membership.clone()));
        out.membership_changed = true;
        // What this poll had for applying is in the snapshot.
        out.committed.clear();
        let within = |proposal: &super::Proposal| proposal.index <= point.index;
        out.unknown.extend(self.proposals.iter().copied().filter(within));
        self.proposals.retain(|proposal| !within(proposal));
        out.install = Some(install);
    }

    /// Passes committed entries on. Returns their bytes.
    fn hand_out(&mut self, entries: &[Entry], out: &mut Output) -> u64 {
        let mut bytes = 0;
        for entry in entries {
            bytes += entry.data.len() as u64;
            self.handed_out = entry.index;
            self.settle(entry, out);
            let kind = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => EntryKind::Empty,
                EntryType::EntryNormal => EntryKind::Command,
                _ => {
                    self.changes.push((entry.index, read_change(entry)));
                    EntryKind::Membership
                }
            };
            out.committed.push(CommittedEntry {
                term: Term(entry.term),
                index: Index(entry.index),
                kind,
                data: entry.data.clone(),
            });
        }
        bytes
    }

    /// An entry is committed: the fate of proposals with its index is known.
    fn settle(&mut self, entry: &Entry, out: &mut Output) {
        let Some(first) = self.proposals.front() else { return };
        if !self.proposals_disordered {
            if first.index.0 > entry.index {
                return;
            }
            assert_eq!(first.index.0, entry.index, "entries are handed out without gaps");
            if first.term.0 != entry.term {
                out.lost.push(*first);
            }
            self.proposals.pop_front();
            return;
        }
        self.proposals.retain(|proposal| {
            let open = proposal.index.0 > entry.index;
            if !open && proposal.term.0 != entry.term {
                out.lost.push(*proposal);
            }
            open
        });
        self.proposals_disordered = !self.proposals.is_empty();
    }

    /// Takes committed changes of members in.
    fn take_changes(&mut self, out: &mut Output) {
        for (index, change) in std::mem::take(&mut self.changes) {
            match self.node.apply_conf_change(&change) {
                Ok(state) => {
                    self.memberships.push_back((index, Membership::sorted(&state)));
                    out.membership_changed = true;
                }
                // Every member refuses it alike: it does not fit the members that it was committed
                // under.
                Err(error) => tracing::warn!(
                    shard = self.config.shard.0,
                    "change of members at entry {index} refused: {error}"
                ),
            }
        }
        if out.membership_changed {
            let members = &self.memberships.back().expect("never empty").1;
            self.lease.renew(members);
            self.save_members();
        }
        let votes = self.membership().votes(self.config.node);
        if self.node.raft.state == StateRole::Leader && !votes {
            // raft-rs would let a removed leader go on.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
            self.observe();
        }
    }

    /// Has the log say how far it is committed, which is otherwise left to the next entry. Members
    /// are those of the last committed change: a node that forgot that there is one would ask
    /// for votes of members that may be gone for good.
    fn save_members(&mut self) {
        let changed = self.memberships.back().expect("never empty").0;
        if changed == self.members_saved.0 {
            return;
        }
        let (term, vote) = self.saved;
        if let Some(log) = &mut self.node.mut_store().log {
            log.set_state(term, vote);
            self.members_saved = (changed, log.appended());
        }
    }

    /// Tells raft-rs how far the state is, as far as it can know that yet, and forgets what is not
    /// needed.
    pub(super) fn advance_applied(&mut self) {
        let log = &self.node.raft.raft_log;
        let applied = self.applied.min(log.committed).min(log.persisted);
        if applied <= log.applied {
            return;
        }
        self.node.advance_apply_to(applied);
        while self.memberships.get(1).is_some_and(|(since, _)| *since <= applied) {
            self.memberships.pop_front();
        }
        let alone = self.node.raft.prs().iter().len() == 1;
        let keep_bytes = if alone { 0 } else { self.config.entry_cache_bytes };
        self.node.mut_store().trim(applied, keep_bytes);
    }

    /// A joint change ends by itself only under the leader that began it; any later one has to see
    /// to it.
    pub(super) fn leave_joint(&mut self) {
        let raft = &self.node.raft;
        let members = self.membership();
        if raft.state == StateRole::Leader
            && members.is_joint()
            && members.auto_leave
            && !raft.has_pending_conf()
            && raft.lead_transferee.is_none()
        {
            // Refused only when too much is under way; the next tick tries again.
            let _ = self.propose_change(&ConfChangeV2::default());
        }
    }
}

fn read_change(entry: &Entry) -> ConfChangeV2 {
    assert_eq!(entry.get_entry_type(), EntryType::EntryConfChangeV2, "no member proposes others");
    let mut change = ConfChangeV2::default();
    change.merge_from_bytes(&entry.data).expect("the leader read it when it was proposed");
    change
}
