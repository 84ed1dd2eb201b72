//! The packed forms of Redis' small collections: listpack, ziplist, intset and zipmap. Read, and
//! never written but for the listpacks of streams.
//!
//! Each reader checks the whole blob before it hands out the first element, as deeply as Redis does
//! with `sanitize-dump-payload yes`: sizes, counts, links backwards, the end. What it hands out
//! borrows from the blob.

pub(super) mod intset;
pub(super) mod listpack;
pub(super) mod ziplist;
pub(super) mod zipmap;

/// An element of a packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// Bytes as they are.
    Bytes(&'a [u8]),
    /// The text of this integer.
    Integer(i64),
}

impl<'a> Element<'a> {
    /// Its bytes; those of an integer are written into `buffer`.
    pub(super) fn text<'b>(&self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Element::Bytes(bytes) => bytes,
            Element::Integer(n) => buffer.format(n).as_bytes(),
        }
    }
}

/// Reads fields off the front of a blob; every one may be missing.
#[derive(Clone, Copy)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A signed little endian integer of `bytes` bytes.
    fn signed(&mut self, bytes: usize) -> Option<i64> {
        let taken = self.take(bytes)?;
        let negative = taken.last().is_some_and(|&byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes].copy_from_slice(taken);
        Some(i64::from_le_bytes(all))
    }
}
