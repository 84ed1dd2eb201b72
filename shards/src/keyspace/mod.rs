//! Keys and their items: one table per slot and database.
//!
//! All reading goes through [`View`], all changing through [`Edit`]; both are bound to a database and a
//! time, so that an item past its deadline is absent to both. Everything here is deterministic: what an
//! edit does depends on the items, its arguments and its time alone.

use crate::ids::{DatabaseIndex, Deadline};
use crate::slot::{SLOT_COUNT, Slot};

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
}

impl KeyHasher {
    /// A hasher with this seed.
    pub fn new(seed: u64) -> KeyHasher {
        KeyHasher { seed }
    }

    /// Hashes one key. Cost: a CRC-32 and a 64-bit hash, about 10 ns for 16 bytes.
    #[inline]
    pub fn hash(self, key: &[u8]) -> KeyHash {
        KeyHash { slot: Slot::of_key(key), hash: self.seed }
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
    /// As SET makes it: `int` when it is the canonical text of a 64-bit integer, else `embstr` up to 44 bytes, else `raw`.
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

/// The value of an item. Lists, sets, hashes and sorted sets will join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string of bytes.
    String(&'a [u8]),
}

/// One item, borrowed.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    todo: std::marker::PhantomData<&'a ()>,
}

impl<'a> Item<'a> {
    /// The key.
    pub fn key(&self) -> &'a [u8] {
        unimplemented!()
    }
    /// The value.
    pub fn value(&self) -> Value<'a> {
        unimplemented!()
    }
    /// The bytes of a string; `None` for another type.
    pub fn string(&self) -> Option<&'a [u8]> {
        unimplemented!()
    }
    /// How OBJECT ENCODING sees a string.
    pub fn string_form(&self) -> StringForm {
        unimplemented!()
    }
    /// When it ends; `None` for never.
    pub fn deadline(&self) -> Option<Deadline> {
        unimplemented!()
    }
    /// Bytes of memory it takes, allocator's rounding and its place in the table included.
    pub fn size(&self) -> usize {
        unimplemented!()
    }
    /// Seconds since it was last read or written, at `now_ms` (LRU policies and no policy).
    pub fn idle_seconds(&self, _now_ms: i64) -> u64 {
        unimplemented!()
    }
    /// Logarithmic access count (LFU policies), decayed to `now_ms`.
    pub fn frequency(&self, _now_ms: i64) -> u8 {
        unimplemented!()
    }
}

/// One shard's items, all databases.
pub struct Keyspace {
    hasher: KeyHasher,
}

impl Keyspace {
    /// Empty.
    pub fn new(hasher: KeyHasher) -> Keyspace {
        Keyspace { hasher }
    }
    /// The hasher that places its keys.
    pub fn hasher(&self) -> KeyHasher {
        self.hasher
    }
    /// For reading `database` at `now_ms` (milliseconds since the Unix epoch).
    pub fn view(&self, _database: DatabaseIndex, _now_ms: i64) -> View<'_> {
        unimplemented!()
    }
    /// For changing `database` at `now_ms`.
    pub fn edit(&mut self, _database: DatabaseIndex, _now_ms: i64) -> Edit<'_> {
        unimplemented!()
    }
}

/// What is remembered of accesses to items: the eviction policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessClock {
    /// When the last one was (LRU policies, and no policy).
    #[default]
    Recency,
    /// About how many there were (LFU policies).
    Frequency,
}

/// Reads one database at one time.
#[derive(Clone, Copy)]
pub struct View<'a> {
    keyspace: &'a Keyspace,
    database: DatabaseIndex,
    now_ms: i64,
}

/// A position of a scan: a slot and a lower bound of the hash within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanPosition {
    /// The slot to go on with.
    pub slot: usize,
    /// Lower bound of the top 48 bits of the hash.
    pub hash: u64,
}

