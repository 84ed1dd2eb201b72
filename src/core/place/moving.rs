//! Moves a shard from one core to another while it serves.
//!
//! A shard is plain memory that one core owns, so a move is a box that changes hands; the art is
//! that no request is lost, doubled or reordered. Messages between two cores arrive in the order in
//! which they were sent, and on that all rests:
//!
//! | step | who | what |
//! |---|---|---|
//! | 1 | giver | asks every core whether it is there: one that is busy with a long command holds nobody up, for nothing is withheld yet |
//! | 2 | all | *withhold*: what a core has for the shard from now on gathers in an outbox without a mailbox, in order |
//! | 3 | all | once everything that a core sent before has left its outboxes, it tells the giver; all of that is there before the answer is |
//! | 4 | giver | after the last answer nothing can come for the shard any more; at the end of its turn it sends the shard, with all that it owns, to the taker |
//! | 5 | taker | puts it among its own, goes on with what it withheld itself, and tells all cores where the shard lives now |
//! | 6 | all | send on what they withheld, in order, and tell the taker |
//! | 7 | taker | after the last answer the move is over, and the next may begin: there is one at a time in a process |
//!
//! Nothing is waited for but these messages. What the shard has under way travels with it: what it
//! gathered and what flies, waiting requests, its part in transactions, a snapshot, blocked
//! clients. What stays behind is an operation of the giver's ring or helper thread; when that ends,
//! the shard is told by mail ([`Core::tell_shard`]). Replies and news go from either core to the
//! one that asked, where they are put in order as always.
//!
//! Invariants: a shard is on one core or in one message; a core's outbox has nothing for a core
//! where the shard is not; whoever asks all cores about their shards ([`Core::ask_cores`]) meets
//! each shard once, because a question is put before its asker has withheld (then it is answered
//! everywhere before the shard leaves) or after it knows the new place.

use crate::core::Core;
use crate::core::client::answers::Origin;
use crate::core::mail::mailbox::Mail;
use crate::core::shard::LocalShard;
use crate::resp::reply::Reply;
use ringraft_shards::ids::ShardId;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is told of a move that is not made because the process ends.
const STOPPING: &str = "ERR the server is shutting down";

/// Lets one shard move at a time in a process, and counts the moves.
#[derive(Debug, Default)]
pub struct MoveTurn {
    is_under_way: AtomicBool,
    /// Moves that wait for their turn.
    waiting_count: AtomicU32,
    count: AtomicU64,
    longest_us: AtomicU64,
}

impl MoveTurn {
    /// Is a shard moving? Ordered with the flag that the process stops: see [`Core::tend_moves`].
    pub fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::SeqCst)
    }

    /// Does a shard move, or wait for its turn?
    pub fn is_any(&self) -> bool {
        self.is_under_way() || self.waiting_count.load(Ordering::SeqCst) > 0
    }

    fn begin(&self) -> bool {
        !self.is_under_way.swap(true, Ordering::SeqCst)
    }

    /// True when somebody waits for it to end.
    fn end(&self) -> bool {
        self.is_under_way.store(false, Ordering::SeqCst);
        self.waiting_count.load(Ordering::SeqCst) > 0
    }

    /// Shards moved since the process started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The longest time that requests were withheld, microseconds.
    pub fn longest_us(&self) -> u64 {
        self.longest_us.load(Ordering::Relaxed)
    }
}

/// A move that is asked for.
pub struct Wish {
    /// Which shard.
    pub shard: ShardId,
    /// To which core.
    pub to: u16,
    /// Who is told when it is done.
    pub waiter: Option<Origin>,
}

/// A shard on its way.
pub struct Moved {
    shard: LocalShard,
    waiter: Option<Origin>,
    /// When its requests were withheld.
    withheld: Instant,
    /// The giver's clock: the shard's time must not go back.
    steady: Duration,
}

/// The giver's side of a move.
struct Giving {
    wish: Wish,
    /// Cores that have not answered.
    missing: usize,
    withheld: Option<Instant>,
}

/// The taker's side of a move.
struct Taking {
    missing: usize,
    waiter: Option<Origin>,
    withheld: Instant,
}

/// A question to all cores.
type Question = Box<dyn FnOnce(&mut Core)>;

/// The moves of a core.
#[derive(Default)]
pub struct Moves {
    /// Of shards that are, or were, here.
    wishes: VecDeque<Wish>,
    giving: Option<Giving>,
    taking: Option<Taking>,
    /// The shard for which this core withholds requests.
    withheld: Option<ShardId>,
    /// To whom it is to be told that everything before has been sent.
    owed: Option<u16>,
    /// Questions to all cores that wait for the end of the move.
    questions: Vec<Question>,
}

