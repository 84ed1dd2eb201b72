//! The metrics page: as much of HTTP/1.1 as a scraper needs.
//!
//! One request per connection, answered with `Connection: close`. Knows GET and HEAD of `/metrics`;
//! what the page says is `exposition`'s.

use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::gather::report::Totals;
use crate::core::observe::exposition;
use crate::core::turn::Source;
use crate::limits::METRICS_REQUEST_BYTES_MAX;
use crate::resp::reply::{Protocol, Reply};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// The page, or only its head.
    Page {
        /// Is it GET, not HEAD?
        body: bool,
    },
    /// Something that does not exist, or only its head.
    Unknown {
        /// Is it GET, not HEAD?
        body: bool,
    },
    /// A method that is not allowed.
    OtherMethod,
    /// It is no HTTP.
    Garbage,
    /// Its head is too long.
    TooLong,
    /// The rest is still to come.
    Incomplete,
}

impl Core {
    /// Takes bytes that a connection to the metrics page has received.
    pub(in crate::core) fn take_metrics_request(&mut self, index: u32, source: Source) {
        let connection = self.answers.connections.at_mut(index);
        if let Source::Buffer(buffer, length) = source {
            let bytes = self.doors.ring.buffer(buffer, usize::from(length));
            connection.input.extend_from_slice(bytes);
        }
        let asked = read_request(&connection.input[connection.input_start..]);
        if asked == Asked::Incomplete {
            return;
        }
        connection.input_start = connection.input.len();
        connection.close_after_replies = true;
        let target = Target::Connection { index, sequence: connection.replies.expect() };
        self.turn.consumed.push(index);
        match asked {
            Asked::Page { body } => self.ask_cores(
                target,
                Protocol::Resp2,
                |core| core.report(),
                move |core, reports, reply| {
                    let page = exposition::page(core, &Totals::of(reports));
                    respond(reply, "200 OK", &page, body);
                },
            ),
            refused => {
                let body = refused != Asked::Unknown { body: false };
                let (status, text) = match refused {
                    Asked::Unknown { .. } => ("404 Not Found", "there is only /metrics\n"),
                    Asked::OtherMethod => ("405 Method Not Allowed", "only GET and HEAD\n"),
                    Asked::TooLong => ("431 Request Header Fields Too Large", "too long\n"),
                    _ => ("400 Bad Request", "not an HTTP request\n"),
                };
                self.answers.write_here(target, |out| {
                    respond(&mut Reply::new(out, Protocol::Resp2), status, text, body);
                });
            }
        }
    }
}

fn respond(reply: &mut Reply<'_>, status: &str, text: &str, body: bool) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    reply.raw(head.as_bytes());
    if body {
        reply.raw(text.as_bytes());
    }
}

fn read_request(bytes: &[u8]) -> Asked {
    let ends = |end: &[u8]| memchr::memmem::find(bytes, end).is_some();
    let line_end = memchr::memchr(b'\n', bytes);
    if !ends(b"\r\n\r\n") && !ends(b"\n\n") {
        let room = bytes.len() <= METRICS_REQUEST_BYTES_MAX;
        return if room { Asked::Incomplete } else { Asked::TooLong };
    }
    let line = &bytes[..line_end.unwrap_or(bytes.len())];
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Asked::Garbage;
    };
    if !version.starts_with(b"HTTP/1.") {
        return Asked::Garbage;
    }
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => Asked::Page { body: true },
        (b"HEAD", b"/metrics") => Asked::Page { body: false },
        (b"GET" | b"HEAD", _) => Asked::Unknown { body: method == b"GET" },
        _ => Asked::OtherMethod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let long = [b'x'; METRICS_REQUEST_BYTES_MAX + 1];
        for (request, asked) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"[..], Asked::Page { body: true }),
            (b"GET /metrics?x=1 HTTP/1.0\n\n", Asked::Page { body: true }),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", Asked::Page { body: false }),
            (b"GET / HTTP/1.1\r\n\r\n", Asked::Unknown { body: true }),
            (b"HEAD / HTTP/1.1\r\n\r\n", Asked::Unknown { body: false }),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Asked::OtherMethod),
            (b"*1\r\n$4\r\nPING\r\n\r\n", Asked::Garbage),
            (b"GET /metrics\r\n\r\n", Asked::Garbage),
            (b"GET /metrics HTTP/1.1\r\nHost", Asked::Incomplete),
            (b"", Asked::Incomplete),
            (&long, Asked::TooLong),
        ] {
            assert_eq!(read_request(request), asked, "{}", String::from_utf8_lossy(request));
        }
    }
}
