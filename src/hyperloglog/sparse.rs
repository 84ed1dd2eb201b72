//! Registers as runs of equal ones: most are zero while few elements were seen.
//!
//! ```text
//! 00nnnnnn            n + 1 registers are zero
//! 01nnnnnn nnnnnnnn   n + 1 registers are zero, high bits first
//! 1rrrrrnn            n + 1 registers have rank r + 1
//! ```

use super::estimate::Histogram;
use super::{HEADER_BYTES, REGISTERS};
use std::fmt::Write;

/// All registers zero.
pub(super) const EMPTY: [u8; 2] = [0x7f, 0xff];
/// The highest rank that a run can have.
const RANK_MAX: u8 = 32;
/// The longest run of a rank.
const RANKED_MAX: usize = 4;
/// The longest run of zeros in one byte.
const SHORT_MAX: usize = 64;
/// So many runs, from the one before a change on, are joined where neighbours are equal.
const JOINED_RUNS: usize = 5;

/// A run as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// Zeros in one byte.
    Short(usize),
    /// Zeros in two bytes.
    Long(usize),
    /// A rank, and how many registers have it.
    Ranked(u8, usize),
}

impl Run {
    fn zeros(length: usize) -> Run {
        if length > SHORT_MAX { Run::Long(length) } else { Run::Short(length) }
    }

    /// The run that begins `bytes`. `None` when there is no whole one.
    #[inline]
    fn first(bytes: &[u8]) -> Option<Run> {
        let (&first, rest) = bytes.split_first()?;
        Some(match first >> 6 {
            0 => Run::Short(usize::from(first) + 1),
            1 => Run::Long((usize::from(first & 63) << 8 | usize::from(*rest.first()?)) + 1),
            _ => Run::Ranked((first >> 2 & 31) + 1, usize::from(first & 3) + 1),
        })
    }

    fn length(self) -> usize {
        match self {
            Run::Short(length) | Run::Long(length) | Run::Ranked(_, length) => length,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Run::Ranked(rank, _) => rank,
            Run::Short(_) | Run::Long(_) => 0,
        }
    }

    /// Bytes it takes.
    fn size(self) -> usize {
        if let Run::Long(_) = self { 2 } else { 1 }
    }

    /// The same rank over another length.
    fn over(self, length: usize) -> Run {
        match self {
            Run::Ranked(rank, _) => Run::Ranked(rank, length),
            Run::Short(_) | Run::Long(_) => Run::zeros(length),
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Run::Short(length) => out.push((length - 1) as u8),
            Run::Long(length) => {
                out.extend_from_slice(&[0x40 | ((length - 1) >> 8) as u8, (length - 1) as u8]);
            }
            Run::Ranked(rank, length) => out.push(0x80 | (rank - 1) << 2 | (length - 1) as u8),
        }
    }
}

/// The runs in order. `each` gets the first register of each. `None` unless they cover all
/// registers just so.
fn each_run(mut bytes: &[u8], mut each: impl FnMut(usize, Run)) -> Option<()> {
    let mut first = 0;
    while !bytes.is_empty() {
        let run = Run::first(bytes)?;
        if first + run.length() > REGISTERS {
            return None;
        }
        each(first, run);
        first += run.length();
        bytes = &bytes[run.size()..];
    }
    (first == REGISTERS).then_some(())
}

/// How many registers have each rank. `None` when the runs are damaged.
pub(super) fn histogram(bytes: &[u8]) -> Option<Histogram> {
    let mut histogram: Histogram = [0; 64];
    each_run(bytes, |_, run| histogram[usize::from(run.rank())] += run.length() as u32)?;
    Some(histogram)
}

/// Raises each register to that of the runs. `None`, and some of it done, when the runs are
/// damaged.
pub(super) fn merge(registers: &mut [u8; REGISTERS], bytes: &[u8]) -> Option<()> {
    each_run(bytes, |first, run| {
        if run.rank() > 0 {
            for register in &mut registers[first..first + run.length()] {
                *register = run.rank().max(*register);
            }
        }
    })
}

/// The runs in words. `None` when the last one is cut short.
pub(super) fn decode(mut bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    while !bytes.is_empty() {
        let run = Run::first(bytes)?;
        let _ = match run {
            Run::Short(length) => write!(text, "z:{length} "),
            Run::Long(length) => write!(text, "Z:{length} "),
            Run::Ranked(rank, length) => write!(text, "v:{rank},{length} "),
        };
        bytes = &bytes[run.size()..];
    }
    text.pop();
    Some(text)
}

/// What became of raising a register.
pub(super) enum Raised {
    /// It is raised.
    Changed,
    /// It had that rank.
    Not,
    /// Nothing is done: runs cannot hold it in the bytes allowed.
    TooLong,
}

/// The runs of a value behind its header, to be changed.
pub(super) struct Runs<'a> {
    /// The whole value.
    pub(super) bytes: &'a mut Vec<u8>,
    /// Bytes it may take when it grows.
    pub(super) bytes_max: usize,
}

impl Runs<'_> {
    /// Raises the register `index` to `rank`. `None` when the runs do not reach it.
    pub(super) fn raise(&mut self, index: usize, rank: u8) -> Option<Raised> {
        if rank > RANK_MAX {
            return Some(Raised::TooLong);
        }
        let (mut at, mut before, mut first) = (HEADER_BYTES, HEADER_BYTES, 0);
        let run = loop {
            let run = Run::first(&self.bytes[at..])?;
            if index < first + run.length() {
                break run;
            }
            before = at;
            at += run.size();
            first += run.length();
        };
        if run.rank() >= rank {
            return Some(Raised::Not);
        }
        let mut split = Vec::with_capacity(5);
        if index > first {
            run.over(index - first).write(&mut split);
        }
        Run::Ranked(rank, 1).write(&mut split);
        let last = first + run.length() - 1;
        if index < last {
            run.over(last - index).write(&mut split);
        }
        let grows = split.len().saturating_sub(run.size());
        if grows > 0 && self.bytes.len() + grows > self.bytes_max {
            return Some(Raised::TooLong);
        }
        self.bytes.splice(at..at + run.size(), split);
        self.join_from(before);
        Some(Raised::Changed)
    }

    /// Joins neighbours of one rank among the runs from `at` on.
    fn join_from(&mut self, mut at: usize) {
        for _ in 0..JOINED_RUNS {
            let Some(run) = self.bytes.get(at..).and_then(Run::first) else { return };
            let next = self.bytes.get(at + run.size()..).and_then(Run::first);
            if let (Run::Ranked(a, length), Some(Run::Ranked(b, more))) = (run, next)
                && a == b
                && length + more <= RANKED_MAX
            {
                self.bytes.remove(at);
                let mut joined = Vec::with_capacity(1);
                Run::Ranked(a, length + more).write(&mut joined);
                self.bytes[at] = joined[0];
            } else {
                at += run.size();
            }
        }
    }
}
