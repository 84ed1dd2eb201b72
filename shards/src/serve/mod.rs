//! One server of a shard, whoever drives it: the process with its clients and disks, the simulator
//! with its own.
//!
//! It decides what is proposed together, what waits behind which entry of the log, what has to be
//! confirmed before it is answered, who waits for a transaction, and what becomes of each request
//! when leadership changes. What commands mean, and how clients are answered, is its [`Host`]'s.
//!
//! A request ends in one of these ways, each said once:
//!
//! | what the host hears | when | effect |
//! |---|---|---|
//! | [`Host::run`] | a write is committed and applied here, or a read has its place beside one | done |
//! | [`Host::answer`] | a read was executed, and it is certain that this node led then | done |
//! | [`Host::fail`] with [`Fate::Refused`] | the log did not take it | none |
//! | [`Fate::NotLeader`] | this node leads no more, and has not proposed it | none |
//! | [`Fate::Lost`] | another leader's entry has its place in the log | none |
//! | [`Fate::Unknown`] | a snapshot has taken the place of its entry | not known here |
//!
//! Order: what is gathered runs in the order in which it was gathered, writes and the reads beside
//! them alike. Reads given to [`Server::gather_read`] have nothing before them.
//!
//! A turn: inputs ([`take_message`], [`Server::gather_write`], the group's own), [`transact`],
//! [`mind_clock`], [`propose`], [`ask_for_reads`], then poll the group and hand its output to
//! [`polled`], [`apply`] for each entry, and [`settle`]; at its end [`end_leased`], and
//! [`serve_followers`] where another node leads.

pub mod beforehand;
mod entries;
mod fate;
mod follow;
mod part;
pub mod readers;
mod reads;
mod sets;
pub mod waits;

pub use entries::{Minded, apply, mind_clock, propose};
pub use fate::{give_up, note_role, polled, settle};
pub use follow::{Certainty, Sight, forget_questions, serve_followers, tick_followers};
pub use part::{take_message, tick, transact, wait};
pub use reads::{Leases, ask_for_reads, end_leased};
pub use sets::{Set, Waiting};

use crate::arguments::Arguments;
use crate::batch::{Batch, BatchBuilder};
use crate::clock::ShardClock;
use crate::ids::{DatabaseIndex, Index, NodeId, ShardId, Term};
use crate::keyspace::Keyspace;
use crate::raft::{CommittedEntry, Group, Proposal, ProposeError};
use crate::transaction::{Fetch, LockSet, Participant, ParticipantOutput, TransactionId};
use crate::waiting::{Round, WaitKey};
use follow::Following;
use reads::Reads;
use sets::Flight;
use std::collections::VecDeque;

/// Why a request was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<'a> {
    /// The log did not take it. It had no effect.
    Refused(&'a ProposeError),
    /// This node does not lead the shard, or cannot show that it does. It had no effect.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Another leader's entry was committed in its place. It had no effect and never will.
    Lost,
    /// Whether it had an effect is not known here.
    Unknown,
}

/// What a server of a shard serves, and whom it answers. Everything is called in the turn in which
/// it is due.
pub trait Host: Sized {
    /// Who waits for a request: enough to answer it.
    type Who;
    /// A request with its arguments, kept until it can go on.
    type Kept: std::fmt::Debug;
    /// What a transaction asks of a shard.
    type Ask: std::fmt::Debug;
    /// What it is told.
    type Found: std::fmt::Debug;
    /// The reply of a read that is withheld until it may be answered.
    type Reply;
    /// What must not have changed when a transaction runs.
    type Guard;
    /// What lives as long as a turn: where answers go.
    type Turn<'a>;

