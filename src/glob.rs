//! Glob patterns as Redis matches them, byte by byte.
//!
//! `*` is any run, `?` any one byte, `[ab]` one of these, `[a-z]` one of a range, `[^ab]` none of
//! these, a backslash takes the next byte literally. Nothing is a syntax error: a class that is not
//! closed ends with the pattern, a backslash at the end is itself. The literal bytes before the
//! first of these bound the keys that can match, which is what makes a page of KEYS cheap.

use std::borrow::Cow;
use std::ops::Bound;

/// One end of a range of keys in bytewise order.
pub type Limit<'a> = Bound<Cow<'a, [u8]>>;

/// A pattern, its literal beginning split off.
#[derive(Clone, Debug)]
pub struct Glob<'a> {
    prefix: Cow<'a, [u8]>,
    rest: &'a [u8],
}

impl<'a> Glob<'a> {
    /// Reads a pattern. Cost: no allocation unless a backslash stands in its literal beginning.
    pub fn new(pattern: &'a [u8]) -> Glob<'a> {
        let plain = pattern.iter().position(|byte| b"*?[\\".contains(byte));
        let (prefix, mut rest) = pattern.split_at(plain.unwrap_or(pattern.len()));
        let mut prefix = Cow::Borrowed(prefix);
        while let [first, after @ ..] = rest {
            let literal = match (first, after) {
                (b'*' | b'?' | b'[', _) => break,
                (b'\\', [escaped, after @ ..]) => {
                    rest = after;
                    *escaped
                }
                (literal, after) => {
                    rest = after;
                    *literal
                }
            };
            prefix.to_mut().push(literal);
        }
        Glob { prefix, rest }
    }

    /// Does all of `text` match?
    /// Cost: linear in `text` without `*`; at worst the product of both lengths, never more.
    pub fn matches(&self, text: &[u8]) -> bool {
        match text.strip_prefix(self.prefix.as_ref()) {
            Some(text) => matches(self.rest, text),
            None => false,
        }
    }

    /// Bounds in bytewise order between which all matches lie.
    pub fn range(&self) -> (Limit<'a>, Limit<'a>) {
        let start = Bound::Included(self.prefix.clone());
        if self.rest.is_empty() {
            return (start.clone(), start);
        }
        let end = match successor(&self.prefix) {
            Some(end) => Bound::Excluded(Cow::Owned(end)),
            None => Bound::Unbounded,
        };
        (start, end)
    }
}

/// The least text above all that begin with `prefix`; `None` when there is no such text.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Only the last `*` is ever tried again: what an earlier one could take, a later one can leave.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // The pattern after the last star, and the text that the star does not take.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            if after.is_empty() {
                return true;
            }
            pattern = after;
            retry = Some((after, text));
            continue;
        }
        if let Some((byte, text_after)) = text.split_first() {
            if let Some(pattern_after) = match_byte(pattern, *byte) {
                (pattern, text) = (pattern_after, text_after);
                continue;
            }
        } else if pattern.is_empty() {
            return true;
        }
        match retry {
            Some((after_star, [_, shorter @ ..])) => {
                retry = Some((after_star, shorter));
                (pattern, text) = (after_star, shorter);
            }
            _ => return false,
        }
    }
}

/// The pattern after its first element (not a star), when `byte` matches that.
fn match_byte(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (matched, after) = match pattern {
        [] => return None,
        [b'?', after @ ..] => (true, after),
        [b'[', b'^', class @ ..] => {
            let (found, after) = match_class(class, byte);
            (!found, after)
        }
        [b'[', class @ ..] => match_class(class, byte),
        [b'\\', escaped, after @ ..] => (*escaped == byte, after),
        [literal, after @ ..] => (*literal == byte, after),
    };
    matched.then_some(after)
}

