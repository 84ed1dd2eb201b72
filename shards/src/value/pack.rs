//! Elements one behind the other, in one run of bytes: small collections, and the leaves of large
//! ones.
//!
//! ```text
//! record: for each element its length u8, or 255 | for each 255 its length u32 | the elements' bytes
//! ```
//!
//! A collection gives meaning to them: a set has one element per record, a hash two. Finding a
//! record walks, and a step of the walk waits for one read, since a record's lengths lie together.

use smallvec::SmallVec;

const LONG: u8 = 0xff;

/// The elements of a record of `W`.
pub type Record<'a, const W: usize> = [&'a [u8]; W];

/// Records of `W` elements, read from their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack<'a, const W: usize> {
    bytes: &'a [u8],
}

impl<'a, const W: usize> Pack<'a, W> {
    /// The records that these bytes are.
    pub fn new(bytes: &'a [u8]) -> Pack<'a, W> {
        Pack { bytes }
    }

    /// The records in order.
    pub fn records(self) -> Records<'a, W> {
        Records { bytes: self.bytes, at: 0 }
    }

    /// The records from a place on, at which one begins or all end.
    pub fn records_at(self, place: usize) -> Records<'a, W> {
        Records { bytes: self.bytes, at: place }
    }

    /// The records backwards.
    pub fn records_back(self) -> impl Iterator<Item = Record<'a, W>> {
        self.places().into_iter().rev().map(move |place| self.record_at(place))
    }

    /// Where each record begins.
    fn places(self) -> SmallVec<[u32; 256]> {
        let mut records = self.records();
        let mut places = SmallVec::new();
        while records.at < self.bytes.len() {
            places.push(records.at as u32);
            records.skip_some(1);
        }
        places
    }

    /// Where record `i` begins; the end when there are no more than `i`.
    pub fn place(self, i: usize) -> usize {
        let mut records = self.records();
        records.skip_some(i);
        records.at
    }

    /// The rank of the first record that begins with `member`.
    pub fn rank_of(self, member: &[u8]) -> Option<usize> {
        self.records().pass_until(member, self.bytes.len())
    }

    /// That record.
    pub fn record_of(self, member: &[u8]) -> Option<Record<'a, W>> {
        let mut records = self.records();
        records.pass_until(member, self.bytes.len())?;
        records.next()
    }

    /// The record that begins at a place.
    pub fn record_at(self, place: u32) -> Record<'a, W> {
        let mut records = Records { bytes: self.bytes, at: place as usize };
        records.next().expect("a record begins there")
    }
}

/// Records of a pack.
#[derive(Clone, Debug)]
pub struct Records<'a, const W: usize> {
    bytes: &'a [u8],
    at: usize,
}

impl<const W: usize> Records<'_, W> {
    /// Where the next one begins.
    pub fn place(&self) -> usize {
        self.at
    }

    /// Passes so many records, or all that there are.
    pub fn skip_some(&mut self, count: usize) {
        for _ in 0..count {
            let Some((start, lengths)) = head::<W>(&self.bytes[self.at..]) else { return };
            self.at += start + lengths.iter().sum::<usize>();
        }
    }

    /// Passes records until one begins with `member`, up to the one at the place `end`. Returns how
    /// many were passed.
    pub fn pass_until(&mut self, member: &[u8], end: usize) -> Option<usize> {
        let last = member.last();
        let mut passed = 0;
        while self.at <= end {
            let rest = &self.bytes[self.at..];
            let (start, lengths) = head::<W>(rest)?;
            let other = &rest[start..start + lengths[0]];
            // Members are often of one length and begin alike.
            if other.len() == member.len() && other.last() == last && other == member {
                return Some(passed);
            }
            self.at += start + lengths.iter().sum::<usize>();
            passed += 1;
        }
        None
    }
}

impl<'a, const W: usize> Iterator for Records<'a, W> {
    type Item = Record<'a, W>;

