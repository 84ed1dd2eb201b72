//! Operations that are done beforehand: at once, on the items, and only then proposed.
//!
//! Where this node is the only member, and its log takes an entry without waiting for the disk,
//! what is proposed in a turn is applied in the same turn, before anybody is answered. So whether
//! an operation runs when its entry is applied or when it is gathered, nobody can tell, as long as
//! these hold:
//!
//! - Everything that was gathered before is applied: operations run in the order of the log.
//! - They run under the conditions that their entry names, each with the seed of its place in it:
//!   so whoever reads the entry later does the same.
//! - The log will take the entry ([`takes_at_once`](crate::raft::Group::takes_at_once), asked when
//!   they are done, while they can still be undone); it is proposed before anything that might
//!   change that: other work on files, another member, another time.
//! - Nobody is answered, nothing is sent and no cut begins before the entry is applied.
//!
//! They have sets of their own, in which nobody waits. What others gather behind them goes into the
//! same write of the log if there is room for both.

use super::{Host, Server};
use crate::batch::BatchBuilder;
use crate::limits::SET_BYTES_MAX;

/// Under what the operations of an entry run: it travels in the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Random bits, of which each operation makes its own by its place.
    pub seed: u64,
    /// How long they may make a string.
    pub string_bytes_max: usize,
}

/// A set whose operations are done.
pub(super) struct Beforehand {
    pub(super) conditions: Conditions,
}

impl<H: Host> Server<H> {
    /// May operations be done beforehand, as far as this shard is concerned? That its log does not
    /// wait for the disk is for the host to know. Cost: some comparisons.
    #[inline]
    pub fn may_do_beforehand(&self, now_ms: i64) -> bool {
        self.is_alone
            && self.flights.is_empty()
            && self.sets.len() <= 1
            && self.sets.iter().all(|set| set.may_be_done())
            && self.group.commits_at_once()
            && !self.clock.is_turning()
            && self.clock.turn_back(now_ms).is_none()
    }

    /// Is something done whose entry is not applied?
    #[inline]
    pub fn has_beforehand(&self) -> bool {
        let flying = self.flights.iter().map(|flight| &flight.set);
        flying.chain(&self.sets).any(|set| set.beforehand.is_some())
    }

    /// Is so much done, or under such conditions, that it is to be proposed before more is done?
    pub fn must_propose_beforehand(&self, string_bytes_max: usize) -> bool {
        let mut done = self.sets.iter().filter_map(|set| Some((set, set.beforehand.as_ref()?)));
        done.any(|(set, beforehand)| {
            set.batch.encoded_bytes() >= SET_BYTES_MAX
                || beforehand.conditions.string_bytes_max != string_bytes_max
        })
    }

    /// Operations are about to be done: lends their batch, with those that are done already, and
    /// says under what they run. [`Server::end_beforehand`] takes the batch back.
    /// Ask [`Server::may_do_beforehand`] and [`Server::must_propose_beforehand`] before.
    pub fn begin_beforehand(
        &mut self,
        now_ms: i64,
        seed: u64,
        string_bytes_max: usize,
    ) -> (Conditions, BatchBuilder) {
        assert!(self.may_do_beforehand(now_ms), "nothing comes between this and its entry");
        let time_ms = self.clock.entry_ms(now_ms);
        if self.sets.is_empty() {
            self.begin_set();
        }
        let set = self.newest_set();
        let fresh = Conditions { time_ms, seed, string_bytes_max };
        let conditions = set.beforehand.get_or_insert(Beforehand { conditions: fresh }).conditions;
        assert_eq!(conditions.time_ms, time_ms, "it is proposed in the turn in which it is done");
        (conditions, std::mem::take(&mut set.batch))
    }

    /// Operations are done, or undone: takes back their batch, which has what is done.
    pub fn end_beforehand(&mut self, batch: BatchBuilder) {
        let set = self.newest_set();
        assert!(set.beforehand.is_some(), "its batch was lent");
        if batch.count() == 0 {
            set.beforehand = None;
        }
        set.batch = batch;
    }
}
