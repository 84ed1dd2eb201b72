//! Splits a stream of bytes into requests.
//!
//! One pass, nothing copied: a request becomes spans of the buffer it lies in. A request that is
//! not all there leaves its progress behind, so that no byte is looked at twice however small the
//! pieces in which it arrives; the connection then keeps the bytes from the request's start on and
//! calls again.
//!
//! Knows nothing of commands, connections or sockets.

use crate::limits::{
    ARGUMENTS_MAX, INLINE_BYTES_MAX, PAYLOAD_OVERHEAD_BYTES, REQUEST_BYTES_MAX,
    UNAUTHENTICATED_ARGUMENTS_MAX, UNAUTHENTICATED_BULK_BYTES_MAX,
};
use crate::numbers::parse_integer;
use crate::resp::quoting;
use ringraft_shards::arguments::Span;

/// What a request may be refused for by its form. `Display` is the text after `-ERR `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// An inline request without a newline in 64 KiB.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline request with an open quote.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A `*` line without an end in 64 KiB.
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooBig,
    /// A count that is no number or too large.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// More arguments than a client may send before AUTH.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// A `$` line without an end in 64 KiB.
    #[error("Protocol error: too big bulk count string")]
    LengthLineTooBig,
    /// An argument that does not start with `$`. [`ProtocolError::text`] has the byte as it came.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedDollar(u8),
    /// A length that is no number, negative or too large.
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    /// More bytes than one request may have.
    #[error("Protocol error: too big request")]
    RequestTooBig,
    /// The first record of a TLS handshake, on a port for plain text.
    #[error("Protocol error: TLS on a port for plain text")]
    Tls,
    /// A longer argument than a client may send before AUTH.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedLength,
}

impl ProtocolError {
    /// What the client is told, after the `-`.
    pub fn text(&self) -> Vec<u8> {
        match self {
            ProtocolError::ExpectedDollar(byte) => {
                [b"ERR Protocol error: expected '$', got '", &[*byte][..], b"'"].concat()
            }
            other => format!("ERR {other}").into_bytes(),
        }
    }
}

/// What the bytes at a position hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole request: its spans were appended; it ends before this position.
    Request(usize),
    /// Nothing to run (an empty line or an empty array) up to this position.
    Nothing(usize),
    /// An inline request with quotes or escapes, ending before this position: decode it with
    /// [`decode_inline`].
    QuotedInline(usize),
    /// The request is not all there.
    Incomplete,
}

/// Bounds that depend on the connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest argument (`proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// Has the client still to authenticate?
    pub unauthenticated: bool,
}

/// Progress within a request that is not all there. Positions count from the request's first byte.
#[derive(Debug, Default)]
struct Partial {
    position: usize,
    remaining: usize,
    spans: Vec<Span>,
}

/// The parser of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    partial: Option<Box<Partial>>,
    /// Bytes from the request's start without which nothing more can be parsed.
    needed: usize,
    /// Where the argument that is not all there begins, counted likewise.
    unfinished: usize,
}

impl Parser {
    /// Bytes from the request's start without which calling again is in vain; a hint to reserve
    /// memory.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Of so many bytes from the request's start those of the argument that is not all there.
    pub fn unfinished(&self, available: usize) -> usize {
        available.min(self.needed).saturating_sub(self.unfinished)
    }

