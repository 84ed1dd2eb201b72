//! The time of a shard: what its wall clock shows, but never earlier than what was judged by it
//! before, until the log says that it goes back (`docs/decisions/0010-clocks.md`).
//!
//! An item past its deadline is absent from then on, although it may lie in memory for a while. So
//! time must not go back beneath a reader: what it saw end would be there again. And it must not
//! stand still until a clock that was wrong is caught up with: nothing would end for so long.
//! Therefore the leader, when its clock is behind, proposes an operation at the latest time that
//! anything was judged by. Applying it removes every item that has ended by then, and from there on
//! time goes on with the clock. All replicas go back at the same place of the log, whatever their
//! own clocks show.
//!
//! Knows nothing of clocks: the wall clock's time is an argument.

use crate::limits::CLOCK_STANDS_MS_MAX;
use std::cell::Cell;

/// A shard's time. All times are milliseconds since the Unix epoch.
#[derive(Debug)]
pub struct ShardClock {
    /// The latest time that anything was judged by: an entry, applied or proposed, or a read.
    latest_ms: Cell<i64>,
    /// While going back is under way: the latest time of an entry behind it in the log.
    behind_ms: Option<i64>,
}

/// Time is to go back before anything else is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnBack {
    /// The time of its entry: what has ended by then is removed.
    pub from_ms: i64,
    /// Where time goes on.
    pub to_ms: i64,
}

impl ShardClock {
    /// The clock of a shard whose state was judged by this time.
    pub fn new(latest_ms: i64) -> ShardClock {
        ShardClock { latest_ms: Cell::new(latest_ms), behind_ms: None }
    }

    /// The latest time that anything was judged by.
    #[inline]
    pub fn latest_ms(&self) -> i64 {
        self.latest_ms.get()
    }

    /// The time for a read. It stands still while going back is under way.
    #[inline(always)]
    pub fn read_ms(&self, wall_ms: i64) -> i64 {
        let latest_ms = self.latest_ms.get();
        if wall_ms <= latest_ms || self.behind_ms.is_some() {
            return latest_ms;
        }
        self.latest_ms.set(wall_ms);
        wall_ms
    }

    /// Is the wall clock so far behind that time must go back, before more is proposed?
    #[inline(always)]
    pub fn turn_back(&self, wall_ms: i64) -> Option<TurnBack> {
        let latest_ms = self.latest_ms.get();
        if wall_ms >= latest_ms.saturating_sub(CLOCK_STANDS_MS_MAX) || self.behind_ms.is_some() {
            return None;
        }
        Some(TurnBack { from_ms: latest_ms, to_ms: wall_ms })
    }

    /// Going back was proposed: entries behind it have times from there on.
    pub fn turning(&mut self, turn: TurnBack) {
        assert_eq!(turn.from_ms, self.latest_ms.get(), "nothing was judged meanwhile");
        self.behind_ms = Some(turn.to_ms);
    }

    /// Is going back proposed and not applied?
    pub fn is_turning(&self) -> bool {
        self.behind_ms.is_some()
    }

    /// Was the wall clock put back once more, while going back is under way? Entries would have a
    /// time that is past by more than time may stand still: they are proposed afterwards.
    #[inline(always)]
    pub fn is_overtaken(&self, wall_ms: i64) -> bool {
        let behind_ms = self.behind_ms.unwrap_or(i64::MIN);
        wall_ms < behind_ms.saturating_sub(CLOCK_STANDS_MS_MAX)
    }

    /// The time for an entry that is about to be proposed. Never earlier than that of the entry
    /// before.
    #[inline]
    pub fn entry_ms(&mut self, wall_ms: i64) -> i64 {
        match &mut self.behind_ms {
            Some(behind_ms) => {
                *behind_ms = wall_ms.max(*behind_ms);
                *behind_ms
            }
            None => self.read_ms(wall_ms),
        }
    }

    /// An entry of this time is applied.
    #[inline]
    pub fn applied(&mut self, entry_ms: i64) {
        if entry_ms > self.latest_ms.get() {
            self.latest_ms.set(entry_ms);
        }
    }

    /// Going back to this time is applied, whoever proposed it.
    pub fn turned_back(&mut self, to_ms: i64) {
        let behind_ms = self.behind_ms.take();
        self.latest_ms.set(behind_ms.map_or(to_ms, |behind_ms| behind_ms.max(to_ms)));
    }

    /// This node leads no more: what it has proposed may come to nothing.
    pub fn step_down(&mut self) {
        self.behind_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn time_follows_the_wall_clock_and_stands_still_for_a_moment() {
        let mut clock = ShardClock::new(1000);
        assert_eq!(clock.read_ms(900), 1000);
        assert_eq!(clock.read_ms(2000), 2000);
        assert_eq!(clock.entry_ms(2000 - CLOCK_STANDS_MS_MAX), 2000);
        assert_eq!(clock.turn_back(2000 - CLOCK_STANDS_MS_MAX), None);
        assert_eq!(clock.entry_ms(2500), 2500);
        clock.applied(2400);
        assert_eq!(clock.latest_ms(), 2500);
        assert_eq!(ShardClock::new(i64::MIN).turn_back(i64::MIN), None);
    }

    #[test]
    fn time_goes_back_with_the_log_alone() {
        let mut clock = ShardClock::new(0);
        assert_eq!(clock.read_ms(10 * HOUR_MS), 10 * HOUR_MS);
        let turn = clock.turn_back(9 * HOUR_MS).expect("an hour is too much");
        assert_eq!(turn, TurnBack { from_ms: 10 * HOUR_MS, to_ms: 9 * HOUR_MS });
        // Not proposed yet: nothing has changed.
        assert_eq!(clock.read_ms(9 * HOUR_MS), 10 * HOUR_MS);
        clock.turning(turn);
        assert_eq!(clock.turn_back(8 * HOUR_MS), None, "one at a time");
        assert!(clock.is_overtaken(8 * HOUR_MS) && !clock.is_overtaken(9 * HOUR_MS));
        // Reads are of the state before it, entries come behind it.
        assert_eq!(clock.read_ms(11 * HOUR_MS), 10 * HOUR_MS);
        assert_eq!(clock.entry_ms(9 * HOUR_MS + 5), 9 * HOUR_MS + 5);
        assert_eq!(clock.entry_ms(9 * HOUR_MS), 9 * HOUR_MS + 5);
        clock.applied(10 * HOUR_MS);
        clock.turned_back(9 * HOUR_MS);
        assert_eq!(clock.read_ms(9 * HOUR_MS), 9 * HOUR_MS + 5);
        assert_eq!(clock.read_ms(9 * HOUR_MS + 9), 9 * HOUR_MS + 9);
    }

    #[test]
    fn a_follower_goes_back_as_the_log_says() {
        let mut clock = ShardClock::new(0);
        clock.applied(10 * HOUR_MS);
        clock.turned_back(9 * HOUR_MS);
        assert_eq!(clock.latest_ms(), 9 * HOUR_MS);
        let turn = clock.turn_back(HOUR_MS).expect("its own clock is further behind");
        clock.turning(turn);
        clock.step_down();
        assert_eq!(clock.read_ms(HOUR_MS), 9 * HOUR_MS, "what it proposed came to nothing");
        assert!(clock.turn_back(HOUR_MS).is_some());
    }
}
