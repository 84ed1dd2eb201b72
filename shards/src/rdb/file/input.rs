//! A stream of which as much is kept as one step of reading needs.

use super::super::DecodeError;
use super::super::checksum::{Digest, digest};
use super::super::encoding::Decoder;
use super::{RdbError, behind};
use crate::limits::{RDB_READ_BYTES, RDB_SPLIT_BYTES};
use std::io::Read;

/// What was read of a stream and not used yet.
pub(super) struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    /// Bytes at its start that were used.
    used: usize,
    /// Place in the stream of what follows on them.
    offset: u64,
    at_end: bool,
    digest: Option<Digest>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Input<R> {
        let (buffer, digest) = (Vec::new(), Some(digest()));
        Input { source, buffer, used: 0, offset: 0, at_end: false, digest }
    }

    /// Where it is.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is there, and not used.
    pub(super) fn ready(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Bytes of this stream from here on, were there so many.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.ready()[..count].to_vec();
        self.skip(count);
        taken
    }

    /// The checksum of all that was used.
    pub(super) fn checksum(&mut self) -> u64 {
        self.digest.take().expect("asked for once, at the end").finalize()
    }

    /// Uses so many of the bytes that are there.
    pub(super) fn skip(&mut self, count: usize) {
        if let Some(digest) = &mut self.digest {
            digest.update(&self.buffer[self.used..self.used + count]);
        }
        self.used += count;
        self.offset += count as u64;
    }

    /// Reads something, fetching as much of the stream as that takes. What it was read from is
    /// used.
    pub(super) fn parse<T>(
        &mut self,
        key: Option<&[u8]>,
        read: impl Fn(&mut Decoder<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, RdbError> {
        let (value, size) = self.look(key, usize::MAX, read)?.expect("there is no bound");
        self.skip(size);
        Ok(value)
    }

    /// The same without using it; how many bytes it has comes with it. `None` when it has more than
    /// `bytes_max`.
    pub(super) fn look<T>(
        &mut self,
        key: Option<&[u8]>,
        bytes_max: usize,
        read: impl Fn(&mut Decoder<'_>) -> Result<T, DecodeError>,
    ) -> Result<Option<(T, usize)>, RdbError> {
        loop {
            let ready = self.ready();
            let mut decoder = Decoder::new(ready);
            match read(&mut decoder) {
                Ok(value) => {
                    let size = ready.len() - decoder.rest().len();
                    return Ok(Some((value, size)));
                }
                Err(error) if !error.is_truncated() => return Err(behind(error, self.offset, key)),
                Err(_) if ready.len() > bytes_max => return Ok(None),
                Err(error) if self.at_end => return Err(behind(error, self.offset, key)),
                Err(error) => self.fetch(error.missing())?,
            }
        }
    }

    /// Fetches at least `missing` further bytes, if the stream has them. What is read again and
    /// again, because its end is not there, doubles each time, so that reading it costs twice
    /// as much at most.
    fn fetch(&mut self, missing: usize) -> Result<(), RdbError> {
        self.buffer.drain(..std::mem::take(&mut self.used));
        if self.buffer.capacity() > 4 * RDB_SPLIT_BYTES && self.buffer.len() < RDB_READ_BYTES {
            self.buffer.shrink_to(RDB_SPLIT_BYTES);
        }
        let wanted = missing.max(RDB_READ_BYTES).max(self.buffer.len());
        let before = self.buffer.len();
        let read = self.source.by_ref().take(wanted as u64).read_to_end(&mut self.buffer);
        read.map_err(|source| {
            let offset = self.offset + before as u64;
            RdbError::Read { offset, source }
        })?;
        self.at_end = self.buffer.len() < before + wanted;
        Ok(())
    }
}
