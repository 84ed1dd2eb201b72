//! Keys and their items: one table per slot and database.
//!
//! All reading goes through [`View`], all changing through [`Edit`]; both are bound to a database
//! and a time, so that an item past its deadline is absent to both. Everything here is
//! deterministic: what an edit does depends on the items, its arguments and its time alone.

mod access;
mod bucket;
mod chain;
#[cfg(test)]
mod collection_tests;
mod compact;
mod cut;
mod database;
mod digest;
mod edit;
mod evict;
mod expire;
mod feed;
mod guard;
mod item;
mod lazy_free;
mod lend;
mod libraries;
mod load;
mod memory;
#[cfg(test)]
mod model;
mod ordered;
mod shape;
mod sweep;
mod table;
mod timed;
mod view;
mod watch;

pub use crate::value::Value;
pub use access::AccessClock;
pub use bucket::prefetch;
pub use cut::TakeItem;
pub use edit::Edit;
pub use evict::{EvictionPolicy, UnknownPolicy};
pub use expire::{Sweep, Turned};
pub use feed::{Change, KeyEvent, Listening, What};
pub use guard::{Guard, WrongType};
pub use item::Item;
pub use libraries::{Libraries, LibraryChange};
pub use memory::Spare;
pub use shape::Shape;
pub use view::{SCAN_UNIT, ScanPosition, View};

use crate::ids::{DatabaseIndex, Deadline};
use crate::limits::DATABASE_COUNT;
use crate::remembered::Remembered;
use crate::slot::{SLOT_COUNT, Slot, SlotScheme};
use crate::stamp::Stamp;
use crate::transaction::Ledger;
use crate::value::Limits;
use crate::value::spot::Spot;
use crate::waiting::Served;
use access::Accesses;
use compact::Compaction;
use cut::Cut;
use database::Database;
use evict::EvictionPool;
use expire::SweepPosition;
use item::RawItem;
use lazy_free::LazyFree;
use memory::Memory;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};
use std::cell::Cell;
use watch::Watches;

/// Makes the seed of members' hashes another one than that of keys.
const MEMBER_SEED: u64 = 0x6d65_6d62_6572_7321;

/// Hash of one key: its slot, and 64 further bits that place it within the slot's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHash {
    slot: Slot,
    hash: u64,
}

impl KeyHash {
    /// From the parts that [`KeyHash::slot`] and [`KeyHash::hash`] gave.
    #[inline(always)]
    pub fn from_parts(slot: u16, hash: u64) -> KeyHash {
        KeyHash { slot: Slot::new(slot as usize & (SLOT_COUNT - 1)).unwrap_or_default(), hash }
    }

    /// The slot.
    #[inline(always)]
    pub fn slot(self) -> Slot {
        self.slot
    }

    /// The seeded hash of the whole key.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        self.hash
    }
}

/// Hashes keys. All replicas of a cluster share one seed, recorded when the cluster is created.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    seed: u64,
    scheme: SlotScheme,
    secrets: RapidSecrets,
}

impl KeyHasher {
    /// A hasher with this seed, and the slots of Codis.
    pub fn new(seed: u64) -> KeyHasher {
        KeyHasher::with_scheme(seed, SlotScheme::Codis)
    }

    /// A hasher with this seed and these slots.
    pub fn with_scheme(seed: u64, scheme: SlotScheme) -> KeyHasher {
        KeyHasher { seed, scheme, secrets: RapidSecrets::seed(seed) }
    }

    /// How it places keys in slots.
    pub fn scheme(&self) -> SlotScheme {
        self.scheme
    }

    /// The slot of a key.
    #[inline]
    pub fn slot(&self, key: &[u8]) -> Slot {
        Slot::of_key(key, self.scheme)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Hashes one key. Cost: a CRC-32 and a 64-bit hash, about 10 ns for 16 bytes.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash { slot: self.slot(key), hash: self.place(key) }
    }

    /// The hash that places a key within its slot's table.
    #[inline(always)]
    pub(crate) fn place(&self, key: &[u8]) -> u64 {
        rapidhash_v3_micro_inline::<true, false>(key, &self.secrets)
    }

    /// Does another one place members alike?
    pub(crate) fn places_like(self, other: KeyHasher) -> bool {
        self.seed == other.seed
    }
}

/// A key and its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    bytes: &'a [u8],
    hash: KeyHash,
}

impl<'a> Key<'a> {
    /// A key whose hash is known.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], hash: KeyHash) -> Key<'a> {
        Key { bytes, hash }
    }

    /// The key itself.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its hash.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// How OBJECT ENCODING and in-place growth treat a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StringForm {
    /// As SET makes it: `int` when it is the canonical text of a 64-bit integer, else `embstr` up
    /// to 44 bytes, else `raw`.
    #[default]
    Automatic,
    /// Never `int`: what INCRBYFLOAT leaves.
    Text,
    /// Always `raw`: what APPEND, SETRANGE and SETBIT leave.
    Raw,
}