impl Moves {
    /// Is there something to do at the turn's end?
    #[inline(always)]
    pub fn has_work(&self) -> bool {
        !self.wishes.is_empty() || self.owed.is_some() || self.giving.is_some()
    }

    /// Are requests withheld, so that this core does not know where each shard is?
    pub fn is_withholding(&self) -> bool {
        self.withheld.is_some()
    }

    /// Keeps a question until it is known where every shard is.
    pub fn ask_later(&mut self, question: impl FnOnce(&mut Core) + 'static) {
        self.questions.push(Box::new(question));
    }
}

impl Core {
    /// Asks for a shard to move to another core, as soon as there is no other move. `waiter` is
    /// told when it lives there.
    pub fn move_shard(&mut self, wish: Wish) {
        let shard = wish.shard;
        self.at_shard(shard, move |core, _| core.wish(wish));
    }

    fn wish(&mut self, wish: Wish) {
        if self.stop_sent {
            return self.refuse_wish(wish);
        }
        self.shared.moves.waiting_count.fetch_add(1, Ordering::SeqCst);
        self.moves.wishes.push_back(wish);
    }

    fn refuse_wish(&mut self, wish: Wish) {
        if let Some(waiter) = wish.waiter {
            self.answer_error(waiter, STOPPING);
        }
    }

    /// Answers those who wait for moves that will not be made.
    pub(in crate::core) fn refuse_wishes(&mut self) {
        while let Some(wish) = self.next_wish() {
            self.refuse_wish(wish);
        }
    }

    fn next_wish(&mut self) -> Option<Wish> {
        let wish = self.moves.wishes.pop_front()?;
        self.shared.moves.waiting_count.fetch_sub(1, Ordering::SeqCst);
        Some(wish)
    }

    /// Is a move under way in the process, or to be made from here?
    pub(in crate::core) fn is_moving_shards(&self) -> bool {
        self.shared.moves.is_under_way() || !self.moves.wishes.is_empty()
    }

    /// Goes on with moves at the turn's end, when everything that the turn has sent is on its way.
    #[cold]
    pub(in crate::core) fn tend_moves(&mut self) {
        // What was sent before is to be there before: to the giver and to all who ask or listen.
        if !self.has_unsent_mail() {
            if let Some(giver) = self.moves.owed.take() {
                self.tell_core(giver, Core::has_withheld);
            }
            let giving = self.moves.giving.as_ref();
            if giving.is_some_and(|giving| giving.missing == 0 && giving.withheld.is_some()) {
                self.hand_over();
            }
        }
        while self.begin_move() {}
        self.flush();
    }

    /// Begins the next move if it can. True when there may be another to begin.
    fn begin_move(&mut self) -> bool {
        let Some(wish) = self.moves.wishes.front() else { return false };
        let (id, to) = (wish.shard, wish.to);
        let Some(local) = self.router.local(id) else {
            // It has moved since this was asked for.
            let wish = self.next_wish().expect("just seen");
            self.move_shard(wish);
            return true;
        };
        if to == self.id {
            let wish = self.next_wish().expect("just seen");
            self.note_moved(wish.waiter);
            return true;
        }
        // Two helper threads must not work on the same snapshots at a time.
        let snapshots = &self.shards[local].snapshots;
        if self.moves.giving.is_some() || snapshots.is_relieving || !self.shared.moves.begin() {
            return false;
        }
        // A core that is through waits for the others, and looks whether a shard moves; whoever
        // begins a move looks whether the process ends. One of them sees the other.
        if self.shared.stopping.load(Ordering::SeqCst) {
            self.end_move();
            self.refuse_wishes();
            return false;
        }
        let wish = self.next_wish().expect("just seen");
        let missing = self.core_count() - 1;
        self.moves.giving = Some(Giving { wish, missing, withheld: None });
        let giver = self.id;
        self.tell_others(move |core| core.tell_core(giver, Core::is_there));
        false
    }

    /// Another core is awake and between two turns.
    fn is_there(&mut self) {
        let core_count = self.core_count();
        let giver = self.id;
        let giving = self.moves.giving.as_mut().expect("it has asked");
        giving.missing -= 1;
        if giving.missing == 0 {
            giving.missing = core_count;
            giving.withheld = Some(Instant::now());
            let shard = giving.wish.shard;
            self.tell_others(move |core| core.withhold(shard, giver));
            self.withhold(shard, giver);
        }
    }

    /// From now on requests for this shard stay here, in order.
    fn withhold(&mut self, shard: ShardId, giver: u16) {
        assert!(self.moves.withheld.is_none(), "one shard moves at a time");
        self.router.send_to(shard, self.answers.between_cores());
        self.moves.withheld = Some(shard);
        self.moves.owed = Some(giver);
    }

