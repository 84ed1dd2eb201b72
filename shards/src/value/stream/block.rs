//! Entries one behind the other: what streams are made of.
//!
//! ```text
//! block:  count u16 | names | entry ...
//! names:  count number | string ...
//! entry:  head u8 | milliseconds number, unless SAME_MS | sequence number, unless NO_SEQUENCE
//!         | value string ..., if SHARED, else count number | name string, value string ...
//! string: length number | bytes
//! number: seven bits a byte, the lowest ones first, all but the last byte marked
//! ```
//!
//! The names are those of the first entry; an entry with the same ones in the same order has none
//! of its own. Milliseconds are the difference from the entry before, and so is the sequence within
//! one millisecond. The id of the first entry stands beside the block.

use super::id::StreamId;

/// The entry's names are those of the block.
const SHARED: u8 = 1;
/// Added in the millisecond of the entry before.
const SAME_MS: u8 = 2;
/// Its sequence is 0, or it is the first entry.
const NO_SEQUENCE: u8 = 4;

/// Bytes of a block's count of entries.
const COUNT_BYTES: usize = 2;

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    write_number(out, string.len() as u64);
    out.extend_from_slice(string);
}

/// Reads numbers and strings; every one may be missing.
#[derive(Clone, Copy, Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
            shift += 7;
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    fn strings(&mut self, count: u64) -> Option<()> {
        (0..count).try_for_each(|_| self.string().map(|_| ()))
    }
}

/// An entry that is read.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its number.
    pub id: StreamId,
    /// Count of names.
    count: u64,
    /// The names, if they do not stand beside the values.
    names: Option<Input<'a>>,
    values: Input<'a>,
}

impl<'a> Entry<'a> {
    /// How many names it has, each with a value.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let (mut names, mut values) = (self.names, self.values);
        (0..self.count).map_while(move |_| {
            let name = match &mut names {
                Some(names) => names.string()?,
                None => values.string()?,
            };
            Some((name, values.string()?))
        })
    }
}

/// Some entries of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    first: StreamId,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Of bytes that are a block.
    pub(super) fn new(first: StreamId, bytes: &'a [u8]) -> Block<'a> {
        Block { first, bytes }
    }

    /// Of bytes from elsewhere; `None` when they are no block, or one without entries.
    pub(crate) fn read(first: StreamId, bytes: &'a [u8]) -> Option<Block<'a>> {
        let block = Block { first, bytes };
        let count = bytes.first_chunk().map(|count| u16::from_le_bytes(*count))?;
        let mut entries = block.try_entries()?;
        for _ in 0..count {
            entries.try_next()?;
        }
        (count > 0 && entries.input.0.is_empty()).then_some(block)
    }

    /// The id of its first entry.
    pub fn first(self) -> StreamId {
        self.first
    }

    /// As it lies in memory.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How many entries it has.
    pub(super) fn count(self) -> u64 {
        self.bytes.first_chunk().map_or(0, |count| u16::from_le_bytes(*count)).into()
    }

    /// The id of its last entry.
    pub(super) fn last(self) -> StreamId {
        self.entries().last().map_or(self.first, |entry| entry.id)
    }

    /// Its entries in order.
    pub fn entries(self) -> Entries<'a> {
        self.try_entries().expect("a block has names")
    }

    fn try_entries(self) -> Option<Entries<'a>> {
        let mut input = Input(self.bytes.get(COUNT_BYTES..)?);
        let name_count = input.number()?;
        let names = input;
        input.strings(name_count)?;
        Some(Entries { input, name_count, names, before: None, first: self.first })
    }
}

/// Entries of a block.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    input: Input<'a>,
    name_count: u64,
    names: Input<'a>,
    before: Option<StreamId>,
    first: StreamId,
}

impl<'a> Entries<'a> {
    fn try_next(&mut self) -> Option<Entry<'a>> {
        let input = &mut self.input;
        let head = input.byte()?;
        let id = match self.before {
            None => self.first,
            Some(before) if head & SAME_MS != 0 => {
                let further = input.number().filter(|&further| further > 0)?;
                StreamId { sequence: before.sequence.checked_add(further)?, ..before }
            }
            Some(before) => {
                let further = input.number().filter(|&further| further > 0)?;
                let sequence = if head & NO_SEQUENCE != 0 { 0 } else { input.number()? };
                StreamId { ms: before.ms.checked_add(further)?, sequence }
            }
        };
        self.before = Some(id);
        let (count, names) = match head & SHARED {
            0 => (input.number()?, None),
            _ => (self.name_count, Some(self.names)),
        };
        let values = *input;
        input.strings(if names.is_some() { count } else { count.checked_mul(2)? })?;
        Some(Entry { id, count, names, values })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.try_next()
    }
}

/// A block that entries are added to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Builder {
    first: StreamId,
    last: StreamId,
    bytes: Vec<u8>,
}

impl Builder {
    /// Goes on with a block.
    pub(super) fn of(block: Block<'_>) -> Builder {
        Builder { first: block.first, last: block.last(), bytes: block.bytes.to_vec() }
    }

