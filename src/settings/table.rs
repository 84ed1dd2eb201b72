//! The table of settings: one row each for the command line, the file, CONFIG and `--help`.

use super::Settings;
use super::bind::Bind;
use super::events::Events;
use super::row::{Kind, Setting, entries, in_range, integer, row, shown, size, switch, text, word};
use super::tls;
use super::values::{
    ClientShare, Consistency, CoresInUse, Fsync, LogLevel, MaxmemoryPolicy, Mode, PubsubDefault,
    RingFeature, Routing, Slots, Spin, Word, cpus_text, items, join, parse_cpus, read_span,
    span_text, words,
};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_BYTES_STEP};
use crate::net::ring::Features;
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::limits::STRING_BYTES_MAX;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Largest number of seconds and of counts, as in Redis.
const INT_MAX: i64 = i32::MAX as i64;
const INT_MIN: i64 = i32::MIN as i64;

/// Longest time that a core looks for work: a second.
const SPIN_US_MAX: i64 = 1_000_000;

/// Shards of a cluster: one slot each at least.
const SHARDS_MAX: i64 = ringraft_shards::slot::SLOT_COUNT as i64;

/// Addresses separated by commas, each with its host.
/// Errors: one of them is none.
fn join_list(text: &str) -> Result<String, String> {
    let mut whole = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = match part.strip_prefix(':').unwrap_or(part).parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port}"),
            Err(_) => part.to_string(),
        };
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(format!("{part} is no HOST:PORT"));
        }
        whole.push(address);
    }
    Ok(whole.join(","))
}

