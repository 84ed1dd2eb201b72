//! What transcripts run against: here, the command functions on a keyspace in this process.

use ringraft::commands::{Call, Command, Run};
use ringraft::core::commands::table;
use ringraft::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{KeyHasher, Keyspace};

/// One connection to a server with an empty keyspace.
pub trait Server {
    /// Its version, if it is a real one.
    fn version(&self) -> Option<crate::script::Version>;
    /// Runs one request; returns the reply's bytes.
    fn execute(&mut self, words: Vec<Vec<u8>>) -> Vec<u8>;
    /// Lets time go on.
    fn advance(&mut self, milliseconds: i64);
    /// Chooses a database.
    fn select(&mut self, database: u8);
    /// Chooses a protocol.
    fn speak(&mut self, protocol: Protocol);
    /// The server's time, milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
    /// Does `@differs` excuse this server?
    fn may_differ(&self) -> bool;
    /// How much time may pass unasked between a request that sets a time and PTTL, which shows it.
    fn clock_error_ms(&self) -> i64;
}

/// Can the row run without connections and cores? The others are black-box tests' business.
pub fn runs_in_process(row: &Command) -> bool {
    match row.run {
        Run::Read(_) | Run::Write(_) | Run::Block(_) => !row.flags.internal,
        Run::Plain(_) => row.name != "help" && !row.flags.random_reply && !row.flags.internal,
        Run::Container => table::rows_under(row.name).any(runs_in_process),
        Run::Session | Run::Shard | Run::Record | Run::Serve | Run::Script(_) => false,
    }
}

/// The command functions, a keyspace and a virtual clock.
pub struct InProcess {
    keyspace: Keyspace,
    now_ms: i64,
    database: DatabaseIndex,
    protocol: Protocol,
    seed: u64,
    string_bytes_max: usize,
}

impl InProcess {
    /// An empty keyspace, late in 2023.
    pub fn new() -> InProcess {
        InProcess {
            keyspace: Keyspace::new(KeyHasher::new(1)),
            now_ms: 1_700_000_000_000,
            database: DatabaseIndex(0),
            protocol: Protocol::Resp2,
            seed: 0,
            string_bytes_max: ringraft_shards::limits::STRING_BYTES_DEFAULT,
        }
    }

    fn run(&mut self, command: &'static Command, owned: &OwnedArguments, reply: &mut Reply<'_>) {
        let arguments = owned.borrow();
        let hasher = self.keyspace.hasher();
        let first_key = command.first_key(arguments, hasher);
        self.seed += 1;
        let call = Call {
            command,
            arguments,
            first_key,
            hasher,
            seed: self.seed,
            string_bytes_max: self.string_bytes_max,
        };
        let start = reply.size();
        let outcome = command.check_arity(arguments.count()).and_then(|()| match command.run {
            Run::Read(run) => run(&call, &self.keyspace.view(self.database, self.now_ms), reply),
            Run::Write(run) | Run::Block(run) => {
                run(&call, &mut self.keyspace.edit(self.database, self.now_ms), reply)
            }
            Run::Plain(run) => run(&call, reply),
            Run::Container => unreachable!("a container lacks its second word"),
            Run::Session | Run::Shard | Run::Record | Run::Serve | Run::Script(_) => {
                panic!("{} needs a whole server", command.name)
            }
        });
        if let Err(refusal) = outcome {
            reply.truncate(start);
            reply.error(&refusal.to_string());
        }
    }
}

impl Server for InProcess {
    fn version(&self) -> Option<crate::script::Version> {
        None
    }

    fn execute(&mut self, words: Vec<Vec<u8>>) -> Vec<u8> {
        let owned: OwnedArguments = words.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.protocol);
        match table::resolve(owned.borrow()) {
            Some(command) => self.run(command, &owned, &mut reply),
            None => table::refuse_unknown(owned.borrow(), &mut reply),
        }
        out
    }

    fn advance(&mut self, milliseconds: i64) {
        self.now_ms += milliseconds;
    }

    fn select(&mut self, database: u8) {
        self.database = DatabaseIndex(database);
    }

    fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn may_differ(&self) -> bool {
        false
    }

    fn clock_error_ms(&self) -> i64 {
        0
    }
}
