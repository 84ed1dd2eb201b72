//! What happened, in numbers: a run that injected nothing must be visible.

macro_rules! counts {
    ($($name:ident = $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $($name,)* }

        const NAMES: &[&str] = &[$($text,)*];
    };
}

counts! {
    ChunksSent = "pieces of streams sent",
    ChunksLost = "pieces lost and sent again",
    ChunksDelayed = "pieces late",
    ChunksGarbled = "pieces damaged",
    ChunksHeld = "pieces held up by a partition",
    Dials = "connections dialled",
    Resets = "connections broken",
    LinksUp = "ends of links up",
    LivesReplaced = "connections that a newer one took the place of",
    CrossingDials = "crossing dials",
    LinksRefused = "links refused otherwise",
    SilentLinks = "links cut for silence",
    SlowHandshakes = "handshakes given up",
    LinksGarbled = "links cut for damage",
    Partitions = "symmetric partitions",
    OneWayCuts = "one-way partitions",
    SlowLinks = "slow links",
    Kills = "kills",
    PowerLosses = "power losses",
    Blackouts = "blackouts",
    AtLock = "crashes at Lock",
    AtYielded = "crashes at Yielded",
    AtConfirm = "crashes at Confirm",
    AtPrepare = "crashes at Prepare",
    AtRelease = "crashes at Release",
    AtDecide = "crashes at Decide",
    AtForget = "crashes at Forget",
    AtQuery = "crashes at Query",
    AtAnswer = "crashes at Answer",
    AtGranted = "crashes at Granted",
    AtFailed = "crashes at Failed",
    AtYield = "crashes at Yield",
    AtConfirmed = "crashes at Confirmed",
    AtPrepared = "crashes at Prepared",
    AtRefused = "crashes at Refused",
    AtDone = "crashes at Done",
    AtNotLeader = "crashes at NotLeader",
    Restarts = "restarts",
    Pauses = "pauses",
    ClockJumps = "clock jumps",
    TimeTurned = "times turned back",
    DeadlinesChecked = "deadlines checked",
    ClockRates = "clocks with another rate",
    SlowDisks = "slow disks",
    FullDisks = "full disks",
    FailedWrites = "failed log writes",
    FailedFileWork = "failed file work",
    TornTails = "torn log tails",
    Flips = "flipped bits",
    FlipsRefused = "flipped bits refused",
    Wipes = "directories wiped",
    Emptied = "of these, started to join where they were",
    Dismissals = "processes told to end",
    Transfers = "leader transfers",
    MembershipChanges = "membership changes",
    Joins = "nodes joined",
    JoinsRepeated = "joins asked for again",
    Wishes = "wishes",
    HandOvers = "leaders that handed over before they left",
    SetAside = "damaged replicas set aside",
    Renewals = "replicas that others were to take the place of",
    FreshReplicas = "lost replicas that were named",
    Leaves = "nodes that were to leave",
    Objections = "leaves that were objected to",
    Removals = "removals proposed",
    AddressesChanged = "new addresses proposed",
    Asked = "things the operator asked for",
    AskedInVain = "of these, refused or in doubt",
    Elections = "elections",
    Entries = "entries applied",
    LogReads = "pieces of logs read back",
    Snapshots = "snapshots taken",
    SnapshotsSent = "snapshots sent",
    SnapshotChunks = "snapshot chunks",
    Installs = "snapshots installed",
    ProposalsLost = "proposals lost",
    LeaseReads = "reads under a lease",
    LeasesEnded = "reads whose lease ended meanwhile",
    ReadBatches = "read batches confirmed",
    Digests = "digests compared",
    Riders = "reads that rode with a write",
    LockWaits = "requests that waited for a lock",
    Waits = "commands that may wait",
    ServedLater = "commands served after a wait",
    WaitsEnded = "waits ended in vain",
    WaitsEndedLater = "waits ended in vain once an entry was applied",
    WaitsDissolved = "waits whose leader was deposed",
    ReadersAhead = "reads of entries that were there",
    ReadersWait = "reads that waited for entries",
    ReadersServed = "reads told of entries after a wait",
    ReadersInVain = "reads that waited for entries in vain",
    ReadersDissolved = "reads that waited whose leader was deposed",
    SetRemovals = "members removed from sets",
    HashRemovals = "fields removed from hashes",
    SortedSetRemovals = "members removed from sorted sets",
    StreamRemovals = "entries removed from streams",
    Given = "entries given to consumers",
    Acknowledged = "entries acknowledged",
    SetRemovalsTogether = "members removed from sets in transactions",
    HashRemovalsTogether = "fields removed from hashes in transactions",
    SortedSetRemovalsTogether = "members removed from sorted sets in transactions",
    StreamRemovalsTogether = "entries removed from streams in transactions",
    GivenTogether = "entries given to consumers in transactions",
    AcknowledgedTogether = "entries acknowledged in transactions",
    Transactions = "transactions begun",
    Committed = "transactions committed",
    Aborted = "transactions aborted",
    InDoubt = "transactions in doubt",
    TransactionMessages = "transaction messages",
    Done = "operations done",
    Unknown = "operations unknown",
    Refused = "operations refused",
    Redirects = "redirects",
    MultiKey = "multi-key operations done",
}

/// The numbers of one run or of many.
#[derive(Clone, Debug)]
pub struct Counts([u64; NAMES.len()]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; NAMES.len()])
    }
}

impl Counts {
    /// One more.
    pub fn add(&mut self, count: Count) {
        self.0[count as usize] += 1;
    }

    /// All of another run.
    pub fn merge(&mut self, other: &Counts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// Of how many kinds nothing happened.
    pub fn missing(&self) -> Vec<&'static str> {
        NAMES.iter().zip(self.0).filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect()
    }

    /// Names and numbers.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.0)
    }
}
