//! Command lines with places for numbers and values: what a mix can ask beside the commands that
//! the client knows.
//!
//! `HSET h f:{key} {value}` is words with blanks between them, in quotes where they hold some.
//! `{key}` is a number picked as a key's is, of twelve digits as redis-benchmark's; `{same}` is the
//! last one again; `{value}` is the value of the last one. Of the replies only errors are told from
//! others: what is asked decides what is answered.

use super::plan::Data;
use super::resp::{bulk, header};
use super::values::write_value;

/// A command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    words: Vec<Vec<Piece>>,
    number_count: usize,
}

/// A part of a word.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The next number.
    Key,
    /// The last one again.
    Same,
    /// The value of the last one.
    Value,
}

/// What stands for them.
const PLACES: [(&str, Piece); 3] =
    [("{key}", Piece::Key), ("{same}", Piece::Same), ("{value}", Piece::Value)];

impl Line {
    /// Reads a line.
    pub fn parse(text: &str) -> Result<Line, String> {
        let words: Vec<Vec<Piece>> = split_words(text)?.iter().map(|word| pieces(word)).collect();
        if words.is_empty() {
            return Err("an empty command line".into());
        }
        let number_count = words.iter().flatten().filter(|piece| **piece == Piece::Key).count();
        let first = words.iter().flatten().find(|piece| !matches!(piece, Piece::Text(_)));
        if matches!(first, Some(Piece::Same | Piece::Value)) {
            return Err(format!("{text}: {{same}} and {{value}} are those of a {{key}} before"));
        }
        Ok(Line { words, number_count })
    }

    /// How many numbers a request takes.
    pub fn number_count(&self) -> usize {
        self.number_count
    }

    /// Appends the request with these numbers.
    pub fn encode(&self, bytes: &mut Vec<u8>, numbers: &[u64], data: &Data) {
        header(bytes, b'*', self.words.len());
        let mut next = numbers.iter().copied();
        let mut last = 0;
        let mut text = Vec::new();
        for word in &self.words {
            text.clear();
            for piece in word {
                match piece {
                    Piece::Text(part) => text.extend_from_slice(part.as_bytes()),
                    Piece::Key => {
                        last = next.next().expect("as many numbers as the line has places");
                        text.extend_from_slice(format!("{last:012}").as_bytes());
                    }
                    Piece::Same => text.extend_from_slice(format!("{last:012}").as_bytes()),
                    Piece::Value => write_value(&mut text, last, data.sizes.of(last)),
                }
            }
            bulk(bytes, &text);
        }
    }
}

fn pieces(mut word: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while !word.is_empty() {
        let places = PLACES.into_iter();
        let first = places.filter_map(|(name, piece)| Some((word.find(name)?, name, piece)));
        let Some((at, name, piece)) = first.min_by_key(|(at, ..)| *at) else {
            pieces.push(Piece::Text(word.into()));
            break;
        };
        if at > 0 {
            pieces.push(Piece::Text(word[..at].into()));
        }
        pieces.push(piece);
        word = &word[at + name.len()..];
    }
    pieces
}

/// Splits at blanks; quotes of either kind keep blanks and empty words.
pub fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(format!("an open quote in: {text}"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::super::values::Sizes;
    use super::*;

    fn encoded(text: &str, numbers: &[u64]) -> String {
        let sizes = Sizes { smallest: 3, largest: 3 };
        let data = Data { keys: 10, key_size: 16, sizes, ttl_seconds: 1 };
        let mut bytes = Vec::new();
        Line::parse(text).expect("well formed").encode(&mut bytes, numbers, &data);
        String::from_utf8(bytes).expect("text").replace("\r\n", " ")
    }

    #[test]
    fn places_are_filled_in() {
        assert_eq!(encoded("PING 'a  b'", &[]), "*2 $4 PING $4 a  b ");
        assert_eq!(
            encoded("ZADD z {key} m:{same}", &[7]),
            "*4 $4 ZADD $1 z $12 000000000007 $14 m:000000000007 "
        );
        let mut value = Vec::new();
        write_value(&mut value, 8, 3);
        let value = String::from_utf8(value).expect("text");
        assert_eq!(
            encoded("X {key}-{key} {value}", &[7, 8]),
            format!("*3 $1 X $25 000000000007-000000000008 $3 {value} ")
        );
        assert_eq!(Line::parse("X {key} {key}").expect("well formed").number_count(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "GET {same}", "SET a {value} {key}", "GET 'a"] {
            assert!(Line::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn splits_command_lines() {
        assert_eq!(
            split_words("a  --save '' \"x y\"z").expect("closed"),
            ["a", "--save", "", "x yz"]
        );
        assert!(split_words("a 'b").is_err());
    }
}
