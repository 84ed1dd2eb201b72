//! Segments ahead of need: one spare is always ready or in the making, compacted files are used
//! again.

use std::collections::VecDeque;

use super::LogOptions;
use super::files::{FileAction, FileWork, free_file_name};
use super::format::SegmentHeader;
use crate::disk::DiskResult;
use crate::limits::{FILE_WORK_RETRY_TICKS, LOG_FREE_FILES_KEPT};
use crate::random::Random;

/// The spare segment, the free files and the work on files that is to be done, in order.
pub(super) struct Space {
    /// The next segment, ready to be written.
    spare: Option<SegmentHeader>,
    /// Files that were segments.
    free: Vec<String>,
    work: VecDeque<FileWork>,
    /// The front of `work` is out under this number.
    running: Option<u64>,
    next_id: u64,
    /// Ticks until the front of `work`, which failed, is tried again.
    rest_ticks: u32,
    /// Why the front of `work` failed.
    failure: Option<String>,
    chance: Random,
}

impl Space {
    pub(super) fn new(spare: Option<SegmentHeader>, free: Vec<String>, chance: Random) -> Space {
        Space {
            spare,
            free,
            work: VecDeque::new(),
            running: None,
            next_id: 1,
            rest_ticks: 0,
            failure: None,
            chance,
        }
    }

    /// Sees to it that segment `sequence` is ready or in the making.
    pub(super) fn request(&mut self, sequence: u64, options: &LogOptions) {
        let asked = |work: &FileWork| matches!(work, FileWork::Prepare { .. });
        if self.spare.is_some() || self.work.iter().any(asked) {
            return;
        }
        let header = SegmentHeader {
            identity: options.identity,
            sequence,
            salt: self.chance.bits(),
            block_bytes: options.block_bytes as u32,
            segment_bytes: options.segment_bytes,
        };
        self.work.push_back(FileWork::Prepare { header, from: None });
    }

    /// Is the next segment there?
    pub(super) fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    pub(super) fn take_spare(&mut self) -> Option<SegmentHeader> {
        self.spare.take()
    }

    /// Queues that a segment is taken away, before any segment is made: its room may be what is
    /// missing. Once there will be a file to make a segment of, the rest can wait.
    pub(super) fn release(&mut self, sequence: u64, reusable: bool, sync: Vec<String>) {
        let is_kept = |work: &&FileWork| matches!(work, FileWork::Release { keep: Some(_), .. });
        let kept = self.free.len() + self.work.iter().filter(is_kept).count();
        // On a full disk others may be waiting for what this log does not need itself.
        let kept_max = if self.failure.is_some() { 1 } else { LOG_FREE_FILES_KEPT };
        let keep = (reusable && kept < kept_max).then(|| free_file_name(sequence));
        let first_prepare = self.work.iter().enumerate().position(|(i, work)| {
            matches!(work, FileWork::Prepare { .. }) && !(i == 0 && self.running.is_some())
        });
        let at = first_prepare.filter(|_| kept == 0).unwrap_or(self.work.len());
        self.work.insert(at, FileWork::Release { sequence, keep, sync });
        if at == 0 {
            // It is not the release that failed.
            self.rest_ticks = 0;
        }
    }

    pub(super) fn take_action(&mut self) -> Option<FileAction> {
        if self.running.is_some() || self.rest_ticks > 0 {
            return None;
        }
        let work = self.work.front_mut()?;
        if let FileWork::Prepare { from: from @ None, .. } = work {
            *from = self.free.pop();
        }
        let id = self.next_id;
        self.next_id += 1;
        self.running = Some(id);
        Some(FileAction { id, work: work.clone() })
    }

    pub(super) fn action_done(&mut self, id: u64, result: DiskResult<()>) {
        assert_eq!(self.running.take(), Some(id), "file action {id} is not the one that is out");
        if let Err(error) = result {
            self.failure = Some(error.to_string());
            let is_release = |work: &FileWork| matches!(work, FileWork::Release { .. });
            if !is_release(&self.work[0]) && self.work.get(1).is_some_and(is_release) {
                // What comes behind it may make the room that it lacks.
                self.work.swap(0, 1);
            } else {
                self.rest_ticks = FILE_WORK_RETRY_TICKS;
            }
            return;
        }
        match self.work.pop_front().expect("the running one is in front") {
            FileWork::Prepare { header, .. } => {
                self.spare = Some(header);
                self.failure = None;
            }
            FileWork::Release { keep, .. } => self.free.extend(keep),
        }
    }