/// Every setting, in the order of `--help` and CONFIG GET.
pub const TABLE: &[Setting] = &[
    text("bind", |s| s.bind.to_string(), |s, v| Bind::parse(v).map(|to| s.bind = to)).help(
        NETWORK,
        "ADDR",
        "Addresses and names to listen on, separated by commas; * for all, -ADDR if it is there",
    ),
    integer("port", 0, 65535, |s| s.port.into(), |s, v| s.port = v as u16).short('p').help(
        NETWORK,
        "N",
        "Port for clients; 0 for none, with a unix socket or TLS",
    ),
    tls::PORT,
    tls::CLUSTER,
    tls::CERT_FILE,
    tls::KEY_FILE,
    tls::CA_CERT_FILE,
    tls::CA_CERT_DIR,
    tls::AUTH_CLIENTS,
    tls::PROTOCOLS_ROW,
    tls::CIPHERS,
    tls::CIPHERSUITES,
    tls::PREFER_SERVER_CIPHERS,
    tls::SESSION_CACHING,
    tls::SESSION_CACHE_SIZE,
    tls::SESSION_CACHE_TIMEOUT,
    text(
        "unixsocket",
        |s| s.unixsocket.clone(),
        |s, v| {
            s.unixsocket = v.into();
            Ok(())
        },
    )
    .help(NETWORK, "PATH", "Unix socket for clients of this machine; empty for none"),
    text(
        "unixsocketperm",
        |s| format!("{:o}", s.unixsocketperm),
        |s, v| {
            let mode = u32::from_str_radix(v, 8).ok().filter(|mode| *mode <= 0o777);
            s.unixsocketperm = mode.ok_or("it is no octal number up to 777")?;
            Ok(())
        },
    )
    .help(NETWORK, "MODE", "Permission bits of the unix socket, octal; 0 leaves them to the umask"),
    switch("protected-mode", |s| s.protected_mode, |s, v| s.protected_mode = v)
        .help(NETWORK, "YES|NO", "Refuse clients of other machines while there is no password")
        .at_run_time(),
    integer(
        "maxclients",
        1,
        u32::MAX as i64,
        |s| s.maxclients.into(),
        |s, v| s.maxclients = v as u32,
    )
    .help(NETWORK, "N", "Connections at a time; more are refused")
    .at_run_time(),
    integer("timeout", 0, INT_MAX, |s| s.timeout.into(), |s, v| s.timeout = v as u32)
        .help(NETWORK, "SECONDS", "Close connections idle for so long; 0 never does")
        .at_run_time(),
    integer(
        "tcp-keepalive",
        0,
        INT_MAX,
        |s| s.tcp_keepalive.into(),
        |s, v| s.tcp_keepalive = v as u32,
    )
    .help(NETWORK, "SECONDS", "Let the kernel probe silent connections; 0 never does")
    .at_run_time(),
    text(
        "requirepass",
        |s| s.requirepass.clone(),
        |s, v| {
            s.requirepass = v.into();
            Ok(())
        },
    )
    .help(NETWORK, "PASSWORD", "Password that clients must send by AUTH; empty for none")
    .secret()
    .at_run_time(),
    text(
        "aclfile",
        |s| s.aclfile.display().to_string(),
        |s, v| {
            s.aclfile = v.into();
            Ok(())
        },
    )
    .help(NETWORK, "FILE", "Users and what they may do, a line each; ACL LOAD and ACL SAVE use it"),
    integer(
        "acllog-max-len",
        0,
        i64::MAX,
        |s| s.acllog_max_len as i64,
        |s, v| {
            s.acllog_max_len = v as u64;
        },
    )
        .help(NETWORK, "N", "Denials that ACL LOG keeps")
        .at_run_time(),
    word(
        "acl-pubsub-default",
        words::<PubsubDefault>,
        |s| s.acl_pubsub_default.word(),
        |s, v| PubsubDefault::from_word(v).map(|to| s.acl_pubsub_default = to),
    )
    .help(NETWORK, "WORD", "May a new user use every channel, or none")
    .at_run_time(),
    integer("metrics-port", 0, 65535, |s| s.metrics_port.into(), |s, v| s.metrics_port = v as u16)
        .help(NETWORK, "N", "Port of the Prometheus page; 0 for none"),
    text(
        "cores",
        |s| s.cores.as_deref().map_or(AUTO.into(), cpus_text),
        |s, v| {
            s.cores = if v == AUTO { None } else { Some(parse_cpus(v)?) };
            Ok(())
        },
    )
    .help(
        CORES,
        "LIST",
        "Cpus to use, such as 0-3,6; auto takes the allowed ones, at most one per shard",
    ),
    text(
        "shards",
        |s| s.shards.map_or(AUTO.into(), |n| n.to_string()),
        |s, v| {
            s.shards = if v == AUTO { None } else { Some(in_range(v, 1, SHARDS_MAX)? as u16) };
            Ok(())
        },
    )
    .help(
        CORES,
        "N",
        "Parts of the keyspace, fixed when the directory is created; auto is one per core",
    ),
    word("slots", words::<Slots>, |s| s.slots.word(), |s, v| Slots::from_word(v).map(|to| s.slots = to))
        .help(
            CORES,
            "SCHEME",
            "How keys are dealt to shards, fixed when the directory is created: codis, or redis for clients of Redis \
             Cluster; auto is codis",
        ),
    text(
        "join",
        |s| s.join.clone(),
        |s, v| {
            s.join = join_list(v)?;
            Ok(())
        },
    )
    .short('j')
    .help(
        CLUSTER,
        "ADDR",
        "Join the cluster of the node at HOST:PORT, or PORT of this machine; several with commas",
    ),
    text(
        "advertise",
        |s| s.advertise.clone(),
        |s, v| {
            let is_address = v.is_empty() || v.parse::<SocketAddr>().is_ok();
            if !is_address {
                return Err("it is no address and port, such as 10.0.0.1:6379".into());
            }
            s.advertise = v.into();
            Ok(())
        },
    )
    .help(CLUSTER, "ADDR", "IP:PORT at which other nodes reach this one; empty: where it listens"),
    text(
        "cluster-secret",
        |s| s.cluster_secret.as_ref().map_or(String::new(), |file| file.display().to_string()),
        |s, v| {
            s.cluster_secret = (!v.is_empty()).then(|| PathBuf::from(v));
            Ok(())
        },
    )
    .help(
        CLUSTER,
        "FILE",
        "File with the secret that all nodes share; without one nodes are of one machine",
    ),
    word("routing", words::<Routing>, |s| s.routing.word(), |s, v| {
        Routing::from_word(v).map(|to| s.routing = to)
    })
    .help(CLUSTER, "WORD", "Requests that another node must run: forward sends them on, try names it, moved as Redis Cluster does")
    .at_run_time(),
    switch("rejoin", |s| s.rejoin, |s, v| s.rejoin = v).help(
        CLUSTER,
        "YES|NO",
        "Set this node's data aside at the start, and get it anew from the other nodes",
    ),
    text(
        "replace-after",
        |s| span_text(s.replace_after_ms),
        |s, v| read_span(v).map(|ms| s.replace_after_ms = ms),
    )
    .help(
        CLUSTER,
        "TIME",
        "When nodes that stand by take the place of one that is not heard, as 90s, 10m or 2h; no for never",
    )
    .at_run_time(),
    size("transfer-rate", 1 << 20, |s| s.transfer_rate, |s, v| s.transfer_rate = v)
        .help(CLUSTER, "SIZE", "Snapshots that this node sends to others, in a second")
        .at_run_time(),
    word("consistency", words::<Consistency>, |s| s.consistency.word(), |s, v| {
        Consistency::from_word(v).map(|to| s.consistency = to)
    })
    .help(
        CLUSTER,
        "WORD",
        "What reads see: high all that was acknowledged, medium what who believes to lead has, low what this node has",
    )
    .at_run_time(),
    word(
        "cores-in-use",
        words::<CoresInUse>,
        |s| s.cores_in_use.word(),
        |s, v| CoresInUse::from_word(v).map(|to| s.cores_in_use = to),
    )
    .help(
        CORES,
        "WORD",
        "auto: as many as the load needs, from one on; all: shards stay where they are",
    )
    .at_run_time(),
    text(
        "spin-us",
        |s| s.spin_us.to_string(),
        |s, v| {
            s.spin_us = match v {
                AUTO => Spin::Auto,
                v => Spin::Micros(in_range(v, 0, SPIN_US_MAX)? as u32),
            };
            Ok(())
        },
    )
    .help(
        CORES,
        "MICROSECONDS",
        "Look for work so long before a core sleeps; auto does where it spares wakes",
    )
    .at_run_time(),
    text("ring-features", ring_features, set_ring_features).help(
        CORES,
        "LIST",
        "Kernel features to do without: no-defer-taskrun, no-multishot-recv, no-multishot-accept",
    ),
    word("mode", words::<Mode>, |s| s.mode.word(), |s, v| Mode::from_word(v).map(|to| s.mode = to))
        .help(STORAGE, "MODE", "store: every acknowledged write is on disk; cache: nothing is"),
    text("dir", |s| s.dir.display().to_string(), set_dir).also(&["data"]).help(
        STORAGE,
        "DIR",
        "Data directory; created on the first start",
    ),
    word(
        "fsync",
        words::<Fsync>,
        |s| s.fsync.word(),
        |s, v| Fsync::from_word(v).map(|to| s.fsync = to),
    )
    .redis("appendfsync")
    .also(&["durability"])
    .help(STORAGE, "WHEN", "When the log is synced, before the reply or later")
    .at_run_time(),
    row(
        "segment-size",
        Kind::Size {
            min: SEGMENT_BYTES_MIN,
            max: SEGMENT_BYTES_MAX,
            get: |s| s.segment_size,
            set: |s, v| s.segment_size = v.next_multiple_of(SEGMENT_BYTES_STEP),
        },
    )
    .help(STORAGE, "SIZE", "Size of one segment of a shard's log"),
    size("snapshot-log-bytes", 1 << 20, |s| s.snapshot_log_bytes, |s, v| s.snapshot_log_bytes = v)
        .help(STORAGE, "SIZE", "Take a snapshot when a shard's log has grown by so much")
        .at_run_time(),
    integer(
        "snapshot-interval",
        0,
        INT_MAX,
        |s| s.snapshot_interval.into(),
        |s, v| {
            s.snapshot_interval = v as u32;
        },
    )
    .help(
        STORAGE,
        "SECONDS",
        "And when so much time has passed and something was written; 0 never does",
    )
    .at_run_time(),
    size("maxmemory", 0, |s| s.maxmemory, |s, v| s.maxmemory = v)
        .help(MEMORY, "SIZE", "Memory at which items are evicted or writes refused; 0 for no limit")
        .at_run_time(),
    word(
        "maxmemory-policy",
        words::<MaxmemoryPolicy>,
        |s| s.maxmemory_policy.word(),
        |s, v| MaxmemoryPolicy::from_word(v).map(|to| s.maxmemory_policy = to),
    )
    .help(MEMORY, "POLICY", "What is evicted then")
    .at_run_time(),
    integer(
        "maxmemory-samples",
        1,
        INT_MAX,
        |s| s.maxmemory_samples.into(),
        |s, v| {
            s.maxmemory_samples = v as u32;
        },
    )
    .help(MEMORY, "N", "Items compared for each eviction")
    .at_run_time(),
    text(
        "client-output-buffer-limit",
        |s| s.client_output_buffer_limit.to_string(),
        |s, v| s.client_output_buffer_limit.change(v).map(|to| s.client_output_buffer_limit = to),
    )
    .help(
        MEMORY,
        "LIMITS",
        "Unsent replies that close a connection: class, hard, soft, seconds, ...",
    )
    .at_run_time(),
    text(
        "maxmemory-clients",
        |s| s.maxmemory_clients.to_string(),
        |s, v| ClientShare::parse(v).map(|to| s.maxmemory_clients = to),
    )
    .help(MEMORY, "SIZE", "Memory of all clients' buffers, or N% of maxmemory, above which the largest are closed; 0: none")
    .at_run_time(),
    integer(
        "tracking-table-max-keys",
        0,
        INT_MAX,
        |s| s.tracking_table_max_keys.into(),
        |s, v| {
            s.tracking_table_max_keys = v as u32;
        },
    )
    .help(MEMORY, "N", "Keys that a core remembers for clients' caches; 0 for any number")
    .at_run_time(),
    text(
        "notify-keyspace-events",
        |s| s.notify_keyspace_events.to_string(),
        |s, v| Events::read(v).map(|to| s.notify_keyspace_events = to),
    )
    .help(
        NETWORK,
        "LETTERS",
        "Changes of keys that are told to subscribers, as in Redis: KEA for most",
    )
    .at_run_time(),
    size(
        "client-query-buffer-limit",
        1 << 20,
        |s| s.client_query_buffer_limit,
        |s, v| {
            s.client_query_buffer_limit = v;
        },
    )
    .help(MEMORY, "SIZE", "Unfinished argument that closes a connection")
    .at_run_time(),
    size("proto-max-bulk-len", 1 << 20, |s| s.proto_max_bulk_len, |s, v| s.proto_max_bulk_len = v)
        .up_to(STRING_BYTES_MAX as u64)
        .help(MEMORY, "SIZE", "Longest argument or value")
        .at_run_time(),
    size("script-memory", 1 << 20, |s| s.script_memory, |s, v| s.script_memory = v)
        .help(MEMORY, "SIZE", "Memory of each core's interpreter of scripts")
        .at_run_time(),
    integer(
        "busy-reply-threshold",
        0,
        INT_MAX,
        |s| s.busy_reply_threshold.into(),
        |s, v| s.busy_reply_threshold = v as u32,
    )
    .redis("lua-time-limit")
    .help(MEMORY, "MS", "Answer BUSY while a script runs that has run longer; 0 never does")
    .at_run_time(),
    integer(
        "script-time-limit",
        0,
        INT_MAX,
        |s| s.script_time_limit.into(),
        |s, v| s.script_time_limit = v as u32,
    )
    .help(MEMORY, "MILLISECONDS", "End scripts that run longer, with nothing done; 0 never does")
    .at_run_time(),
    entries(
        "hash-max-listpack-entries",
        |s| s.limits.hash_entries,
        |s, v| s.limits.hash_entries = v,
    )
    .redis("hash-max-ziplist-entries")
    .help(VALUES, "N", "Fields up to which a hash is packed")
    .at_run_time(),
    size("hash-max-listpack-value", 0, |s| s.limits.hash_value, |s, v| s.limits.hash_value = v)
        .redis("hash-max-ziplist-value")
        .help(VALUES, "SIZE", "Longest field or value of a packed hash")
        .at_run_time(),
    entries("set-max-listpack-entries", |s| s.limits.set_entries, |s, v| s.limits.set_entries = v)
        .help(VALUES, "N", "Members up to which a set is packed")
        .at_run_time(),
    size("set-max-listpack-value", 0, |s| s.limits.set_value, |s, v| s.limits.set_value = v)
        .help(VALUES, "SIZE", "Longest member of a packed set")
        .at_run_time(),
    entries("set-max-intset-entries", |s| s.limits.set_integers, |s, v| s.limits.set_integers = v)
        .help(VALUES, "N", "Members up to which a set of integers is an array")
        .at_run_time(),
    entries(
        "zset-max-listpack-entries",
        |s| s.limits.sorted_set_entries,
        |s, v| s.limits.sorted_set_entries = v,
    )
    .redis("zset-max-ziplist-entries")
    .help(VALUES, "N", "Members up to which a sorted set is packed")
    .at_run_time(),
    size(
        "zset-max-listpack-value",
        0,
        |s| s.limits.sorted_set_value,
        |s, v| s.limits.sorted_set_value = v,
    )
    .redis("zset-max-ziplist-value")
    .help(VALUES, "SIZE", "Longest member of a packed sorted set")
    .at_run_time(),
    integer(
        "list-max-listpack-size",
        INT_MIN,
        INT_MAX,
        |s| s.limits.list_size,
        |s, v| s.limits.list_size = v,
    )
    .redis("list-max-ziplist-size")
    .help(VALUES, "N", "Elements of a packed list; -1 to -5 for 4, 8, 16, 32, 64 KiB of them")
    .at_run_time(),
    size("stream-node-max-bytes", 0, |s| s.limits.stream_bytes, |s, v| s.limits.stream_bytes = v)
        .help(VALUES, "SIZE", "Bytes of a block of a stream, 0 for as many as can be")
        .at_run_time(),
    entries(
        "stream-node-max-entries",
        |s| s.limits.stream_entries,
        |s, v| s.limits.stream_entries = v,
    )
    .help(VALUES, "N", "Entries of a block of a stream, 0 for as many as can be")
    .at_run_time(),
    integer(
        "list-compress-depth",
        0,
        INT_MAX,
        |s| s.list_compress_depth.into(),
        |s, v| s.list_compress_depth = v as u32,
    )
    .help(VALUES, "N", "Known for Redis' sake: lists are not compressed")
    .at_run_time(),
    word(
        "log-level",
        words::<LogLevel>,
        |s| s.log_level.word(),
        |s, v| LogLevel::from_word(v).map(|to| s.log_level = to),
    )
    .redis("loglevel")
    .in_redis_words(|s| s.log_level.redis_word())
    .help(EVENTS, "LEVEL", "Which events are logged")
    .at_run_time(),
    text(
        "log-file",
        |s| s.log_file.display().to_string(),
        |s, v| {
            s.log_file = PathBuf::from(v);
            Ok(())
        },
    )
    .redis("logfile")
    .help(EVENTS, "FILE", "Where they go, opened again on SIGHUP; empty for standard error"),
    integer(
        "slowlog-log-slower-than",
        -1,
        i64::MAX,
        |s| s.slowlog_log_slower_than,
        |s, v| {
            s.slowlog_log_slower_than = v;
        },
    )
    .redis("commandlog-execution-slower-than")
    .help(EVENTS, "MICROSECONDS", "SLOWLOG keeps commands that took so long; -1 keeps none")
    .at_run_time(),
    integer(
        "slowlog-max-len",
        0,
        i64::MAX,
        |s| s.slowlog_max_len as i64,
        |s, v| {
            s.slowlog_max_len = v as u64;
        },
    )
    .redis("commandlog-slow-execution-max-len")
    .help(EVENTS, "N", "Commands that SLOWLOG keeps")
    .at_run_time(),
    integer(
        "commandlog-request-larger-than",
        -1,
        i64::MAX,
        |s| s.large_request_bytes,
        |s, v| s.large_request_bytes = v,
    )
    .help(EVENTS, "BYTES", "COMMANDLOG keeps commands whose request is so large; -1 keeps none")
    .at_run_time(),
    entries(
        "commandlog-large-request-max-len",
        |s| s.large_request_max_len,
        |s, v| s.large_request_max_len = v,
    )
    .help(EVENTS, "N", "Such commands that it keeps")
    .at_run_time(),
    integer(
        "commandlog-reply-larger-than",
        -1,
        i64::MAX,
        |s| s.large_reply_bytes,
        |s, v| s.large_reply_bytes = v,
    )
    .help(EVENTS, "BYTES", "COMMANDLOG keeps commands whose reply is so large; -1 keeps none")
    .at_run_time(),
    entries(
        "commandlog-large-reply-max-len",
        |s| s.large_reply_max_len,
        |s, v| s.large_reply_max_len = v,
    )
    .help(EVENTS, "N", "Such commands that it keeps")
    .at_run_time(),
    entries(
        "latency-monitor-threshold",
        |s| s.latency_monitor_threshold,
        |s, v| s.latency_monitor_threshold = v,
    )
    .help(EVENTS, "MILLISECONDS", "LATENCY keeps what held up a core so long; 0 keeps nothing")
    .at_run_time(),
    text("save", save, set_save).at_run_time(),
    shown("appendonly", |s| if s.mode == Mode::Store { "yes" } else { "no" }.into()),
    shown("databases", |_| DATABASE_COUNT.to_string()),
];

