//! One transcript file: parsed, run against a server, printed again.

use crate::reply;
use crate::server::Server;
use ringraft::resp::quoting;
use ringraft::resp::reply::Protocol;
use std::fmt;

/// Major and minor version of Redis.
pub type Version = (u32, u32);

/// Files without `@since` are compared with servers before this version.
const COMPARED_BELOW: Version = (7, 4);

/// A file. Printing it gives the text it was parsed from, with the replies of the last run.
pub struct Script {
    name: String,
    lines: Vec<Line>,
}

enum Line {
    /// A comment or an empty line.
    Text(String),
    /// `@advance`, in milliseconds.
    Advance(i64, String),
    /// `@db`.
    Database(u8, String),
    /// `@resp2`, `@resp3`.
    Protocol(Protocol, String),
    /// `@since`, of Redis.
    Since(Version, String),
    /// `@differs`.
    Differs(String),
    /// A request and its reply's lines.
    Request { line: usize, text: String, reply: Vec<String> },
}

impl Script {
    /// Parses a file. Panics with name and line when it makes no sense.
    pub fn parse(name: &str, text: &str) -> Script {
        let mut lines: Vec<Line> = Vec::new();
        for (number, text) in text.lines().enumerate() {
            let owned = text.to_owned();
            if let Some(request) = text.strip_prefix("> ") {
                lines.push(Line::Request {
                    line: number + 1,
                    text: request.to_owned(),
                    reply: Vec::new(),
                });
            } else if text.is_empty() || text.starts_with("# ") {
                lines.push(Line::Text(owned));
            } else if let Some(directive) = text.strip_prefix('@') {
                let parsed = parse_directive(directive, owned);
                lines.push(parsed.unwrap_or_else(|| panic!("{name}.txt:{}: {text}", number + 1)));
            } else if let Some(Line::Request { reply, .. }) = lines.last_mut() {
                reply.push(owned);
            } else {
                panic!("{name}.txt:{}: a reply without a request: {text}", number + 1);
            }
        }
        Script { name: name.to_owned(), lines }
    }

    /// Can it be compared with a server of this version? What servers answer that have come later
    /// only with those.
    pub fn fits(&self, version: Version) -> bool {
        let since = self.lines.iter().find_map(|line| match line {
            Line::Since(since, _) => Some(*since),
            _ => None,
        });
        match since {
            Some(since) => version >= since,
            None => version < COMPARED_BELOW,
        }
    }

    /// Runs the requests in order. The replies take the place of the expected ones, but not where
    /// `@differs` excuses them. Returns the differences.
    pub fn run(&mut self, server: &mut dyn Server) -> Vec<String> {
        let mut differences = Vec::new();
        let mut excused = false;
        for line in &mut self.lines {
            match line {
                Line::Text(_) | Line::Since(..) => {}
                Line::Advance(milliseconds, _) => server.advance(*milliseconds),
                Line::Database(database, _) => server.select(*database),
                Line::Protocol(protocol, _) => server.speak(*protocol),
                Line::Differs(_) => excused = server.may_differ(),
                Line::Request { line, text, reply } => {
                    let place = format!("{}.txt:{line}", self.name);
                    let words = quoting::split_words(text.as_bytes())
                        .unwrap_or_else(|| panic!("{place}: a quote stays open"));
                    let now_ms = server.now_ms();
                    let words: Vec<Vec<u8>> =
                        words.into_iter().map(|word| expand(word, now_ms)).collect();
                    let shows_time = [&b"PTTL"[..], b"HPTTL"]
                        .iter()
                        .any(|name| words[0].eq_ignore_ascii_case(name));
                    let clock_error_ms = if shows_time { server.clock_error_ms() } else { 0 };
                    let answered = reply::render(&server.execute(words));
                    if !std::mem::take(&mut excused) && !same(reply, &answered, clock_error_ms) {
                        differences.push(difference(&place, text, reply, &answered));
                        *reply = answered;
                    }
                }
            }
        }
        differences
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Text(text)
                | Line::Since(_, text)
                | Line::Advance(_, text)
                | Line::Database(_, text)
                | Line::Protocol(_, text)
                | Line::Differs(text) => writeln!(f, "{text}")?,
                Line::Request { text, reply, .. } => {
                    writeln!(f, "> {text}")?;
                    for line in reply {
                        writeln!(f, "{line}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A version of Redis: 7.4 of `7.4`, `7.4.0` and so on.
pub fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn parse_directive(directive: &str, text: String) -> Option<Line> {
    let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
    Some(match word {
        "advance" => Line::Advance(rest.strip_suffix("ms")?.parse().ok()?, text),
        "db" => Line::Database(rest.parse().ok()?, text),
        "resp2" if rest.is_empty() => Line::Protocol(Protocol::Resp2, text),
        "resp3" if rest.is_empty() => Line::Protocol(Protocol::Resp3, text),
        "since" => Line::Since(version(rest)?, text),
        "differs" if !rest.is_empty() => Line::Differs(text),
        _ => return None,
    })
}

/// A word of a request with `@now+1500ms`, `@now-2s` and `@x*100` put in full.
fn expand(word: Vec<u8>, now_ms: i64) -> Vec<u8> {
    let expanded = std::str::from_utf8(&word).ok().and_then(|text| {
        let text = text.strip_prefix('@')?;
        if let Some(offset) = text.strip_prefix("now") {
            let (number, unit_ms) = match offset.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => (offset.strip_suffix('s')?, 1000),
            };
            return Some((now_ms / unit_ms + number.parse::<i64>().ok()?).to_string());
        }
        let (repeated, count) = text.rsplit_once('*')?;
        Some(repeated.repeat(count.parse().ok()?))
    });
    expanded.map_or(word, String::into_bytes)
}

/// Do replies agree? With a clock error, a number may be that much smaller than expected: the time
/// left.
fn same(expected: &[String], answered: &[String], clock_error_ms: i64) -> bool {
    let close = |(expected, answered): (&String, &String)| {
        let number = |line: &str| line.strip_prefix(':')?.parse::<i64>().ok();
        let both = number(expected).zip(number(answered));
        let late = |(expected, answered): (i64, i64)| expected.checked_sub(answered);
        expected == answered
            || both.and_then(late).is_some_and(|late| (0..=clock_error_ms).contains(&late))
    };
    expected.len() == answered.len() && expected.iter().zip(answered).all(close)
}

fn difference(place: &str, request: &str, expected: &[String], answered: &[String]) -> String {
    let list = |mark: &str, lines: &[String]| -> String {
        lines.iter().map(|line| format!("    {mark} {line}\n")).collect()
    };
    format!("{place}: {request}\n{}{}", list("expected", expected), list("answered", answered))
}
