//! What a seed stands for: the size of the cluster, what clients do, and which faults happen how
//! often.

use ringraft_shards::random::{Random, mix};

/// A part of the engine or the machine that is broken on purpose, to see whether the simulator
/// notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing is.
    None,
    /// The disk says that log writes are durable when they are not.
    SkippedSync,
    /// Reads are served by whoever believes to lead, without asking the others.
    UnconfirmedReads,
    /// A restart forgets term and vote.
    ForgottenVote,
    /// A read under a lease is answered without a look, after it was executed, whether the lease
    /// still held.
    UncheckedLease,
    /// Clocks differ by more than a lease allows.
    DriftingClocks,
    /// Single requests do not wait for what transactions have locked.
    SkippedLock,
    /// Time stands still until a clock that went back has caught up.
    StandingTime,
    /// Time follows a clock that went back, and what had ended is left where it is.
    FallingTime,
    /// A new leader does not lock again what is prepared in its log.
    ForgottenLocks,
    /// Nobody asks whether a node's directory is the one that its id was given to.
    UncheckedDirectory,
    /// Nodes that were removed are spoken to as before.
    UnfencedNodes,
    /// Whom an entry has served meanwhile a later one serves again.
    ServedAgain,
    /// A wait ends in vain while an entry is under way that may serve it.
    EndedTooSoon,
    /// Who waits is not served right behind the write that fills the key.
    Overtaking,
    /// What fills a key unnamed is not noticed.
    Untended,
    /// Who waits for entries of a stream is not told of them.
    UnservedReaders,
    /// Whoever leads the meta group plans, and answers, from what is not committed yet.
    EarlyState,
    /// A replica of the meta group takes the first entry after its start in twice.
    TakenTwice,
    /// A restart forgets the meta group's last entries.
    ForgottenMeta,
    /// A replica that has lost its log stays the same member of its group.
    KeptReplica,
}

macro_rules! kinds {
    ($($name:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($name,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }
        }
    };
}

kinds! {
    Loss = "loss",
    Reorder = "reorder",
    Garble = "garble",
    Reset = "reset",
    Partition = "partition",
    OneWay = "one-way",
    SlowLink = "slow-link",
    Kill = "kill",
    Power = "power",
    TransactionCrash = "transaction-crash",
    Blackout = "blackout",
    Pause = "pause",
    ClockJump = "clock-jump",
    ClockRate = "clock-rate",
    SlowDisk = "slow-disk",
    FullDisk = "full-disk",
    FailedWrite = "failed-write",
    FailedFileWork = "failed-file-work",
    Flip = "flip",
    Wipe = "wipe",
    Transfer = "transfer",
    Membership = "membership",
}

/// One run, all of it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub flaw: Flaw,
    pub nodes: u64,
    pub shards: u16,
    pub clients: usize,
    /// Clients beside those that push to queues and wait for them.
    pub queue_clients: usize,
    /// Clients beside those that wait for entries of streams.
    pub readers: usize,
    /// Keys of each class: registers, counters, lists.
    pub keys_per_class: u8,
    /// Faults and new commands end after so long.
    pub duration_us: u64,
    /// Mean time between two faults.
    pub fault_every_us: u64,
    /// Mean time that a fault lasts.
    pub fault_length_us: u64,
    /// Longest time that a client waits for the answer to a command on one key.
    pub patience_us: u64,
    /// Mean time that a client thinks.
    pub think_us: u64,
    /// Mean time that a disk takes for a write.
    pub disk_us: u64,
    /// Entries between two snapshots of a replica.
    pub snapshot_every: u64,
    /// Percent of commands on several keys.
    pub multi_key_percent: u64,
    /// Are reads served under the leader's lease when it holds? Then clocks differ no more than it
    /// allows.
    pub lease: bool,
    /// Does the node that leads the meta group come to lead all shards, as in the process? Else not
    /// before the end.
    pub together: bool,
    /// Kinds of faults that may happen, by number.
    kinds: u32,
}

impl Plan {
    /// The run of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut chance = Random::new(mix(seed ^ 0x7069_6c6f_7421));
        let mut kinds = 0;
        for kind in Kind::ALL {
            if chance.below(100) < 60 {
                kinds |= 1 << *kind as u32;
            }
        }
        // Now and then nothing but a good network: what works must work fast, too.
        if chance.below(50) == 0 {
            kinds = 0;
        }
        Plan {
            seed,
            flaw: Flaw::None,
            nodes: if chance.below(5) == 0 { 5 } else { 3 },
            shards: 2 + chance.below(3) as u16,
            clients: 3 + chance.below(5) as usize,
            queue_clients: Random::new(mix(seed ^ 0x7175_6575)).below(6) as usize,
            readers: Random::new(mix(seed ^ 0x666f_6c6c)).below(4) as usize,
            keys_per_class: 2 + chance.below(4) as u8,
            duration_us: 800_000 + chance.below(1_700_000),
            fault_every_us: [50_000, 150_000, 400_000][chance.below(3) as usize],
            fault_length_us: [20_000, 80_000, 300_000][chance.below(3) as usize],
            patience_us: [40_000, 200_000][chance.below(2) as usize],
            think_us: 1_000 + chance.below(20_000),
            disk_us: [100, 500, 3_000][chance.below(3) as usize],
            multi_key_percent: [15, 40, 75][chance.below(3) as usize],
            lease: chance.below(2) == 0,
            snapshot_every: [15, 40, 200][chance.below(3) as usize],
            together: Random::new(mix(seed ^ 0x746f_6765)).below(2) == 0,
            kinds,
        }
    }

    /// May this happen?
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds & (1 << kind as u32) != 0
    }

    /// Allows or forbids a kind of fault.
    pub fn set(&mut self, kind: Kind, allowed: bool) {
        if allowed {
            self.kinds |= 1 << kind as u32;
        } else {
            self.kinds &= !(1 << kind as u32);
        }
    }

    /// Kinds that may happen.
    pub fn kinds(&self) -> Vec<Kind> {
        Kind::ALL.iter().copied().filter(|kind| self.has(*kind)).collect()
    }

    /// A stream of chance for one purpose; the others do not disturb it.
    pub fn chance(&self, purpose: u64) -> Random {
        Random::new(mix(self.seed ^ mix(purpose)))
    }
}