/// What becomes of the deadline when a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The item keeps the deadline it has.
    Keep,
    /// The item has no deadline.
    Never,
    /// The item is gone from this time on.
    At(Deadline),
}

/// A range of keys in bytewise order.
#[derive(Clone, Copy, Debug)]
pub struct KeyRange<'a> {
    /// Keys below this are left out.
    pub start: std::ops::Bound<&'a [u8]>,
    /// Keys above this are left out.
    pub end: std::ops::Bound<&'a [u8]>,
    /// From the end backwards.
    pub descending: bool,
}

/// Keys that counted views looked for.
#[derive(Debug, Default)]
struct Lookups {
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// One shard's items, all databases.
pub struct Keyspace {
    hasher: KeyHasher,
    /// Places members within large collections. Not the keys' own, so that a key says nothing of a
    /// member's place.
    member_hasher: KeyHasher,
    databases: Box<[Database]>,
    /// Items, tables, and the account of both and of indexes.
    memory: Memory,
    compaction: Compaction,
    accesses: Accesses,
    lookups: Lookups,
    /// What the mark bit of an item is that no cut waits for.
    mark: bool,
    cut: Option<Box<Cut>>,
    lazy_free: LazyFree,
    watches: Watches,
    pool: EvictionPool,
    sweep: SweepPosition,
    /// Transactions over several shards; see [`crate::transaction`].
    ledger: Ledger,
    /// Requests that other nodes sent; see [`crate::remembered`].
    remembered: Remembered,
    /// Libraries of functions.
    libraries: Libraries,
    /// Have they changed since somebody asked?
    libraries_changed: bool,
    /// When collections change their form.
    limits: Limits,
    /// Sorted sets that are to be swept.
    unswept: sweep::Unswept,
    /// What the entry under way has declared and not served.
    serving: Served,
    /// Milliseconds that items with a deadline have left on average, by database, as the sweep
    /// sees them.
    average_ttl_ms: [i64; DATABASE_COUNT],
    /// Time was turned back, and nobody has asked yet.
    turned: Option<Turned>,
}

impl Keyspace {
    /// Empty.
    pub fn new(hasher: KeyHasher) -> Keyspace {
        Keyspace {
            hasher,
            member_hasher: KeyHasher::new(hasher.seed().rotate_left(32) ^ MEMBER_SEED),
            databases: (0..DATABASE_COUNT).map(|_| Database::default()).collect(),
            memory: Memory::default(),
            compaction: Compaction::default(),
            accesses: Accesses::default(),
            lookups: Lookups::default(),
            mark: false,
            cut: None,
            lazy_free: LazyFree::default(),
            watches: Watches::default(),
            pool: EvictionPool::default(),
            sweep: SweepPosition::default(),
            ledger: Ledger::default(),
            remembered: Remembered::default(),
            libraries: Libraries::default(),
            libraries_changed: false,
            limits: Limits::default(),
            unswept: sweep::Unswept::default(),
            serving: Served::default(),
            average_ttl_ms: [0; DATABASE_COUNT],
            turned: None,
        }
    }

    /// The hasher that places its keys.
    pub fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// What the shard remembers of transactions over several shards.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// An entry is about to be applied.
    #[inline(always)]
    pub fn begin_entry(&mut self) {
        self.serving.clear();
    }

    /// Puts the ledger of a snapshot in its place.
    pub fn set_ledger(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    /// What the shard remembers of requests that other nodes sent.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// A stamped request was done, and answered this if that is known. By an entry alone, on all
    /// replicas alike.
    pub fn remember(&mut self, stamp: Stamp, reply: Option<&[u8]>) {
        self.remembered.note(stamp, reply);
    }

    /// Puts the memory of a snapshot in its place.
    pub fn set_remembered(&mut self, remembered: Remembered) {
        self.remembered = remembered;
    }

    /// Libraries of functions.
    pub fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// Puts those of a snapshot in their place.
    pub fn set_libraries(&mut self, libraries: Libraries) {
        self.libraries_changed = !libraries.is_untouched();
        self.libraries = libraries;
    }

    /// Have they changed since the last call?
    #[inline(always)]
    pub fn take_libraries_changed(&mut self) -> bool {
        std::mem::take(&mut self.libraries_changed)
    }

    /// When collections change their form.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Puts the limits of a snapshot in their place.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes of values that nobody sees any more and that are being freed bit by bit.
    pub fn freeing_bytes(&self) -> usize {
        self.lazy_free.item_bytes()
    }

    /// For reading `database` at `now_ms` (milliseconds since the Unix epoch).
    #[inline(always)]
    pub fn view(&self, database: DatabaseIndex, now_ms: i64) -> View<'_> {
        View { keyspace: self, database, now_ms, touches: true, counts: false, hidden: None }
    }