    /// The server.
    fn server(&self) -> &Server<Self>;
    /// The same, to be changed.
    fn server_mut(&mut self) -> &mut Server<Self>;
    /// Random bits for an entry.
    fn random(&mut self) -> u64;
    /// How long an entry's commands may make a string.
    fn string_bytes_max(&self) -> usize;
    /// Is a request a step of a transaction: a record, or what it reads? Nobody is answered then.
    fn is_step(who: &Self::Who) -> bool;
    /// Does an operation make the data smaller, or end something? There is room for it on a full
    /// disk.
    fn shrinks(&self, who: &Self::Who, arguments: Arguments<'_>) -> bool;
    /// Appends the operation that turns time back to `to_ms`.
    fn push_turn_back(&self, batch: &mut BatchBuilder, to_ms: i64);
    /// Gathers the reading of a transaction, with [`Server::gather_rider`].
    fn gather_fetch(&mut self, fetch: Fetch);
    /// Gathers a record of a transaction, with [`Server::gather_write`].
    fn gather_record(&mut self, record: &crate::transaction::Record);

    /// What a request must not share with a transaction.
    fn locks(&self, kept: &Self::Kept) -> LockSet;
    /// Does a transaction hold what a read wants?
    fn is_held_up(&self, kept: &Self::Kept) -> bool;
    /// The id's time of the last transaction that the sender of a request has sent here.
    fn last_lock(&self, kept: &Self::Kept) -> u64;
    /// Who waits for it.
    fn who(kept: &Self::Kept) -> Self::Who;
    /// Gathers a request that need not wait any more.
    fn admit(&mut self, kept: Self::Kept, turn: &mut Self::Turn<'_>);

    /// Locks may be free: serves those who wait for keys that were held, before others are let in.
    /// See [`waits::serve_postponed`].
    fn serve_postponed(&mut self);
    /// Does anybody wait for a key?
    fn awaits_any(&self) -> bool;

    /// Is what a guard watches as it was? Ends the interest in it.
    fn resolve(&mut self, guard: &Self::Guard, now_ms: i64) -> bool;
    /// A guarded transaction is not run: something has changed.
    fn guard_failed(&mut self, who: &Self::Who, turn: &mut Self::Turn<'_>);
    /// Takes out of a set that stands behind others what has been done meanwhile.
    fn forget_served(&mut self, set: &mut Set<Self>);
    /// A set is about to be proposed: says in its entry whose requests they are, as far as that is
    /// to be known.
    #[inline(always)]
    fn stamp(&self, _set: &mut Set<Self>) {}
    /// There is no room in the log for what is to be proposed: hands leadership over, if somebody
    /// else can take it. True if that is under way; then what waits is for whoever leads next.
    #[cold]
    fn hand_over(&mut self, _now_ms: i64) -> bool {
        false
    }
    /// A set is on its way.
    #[inline(always)]
    fn proposed(&mut self, _set: &Set<Self>, _proposal: Proposal) {}

    /// An entry is about to be applied.
    fn begin_entry(&mut self, entry: &CommittedEntry, batch: &Batch<'_>);
    /// Runs a set in order and answers: its writes from the entry, its reads from beside it.
    fn run(
        &mut self,
        set: &Set<Self>,
        entry: Option<(&CommittedEntry, Batch<'_>)>,
        turn: &mut Self::Turn<'_>,
    );
    /// Runs a set of reads in order. Their replies are appended to `replies`, to be answered when
    /// it is certain that this node leads.
    fn run_withheld(
        &mut self,
        set: &Set<Self>,
        replies: &mut Vec<(Self::Who, Self::Reply)>,
        turn: &mut Self::Turn<'_>,
    );
    /// Applies an entry that nobody waits for.
    fn replay(&mut self, entry: &CommittedEntry, batch: Batch<'_>, turn: &mut Self::Turn<'_>);
    /// Time has gone back, as this leader proposed; so many items were removed.
    fn turned_back(&mut self, removed: usize, turn: &mut Self::Turn<'_>);

    /// Executes a read.
    fn read(&mut self, kept: &Self::Kept, turn: &mut Self::Turn<'_>) -> Self::Reply;
    /// Executes a read at a node that does not lead, by this time or its own.
    fn read_by(
        &mut self,
        kept: &Self::Kept,
        _time_ms: Option<i64>,
        turn: &mut Self::Turn<'_>,
    ) -> Self::Reply {
        self.read(kept, turn)
    }
    /// Answers the question of another node, or says that nobody knows here.
    fn tell(
        &mut self,
        _asker: NodeId,
        _question: u64,
        _certain: Option<Index>,
        _turn: &mut Self::Turn<'_>,
    ) {
    }
    /// Answers a read.
    fn answer(&mut self, who: Self::Who, reply: Self::Reply, turn: &mut Self::Turn<'_>);
    /// Executes reads in order, as [`Host::read_by`] does, and answers them.
    fn read_all_by(&mut self, all: &[Self::Kept], time_ms: Option<i64>, turn: &mut Self::Turn<'_>) {
        for kept in all {
            let reply = self.read_by(kept, time_ms, turn);
            self.answer(Self::who(kept), reply, turn);
        }
    }
    /// Answers a request that was not executed. `asked`: its database and arguments, but of reads
    /// that were executed and could not be confirmed.
    fn fail(
        &mut self,
        who: &Self::Who,
        asked: Option<(DatabaseIndex, Arguments<'_>)>,
        fate: Fate<'_>,
        turn: &mut Self::Turn<'_>,
    );
    /// The same of a request that was kept.
    fn fail_kept(&mut self, kept: Self::Kept, fate: Fate<'_>, turn: &mut Self::Turn<'_>) {
        self.fail(&Self::who(&kept), None, fate, turn);
    }

    /// This node leads from now on.
    fn leads(&mut self);
    /// This node leads no more.
    fn deposed(&mut self, turn: &mut Self::Turn<'_>);
}

/// What transactions want of their shard's host.
pub type Wanted<H> = ParticipantOutput<<H as Host>::Ask, <H as Host>::Found, <H as Host>::Kept>;

/// A shard as one node serves it: items, Raft group, and the requests that wait for the log. See
/// the module's description.
pub struct Server<H: Host> {
    /// Which shard.
    pub id: ShardId,
    /// Its items.
    pub keyspace: Keyspace,
    /// Its Raft group.
    pub group: Group,
    /// Its time.
    pub clock: ShardClock,
    /// Its part in transactions over several shards.
    pub participant: Participant<H::Ask, H::Found, H::Kept>,
    /// What they want done.
    pub wanted: Wanted<H>,
    /// Keys that have something for those who wait, and that a transaction holds: they are served
    /// when it is over.
    pub postponed: Vec<WaitKey>,
    /// Keys at which nobody could be served, since the log took nothing: tried again at a tick.
    pub unserved: Vec<WaitKey>,
    /// Transactions that hold their locks, and are still to read, in the order of what is let in
    /// at present.
    unread: Vec<TransactionId>,
    /// Sets that served waiting commands and are done with.
    pub settled: Vec<Round>,
    // Boxed: a set changes hands six times on its way.
    sets: VecDeque<Box<Set<H>>>,
    flights: VecDeque<Flight<H>>,
    spare: Vec<Box<Set<H>>>,
    reads: Reads<H>,
    following: Following<H>,
    /// The leader's time in the last entry that was applied.
    entry_ms: i64,
    /// The term in which this node serves: it leads, and everything committed before is applied.
    leading: Option<Term>,
    /// Is it the only voter, so that it leads as long as it lives?
    is_alone: bool,
    /// May reads run in place? Always while it is alone; else if the lease was long enough when
    /// the turn began.
    reads_in_place: bool,
    /// Term of the entry that is being applied.
    running: Term,
}

impl<H: Host> Server<H> {
    /// A server of a shard whose items and group were recovered. It does not serve before
    /// [`note_role`] finds that it leads.
    pub fn new(id: ShardId, keyspace: Keyspace, group: Group, last_time_ms: i64) -> Server<H> {
        Server {
            id,
            keyspace,
            group,
            clock: ShardClock::new(last_time_ms),
            participant: Participant::new(id),
            wanted: Wanted::<H>::default(),
            postponed: Vec::new(),
            unserved: Vec::new(),
            unread: Vec::new(),
            settled: Vec::new(),
            sets: VecDeque::new(),
            flights: VecDeque::new(),
            spare: Vec::new(),
            reads: Reads::default(),
            following: Following::default(),
            entry_ms: last_time_ms,
            leading: None,
            is_alone: false,
            reads_in_place: false,
            running: Term(0),
        }
    }

    /// Does this node lead the shard, with everything committed applied? As of the last
    /// [`note_role`].
    #[inline(always)]
    pub fn serves(&self) -> bool {
        self.leading.is_some()
    }

    /// The term in which it serves.
    pub fn leading(&self) -> Option<Term> {
        self.leading
    }

    /// Can nobody else lead?
    #[inline(always)]
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// May a read that has nothing before it run in place, without being kept? It may while nobody
    /// else can lead, and while [`Server::lease_holds`] at a time read after it was received.
    /// Elsewhere [`Server::gather_read`] is the way.
    #[inline(always)]
    pub fn reads_in_place(&self) -> bool {
        self.reads_in_place
    }

    /// Must a request that waits for earlier writes wait here?
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.sets.iter().all(|set| set.is_empty())
    }

    /// May items be changed without an entry that says so? While this node is the only member, has
    /// no log but in memory, and has applied everything that was gathered: whoever joins begins
    /// with the items as they are then.
    #[inline]
    pub fn needs_no_entry(&self) -> bool {
        self.is_alone && self.group.is_alone() && self.is_quiet() && !self.clock.is_turning()
    }

    /// Is nothing on its way through the log?
    pub fn is_settled(&self) -> bool {
        self.flights.is_empty()
    }

    /// Is there something to propose?
    pub fn has_gathered(&self) -> bool {
        self.sets.iter().any(|set| !set.is_empty())
    }

    /// Requests that wait for an entry or for a confirmation.
    pub fn waiting_count(&self) -> usize {
        let flying = self.flights.iter().map(|flight| flight.set.order.len());
        let gathered = self.sets.iter().map(|set| set.order.len());
        flying.chain(gathered).sum::<usize>() + self.reads.count()
    }

    /// Does something wait for a turn of its own: a set that there is room for, or reads to be
    /// confirmed?
    pub fn is_pressed(&self) -> bool {
        self.may_propose() || self.reads.is_pressed()
    }

    /// A record of a transaction was applied by [`Host::run`]. One of an earlier leadership says
    /// nothing to this one.
    pub fn record_applied(&mut self, applied: &crate::transaction::Applied) {
        if self.leading == Some(self.running) {
            self.participant.applied(applied, &mut self.wanted);
        }
    }

    fn not_leader(&self) -> Fate<'static> {
        let leader = self.group.leader().filter(|_| self.leading.is_none());
        Fate::NotLeader { leader }
    }
}
