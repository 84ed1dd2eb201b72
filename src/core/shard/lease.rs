//! Reads in place where another node may lead: while there is a lease.
//!
//! They were received before the clock is read here, and nothing is applied between that and their
//! execution. So if the lease holds at that time, what they see is what was there at a moment after
//! they were sent, and nobody else had acknowledged anything. When their replies leave does not
//! matter: a node that sleeps between has answered as of before.

use crate::core::Core;
use crate::core::shard::Request;
use crate::core::turn::StagedRead;
use crate::limits::LEASE_LEFT_US;
use crate::settings::values::Consistency;
use ringraft_shards::ids::MonotonicTime;
use ringraft_shards::serve::Leases;
use std::time::{Duration, Instant};

impl Core {
    /// What is asked for before a node that leads answers a read.
    pub(in crate::core) fn leases(&self) -> Leases {
        match self.settings.consistency {
            Consistency::High => Leases::Trusted,
            Consistency::Medium | Consistency::Low => Leases::Unneeded,
        }
    }

    /// A turn begins: which shards of this core may answer reads in place in it?
    pub(in crate::core) fn look_at_leases(&mut self, steady: Duration) {
        let leases = self.leases();
        let until = MonotonicTime(steady.as_micros() as u64 + LEASE_LEFT_US);
        for shard in &mut self.shards {
            shard.server.look_at_lease(leases, until);
        }
    }

    /// Of the reads of a stage those that no lease covers any more are kept until a majority has
    /// confirmed that this node leads. `clock` was read after they were received.
    pub(in crate::core) fn keep_unleased(&mut self, reads: &mut Vec<StagedRead>, clock: Instant) {
        let now = MonotonicTime(self.steady.at(clock).as_micros() as u64);
        let mut all = true;
        for shard in &mut self.shards {
            all &= !shard.server.reads_in_place() || shard.server.lease_holds(now);
        }
        if !all {
            self.keep_reads(reads);
        }
    }

    #[cold]
    fn keep_reads(&mut self, reads: &mut Vec<StagedRead>) {
        let before = reads.len();
        reads.retain(|read| {
            let shard = &mut self.shards[usize::from(read.shard)];
            if shard.server.reads_in_place() {
                return true;
            }
            let arguments = read.arguments(&self.turn, &self.doors.ring, &self.answers.connections);
            let request = Request {
                command: read.command,
                origin: read.origin,
                database: read.database,
                first_key: read.first_key,
                arguments,
            };
            assert!(shard.admit(&request, &mut self.stats), "a read takes no memory");
            false
        });
        self.turn.has_new_work |= reads.len() < before;
    }
}