    fn next(&mut self) -> Option<Record<'a, W>> {
        let rest = &self.bytes[self.at..];
        let (mut start, lengths) = head::<W>(rest)?;
        let record = lengths.map(|length| {
            let element = &rest[start..start + length];
            start += length;
            element
        });
        self.at += start;
        Some(record)
    }
}

/// Where the bytes of the first element begin, and how many each has; `None` when there is no
/// record.
fn head<const W: usize>(bytes: &[u8]) -> Option<(usize, [usize; W])> {
    let short: &[u8; W] = bytes.first_chunk()?;
    if short.contains(&LONG) {
        Some(long_head(bytes, short))
    } else {
        Some((W, short.map(usize::from)))
    }
}

#[cold]
fn long_head<const W: usize>(bytes: &[u8], short: &[u8; W]) -> (usize, [usize; W]) {
    let mut start = W;
    let lengths = short.map(|short| match short {
        LONG => {
            let length = bytes[start..].first_chunk().expect("a long element has its length");
            start += size_of::<u32>();
            u32::from_le_bytes(*length) as usize
        }
        short => short.into(),
    });
    (start, lengths)
}

/// Bytes that a record takes.
pub fn record_bytes<const W: usize>(record: &Record<'_, W>) -> usize {
    let size = |element: &[u8]| element.len() + if element.len() < LONG as usize { 1 } else { 5 };
    record.iter().map(|element| size(element)).sum()
}

/// Writes a record into `out`, whose size is its own.
fn write<const W: usize>(out: &mut [u8], record: &Record<'_, W>) {
    let (short, mut out) = out.split_at_mut(W);
    for (short, element) in short.iter_mut().zip(record) {
        *short = u8::try_from(element.len()).unwrap_or(LONG);
        if *short == LONG {
            let (long, rest) = out.split_at_mut(size_of::<u32>());
            long.copy_from_slice(&(element.len() as u32).to_le_bytes());
            out = rest;
        }
    }
    for element in record {
        let (own, rest) = out.split_at_mut(element.len());
        own.copy_from_slice(element);
        out = rest;
    }
}

/// Puts a record behind all others.
pub fn append<const W: usize>(bytes: &mut Vec<u8>, record: &Record<'_, W>) {
    let end = bytes.len();
    Vec::resize(bytes, end + record_bytes(record), 0);
    write(&mut bytes[end..], record);
}

/// Bytes that can be made more or fewer: where a pack lies.
pub trait Room {
    /// What is there.
    fn bytes(&self) -> &[u8];
    /// The same, for changing.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Makes it so many: cuts, or adds zeros.
    fn resize(&mut self, length: usize);
}

impl Room for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn resize(&mut self, length: usize) {
        if length > self.capacity() {
            self.reserve_exact(size_class(length) - self.len());
        }
        Vec::resize(self, length, 0);
        if self.capacity() - length >= self.capacity() / 4 + SHRUNK_BYTES_MIN {
            self.shrink_to(size_class(length));
        }
    }
}

/// Less is not worth being given back.
const SHRUNK_BYTES_MIN: usize = 64;

/// What the allocator makes of so many bytes: four sizes from one power of two to the next. Asking
/// for all of it costs no memory, and the allocator is asked a few times while a leaf grows.
fn size_class(bytes: usize) -> usize {
    const STEP_MIN: usize = 16;
    let power = 1 << bytes.saturating_sub(1).max(1).ilog2();
    bytes.next_multiple_of((power / 4).max(STEP_MIN))
}

/// Puts a record in at a place.
pub fn insert<const W: usize>(room: &mut impl Room, place: usize, record: &Record<'_, W>) {
    replace(room, place, place, record);
}

/// Puts a record in the place of the bytes from `start` to `end`.
pub fn replace<const W: usize>(
    room: &mut impl Room,
    start: usize,
    end: usize,
    record: &Record<'_, W>,
) {
    let (old, added) = (room.bytes().len(), record_bytes(record));
    let length = old + added - (end - start);
    if length > old {
        room.resize(length);
    }
    let bytes = room.bytes_mut();
    bytes.copy_within(end..old, start + added);
    write(&mut bytes[start..start + added], record);
    if length < old {
        room.resize(length);
    }
}

