//! A key and the number of who has read it, in one allocation behind one pointer: there may be
//! millions, and a table of pointers that know a length as well would be twice as large.

#![allow(unsafe_code)] // The length stands in what the pointer points to.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr::NonNull;
use std::slice;

/// The reader, and how long the key is.
type Head = [u32; 2];

/// A key that was read. Equal to others of the same key, whoever has read them.
pub struct ReadKey(NonNull<Head>);

impl ReadKey {
    /// Of a reader.
    pub fn new(key: &[u8], reader: u32) -> ReadKey {
        let length = u32::try_from(key.len()).expect("a request has less than 4 GB");
        let layout = layout(length);
        // SAFETY: the layout has the size of a head at least.
        let Some(head) = NonNull::new(unsafe { alloc(layout) }.cast::<Head>()) else {
            handle_alloc_error(layout);
        };
        // SAFETY: the memory is ours alone, aligned for a head, and has room for it and for the key
        // behind it.
        unsafe {
            head.write([reader, length]);
            let place = head.add(1).cast::<u8>().as_ptr();
            place.copy_from_nonoverlapping(key.as_ptr(), key.len());
        }
        ReadKey(head)
    }

    fn head(&self) -> Head {
        // SAFETY: it was written when the memory was allocated.
        unsafe { self.0.read() }
    }

    /// Who has read it.
    pub fn reader(&self) -> u32 {
        self.head()[0]
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        let [_, length] = self.head();
        // SAFETY: so many bytes were written behind the head, and nobody changes them.
        unsafe { slice::from_raw_parts(self.0.add(1).cast::<u8>().as_ptr(), length as usize) }
    }
}

fn layout(length: u32) -> Layout {
    let size = size_of::<Head>() + length as usize;
    Layout::from_size_align(size, align_of::<Head>()).expect("less than half of the addresses")
}

impl Drop for ReadKey {
    fn drop(&mut self) {
        let [_, length] = self.head();
        // SAFETY: it was allocated with this layout, and nobody uses it any more.
        unsafe { dealloc(self.0.cast::<u8>().as_ptr(), layout(length)) }
    }
}

impl Borrow<[u8]> for ReadKey {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for ReadKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for ReadKey {
    fn eq(&self, other: &ReadKey) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ReadKey {}

impl fmt::Debug for ReadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.key().escape_ascii(), self.reader())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_are_read_back() {
        assert_eq!(size_of::<Option<ReadKey>>(), size_of::<usize>());
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let kept: Vec<ReadKey> =
            (0..bytes.len()).map(|n| ReadKey::new(&bytes[..n], u32::MAX - n as u32)).collect();
        for (n, read) in kept.iter().enumerate() {
            assert_eq!((read.key(), read.reader()), (&bytes[..n], u32::MAX - n as u32));
            assert_eq!(*read, ReadKey::new(&bytes[..n], 7), "whoever has read it");
        }
    }
}
