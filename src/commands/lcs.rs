//! LCS: the longest common subsequence of two strings.
//!
//! The textbook's table: the length for every pair of prefixes, filled row by row, then walked back
//! from the end. Its memory is bounded as Redis bounds it, by the size of the largest string.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read};
use crate::resp::reply::Reply;
use ringraft_shards::keyspace::View;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[read("lcs", Arity::AtLeast(3), Keys::TWO, lcs).about(
    Group::String,
    "7.0.0",
    "Returns the longest common subsequence of two strings, its length or where it matches.",
)];

/// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN size] [WITHMATCHLEN].
/// Cost: time and memory by the product of both lengths; the shard serves nothing else meanwhile.
fn lcs(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let not_strings = || Refusal::text("ERR The specified keys must contain string values");
    let a = call.string(1, view).map_err(|_| not_strings())?.unwrap_or_default();
    let b = call.string(2, view).map_err(|_| not_strings())?.unwrap_or_default();
    let options = Options::parse(call)?;
    let table = Table::new(a, b, call.string_bytes_max)?;
    if options.index {
        reply_with_matches(&table, &options, reply);
    } else if options.length {
        reply.integer(table.at(a.len(), b.len()).into());
    } else {
        let runs = table.runs();
        let common: Vec<u8> =
            runs.iter().rev().flat_map(|run| &a[run.a..run.a + run.size]).copied().collect();
        reply.bulk(&common);
    }
    Ok(())
}

#[derive(Default)]
struct Options {
    length: bool,
    index: bool,
    match_sizes: bool,
    match_size_min: i64,
}

impl Options {
    fn parse(call: &Call<'_>) -> Result<Options, Refusal> {
        let mut options = Options::default();
        let mut at = 3;
        while at < call.count() {
            if call.arguments.is(at, "IDX") {
                options.index = true;
            } else if call.arguments.is(at, "LEN") {
                options.length = true;
            } else if call.arguments.is(at, "WITHMATCHLEN") {
                options.match_sizes = true;
            } else if call.arguments.is(at, "MINMATCHLEN") && at + 1 < call.count() {
                options.match_size_min = call.integer(at + 1)?;
                at += 1;
            } else {
                return Err(Refusal::Syntax);
            }
            at += 1;
        }
        if options.index && options.length {
            return Err(Refusal::text(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(options)
    }
}

fn reply_with_matches(table: &Table<'_>, options: &Options, reply: &mut Reply<'_>) {
    let runs = table.runs();
    let shown = runs.iter().filter(|run| run.size as i64 >= options.match_size_min);
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(shown.clone().count());
    for run in shown {
        reply.array(2 + usize::from(options.match_sizes));
        for start in [run.a, run.b] {
            reply.array(2);
            reply.integer(start as i64);
            reply.integer((start + run.size - 1) as i64);
        }
        if options.match_sizes {
            reply.integer(run.size as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(table.at(table.a.len(), table.b.len()).into());
}

/// Bytes that follow each other in both strings: where they start, and how many they are.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    a: usize,
    b: usize,
    size: usize,
}

/// Lengths of the longest common subsequence of every prefix of `a` with every prefix of `b`.
struct Table<'a> {
    a: &'a [u8],
    b: &'a [u8],
    lengths: Vec<u32>,
}

impl<'a> Table<'a> {
    /// Fills the table. Errors: it would take more than `bytes_max`, which is what a string may.
    fn new(a: &'a [u8], b: &'a [u8], bytes_max: usize) -> Result<Table<'a>, Refusal> {
        // Strings are far below 2^32 bytes: no overflow.
        let width = b.len() + 1;
        let count = (a.len() + 1) * width;
        if count * size_of::<u32>() > bytes_max {
            return Err(Refusal::text(
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ));
        }
        let mut lengths = vec![0u32; count];
        for (i, &byte) in a.iter().enumerate() {
            let (done, rest) = lengths.split_at_mut((i + 1) * width);
            let above = &done[i * width..];
            let mut left = 0;
            for ((place, pair), &other) in rest[1..width].iter_mut().zip(above.windows(2)).zip(b) {
                left = if byte == other { pair[0] + 1 } else { left.max(pair[1]) };
                *place = left;
            }
        }
        Ok(Table { a, b, lengths })
    }

    fn at(&self, a_size: usize, b_size: usize) -> u32 {
        self.lengths[a_size * (self.b.len() + 1) + b_size]
    }

    /// The runs of one longest common subsequence, the last first. Among several, Redis' choice:
    /// where bytes differ and both ways are as good, `b` gets shorter.
    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                match runs.last_mut() {
                    Some(run) if (run.a, run.b) == (i, j) => {
                        *run = Run { a: i - 1, b: j - 1, size: run.size + 1 };
                    }
                    _ => runs.push(Run { a: i - 1, b: j - 1, size: 1 }),
                }
                (i, j) = (i - 1, j - 1);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        runs
    }
}
