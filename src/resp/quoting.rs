//! The quoting rules of redis-cli: words of a line, and text shown as a quoted word.

/// Does this byte end a word? Vertical tab and form feed do not: they are blanks only where a word
/// may begin.
pub fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// What follows the blanks before a word.
pub fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    &text[blanks..]
}

/// Splits a line into words. `None` when a quote stays open or text follows a closing quote.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() || rest[0] == 0 {
            return Some(words);
        }
        let (word, after) = take_word(rest)?;
        words.push(word);
        rest = after;
    }
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match *rest {
            [] => return Some((word, rest)),
            [byte, ..] if ends_word(byte) => return Some((word, rest)),
            [quote @ (b'"' | b'\''), ref inside @ ..] => {
                rest = take_quoted(quote, inside, &mut word)?;
                let closed = rest.first().is_none_or(|&b| is_blank(b) || b == 0);
                return closed.then_some((word, rest));
            }
            [byte, ref after @ ..] => {
                word.push(byte);
                rest = after;
            }
        }
    }
}

fn take_quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match *rest {
            [] => return None,
            [byte, ref after @ ..] if byte == quote => return Some(after),
            [b'\\', b'x', high, low, ref after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |b: u8| (b as char).to_digit(16).expect("just checked") as u8;
                word.push(digit(high) << 4 | digit(low));
                rest = after;
            }
            [b'\\', escaped, ref after @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                rest = after;
            }
            [b'\\', b'\'', ref after @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = after;
            }
            [byte, ref after @ ..] => {
                word.push(byte);
                rest = after;
            }
        }
    }
}

/// Appends `text` in double quotes with escapes, as MONITOR and SLOWLOG readers expect.
pub fn quote_into(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            0x20..=0x7e => out.push(byte),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&digits);
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_reads_back() {
        let text: Vec<u8> = (0..=255).collect();
        let mut line = Vec::new();
        quote_into(&text, &mut line);
        assert_eq!(split_words(&line), Some(vec![text]));
        assert_eq!(split_words(b"a \"b\"c"), None);
        assert_eq!(split_words(b"a\x0b \x0b\x0cb"), Some(vec![b"a\x0b".to_vec(), b"b".to_vec()]));
        assert_eq!(split_words(b"\"a\"\x0bb\0c"), Some(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(split_words(b"a 'b"), None);
        assert_eq!(split_words(b"  "), Some(vec![]));
        assert_eq!(split_words(b"a\"b c\" d"), Some(vec![b"ab c".to_vec(), b"d".to_vec()]));
    }
}