    /// A core has sent everything that it had for the shard before.
    fn has_withheld(&mut self) {
        let giving = self.moves.giving.as_mut().expect("it has asked");
        giving.missing -= 1;
    }

    /// Sends the shard to its new core. Everything that came for it is taken in, and nothing is
    /// staged.
    fn hand_over(&mut self) {
        let Giving { wish, withheld, .. } = self.moves.giving.take().expect("the caller looked");
        let local = self.router.local(wish.shard).expect("it stays until it is handed over");
        assert!(
            self.turn.reads.is_empty() && self.transactions.messages.is_empty(),
            "a turn leaves nothing"
        );
        let mut shard = self.shards.swap_remove(local);
        if let Err(cause) = shard.write_runs() {
            // This core's journal stands for them, and must not wait for another core.
            self.fail(cause);
        }
        assert!(shard.wanted.is_empty(), "transactions were served to the end");
        self.router.take_away(shard.id);
        if let Some(other) = self.shards.get(local) {
            self.router.put(other.id, local);
        }
        let withheld = withheld.expect("the caller looked");
        let steady = self.steady.read();
        let moved = Moved { shard, waiter: wish.waiter, withheld, steady };
        self.answers.post(wish.to, Mail::Shard(Box::new(moved)));
    }

    /// Takes a shard over from another core.
    pub(in crate::core) fn adopt_shard(&mut self, moved: Moved) {
        let Moved { mut shard, waiter, withheld, steady } = moved;
        let id = shard.id;
        self.steady.not_before(steady);
        let misses = self.settings.notify_keyspace_events.hear_misses();
        shard.keyspace.listen(self.listening(), misses);
        if let Err(error) = shard.adopt_settings(&self.settings, self.router.shard_count()) {
            self.fail(format!("the log cannot be synced: {error}"));
        }
        // What was said to all cores meanwhile it has not heard.
        shard.room_was_made(self.turn.steady_ms);
        self.freeing = true;
        self.router.put(id, self.shards.len());
        self.shards.push(shard);
        self.listen_to_changes();
        if self.stop_sent {
            self.stop_shard(self.shards.len() - 1);
        }
        let (here, missing) = (self.id, self.core_count() - 1);
        self.moves.taking = Some(Taking { missing, waiter, withheld });
        self.tell_others(move |core| core.learn_place(id, here));
        self.send_withheld(id, here);
    }

    /// A shard lives there now.
    fn learn_place(&mut self, shard: ShardId, place: u16) {
        self.send_withheld(shard, place);
        self.tell_core(place, Core::has_learned);
    }

    /// Sends on what was withheld, or takes it in if the shard is here now.
    fn send_withheld(&mut self, shard: ShardId, place: u16) {
        assert_eq!(self.moves.withheld.take(), Some(shard), "one shard moves at a time");
        self.router.send_to(shard, place);
        for mail in self.answers.take_withheld() {
            match place == self.id {
                true => self.take_mail(mail),
                false => self.answers.post(place, mail),
            }
        }
        for question in std::mem::take(&mut self.moves.questions) {
            question(self);
        }
    }

    /// Another core knows the shard's new place.
    fn has_learned(&mut self) {
        let taking = self.moves.taking.as_mut().expect("it has told them");
        taking.missing -= 1;
        if taking.missing == 0 {
            let Taking { waiter, withheld, .. } = self.moves.taking.take().expect("just seen");
            let us = withheld.elapsed().as_micros() as u64;
            self.shared.moves.longest_us.fetch_max(us, Ordering::Relaxed);
            self.shared.moves.count.fetch_add(1, Ordering::Relaxed);
            self.note_moved(waiter);
            self.end_move();
        }
    }

    fn note_moved(&mut self, waiter: Option<Origin>) {
        if let Some(waiter) = waiter {
            self.answers.write(waiter, |out| Reply::new(out, waiter.protocol).ok());
        }
    }

    /// The next move may begin: those who wait for it are woken.
    fn end_move(&mut self) {
        if self.shared.moves.end() {
            self.tell_others(|_| {});
        }
    }

    fn tell_others(&mut self, task: impl Fn(&mut Core) + Clone + Send + 'static) {
        for core in (0..self.core_count() as u16).filter(|core| *core != self.id) {
            self.answers.post(core, Mail::Task(Box::new(task.clone())));
        }
    }

    /// Does something on a core, this one or another.
    pub fn tell_core(&mut self, core: u16, task: impl FnOnce(&mut Core) + Send + 'static) {
        match core == self.id {
            true => task(self),
            false => self.answers.post(core, Mail::Task(Box::new(task))),
        }
    }
}