    /// For changing `database` at `now_ms`.
    #[inline(always)]
    pub fn edit(&mut self, database: DatabaseIndex, now_ms: i64) -> Edit<'_> {
        Edit { keyspace: self, database, now_ms }
    }

    /// What is remembered of accesses from now on. Bits written under the other clock are misread
    /// until the next access to their item, as in Redis.
    pub fn set_access_clock(&mut self, clock: AccessClock) {
        self.accesses.clock = clock;
    }

    /// How many keys counted views found, and how many they did not.
    pub fn lookups(&self) -> (u64, u64) {
        (self.lookups.hits.get(), self.lookups.misses.get())
    }

    /// Counts them from zero again.
    pub fn reset_lookups(&mut self) {
        self.lookups = Lookups::default();
    }

    /// Bytes that items, tables and indexes take, what is cleared and not yet freed included.
    pub fn used_bytes(&self) -> usize {
        self.memory.used()
    }

    /// Count of items of a database, expired ones that are not deleted yet included.
    pub fn count(&self, database: DatabaseIndex) -> u64 {
        self.databases[database.0 as usize].count
    }

    /// Count of items of a database that have a deadline.
    pub fn expiring_count(&self, database: DatabaseIndex) -> u64 {
        self.databases[database.0 as usize].expiring
    }

    /// Count of items of a database in one slot.
    pub fn slot_count(&self, database: DatabaseIndex, slot: Slot) -> u64 {
        let table = self.databases[database.0 as usize].table(slot);
        table.map_or(0, |table| table.count() as u64)
    }

    /// The databases that have items.
    pub fn databases_in_use(&self) -> impl Iterator<Item = DatabaseIndex> + '_ {
        let numbers = (0..self.databases.len()).map(|n| DatabaseIndex(n as u8));
        numbers.filter(|&database| self.count(database) > 0)
    }

    /// Frees about `bucket_budget` buckets of what was cleared, and clears up after an aborted cut.
    /// Is there more to do? To be called each turn while it says so.
    pub fn free_some(&mut self, bucket_budget: usize) -> bool {
        let more = self.lazy_free.free_some(bucket_budget, &mut self.memory);
        let cut = self.walk_aborted_cut(bucket_budget);
        let swept = self.sweep_some();
        more || cut || swept
    }

    /// Gives the physical memory of up to so many slabs (64 KiB each) that hold nothing back to the
    /// kernel, and brings [`Spare::of_process`] up to date. Is there more to give back? To be
    /// called now and then.
    pub fn tend_memory(&mut self, slab_budget: usize) -> bool {
        self.memory.tend(slab_budget)
    }

    /// First stage of a lookup ahead of its use: fetches the table of a hash into the cache.
    #[inline(always)]
    pub fn prefetch_table(&self, database: DatabaseIndex, hash: KeyHash) {
        if let Some(table) = self.databases[database.0 as usize].table(hash.slot()) {
            bucket::prefetch(std::ptr::from_ref(table).cast());
        }
    }

    /// Second stage: fetches the bucket of a hash. Reads the table.
    #[inline(always)]
    pub fn prefetch_bucket(&self, database: DatabaseIndex, hash: KeyHash) {
        if let Some(table) = self.databases[database.0 as usize].table(hash.slot()) {
            table.prefetch_bucket(hash.hash());
        }
    }

    /// Third stage: fetches the item of a hash. Reads the table and the bucket.
    #[inline(always)]
    pub fn prefetch_item(&self, database: DatabaseIndex, hash: KeyHash) {
        if let Some(table) = self.databases[database.0 as usize].table(hash.slot()) {
            table.prefetch_item(hash.hash());
        }
    }

    /// Fourth stage, of a member of a collection: the way to it, to be gone beside others. Reads
    /// table, bucket and item.
    pub fn spot_of(
        &self,
        database: DatabaseIndex,
        key: &Key<'_>,
        member: &[u8],
    ) -> Option<Spot<'_>> {
        let item = self.view(database, i64::MIN).peek(key)?;
        Spot::of(item.stored(), member)
    }

    /// Takes all items out of a database. Returns how many there were.
    fn detach(&mut self, database: DatabaseIndex) -> u64 {
        let number = database.0 as usize;
        let detached = std::mem::take(&mut self.databases[number]);
        if let Some(order) = detached.order.into_inner() {
            self.lazy_free.push_order(order);
        }
        let row = match (detached.row, &mut self.cut) {
            (Some(row), Some(cut)) => cut.detach(number, row),
            (row, _) => row,
        };
        if let Some(row) = row {
            self.lazy_free.push_row(row);
        }
        detached.count
    }

    /// Frees an item that left its table, or leaves it to the cut that waits for it.
    #[inline(always)]
    fn retire(&mut self, database: DatabaseIndex, item: RawItem) {
        if item.mark() != self.mark
            && let Some(cut) = &mut self.cut
            && cut.save(database, item)
        {
            return;
        }
        self.lazy_free.free_item(item, &mut self.memory);
    }
}

