//! Reads JSON as lua-cjson does: what it takes beside the standard (`NaN`, `0x1F`, `012`), and its
//! words for what it does not.

use super::json::Manner;
use super::raise::Fault;
use mlua::{Lua, Table, Value};

/// Tables one inside the other, whatever a script allows itself.
const DEPTH_MAX: i64 = 10_000;

/// Reads a text. Errors: it is no JSON.
pub fn read(lua: &Lua, manner: &Manner, text: &[u8]) -> Result<Value, Fault> {
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(Fault::placed("JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut reader = Reader { lua, manner, text, at: 0, depth: 0 };
    let token = reader.next()?;
    let value = reader.value(token)?;
    let (at, token) = reader.next()?;
    match token {
        Token::End => Ok(value),
        token => Err(reader.unexpected("the end", at, &token)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Text(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(text) => text,
        }
    }
}

struct Reader<'a> {
    lua: &'a Lua,
    manner: &'a Manner,
    text: &'a [u8],
    at: usize,
    depth: i64,
}

impl Reader<'_> {
    fn unexpected(&self, expected: &str, at: usize, found: &Token) -> Fault {
        let found = found.name();
        Fault::placed(format!("Expected {expected} but found {found} at character {}", at + 1))
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The next token and where it stands.
    fn next(&mut self) -> Result<(usize, Token), Fault> {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        let simple = |token| Some((1, token));
        let found = match self.peek(0) {
            b'{' => simple(Token::ObjectBegin),
            b'}' => simple(Token::ObjectEnd),
            b'[' => simple(Token::ArrayBegin),
            b']' => simple(Token::ArrayEnd),
            b':' => simple(Token::Colon),
            b',' => simple(Token::Comma),
            0 if start >= self.text.len() => Some((0, Token::End)),
            0 => Some((0, Token::Error("invalid token"))),
            _ if self.text[start..].starts_with(b"true") => Some((4, Token::Boolean(true))),
            _ if self.text[start..].starts_with(b"false") => Some((5, Token::Boolean(false))),
            _ if self.text[start..].starts_with(b"null") => Some((4, Token::Null)),
            _ => None,
        };
        if let Some((length, token)) = found {
            self.at += length;
            return Ok((start, token));
        }
        Ok(match self.peek(0) {
            b'"' => {
                let token = self.string();
                // What is wrong in a string is said where it is.
                let at = if matches!(token, Token::Error(_)) { self.at } else { start };
                (at, token)
            }
            b'-' | b'0'..=b'9' => (start, self.number()),
            b'n' | b'N' | b'i' | b'I' if self.manner.invalid_decode.get() => (start, self.number()),
            _ => (start, Token::Error("invalid token")),
        })
    }

    fn string(&mut self) -> Token {
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Token::Text(bytes);
                }
                0 => return Token::Error("unexpected end of string"),
                b'\\' => {
                    let byte = match self.peek(1) {
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'u' => {
                            let Some((character, length)) = self.code_point() else {
                                return Token::Error("invalid unicode escape code");
                            };
                            let mut utf8 = [0; 4];
                            bytes.extend(character.encode_utf8(&mut utf8).as_bytes());
                            self.at += length;
                            continue;
                        }
                        _ => return Token::Error("invalid escape code"),
                    };
                    bytes.push(byte);
                    self.at += 2;
                }
                byte => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn code_unit(&self, ahead: usize) -> Option<u32> {
        let digits = self.text.get(self.at + ahead..self.at + ahead + 6)?;
        let digits = digits.strip_prefix(b"\\u")?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn code_point(&self) -> Option<(char, usize)> {
        let high = self.code_unit(0)?;
        if !(0xd800..0xe000).contains(&high) {
            return Some((char::from_u32(high)?, 6));
        }
        let low = self.code_unit(6).filter(|low| (0xdc00..0xe000).contains(low))?;
        let point = 0x1_0000 + ((high.checked_sub(0xd800)? & 0x3ff) << 10) + (low & 0x3ff);
        (high < 0xdc00).then_some(())?;
        Some((char::from_u32(point)?, 12))
    }

    /// A number as C's strtod reads one.
    fn number(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = &rest[sign..];
        let is_word = |word: &[u8]| {
            digits.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        let is_hex = is_word(b"0x");
        let has_leading_zero = digits.first() == Some(&b'0')
            && digits.get(1).is_some_and(|digit| digit.is_ascii_digit());
        let is_invalid = is_word(b"inf") || is_word(b"nan") || is_hex || has_leading_zero;
        if is_invalid && !self.manner.invalid_decode.get() {
            return Token::Error("invalid number");
        }
        let (value, length) = if is_word(b"infinity") {
            (f64::INFINITY, 8)
        } else if is_word(b"inf") {
            (f64::INFINITY, 3)
        } else if is_word(b"nan") {
            (f64::NAN, 3)
        } else if is_hex && digits.get(2).is_some_and(u8::is_ascii_hexdigit) {
            let count = digits[2..].iter().take_while(|digit| digit.is_ascii_hexdigit()).count();
            let value = digits[2..2 + count].iter().fold(0f64, |value, digit| {
                value * 16.0 + f64::from(char::from(*digit).to_digit(16).unwrap_or(0))
            });
            (value, 2 + count)
        } else {
            decimal(digits)
        };
        if length == 0 {
            let is_number = rest[0] == b'-';
            return Token::Error(if is_number { "invalid number" } else { "invalid token" });
        }
        self.at += sign + length;
        Token::Number(if sign == 1 { -value } else { value })
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > self.manner.decode_depth.get().min(DEPTH_MAX) {
            let text = format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth,
                at + 1
            );
            return Err(Fault::placed(text));
        }
        Ok(())
    }

    fn value(&mut self, (at, token): (usize, Token)) -> Result<Value, Fault> {
        Ok(match token {
            Token::Text(bytes) => Value::String(self.lua.create_string(&bytes)?),
            Token::Number(number) => Value::Number(number),
            Token::Boolean(value) => Value::Boolean(value),
            Token::Null => Value::NULL,
            Token::ObjectBegin => {
                self.deeper(self.at - 1)?;
                let table = self.object()?;
                self.depth -= 1;
                Value::Table(table)
            }
            Token::ArrayBegin => {
                self.deeper(self.at - 1)?;
                let table = self.array()?;
                self.depth -= 1;
                Value::Table(table)
            }
            token => return Err(self.unexpected("value", at, &token)),
        })
    }

    fn object(&mut self) -> Result<Table, Fault> {
        let table = self.lua.create_table()?;
        let (mut at, mut token) = self.next()?;
        if matches!(token, Token::ObjectEnd) {
            return Ok(table);
        }
        loop {
            let Token::Text(key) = token else {
                return Err(self.unexpected("object key string", at, &token));
            };
            let key = self.lua.create_string(&key)?;
            let (colon_at, colon) = self.next()?;
            if !matches!(colon, Token::Colon) {
                return Err(self.unexpected("colon", colon_at, &colon));
            }
            let token_of_value = self.next()?;
            let value = self.value(token_of_value)?;
            table.raw_set(key, value)?;
            match self.next()? {
                (_, Token::ObjectEnd) => return Ok(table),
                (_, Token::Comma) => (at, token) = self.next()?,
                (at, other) => return Err(self.unexpected("comma or object end", at, &other)),
            }
        }
    }

    fn array(&mut self) -> Result<Table, Fault> {
        let table = self.lua.create_table()?;
        let mut token = self.next()?;
        if matches!(token.1, Token::ArrayEnd) {
            return Ok(table);
        }
        for nth in 1.. {
            let value = self.value(token)?;
            table.raw_set(nth, value)?;
            match self.next()? {
                (_, Token::ArrayEnd) => break,
                (_, Token::Comma) => token = self.next()?,
                (at, other) => return Err(self.unexpected("comma or array end", at, &other)),
            }
        }
        Ok(table)
    }
}

/// A decimal number at the start of a text, and its length; 0 when there is none.
fn decimal(text: &[u8]) -> (f64, usize) {
    let digits = |from: usize| {
        text.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(length + 1);
        if whole + fraction == 0 {
            return (0.0, 0);
        }
        length += 1 + fraction;
    }
    if length == 0 {
        return (0.0, 0);
    }
    if matches!(text.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let parsed = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.parse().ok());
    parsed.map_or((0.0, 0), |value| (value, length))
}
