//! The commands that the client can send, and what each must answer.

use super::keys::write_key;
use super::line::Line;
use super::plan::Data;
use super::resp::{Elements, Reply, bulk, header};
use super::values::{is_value_of, write_value};

/// A command of a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `PING`
    Ping,
    /// `GET key`
    Get,
    /// `SET key value`
    Set,
    /// `SET key value EX seconds`
    SetEx,
    /// `MGET key ...`
    MGet,
    /// `MSET key value ...`
    MSet,
    /// `INCR counter`: the key's text with its first letter replaced, so that values stay what they
    /// were.
    Incr,
    /// `DEL key`
    Del,
    /// `EXISTS key`
    Exists,
    /// `BITCOUNT key`
    BitCount,
    /// A command line of the scenario's.
    Line(&'static Line),
}

/// All of them with the names that scenarios use.
pub const OPERATIONS: &[(&str, Operation)] = &[
    ("ping", Operation::Ping),
    ("get", Operation::Get),
    ("set", Operation::Set),
    ("setex", Operation::SetEx),
    ("mget", Operation::MGet),
    ("mset", Operation::MSet),
    ("incr", Operation::Incr),
    ("del", Operation::Del),
    ("exists", Operation::Exists),
    ("bitcount", Operation::BitCount),
];

/// What a reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be; of a read so many keys were found, and so many not.
    Fine {
        /// Keys found.
        hits: u32,
        /// Keys not found.
        misses: u32,
    },
    /// An error reply.
    Refused,
    /// Of the wrong kind, or with the wrong content.
    Wrong,
}

/// How closely a reply is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Whether it is of the right kind; cheap, and done with every reply.
    Kind,
    /// Also whether values are those of their keys.
    Content,
}

impl Operation {
    /// Keys in one request, given those of a command that takes many.
    pub fn key_count(self, keys_per_command: usize) -> usize {
        match self {
            Operation::Ping => 0,
            Operation::MGet | Operation::MSet => keys_per_command,
            Operation::Line(line) => line.number_count(),
            _ => 1,
        }
    }

    /// Appends the request for these keys.
    pub fn encode(self, bytes: &mut Vec<u8>, keys: &[u64], data: &Data) {
        match self {
            Operation::Ping => command(bytes, 1, b"PING"),
            Operation::Get => with_keys(bytes, b"GET", keys, data),
            Operation::MGet => with_keys(bytes, b"MGET", keys, data),
            Operation::Del => with_keys(bytes, b"DEL", keys, data),
            Operation::Exists => with_keys(bytes, b"EXISTS", keys, data),
            Operation::BitCount => with_keys(bytes, b"BITCOUNT", keys, data),
            Operation::Line(line) => line.encode(bytes, keys, data),
            Operation::Set => with_values(bytes, b"SET", keys, data),
            Operation::MSet => with_values(bytes, b"MSET", keys, data),
            Operation::SetEx => {
                command(bytes, 5, b"SET");
                pairs(bytes, keys, data);
                bulk(bytes, b"EX");
                bulk(bytes, data.ttl_seconds.to_string().as_bytes());
            }
            Operation::Incr => {
                with_keys(bytes, b"INCR", keys, data);
                // The key is the last argument: its text and a line end.
                let first = bytes.len() - 2 - data.key_size;
                bytes[first] = b'n';
            }
        }
    }

    /// Judges a reply.
    pub fn judge(self, reply: Reply, keys: &[u64], data: &Data, verify: Verify) -> Verdict {
        const FINE: Verdict = Verdict::Fine { hits: 0, misses: 0 };
        match (self, reply) {
            (_, Reply::Error(_)) => Verdict::Refused,
            (Operation::Ping, Reply::Status(b"PONG")) => FINE,
            (Operation::Set | Operation::SetEx | Operation::MSet, Reply::Status(b"OK")) => FINE,
            (Operation::Incr, Reply::Integer(1..)) | (Operation::Line(_), _) => FINE,
            (Operation::BitCount, Reply::Integer(bits)) => {
                if verify == Verify::Content && bits != bits_of(keys[0], data) {
                    return Verdict::Wrong;
                }
                FINE
            }
            (Operation::Del | Operation::Exists, Reply::Integer(found @ 0..=1)) => {
                Verdict::Fine { hits: found as u32, misses: 1 - found as u32 }
            }
            (Operation::Get, Reply::Bulk(value)) => tally([value].into_iter(), keys, data, verify),
            (Operation::MGet, Reply::Array(elements)) => {
                let mut odd = false;
                let values = Elements(elements).map_while(|element| match element {
                    Reply::Bulk(value) => Some(value),
                    _ => {
                        odd = true;
                        None
                    }
                });
                let verdict = tally(values, keys, data, verify);
                if odd { Verdict::Wrong } else { verdict }
            }
            _ => Verdict::Wrong,
        }
    }
}

/// How many bits are set in the value of a key.
fn bits_of(key: u64, data: &Data) -> i64 {
    let mut value = Vec::new();
    write_value(&mut value, key, data.sizes.of(key));
    value.iter().map(|byte| i64::from(byte.count_ones())).sum()
}

