//! Requests: the same stream gives the same requests and the same error in whatever pieces it arrives.
//!
//! Input: one byte of settings, one byte that seeds the cuts, then the stream. With the highest four bits of the first
//! byte set the stream is stretched: its last byte is repeated past the longest line. (Not with one bit: half of all
//! inputs would be long ones, and the fuzzer twenty times slower.)

use ringraft::limits::INLINE_BYTES_MAX;
use ringraft::resp::parse::{Bounds, Parser, ProtocolError, Step, decode_inline};

type Request = Vec<Vec<u8>>;

const STRETCHED: u8 = 0xf0;

/// Checks one input.
pub fn check(data: &[u8]) {
    let [settings, cuts, stream @ ..] = data else { return };
    let bounds = Bounds {
        bulk_bytes_max: if settings & 2 == 0 { 512 << 20 } else { 64 },
        unauthenticated: settings & 1 != 0,
    };
    let mut stream = stream.to_vec();
    if settings & STRETCHED == STRETCHED {
        let last = stream.pop().unwrap_or(b'1');
        let at = stream.len() * usize::from(*cuts) / 256;
        let stretch = std::iter::repeat_n(last, INLINE_BYTES_MAX + usize::from(*cuts));
        stream.splice(at..at, stretch);
    }
    let whole = parse(&stream, bounds, |_| stream.len());
    if stream.len() < 4096 {
        let bytewise = parse(&stream, bounds, |at| at + 1);
        assert_eq!(whole, bytewise, "byte by byte");
    }
    let mut state = u64::from(*cuts) + 1;
    let longest = if stream.len() < 4096 { 64 } else { 40_000 };
    let pieces = parse(&stream, bounds, |at| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        at + 1 + (state % longest) as usize
    });
    assert_eq!(whole, pieces, "in pieces");
}

/// Feeds a connection's parser; `next` says where the piece that follows a position ends.
fn parse(
    input: &[u8],
    bounds: Bounds,
    mut next: impl FnMut(usize) -> usize,
) -> (Vec<Request>, Option<ProtocolError>) {
    let mut parser = Parser::default();
    let (mut requests, mut start, mut arrived) = (Vec::new(), 0, 0);
    while arrived < input.len() {
        arrived = next(arrived).min(input.len());
        loop {
            let mut spans = Vec::new();
            let step = match parser.next(&input[..arrived], start, bounds, &mut spans) {
                Ok(step) => step,
                Err(error) => return (requests, Some(error)),
            };
            let end = match step {
                Step::Incomplete => {
                    assert!(spans.is_empty(), "nothing is handed out early");
                    break;
                }
                Step::Request(end) => {
                    assert!(!spans.is_empty());
                    assert!(spans.len() <= end - start, "memory is bounded by the input");
                    let argument = |span: &ringraft_shards::arguments::Span| {
                        assert!(start <= span.start() && span.end() <= end, "within the request");
                        input[span.start()..span.end()].to_vec()
                    };
                    requests.push(spans.iter().map(argument).collect());
                    end
                }
                Step::Nothing(end) => end,
                Step::QuotedInline(end) => {
                    let decoded = match decode_inline(&input[start..end]) {
                        Ok(decoded) => decoded,
                        Err(error) => return (requests, Some(error)),
                    };
                    // A line is at least as long as its words; framing comes to each.
                    assert!(decoded.len() <= 16 * (end - start) + 32, "memory is bounded");
                    let mut spans = Vec::new();
                    let unbounded = Bounds { bulk_bytes_max: 512 << 20, unauthenticated: false };
                    match Parser::default().next(&decoded, 0, unbounded, &mut spans) {
                        Ok(Step::Request(length)) => assert_eq!(length, decoded.len()),
                        Ok(Step::Nothing(length)) => assert_eq!(length, decoded.len()),
                        other => panic!("{other:?} of what was encoded here"),
                    }
                    let argument = |span: &ringraft_shards::arguments::Span| {
                        decoded[span.start()..span.end()].to_vec()
                    };
                    requests.push(spans.iter().map(argument).collect());
                    end
                }
            };
            assert!(start < end && end <= arrived, "it goes on, and not beyond what is there");
            start = end;
        }
    }
    (requests, None)
}

/// Streams of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let streams: [&[u8]; 14] = [
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\nPING\r\n\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\n",
        b"SET key \"a b\\x41\\n\" 'it\\'s'\r\nGET key\n",
        b"PING\r\nPING\n  \t \r\n*-1\r\n*1\r\n$4\r\nQUIT\r\n",
        b"*1\r\nGET\r\n",
        b"*abc\r\n",
        b"*1\r\n$-1\r\n",
        b"*1048577\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*11\r\n$1\r\na\r\n",
        b"*2\r\n$16385\r\n",
        b"GET \"a\r\n",
        b"*1\r\n$1",
        b"*1",
        b"'",
    ];
    let mut seeds = Vec::new();
    for (n, stream) in streams.iter().enumerate() {
        for settings in [0, 1, 2, STRETCHED] {
            let mut seed = vec![settings, (37 * n + 5) as u8];
            seed.extend_from_slice(stream);
            seeds.push(seed);
        }
    }
    seeds
}
