//! The arguments of one command as offsets into the bytes they arrived in.
//!
//! A request in a receive buffer, a request in a mailbox message and a write in a log entry all
//! look the same to a command function: one byte area and a row of spans. Nothing is copied to run
//! it.

/// Where one argument lies in its byte area. Offsets and lengths are 32 bits: an area is at most 4
/// GiB.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Portable,
    rkyv::bytecheck::CheckBytes,
)]
#[rkyv(as = Span)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Span {
    start: [u8; 4],
    length: [u8; 4],
}

impl Span {
    /// The span of `length` bytes from `start`.
    #[inline(always)]
    pub fn new(start: usize, length: usize) -> Span {
        assert!(start + length <= u32::MAX as usize, "an area of more than 4 GiB");
        Span { start: (start as u32).to_le_bytes(), length: (length as u32).to_le_bytes() }
    }

    /// First byte.
    #[inline(always)]
    pub fn start(self) -> usize {
        u32::from_le_bytes(self.start) as usize
    }

    /// Count of bytes.
    #[inline(always)]
    pub fn length(self) -> usize {
        u32::from_le_bytes(self.length) as usize
    }

    /// One past the last byte.
    #[inline(always)]
    pub fn end(self) -> usize {
        self.start() + self.length()
    }
}

/// Arguments of one command, name first. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// Arguments that lie in `bytes` at `spans`. A span outside `bytes` panics when it is read.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Arguments<'a> {
        Arguments { bytes, spans }
    }

    /// Count of arguments, the command's name included.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// Argument `i`; 0 is the command's name. Panics when there is none: check the count first.
    #[inline(always)]
    pub fn at(&self, i: usize) -> &'a [u8] {
        let span = self.spans[i];
        &self.bytes[span.start()..span.end()]
    }

    /// Argument `i`, or `None` past the end.
    #[inline(always)]
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        if i < self.spans.len() { Some(self.at(i)) } else { None }
    }

    /// The arguments from `first` on.
    pub fn iter_from(self, first: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        let rest = self.spans.get(first..).unwrap_or(&[]);
        rest.iter().map(move |span| &self.bytes[span.start()..span.end()])
    }

    /// A sub-range of the arguments, `first` taking the place of the name.
    pub fn tail(self, first: usize) -> Arguments<'a> {
        Arguments { bytes: self.bytes, spans: &self.spans[first..] }
    }

    /// The first `count` arguments.
    pub fn first(self, count: usize) -> Arguments<'a> {
        Arguments { bytes: self.bytes, spans: &self.spans[..count] }
    }

    /// Is argument `i` this word, in any case?
    #[inline]
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.get(i).is_some_and(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    }
}

/// Arguments that own their bytes: queued transactions, inline commands, tests.
#[derive(Clone, Debug, Default)]
pub struct OwnedArguments {
    /// There may be others between those of the arguments.
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl PartialEq for OwnedArguments {
    fn eq(&self, other: &OwnedArguments) -> bool {
        self.borrow().iter_from(0).eq(other.borrow().iter_from(0))
    }
}

impl Eq for OwnedArguments {}

impl OwnedArguments {
    /// With room for `count` arguments of `bytes` bytes together.
    pub fn with_room(count: usize, bytes: usize) -> OwnedArguments {
        OwnedArguments { bytes: Vec::with_capacity(bytes), spans: Vec::with_capacity(count) }
    }

    /// A copy. Cost: two allocations.
    pub fn copy(arguments: Arguments<'_>) -> OwnedArguments {
        let bytes = arguments.iter_from(0).map(<[u8]>::len).sum();
        let mut owned = OwnedArguments::with_room(arguments.count(), bytes);
        arguments.iter_from(0).for_each(|argument| owned.push(argument));
        owned
    }

    /// A copy in the memory of these, with what lies between the arguments, which stand in their
    /// order. Cost: one copy; no allocation while that memory suffices.
    pub fn replaced_by(mut self, arguments: Arguments<'_>) -> OwnedArguments {
        self.clear();
        let ends = arguments.spans.first().zip(arguments.spans.last());
        let Some((first, last)) = ends else { return self };
        let start = first.start();
        self.bytes.extend_from_slice(&arguments.bytes[start..last.end()]);
        let moved = |span: &Span| Span::new(span.start() - start, span.length());
        self.spans.extend(arguments.spans.iter().map(moved));
        self
    }

    /// Appends one argument.
    pub fn push(&mut self, argument: &[u8]) {
        self.spans.push(Span::new(self.bytes.len(), argument.len()));
        self.bytes.extend_from_slice(argument);
    }

    /// Removes all arguments and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Borrows the arguments.
    pub fn borrow(&self) -> Arguments<'_> {
        Arguments::new(&self.bytes, &self.spans)
    }

    /// Bytes for which it has memory.
    pub fn room(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }
}

impl<'a> FromIterator<&'a [u8]> for OwnedArguments {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(arguments: I) -> OwnedArguments {
        let mut owned = OwnedArguments::default();
        for argument in arguments {
            owned.push(argument);
        }
        owned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_slices_of_their_area() {
        let owned: OwnedArguments = [b"SET".as_slice(), b"", b"value"].into_iter().collect();
        let arguments = owned.borrow();
        assert_eq!(arguments.count(), 3);
        assert_eq!(arguments.at(1), b"");
        assert_eq!(arguments.get(3), None);
        assert!(arguments.is(0, "set"));
        assert_eq!(arguments.iter_from(1).collect::<Vec<_>>(), [b"".as_slice(), b"value"]);
        assert_eq!(arguments.tail(1).at(1), b"value");
        assert_eq!(arguments.iter_from(9).len(), 0);
        let room = owned.room();
        let other: OwnedArguments = [b"GET".as_slice(), b"key"].into_iter().collect();
        let again = owned.replaced_by(other.borrow());
        assert_eq!((&again, again.room()), (&other, room));
        let (bytes, spans) = (b"*2 GET $3 key!", [Span::new(3, 3), Span::new(10, 3)]);
        let mut apart = again.replaced_by(Arguments::new(bytes, &spans));
        assert_eq!(apart, other);
        apart.push(b"more");
        assert!(apart.borrow().iter_from(1).eq([b"key".as_slice(), b"more"]));
        assert_ne!(apart, other);
        assert_eq!(apart.replaced_by(Arguments::new(bytes, &[])).borrow().count(), 0);
    }
}