/// Is `byte` in the class whose inside begins at `class`? And the pattern after the class.
fn match_class(mut class: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut found = false;
    loop {
        class = match class {
            [] => return (found, class),
            [b'\\', escaped, after @ ..] => {
                found |= *escaped == byte;
                after
            }
            [b']', after @ ..] => return (found, after),
            [a, b'-', b, after @ ..] => {
                found |= (*a.min(b)..=*a.max(b)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let glob = Glob::new(pattern.as_bytes());
        for text in matching {
            assert!(glob.matches(text.as_bytes()), "{pattern:?} {text:?}");
        }
        for text in other {
            assert!(!glob.matches(text.as_bytes()), "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn patterns_match_as_in_redis() {
        check("", &[""], &["a"]);
        check("*", &["", "a", "abc"], &[]);
        check("abc", &["abc"], &["ab", "abcd", "ABC"]);
        check("a*", &["a", "ab"], &["", "ba"]);
        check("a**c", &["ac", "abc", "acc"], &["a", "acb"]);
        check("*a*b", &["ab", "aab", "xaxbxb"], &["ba", "abx"]);
        check("h?llo", &["hello", "hallo"], &["hllo", "heello"]);
        check("h[ae]llo", &["hello", "hallo"], &["hillo", "h[ae]llo"]);
        check("h[^e]llo", &["hallo", "hbllo"], &["hello", "hllo"]);
        check("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]);
        check("[c-a]", &["a", "b", "c"], &["d", "-"]);
        check(r"\*", &["*"], &["a", r"\*"]);
        check(r"a\", &[r"a\"], &["a"]);
        check(r"[\]a]", &["]", "a"], &[r"\"]);
        check(r"[\-]", &["-"], &[r"\"]);
    }

    #[test]
    fn odd_classes_match_as_in_redis() {
        // Found by asking a server: an empty class matches nothing, its opposite anything.
        check("[]", &[], &["", "a", "]"]);
        check("[^]", &["a"], &[""]);
        check("[]a]", &[], &["a", "]", "a]"]);
        // Not closed: ends with the pattern.
        check("[ab", &["a", "b"], &["c", "[ab"]);
        check("a[", &[], &["a", "a[", "ab"]);
        check("[^", &["a"], &[""]);
        // A range takes the bracket for its end.
        check("[a-]", &["]", "^", "_", "a"], &["-", "b"]);
        check(r"[a\", &["a", r"\"], &["b"]);
    }

    #[test]
    fn ranges_come_from_the_literal_beginning() {
        let check = |pattern: &str, start: &[u8], end: Bound<&[u8]>| {
            let (from, to) = Glob::new(pattern.as_bytes()).range();
            assert_eq!(from.as_ref().map(|b| b.as_ref()), Bound::Included(start), "{pattern:?}");
            assert_eq!(to.as_ref().map(|b| b.as_ref()), end, "{pattern:?}");
        };
        check("abc", b"abc", Bound::Included(b"abc"));
        check("ab*", b"ab", Bound::Excluded(b"ac"));
        check(r"a\*b?", b"a*b", Bound::Excluded(b"a*c"));
        check(r"a\*", b"a*", Bound::Included(b"a*"));
        check("*", b"", Bound::Unbounded);
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!Glob::new(pattern.as_bytes()).matches("a".repeat(5000).as_bytes()));
    }

    /// Straight from the meaning of each sign.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|i| naive(rest, &text[i..])),
            _ => text.split_first().is_some_and(|(byte, text)| {
                match_byte(pattern, *byte).is_some_and(|rest| naive(rest, text))
            }),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher(pattern in r"[ab*?\[\]^\-\\]{0,8}", text in "[ab\\]]{0,6}") {
            let glob = Glob::new(pattern.as_bytes());
            prop_assert_eq!(glob.matches(text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn matches_lie_in_the_range(pattern in r"[ab*?\\]{0,5}", text in r"[ab*]{0,5}") {
            let glob = Glob::new(pattern.as_bytes());
            if glob.matches(text.as_bytes()) {
                let (start, end) = glob.range();
                let range = (start.as_ref().map(|b| b.as_ref()), end.as_ref().map(|b| b.as_ref()));
                prop_assert!(std::ops::RangeBounds::<[u8]>::contains(&range, text.as_bytes()));
            }
        }
    }
}