    /// Bytes of the request that is not all there up to its last whole argument.
    pub fn finished(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.position)
    }

    /// Parses the request that starts at `start` and appends its spans, which count from `input`'s
    /// first byte. After [`Step::Incomplete`] the next call must be given the same bytes from
    /// the request's start and more. Errors: the stream is not RESP; nothing after it can be
    /// trusted and the connection is closed.
    #[inline(always)]
    pub fn next(
        &mut self,
        input: &[u8],
        start: usize,
        bounds: Bounds,
        spans: &mut Vec<Span>,
    ) -> Result<Step, ProtocolError> {
        let available = input.len() - start;
        if available < self.needed || available == 0 {
            return Ok(Step::Incomplete);
        }
        self.needed = 0;
        if self.partial.is_some() {
            return self.resume(input, start, bounds, spans);
        }
        if input[start] != b'*' {
            return inline(input, start, spans);
        }
        let (count, position) = match number_line(input, start + 1) {
            Some(found) => found,
            None => match unusual_line(&input[start..]) {
                Line::Unfinished => return Ok(Step::Incomplete),
                Line::TooLong => return Err(ProtocolError::CountLineTooBig),
                Line::NoNumber => return Err(ProtocolError::InvalidCount),
                Line::Number(count, length) => (count, start + length),
            },
        };
        if count > ARGUMENTS_MAX as i64 {
            return Err(ProtocolError::InvalidCount);
        }
        if count <= 0 {
            return Ok(Step::Nothing(position));
        }
        if bounds.unauthenticated && count as usize > UNAUTHENTICATED_ARGUMENTS_MAX {
            return Err(ProtocolError::UnauthenticatedCount);
        }
        let first = spans.len();
        let mut remaining = count as usize;
        match self.arguments(input, start, position, &mut remaining, bounds, spans)? {
            Progress::Done(end) => Ok(Step::Request(end)),
            Progress::Stopped(position) => {
                self.check_size(position - start)?;
                let spans = spans.drain(first..);
                let spans = spans.map(|s| Span::new(s.start() - start, s.length())).collect();
                let position = position - start;
                self.partial = Some(Box::new(Partial { position, remaining, spans }));
                Ok(Step::Incomplete)
            }
        }
    }

    fn resume(
        &mut self,
        input: &[u8],
        start: usize,
        bounds: Bounds,
        spans: &mut Vec<Span>,
    ) -> Result<Step, ProtocolError> {
        let mut partial = self.partial.take().expect("the caller looked");
        let (position, mut remaining) = (start + partial.position, partial.remaining);
        let first = spans.len();
        let progress = self.arguments(input, start, position, &mut remaining, bounds, spans)?;
        let relative = spans.drain(first..).map(|s| Span::new(s.start() - start, s.length()));
        partial.spans.extend(relative);
        match progress {
            Progress::Done(end) => {
                spans
                    .extend(partial.spans.iter().map(|s| Span::new(s.start() + start, s.length())));
                Ok(Step::Request(end))
            }
            Progress::Stopped(position) => {
                self.check_size(position - start)?;
                partial.position = position - start;
                partial.remaining = remaining;
                self.partial = Some(partial);
                Ok(Step::Incomplete)
            }
        }
    }

    /// Is what is there, or is needed, of a request that is not all there more than a request may
    /// have? One that is larger comes by here before it is complete: it takes many receives.
    fn check_size(&self, present: usize) -> Result<(), ProtocolError> {
        match present.max(self.needed) <= REQUEST_BYTES_MAX {
            true => Ok(()),
            false => Err(ProtocolError::RequestTooBig),
        }
    }

    #[inline(always)]
    fn arguments(
        &mut self,
        input: &[u8],
        start: usize,
        mut position: usize,
        remaining: &mut usize,
        bounds: Bounds,
        spans: &mut Vec<Span>,
    ) -> Result<Progress, ProtocolError> {
        while *remaining > 0 {
            let found = match input.get(position) {
                Some(b'$') => number_line(input, position + 1),
                Some(_) => None,
                None => return Ok(Progress::Stopped(position)),
            };
            let (length, data) = match found {
                Some(found) => found,
                None => match unusual_line(&input[position..]) {
                    Line::Unfinished => return Ok(Progress::Stopped(position)),
                    Line::TooLong => return Err(ProtocolError::LengthLineTooBig),
                    _ if input[position] != b'$' => {
                        return Err(ProtocolError::ExpectedDollar(input[position]));
                    }
                    Line::NoNumber => return Err(ProtocolError::InvalidLength),
                    Line::Number(length, bytes) => (length, position + bytes),
                },
            };
            if (length < 0 || length > bounds.bulk_bytes_max as i64)
                && !is_payload(input, start, *remaining, length, bounds)
            {
                return Err(ProtocolError::InvalidLength);
            }
            let length = length as usize;
            if bounds.unauthenticated && length > UNAUTHENTICATED_BULK_BYTES_MAX {
                return Err(ProtocolError::UnauthenticatedLength);
            }
            let end = data + length + 2;
            if end > input.len() {
                self.needed = end - start;
                self.unfinished = data - start;
                return Ok(Progress::Stopped(position));
            }
            spans.push(Span::new(data, length));
            position = end;
            *remaining -= 1;
        }
        Ok(Progress::Done(position))
    }
}

