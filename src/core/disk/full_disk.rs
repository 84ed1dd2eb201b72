//! What a core does when the disk is full: nothing is lost, reads go on, and every byte that can be
//! gained is.
//!
//! A shard is starved when the next segment of its log could not be made; it answers writes with
//! MISCONF once the last segment is full up to its reserve. A snapshot lets the log shrink, so a
//! starved shard takes one, and takes it again when that fails: one shard of the node after the
//! other, for all at once may find no room where one does. What all shards of the node have only
//! for the case of damage (the snapshot before the newest, and the log between the two) is given up
//! once the newest has been read again from end to end. When a segment could be made or was given
//! back, all shards try again at once.

use crate::core::Core;
use crate::core::disk::storage::Done;
use crate::core::shard::LocalShard;
use crate::limits::{SNAPSHOT_RETRY_MS_MAX, SNAPSHOT_RETRY_MS_MIN};
use ringraft_shards::disk::DiskResult;
use ringraft_shards::ids::{Index, ShardId};
use ringraft_shards::snapshot::SnapshotError;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which shard of the node takes a snapshot on a full disk: one at a time.
#[derive(Debug, Default)]
pub struct SnapshotTurn(AtomicU32);

impl SnapshotTurn {
    /// Is it this shard's turn? It is when it is nobody else's; until [`SnapshotTurn::end`].
    pub fn take(&self, shard: ShardId) -> bool {
        let own = u32::from(shard.0) + 1;
        let taken = self.0.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(own)
    }

