//! Commands that need more than one shard or core, and how their parts become one reply.
//!
//! The connection's core sends the parts, collects their replies and merges them. Parts run side by
//! side; each is atomic on its shard. What must be one atomic whole is a transaction: see
//! `spread.rs`, which merges replies here too.

pub mod context;
pub mod report;

use crate::commands::Gather;
use crate::commands::pattern::Page;
use crate::commands::scan::Cursor;
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::session::Watched;
use crate::core::transact::libraries::Judge;
use crate::resp::read::{Elements, skip};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::any::Any;

/// What other cores found out for a command.
pub type Findings = Vec<Box<dyn Any + Send>>;

/// Turns the findings of all cores into a reply.
pub type Conclude = Box<dyn FnOnce(&mut Core, Findings, &mut Reply<'_>)>;

/// What the parts are merged by.
pub enum Merge {
    /// Replies of shards, by the row's rule.
    Shards(Gather),
    /// SCAN: goes on to the next shard while too little was found.
    Scan {
        /// Keys wanted.
        count: usize,
        /// Database scanned.
        database: u8,
    },
    /// One reply of a transaction, with the replies of session commands put back in between.
    Transaction {
        /// For each queued command, the reply it got at EXEC, or `None` when the shard ran it.
        replies: Vec<Option<Vec<u8>>>,
    },
    /// This reply, unless there is an error.
    Known(Vec<u8>),
    /// The reply of a step that waits for it, by the number of its suspension.
    Step(u64),
    /// A change of the libraries of functions that another one may have forestalled.
    Libraries {
        /// Makes the change anew.
        judge: Judge,
        /// The reply once it is made.
        reply: Vec<u8>,
    },
    /// Versions of watched keys, in order.
    Watch(Vec<Watched>),
    /// What every core found out.
    Cores {
        /// One from each core, in the order of the cores.
        findings: Vec<Option<Box<dyn Any + Send>>>,
        /// Makes the reply.
        conclude: Conclude,
    },
}

/// One part and its reply.
#[derive(Debug, Default)]
pub struct Part {
    /// Its reply, once it has come.
    pub reply: Vec<u8>,
}

/// A command in progress.
pub struct GatherState {
    /// Whom the merged reply is for.
    pub target: Target,
    /// How it is written.
    pub protocol: Protocol,
    /// How parts are merged.
    pub merge: Merge,
    /// The parts.
    pub parts: Vec<Part>,
    /// Parts still to come.
    pub missing: usize,
    /// The command's arguments, where merging needs them.
    pub arguments: OwnedArguments,
    /// The slot that the last part of a SCAN began with.
    pub scanned_slot: Option<usize>,
}

impl GatherState {
    /// Writes the reply of a part. True when it was the last one.
    pub fn write_part(&mut self, part: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        write(&mut self.parts[part as usize].reply);
        self.missing -= 1;
        self.missing == 0
    }

    /// The first part that is an error, if any.
    pub fn refusal(&self) -> Option<&[u8]> {
        self.parts.iter().map(|p| p.reply.as_slice()).find(|reply| reply.first() == Some(&b'-'))
    }
}

/// Merges the replies of shards by a row's rule.
pub fn merge_shards(
    rule: Gather,
    parts: &[Part],
    arguments: &OwnedArguments,
    seed: u64,
    reply: &mut Reply<'_>,
) {
    match rule {
        Gather::Sum => {
            reply.integer(parts.iter().filter_map(|p| integer_of(&p.reply)).sum());
        }
        Gather::AllOk => reply.ok(),
        Gather::SortedKeys => merge_sorted(parts, arguments, reply),
        Gather::AnyPresent => {
            let is_null = |reply: &[u8]| reply == b"$-1\r\n" || reply == b"_\r\n";
            let present: Vec<_> = parts.iter().filter(|p| !is_null(&p.reply)).collect();
            match present.len() {
                0 => reply.null(),
                n => reply.raw(&present[(seed % n as u64) as usize].reply),
            }
        }
        Gather::InOrder => {
            // Each part is of one key: elsewhere they are joined, see `coalesce.rs`.
            reply.array(parts.len());
            for part in parts {
                reply.raw(Elements::of(&part.reply).next().unwrap_or(b"$-1\r\n"));
            }
        }
        Gather::Cursor => unreachable!("SCAN has a merge of its own"),
    }
}

/// The number of an integer reply.
pub fn integer_of(reply: &[u8]) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    crate::numbers::parse_integer(digits)
}

/// Merges sorted key arrays under the options of KEYS.
fn merge_sorted(parts: &[Part], arguments: &OwnedArguments, reply: &mut Reply<'_>) {
    let page = Page::of(arguments.borrow()).expect("the shards parsed the same words");
    let width = if page.with_values { 2 } else { 1 };
    let mut rows: Vec<(&[u8], &[u8])> = Vec::new();
    for part in parts {
        let elements: Vec<&[u8]> = Elements::of(&part.reply).collect();
        for row in elements.chunks_exact(width) {
            let whole: usize = row.iter().map(|e| e.len()).sum();
            let start = row[0].as_ptr() as usize - part.reply.as_ptr() as usize;
            rows.push((bulk_of(row[0]), &part.reply[start..start + whole]));
        }
    }
    rows.sort_unstable_by(|a, b| if page.descending { b.0.cmp(a.0) } else { a.0.cmp(b.0) });
    rows.truncate(page.limit);
    reply.array(rows.len() * width);
    for (_, row) in rows {
        reply.raw(row);
    }
}

/// Appends the keys of a part of SCAN, as RESP. Returns where it goes on.
pub fn read_page(part: &[u8], found: &mut Vec<Vec<u8>>) -> Cursor {
    let mut elements = Elements::of(part);
    let digits = elements.next().map_or(&b""[..], bulk_of);
    let next = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let keys = elements.next().unwrap_or(b"*0\r\n");
    found.extend(Elements::of(keys).map(<[u8]>::to_vec));
    Cursor(next.unwrap_or(0))
}

/// The arguments of a SCAN that goes on at another cursor.
pub fn scan_from(cursor: Cursor, arguments: Arguments<'_>) -> OwnedArguments {
    let digits = cursor.0.to_string();
    let mut from = OwnedArguments::default();
    for (i, argument) in arguments.iter_from(0).enumerate() {
        from.push(if i == 1 { digits.as_bytes() } else { argument });
    }
    from
}

/// A page of SCAN: where to go on, and keys as RESP.
pub fn write_page(next: Cursor, found: &[Vec<u8>], reply: &mut Reply<'_>) {
    reply.array(2);
    reply.bulk_integer(next.0 as i64);
    reply.array(found.len());
    found.iter().for_each(|key| reply.raw(key));
}

/// The bytes of a bulk string.
pub fn bulk_of(element: &[u8]) -> &[u8] {
    let head = memchr::memchr(b'\n', element).map_or(element.len(), |at| at + 1);
    element[head..].strip_suffix(b"\r\n").unwrap_or(&element[head..])
}

/// Merges a transaction's array with the replies of its session commands.
pub fn merge_transaction(replies: &[Option<Vec<u8>>], part: &[u8], reply: &mut Reply<'_>) {
    if part.first() != Some(&b'*') || skip(part) == b"*-1\r\n".len() && part.starts_with(b"*-1") {
        // An error, or the null of a failed WATCH.
        return reply.raw(part);
    }
    let mut elements = Elements::of(part);
    reply.array(replies.len());
    for own in replies {
        match own {
            Some(own) => reply.raw(own),
            None => reply.raw(elements.next().unwrap_or(b"$-1\r\n")),
        }
    }
}
