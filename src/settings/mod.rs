//! The settings of a server: what the command line, the file and CONFIG say.
//!
//! One table of rows ([`table`]) serves all three, so that a setting has one name, one range and
//! one text everywhere. [`Settings`] is plain data: each core holds its own copy and is sent
//! changes. Knows nothing of threads or sockets: what a change entails outside (log level, open
//! files) is `node::apply`'s.

pub mod bind;
pub mod events;
pub mod file;
pub mod known;
pub mod redis_file;
pub mod row;
pub mod table;
pub mod tls;
pub mod values;

use crate::glob::Glob;
use crate::net::ring::Features;
use crate::net::tls::TlsSettings;
use crate::refusal::Refusal;
use bind::Bind;
use events::Events;
use known::{KNOWN, Stranger};
use ringraft_shards::value::Limits;
use row::Setting;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use table::TABLE;
use values::{
    BufferLimits, ClientShare, Consistency, CoresInUse, Fsync, LogLevel, MaxmemoryPolicy, Mode,
    PubsubDefault, Routing, Slots, Spin,
};

/// Why clients are not sent to slots that are not theirs.
pub const NEEDS_REDIS_SLOTS: &str =
    "moved needs the slots of Redis Cluster: data that was created with --slots redis";

/// Every setting's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Addresses to listen on.
    pub bind: Bind,
    /// Port for clients.
    pub port: u16,
    /// Port, certificates and rules of TLS.
    pub tls: TlsSettings,
    /// Path of the unix socket; empty for none.
    pub unixsocket: String,
    /// Its permission bits; 0 leaves them to the umask.
    pub unixsocketperm: u32,
    /// Are clients of other machines refused while there is no password?
    pub protected_mode: bool,
    /// Where data is kept in `store` mode.
    pub dir: PathBuf,
    /// Count of shards; `None` until the data directory or the cores decide it.
    pub shards: Option<u16>,
    /// How keys are placed in slots; what the directory says once it is open.
    pub slots: Slots,
    /// The cpus that cores are pinned to; `None` until they are chosen from the allowed ones.
    pub cores: Option<Vec<usize>>,
    /// Whether data is kept on disk.
    pub mode: Mode,
    /// When the log is synced; `No` in `cache` mode.
    pub fsync: Fsync,
    /// Size of one log segment.
    pub segment_size: u64,
    /// Bytes of a shard's log after which a snapshot is taken.
    pub snapshot_log_bytes: u64,
    /// Seconds between snapshots of a shard that was written to; 0 is never.
    pub snapshot_interval: u32,
    /// Memory above which items are evicted or writes refused; 0 is no limit.
    pub maxmemory: u64,
    /// What goes when `maxmemory` is reached.
    pub maxmemory_policy: MaxmemoryPolicy,
    /// Items looked at for each eviction.
    pub maxmemory_samples: u32,
    /// The password of AUTH; empty is none.
    pub requirepass: String,
    /// Users of the configuration file, a line of rules each.
    pub users: Vec<String>,
    /// The file of users; empty for none.
    pub aclfile: PathBuf,
    /// Entries that ACL LOG keeps.
    pub acllog_max_len: u64,
    /// Which channels a new user may use.
    pub acl_pubsub_default: PubsubDefault,
    /// Connections at a time.
    pub maxclients: u32,
    /// Seconds after which an idle connection is closed; 0 is never.
    pub timeout: u32,
    /// Seconds of silence after which the kernel probes a connection; 0 is never.
    pub tcp_keepalive: u32,
    /// Unsent reply bytes that close a connection.
    pub client_output_buffer_limit: BufferLimits,
    /// Keys that are tracked for clients' caches; 0 for any number.
    pub tracking_table_max_keys: u32,
    /// Keyspace events that clients may hear of.
    pub notify_keyspace_events: Events,
    /// Bytes of an unfinished argument that close a connection.
    pub client_query_buffer_limit: u64,
    /// Length of one argument or value.
    pub proto_max_bulk_len: u64,
    /// Memory of each core's interpreter of scripts.
    pub script_memory: u64,
    /// No script runs longer, milliseconds; 0: as long as it likes.
    pub script_time_limit: u32,
    /// Milliseconds after which others are told that a script runs; 0 is never.
    pub busy_reply_threshold: u32,
    /// Sizes at which collections change their form.
    pub limits: Limits,
    /// Nodes at each end of a list that Redis would not compress. Nothing is compressed here, so
    /// any number will do.
    pub list_compress_depth: u32,
    /// Port of the Prometheus page; 0 is none.
    pub metrics_port: u16,
    /// Microseconds from which a command is kept by SLOWLOG; negative is never.
    pub slowlog_log_slower_than: i64,
    /// Commands that SLOWLOG keeps.
    pub slowlog_max_len: u64,
    /// Bytes from which a request is kept by COMMANDLOG; negative is never.
    pub large_request_bytes: i64,
    /// Such requests that it keeps.
    pub large_request_max_len: u64,
    /// Bytes from which a reply is kept by COMMANDLOG; negative is never.
    pub large_reply_bytes: i64,
    /// Such replies that it keeps.
    pub large_reply_max_len: u64,
    /// Milliseconds from which LATENCY keeps what holds up a core; 0 is never.
    pub latency_monitor_threshold: u64,
    /// Memory that clients may hold together.
    pub maxmemory_clients: ClientShare,
    /// Which events are logged.
    pub log_level: LogLevel,
    /// Where they go; empty is standard error.
    pub log_file: PathBuf,
    /// How many of the cores are used.
    pub cores_in_use: CoresInUse,
    /// How long a core looks for work before it sleeps.
    pub spin_us: Spin,
    /// What the socket rings may use.
    pub ring_features: Features,
    /// Addresses of a cluster that a new directory joins, separated by commas; empty: it founds
    /// one.
    pub join: String,
    /// Where other nodes and their clients reach this one; empty: where it listens.
    pub advertise: String,
    /// The file with the secret that all nodes share.
    pub cluster_secret: Option<PathBuf>,
    /// What is done with requests that another node must run.
    pub routing: Routing,
    /// Does this start give up what the node has, to get it anew from others?
    pub rejoin: bool,
    /// After how long others take the place of a node that is not heard, milliseconds; 0 is never.
    pub replace_after_ms: i64,
    /// Bytes of snapshots that go to other nodes in a second.
    pub transfer_rate: u64,
    /// What reads may see.
    pub consistency: Consistency,
    /// The file that was read at the start and that CONFIG REWRITE writes.
    pub config_file: Option<PathBuf>,
    /// The RDB file that a first start loads (`--load-rdb`).
    pub load_rdb: Option<PathBuf>,
    /// Is it in Redis' format, which is not written?
    pub config_is_redis: bool,
    /// Names of rows given on the command line, in the file or by CONFIG SET.
    given: BTreeSet<&'static str>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bind: Bind::default(),
            port: 6379,
            tls: TlsSettings::default(),
            unixsocket: String::new(),
            unixsocketperm: 0,
            protected_mode: true,
            dir: "./data".into(),
            shards: None,
            slots: Slots::Auto,
            cores: None,
            mode: Mode::Store,
            fsync: Fsync::Always,
            segment_size: 16 << 20,
            snapshot_log_bytes: 256 << 20,
            snapshot_interval: 3600,
            maxmemory: 0,
            maxmemory_policy: MaxmemoryPolicy::Noeviction,
            maxmemory_samples: 5,
            requirepass: String::new(),
            users: Vec::new(),
            aclfile: PathBuf::new(),
            acllog_max_len: 128,
            acl_pubsub_default: PubsubDefault::Resetchannels,
            maxclients: 10_000,
            timeout: 0,
            tcp_keepalive: 300,
            client_output_buffer_limit: BufferLimits::DEFAULT,
            tracking_table_max_keys: 1_000_000,
            notify_keyspace_events: Events::default(),
            client_query_buffer_limit: 1 << 30,
            proto_max_bulk_len: ringraft_shards::limits::STRING_BYTES_DEFAULT as u64,
            script_memory: 256 << 20,
            script_time_limit: 10_000,
            busy_reply_threshold: 5000,
            limits: Limits::default(),
            list_compress_depth: 0,
            metrics_port: 0,
            slowlog_log_slower_than: 10_000,
            slowlog_max_len: 128,
            large_request_bytes: 1 << 20,
            large_request_max_len: 128,
            large_reply_bytes: 1 << 20,
            large_reply_max_len: 128,
            latency_monitor_threshold: 0,
            maxmemory_clients: ClientShare::Bytes(0),
            log_level: LogLevel::Info,
            log_file: PathBuf::new(),
            cores_in_use: CoresInUse::Auto,
            spin_us: Spin::Auto,
            ring_features: Features::ALL,
            join: String::new(),
            advertise: String::new(),
            cluster_secret: None,
            routing: Routing::Forward,
            rejoin: false,
            replace_after_ms: 600_000,
            transfer_rate: 200 << 20,
            consistency: Consistency::High,
            config_file: None,
            load_rdb: None,
            config_is_redis: false,
            given: BTreeSet::new(),
        }
    }
}