impl Drop for Keyspace {
    /// What lies in slabs goes as a whole. Only when something does not is every item looked at.
    fn drop(&mut self) {
        if !self.memory.has_large() {
            return;
        }
        if let Some(cut) = self.cut.take() {
            cut.dismantle(&mut self.lazy_free, &mut self.memory);
        }
        for number in 0..self.databases.len() {
            self.detach(DatabaseIndex(number as u8));
        }
        while self.lazy_free.free_some(usize::MAX, &mut self.memory) {}
        debug_assert!(!self.memory.has_large(), "all that was allocated was freed");
    }
}

#[cfg(test)]
mod tests {
    use super::model::Bench;
    use super::*;

    /// The promise of at most 48 bytes for a key of 16 and a value of 8, at every size of the
    /// whole. The process needs the rest for what is not accounted here.
    #[test]
    fn memory_per_key_is_bounded() {
        let mut bench = Bench::new();
        let end = if cfg!(miri) { 200 } else { 1_000_000 };
        let mut next = end / 3;
        for n in 0..end {
            bench.set(&format!("key:{n:012}"), "12345678");
            if n + 1 == next || n + 1 == end {
                let per_key = bench.keyspace.used_bytes() as f64 / (n + 1) as f64;
                assert!(per_key < 46.0 || cfg!(miri), "{per_key} bytes at {n} keys");
                next += next / 10;
            }
        }
        let before = bench.keyspace.used_bytes();
        let database = bench.database;
        for n in 0..end {
            let key = format!("key:{n:012}");
            let key = Key::new(key.as_bytes(), bench.hash(&key));
            bench.edit().set_deadline(&key, Some(Deadline(i64::MAX)));
        }
        assert_eq!(bench.keyspace.expiring_count(database), end);
        assert_eq!(bench.keyspace.used_bytes() - before, 8 * end as usize);
    }

    #[test]
    fn clearing_takes_no_time_and_frees_bit_by_bit() {
        let mut bench = Bench::new();
        let count = if cfg!(miri) { 200 } else { 3000 };
        for n in 0..count {
            bench.set(&format!("key:{n}"), "v");
        }
        assert_eq!(bench.keyspace.databases_in_use().collect::<Vec<_>>(), [DatabaseIndex(0)]);
        let used = bench.keyspace.used_bytes();
        assert_eq!(bench.edit().clear(), count);
        assert_eq!(bench.keyspace.databases_in_use().count(), 0);
        assert_eq!(bench.keyspace.used_bytes(), used);
        let mut steps = 0;
        while bench.keyspace.free_some(10) {
            steps += 1;
        }
        assert!(steps > 80 || cfg!(miri), "{steps}");
        assert_eq!(bench.keyspace.used_bytes(), 0);
    }

    #[test]
    fn an_aborted_cut_is_cleared_up() {
        let mut bench = Bench::new();
        let all = if cfg!(miri) { 200 } else { 3000 };
        for n in 0..all {
            bench.set(&format!("key:{n}"), "v");
        }
        assert!(bench.keyspace.begin_cut());
        assert!(!bench.keyspace.begin_cut());
        assert!(!bench.keyspace.cut_step(100, &mut |_, _, _| None));
        for n in [all - 1, all - 2] {
            assert!(bench.remove(&format!("key:{n}")));
        }
        bench.keyspace.abort_cut();
        assert!(!bench.keyspace.begin_cut(), "there are marks to set");
        while bench.keyspace.free_some(100) {}
        assert!(bench.keyspace.begin_cut());
        let mut count = 0;
        while !bench.keyspace.cut_step(100, &mut |_, _, _| {
            count += 1;
            None
        }) {}
        assert_eq!(count, all - 2);
        assert!(!bench.keyspace.cut_is_on());
    }

    #[test]
    fn hashes_depend_on_the_seed_and_slots_do_not() {
        let hash = |seed| KeyHasher::new(seed).hash(b"key");
        assert_eq!(hash(1), hash(1));
        assert_eq!(hash(1).slot(), hash(2).slot());
        assert_ne!(hash(1).hash(), hash(2).hash());
        assert_eq!(KeyHash::from_parts(hash(1).slot().number() as u16, hash(1).hash()), hash(1));
    }
}
