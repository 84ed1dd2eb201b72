//! What a command answers when it refuses: the client's fault, or the data's type.
//!
//! Every case owns its exact Redis text. A refusal depends only on the command and the data, so
//! applying an entry may end in one: all replicas refuse alike.

use ringraft_shards::keyspace::WrongType;
use std::borrow::Cow;

/// Why a command was refused. `Display` is the text after the `-`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Operation against a key of another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// An option that does not exist or does not fit.
    #[error("ERR syntax error")]
    Syntax,
    /// Text that is no 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// Text that is no float.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// No such key where one is needed.
    #[error("ERR no such key")]
    NoSuchKey,
    /// An index past the end.
    #[error("ERR index out of range")]
    IndexOutOfRange,
    /// Too few or too many arguments; the name as Redis prints it (lower case, `parent|child`).
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(Cow<'static, str>),
    /// A result larger than a string may be.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// An expiry that is not positive or overflows; the command's name.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// Any other text, code word included.
    #[error("{0}")]
    Text(Cow<'static, str>),
    /// A text that repeats bytes of the client's, which need not be UTF-8.
    #[error("{}", String::from_utf8_lossy(.0))]
    Bytes(Vec<u8>),
}

impl From<WrongType> for Refusal {
    fn from(_: WrongType) -> Refusal {
        Refusal::WrongType
    }
}

impl Refusal {
    /// A text, code word included, that repeats a word of the client's: as Redis does, up to its
    /// first NUL.
    pub fn repeating(before: &str, word: &[u8], after: &str) -> Refusal {
        let end = word.iter().position(|&byte| byte == 0).unwrap_or(word.len());
        Refusal::Bytes([before.as_bytes(), &word[..end], after.as_bytes()].concat())
    }

    /// The text after the `-`, as it is sent.
    pub fn line(&self) -> Vec<u8> {
        match self {
            Refusal::Bytes(bytes) => bytes.clone(),
            other => other.to_string().into_bytes(),
        }
    }

    /// A fixed text, code word included.
    pub const fn text(text: &'static str) -> Refusal {
        Refusal::Text(Cow::Borrowed(text))
    }
}

/// How a command ends: its reply is written, or it refuses and nothing was changed.
pub type Outcome = Result<(), Refusal>;