    /// Ends the turn of this shard, if it has it.
    pub fn end(&self, shard: ShardId) {
        let own = u32::from(shard.0) + 1;
        // Another's turn goes on.
        let _ = self.0.compare_exchange(own, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Snapshots of a shard that failed, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    count: u32,
    /// The next is not begun before, milliseconds since the process started.
    retry_ms: i64,
    /// Did the last one find no room?
    is_full: bool,
}

impl Failures {
    /// One more. Returns how long to wait before the next, milliseconds: twice as long as the last
    /// time.
    pub fn note(&mut self, is_full: bool, now_ms: i64) -> i64 {
        let wait_ms = SNAPSHOT_RETRY_MS_MIN << self.count.min(16);
        let wait_ms = wait_ms.min(SNAPSHOT_RETRY_MS_MAX);
        *self = Failures { count: self.count + 1, retry_ms: now_ms + wait_ms, is_full };
        wait_ms
    }

    /// Somebody has made room: the next try is not far away.
    pub fn shorten(&mut self, now_ms: i64) {
        if self.is_full {
            self.retry_ms = self.retry_ms.min(now_ms + SNAPSHOT_RETRY_MS_MIN);
        }
    }

    /// May the next one not be begun yet?
    pub fn holds_back(&self, now_ms: i64) -> bool {
        now_ms < self.retry_ms
    }

    /// Has the last one failed?
    pub fn is_any(&self) -> bool {
        self.count > 0
    }

    /// Did it find no room?
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

impl Core {
    /// Takes the result of work on the segments of a shard.
    pub(in crate::core) fn file_action_done(
        &mut self,
        local: usize,
        id: u64,
        result: DiskResult<()>,
    ) {
        let shard = &mut self.shards[local];
        let failed = result.as_ref().err().map(ToString::to_string);
        let known = shard.group.lack_of_room() == failed.as_deref();
        let was_starved = shard.group.lack_of_room().is_some();
        shard.group.file_action_done(id, result);
        match failed {
            // Each try fails alike: it is said once.
            Some(cause) if !known => tracing::error!("shard {}: {cause}", shard.id),
            Some(_) => {}
            None => {
                if was_starved && shard.group.lack_of_room().is_none() {
                    tracing::info!("shard {}: there is room for its log again", shard.id);
                }
                if self.is_short() {
                    self.everywhere(Core::room_was_made);
                }
            }
        }
        self.note_shortage(local);
    }

    /// Looks whether a shard is short of room.
    pub(in crate::core) fn note_shortage(&mut self, local: usize) {
        let shard = &mut self.shards[local];
        let is_short = shard.is_starved() || shard.snapshots.failures.is_full();
        match (std::mem::replace(&mut shard.snapshots.is_short, is_short), is_short) {
            (false, true) => {
                self.shared.short_count.fetch_add(1, Ordering::AcqRel);
                self.judge_at_once();
            }
            (true, false) => {
                self.shared.short_count.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        }
    }

    /// Is a shard of this node short of room?
    pub(in crate::core) fn is_short(&self) -> bool {
        self.shared.short_count.load(Ordering::Acquire) > 0
    }

    /// What failed for lack of room is tried again.
    fn room_was_made(&mut self) {
        let now_ms = self.turn.steady_ms;
        self.shards.iter_mut().for_each(|shard| shard.room_was_made(now_ms));
    }

    /// May a snapshot of this shard be begun? On a full disk only one at a time.
    pub(in crate::core) fn may_snapshot(&self, local: usize) -> bool {
        let shard = &self.shards[local];
        let is_full = shard.is_starved() || shard.snapshots.failures.is_full();
        !is_full || self.shared.snapshot_turn.take(shard.id)
    }

    /// Gives up what a shard keeps only for the case that its newest snapshot is damaged. False:
    /// there is nothing of the kind.
    pub(in crate::core) fn relieve(&mut self, local: usize) -> bool {
        let snapshots = &mut self.shards[local].snapshots;
        let newest = snapshots.newest();
        let Some(directory) = snapshots.directory().filter(|_| newest.is_some()) else {
            return false;
        };
        if std::mem::replace(&mut snapshots.relied_on, newest) == newest {
            return false;
        }
        let work = move || directory.keep_newest();
        snapshots.is_relieving = true;
        let shard = self.shards[local].id;
        self.storage.in_background(work, move |result| Done::Relief {
            shard,
            result: result.map(|kept| kept.map(|name| name.index)),
        });
        true
    }

    /// Takes the report of [`Core::relieve`].
    pub(in crate::core) fn relieved(
        &mut self,
        local: usize,
        result: Result<Option<Index>, SnapshotError>,
    ) {
        let shard = &mut self.shards[local];
        shard.snapshots.is_relieving = false;
        match result {
            Ok(Some(kept)) if shard.snapshots.newest() == Some(kept) => {
                tracing::warn!(
                    "shard {}: the disk is full: its log and its snapshots are kept from entry {kept} on only",
                    shard.id
                );
                shard.group.compact(kept);
            }
            Ok(_) => {}
            Err(error) => tracing::error!("shard {}: {error}", shard.id),
        }
        self.shared.snapshot_turn.end(self.shards[local].id);
    }
}

impl LocalShard {
    /// What failed for lack of room is tried again.
    pub(in crate::core) fn room_was_made(&mut self, now_ms: i64) {
        self.group.retry_file_work();
        self.snapshots.failures.shorten(now_ms);
    }

    /// Could the next segment of its log not be made?
    pub fn is_starved(&self) -> bool {
        self.group.lack_of_room().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_at_a_time_has_its_turn() {
        let turn = SnapshotTurn::default();
        assert!(turn.take(ShardId(0)) && turn.take(ShardId(0)), "it has it until it ends it");
        assert!(!turn.take(ShardId(1)));
        turn.end(ShardId(1));
        assert!(!turn.take(ShardId(1)), "another cannot end it");
        turn.end(ShardId(0));
        assert!(turn.take(ShardId(1)) && !turn.take(ShardId(0)));
    }

    #[test]
    fn each_failure_is_waited_for_twice_as_long_up_to_a_bound() {
        let mut failures = Failures::default();
        assert!(!failures.is_any() && !failures.holds_back(0));
        let mut now_ms = 5_000;
        let mut expected_ms = SNAPSHOT_RETRY_MS_MIN;
        for _ in 0..40 {
            assert_eq!(failures.note(true, now_ms), expected_ms);
            assert!(failures.is_any() && failures.is_full());
            assert!(failures.holds_back(now_ms + expected_ms - 1));
            assert!(!failures.holds_back(now_ms + expected_ms));
            now_ms += expected_ms;
            expected_ms = (2 * expected_ms).min(SNAPSHOT_RETRY_MS_MAX);
        }
        failures.note(true, now_ms);
        failures.shorten(now_ms);
        assert!(
            failures.holds_back(now_ms) && !failures.holds_back(now_ms + SNAPSHOT_RETRY_MS_MIN)
        );
        failures.note(false, now_ms);
        failures.shorten(now_ms);
        assert!(
            failures.holds_back(now_ms + SNAPSHOT_RETRY_MS_MAX - 1),
            "room was not what it lacked"
        );
    }
}