    pub(super) fn tick(&mut self) {
        self.rest_ticks = self.rest_ticks.saturating_sub(1);
    }

    /// What failed is tried again at once.
    pub(super) fn retry(&mut self) {
        self.rest_ticks = 0;
    }

    /// Is the next segment not there, and being made or about to be?
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        self.spare.is_none() && self.rest_ticks == 0
    }

    /// Why no next segment is there and none could be made; `None` when all is well.
    pub(super) fn blocked(&self) -> Option<&str> {
        if self.spare.is_some() { None } else { self.failure.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskError, DiskResult};
    use crate::ids::{ClusterId, NodeId, ShardId};
    use crate::log::LogIdentity;

    fn full() -> DiskResult<()> {
        let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
        Err(DiskError { operation: "create", file: "x".into(), source })
    }

    #[test]
    fn a_release_goes_before_a_segment_that_found_no_room_and_gives_it_its_file() {
        let identity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
        let options = LogOptions::new(identity);
        let mut space = Space::new(None, Vec::new(), Random::new(1));
        space.request(5, &options);
        space.request(5, &options);
        assert_eq!(space.blocked(), None, "in the making");
        let prepare = space.take_action().expect("asked for");
        assert_eq!(space.take_action(), None, "one at a time, and asked for once");
        space.action_done(prepare.id, full());
        assert!(space.blocked().is_some_and(|cause| cause.contains("cannot create x")));
        assert_eq!(space.take_action(), None, "it rests");
        space.release(1, true, Vec::new());
        let release = space.take_action().expect("another one's failure does not hold it up");
        assert!(matches!(release.work, FileWork::Release { sequence: 1, keep: Some(_), .. }));
        space.action_done(release.id, Ok(()));
        let again = space.take_action().expect("at once");
        let FileWork::Prepare { header, from } = again.work else { panic!("{again:?}") };
        assert_eq!((header.sequence, from), (5, Some(free_file_name(1))));
        space.action_done(again.id, Ok(()));
        assert_eq!(space.blocked(), None);
        assert_eq!(space.take_spare(), Some(header));
    }

    #[test]
    fn a_release_does_not_rest_because_a_segment_that_was_being_made_found_no_room() {
        let identity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
        let mut space = Space::new(None, Vec::new(), Random::new(1));
        space.request(5, &LogOptions::new(identity));
        let prepare = space.take_action().expect("asked for");
        space.release(1, true, Vec::new());
        space.release(2, true, Vec::new());
        space.action_done(prepare.id, full());
        let release = space.take_action().expect("at once");
        assert!(matches!(release.work, FileWork::Release { sequence: 1, keep: Some(_), .. }));
        space.action_done(release.id, Ok(()));
        let again = space.take_action().expect("at once");
        assert!(matches!(again.work, FileWork::Prepare { from: Some(_), .. }), "{again:?}");
        space.release(3, true, Vec::new());
        space.action_done(again.id, Ok(()));
        for sequence in [2, 3] {
            let release = space.take_action().expect("at once");
            assert!(matches!(release.work, FileWork::Release { sequence: s, .. } if s == sequence));
            space.action_done(release.id, Ok(()));
        }
    }

    #[test]
    fn a_failure_is_tried_again_after_a_while() {
        let identity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
        let mut space = Space::new(None, Vec::new(), Random::new(1));
        space.request(5, &LogOptions::new(identity));
        let first = space.take_action().expect("asked for");
        space.action_done(first.id, full());
        for _ in 0..FILE_WORK_RETRY_TICKS {
            assert_eq!(space.take_action(), None);
            space.tick();
        }
        let second = space.take_action().expect("rested");
        assert_eq!(second.work, first.work);
        assert_ne!(second.id, first.id);
    }
}