impl<'a> View<'a> {
    /// The time of this view, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }
    /// The database.
    pub fn database(&self) -> DatabaseIndex {
        self.database
    }
    /// The hasher.
    pub fn hasher(&self) -> KeyHasher {
        self.keyspace.hasher
    }
    /// What the access bits of items mean at present.
    pub fn access_clock(&self) -> AccessClock {
        unimplemented!()
    }
    /// The item of a key, counted as an access (LRU/LFU clock) unless the session said NO-TOUCH.
    pub fn get(&self, _key: &Key<'_>) -> Option<Item<'a>> {
        unimplemented!()
    }
    /// The item of a key, not counted as an access.
    pub fn peek(&self, _key: &Key<'_>) -> Option<Item<'a>> {
        unimplemented!()
    }
    /// A view of another database at the same time.
    pub fn of_database(&self, _database: DatabaseIndex) -> View<'a> {
        unimplemented!()
    }
    /// Count of keys, those past their deadline but not yet deleted included (as Redis' DBSIZE).
    pub fn count(&self) -> u64 {
        unimplemented!()
    }
    /// Any one item that has not expired, chosen by the random bits; `None` when there is none.
    pub fn random(&self, _seed: u64) -> Option<Item<'a>> {
        unimplemented!()
    }
    /// Visits items from `from` on, in (slot, hash) order, whole buckets at a time, until at least
    /// `count` were visited. Returns where to go on, or `None` at the end of this shard's last slot.
    /// Every item present from the first call to the last is visited at least once, whatever grows or
    /// shrinks in between. Expired items are not visited.
    pub fn scan(
        &self,
        _from: ScanPosition,
        _count: usize,
        _visit: &mut dyn FnMut(Item<'a>),
    ) -> Option<ScanPosition> {
        unimplemented!()
    }
    /// Visits the items whose keys are in a range of bytewise order, ascending or descending, until
    /// `visit` returns false. Uses the ordered index of this database, which is built on first use
    /// and kept up to date from then on.
    pub fn ordered(&self, _range: KeyRange<'_>, _visit: &mut dyn FnMut(Item<'a>) -> bool) {
        unimplemented!()
    }
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

/// Changes one database at one time. Reads too, through [`Edit::view`].
pub struct Edit<'a> {
    keyspace: &'a mut Keyspace,
    database: DatabaseIndex,
    now_ms: i64,
}

impl Edit<'_> {
    /// For reading. The same rules of expiry hold.
    pub fn view(&self) -> View<'_> {
        View { keyspace: self.keyspace, database: self.database, now_ms: self.now_ms }
    }
    /// The time of this edit, milliseconds since the Unix epoch (the leader's, on every replica).
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }
    /// An edit of another database at the same time.
    pub fn of_database(&mut self, _database: DatabaseIndex) -> Edit<'_> {
        unimplemented!()
    }
    /// Sets a string, whatever was there. Cost: one allocation, or none when the new item fits the old one's memory.
    pub fn set_string(
        &mut self,
        _key: &Key<'_>,
        _value: &[u8],
        _form: StringForm,
        _expiry: Expiry,
    ) {
        unimplemented!()
    }
    /// The bytes of a string, resized to `length` (cut, or filled with zeros; never less than nothing), for
    /// writing in place; a missing key is created without deadline. The form becomes [`StringForm::Raw`]
    /// unless `form` says otherwise. `None` when the key holds another type.
    pub fn string_mut(
        &mut self,
        _key: &Key<'_>,
        _length: usize,
        _form: StringForm,
    ) -> Option<&mut [u8]> {
        unimplemented!()
    }
    /// Removes an item. Was there one?
    pub fn remove(&mut self, _key: &Key<'_>) -> bool {
        unimplemented!()
    }
    /// Sets or clears the deadline of an item. Is there one? A deadline that has passed removes the item.
    pub fn set_deadline(&mut self, _key: &Key<'_>, _deadline: Option<Deadline>) -> bool {
        unimplemented!()
    }
    /// Copies an item of any type with its deadline to another key, maybe in another database,
    /// replacing what is there. Is there a source?
    pub fn copy(&mut self, _from: &Key<'_>, _database: DatabaseIndex, _to: &Key<'_>) -> bool {
        unimplemented!()
    }
    /// Counts as an access (TOUCH, OBJECT FREQ) and tells watchers, without a change.
    pub fn set_idle(&mut self, _key: &Key<'_>, _idle_seconds: u64) {
        unimplemented!()
    }
    /// Sets the logarithmic access count (RESTORE FREQ).
    pub fn set_frequency(&mut self, _key: &Key<'_>, _frequency: u8) {
        unimplemented!()
    }
    /// Removes an item that is past its deadline, which [`Edit::remove`] takes for absent. Was there one?
    pub fn remove_expired(&mut self, _key: &Key<'_>) -> bool {
        unimplemented!()
    }
    /// Exchanges the items of two databases.
    pub fn swap(&mut self, _one: DatabaseIndex, _other: DatabaseIndex) {
        unimplemented!()
    }
    /// Removes every item of every database. Returns how many there were.
    pub fn clear_all(&mut self) -> u64 {
        unimplemented!()
    }
    /// Removes every item of this database. Returns how many there were.
    pub fn clear(&mut self) -> u64 {
        unimplemented!()
    }
}