    /// Adds an entry behind the others.
    pub(crate) fn push<'p>(
        &mut self,
        id: StreamId,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone,
    ) {
        let out = &mut self.bytes;
        let is_first = out.is_empty();
        if is_first {
            self.first = id;
            out.extend_from_slice(&[0; COUNT_BYTES]);
            write_number(out, pairs.clone().count() as u64);
            pairs.clone().for_each(|(name, _)| write_string(out, name));
        }
        let mut names = Input(&out[COUNT_BYTES..]);
        let count = names.number().expect("a block has names");
        let mut own = pairs.clone();
        let is_shared = is_first
            || ((0..count).all(|_| own.next().map(|(name, _)| name) == names.string())
                && own.next().is_none());
        let before = self.last;
        let same_ms = !is_first && id.ms == before.ms;
        let no_sequence = is_first || (!same_ms && id.sequence == 0);
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let bits = [bit(is_shared, SHARED), bit(same_ms, SAME_MS), bit(no_sequence, NO_SEQUENCE)];
        out.push(bits.iter().sum());
        if same_ms {
            write_number(out, id.sequence - before.sequence);
        } else if !is_first {
            write_number(out, id.ms - before.ms);
            if !no_sequence {
                write_number(out, id.sequence);
            }
        }
        if !is_shared {
            write_number(out, pairs.clone().count() as u64);
        }
        for (name, value) in pairs {
            if !is_shared {
                write_string(out, name);
            }
            write_string(out, value);
        }
        let head = out.first_chunk_mut::<COUNT_BYTES>().expect("just written");
        *head = (u16::from_le_bytes(*head) + 1).to_le_bytes();
        self.last = id;
    }

    /// Are there no entries?
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The id of the first entry.
    pub(super) fn first(&self) -> StreamId {
        self.first
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many entries it has.
    pub(crate) fn count(&self) -> u64 {
        self.block().map_or(0, Block::count)
    }

    /// The block, if it has entries.
    pub(crate) fn block(&self) -> Option<Block<'_>> {
        (!self.is_empty()).then(|| Block::new(self.first, &self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pair = (Vec<u8>, Vec<u8>);

    fn text(block: Block<'_>) -> Vec<(StreamId, Vec<Pair>)> {
        let owned = |entry: Entry<'_>| {
            let pairs: Vec<Pair> =
                entry.pairs().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            assert_eq!(pairs.len(), entry.count());
            (entry.id, pairs)
        };
        block.entries().map(owned).collect()
    }

    fn any_entries() -> impl Strategy<Value = Vec<(StreamId, Vec<Pair>)>> {
        let step = prop_oneof![Just((0u64, 1u64)), Just((1, 0)), (0u64..1 << 40, 1u64..1 << 50)];
        let name = prop_oneof![Just(b"f".to_vec()), any::<Vec<u8>>()];
        let pairs = prop::collection::vec((name, any::<Vec<u8>>()), 1..4);
        prop::collection::vec((step, pairs), 1..30).prop_map(|entries| {
            let mut id = StreamId { ms: 5, sequence: 7 };
            entries
                .into_iter()
                .map(|((ms, sequence), pairs)| {
                    let base = if ms == 0 { id.sequence } else { 0 };
                    id = StreamId { ms: id.ms + ms, sequence: base + sequence };
                    (id, pairs)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn blocks_read_back(entries in any_entries()) {
            let mut builder = Builder::default();
            for (id, pairs) in &entries {
                builder.push(*id, pairs.iter().map(|(name, value)| (&name[..], &value[..])));
            }
            let block = builder.block().expect("there are entries");
            prop_assert_eq!(text(block), entries.clone());
            prop_assert_eq!(block.last(), entries.last().expect("one at least").0);
            prop_assert!(Block::read(block.first(), block.bytes()).is_some());
            for size in 0..block.bytes().len() {
                prop_assert!(Block::read(block.first(), &block.bytes()[..size]).is_none());
            }
            let longer = [block.bytes(), &[0]].concat();
            prop_assert!(Block::read(block.first(), &longer).is_none());
        }

        #[test]
        fn no_bytes_panic(first: (u64, u64), bytes: Vec<u8>) {
            let first = StreamId { ms: first.0, sequence: first.1 };
            if let Some(block) = Block::read(first, &bytes) {
                text(block);
            }
        }
    }

    #[test]
    fn entries_with_the_names_of_the_first_cost_their_values() {
        let mut builder = Builder::default();
        let pairs = [(&b"temperature"[..], &b"21"[..]), (b"humidity", b"40")];
        for ms in 1..=100 {
            builder.push(StreamId { ms, sequence: 0 }, pairs.iter().copied());
        }
        let names = 1 + 1 + 11 + 1 + 8;
        let entries = 100 * (2 + 2 * 3);
        assert_eq!(builder.size(), COUNT_BYTES + names + entries - 1);
    }
}
