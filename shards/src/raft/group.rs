//! The group's state and its inputs. What comes out is in `drive.rs`.

use std::collections::VecDeque;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};

use super::config::GroupConfig;
use super::followers::Followers;
use super::lease::{self, Lease, Promise, TickGate};
use super::membership::{MembershipChange, SnapshotPoint, to_raft_change};
use super::output::{
    GroupFailure, PeerMessage, PeerProgress, Proposal, ProposeError, ReadError, Role, Status,
    StepError,
};
use super::store::Store;
use crate::disk::DiskResult;
use crate::ids::{Index, MonotonicTime, NodeId, Term};
use crate::limits::RAFT_READS_PENDING_MAX;
use crate::log::{AlignedBuffer, Layout, LogRun, Reserve, SyncPolicy, WriteTicket};
use crate::random::Random;
use crate::snapshot::Membership;

/// The Raft group of a shard, as one member sees it. See the module's description.
pub struct Group {
    pub(super) config: GroupConfig,
    pub(super) node: RawNode<Store>,
    /// Readies that raft-rs does not know to be persisted, in order.
    pub(super) unpersisted: VecDeque<Unpersisted>,
    /// Proposals of this node whose fate is open.
    pub(super) proposals: VecDeque<Proposal>,
    /// Does an index appear in `proposals` behind an equal or greater one?
    pub(super) proposals_disordered: bool,
    /// Proposals wait for the next poll, which sends all of them in one message to each follower.
    pub(super) appends_due: bool,
    /// Contexts of reads under way.
    pub(super) reads: Vec<u64>,
    /// Members since an index; the first is valid at the applied index.
    pub(super) memberships: VecDeque<(u64, Membership)>,
    /// Changes of members that are committed, to be taken in.
    pub(super) changes: Vec<(u64, ConfChangeV2)>,
    /// Term and vote as queued for the log last.
    pub(super) saved: (u64, u64),
    /// Log parts up to this count must be durable before a leader's messages go.
    pub(super) saved_part: u64,
    /// Index of the last change of members that the log was told of, and how many parts are
    /// durable when that is.
    pub(super) members_saved: (u64, u64),
    /// Term and role after the last call into raft-rs: when they change it has drawn a timeout,
    /// which is replaced.
    pub(super) observed: (u64, StateRole),
    /// What the driver reported.
    pub(super) applied: u64,
    /// Did the last ready leave this node as a leader with no other members and no log on disk?
    pub(super) alone: bool,
    /// The last entry that was handed out, and the last that was without a ready.
    pub(super) handed_out: u64,
    pub(super) handed_out_alone: u64,
    /// Campaign as soon as everything committed is applied: nobody else can.
    pub(super) eager: bool,
    pub(super) failure: Option<GroupFailure>,
    /// The time of the last tick.
    pub(super) now: MonotonicTime,
    gate: TickGate,
    promise: Promise,
    followers: Followers,
    pub(super) lease: Lease,
    chance: Random,
    /// When it stands, among the voters that are not the leader.
    rank: Option<usize>,
}

/// A ready on its way to the disk.
pub(super) struct Unpersisted {
    pub(super) number: u64,
    /// It is persisted when so many log parts are durable.
    pub(super) parts: u64,
    /// Go when it is.
    pub(super) messages: Vec<Message>,
}

impl Group {
    pub(super) fn assemble(
        config: GroupConfig,
        node: RawNode<Store>,
        members: Membership,
        applied: u64,
        saved: (u64, u64),
        begins_anew: bool,
        chance: Random,
    ) -> Group {
        let ticks = config.election_ticks;
        let eager = members.voters == [config.node] && !members.is_joint();
        let saved_part = node.store().log.as_ref().map_or(0, |log| log.appended());
        let mut group = Group {
            now: MonotonicTime(0),
            gate: TickGate::new(config.tick_us),
            promise: Promise::new(ticks, begins_anew),
            followers: Followers::new(ticks),
            lease: Lease::new(config.node.0, ticks, config.tick_us),
            config,
            node,
            unpersisted: VecDeque::new(),
            proposals: VecDeque::new(),
            proposals_disordered: false,
            appends_due: false,
            reads: Vec::new(),
            memberships: VecDeque::from([(applied, members)]),
            changes: Vec::new(),
            saved,
            saved_part,
            members_saved: (applied, saved_part),
            observed: (u64::MAX, StateRole::Follower),
            applied,
            alone: false,
            handed_out: applied,
            handed_out_alone: 0,
            eager,
            failure: None,
            chance,
            rank: None,
        };
        group.observe();
        group
    }

