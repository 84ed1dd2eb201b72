//! What a group tells its driver, and its errors.

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};

use super::membership::SnapshotPoint;
use crate::ids::{Index, NodeId, Term};
use crate::log::{FileAction, LogRead, LogWrite};
use crate::snapshot::Membership;

/// What the driver has to do after a poll, in the order of the fields. Reuse it: [`Output::clear`]
/// keeps the memory.
#[derive(Debug, Default)]
pub struct Output {
    /// The group cannot go on; nothing else is worth doing. Said with every poll from then on.
    pub failure: Option<GroupFailure>,
    /// Role, leader or term changed; ask the group.
    pub role_changed: bool,
    /// Messages that may go now.
    pub messages: Vec<PeerMessage>,
    /// Writes of the log to start. Report each with `written` or `write_failed`.
    pub writes: Vec<LogWrite>,
    /// Work on files to do where blocking is allowed. Report it with `file_action_done`.
    pub file_action: Option<FileAction>,
    /// Pieces of the log to read where blocking is allowed, for followers that lag. Report each
    /// with `log_read_done`.
    pub log_reads: Vec<LogRead>,
    /// Load this snapshot, which takes the place of the state, before applying anything that
    /// follows; then report `applied` with its index.
    pub install: Option<SnapshotToInstall>,
    /// Entries to apply, in order, all kinds counted; then report `applied`.
    pub committed: Vec<CommittedEntry>,
    /// The members changed; ask the group.
    pub membership_changed: bool,
    /// Reads that may be served once everything up to their index is applied.
    pub read_ready: Vec<ReadReady>,
    /// Contexts of reads that will not become ready here; ask again, perhaps elsewhere.
    pub read_failed: Vec<u64>,
    /// Proposals in whose place another entry was committed: they had no effect and never will.
    pub lost: Vec<Proposal>,
    /// Proposals that a snapshot took the place of: whether they had an effect is not known here.
    pub unknown: Vec<Proposal>,
    /// There is more than one poll hands out: poll again soon, without waiting for anything.
    pub more: bool,
    /// A follower needs a snapshot and there is none that fits: take one, then call
    /// `snapshot_taken`.
    pub snapshot_wanted: bool,
}

impl Output {
    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.failure = None;
        self.role_changed = false;
        self.messages.clear();
        self.writes.clear();
        self.file_action = None;
        self.log_reads.clear();
        self.install = None;
        self.committed.clear();
        self.membership_changed = false;
        self.read_ready.clear();
        self.read_failed.clear();
        self.lost.clear();
        self.unknown.clear();
        self.more = false;
        self.snapshot_wanted = false;
    }
}

/// A message between members.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerMessage(
    /// raft-rs' message; entry data in it is shared, not copied.
    pub Message,
);

impl PeerMessage {
    /// Who sent it.
    pub fn from(&self) -> NodeId {
        NodeId(self.0.from)
    }

    /// Who shall receive it.
    pub fn to(&self) -> NodeId {
        NodeId(self.0.to)
    }

    /// For a message that offers a snapshot: its place in the log and the driver's own bytes about
    /// it. The driver transfers the snapshot first, hands the message to the receiver's `step`
    /// once the file is durable there, and reports on the sender's side with `snapshot_sent`.
    pub fn snapshot(&self) -> Option<SnapshotToInstall> {
        (self.0.msg_type == MessageType::MsgSnapshot)
            .then(|| SnapshotToInstall::from_raft(self.0.get_snapshot()))
    }
}

/// A snapshot that takes the place of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotToInstall {
    /// Its place in the log.
    pub point: SnapshotPoint,
    /// What the sending driver passed to `snapshot_taken`.
    pub token: Bytes,
}

impl SnapshotToInstall {
    pub(super) fn from_raft(snapshot: &raft::eraftpb::Snapshot) -> SnapshotToInstall {
        let metadata = snapshot.get_metadata();
        let membership = Membership::sorted(metadata.get_conf_state());
        let (index, term) = (Index(metadata.index), Term(metadata.term));
        SnapshotToInstall {
            point: SnapshotPoint { index, term, membership },
            token: snapshot.data.clone(),
        }
    }
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A batch to apply.
    Command,
    /// Nothing: a leader's first entry, or a change of members that was refused.
    Empty,
    /// A change of members; the group has taken it in already.
    Membership,
}

