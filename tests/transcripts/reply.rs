//! RESP replies as lines of a transcript.

use ringraft::resp::quoting;

/// Renders the bytes of one reply. Panics when they are not exactly one reply: a command that
/// writes a wrong count must not pass.
pub fn render(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    match render_one(bytes, 0, &mut lines) {
        Some([]) => lines,
        _ => panic!("not one whole reply: {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Bytes of the first reply in `bytes`, or `None` when more must be read first.
pub fn size_of_first(bytes: &[u8]) -> Option<usize> {
    render_one(bytes, 0, &mut Vec::new()).map(|rest| bytes.len() - rest.len())
}

fn render_one<'a>(bytes: &'a [u8], depth: usize, lines: &mut Vec<String>) -> Option<&'a [u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, mut rest) = (&bytes[..end], &bytes[end + 2..]);
    let indent = "  ".repeat(depth);
    let text = String::from_utf8_lossy(line);
    let count = || text[1..].parse::<i64>().unwrap_or_else(|_| panic!("no count: {text}"));
    match line.first()? {
        b'$' | b'=' if count() >= 0 => {
            let size = count() as usize;
            let content = rest.get(..size)?;
            rest = rest.get(size..)?;
            if rest.len() < 2 {
                return None;
            }
            assert!(rest.starts_with(b"\r\n"), "no line end after a string of {size} bytes");
            let mut quoted = Vec::new();
            quoting::quote_into(content, &mut quoted);
            let mark = if line[0] == b'=' { "=" } else { "" };
            lines.push(format!("{indent}{mark}{}", String::from_utf8_lossy(&quoted)));
            Some(&rest[2..])
        }
        b'*' | b'~' | b'>' | b'%' if count() >= 0 => {
            let values = if line[0] == b'%' { 2 * count() } else { count() };
            lines.push(format!("{indent}{text}"));
            for _ in 0..values {
                rest = render_one(rest, depth + 1, lines)?;
            }
            Some(rest)
        }
        b'+' | b'-' | b':' | b'$' | b'*' | b'_' | b'#' | b',' | b'(' => {
            lines.push(format!("{indent}{text}"));
            Some(rest)
        }
        _ => panic!("no such RESP type: {text}"),
    }
}

#[test]
fn transcripts_render_every_type() {
    let bytes = b"*6\r\n$3\r\na\r\n\r\n$-1\r\n%1\r\n+k\r\n,1.5\r\n#t\r\n=5\r\ntxt:x\r\n_\r\n";
    let lines = ["*6", "  \"a\\r\\n\"", "  $-1", "  %1", "    +k", "    ,1.5", "  #t"];
    assert_eq!(render(bytes)[..7], lines);
    assert_eq!(render(bytes)[7..], ["  =\"txt:x\"", "  _"]);
    assert_eq!(size_of_first(b":1\r\n:2\r\n"), Some(4));
    for cut in 0..bytes.len() {
        assert_eq!(size_of_first(&bytes[..cut]), None);
    }
}