    /// Time passes. Call once every `tick_us`, with the time read just before, then poll. A tick
    /// that comes too soon is not counted.
    pub fn tick(&mut self, now: MonotonicTime) {
        debug_assert!(now >= self.now, "this clock never goes back");
        self.now = now.max(self.now);
        if let Some(log) = &mut self.node.mut_store().log {
            log.tick();
        }
        if !self.gate.accept(self.now) {
            return;
        }
        self.promise.tick();
        self.followers.tick();
        if self.failure.is_some() || self.must_not_campaign() {
            return;
        }
        let stands = |state| matches!(state, StateRole::Candidate | StateRole::PreCandidate);
        let stood = stands(self.node.raft.state);
        self.node.tick();
        assert!(
            stood || !self.promise.is_in_force() || !stands(self.node.raft.state),
            "stood for election while a leader may rely on its promise"
        );
        self.leave_joint();
        self.observe();
    }

    /// Takes a message from a peer; then poll.
    pub fn step(&mut self, message: PeerMessage) -> Result<(), StepError> {
        if let Some(failure) = &self.failure {
            return Err(StepError::Failed(failure.clone()));
        }
        let mut message = message.0;
        if message.to != self.config.node.0 {
            return Err(StepError::WrongNode(NodeId(message.to)));
        }
        self.check_message(&message)?;
        match message.msg_type {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if self.owes_silence(&message) =>
            {
                return Ok(());
            }
            MessageType::MsgHeartbeatResponse => self.take_answer(&mut message)?,
            _ => {}
        }
        if message.term == self.node.raft.term && self.membership().contains(NodeId(message.from)) {
            self.followers.heard(message.from);
        }
        let (from, term) = (message.from, message.term);
        // What raft-rs takes for a sign of life. A late refusal to vote for this node, by one that
        // leads since, is none.
        let is_leaders = matches!(
            message.msg_type,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        // Answers of nodes that were removed meanwhile are errors to raft-rs; they mean nothing.
        let _ = self.node.step(message);
        self.observe();
        let raft = &self.node.raft;
        let follows = raft.state == StateRole::Follower && raft.leader_id == from;
        if is_leaders && follows && raft.term == term {
            // The answer leaves later: the promise comes first.
            self.promise.renew();
        }
        Ok(())
    }

    /// Proposes a batch, which becomes one entry; then poll. Returns its place: it is committed
    /// when an entry with that index and term is; see also
    /// [`Output::lost`](super::Output::lost). `data` is not empty. Cost: no copy; no allocation
    /// but raft-rs' growing queues.
    pub fn propose(&mut self, data: impl Into<Bytes>) -> Result<Proposal, ProposeError> {
        self.propose_with(data.into(), Reserve::Kept)
    }

    /// Proposes a batch that makes the data smaller, or ends something: on a full disk it may use
    /// the room that [`Group::propose`] leaves.
    pub fn propose_smaller(&mut self, data: impl Into<Bytes>) -> Result<Proposal, ProposeError> {
        self.propose_with(data.into(), Reserve::Used)
    }

    /// Would a batch of so many bytes have to wait for a segment of the log that is being made?
    /// Then propose it when a report of work on files has come in: a proposal that is taken now
    /// cannot be refused when the disk proves to be full.
    #[inline]
    pub fn awaits_room(&self, bytes: usize) -> bool {
        self.node.store().log.as_ref().is_some_and(|log| log.awaits_room(bytes))
    }

    /// Why the log cannot grow; `None` when it can.
    pub fn lack_of_room(&self) -> Option<&str> {
        self.node.store().log.as_ref()?.lack_of_room()
    }

    /// Work on files that failed is tried again at once, as somebody has made room; then poll.
    pub fn retry_file_work(&mut self) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.retry_file_work();
        }
    }

    fn propose_with(&mut self, data: Bytes, reserve: Reserve) -> Result<Proposal, ProposeError> {
        assert!(!data.is_empty(), "an empty entry means something else");
        self.check_leader()?;
        if let Some(log) = &self.node.store().log
            && let Some(cause) = log.refuses(data.len(), reserve)
        {
            return Err(ProposeError::DiskFull(cause.to_string()));
        }
        // What raft-rs does with a proposed message, without the message.
        let entry = Entry { data, ..Entry::default() };
        if !self.node.raft.append_entry(&mut [entry]) {
            return Err(ProposeError::Busy);
        }
        self.appends_due = true;
        Ok(self.note_proposal())
    }

    /// Proposes a change of members; then poll. Several steps at once become a joint change, which
    /// ends by itself. A new voter should be a learner first, until its progress is near the
    /// leader's.
    pub fn propose_membership(
        &mut self,
        changes: &[MembershipChange],
    ) -> Result<Proposal, ProposeError> {
        self.check_leader()?;
        if self.node.raft.has_pending_conf() || self.membership().is_joint() || changes.is_empty() {
            return Err(ProposeError::MembershipPending);
        }
        self.propose_change(&to_raft_change(changes))
    }

    /// Asks whether this node still leads, so that a read can be served: answered by `read_ready`
    /// or `read_failed` with the context, which must be unique among reads under way. One call
    /// per batch of reads is enough. Lost messages are made up for with the next heartbeat.
    pub fn read_index(&mut self, context: u64) -> Result<(), ReadError> {
        if let Some(failure) = &self.failure {
            return Err(ReadError::Failed(failure.clone()));
        }
        if self.role() != Role::Leader {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        // raft-rs would drop it without a word.
        if !self.node.raft.commit_to_current_term() || self.reads.len() >= RAFT_READS_PENDING_MAX {
            return Err(ReadError::NotReady);
        }
        debug_assert!(!self.reads.contains(&context), "read context {context} is under way");
        self.reads.push(context);
        self.node.read_index(context.to_le_bytes().to_vec());
        Ok(())
    }

    /// A leader tells its followers what is committed with the next poll, if one of them has not
    /// heard of it yet: by itself it does that with the next entry, or heartbeat.
    pub fn announce_commit(&mut self) {
        let raft = &self.node.raft;
        let committed = raft.raft_log.committed;
        let own = self.config.node.0;
        let lacks = |id: u64, known: u64| id != own && known < committed;
        self.appends_due |= raft.state == StateRole::Leader
            && raft.prs().iter().any(|(id, peer)| lacks(*id, peer.committed_index));
    }

    /// Is it certain that at `now` no other node leads, and that everything that was ever answered
    /// is applied here? If so, a read that was executed before `now` was read from the clock
    /// may be answered. Ask after executing; when it does not hold, `read_index` is the way.
    /// Always holds on a leader that is the only voter. Cost: a few comparisons.
    #[inline]
    pub fn lease_valid(&self, now: MonotonicTime) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader
            && self.failure.is_none()
            && self.lease.holds(now.max(self.now))
            && (self.lease.is_alone() || !raft.has_pending_conf())
            && raft.raft_log.term(self.applied) == Ok(raft.term)
    }

    /// How long a lease lasts after the heartbeat that confirmed it was made, in microseconds.
    pub fn lease_us(&self) -> u64 {
        self.lease.length_us()
    }

    /// Stands for election now, if this node may; then poll. It may not while a leader can rely on
    /// its promise.
    pub fn campaign(&mut self) {
        if !self.promise.is_in_force() {
            self.stand();
        }
    }

    /// Has it heard of its group, or promised anything? If not it may become another member.
    pub fn has_begun(&self) -> bool {
        let members = self.membership();
        self.last_index() != Index(0)
            || self.term() != Term(0)
            || !members.voters.is_empty()
            || !members.learners.is_empty()
    }

    /// A replica that has not begun is this member of its group from now on.
    pub fn become_member(&mut self, member: NodeId) {
        assert!(!self.has_begun(), "member {} has begun", self.config.node.0);
        self.config.node = member;
        self.node.raft.id = member.0;
        self.lease = Lease::new(member.0, self.config.election_ticks, self.config.tick_us);
    }

    /// How many others stand for election before this member when their leader is lost: 0 stands
    /// first. Without a rank it is left to chance.
    pub fn set_rank(&mut self, rank: usize) {
        if self.rank != Some(rank) {
            self.rank = Some(rank);
            self.draw_timeout();
        }
    }

    /// Stands for election; a sole voter, whatever it promised.
    pub(super) fn stand(&mut self) {
        if self.failure.is_none() && !self.must_not_campaign() {
            // Refused by raft-rs when changes of members wait to be applied.
            let _ = self.node.campaign();
            self.observe();
        }
    }

    /// Hands leadership to a voter; then poll. Proposals are refused until it is done or an
    /// election timeout has passed.
    pub fn transfer_leader(&mut self, to: NodeId) -> Result<(), ProposeError> {
        self.check_leader()?;
        self.node.transfer_leader(to.0);
        if self.node.raft.lead_transferee.is_some() {
            self.lease.make_void();
        }
        Ok(())
    }

    /// Ceases to lead, without an heir: followers hear nothing any more, and elect another one. For
    /// a leader that cannot go on although its messages still go out; then poll. What it
    /// proposed may yet be committed.
    pub fn resign(&mut self) {
        if self.role() == Role::Leader && self.failure.is_none() {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
            self.observe();
        }
    }

    /// Is leadership being handed to another member?
    pub fn hands_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Goes on leading, unless another member has been told to stand already.
    pub fn keep_leading(&mut self) {
        self.node.raft.abort_leader_transfer();
    }

    /// A write of the log is done, as the sync policy promises; then poll.
    pub fn written(&mut self, ticket: WriteTicket, buffer: AlignedBuffer) {
        if self.failure.is_none()
            && let Some(log) = &mut self.node.mut_store().log
        {
            log.written(ticket, buffer);
        }
    }

    /// Says how records of the log are laid out from the next poll on.
    #[inline]
    pub fn set_layout(&mut self, layout: Layout) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.set_layout(layout);
        }
    }

    /// The next run of the log that takes no more records. Write it to its segment, and give it
    /// back by [`Group::run_written`], before the next poll.
    #[inline]
    pub fn take_run(&mut self) -> Option<LogRun> {
        self.node.mut_store().log.as_mut()?.take_run()
    }

    /// Has [`Group::take_run`] give everything of the log that is not in its segment yet.
    pub fn close_run(&mut self) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.close_run();
        }
    }

    /// A run was written.
    pub fn run_written(&mut self, run: LogRun) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.run_written(run.buffer);
        }
    }

    /// Changes what a report of a write promises. Before it becomes [`SyncPolicy::Always`],
    /// everything reported so far must be on the disk.
    pub fn set_sync_policy(&mut self, sync: SyncPolicy) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.set_sync_policy(sync);
        }
    }

    /// With lazy syncs: everything up to this write is on the disk.
    pub fn synced(&mut self, ticket: WriteTicket) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.synced(ticket);
        }
    }

    /// A write or sync of the log failed: the group stops for good. What is on the disk is not
    /// known any more (a second sync may lie), so only a restart, which reads it, can go on.
    pub fn write_failed(&mut self, ticket: WriteTicket, message: &str) {
        let message = format!("record {}: {message}", ticket.0);
        let failure = GroupFailure::LogWrite { shard: self.config.shard.0, message };
        self.failure.get_or_insert(failure);
    }

    /// The result of a piece of work on files; then poll.
    pub fn file_action_done(&mut self, id: u64, result: DiskResult<()>) {
        if let Some(log) = &mut self.node.mut_store().log {
            log.file_action_done(id, result);
        }
    }

    /// A piece of the log was read; then poll.
    pub fn log_read_done(&mut self, id: u64, result: DiskResult<Vec<u8>>) {
        if let Some(context) = self.node.mut_store().log_read_done(id, result) {
            self.node.on_entries_fetched(context);
            self.node.mut_store().forget_fetched();
        }
    }

    /// The driver has applied everything up to `index`, or installed a snapshot at it; then poll.
    /// Cost: constant per entry.
    #[inline]
    pub fn applied(&mut self, index: Index) {
        debug_assert!(index.0 >= self.applied, "applied goes forward");
        self.applied = index.0;
        self.advance_applied();
    }

    /// The snapshot that covers everything up to `through` is durable and what a restart would
    /// load: what the log has up to there may go, but for what followers need. Pass the index
    /// of an older snapshot to be able to fall back to it.
    pub fn compact(&mut self, through: Index) {
        let through = through.0.min(self.node.raft.raft_log.applied);
        let mut needed = through;
        if self.role() == Role::Leader {
            for (&id, progress) in self.node.raft.prs().iter() {
                if id != self.config.node.0 && self.followers.is_active(id) {
                    needed = needed.min(progress.matched);
                }
            }
        }
        let store = self.node.mut_store();
        store.compact(needed);
        let log_bytes = store.log.as_ref().map_or(0, |log| log.disk_bytes());
        if log_bytes > self.config.retained_bytes_max {
            store.compact(through);
        }
    }

    /// The point at which a snapshot taken now lies: the applied index. Write it into the
    /// snapshot's metadata.
    pub fn snapshot_point(&self) -> SnapshotPoint {
        let term = self.node.raft.raft_log.term(self.applied);
        let since = self.memberships.iter().rev().find(|(since, _)| *since <= self.applied);
        SnapshotPoint {
            index: Index(self.applied),
            term: Term(term.expect("the term of the applied index is kept")),
            membership: since.expect("the first is valid at the applied index").1.clone(),
        }
    }

    /// There is a snapshot that can be sent to followers. `token` is handed to their drivers.
    pub fn snapshot_taken(&mut self, point: SnapshotPoint, token: impl Into<Bytes>) {
        self.node.mut_store().set_snapshot(point, token.into());
    }

    /// The transfer of a snapshot to a peer has ended. Must be called for every snapshot message,
    /// else the peer gets nothing any more.
    pub fn snapshot_sent(&mut self, to: NodeId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }

    /// The connection to a peer is lost: what was under way may not have arrived, a snapshot
    /// neither.
    pub fn unreachable(&mut self, peer: NodeId) {
        self.node.report_unreachable(peer.0);
        self.node.report_snapshot(peer.0, SnapshotStatus::Failure);
    }

    /// How it is set up.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// What this member is.
    #[inline]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// Who leads, if known.
    pub fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.node.raft.leader_id)).filter(|leader| leader.0 != 0)
    }

    /// Term.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// Last index that is committed.
    pub fn commit_index(&self) -> Index {
        Index(self.node.raft.raft_log.committed)
    }

    /// Last index that the driver reported as applied.
    pub fn applied_index(&self) -> Index {
        Index(self.applied)
    }

    /// Last index in the log.
    pub fn last_index(&self) -> Index {
        Index(self.node.raft.raft_log.last_index())
    }

    /// The members, as of the last change that is committed here.
    pub fn membership(&self) -> &Membership {
        &self.memberships.back().expect("never empty").1
    }

    /// Are the members durable, so that this node will know them when it starts again, whoever it
    /// then hears?
    pub fn is_membership_durable(&self) -> bool {
        let log = self.node.store().log.as_ref();
        log.is_none_or(|log| log.durable() >= self.members_saved.1)
    }

    /// Has this replica applied an entry of the term in which it is, and knows who leads? Then it has
    /// everything that was committed before that leader was elected, whatever it had forgotten.
    pub fn is_current(&self) -> bool {
        let applied = self.node.raft.raft_log.term(self.applied);
        self.leader().is_some() && applied == Ok(self.node.raft.term)
    }

    /// Has the leader committed in its term, so that reads can be confirmed?
    pub fn is_ready_to_read(&self) -> bool {
        self.role() == Role::Leader && self.node.raft.commit_to_current_term()
    }

    /// Is nothing under way that a later poll will report of without a new input?
    pub fn is_idle(&self) -> bool {
        let log_idle = self.node.store().log.as_ref().is_none_or(|log| log.is_idle());
        log_idle && self.unpersisted.is_empty() && self.has_nothing_to_tell()
    }

    /// Is it a group of one, with its log in memory? Then applying what a poll handed out brings
    /// nothing for another.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Is this node the only member, with nothing under way? Then what is proposed now is committed
    /// when its log has it, and nobody else can lead before.
    #[inline]
    pub fn commits_at_once(&self) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader
            && raft.prs().iter().len() == 1
            && self.failure.is_none()
            && !raft.has_pending_conf()
            && raft.raft_log.last_index() == self.applied
    }

    /// Does the log on disk take a batch of so many bytes at once, if it is proposed next?
    #[inline]
    pub fn takes_at_once(&self, bytes: usize) -> bool {
        self.node.store().log.as_ref().is_some_and(|log| log.takes_at_once(bytes))
    }

    /// Why the group stopped, if it did.
    pub fn failure(&self) -> Option<&GroupFailure> {
        self.failure.as_ref()
    }

    /// Facts for people.
    pub fn status(&self) -> Status {
        let store = self.node.store();
        let snapshot = store.snapshot_point();
        Status {
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            commit_index: self.commit_index(),
            applied_index: self.applied_index(),
            last_index: self.last_index(),
            last_term: Term(self.node.raft.raft_log.last_term()),
            first_index: Index(store.base().0 + 1),
            snapshot_index: snapshot.map_or(Index(0), |point| point.index),
            snapshot_term: snapshot.map_or(Term(0), |point| point.term),
            log_bytes: store.log.as_ref().map_or(0, |log| log.disk_bytes()),
            cache_bytes: store.cache_bytes(),
        }
    }

    /// The members and how far they are, by id.
    pub fn peers(&self) -> Vec<PeerProgress> {
        let members = self.membership();
        let leads = self.role() == Role::Leader;
        let changed = self.memberships.back().expect("never empty").0;
        let raft = &self.node.raft;
        let is_own_change = leads && raft.raft_log.term(changed) == Ok(raft.term);
        let mut peers: Vec<_> = self
            .node
            .raft
            .prs()
            .iter()
            .map(|(&id, progress)| PeerProgress {
                node: NodeId(id),
                voter: members.votes(NodeId(id)),
                matched: Index(if leads { progress.matched } else { 0 }),
                active: id == self.config.node.0 || (leads && self.followers.is_active(id)),
                in_snapshot: leads && progress.state == raft::ProgressState::Snapshot,
                knows_members: !is_own_change
                    || id == self.config.node.0
                    || progress.committed_index >= changed,
            })
            .collect();
        peers.sort_by_key(|peer| peer.node);
        peers
    }

    fn check_leader(&self) -> Result<(), ProposeError> {
        if let Some(failure) = &self.failure {
            return Err(ProposeError::Failed(failure.clone()));
        }
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.prs().get(raft.id).is_none() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if raft.lead_transferee.is_some() {
            return Err(ProposeError::Transferring);
        }
        Ok(())
    }

    /// Refuses what no honest peer sends; some of it would bring raft-rs down.
    fn check_message(&mut self, message: &Message) -> Result<(), StepError> {
        use MessageType::*;
        match message.msg_type {
            MsgAppend if !message.entries.is_empty() => {
                let follows =
                    |(i, entry): (usize, &Entry)| entry.index == message.index + 1 + i as u64;
                if !message.entries.iter().enumerate().all(follows) {
                    return Err(StepError::Refused("append with a gap".into()));
                }
                // What does not follow its last entry is refused by raft-rs whatever it holds, and
                // its leader must hear that: after an entry that was dropped it counts on nothing.
                let follows_last = message.index <= self.last_index().0;
                let bytes = message.entries.iter().map(|entry| entry.data.len()).sum();
                let log = self.node.store().log.as_ref().filter(|_| follows_last);
                if let Some(cause) = log.and_then(|log| log.refuses(bytes, Reserve::Used)) {
                    return Err(StepError::DiskFull(cause.to_string()));
                }
            }
            MsgHeartbeat => {
                let last = self.last_index().0;
                if message.term >= self.node.raft.term && message.commit > last {
                    let shard = self.config.shard.0;
                    let acknowledged = message.commit;
                    let failure = GroupFailure::LostEntries { shard, last, acknowledged };
                    self.failure = Some(failure.clone());
                    return Err(StepError::Failed(failure));
                }
            }
            MsgAppend
            | MsgAppendResponse
            | MsgRequestVote
            | MsgRequestVoteResponse
            | MsgSnapshot
            | MsgHeartbeatResponse
            | MsgTimeoutNow
            | MsgRequestPreVote
            | MsgRequestPreVoteResponse => {}
            MsgHup | MsgBeat | MsgPropose | MsgUnreachable | MsgSnapStatus | MsgCheckQuorum
            | MsgTransferLeader | MsgReadIndex | MsgReadIndexResp => {
                return Err(StepError::Refused(format!("{:?}", message.msg_type)));
            }
        }
        Ok(())
    }

    /// Does a leader rely on this node not to vote now? Handing over is exempt, and what a lower
    /// term asks is refused anyway.
    fn owes_silence(&self, message: &Message) -> bool {
        self.promise.is_in_force()
            && message.term >= self.node.raft.term
            && message.context != raft::CAMPAIGN_TRANSFER
    }

    /// Takes the stamp off an answer to a heartbeat and counts it.
    fn take_answer(&mut self, message: &mut Message) -> Result<(), StepError> {
        let Some(sent) = lease::take_stamp(&mut message.context) else {
            return Err(StepError::Refused("an answer to no heartbeat".into()));
        };
        let raft = &self.node.raft;
        if raft.state == StateRole::Leader && raft.term == message.term && sent <= self.now {
            let members = &self.memberships.back().expect("never empty").1;
            self.lease.answered(message.from, sent, members);
        }
        Ok(())
    }

    pub(super) fn propose_change(
        &mut self,
        change: &ConfChangeV2,
    ) -> Result<Proposal, ProposeError> {
        let data = change.write_to_bytes().expect("encoding into memory does not fail");
        let mut entry = Entry { data: data.into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let mut message = Message { from: self.config.node.0, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![entry].into());
        match self.node.raft.step(message) {
            Ok(()) => Ok(self.note_proposal()),
            Err(_) => Err(ProposeError::Busy),
        }
    }

    fn note_proposal(&mut self) -> Proposal {
        let index = self.last_index();
        let proposal = Proposal { term: self.term(), index };
        if self.proposals.back().is_some_and(|last| last.index >= index) {
            self.proposals_disordered = true;
        }
        self.proposals.push_back(proposal);
        proposal
    }

    /// A sole voter wins the moment it campaigns, and raft-rs asserts that a winner has persisted
    /// its whole log.
    fn must_not_campaign(&self) -> bool {
        let raft = &self.node.raft;
        raft.state != StateRole::Leader
            && raft.raft_log.persisted != raft.raft_log.last_index()
            && raft.prs().is_singleton()
    }

    /// raft-rs draws election timeouts from a source that no seed governs; replaces every one that
    /// it drew.
    pub(super) fn observe(&mut self) {
        let now = (self.node.raft.term, self.node.raft.state);
        if now != self.observed {
            self.observed = now;
            self.alone = false;
            self.followers.clear();
            self.node.mut_store().forget_reads();
            self.lease.clear(&self.memberships.back().expect("never empty").1);
            self.draw_timeout();
        }
    }

    /// After how many ticks without a leader this member stands for election. With a rank one after
    /// the other, and all groups of a node alike; one tick more than a promise lasts, since the
    /// ticks of two nodes differ in phase. Who has stood in vain leaves a part to chance: another
    /// may think that it has the same rank.
    fn draw_timeout(&mut self) {
        let ticks = self.config.election_ticks;
        let more = match (self.rank, self.node.raft.state) {
            (None, _) => self.chance.below(ticks as u64) as usize,
            (Some(rank), StateRole::Follower | StateRole::Leader) => 1 + 2 * rank,
            (Some(rank), _) => 1 + 2 * rank + self.chance.below(2) as usize,
        };
        let more = more.min(ticks - 1);
        self.node.raft.set_randomized_election_timeout(ticks + more);
    }
}
