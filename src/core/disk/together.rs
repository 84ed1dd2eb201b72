//! Log writes that one turn starts are reported together, when the last of them has ended.
//!
//! Writes of different shards end one after the other. Reported one by one, each would cost a turn
//! with little in it: a round over all shards, and replies sent piece by piece to clients whose
//! pipelines lie in several shards. What long writes hold up is more than that saves: they are
//! reported by themselves.

use super::storage::{DiskFailure, DiskOperation};
use crate::core::client::slab::Slab;
use crate::limits::JOINT_WRITE_BYTES_MAX;

/// How an operation ended.
pub type Ended = Result<DiskOperation, DiskFailure>;

/// The writes that are reported together, by turn.
#[derive(Default)]
pub struct Together {
    batches: Slab<Batch>,
    /// The one that takes more.
    open: Option<u32>,
    /// Emptied lists, to be used again.
    spares: Vec<Vec<Ended>>,
}

struct Batch {
    /// Writes that have not ended.
    left: usize,
    ended: Vec<Ended>,
}

impl Together {
    /// Has everything that ended been reported?
    pub fn is_idle(&self) -> bool {
        self.batches.count() == 0
    }

    /// A write of so many bytes starts. Returns the number of its batch; `None` when it is reported
    /// by itself.
    pub fn join(&mut self, bytes: usize) -> Option<u32> {
        if bytes > JOINT_WRITE_BYTES_MAX {
            return None;
        }
        let number = *self.open.get_or_insert_with(|| {
            let ended = self.spares.pop().unwrap_or_default();
            self.batches.insert(Batch { left: 0, ended })
        });
        self.batches.at_mut(number).left += 1;
        Some(number)
    }

    /// The turn starts no more.
    #[inline]
    pub fn close(&mut self) {
        self.open = None;
    }

    /// A write has ended. When it was the last of its batch, all of them are appended to `out`.
    pub fn ended(&mut self, number: Option<u32>, operation: Ended, out: &mut Vec<Ended>) {
        let Some(number) = number else { return out.push(operation) };
        assert!(self.open != Some(number), "nothing ends in the turn that starts it");
        let batch = self.batches.at_mut(number);
        batch.ended.push(operation);
        batch.left -= 1;
        if batch.left == 0 {
            let mut batch = self.batches.remove(number);
            out.append(&mut batch.ended);
            self.spares.push(batch.ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::ids::ShardId;
    use ringraft_shards::log::WriteTicket;

    fn failure(ticket: u64) -> Ended {
        let ticket = WriteTicket(ticket);
        Err(DiskFailure { shard: ShardId(0), ticket, sequence: 1, cause: "test".into() })
    }

    fn tickets(ended: &mut Vec<Ended>) -> Vec<u64> {
        let ticket = |ended: Ended| ended.err().expect("made so").ticket.0;
        ended.drain(..).map(ticket).collect()
    }

    #[test]
    fn the_writes_of_a_turn_end_together_and_those_of_turns_apart() {
        let mut together = Together::default();
        let first = [together.join(4096), together.join(JOINT_WRITE_BYTES_MAX)];
        let long = together.join(JOINT_WRITE_BYTES_MAX + 1);
        together.close();
        let second = together.join(4096);
        together.close();
        assert_eq!((first[0], long), (first[1], None));
        assert_ne!(first[0], second);
        let mut ended = Vec::new();
        together.ended(first[1], failure(2), &mut ended);
        assert!(ended.is_empty(), "one of them is under way");
        together.ended(long, failure(3), &mut ended);
        assert_eq!(tickets(&mut ended), [3]);
        together.ended(second, failure(4), &mut ended);
        assert_eq!(tickets(&mut ended), [4]);
        together.ended(first[0], failure(1), &mut ended);
        assert_eq!(tickets(&mut ended), [2, 1]);
        assert_eq!(together.batches.count(), 0);
    }
}
