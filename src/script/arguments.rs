//! Arguments of functions that scripts call, checked in Lua's words.

use super::raise::Fault;
use mlua::{LuaString, MultiValue, Value};

/// The arguments of one call.
pub struct Given {
    /// They.
    pub values: Vec<Value>,
}

/// Lua's name for the type of a value.
pub fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "no value",
        Some(Value::LightUserData(_) | Value::UserData(_) | Value::Error(_)) => "userdata",
        Some(Value::Integer(_)) => "number",
        Some(value) => value.type_name(),
    }
}

/// The number that a value is, or that its text says.
pub fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        Value::String(text) => parse_number(&text.as_bytes()),
        _ => None,
    }
}

/// As Lua's `tonumber` reads a text: white space around it, hexadecimal digits behind `0x`.
fn parse_number(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|number| sign * number as f64);
    }
    // "inf" and "nan" are numbers for C's strtod and Rust alike.
    digits.parse::<f64>().ok().map(|number| sign * number)
}

/// The text of a number as Lua writes it.
pub fn number_text(number: f64) -> Vec<u8> {
    super::printing::general(number, 14)
}

impl Given {
    /// The arguments of the function that runs.
    pub fn new(values: MultiValue) -> Given {
        Given { values: values.into_vec() }
    }

    /// Argument `nth`, from 1.
    pub fn get(&self, nth: usize) -> Option<&Value> {
        self.values.get(nth - 1)
    }

    /// Argument `nth` is wrong.
    pub fn fault(&self, nth: usize, why: &str) -> Fault {
        Fault::argument(nth, why)
    }

    fn expected(&self, nth: usize, what: &str) -> Fault {
        let why = format!("{what} expected, got {}", type_name(self.get(nth)));
        self.fault(nth, &why)
    }

    /// A number. Errors: it is none.
    pub fn number(&self, nth: usize) -> Result<f64, Fault> {
        self.get(nth).and_then(number_of).ok_or_else(|| self.expected(nth, "number"))
    }

    /// A whole number, cut as Lua does. Errors: as [`Given::number`].
    pub fn integer(&self, nth: usize) -> Result<i64, Fault> {
        self.number(nth).map(|number| number as i64)
    }

    /// A whole number if there is one. Errors: as [`Given::number`].
    pub fn optional_integer(&self, nth: usize, otherwise: i64) -> Result<i64, Fault> {
        match self.get(nth) {
            None | Some(Value::Nil) => Ok(otherwise),
            Some(_) => self.integer(nth),
        }
    }

    /// A string, or the text of a number. Errors: it is neither.
    pub fn bytes(&self, nth: usize) -> Result<Vec<u8>, Fault> {
        self.get(nth).and_then(bytes_of).ok_or_else(|| self.expected(nth, "string"))
    }
}

/// The bytes of a string or of a number's text.
pub fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(LuaString::as_bytes(text).to_vec()),
        Value::Number(number) => Some(number_text(*number)),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}