fn tally<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    keys: &[u64],
    data: &Data,
    verify: Verify,
) -> Verdict {
    let (mut hits, mut misses) = (0, 0);
    let mut expected = keys.iter();
    for value in values {
        let Some(key) = expected.next() else { return Verdict::Wrong };
        match value {
            Some(value) if verify == Verify::Content && !is_value_of(value, *key, data.sizes) => {
                return Verdict::Wrong;
            }
            Some(_) => hits += 1,
            None => misses += 1,
        }
    }
    if expected.next().is_some() { Verdict::Wrong } else { Verdict::Fine { hits, misses } }
}

fn command(bytes: &mut Vec<u8>, arguments: usize, name: &[u8]) {
    header(bytes, b'*', arguments);
    bulk(bytes, name);
}

fn with_keys(bytes: &mut Vec<u8>, name: &[u8], keys: &[u64], data: &Data) {
    command(bytes, 1 + keys.len(), name);
    for key in keys {
        header(bytes, b'$', data.key_size);
        write_key(bytes, *key, data.key_size);
        bytes.extend_from_slice(b"\r\n");
    }
}

fn with_values(bytes: &mut Vec<u8>, name: &[u8], keys: &[u64], data: &Data) {
    command(bytes, 1 + 2 * keys.len(), name);
    pairs(bytes, keys, data);
}

fn pairs(bytes: &mut Vec<u8>, keys: &[u64], data: &Data) {
    for key in keys {
        header(bytes, b'$', data.key_size);
        write_key(bytes, *key, data.key_size);
        bytes.extend_from_slice(b"\r\n");
        let size = data.sizes.of(*key);
        header(bytes, b'$', size);
        write_value(bytes, *key, size);
        bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::Sizes;
    use super::*;

    const DATA: Data =
        Data { keys: 10, key_size: 6, sizes: Sizes { smallest: 8, largest: 8 }, ttl_seconds: 60 };

    fn encoded(operation: Operation, keys: &[u64]) -> String {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes, keys, &DATA);
        String::from_utf8(bytes).expect("keys and values are text").replace("\r\n", " ")
    }

    fn value(key: u64) -> Vec<u8> {
        let mut value = Vec::new();
        write_value(&mut value, key, 8);
        value
    }

    #[test]
    fn requests() {
        let value = String::from_utf8(value(7)).expect("text");
        assert_eq!(encoded(Operation::Ping, &[]), "*1 $4 PING ");
        assert_eq!(encoded(Operation::Get, &[7]), "*2 $3 GET $6 key:07 ");
        assert_eq!(encoded(Operation::Incr, &[7]), "*2 $4 INCR $6 ney:07 ");
        assert_eq!(encoded(Operation::MGet, &[1, 2]), "*3 $4 MGET $6 key:01 $6 key:02 ");
        assert_eq!(encoded(Operation::MSet, &[7]), format!("*3 $4 MSET $6 key:07 $8 {value} "));
        assert_eq!(
            encoded(Operation::SetEx, &[7]),
            format!("*5 $3 SET $6 key:07 $8 {value} $2 EX $2 60 ")
        );
    }

    #[test]
    fn a_sampled_reply_must_have_its_keys_value() {
        let right = value(3);
        let wrong = value(4);
        let judge = |value: &[u8], verify| {
            Operation::Get.judge(Reply::Bulk(Some(value)), &[3], &DATA, verify)
        };
        assert_eq!(judge(&right, Verify::Content), Verdict::Fine { hits: 1, misses: 0 });
        assert_eq!(judge(&wrong, Verify::Content), Verdict::Wrong);
        assert_eq!(judge(&wrong, Verify::Kind), Verdict::Fine { hits: 1, misses: 0 });
    }

    #[test]
    fn kinds_are_always_looked_at() {
        let judge = |operation: Operation, reply| operation.judge(reply, &[3], &DATA, Verify::Kind);
        assert_eq!(judge(Operation::Set, Reply::Status(b"QUEUED")), Verdict::Wrong);
        assert_eq!(judge(Operation::Set, Reply::Error(b"OOM")), Verdict::Refused);
        assert_eq!(judge(Operation::Get, Reply::Integer(1)), Verdict::Wrong);
        assert_eq!(judge(Operation::Get, Reply::Bulk(None)), Verdict::Fine { hits: 0, misses: 1 });
        assert_eq!(judge(Operation::Del, Reply::Integer(2)), Verdict::Wrong);
        assert_eq!(judge(Operation::Incr, Reply::Integer(0)), Verdict::Wrong);
        let bits = Operation::BitCount;
        assert_eq!(judge(bits, Reply::Bulk(None)), Verdict::Wrong);
        let judge =
            |bits| Operation::BitCount.judge(Reply::Integer(bits), &[3], &DATA, Verify::Content);
        assert_eq!(judge(bits_of(3, &DATA)), Verdict::Fine { hits: 0, misses: 0 });
        assert_eq!(judge(bits_of(3, &DATA) + 1), Verdict::Wrong);
    }

    #[test]
    fn an_array_has_one_value_per_key() {
        let judge =
            |elements| Operation::MGet.judge(Reply::Array(elements), &[1, 2], &DATA, Verify::Kind);
        assert_eq!(judge(b"$1\r\nx\r\n$-1\r\n"), Verdict::Fine { hits: 1, misses: 1 });
        assert_eq!(judge(b"$1\r\nx\r\n"), Verdict::Wrong);
        assert_eq!(judge(b"$1\r\nx\r\n$1\r\nx\r\n$1\r\nx\r\n"), Verdict::Wrong);
        assert_eq!(judge(b"$1\r\nx\r\n:1\r\n"), Verdict::Wrong);
    }
}
