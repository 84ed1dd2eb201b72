//! A RESP2 or RESP3 reply as a value.

use std::fmt;
use std::io::{self, BufRead};

/// One reply. Bulk and verbatim strings keep their bytes; the rest is text.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `+text`
    Simple(String),
    /// `-text`, or a RESP3 bulk error
    Error(String),
    /// `:number`
    Integer(i64),
    /// `$length`
    Bulk(Vec<u8>),
    /// `$-1`, or `_` in RESP3
    Null,
    /// `*-1`
    NullArray,
    /// `*count`
    Array(Vec<Value>),
    /// `,number`
    Double(f64),
    /// `#t` or `#f`
    Boolean(bool),
    /// `(number`
    BigNumber(String),
    /// `=length`, the three-letter format first
    Verbatim(String, Vec<u8>),
    /// `%count`
    Map(Vec<(Value, Value)>),
    /// `~count`
    Set(Vec<Value>),
    /// `>count`
    Push(Vec<Value>),
}

impl Value {
    /// `+OK`
    pub fn ok() -> Value {
        Value::Simple("OK".into())
    }

    /// A bulk string of this text.
    pub fn bulk(text: impl AsRef<[u8]>) -> Value {
        Value::Bulk(text.as_ref().to_vec())
    }

    /// The number of an integer reply.
    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(number) => *number,
            other => panic!("expected an integer, got {other:?}"),
        }
    }

    /// The text of a simple, bulk or verbatim string.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) => text.clone(),
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            other => panic!("expected a string, got {other:?}"),
        }
    }

    /// The text of an error reply.
    pub fn error(&self) -> &str {
        match self {
            Value::Error(text) => text,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// The elements of an array, set or push.
    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(values) | Value::Set(values) | Value::Push(values) => values,
            other => panic!("expected an array, got {other:?}"),
        }
    }

    /// Is this an error reply?
    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// Reads one reply. An end of file, a time-out or bytes that are not RESP are errors.
    pub fn read(from: &mut impl BufRead) -> io::Result<Value> {
        let line = read_line(from)?;
        let Some((&kind, rest)) = line.split_first() else {
            return Err(malformed("an empty line"));
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        Ok(match kind {
            b'+' => Value::Simple(text),
            b'-' => Value::Error(text),
            b':' => Value::Integer(number(&text)?),
            b'_' => Value::Null,
            b',' => Value::Double(text.parse().map_err(|_| malformed(&text))?),
            b'#' => Value::Boolean(text == "t"),
            b'(' => Value::BigNumber(text),
            b'$' if text == "-1" => Value::Null,
            b'*' if text == "-1" => Value::NullArray,
            b'$' => Value::Bulk(read_bulk(from, number(&text)?)?),
            b'!' => Value::Error(
                String::from_utf8_lossy(&read_bulk(from, number(&text)?)?).into_owned(),
            ),
            b'=' => {
                let bytes = read_bulk(from, number(&text)?)?;
                let format = String::from_utf8_lossy(&bytes[..3.min(bytes.len())]).into_owned();
                Value::Verbatim(format, bytes.get(4..).unwrap_or_default().to_vec())
            }
            b'*' => Value::Array(read_many(from, number(&text)?)?),
            b'~' => Value::Set(read_many(from, number(&text)?)?),
            b'>' => Value::Push(read_many(from, number(&text)?)?),
            b'%' => {
                let mut values = read_many(from, number::<usize>(&text)? * 2)?.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            _ => return Err(malformed(&String::from_utf8_lossy(&line))),
        })
    }
}

/// Shortened, so that a failed comparison of a large value stays readable.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        match self {
            Value::Simple(text) => write!(f, "+{text}"),
            Value::Error(text) => write!(f, "-{text}"),
            Value::Integer(number) => write!(f, ":{number}"),
            Value::Null => write!(f, "nil"),
            Value::NullArray => write!(f, "nil array"),
            Value::Double(number) => write!(f, ",{number}"),
            Value::Boolean(truth) => write!(f, "#{truth}"),
            Value::BigNumber(text) => write!(f, "({text}"),
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) if bytes.len() > SHOWN => {
                write!(f, "{} bytes, \"{}...\"", bytes.len(), bytes[..SHOWN].escape_ascii())
            }
            Value::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Verbatim(format, bytes) => write!(f, "{format}:\"{}\"", bytes.escape_ascii()),
            Value::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Value::Array(values) => f.debug_list().entries(values.iter().take(SHOWN)).finish(),
            Value::Set(values) => f.debug_set().entries(values.iter().take(SHOWN)).finish(),
            Value::Push(values) => write!(f, "push {values:?}"),
        }
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed"));
    }
    if !line.ends_with(b"\r\n") {
        return Err(malformed(&String::from_utf8_lossy(&line)));
    }
    line.truncate(line.len() - 2);
    Ok(line)
}

fn read_bulk(from: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length + 2];
    from.read_exact(&mut bytes)?;
    if !bytes.ends_with(b"\r\n") {
        return Err(malformed("a bulk string that does not end in CR LF"));
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn read_many(from: &mut impl BufRead, count: usize) -> io::Result<Vec<Value>> {
    (0..count).map(|_| Value::read(from)).collect()
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| malformed(text))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {what}"))
}
