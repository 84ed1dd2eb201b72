//! Runs commands on a keyspace in tests that need more of it than a transcript can show.

use super::refusal::Refusal;
use super::{Call, Run, families};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{KeyHasher, Keyspace};
use ringraft_shards::limits::STRING_BYTES_DEFAULT;

/// A keyspace with a clock of its own, and database 0 of it.
pub struct Runner {
    /// The time, milliseconds since the Unix epoch.
    pub now_ms: i64,
    keyspace: Keyspace,
    seed: u64,
}

impl Default for Runner {
    fn default() -> Runner {
        let keyspace = Keyspace::new(KeyHasher::new(1));
        Runner { now_ms: 1_700_000_000_000, keyspace, seed: 0 }
    }
}

impl Runner {
    /// Builds the ordered index.
    pub fn order(&mut self) {
        self.keyspace.order(DatabaseIndex(0), self.now_ms);
    }

    /// Runs one request, rows of the leader included; returns the reply. Panics when it refuses.
    pub fn run(&mut self, words: &[&str]) -> Vec<u8> {
        self.try_run(words).expect("a right request")
    }

    /// Runs one request; returns the reply or the refusal.
    pub fn try_run(&mut self, words: &[&str]) -> Result<Vec<u8>, Refusal> {
        let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
        let arguments = owned.borrow();
        let mut rows = families::FAMILIES.iter().copied().flatten();
        let command = rows.find(|row| arguments.is(0, row.name)).expect("a known command");
        let hasher = self.keyspace.hasher();
        let first_key = command.first_key(arguments, hasher);
        // Any odd constant: commands with chance want all bits to change.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let call = Call {
            command,
            arguments,
            first_key,
            hasher,
            seed: self.seed,
            string_bytes_max: STRING_BYTES_DEFAULT,
        };
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        let database = DatabaseIndex(0);
        let outcome = match command.run {
            Run::Read(run) => run(&call, &self.keyspace.view(database, self.now_ms), &mut reply),
            Run::Write(run) => {
                run(&call, &mut self.keyspace.edit(database, self.now_ms), &mut reply)
            }
            _ => unreachable!("tests ask for commands on items alone"),
        };
        outcome.map(|()| out)
    }
}

/// The bulk strings of a reply, arrays around them ignored.
pub fn bulks(mut reply: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(end) = reply.windows(2).position(|pair| pair == b"\r\n") {
        let (line, rest) = (&reply[..end], &reply[end + 2..]);
        reply = rest;
        if let [b'$', digits @ ..] = line {
            let digits = std::str::from_utf8(digits).expect("digits");
            let size: usize = digits.parse().expect("a length");
            found.push(&rest[..size]);
            reply = &rest[size + 2..];
        }
    }
    found
}
