//! The sizes at which collections change their form: Redis' `*-max-listpack-*`.
//!
//! The form of a value decides the order of its elements, so these are a part of a shard's state:
//! an entry of its log sets them, snapshots carry them.

use super::Form;

/// What a collection in an item has at most, whatever the limits say.
pub const PACK_BYTES_MAX: usize = 64 << 10;
/// How many elements it has at most.
pub const PACK_ENTRIES_MAX: u64 = 4096;

/// When a collection stops being a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fields of a hash (`hash-max-listpack-entries`).
    pub hash_entries: u64,
    /// Bytes of a field or value of a hash (`hash-max-listpack-value`).
    pub hash_value: u64,
    /// Members of a set (`set-max-listpack-entries`).
    pub set_entries: u64,
    /// Bytes of a member of a set (`set-max-listpack-value`).
    pub set_value: u64,
    /// Members of a set of integers alone (`set-max-intset-entries`).
    pub set_integers: u64,
    /// Members of a sorted set (`zset-max-listpack-entries`).
    pub sorted_set_entries: u64,
    /// Bytes of a member of a sorted set (`zset-max-listpack-value`).
    pub sorted_set_value: u64,
    /// Elements of a list, or -1 to -5 for 4, 8, 16, 32, 64 KiB of them
    /// (`list-max-listpack-size`).
    pub list_size: i64,
    /// Bytes of a block of a stream, 0 for any (`stream-node-max-bytes`).
    pub stream_bytes: u64,
    /// Entries of a block of a stream, 0 for any (`stream-node-max-entries`).
    pub stream_entries: u64,
}

impl Default for Limits {
    /// Redis' own.
    fn default() -> Limits {
        Limits {
            hash_entries: 512,
            hash_value: 64,
            set_entries: 128,
            set_value: 64,
            set_integers: 512,
            sorted_set_entries: 128,
            sorted_set_value: 64,
            list_size: -2,
            stream_bytes: 4096,
            stream_entries: 100,
        }
    }
}

impl Limits {
    const COUNT: usize = 10;
    /// Before there were streams.
    const COUNT_OLD: usize = 8;

    /// Limits under which a collection that is loaded keeps a form in which it was written.
    pub fn keeping(form: Form) -> Limits {
        Limits {
            hash_entries: u64::MAX,
            hash_value: u64::MAX,
            set_entries: u64::MAX,
            set_value: u64::MAX,
            set_integers: if form == Form::Integers { u64::MAX } else { 0 },
            sorted_set_entries: u64::MAX,
            sorted_set_value: u64::MAX,
            list_size: -5,
            stream_bytes: 0,
            stream_entries: 0,
        }
    }

    /// May a block of a stream with `count` entries get one more, and so many bytes by that?
    pub fn stream_fits(&self, bytes: usize, count: u64) -> bool {
        let or_any = |limit: u64, any: u64| if limit == 0 { any } else { limit.min(any) };
        (bytes as u64) < or_any(self.stream_bytes, PACK_BYTES_MAX as u64)
            && count < or_any(self.stream_entries, PACK_ENTRIES_MAX)
    }

    /// May a small list have so many bytes and elements?
    pub fn list_fits(&self, bytes: usize, count: u64) -> bool {
        /// Redis' bound on bytes where the limit is a count.
        const COUNTED_BYTES_MAX: usize = 8 << 10;
        let (bytes_max, count_max) = match self.list_size {
            // -1 to -5; what is less is -5 to Redis.
            size @ ..0 => (4096 << (-size - 1).min(4), PACK_ENTRIES_MAX),
            size => (COUNTED_BYTES_MAX, (size as u64).clamp(1, PACK_ENTRIES_MAX)),
        };
        bytes <= bytes_max.min(PACK_BYTES_MAX) && count <= count_max
    }

    /// May a packed hash have so many fields?
    pub fn hash_fits(&self, count: u64) -> bool {
        count <= self.hash_entries.min(PACK_ENTRIES_MAX)
    }

    /// May a packed set have so many members?
    pub fn set_fits(&self, count: u64) -> bool {
        count <= self.set_entries.min(PACK_ENTRIES_MAX)
    }

    /// May a packed sorted set have so many members?
    pub fn sorted_set_fits(&self, count: u64) -> bool {
        count <= self.sorted_set_entries.min(PACK_ENTRIES_MAX)
    }

    /// As log entries and snapshots have them: ten numbers of 8 bytes, little endian, in the order
    /// of the fields.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [
            self.hash_entries,
            self.hash_value,
            self.set_entries,
            self.set_value,
            self.set_integers,
            self.sorted_set_entries,
            self.sorted_set_value,
            self.list_size as u64,
            self.stream_bytes,
            self.stream_entries,
        ];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    /// From what [`Limits::encode`] gave, or gave when it had no streams; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Limits> {
        if bytes.len() == size_of::<[u64; Self::COUNT_OLD]>() {
            let streams = &Limits::default().encode()[bytes.len()..];
            return Limits::decode(&[bytes, streams].concat());
        }
        let (fields, rest) = bytes.as_chunks::<8>();
        let fields: &[[u8; 8]; Self::COUNT] = fields.try_into().ok()?;
        let [
            hash_entries,
            hash_value,
            set_entries,
            set_value,
            set_integers,
            sorted_set_entries,
            sorted_set_value,
            list_size,
            stream_bytes,
            stream_entries,
        ] = fields.map(u64::from_le_bytes);
        rest.is_empty().then_some(Limits {
            hash_entries,
            hash_value,
            set_entries,
            set_value,
            set_integers,
            sorted_set_entries,
            sorted_set_value,
            list_size: list_size as i64,
            stream_bytes,
            stream_entries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_round_trip_and_nothing_else_is_read() {
        let limits = Limits { hash_value: u64::MAX, list_size: -5, ..Limits::default() };
        let bytes = limits.encode();
        assert_eq!(Limits::decode(&bytes), Some(limits));
        assert_eq!(Limits::decode(&bytes[..64]), Some(limits), "written before there were streams");
        assert_eq!(Limits::decode(&bytes[1..]), None);
        assert_eq!(Limits::decode(&[bytes.as_slice(), &[0]].concat()), None);
    }
}
