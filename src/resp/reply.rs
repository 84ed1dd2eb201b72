//! Writes replies as RESP bytes.
//!
//! A reply goes straight into the buffer that will be sent. RESP3 types fall back to their RESP2
//! forms where the connection speaks RESP2, so that a command writes its reply once.

use crate::resp::listing::Rest;

/// Protocol version of a connection, as HELLO chose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Redis 1.2 to 5.
    #[default]
    Resp2,
    /// Redis 6 and later, after HELLO 3.
    Resp3,
}

/// Where a command writes its reply. Cost: no allocation beyond the growth of the buffer.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
    /// Where the rest of a long one goes, if there may be one.
    rest: Option<&'a mut Option<Box<Rest>>>,
}

impl<'a> Reply<'a> {
    /// Replies are appended to `out`.
    #[inline(always)]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Reply<'a> {
        Reply { out, protocol, rest: None }
    }

    /// One that may leave a rest, which is to be written behind it later.
    #[inline(always)]
    pub fn with_rest(
        out: &'a mut Vec<u8>,
        protocol: Protocol,
        rest: Option<&'a mut Option<Box<Rest>>>,
    ) -> Reply<'a> {
        Reply { out, protocol, rest }
    }

    /// May it leave a rest?
    pub fn takes_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Leaves its rest to whoever takes it. Only one that may have one.
    pub(in crate::resp) fn put_rest(&mut self, rest: Box<Rest>) {
        if let Some(place) = &mut self.rest {
            **place = Some(rest);
        }
    }

    /// The protocol that the client speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Goes on in another protocol (HELLO, RESET).
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string: `text` has no CR or LF.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error, its code word included (`ERR ...`). CR and LF become spaces.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// An error that repeats what a client sent, in whatever encoding. CR and LF become spaces.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.out.push(b'-');
        self.out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        self.number(b':', n);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.number(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A bulk string of an integer's digits.
    pub fn bulk_integer(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    /// The null that stands for a missing value: `$-1` or `_`.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The null that stands for a missing array: `*-1` or `_`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Head of an array: `count` replies follow.
    pub fn array(&mut self, count: usize) {
        self.number(b'*', count as i64);
    }

    /// Head of a map: `count` pairs of replies follow (a flat array in RESP2).
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.number(b'*', 2 * count as i64),
            Protocol::Resp3 => self.number(b'%', count as i64),
        }
    }

    /// Head of a set: `count` replies follow (an array in RESP2).
    pub fn set(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.number(b'*', count as i64),
            Protocol::Resp3 => self.number(b'~', count as i64),
        }
    }

    /// Head of a message that answers no request: `count` replies follow (an array in RESP2).
    pub fn push(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.number(b'*', count as i64),
            Protocol::Resp3 => self.number(b'>', count as i64),
        }
    }

    /// A truth value: `:1`/`:0` in RESP2, `#t`/`#f` in RESP3.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// A double: a bulk string of its shortest digits in RESP2.
    pub fn double(&mut self, value: f64) {
        let text = crate::numbers::print_float(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// Text for people: a verbatim string of type `txt` in RESP3, a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.number(b'=', text.len() as i64 + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// RESP bytes made elsewhere.
    pub fn raw(&mut self, resp: &[u8]) {
        self.out.extend_from_slice(resp);
    }

    /// Bytes in the buffer so far; with [`Reply::truncate`] a reply can be taken back.
    pub fn size(&self) -> usize {
        self.out.len()
    }

    /// Takes back what was written after `size`.
    pub fn truncate(&mut self, size: usize) {
        self.out.truncate(size);
    }

    fn line(&mut self, mark: u8, text: &[u8]) {
        self.out.push(mark);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn number(&mut self, mark: u8, n: i64) {
        let mut digits = itoa::Buffer::new();
        self.line(mark, digits.format(n).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocol: Protocol, write: impl Fn(&mut Reply<'_>), expected: &str) {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, protocol));
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn resp3_types_have_resp2_forms() {
        use Protocol::{Resp2, Resp3};
        check(Resp2, |r| r.null(), "$-1\r\n");
        check(Resp3, |r| r.null(), "_\r\n");
        check(Resp2, |r| r.null_array(), "*-1\r\n");
        check(Resp2, |r| r.map(2), "*4\r\n");
        check(Resp3, |r| r.map(2), "%2\r\n");
        check(Resp3, |r| r.set(2), "~2\r\n");
        check(Resp2, |r| r.boolean(true), ":1\r\n");
        check(Resp3, |r| r.boolean(false), "#f\r\n");
        check(Resp2, |r| r.double(1.25), "$4\r\n1.25\r\n");
        check(Resp3, |r| r.double(-2.0), ",-2\r\n");
        check(Resp2, |r| r.verbatim("hi"), "$2\r\nhi\r\n");
        check(Resp3, |r| r.verbatim("hi"), "=6\r\ntxt:hi\r\n");
        check(Resp2, |r| r.bulk_integer(-7), "$2\r\n-7\r\n");
        check(Resp2, |r| r.error("ERR a\r\nb"), "-ERR a  b\r\n");
    }
}
