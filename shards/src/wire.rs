//! Bytes between nodes, read and written by hand: little-endian numbers, lengths before what they
//! are of.
//!
//! A reader checks every length against what is there before it uses it, and says what is wrong by
//! name. The bytes came over a link whose other end has proven that it knows the cluster's secret,
//! and under a checksum: garbage is an error of the peer's, and costs it the link.

use bytes::Bytes;

/// Bytes that mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// They end too soon.
    #[error("{0} ends too soon")]
    Short(&'static str),
    /// A number that has no meaning.
    #[error("{what}: there is no {found}")]
    Unknown {
        /// What the number is of.
        what: &'static str,
        /// The number.
        found: u64,
    },
    /// More than there may be.
    #[error("{what}: {found} is more than {bound}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: u64,
        /// The bound.
        bound: u64,
    },
    /// More bytes than it has fields.
    #[error("{0}: bytes behind the end")]
    Behind(&'static str),
}

/// Takes fields off the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    /// What it is that is read, for errors.
    what: &'static str,
}

impl Reader {
    /// Reads `bytes`, which are a `what`.
    pub fn new(bytes: Bytes, what: &'static str) -> Reader {
        Reader { bytes, what }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let Some((taken, _)) = self.bytes.split_first_chunk::<N>() else {
            return Err(Garbage::Short(self.what));
        };
        let taken = *taken;
        self.bytes = self.bytes.slice(N..);
        Ok(taken)
    }

    /// Has everything been read?
    pub fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A number of one byte.
    pub fn u8(&mut self) -> Result<u8, Garbage> {
        Ok(self.array::<1>()?[0])
    }

    /// A number of two bytes.
    pub fn u16(&mut self) -> Result<u16, Garbage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> Result<u32, Garbage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of eight bytes.
    pub fn u64(&mut self) -> Result<u64, Garbage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, Garbage> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// So many bytes, shared and not copied.
    pub fn bytes(&mut self, count: usize) -> Result<Bytes, Garbage> {
        if count > self.bytes.len() {
            return Err(Garbage::Short(self.what));
        }
        Ok(self.bytes.split_to(count))
    }

    /// Bytes behind their length of four bytes.
    pub fn string(&mut self) -> Result<Bytes, Garbage> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    /// A count of four bytes of things that take at least `least` bytes each: there are no more
    /// than can be there.
    pub fn count(&mut self, least: usize) -> Result<usize, Garbage> {
        let count = self.u32()? as usize;
        if count.saturating_mul(least) > self.bytes.len() {
            return Err(Garbage::Short(self.what));
        }
        Ok(count)
    }

    /// What is left.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    /// Is nothing left?
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Nothing is left, or it is an error.
    pub fn end(self) -> Result<(), Garbage> {
        if self.is_empty() { Ok(()) } else { Err(Garbage::Behind(self.what)) }
    }

    /// An error: a number that has no meaning.
    pub fn unknown(what: &'static str, found: impl Into<u64>) -> Garbage {
        Garbage::Unknown { what, found: found.into() }
    }
}

/// Appends bytes behind their length.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("strings between nodes are below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Something that drivers put into messages between nodes.
pub trait Wire: Sized {
    /// Appends its bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it back.
    fn take(input: &mut Reader) -> Result<Self, Garbage>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_written_and_no_length_is_believed() {
        let mut out = vec![7, 1, 2];
        put_string(&mut out, b"key");
        out.extend_from_slice(&9u32.to_le_bytes());
        let mut reader = Reader::new(out.into(), "a test");
        assert_eq!((reader.u8(), reader.u16()), (Ok(7), Ok(0x0201)));
        assert_eq!(reader.string(), Ok(Bytes::from_static(b"key")));
        assert_eq!(reader.clone().string(), Err(Garbage::Short("a test")));
        assert_eq!(reader.count(1), Err(Garbage::Short("a test")));
        assert_eq!(reader.end(), Ok(()));
        let short = Reader::new(Bytes::from_static(b"abc"), "a test").u32();
        assert_eq!(short.expect_err("three bytes").to_string(), "a test ends too soon");
    }
}