/// Is the argument with this many from it on the payload of a RESTORE, which is a little longer
/// than the value in it?
#[cold]
fn is_payload(input: &[u8], start: usize, remaining: usize, length: i64, bounds: Bounds) -> bool {
    const NAME: &[u8] = b"restore";
    const PLACE: i64 = 3;
    let Some((count, head)) = number_line(input, start + 1) else { return false };
    let Some((name_bytes, name)) = number_line(input, head + 1) else { return false };
    let longest = bounds.bulk_bytes_max + PAYLOAD_OVERHEAD_BYTES;
    let is_restore = name_bytes == NAME.len() as i64
        && input.get(name..name + NAME.len()).is_some_and(|word| word.eq_ignore_ascii_case(NAME));
    is_restore && count - remaining as i64 == PLACE && (0..=longest as i64).contains(&length)
}

enum Progress {
    Done(usize),
    Stopped(usize),
}

/// What a line with a number holds that [`number_line`] does not take.
enum Line {
    /// It has no end yet.
    Unfinished,
    /// Nor in the longest that is waited for.
    TooLong,
    /// Something else.
    NoNumber,
    /// A number after all, and the bytes of the line.
    Number(i64, usize),
}

/// Reads such a line by Redis' rules: CR ends it, one more byte belongs to it, whatever it is, and
/// nothing behind a NUL is seen.
#[cold]
fn unusual_line(rest: &[u8]) -> Line {
    match memchr::memchr2(b'\r', 0, rest).filter(|&end| rest[end] == b'\r') {
        None if rest.len() > INLINE_BYTES_MAX => Line::TooLong,
        Some(end) if end + 1 < rest.len() => match rest.get(1..end).and_then(parse_integer) {
            Some(number) => Line::Number(number, end + 2),
            None => Line::NoNumber,
        },
        _ => Line::Unfinished,
    }
}

/// A decimal number that ends with CR LF, and the position after it. `None`: not all there, or none
/// of the usual form. A scalar loop: for the one to three digits of most lengths it beats a search
/// for CR.
#[inline(always)]
fn number_line(input: &[u8], start: usize) -> Option<(i64, usize)> {
    let mut value: i64 = 0;
    let mut position = start;
    let negative = input.get(position) == Some(&b'-');
    if negative {
        position += 1;
    }
    let digits = position;
    loop {
        let &byte = input.get(position)?;
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            if byte != b'\r' || position == digits || position - digits > 18 {
                return None;
            }
            if input[digits] == b'0' && (negative || position - digits > 1) {
                return None;
            }
            return (*input.get(position + 1)? == b'\n')
                .then_some((if negative { -value } else { value }, position + 2));
        }
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
        position += 1;
    }
}

/// First byte of a record of a TLS handshake. No command begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

fn inline(input: &[u8], start: usize, spans: &mut Vec<Span>) -> Result<Step, ProtocolError> {
    let rest = &input[start..];
    if rest[0] == TLS_HANDSHAKE {
        return Err(ProtocolError::Tls);
    }
    // Nothing behind a NUL is seen, as in Redis.
    let newline = memchr::memchr2(b'\n', 0, rest).filter(|&place| rest[place] == b'\n');
    let Some(newline) = newline else {
        return if rest.len() > INLINE_BYTES_MAX {
            Err(ProtocolError::InlineTooBig)
        } else {
            Ok(Step::Incomplete)
        };
    };
    if newline > INLINE_BYTES_MAX {
        return Err(ProtocolError::InlineTooBig);
    }
    let end = start + newline + 1;
    let line = rest[..newline].strip_suffix(b"\r").unwrap_or(&rest[..newline]);
    if memchr::memchr2(b'"', b'\'', line).is_some() {
        return Ok(Step::QuotedInline(end));
    }
    let first = spans.len();
    let mut position = 0;
    for piece in line.split(|&b| quoting::ends_word(b)) {
        let word = quoting::skip_blanks(piece);
        if !word.is_empty() {
            let skipped = piece.len() - word.len();
            spans.push(Span::new(start + position + skipped, word.len()));
        }
        position += piece.len() + 1;
    }
    Ok(if spans.len() == first { Step::Nothing(end) } else { Step::Request(end) })
}

