//! Options that several commands share: conditions and expiries of SET and GETEX.

use super::refusal::Refusal;
use super::{Call, Command, TimeoutAt};
use crate::numbers::parse_float;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::Deadline;
use ringraft_shards::keyspace::Expiry;
use std::ops::Range;
use std::time::Duration;

/// How long a command may wait; `None` is for ever. `call` has a row that says where its timeout
/// stands. Errors: the timeout is no number, negative, or too large; there is none where it is a
/// choice.
pub fn timeout_of(
    command: &Command,
    arguments: Arguments<'_>,
) -> Result<Option<Duration>, Refusal> {
    let at = match command.wait.map(|wait| wait.timeout) {
        Some(TimeoutAt::Block) => return super::stream_read::timeout(command, arguments),
        Some(TimeoutAt::First) => 1,
        Some(TimeoutAt::Last) | None => arguments.count() - 1,
    };
    let seconds = parse_float(arguments.at(at))
        .ok_or(Refusal::text("ERR timeout is not a float or out of range"))?;
    let milliseconds = (seconds * 1000.0).ceil();
    // What a 64-bit integer holds, rounded down to a double.
    if milliseconds >= 9_223_372_036_854_774_784.0 {
        return Err(Refusal::text("ERR timeout is out of range"));
    }
    if milliseconds < 0.0 {
        return Err(Refusal::text("ERR timeout is negative"));
    }
    Ok((milliseconds > 0.0).then(|| Duration::from_millis(milliseconds as u64)))
}

/// The same request with another timeout, which it has one of already. Milliseconds are rounded up:
/// nobody waits less than was asked for.
pub fn with_timeout(command: &Command, arguments: Arguments<'_>, rest: Duration) -> OwnedArguments {
    // None would be for ever.
    let ms = rest.as_nanos().div_ceil(1_000_000).max(1);
    let (at, text) = match command.wait.map(|wait| wait.timeout) {
        Some(TimeoutAt::Block) => {
            (super::stream_read::timeout_at(command, arguments), ms.to_string())
        }
        Some(TimeoutAt::First) => (1, format!("{}.{:03}", ms / 1000, ms % 1000)),
        Some(TimeoutAt::Last) | None => {
            (arguments.count() - 1, format!("{}.{:03}", ms / 1000, ms % 1000))
        }
    };
    let words = arguments.iter_from(0).enumerate();
    words.map(|(i, word)| if i == at { text.as_bytes() } else { word }).collect()
}

/// What must hold for a value to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// NX: there is no such key.
    Absent,
    /// XX: there is such a key.
    Present,
}

/// A time as EX, PX, EXAT or PXAT gave it, not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenTime<'a> {
    /// The number's text.
    pub text: &'a [u8],
    /// What it counts.
    pub unit: TimeUnit,
}

/// What a given time counts: its unit, and whether from now on or from the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// EX.
    Seconds,
    /// PX.
    Milliseconds,
    /// EXAT.
    UnixSeconds,
    /// PXAT.
    UnixMilliseconds,
}

impl TimeUnit {
    /// The unit that an option's name stands for, in any case.
    fn named(word: &[u8]) -> Option<TimeUnit> {
        const NAMES: [(&[u8], TimeUnit); 4] = [
            (b"EX", TimeUnit::Seconds),
            (b"PX", TimeUnit::Milliseconds),
            (b"EXAT", TimeUnit::UnixSeconds),
            (b"PXAT", TimeUnit::UnixMilliseconds),
        ];
        NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|&(_, unit)| unit)
    }
}

impl GivenTime<'_> {
    /// The point in time that is meant; `now_ms` is the leader's, so that all replicas agree.
    /// Errors: no integer; not positive, before or after the addition; too large. `command` is
    /// named in the text.
    pub fn deadline(&self, command: &'static str, now_ms: i64) -> Result<Deadline, Refusal> {
        let number = crate::numbers::parse_integer(self.text).ok_or(Refusal::NotAnInteger)?;
        let milliseconds = match self.unit {
            TimeUnit::Seconds | TimeUnit::UnixSeconds => number.checked_mul(1000),
            TimeUnit::Milliseconds | TimeUnit::UnixMilliseconds => Some(number),
        };
        let start_ms = match self.unit {
            TimeUnit::Seconds | TimeUnit::Milliseconds => now_ms,
            TimeUnit::UnixSeconds | TimeUnit::UnixMilliseconds => 0,
        };
        milliseconds
            .filter(|&milliseconds| milliseconds > 0)
            .and_then(|milliseconds| milliseconds.checked_add(start_ms))
            .map(Deadline)
            .ok_or(Refusal::InvalidExpire(command))
    }
}

