//! Reads replies that this server wrote itself: the parts of a command that ran on several shards.

/// Length of the reply that `bytes` starts with. The bytes are well-formed: this server wrote them.
pub fn skip(bytes: &[u8]) -> usize {
    let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    let number = || {
        let digits = bytes[1..line].trim_ascii_end();
        crate::numbers::parse_integer(digits).unwrap_or(-1)
    };
    match bytes.first() {
        Some(b'$' | b'=' | b'!') => match number() {
            -1 => line,
            length => line + length as usize + 2,
        },
        Some(kind @ (b'*' | b'~' | b'>' | b'%')) => {
            let count = number().max(0) * if *kind == b'%' { 2 } else { 1 };
            (0..count).fold(line, |at, _| at + skip(&bytes[at..]))
        }
        _ => line,
    }
}

/// The elements of an array.
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Of this array (or set). Anything else has none.
    pub fn of(array: &'a [u8]) -> Elements<'a> {
        match array.first() {
            Some(b'*' | b'~') => {
                let line = memchr::memchr(b'\n', array).map_or(array.len(), |at| at + 1);
                Elements { rest: &array[line..] }
            }
            _ => Elements { rest: &[] },
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (element, rest) = self.rest.split_at(skip(self.rest));
        self.rest = rest;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_kind_are_skipped_whole() {
        let array = b"*7\r\n:1\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n+x\r\n:2\r\n%1\r\n+k\r\n*-1\r\n_\r\n=5\r\ntxt:a\r\n";
        let elements: Vec<_> = Elements::of(array).collect();
        assert_eq!(elements.len(), 7);
        assert_eq!(elements[1], b"$3\r\na\r\n\r\n");
        assert_eq!(elements[4], b"%1\r\n+k\r\n*-1\r\n");
        assert_eq!(skip(array), array.len());
        assert_eq!(Elements::of(b"-ERR x\r\n").count(), 0);
    }
}