pub(super) const NETWORK: &str = "Network";
const CORES: &str = "Cores";
const CLUSTER: &str = "Cluster";
const STORAGE: &str = "Storage";
const MEMORY: &str = "Memory";
const VALUES: &str = "Values";
const EVENTS: &str = "Events";

/// The value of settings that the start decides.
const AUTO: &str = "auto";

fn set_dir(settings: &mut Settings, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("argument must be a path".into());
    }
    settings.dir = PathBuf::from(value);
    Ok(())
}

fn ring_features(settings: &Settings) -> String {
    let mut features = settings.ring_features;
    let off = RingFeature::WORDS.iter().filter(|(_, feature)| !*feature.place(&mut features));
    join(off.map(|(word, _)| word), ",")
}

fn set_ring_features(settings: &mut Settings, value: &str) -> Result<(), String> {
    let mut features = Features::ALL;
    for item in items(value) {
        *RingFeature::from_word(item)?.place(&mut features) = false;
    }
    settings.ring_features = features;
    Ok(())
}

/// Our schedule in the words of Redis' `save`: one point, after any change.
fn save(settings: &Settings) -> String {
    match settings.snapshot_interval {
        0 => String::new(),
        seconds => format!("{seconds} 1"),
    }
}

fn set_save(settings: &mut Settings, value: &str) -> Result<(), String> {
    let parts: Vec<&str> = value.split_ascii_whitespace().collect();
    settings.snapshot_interval = match parts[..] {
        [] => 0,
        [seconds, "1"] => {
            in_range(seconds, 1, INT_MAX).map_err(|_| "Invalid save parameters")? as u32
        }
        _ => return Err("Invalid save parameters".into()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_spelled_alike() {
        let mut seen = std::collections::HashSet::new();
        for name in TABLE.iter().flat_map(Setting::names) {
            assert!(seen.insert(name), "{name} twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
        }
    }

    #[test]
    fn rows_are_either_options_or_config_alone() {
        for row in TABLE {
            assert_eq!(row.is_option(), !row.group.is_empty(), "{}", row.name);
            assert_eq!(row.is_option(), !row.value_name.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn bounds_hold_at_both_ends() {
        for row in TABLE {
            let mut settings = Settings::default();
            match row.kind {
                Kind::Integer { min, max, get, .. } => {
                    for value in [min, max] {
                        assert_eq!(row.kind.set(&mut settings, &value.to_string()), Ok(()));
                        assert_eq!(get(&settings), value, "{}", row.name);
                    }
                    for value in [i128::from(min) - 1, i128::from(max) + 1] {
                        assert!(row.kind.set(&mut settings, &value.to_string()).is_err());
                    }
                }
                Kind::Size { min, max, get, .. } => {
                    for value in [min, max] {
                        assert_eq!(row.kind.set(&mut settings, &value.to_string()), Ok(()));
                        assert_eq!(get(&settings), value, "{}", row.name);
                    }
                    assert!(row.kind.set(&mut settings, &(max + 1).to_string()).is_err());
                    assert!(
                        min == 0 || row.kind.set(&mut settings, &(min - 1).to_string()).is_err()
                    );
                }
                Kind::Count { get, .. } => {
                    for value in [0, i64::MAX as u64] {
                        assert_eq!(row.kind.set(&mut settings, &value.to_string()), Ok(()));
                        assert_eq!(get(&settings), value, "{}", row.name);
                    }
                    assert!(row.kind.set(&mut settings, "-1").is_err());
                    assert!(row.kind.set(&mut settings, "9223372036854775808").is_err());
                }
                Kind::Word { words, .. } => {
                    for word in words().split(", ") {
                        assert_eq!(row.kind.set(&mut settings, word), Ok(()));
                        assert_eq!(row.kind.get(&settings), word);
                    }
                }
                Kind::Switch { get, .. } => {
                    for (word, value) in [("no", false), ("YES", true)] {
                        assert_eq!(row.kind.set(&mut settings, word), Ok(()));
                        assert_eq!(get(&settings), value, "{}", row.name);
                    }
                    assert!(row.kind.set(&mut settings, "1").is_err());
                }
                Kind::Text { .. } | Kind::Shown { .. } => {}
            }
        }
    }

    #[test]
    fn lists_and_automatic_values() {
        let mut settings = Settings::default();
        for (name, value, shown) in [
            ("cores", "0-1,4", "0-1,4"),
            ("cores", "auto", "auto"),
            ("shards", "1024", "1024"),
            ("shards", "auto", "auto"),
            ("segment-size", "9000000", "9437184"),
            ("bind", "127.0.0.1,::1", "127.0.0.1 ::1"),
            (
                "ring-features",
                "no-multishot-accept no-defer-taskrun",
                "no-defer-taskrun,no-multishot-accept",
            ),
            ("ring-features", "", ""),
            ("replace-after", "90s", "90s"),
            ("replace-after", "120m", "2h"),
            ("replace-after", "no", "no"),
            ("transfer-rate", "50mb", "52428800"),
        ] {
            let (row, _) = Setting::find(name).expect(name);
            assert_eq!(row.kind.set(&mut settings, value), Ok(()), "{name} {value}");
            assert_eq!(row.kind.get(&settings), shown, "{name} {value}");
        }
        for (name, value) in [
            ("cores", ""),
            ("replace-after", "10"),
            ("replace-after", "0s"),
            ("replace-after", "-5m"),
            ("replace-after", "9999999h"),
            ("transfer-rate", "1kb"),
            ("shards", "0"),
            ("shards", "1025"),
            ("bind", "http://somewhere"),
            ("bind", ""),
            ("dir", ""),
            ("ring-features", "no-electricity"),
            ("save", "60 5"),
            ("save", "0 1"),
        ] {
            let (row, _) = Setting::find(name).expect(name);
            assert!(row.kind.set(&mut settings, value).is_err(), "{name} {value}");
        }
    }
}