/// An entry that is committed, durable here and not applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedEntry {
    /// Its term.
    pub term: Term,
    /// Its index; one more than that of the entry before.
    pub index: Index,
    /// What it is for.
    pub kind: EntryKind,
    /// What was proposed.
    pub data: Bytes,
}

/// The place that a proposal was given. It is committed when an entry with this index and this term
/// is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

/// A read may be served once everything up to `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// What the driver passed to `read_index`.
    pub context: u64,
    /// Apply up to here first.
    pub index: Index,
}

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one; a learner too.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a proposal was not taken. It had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Too much is under way; try again when some of it is committed.
    #[error("too many writes are under way")]
    Busy,
    /// Leadership is being handed over; try again elsewhere soon.
    #[error("leadership is being transferred")]
    Transferring,
    /// The log cannot grow. Reads go on; writes are taken again when there is room.
    #[error("{0}")]
    DiskFull(String),
    /// A change of members is under way, or this one changes nothing.
    #[error("another change of members is under way")]
    MembershipPending,
    /// The group has failed.
    #[error("the shard has failed: {0}")]
    Failed(GroupFailure),
}

/// Why a read cannot be confirmed here and now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// A new leader has not committed an entry of its own term yet; ask again after the next
    /// commit.
    #[error("the leader is new")]
    NotReady,
    /// The group has failed.
    #[error("the shard has failed: {0}")]
    Failed(GroupFailure),
}

/// Why a peer's message was not taken. It is as if it had been lost on the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It is for another node.
    #[error("a message for node {}", .0.0)]
    WrongNode(NodeId),
    /// No peer sends such a message, or its content makes no sense.
    #[error("a message of kind {0} that no peer sends")]
    Refused(String),
    /// It has entries for which the log has no room.
    #[error("{0}")]
    DiskFull(String),
    /// The group has failed.
    #[error("the shard has failed: {0}")]
    Failed(GroupFailure),
}

/// Why a group cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFailure {
    /// A write of the log failed. What is on the disk is not known: only a restart can tell.
    #[error("shard {shard}: the log cannot be written: {message}")]
    LogWrite {
        /// The shard.
        shard: u16,
        /// File and cause.
        message: String,
    },
    /// An entry cannot be read back.
    #[error("shard {shard}: the log cannot be read: {message}")]
    LogRead {
        /// The shard.
        shard: u16,
        /// File and cause.
        message: String,
    },
    /// The leader knows that this node had entries that it does not have now.
    #[error(
        "shard {shard}: this node has lost entries that it had acknowledged (it ends at {last}, \
         the leader counts on {acknowledged}); remove the node from the cluster, empty its \
         directory and let it join under a new id"
    )]
    LostEntries {
        /// The shard.
        shard: u16,
        /// Last index here.
        last: u64,
        /// Index that was acknowledged.
        acknowledged: u64,
    },
}

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Log and snapshot do not fit together.
    #[error(transparent)]
    Log(#[from] crate::log::RecoverError),
    /// raft-rs refuses the settings.
    #[error("the group cannot be set up: {0}")]
    Settings(String),
}

/// Facts about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role.
    pub role: Role,
    /// Term.
    pub term: Term,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Last index that is committed.
    pub commit_index: Index,
    /// Last index that the driver reported as applied.
    pub applied_index: Index,
    /// Last index in the log.
    pub last_index: Index,
    /// Term of that entry.
    pub last_term: Term,
    /// First index that is in the log.
    pub first_index: Index,
    /// Index of the newest snapshot that the driver told of; 0 without.
    pub snapshot_index: Index,
    /// Its term.
    pub snapshot_term: Term,
    /// Size of the log's segments.
    pub log_bytes: u64,
    /// Entries in memory, in bytes.
    pub cache_bytes: u64,
}

/// How far a member is, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub node: NodeId,
    /// Does its vote count?
    pub voter: bool,
    /// It has everything up to here; 0 on others than the leader, who do not know.
    pub matched: Index,
    /// Did it answer lately?
    pub active: bool,
    /// Is a snapshot on its way to it?
    pub in_snapshot: bool,
    /// Has it said that it knows the members of now? Until then it would ask for votes as of the
    /// members before, some of whom may be gone. True as well where nobody can say: on others than
    /// the leader, and when they changed under another one.
    pub knows_members: bool,
}
