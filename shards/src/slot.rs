//! Slots: the hash range of a key, which decides its shard.
//!
//! CRC-32 (IEEE) mod 1024 with the hash-tag rule of Codis: the hashed text is what lies between the
//! first `{` and the first `}` after it, even when that is empty; without both, the whole key.

/// Count of slots.
pub const SLOT_COUNT: usize = 1024;

/// One of the 1024 hash ranges of the keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key.
    /// Cost: one CRC over the hashed text (about 6 ns for 16 bytes) and one scan for `{`.
    #[inline]
    pub fn of_key(key: &[u8]) -> Slot {
        Slot((crc32fast::hash(hashed_text(key)) & (SLOT_COUNT as u32 - 1)) as u16)
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

/// The part of a key that its slot depends on.
#[inline]
pub fn hashed_text(key: &[u8]) -> &[u8] {
    if let Some(open) = memchr::memchr(b'{', key) {
        let after = &key[open + 1..];
        if let Some(close) = memchr::memchr(b'}', after) {
            return &after[..close];
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(Slot::of_key(key.as_bytes()).number(), slot, "{key}");
        }
        assert_eq!(hashed_text(b"}a{"), b"}a{");
        assert_eq!(Slot::new(1024), None);
    }
}
