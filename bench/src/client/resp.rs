//! Requests out, replies in: the client's own RESP2, which shares nothing with the server under
//! measurement.
//!
//! A reply is looked at where it lies in the receive buffer; nothing is copied and nothing is
//! allocated.

/// Appends a command: an array of bulk strings.
pub fn encode(bytes: &mut Vec<u8>, arguments: &[&[u8]]) {
    header(bytes, b'*', arguments.len());
    for argument in arguments {
        bulk(bytes, argument);
    }
}

/// Appends the head of an array (`*`) or of a bulk string (`$`).
pub fn header(bytes: &mut Vec<u8>, kind: u8, length: usize) {
    bytes.push(kind);
    bytes.extend_from_slice(length.to_string().as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

/// Appends a bulk string.
pub fn bulk(bytes: &mut Vec<u8>, text: &[u8]) {
    header(bytes, b'$', text.len());
    bytes.extend_from_slice(text);
    bytes.extend_from_slice(b"\r\n");
}

/// One reply, borrowed from the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reply<'a> {
    /// `+text`
    Status(&'a [u8]),
    /// `-text`
    Error(&'a [u8]),
    /// `:number`
    Integer(i64),
    /// `$n`, or none for `$-1`
    Bulk(Option<&'a [u8]>),
    /// The elements of `*n`, still encoded; [`Elements`] walks them.
    Array(&'a [u8]),
}

/// What lies at the start of a buffer.
#[derive(Debug, PartialEq)]
pub enum Scan<'a> {
    /// A reply and the bytes that it takes.
    Whole(Reply<'a>, usize),
    /// The beginning of a reply.
    Part,
    /// Not RESP.
    Broken,
}

/// Arrays in arrays beyond this are refused: no benchmarked command nests.
const NESTING_MAX: usize = 8;

/// Looks at the start of `bytes`. Cost: one pass over the reply's heads, not over bulk strings.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    scan_nested(bytes, 0)
}

fn scan_nested(bytes: &[u8], depth: usize) -> Scan<'_> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\r') else {
        return Scan::Part;
    };
    if bytes.len() < end + 2 {
        return Scan::Part;
    }
    if bytes[end + 1] != b'\n' || end == 0 {
        return Scan::Broken;
    }
    let line = &bytes[1..end];
    let after = end + 2;
    match bytes[0] {
        b'+' => Scan::Whole(Reply::Status(line), after),
        b'-' => Scan::Whole(Reply::Error(line), after),
        b':' => match number(line) {
            Some(value) => Scan::Whole(Reply::Integer(value), after),
            None => Scan::Broken,
        },
        b'$' => scan_bulk(bytes, line, after),
        b'*' if depth < NESTING_MAX => scan_array(bytes, line, after, depth),
        _ => Scan::Broken,
    }
}

fn scan_bulk<'a>(bytes: &'a [u8], line: &[u8], after: usize) -> Scan<'a> {
    let length = match number(line) {
        Some(-1) => return Scan::Whole(Reply::Bulk(None), after),
        Some(length) if length >= 0 => length as usize,
        _ => return Scan::Broken,
    };
    match bytes.get(after + length..after + length + 2) {
        Some(b"\r\n") => {
            Scan::Whole(Reply::Bulk(Some(&bytes[after..after + length])), after + length + 2)
        }
        Some(_) => Scan::Broken,
        None => Scan::Part,
    }
}

fn scan_array<'a>(bytes: &'a [u8], line: &[u8], after: usize, depth: usize) -> Scan<'a> {
    let Some(count) = number(line) else { return Scan::Broken };
    let mut position = after;
    for _ in 0..count.max(0) {
        match scan_nested(&bytes[position..], depth + 1) {
            Scan::Whole(_, length) => position += length,
            other => return other,
        }
    }
    Scan::Whole(Reply::Array(&bytes[after..position]), position)
}

fn number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(if negative { -value } else { value })
}

/// Walks the elements of [`Reply::Array`].
pub struct Elements<'a>(pub &'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        match scan(self.0) {
            Scan::Whole(reply, length) => {
                self.0 = &self.0[length..];
                Some(reply)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"GET", b"a"]);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }

    #[test]
    fn every_kind_of_reply_and_every_cut_of_it() {
        let cases: [(&[u8], Reply); 7] = [
            (b"+OK\r\n", Reply::Status(b"OK")),
            (b"-ERR no\r\n", Reply::Error(b"ERR no")),
            (b":-12\r\n", Reply::Integer(-12)),
            (b"$-1\r\n", Reply::Bulk(None)),
            (b"$0\r\n\r\n", Reply::Bulk(Some(b""))),
            (b"$4\r\na\r\nb\r\n", Reply::Bulk(Some(b"a\r\nb"))),
            (b"*2\r\n$1\r\nx\r\n$-1\r\n", Reply::Array(b"$1\r\nx\r\n$-1\r\n")),
        ];
        for (bytes, reply) in cases {
            assert_eq!(scan(bytes), Scan::Whole(reply, bytes.len()));
            for length in 0..bytes.len() {
                assert_eq!(scan(&bytes[..length]), Scan::Part, "{length} bytes of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_broken() {
        for bytes in
            [&b"!x\r\n"[..], b":x\r\n", b":\r\n", b"$-2\r\n", b"$1\r\nxyz", b"\r\n", b"+a\rb"]
        {
            assert_eq!(scan(bytes), Scan::Broken, "{bytes:?}");
        }
        assert_eq!(scan(&b"*1\r\n".repeat(NESTING_MAX + 1)), Scan::Broken);
    }

    #[test]
    fn elements_of_an_array() {
        let elements: Vec<Reply> = Elements(b"$1\r\nx\r\n$-1\r\n:3\r\n").collect();
        assert_eq!(elements, [Reply::Bulk(Some(b"x")), Reply::Bulk(None), Reply::Integer(3)]);
    }
}
