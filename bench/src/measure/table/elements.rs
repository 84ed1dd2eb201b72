//! What values of a type are built of, for sections that measure values and not requests: elements
//! follow from their numbers, differ, and come in mixed order.

use std::ops::Range;

use crate::client::call::Caller;
use crate::client::random::{Random, mix};
use crate::client::resp::encode;

/// Commands sent together: few enough to be no long turn of a server's.
const COMMANDS_TOGETHER: usize = 50;

/// A prime above every number of elements: its multiples run through all numbers below, in mixed
/// order.
const STRIDE: u64 = 2_147_483_647;

/// Integers of eight digits that are told apart, and a number without a common divisor with that.
const INTEGERS: u64 = 90_000_000;
const INTEGER_STRIDE: u64 = 61_803_397;

/// A word of an element.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// The same in each.
    Text(&'static str),
    /// So many letters.
    Letters(usize),
    /// An integer of eight digits.
    Integer,
    /// An integer below the number of elements, each once.
    Score,
    /// A number with as many digits as a double has.
    Double,
}

/// How values of a kind are built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    /// The command that adds elements.
    pub command: &'static str,
    /// Words between its key and the first element.
    pub behind_key: &'static [&'static str],
    /// The words of an element.
    pub element: &'static [Word],
    /// Elements per command, at most.
    pub at_once: u64,
    /// The command that counts them; empty where none does.
    pub count: &'static str,
}

impl Build {
    /// The command that adds element `number` of `count`.
    pub(super) fn words(&self, key: &str, number: u64, count: u64) -> Vec<Vec<u8>> {
        self.chunk(key, number..number + 1, 0, count)
    }

    /// The command that adds some elements out of `first..first + count`.
    fn chunk(&self, key: &str, numbers: Range<u64>, first: u64, count: u64) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = vec![self.command.into(), key.into()];
        words.extend(self.behind_key.iter().map(|word| Vec::from(*word)));
        for number in numbers {
            words.extend(self.element.iter().map(|word| word.text(number, first, count)));
        }
        words
    }
}

/// Adds elements to values by one connection.
pub(super) struct Builder<'a> {
    caller: &'a mut Caller,
    bytes: Vec<u8>,
    commands: usize,
}

impl Builder<'_> {
    /// On a connection.
    pub(super) fn new(caller: &mut Caller) -> Builder<'_> {
        Builder { caller, bytes: Vec::new(), commands: 0 }
    }

    /// Adds the elements `first..first + count` of a value.
    pub(super) fn add(
        &mut self,
        build: &Build,
        key: &str,
        first: u64,
        count: u64,
    ) -> Result<(), String> {
        let end = first + count;
        let mut next = first;
        while next < end {
            let chunk = build.at_once.min(end - next);
            let words = build.chunk(key, next..next + chunk, first, count);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            encode(&mut self.bytes, &words);
            self.commands += 1;
            if self.commands == COMMANDS_TOGETHER {
                self.send()?;
            }
            next += chunk;
        }
        Ok(())
    }

    /// Gives a single command.
    pub(super) fn command(&mut self, words: &[Vec<u8>]) -> Result<(), String> {
        self.send()?;
        let bytes: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        encode(&mut self.bytes, &bytes);
        self.commands = 1;
        self.send()
            .map_err(|error| format!("{}: {error}", String::from_utf8_lossy(&words.join(&b' '))))
    }

    /// Sends what is gathered, and takes the replies.
    pub(super) fn send(&mut self) -> Result<(), String> {
        if self.commands == 0 {
            return Ok(());
        }
        self.caller.send_all(&self.bytes, self.commands)?;
        self.bytes.clear();
        self.commands = 0;
        Ok(())
    }
}

/// Makes one value of so many elements, and looks whether they are all there.
pub(super) fn grow(
    caller: &mut Caller,
    build: &Build,
    key: &str,
    count: u64,
) -> Result<(), String> {
    let mut builder = Builder::new(caller);
    builder.add(build, key, 0, count)?;
    builder.send()?;
    if build.count.is_empty() {
        return Ok(());
    }
    match caller.number(&[build.count, key])? {
        held if held == count => Ok(()),
        held => Err(format!("{key}: {held} elements where {count} were added")),
    }
}

impl Word {
    /// The word of element `number` out of `first..first + count`.
    fn text(self, number: u64, first: u64, count: u64) -> Vec<u8> {
        match self {
            Word::Text(text) => text.into(),
            Word::Letters(length) => letters(number, length),
            Word::Integer => {
                (10_000_000 + number * INTEGER_STRIDE % INTEGERS).to_string().into_bytes()
            }
            Word::Score => ((number - first) * STRIDE % count).to_string().into_bytes(),
            Word::Double => format!("{:?}", Random::new(number).unit() * 1000.0).into_bytes(),
        }
    }
}

/// Letters that differ for all numbers below 2^40 from eight on, and look like no number.
pub(super) fn letters(number: u64, length: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyzABCDEF";
    const BITS: u32 = 40;
    const FACTOR: u64 = 0x9e_3779_b97b;
    // An odd factor and a shifted exclusive or are both one to one.
    let mixed = number.wrapping_mul(FACTOR) & ((1 << BITS) - 1);
    let mixed = (mixed ^ (mixed >> 21)).wrapping_mul(FACTOR) & ((1 << BITS) - 1);
    let rest = mix(number);
    (0..length)
        .map(|place| {
            let bits = if place < 8 { mixed >> (5 * place) } else { rest >> (5 * (place % 12)) };
            ALPHABET[(bits & 31) as usize]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn elements_differ_and_have_their_size() {
        const COUNT: u64 = 50_000;
        for (word, size) in [(Word::Letters(8), 8), (Word::Letters(16), 16), (Word::Integer, 8)] {
            let all: HashSet<Vec<u8>> = (0..COUNT).map(|n| word.text(n, 0, COUNT)).collect();
            assert_eq!(all.len() as u64, COUNT, "{word:?}");
            assert!(all.iter().all(|text| text.len() == size), "{word:?}");
        }
    }

    #[test]
    fn scores_are_all_numbers_in_mixed_order() {
        for count in [7_u64, 1000, 100_000] {
            let scores: Vec<Vec<u8>> =
                (5..5 + count).map(|n| Word::Score.text(n, 5, count)).collect();
            let all: HashSet<&Vec<u8>> = scores.iter().collect();
            assert_eq!(all.len() as u64, count);
            assert!(all.contains(&count.saturating_sub(1).to_string().into_bytes()));
        }
        let first: Vec<Vec<u8>> = (0..3).map(|n| Word::Score.text(n, 0, 1_000_000)).collect();
        assert_eq!(first, [b"0".to_vec(), b"483647".to_vec(), b"967294".to_vec()]);
    }

    #[test]
    fn doubles_need_all_their_digits() {
        let text = String::from_utf8(Word::Double.text(3, 0, 10)).expect("digits");
        assert!(text.len() >= 15 && text.parse::<f64>().is_ok(), "{text}");
    }
}