/// The arguments of an inline request by the quoting rules of redis-cli: `"..."` with `\n \r \t \b
/// \a \xHH` and escaped quotes, `'...'` with `\'`. Rewritten as a RESP array, so that it can be
/// parsed like any other. Errors: [`ProtocolError::UnbalancedQuotes`].
pub fn decode_inline(line: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let words = quoting::split_words(line).ok_or(ProtocolError::UnbalancedQuotes)?;
    let mut request = Vec::with_capacity(line.len() + 16 * words.len() + 16);
    let mut reply = crate::resp::reply::Reply::new(&mut request, Default::default());
    reply.array(words.len());
    for word in &words {
        reply.bulk(word);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { bulk_bytes_max: 512 << 20, unauthenticated: false };

    /// Parses `input` arriving in pieces that end at `cuts`, as a connection would.
    fn parse(input: &[u8], cuts: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut parser = Parser::default();
        let mut requests = Vec::new();
        let mut start = 0;
        for &cut in cuts.iter().chain([&input.len()]) {
            loop {
                let mut spans = Vec::new();
                match parser.next(&input[..cut], start, BOUNDS, &mut spans)? {
                    Step::Request(end) => {
                        start = end;
                        let argument = |s: &Span| input[s.start()..s.end()].to_vec();
                        requests.push(spans.iter().map(argument).collect());
                    }
                    Step::Nothing(end) => start = end,
                    Step::QuotedInline(end) => {
                        let decoded = decode_inline(&input[start..end])?;
                        requests.extend(parse(&decoded, &[])?);
                        start = end;
                    }
                    Step::Incomplete => break,
                }
            }
        }
        Ok(requests)
    }

    #[test]
    fn requests_are_found_wherever_the_stream_is_cut() {
        let input =
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\nPING\r\n\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\n";
        let whole = parse(input, &[]).expect("valid");
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[2], [b"SET".to_vec(), b"".to_vec(), b"\r\n\r\n".to_vec()]);
        for first in 0..input.len() {
            for second in first..input.len() {
                assert_eq!(parse(input, &[first, second]).as_ref(), Ok(&whole));
            }
        }
        let every: Vec<usize> = (0..input.len()).collect();
        assert_eq!(parse(input, &every), Ok(whole));
    }

    #[test]
    fn errors_have_redis_texts() {
        for (input, text) in [
            ("*1\r\nGET\r\n", "Protocol error: expected '$', got 'G'"),
            ("*abc\r\n", "Protocol error: invalid multibulk length"),
            ("*1048577\r\n", "Protocol error: invalid multibulk length"),
            ("*-0\r\n", "Protocol error: invalid multibulk length"),
            ("*-9223372036854775809\r\n", "Protocol error: invalid multibulk length"),
            ("*1\r\n$-0\r\n", "Protocol error: invalid bulk length"),
            ("*1\r\n\r\n", "Protocol error: expected '$', got '\r'"),
            ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            ("*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
            ("*3\r\n$3\r\nSET\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
            ("*4\r\n$7\r\nRESTORE\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
            ("*1\r\n$99999999999999999999\r\n", "Protocol error: invalid bulk length"),
            ("GET \"a\r\n", "Protocol error: unbalanced quotes in request"),
        ] {
            let error = parse(input.as_bytes(), &[]).expect_err(input);
            assert_eq!(error.to_string(), text, "{input:?}");
        }
        let long = "a".repeat(INLINE_BYTES_MAX + 1);
        assert_eq!(parse(long.as_bytes(), &[]), Err(ProtocolError::InlineTooBig));
        let long = format!("*{}", "1".repeat(INLINE_BYTES_MAX + 1));
        assert_eq!(parse(long.as_bytes(), &[]), Err(ProtocolError::CountLineTooBig));
        let long = format!("*1\r\n${}", "1".repeat(INLINE_BYTES_MAX + 1));
        assert_eq!(parse(long.as_bytes(), &[]), Err(ProtocolError::LengthLineTooBig));
    }

    #[test]
    fn a_payload_may_be_longer_than_the_value_in_it() {
        let mut parser = Parser::default();
        let longest = BOUNDS.bulk_bytes_max + PAYLOAD_OVERHEAD_BYTES;
        for (length, fits) in [(longest, true), (longest + 1, false)] {
            let input = format!("*4\r\n$7\r\nrestore\r\n$1\r\na\r\n$1\r\n0\r\n${length}\r\n");
            let step = parser.next(input.as_bytes(), 0, BOUNDS, &mut Vec::new());
            let expected =
                if fits { Ok(Step::Incomplete) } else { Err(ProtocolError::InvalidLength) };
            assert_eq!(step, expected, "{length}");
            parser = Parser::default();
        }
    }

    #[test]
    fn a_request_has_a_bound_as_a_whole() {
        let bounds = Bounds { bulk_bytes_max: REQUEST_BYTES_MAX, unauthenticated: false };
        let ask = |length: usize| {
            let input = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${length}\r\n");
            Parser::default().next(input.as_bytes(), 0, bounds, &mut Vec::new())
        };
        assert_eq!(ask(REQUEST_BYTES_MAX - 100), Ok(Step::Incomplete));
        assert_eq!(ask(REQUEST_BYTES_MAX - 10), Err(ProtocolError::RequestTooBig));
    }

    #[test]
    fn unusual_lines_are_read_as_redis_reads_them() {
        let ping = vec![vec![b"PING".to_vec()]];
        for (input, requests) in [
            (&b"*-9223372036854775808\r\nPING\r\n"[..], ping.clone()),
            (b"*1\rX$4\r.PING..", ping.clone()),
            (b"\x0bPING\r\n", ping),
            (b"PING\x0b\r\n", vec![vec![b"PING\x0b".to_vec()]]),
            (b"*1\r\n\0\r\n", vec![]),
            (b"*1\n$4\nPING\n", vec![]),
            (b"PI\0NG\r\n", vec![]),
        ] {
            let every: Vec<usize> = (0..input.len()).collect();
            assert_eq!(parse(input, &[]).as_ref(), Ok(&requests), "{}", input.escape_ascii());
            assert_eq!(parse(input, &every), Ok(requests), "{}", input.escape_ascii());
        }
        assert_eq!(parse(b"*1\r\n\x80\r\n", &[]), Err(ProtocolError::ExpectedDollar(0x80)));
        let text = ProtocolError::ExpectedDollar(0x80).text();
        assert_eq!(text, b"ERR Protocol error: expected '$', got '\x80'");
    }

    #[test]
    fn before_auth_less_is_taken() {
        let bounds = Bounds { unauthenticated: true, ..BOUNDS };
        let mut parser = Parser::default();
        let error = parser.next(b"*11\r\n", 0, bounds, &mut Vec::new());
        assert_eq!(error, Err(ProtocolError::UnauthenticatedCount));
        let error = parser.next(b"*2\r\n$16385\r\n", 0, bounds, &mut Vec::new());
        assert_eq!(error, Err(ProtocolError::UnauthenticatedLength));
    }

    #[test]
    fn inline_words_may_be_quoted() {
        let requests = parse(b"SET  \"a b\\x41\\n\" 'it\\'s'\r\n", &[]).expect("valid");
        assert_eq!(requests, [[b"SET".to_vec(), b"a bA\n".to_vec(), b"it's".to_vec()]]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&input, &[]);
        }

        #[test]
        fn a_request_reads_back(arguments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..10), cut in 0usize..300) {
            let mut input = Vec::new();
            let mut reply = crate::resp::reply::Reply::new(&mut input, Default::default());
            reply.array(arguments.len());
            for argument in &arguments {
                reply.bulk(argument);
            }
            let cut = cut.min(input.len());
            prop_assert_eq!(parse(&input, &[cut]), Ok(vec![arguments]));
        }
    }
}