/// Takes out the record from `start` to `end`, and puts another one in at `to`, where one of the
/// others begins, or at the end. The size changes once.
pub fn relocate<const W: usize>(
    room: &mut impl Room,
    (start, end): (usize, usize),
    to: usize,
    record: &Record<'_, W>,
) {
    let (size, before, added) = (room.bytes().len(), end - start, record_bytes(record));
    let grown = size + added - before;
    if added > before {
        room.resize(grown);
    }
    let bytes = room.bytes_mut();
    // What is behind both stays there; what is between them makes room on its other side.
    let last = end.max(to);
    if added > before {
        bytes.copy_within(last..size, last + added - before);
    }
    let at = if to <= start {
        bytes.copy_within(to..start, to + added);
        to
    } else {
        bytes.copy_within(end..last, start);
        start + last - end
    };
    write(&mut bytes[at..at + added], record);
    if added < before {
        bytes.copy_within(last..size, last + added - before);
        room.resize(grown);
    }
}

/// Takes out the bytes from `start` to `end`: whole records.
pub fn remove(room: &mut impl Room, start: usize, end: usize) {
    if start == end {
        return;
    }
    let old = room.bytes().len();
    room.bytes_mut().copy_within(end..old, start);
    room.resize(old - (end - start));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_those_of_the_allocator() {
        let asked = [0, 1, 16, 17, 128, 129, 160, 161, 1024, 1025, 1280, 1793, 2048, 2049, 2560];
        let given = [0, 16, 16, 32, 128, 160, 160, 192, 1024, 1280, 1280, 2048, 2048, 2560, 2560];
        assert_eq!(asked.map(size_class), given);
    }

    #[test]
    fn records_of_all_lengths_go_in_and_out() {
        let mut pack = Vec::new();
        let texts: Vec<Vec<u8>> =
            [0, 1, 254, 255, 256, 70_000].iter().map(|&length| vec![b'x'; length]).collect();
        for text in &texts {
            insert::<2>(&mut pack, 0, &[text, b"v"]);
        }
        let read = Pack::<2>::new(&pack);
        assert_eq!(read.records().count(), texts.len());
        assert!(read.records().map(|[field, _]| field).eq(texts.iter().rev().map(|t| &t[..])));
        assert!(read.records_back().map(|[field, _]| field).eq(texts.iter().map(|t| &t[..])));
        assert_eq!((read.place(0), read.place(99)), (0, pack.len()));
        let (start, end) = (read.place(1), read.place(2));
        replace::<2>(&mut pack, start, end, &[b"new", b""]);
        assert_eq!(Pack::<2>::new(&pack).records().nth(1), Some([&b"new"[..], b""]));
        while !pack.is_empty() {
            let end = Pack::<2>::new(&pack).place(1);
            remove(&mut pack, 0, end);
        }
    }

    #[test]
    fn records_go_elsewhere_and_get_other_sizes() {
        for (from, to, length) in (0..5).flat_map(|from| {
            (0..=5).flat_map(move |to| [0, 3, 5, 40, 300].map(|length| (from, to, length)))
        }) {
            let new = vec![b'n'; length];
            let mut texts: Vec<Vec<u8>> =
                (0..5_u8).map(|n| vec![b'a' + n; 3 + usize::from(n)]).collect();
            let mut bytes = Vec::new();
            texts.iter().for_each(|text| append::<1>(&mut bytes, &[text]));
            let place = |n| Pack::<1>::new(&bytes).place(n);
            let (own, at) = ((place(from), place(from + 1)), place(to));
            relocate::<1>(&mut bytes, own, at, &[&new]);
            texts.remove(from);
            texts.insert(if to > from { to - 1 } else { to }, new);
            let found: Vec<Vec<u8>> =
                Pack::<1>::new(&bytes).records().map(|[text]| text.to_vec()).collect();
            assert_eq!(found, texts, "{from} to {to}, {length}");
        }
    }
}