/// What a request wants to become of the deadline. At most one of its kinds may be given; the same
/// kind again replaces the first, as in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenExpiry<'a> {
    /// Nothing was said.
    Unsaid,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// EX, PX, EXAT or PXAT.
    Time(GivenTime<'a>),
}

/// The options of SET.
#[derive(Clone, Copy, Debug)]
pub struct SetOptions<'a> {
    /// NX, XX.
    pub condition: Condition,
    /// GET: the old value is the reply.
    pub get: bool,
    expiry: GivenExpiry<'a>,
}

impl<'a> SetOptions<'a> {
    /// Reads the arguments after key and value. Cost without options: one comparison.
    /// Errors: [`Refusal::Syntax`] for an unknown option, or two that contradict.
    pub fn parse(call: &Call<'a>) -> Result<SetOptions<'a>, Refusal> {
        let mut options =
            SetOptions { condition: Condition::Always, get: false, expiry: GivenExpiry::Unsaid };
        let mut at = 3;
        while at < call.count() {
            let word = call.at(at);
            if word.eq_ignore_ascii_case(b"NX") && options.condition != Condition::Present {
                options.condition = Condition::Absent;
            } else if word.eq_ignore_ascii_case(b"XX") && options.condition != Condition::Absent {
                options.condition = Condition::Present;
            } else if word.eq_ignore_ascii_case(b"GET") {
                options.get = true;
            } else if word.eq_ignore_ascii_case(b"KEEPTTL") {
                options.expiry = options.expiry.replaced_by(GivenExpiry::Keep)?;
            } else {
                options.expiry = options.expiry.replaced_by(take_time(call, at)?)?;
                at += 1;
            }
            at += 1;
        }
        Ok(options)
    }

    /// What becomes of the deadline when the value is set. Errors: as [`GivenTime::deadline`].
    pub fn expiry(&self, command: &'static str, now_ms: i64) -> Result<Expiry, Refusal> {
        Ok(match self.expiry {
            GivenExpiry::Unsaid | GivenExpiry::Persist => Expiry::Never,
            GivenExpiry::Keep => Expiry::Keep,
            GivenExpiry::Time(time) => Expiry::At(time.deadline(command, now_ms)?),
        })
    }
}

impl<'a> GivenExpiry<'a> {
    /// Reads the options of GETEX, the arguments after the key.
    /// Errors: [`Refusal::Syntax`] for an unknown option, or two that contradict.
    pub fn parse(call: &Call<'a>) -> Result<GivenExpiry<'a>, Refusal> {
        let mut expiry = GivenExpiry::Unsaid;
        let mut at = 2;
        while at < call.count() {
            if call.arguments.is(at, "PERSIST") {
                expiry = expiry.replaced_by(GivenExpiry::Persist)?;
                at += 1;
            } else {
                expiry = expiry.replaced_by(take_time(call, at)?)?;
                at += 2;
            }
        }
        Ok(expiry)
    }

    fn replaced_by(self, next: GivenExpiry<'a>) -> Result<GivenExpiry<'a>, Refusal> {
        use GivenExpiry::{Keep, Persist, Time, Unsaid};
        match (self, next) {
            (Unsaid, _) | (Keep, Keep) | (Persist, Persist) => Ok(next),
            (Time(old), Time(new)) if old.unit == new.unit => Ok(next),
            _ => Err(Refusal::Syntax),
        }
    }
}

/// An option that names a unit, and its number after it.
fn take_time<'a>(call: &Call<'a>, at: usize) -> Result<GivenExpiry<'a>, Refusal> {
    match (TimeUnit::named(call.at(at)), call.arguments.get(at + 1)) {
        (Some(unit), Some(text)) => Ok(GivenExpiry::Time(GivenTime { text, unit })),
        _ => Err(Refusal::Syntax),
    }
}

/// A range of positions whose ends both belong to it, of a string of `size` bytes or bits: negative
/// ends count from the end, and what lies outside is cut off. `None` when nothing is left.
/// An end before the string becomes its first position, so that something may be left even then;
/// [`range_in_order`] is more careful.
pub fn range_within(start: i64, end: i64, size: i64) -> Option<(i64, i64)> {
    let from_start = |at: i64| if at < 0 { at.saturating_add(size).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(size - 1));
    (start <= end).then_some((start, end))
}

/// As [`range_within`], but nothing is left when both ends count from the end and stand in the
/// wrong order.
pub fn range_in_order(start: i64, end: i64, size: i64) -> Option<(i64, i64)> {
    let backwards = start < 0 && end < 0 && start > end;
    if backwards { None } else { range_within(start, end, size) }
}

/// The ranks from `start` to `stop`, both included; negative ones count from the end.
pub fn rank_range(start: i64, stop: i64, count: u64) -> Range<u64> {
    let size = count as i64;
    let from_start = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let (start, stop) = (from_start(start).max(0), from_start(stop).min(size - 1));
    if start > stop { 0..0 } else { start as u64..stop as u64 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::commands::table;

    #[test]
    fn ranks_are_cut_as_redis_does() {
        for (start, stop, count, expected) in [
            (0, -1, 3, 0..3),
            (0, -10, 3, 0..0),
            (-10, 0, 3, 0..1),
            (1, 1, 3, 1..2),
            (2, 1, 3, 0..0),
            (3, 9, 3, 0..0),
            (0, -1, 0, 0..0),
            (i64::MIN, i64::MAX, 3, 0..3),
        ] {
            assert_eq!(rank_range(start, stop, count), expected, "{start} {stop} of {count}");
        }
    }

    #[test]
    fn ranges_are_cut_as_redis_does() {
        for (start, end, size, expected) in [
            (0, -1, 3, Some((0, 2))),
            (-2, -1, 3, Some((1, 2))),
            (0, -10, 3, Some((0, 0))),
            (-5, -10, 3, None),
            (-10, -5, 3, Some((0, 0))),
            (2, 1, 3, None),
            (3, 9, 3, None),
            (0, i64::MAX, 3, Some((0, 2))),
            (i64::MIN, i64::MAX, 3, Some((0, 2))),
            (0, -1, 0, None),
            (0, 0, 0, None),
        ] {
            assert_eq!(range_in_order(start, end, size), expected, "{start} {end} {size}");
        }
        assert_eq!(range_within(-5, -10, 3), Some((0, 0)));
    }

    #[test]
    fn a_timeout_is_replaced_where_it_stands() {
        for (before, after) in [
            ("BLPOP a b 0", "BLPOP a b 2.050"),
            ("BLMOVE a b LEFT LEFT 7", "BLMOVE a b LEFT LEFT 2.050"),
            ("BLMPOP 5 1 a LEFT", "BLMPOP 2.050 1 a LEFT"),
            ("XREAD COUNT 1 BLOCK 9 STREAMS block 0", "XREAD COUNT 1 BLOCK 2050 STREAMS block 0"),
            (
                "XREADGROUP GROUP block block BLOCK 9 STREAMS s >",
                "XREADGROUP GROUP block block BLOCK 2050 STREAMS s >",
            ),
        ] {
            let words = |text: &'static str| -> OwnedArguments {
                text.split(' ').map(str::as_bytes).collect()
            };
            let arguments = words(before);
            let command = table::resolve(arguments.borrow()).expect("a command");
            let rest = Duration::from_micros(2_049_001);
            let renewed = with_timeout(command, arguments.borrow(), rest);
            let found: Vec<&[u8]> = renewed.borrow().iter_from(0).collect();
            assert_eq!(found, words(after).borrow().iter_from(0).collect::<Vec<_>>(), "{before}");
        }
        let arguments: OwnedArguments =
            ["BLPOP", "a", "1"].map(str::as_bytes).into_iter().collect();
        let command = table::resolve(arguments.borrow()).expect("a command");
        let renewed = with_timeout(command, arguments.borrow(), Duration::ZERO);
        assert_eq!(renewed.borrow().at(2), b"0.001", "none would be for ever");
    }
}
