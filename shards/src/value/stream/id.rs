//! The numbers of entries.

/// When an entry was added, and which one of that millisecond it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, or whatever the client said.
    pub ms: u64,
    /// Its number within the millisecond.
    pub sequence: u64,
}

/// Bytes of an id where it is a key.
pub(crate) const ID_BYTES: usize = 16;

impl StreamId {
    /// Before all entries: none has it.
    pub const MIN: StreamId = StreamId { ms: 0, sequence: 0 };
    /// The greatest one.
    pub const MAX: StreamId = StreamId { ms: u64::MAX, sequence: u64::MAX };

    /// The next greater one.
    pub fn next(self) -> Option<StreamId> {
        match self.sequence.checked_add(1) {
            Some(sequence) => Some(StreamId { sequence, ..self }),
            None => Some(StreamId { ms: self.ms.checked_add(1)?, sequence: 0 }),
        }
    }

    /// The next smaller one.
    pub fn previous(self) -> Option<StreamId> {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Some(StreamId { sequence, ..self }),
            None => Some(StreamId { ms: self.ms.checked_sub(1)?, sequence: u64::MAX }),
        }
    }

    /// As bytes that are ordered as ids are.
    pub(crate) fn bytes(self) -> [u8; ID_BYTES] {
        (u128::from(self.ms) << 64 | u128::from(self.sequence)).to_be_bytes()
    }

    /// From what [`StreamId::bytes`] gave.
    pub(crate) fn from_bytes(bytes: [u8; ID_BYTES]) -> StreamId {
        let number = u128::from_be_bytes(bytes);
        StreamId { ms: (number >> 64) as u64, sequence: number as u64 }
    }

    /// Of a key that begins with one.
    pub(super) fn of_key(key: &[u8]) -> StreamId {
        StreamId::from_bytes(*key.first_chunk().expect("such keys begin with an id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_neighbours_and_an_order() {
        let id = |ms, sequence| StreamId { ms, sequence };
        assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
        assert_eq!(id(2, 0).previous(), Some(id(1, u64::MAX)));
        assert_eq!((StreamId::MAX.next(), StreamId::MIN.previous()), (None, None));
        let mut ids = [id(1, 2), id(0, 1), id(1, u64::MAX), StreamId::MAX, id(256, 0), id(2, 0)];
        ids.sort_unstable();
        assert!(ids.map(StreamId::bytes).is_sorted());
        assert_eq!(ids.map(|id| StreamId::from_bytes(id.bytes())), ids);
    }
}