/// Why CONFIG SET refuses. `Display` is Redis' text, code word included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("ERR Unknown option or number of arguments for CONFIG SET - '{}'", String::from_utf8_lossy(.0))]
    Unknown(Vec<u8>),
    /// Fixed at the start.
    #[error(
        "ERR CONFIG SET failed (possibly related to argument '{0}') - can't set immutable config"
    )]
    Immutable(&'static str),
    /// Named twice in one CONFIG SET.
    #[error("ERR CONFIG SET failed (possibly related to argument '{0}') - duplicate parameter")]
    Duplicate(&'static str),
    /// A value that does not fit: the setting's name and the cause.
    #[error("ERR CONFIG SET failed (possibly related to argument '{0}') - {1}")]
    Value(&'static str, String),
}

impl From<SettingError> for Refusal {
    fn from(error: SettingError) -> Refusal {
        match error {
            SettingError::Unknown(name) => Refusal::repeating(
                "ERR Unknown option or number of arguments for CONFIG SET - '",
                &name,
                "'",
            ),
            other => Refusal::Text(other.to_string().into()),
        }
    }
}

impl Settings {
    /// The settings whose names match one of the globs, ignoring case, as CONFIG GET shows them:
    /// each once, in the table's order, under Redis' name too where that differs. Behind them
    /// what is always so.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(&'static str, String)> {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|p| p.to_ascii_lowercase()).collect();
        let globs: Vec<Glob<'_>> = patterns.iter().map(|pattern| Glob::new(pattern)).collect();
        let mut found = Vec::new();
        for row in TABLE {
            for name in [Some(row.name), row.redis_name].into_iter().flatten() {
                if globs.iter().any(|glob| glob.matches(name.as_bytes())) {
                    let own = name == row.name;
                    let value = match row.redis_word.filter(|_| !own) {
                        Some(word) => word(self).to_string(),
                        None => row.kind.get(self),
                    };
                    found.push((name, value));
                }
            }
        }
        let fixed =
            KNOWN.iter().filter(|known| globs.iter().any(|g| g.matches(known.name.as_bytes())));
        found.extend(fixed.map(|known| (known.name, known.value(self).to_string())));
        found
    }

    /// Changes settings at run time: all of the pairs or, when one is refused, none.
    /// Errors: the first refusal; unknown, immutable and repeated names before values, as in Redis.
    pub fn set(&mut self, pairs: &[(&[u8], &[u8])]) -> Result<(), SettingError> {
        let mut rows: Vec<(&Setting, &'static str)> = Vec::with_capacity(pairs.len());
        let mut taken = Vec::with_capacity(pairs.len());
        let mut never = None;
        for (name, value) in pairs {
            let unknown = || SettingError::Unknown(name.to_vec());
            let name = std::str::from_utf8(name).map_err(|_| unknown())?;
            let Some((row, spelling)) = Setting::find(name) else {
                match Stranger::judge(name, value, self) {
                    Stranger::IsSo => continue,
                    Stranger::Never(spelling, cause) => {
                        never = never.or(Some(SettingError::Value(spelling, cause)));
                        continue;
                    }
                    Stranger::Unknown => return Err(unknown()),
                }
            };
            if !row.at_run_time {
                return Err(SettingError::Immutable(spelling));
            }
            if rows.iter().any(|(other, _)| other.name == row.name) {
                return Err(SettingError::Duplicate(spelling));
            }
            rows.push((row, spelling));
            taken.push(value);
        }
        if let Some(refusal) = never {
            return Err(refusal);
        }
        let mut changed = self.clone();
        for ((row, spelling), value) in rows.iter().zip(taken) {
            let text = String::from_utf8_lossy(value);
            changed.set_row(row, &text).map_err(|cause| SettingError::Value(spelling, cause))?;
            if text.as_bytes() != *value {
                let cause = "argument must be UTF-8".into();
                return Err(SettingError::Value(spelling, cause));
            }
        }
        changed.check().map_err(|(name, cause)| SettingError::Value(name, cause))?;
        *self = changed;
        Ok(())
    }

    /// Sets one setting, whether or not it may change at run time.
    /// Errors: why the value does not fit.
    pub fn set_row(&mut self, row: &'static Setting, value: &str) -> Result<(), String> {
        row.kind.set(self, value)?;
        self.given.insert(row.name);
        Ok(())
    }

    /// Bytes that clients may hold together; 0 is no limit. A share of `maxmemory` is none while
    /// there is no `maxmemory`.
    pub fn client_memory_max(&self) -> u64 {
        match self.maxmemory_clients {
            ClientShare::Bytes(bytes) => bytes,
            ClientShare::Percent(percent) => {
                (u128::from(self.maxmemory) * u128::from(percent) / 100) as u64
            }
        }
    }

    /// Was this setting given, or is it at its default?
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// Where clients connect over the network; nowhere with port 0.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.port;
        let addresses = self.bind.addresses().iter().filter(move |_| port != 0);
        addresses.map(move |ip| SocketAddr::new(*ip, port))
    }

    /// Where clients connect that speak TLS; nowhere without `tls-port`.
    pub fn tls_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.tls.port;
        let addresses = self.bind.addresses().iter().filter(move |_| port != 0);
        addresses.map(move |ip| SocketAddr::new(*ip, port))
    }

    /// Where the Prometheus page is; none without `metrics-port`.
    pub fn metrics_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.metrics_port;
        let addresses = self.bind.addresses().iter().filter(move |_| port != 0);
        addresses.map(move |ip| SocketAddr::new(*ip, port))
    }

    /// What no single row can see: settings that contradict each other.
    /// Errors: a setting's name and why it cannot be so.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.mode == Mode::Cache {
            let contradictions = [
                ("fsync", self.fsync != Fsync::No),
                ("snapshot-interval", self.snapshot_interval != 0),
                ("snapshot-log-bytes", self.is_given("snapshot-log-bytes")),
                ("segment-size", self.is_given("segment-size")),
                ("join", !self.join.is_empty()),
            ];
            if let Some((name, _)) = contradictions.iter().find(|(_, contradicts)| *contradicts) {
                return Err((name, "mode cache keeps nothing on disk".into()));
            }
        }
        if self.routing == Routing::Moved && self.slots == Slots::Codis {
            return Err(("routing", NEEDS_REDIS_SLOTS.into()));
        }
        self.tls.check()?;
        if self.port == 0 && self.tls.port == 0 && self.unixsocket.is_empty() {
            let cause = "0 leaves clients no way in: give tls-port or unixsocket, too";
            return Err(("port", cause.into()));
        }
        let ports =
            [("port", self.port), ("tls-port", self.tls.port), ("metrics-port", self.metrics_port)];
        for (i, (name, port)) in ports.iter().enumerate() {
            let other = ports[..i].iter().find(|(_, other)| *other == *port && *port != 0);
            if let Some((other, _)) = other {
                return Err((name, format!("port {port} is that of {other} already")));
            }
        }
        Ok(())
    }

    /// Gives what was not given the value that `cache` mode implies, so that CONFIG GET tells the
    /// truth.
    pub fn settle(&mut self) {
        if self.mode == Mode::Cache {
            if !self.is_given("fsync") {
                self.fsync = Fsync::No;
            }
            if !self.is_given("snapshot-interval") {
                self.snapshot_interval = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: &mut Settings, words: &str) -> Result<(), String> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|p| (p[0], p[1])).collect();
        settings.set(&pairs).map_err(|error| error.to_string())
    }

    fn get(settings: &Settings, name: &str) -> String {
        let found = settings.get(&[name.as_bytes()]);
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    }

    #[test]
    fn refusals_read_as_in_redis() {
        const OF: &str = "ERR CONFIG SET failed (possibly related to argument";
        let mut settings = Settings::default();
        let before = settings.clone();
        for (words, text) in [
            (
                "foo bar",
                "ERR Unknown option or number of arguments for CONFIG SET - 'foo'".to_string(),
            ),
            ("maxmemory abc", format!("{OF} 'maxmemory') - argument must be a memory value")),
            ("maxmemory 1.5gb", format!("{OF} 'maxmemory') - argument must be a memory value")),
            ("maxmemory -1", format!("{OF} 'maxmemory') - argument must be a memory value")),
            ("hz 100", format!("{OF} 'hz') - it is '10' here, always")),
            (
                "maxmemory 1 DBFILENAME x",
                format!("{OF} 'dbfilename') - ringraft has nothing that it would change"),
            ),
            ("replicaof other", format!("{OF} 'replicaof') - it is '' here, always")),
            ("port 99", format!("{OF} 'port') - can't set immutable config")),
            ("DIR /", format!("{OF} 'dir') - can't set immutable config")),
            ("databases 4", format!("{OF} 'databases') - can't set immutable config")),
            ("appendonly no", format!("{OF} 'appendonly') - can't set immutable config")),
            ("maxmemory 1 maxmemory 2", format!("{OF} 'maxmemory') - duplicate parameter")),
            ("fsync no appendfsync no", format!("{OF} 'appendfsync') - duplicate parameter")),
            (
                "maxmemory 1 timeout x",
                format!("{OF} 'timeout') - argument couldn't be parsed into an integer"),
            ),
            (
                "timeout -1",
                format!("{OF} 'timeout') - argument must be between 0 and 2147483647 inclusive"),
            ),
            (
                "protected-mode maybe",
                format!("{OF} 'protected-mode') - argument must be 'yes' or 'no'"),
            ),
            (
                "maxclients 0",
                format!("{OF} 'maxclients') - argument must be between 1 and 4294967295 inclusive"),
            ),
            (
                "proto-max-bulk-len 1000",
                format!(
                    "{OF} 'proto-max-bulk-len') - argument must be between 1048576 and 1073741824 inclusive"
                ),
            ),
            (
                "appendfsync maybe",
                format!(
                    "{OF} 'appendfsync') - argument(s) must be one of the following: everysec, always, no"
                ),
            ),
            ("save abc", format!("{OF} 'save') - Invalid save parameters")),
        ] {
            assert_eq!(set(&mut settings, words), Err(text), "{words}");
            assert_eq!(settings, before, "{words} changed something");
        }
        let not_text: (&[u8], &[u8]) = (b"requirepass", b"\xff");
        assert!(settings.set(&[not_text]).is_err());
    }

    #[test]
    fn changes_show() {
        let mut settings = Settings::default();
        for (words, name, value) in [
            ("maxmemory 1kb", "maxmemory", "1024"),
            ("MAXMEMORY-policy AllKeys-LFU", "maxmemory-policy", "allkeys-lfu"),
            ("appendfsync everysec", "fsync", "everysec"),
            ("fsync no", "appendfsync", "no"),
            ("timeout 5 maxclients 7", "timeout", "5"),
            ("slowlog-log-slower-than -1", "slowlog-log-slower-than", "-1"),
            ("loglevel notice", "log-level", "info"),
            ("loglevel notice", "loglevel", "notice"),
            ("loglevel verbose", "loglevel", "verbose"),
            ("loglevel verbose", "log-level", "verbose"),
            ("log-level debug", "loglevel", "debug"),
            ("log-level error", "loglevel", "warning"),
            ("log-level warn", "loglevel", "warning"),
            ("log-level quiet", "loglevel", "nothing"),
            ("snapshot-interval 60", "save", "60 1"),
            ("snapshot-interval 0", "save", ""),
            ("requirepass secret", "requirepass", "secret"),
            ("maxmemory 2048 HZ 10", "maxmemory", "2048"),
            ("hz 10", "hz", "10"),
            ("maxmemory-clients 1kb", "maxmemory-clients", "1024"),
            ("maxmemory-clients 5%", "maxmemory-clients", "5%"),
            ("commandlog-execution-slower-than 7", "slowlog-log-slower-than", "7"),
        ] {
            assert_eq!(set(&mut settings, words), Ok(()), "{words}");
            assert_eq!(get(&settings, name), value, "{words}");
        }
        assert_eq!(settings.set(&[(b"save", b"900 1")]), Ok(()));
        assert_eq!(settings.snapshot_interval, 900);
        assert_eq!(settings.set(&[(b"save", b"")]), Ok(()));
        assert_eq!(settings.snapshot_interval, 0);
    }

    #[test]
    fn patterns_find_each_name_once() {
        let settings = Settings::default();
        let names = |patterns: &[&[u8]]| -> Vec<&str> {
            settings.get(patterns).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(
            names(&[b"maxmemory", b"MAX*", b"nothing"]),
            [
                "maxclients",
                "maxmemory",
                "maxmemory-policy",
                "maxmemory-samples",
                "maxmemory-clients"
            ]
        );
        assert_eq!(names(&[b"*sync"]), ["fsync", "appendfsync"]);
        assert_eq!(names(&[b"data"]), Vec::<&str>::new());
        assert!(names(&[b"*"]).len() > 30);
    }

    #[test]
    fn questions_of_tools_get_true_answers() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("save", "3600 1"),
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("databases", "16"),
        ] {
            assert_eq!(get(&settings, name), value);
        }
        settings.mode = Mode::Cache;
        settings.settle();
        for (name, value) in [("save", ""), ("appendonly", "no"), ("appendfsync", "no")] {
            assert_eq!(get(&settings, name), value);
        }
        let refusal = set(&mut settings, "fsync always").expect_err("there is no disk");
        assert!(refusal.ends_with("- mode cache keeps nothing on disk"), "{refusal}");
        assert_eq!(set(&mut settings, "fsync no"), Ok(()));
    }

    #[test]
    fn every_row_reads_back_what_it_prints() {
        let defaults = Settings::default();
        for row in TABLE {
            let text = row.kind.get(&defaults);
            let mut settings = defaults.clone();
            if row.kind.set(&mut settings, &text).is_ok() {
                assert_eq!(settings, defaults, "{} {text:?}", row.name);
            } else {
                assert!(
                    !row.at_run_time && row.help.is_empty(),
                    "{} refuses its own {text:?}",
                    row.name
                );
            }
        }
    }
}
