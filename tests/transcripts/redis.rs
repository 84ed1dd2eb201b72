//! The redis-server that transcripts are compared with, when one is installed.
//!
//! Its clock cannot be moved. Letting time go on is therefore done the other way round: every
//! deadline is moved back, which looks the same to all that follows.

use crate::reply;
use crate::script::{Version, version};
use crate::server::Server;
use ringraft::core::commands::table;
use ringraft::resp::reply::Protocol;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const DATABASE_COUNT: u8 = 16;

/// A running redis-server on a socket in a scratch directory. It ends with this value.
pub struct RedisServer {
    child: Child,
    folder: TempDir,
    version: Version,
}

impl RedisServer {
    /// Starts one and waits until it listens. `None` when there is no redis-server.
    pub fn start() -> Option<RedisServer> {
        let folder = TempDir::new().expect("a scratch directory");
        let mut child =
            Command::new(std::env::var_os("REDIS_SERVER").unwrap_or("redis-server".into()))
                .args(["--port", "0", "--unixsocket", "redis.sock", "--save", ""])
                .args(["--enable-debug-command", "yes"])
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .ok()?;
        let output = child.stdout.take().expect("it was piped");
        let listens = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("eady to accept connections"));
        assert!(listens, "redis-server ended before it listened");
        let mut server = RedisServer { child, folder, version: (0, 0) };
        let info = server.connect().must(&["INFO", "server"]).concat();
        let shown = info.split("redis_version:").nth(1).expect("INFO says it");
        server.version = version(shown).expect("numbers and dots");
        Some(server)
    }

    /// A connection, after emptying every database.
    pub fn connect(&self) -> Redis {
        let path = self.folder.path().join("redis.sock");
        let stream = UnixStream::connect(path).expect("it listens");
        let mut redis = Redis { stream, input: Vec::new(), database: 0, version: self.version };
        redis.must(&["FLUSHALL"]);
        redis.must(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        redis
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection.
pub struct Redis {
    stream: UnixStream,
    input: Vec<u8>,
    database: u8,
    version: Version,
}

impl Redis {
    /// Runs a request that must not fail; returns the reply's lines.
    fn must(&mut self, words: &[&str]) -> Vec<String> {
        let reply = self.execute(words.iter().map(|word| word.as_bytes().to_vec()).collect());
        assert!(!reply.starts_with(b"-"), "{words:?}: {}", String::from_utf8_lossy(&reply));
        reply::render(&reply)
    }

    /// Moves all deadlines of one database back.
    fn age(&mut self, milliseconds: i64) {
        const SCRIPT: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do
            local at = redis.call('PEXPIRETIME', key)
            if at >= 0 then redis.call('PEXPIREAT', key, at - ARGV[1]) end end";
        self.must(&["EVAL", SCRIPT, "0", &milliseconds.to_string()]);
    }
}

impl Server for Redis {
    fn version(&self) -> Option<Version> {
        Some(self.version)
    }

    fn execute(&mut self, words: Vec<Vec<u8>>) -> Vec<u8> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).expect("redis-server reads");
        loop {
            if let Some(size) = reply::size_of_first(&self.input) {
                return self.input.drain(..size).collect();
            }
            let mut part = [0; 1 << 16];
            let size = self.stream.read(&mut part).expect("redis-server answers");
            assert!(size > 0, "redis-server closed the connection");
            self.input.extend_from_slice(&part[..size]);
        }
    }

    fn advance(&mut self, milliseconds: i64) {
        let database = self.database;
        for other in 0..DATABASE_COUNT {
            self.must(&["SELECT", &other.to_string()]);
            self.age(milliseconds);
        }
        self.select(database);
    }

    fn select(&mut self, database: u8) {
        self.database = database;
        self.must(&["SELECT", &database.to_string()]);
    }

    fn speak(&mut self, protocol: Protocol) {
        let version = match protocol {
            Protocol::Resp2 => "2",
            Protocol::Resp3 => "3",
        };
        self.must(&["HELLO", version]);
    }

    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        since.as_millis() as i64
    }

    fn may_differ(&self) -> bool {
        true
    }

    fn clock_error_ms(&self) -> i64 {
        900
    }
}

/// Facts of rows that are not as in Redis, and why.
const ROWS_THAT_DIFFER: &[(&str, &str, &str)] = &[
    ("keys", "arity and keys", "words that bound and order the page may follow the pattern"),
    ("watch", "arity and keys", "the session sends each key to its shard itself"),
    ("command|getkeys", "arity and keys", "7.0 demands an argument of the command, 7.2 does not"),
    ("command|getkeysandflags", "arity and keys", "7.0 demands an argument, 7.2 does not"),
    ("zrank", "arity and keys", "7.2 takes WITHSCORE"),
    ("zrevrank", "arity and keys", "7.2 takes WITHSCORE"),
    ("sunsubscribe", "arity and keys", "Redis counts channels as keys that need not be there"),
    ("object|help", "readonly", "it runs where the other subcommands run"),
];

/// Compares arity, flags and key positions of every row with what COMMAND INFO says. Rows that
/// Redis does not have are passed over. Returns the differences.
pub fn compare_rows(redis: &mut Redis) -> Vec<String> {
    let mut differences = Vec::new();
    for row in table::rows() {
        let lines = redis.must(&["COMMAND", "INFO", &row.full_name()]);
        // An array of one, a null or a command: name, arity, flags, first key, last key, step, and
        // more.
        if lines.len() <= 2 {
            continue;
        }
        let flags: Vec<&str> =
            lines[5..].iter().map_while(|line| line.strip_prefix("      +")).collect();
        let numbers: Vec<&str> = std::iter::once(&lines[3])
            .chain(&lines[5 + flags.len()..8 + flags.len()])
            .map(|line| line.trim().trim_start_matches(':'))
            .collect();
        let real: BTreeMap<&str, String> = BTreeMap::from([
            ("arity and keys", format!("{numbers:?}")),
            ("write", flags.contains(&"write").to_string()),
            ("readonly", flags.contains(&"readonly").to_string()),
            ("fast", flags.contains(&"fast").to_string()),
            ("grows", flags.contains(&"denyoom").to_string()),
        ]);
        let keys = row.keys;
        let numbers = [row.arity.number(), keys.first as i64, keys.last as i64, keys.step as i64];
        let numbers = numbers.map(|number| number.to_string());
        let ours: BTreeMap<&str, String> = BTreeMap::from([
            ("arity and keys", format!("{numbers:?}")),
            ("write", row.flags.write.to_string()),
            ("readonly", row.flags.readonly.to_string()),
            ("fast", row.flags.fast.to_string()),
            ("grows", row.flags.grows.to_string()),
        ]);
        for (fact, real) in real {
            let name = row.full_name();
            let meant = ROWS_THAT_DIFFER.iter().any(|known| (known.0, known.1) == (&name, fact));
            if ours[fact] != real && !meant {
                differences.push(format!("{name}: {fact} is {real} in Redis, {} here", ours[fact]));
            }
        }
    }
    differences
}
