//! Where a reply ends, as its bytes come in.

use memchr::memchr;

/// Finds the ends of replies one after the other. Costs a look at each line's head, whatever is
/// between.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyScanner {
    /// Bytes of the reply that are passed.
    at: usize,
    /// Elements that are still to come.
    missing: u64,
}

impl Default for ReplyScanner {
    fn default() -> ReplyScanner {
        ReplyScanner { at: 0, missing: 1 }
    }
}

/// The other node has sent what is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoReply;

impl ReplyScanner {
    /// The length of the reply at the front of `bytes`, once all of it is there; the next call is
    /// for the one behind it. `bytes` are those of the last call and what has come since.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, NoReply> {
        while self.missing > 0 {
            let Some(rest) = bytes.get(self.at..) else { return Ok(None) };
            let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
            let line = rest[..end].strip_suffix(b"\r").ok_or(NoReply)?;
            let (kind, number) = line.split_first().ok_or(NoReply)?;
            self.at += end + 1;
            self.missing -= 1;
            match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => {}
                b'$' | b'=' | b'!' => match parse(number)? {
                    -1 => {}
                    length => self.at += usize::try_from(length).map_err(|_| NoReply)? + 2,
                },
                b'*' | b'~' | b'>' => self.missing += parse(number)?.max(0) as u64,
                b'%' => self.missing += 2 * parse(number)?.max(0) as u64,
                // An attribute is told with the reply that follows it.
                b'|' => self.missing += 2 * parse(number)?.max(0) as u64 + 1,
                _ => return Err(NoReply),
            }
        }
        if bytes.len() < self.at {
            return Ok(None);
        }
        Ok(Some(std::mem::take(self).at))
    }
}

fn parse(number: &[u8]) -> Result<i64, NoReply> {
    crate::numbers::parse_integer(number).filter(|number| *number >= -1).ok_or(NoReply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_found_whatever_comes_at_a_time() {
        let replies: [&[u8]; 9] = [
            b"+OK\r\n",
            b"$-1\r\n",
            b"$5\r\na\r\nbc\r\n",
            b"*2\r\n:1\r\n*-1\r\n",
            b"*0\r\n",
            b"%1\r\n+a\r\n*2\r\n,1.5\r\n$0\r\n\r\n",
            b"|1\r\n+k\r\n+v\r\n:3\r\n",
            b">2\r\n+x\r\n_\r\n",
            b"-ERR no\r\n",
        ];
        let all = replies.concat();
        for step in 1..all.len() {
            let (mut scanner, mut found, mut begun) = (ReplyScanner::default(), Vec::new(), 0);
            for end in (step..all.len()).step_by(step).chain([all.len()]) {
                while let Some(length) = scanner.end(&all[begun..end]).expect("they are replies") {
                    found.push(&all[begun..begun + length]);
                    begun += length;
                    if begun == end {
                        break;
                    }
                }
            }
            assert_eq!(found, replies, "{step} bytes at a time");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [&b"hello\r\n"[..], b"$x\r\n", b"*-2\r\n", b"+a\n", b"\r\n"] {
            assert_eq!(ReplyScanner::default().end(bytes), Err(NoReply), "{bytes:?}");
        }
    }
}
