//! Slots: the hash range of a key, which decides its shard.
//!
//! There are 1024 of them, in one of two schemes, chosen when a cluster is created:
//!
//! | scheme | slot | hashed text |
//! |---|---|---|
//! | Codis | CRC-32 (IEEE) mod 1024 | what lies between the first `{` and the first `}` after it, even when that is empty |
//! | Redis | the slot of Redis Cluster (CRC-16 mod 16384) divided by 16 | the same, but the whole key when it is empty |
//!
//! Without both braces it is the whole key. In the scheme of Redis each slot here holds sixteen of
//! Redis Cluster's.

use crc::{CRC_16_XMODEM, Crc, Table};

/// Count of slots.
pub const SLOT_COUNT: usize = 1024;

/// Count of the slots that clients of Redis Cluster know.
pub const REDIS_SLOT_COUNT: usize = 16384;

/// Slots of Redis Cluster in one of ours.
const REDIS_SLOTS_PER_SLOT: usize = REDIS_SLOT_COUNT / SLOT_COUNT;

/// Sixteen tables: about 10 ns for 16 bytes.
static CRC_16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// How keys are placed in slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlotScheme {
    /// CRC-32 mod 1024, Codis' rule for tags.
    #[default]
    Codis,
    /// CRC-16 mod 16384, divided by 16, Redis Cluster's rule for tags.
    Redis,
}

impl SlotScheme {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            SlotScheme::Codis => "crc32-1024",
            SlotScheme::Redis => "crc16-16384",
        }
    }

    /// The scheme with this name.
    pub fn of_name(name: &str) -> Option<SlotScheme> {
        [SlotScheme::Codis, SlotScheme::Redis].into_iter().find(|scheme| scheme.name() == name)
    }

    /// Its number in snapshots.
    pub fn number(self) -> u16 {
        match self {
            SlotScheme::Codis => 1,
            SlotScheme::Redis => 2,
        }
    }

    /// The scheme with this number.
    pub fn of_number(number: u16) -> Option<SlotScheme> {
        [SlotScheme::Codis, SlotScheme::Redis].into_iter().find(|scheme| scheme.number() == number)
    }
}

/// One of the 1024 hash ranges of the keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key.
    /// Cost: one CRC over the hashed text (6 to 10 ns for 16 bytes) and one scan for `{`.
    #[inline]
    pub fn of_key(key: &[u8], scheme: SlotScheme) -> Slot {
        match scheme {
            SlotScheme::Codis => {
                Slot((crc32fast::hash(hashed_text(key)) & (SLOT_COUNT as u32 - 1)) as u16)
            }
            SlotScheme::Redis => Slot(redis_slot(key) / REDIS_SLOTS_PER_SLOT as u16),
        }
    }

    /// The slot that holds a slot of Redis Cluster, in the scheme of Redis.
    pub fn of_redis_slot(slot: u16) -> Option<Slot> {
        Slot::new(usize::from(slot) / REDIS_SLOTS_PER_SLOT)
    }

    /// Slot number `n`, or `None` when it is 1024 or more.
    pub fn new(n: usize) -> Option<Slot> {
        (n < SLOT_COUNT).then_some(Slot(n as u16))
    }

    /// The number, below 1024.
    #[inline(always)]
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// The slot that Redis Cluster gives a key, below 16384.
pub fn redis_slot(key: &[u8]) -> u16 {
    let text = match hashed_text(key) {
        b"" => key,
        text => text,
    };
    CRC_16.checksum(text) & (REDIS_SLOT_COUNT as u16 - 1)
}

/// The part of a key that its slot depends on, by Codis' rule.
#[inline]
fn hashed_text(key: &[u8]) -> &[u8] {
    if lacks_brace(key) {
        return key;
    }
    if let Some(open) = memchr::memchr(b'{', key) {
        let after = &key[open + 1..];
        if let Some(close) = memchr::memchr(b'}', after) {
            return &after[..close];
        }
    }
    key
}

/// Is a key of 8 to 16 bytes, as most are, without `{`? Cost: some instructions, where a search
/// goes byte by byte.
#[inline(always)]
fn lacks_brace(key: &[u8]) -> bool {
    let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) else { return false };
    key.len() <= 16 && !has_brace(*head) && !has_brace(*tail)
}

#[inline(always)]
fn has_brace(bytes: [u8; 8]) -> bool {
    const LOW: u64 = u64::from_le_bytes([1; 8]);
    let word = u64::from_le_bytes(bytes) ^ u64::from_le_bytes([b'{'; 8]);
    // A byte that is 0 borrows from its highest bit; others do so behind one alone.
    word.wrapping_sub(LOW) & !word & LOW << 7 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_is_found_wherever_it_is() {
        for length in 0..40 {
            for byte in [b'z', b'|', 0xfb, 0, 0xff] {
                let mut key = vec![byte; length];
                assert_eq!(lacks_brace(&key), (8..=16).contains(&length));
                for at in 0..length {
                    key[at] = b'{';
                    assert!(!lacks_brace(&key), "{at} of {length}");
                    key[at] = byte;
                }
            }
        }
    }

    #[test]
    fn slots_follow_the_codis_rule() {
        for (key, slot) in [
            ("a", 579),
            ("b", 1017),
            ("c", 879),
            ("a{tag}", 899),
            ("{tag}", 899),
            ("foo{", 2),
            ("foo{}{bar}", 0),
            ("{}x", 0),
            ("{{a}}", 780),
            ("", 0),
        ] {
            assert_eq!(Slot::of_key(key.as_bytes(), SlotScheme::Codis).number(), slot, "{key}");
        }
        assert_eq!(hashed_text(b"}a{"), b"}a{");
        assert_eq!(Slot::new(1024), None);
    }

    /// The slots are what redis-server's CLUSTER KEYSLOT answers.
    #[test]
    fn slots_follow_the_redis_rule() {
        for (key, slot) in [
            ("123456789", 12739),
            ("a", 15495),
            ("foo", 12182),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("", 0),
        ] {
            assert_eq!(redis_slot(key.as_bytes()), slot, "{key}");
            let ours = Slot::of_key(key.as_bytes(), SlotScheme::Redis);
            assert_eq!(ours.number(), usize::from(slot) / 16, "{key}");
            assert_eq!(Slot::of_redis_slot(slot), Some(ours));
        }
        assert_eq!(Slot::of_redis_slot(16384), None);
    }

    #[test]
    fn schemes_have_names_and_numbers() {
        for scheme in [SlotScheme::Codis, SlotScheme::Redis] {
            assert_eq!(SlotScheme::of_name(scheme.name()), Some(scheme));
            assert_eq!(SlotScheme::of_number(scheme.number()), Some(scheme));
        }
        assert_eq!((SlotScheme::of_name("crc8"), SlotScheme::of_number(0)), (None, None));
    }
}
