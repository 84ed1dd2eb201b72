//! Redis' own configuration file, translated: `ringraft redis.conf`.
//!
//! A directive is one of ringraft's settings under Redis' name, or about something that does not
//! exist here and changes no answer and no promise ([`Meaning::Any`]), or true only with certain
//! values ([`Meaning::Only`]). Everything else is refused with its line: nobody shall believe that
//! a promise is kept which is not. The file is read and never written.

use super::Settings;
use super::row::Setting;
use super::values::join;
use crate::glob::Glob;
use crate::limits::CONFIG_INCLUDES_MAX;
use crate::resp::quoting::split_words;
use std::path::{Path, PathBuf};

/// What a directive that is no setting means here.
#[derive(Clone, Copy)]
enum Meaning {
    /// Nothing, whatever it says.
    Any,
    /// What it says is so with these values; with others it is refused, and this is what to do.
    Only(&'static [&'static str], &'static str),
    /// It cannot be so; what to do.
    Never(&'static str),
}

use Meaning::{Any, Never, Only};

const REMOVE: &str = "ringraft does not have it: remove the line";
const NO_TLS_CLIENT: &str =
    "ringraft connects by TLS to its own nodes alone, with tls-cert-file: remove the line";
const NO_KEY_PASSWORD: &str =
    "keys are read without a password: decrypt the key by openssl pkey, and remove the line";
const NO_FINITE_FIELDS: &str = "keys are exchanged over elliptic curves, without parameters of Diffie-Hellman: remove the line";
const NO_REPLICAS: &str = "ringraft does not replicate by Redis' protocol: remove the line";

/// Directives by name; the first that fits counts. A star at the end stands for any rest.
const DIRECTIVES: &[(&str, Meaning)] = &[
    ("databases", Only(&["16"], "there are 16 databases, always: remove the line")),
    (
        "daemonize",
        Only(
            &["no"],
            "ringraft stays in the foreground: say no, and let systemd or a shell run it",
        ),
    ),
    (
        "supervised",
        Only(
            &["no", "auto"],
            "ringraft notifies no supervisor: say no, and Type=simple in systemd",
        ),
    ),
    (
        "pidfile",
        Only(&[""], "the file lock in the data directory has the process id: remove the line"),
    ),
    ("bind-source-addr", Only(&[""], REMOVE)),
    ("socket-mark-id", Only(&["0"], REMOVE)),
    ("tls-key-file-pass", Only(&[""], NO_KEY_PASSWORD)),
    ("tls-dh-params-file", Only(&[""], NO_FINITE_FIELDS)),
    ("tls-client-cert-file", Only(&[""], NO_TLS_CLIENT)),
    ("tls-client-key-file", Only(&[""], NO_TLS_CLIENT)),
    ("tls-client-key-file-pass", Only(&[""], NO_TLS_CLIENT)),
    ("tls-replication", Only(&["no"], NO_TLS_CLIENT)),
    (
        "cluster-enabled",
        Only(
            &["no"],
            "ringraft forms its clusters by --join: say no, and routing moved with slots redis for clients of Redis Cluster",
        ),
    ),
    ("cluster-*", Any),
    ("replicaof", Never(NO_REPLICAS)),
    ("slaveof", Never(NO_REPLICAS)),
    ("masterauth", Never(NO_REPLICAS)),
    ("masteruser", Never(NO_REPLICAS)),
    ("min-replicas-to-write", Only(&["0"], NO_REPLICAS)),
    ("min-slaves-to-write", Only(&["0"], NO_REPLICAS)),
    ("min-replicas-max-lag", Any),
    ("min-slaves-max-lag", Any),
    ("replica-*", Any),
    ("slave-*", Any),
    ("repl-*", Any),
    (
        "rename-command",
        Never(
            "commands have their names: keep clients away by requirepass and bind, and remove the line",
        ),
    ),
    (
        "enable-debug-command",
        Only(
            &["yes"],
            "DEBUG is open to every client that is logged in: say yes or remove the line",
        ),
    ),
    ("enable-protected-configs", Only(&["no"], REMOVE)),
    ("enable-module-command", Only(&["no"], REMOVE)),
    ("loadmodule", Never("ringraft has no modules: remove the line")),
    (
        "io-threads",
        Only(&["1"], "one thread per core serves: choose them by cores, and remove the line"),
    ),
    ("io-threads-do-reads", Any),
    ("server_cpulist", Never("choose cpus by cores, and remove the line")),
    ("bio_cpulist", Never("choose cpus by cores, and remove the line")),
    ("aof_rewrite_cpulist", Any),
    ("bgsave_cpulist", Any),
    ("syslog-enabled", Only(&["no"], "use logfile, or standard error and systemd")),
    ("syslog-*", Any),
    ("latency-tracking", Only(&["yes"], "latencies are always tracked: say yes")),
    ("latency-tracking-info-percentiles", Only(&["50 99 99.9"], "the percentiles are 50 99 99.9")),
    ("lfu-log-factor", Only(&["10"], "it is 10, always")),
    ("lfu-decay-time", Only(&["1"], "it is 1, always")),
    (
        "oom-score-adj",
        Only(&["no"], "set it where the process is started (OOMScoreAdjust= in systemd)"),
    ),
    ("oom-score-adj-values", Any),
    ("shutdown-on-sigint", Only(&["default"], REMOVE)),
    ("shutdown-on-sigterm", Only(&["default"], REMOVE)),
    ("ignore-warnings", Only(&[""], REMOVE)),
    // Of files, encodings and work that do not exist here or need no advice.
    ("tcp-backlog", Any),
    ("hz", Any),
    ("dynamic-hz", Any),
    ("always-show-logo", Any),
    ("set-proc-title", Any),
    ("proc-title-template", Any),
    ("crash-log-enabled", Any),
    ("crash-memcheck-enabled", Any),
    ("stop-writes-on-bgsave-error", Any),
    ("dbfilename", Any),
    ("rdb*", Any),
    ("sanitize-dump-payload", Any),
    ("appendfilename", Any),
    ("appenddirname", Any),
    ("aof-*", Any),
    ("auto-aof-*", Any),
    ("no-appendfsync-on-rewrite", Any),
    ("maxmemory-eviction-tenacity", Any),
    ("active-expire-effort", Any),
    ("activedefrag", Any),
    ("active-defrag-*", Any),
    ("activerehashing", Any),
    ("jemalloc-bg-thread", Any),
    ("disable-thp", Any),
    ("lazyfree-*", Any),
    ("list-*", Any),
    ("hash-*", Any),
    ("set-*", Any),
    ("zset-*", Any),
    ("hll-*", Any),
    ("stream-*", Any),
    ("shutdown-timeout", Any),
    ("propagation-error-behavior", Any),
    ("locale-collate", Any),
];

/// Why a name of Redis cannot be set while the server runs, with its spelling; `None` when Redis
/// does not know it either.
pub fn remedy(name: &str) -> Option<(&'static str, &'static str)> {
    const NOTHING: &str = "ringraft has nothing that it would change";
    let others = [
        "appenddirname",
        "appendfilename",
        "aof-rewrite-incremental-fsync",
        "aof-timestamp-enabled",
        "auto-aof-rewrite-min-size",
        "cluster-allow-reads-when-down",
        "cluster-migration-barrier",
        "cluster-node-timeout",
        "cluster-require-full-coverage",
        "disable-thp",
        "jemalloc-bg-thread",
        "lazyfree-lazy-eviction",
        "lazyfree-lazy-expire",
        "lazyfree-lazy-server-del",
        "lazyfree-lazy-user-del",
        "masterauth",
        "masteruser",
        "min-replicas-max-lag",
        "rdb-del-sync-files",
        "rdb-save-incremental-fsync",
        "repl-backlog-size",
        "repl-backlog-ttl",
        "repl-disable-tcp-nodelay",
        "repl-diskless-load",
        "repl-diskless-sync",
        "repl-diskless-sync-delay",
        "repl-ping-replica-period",
        "repl-timeout",
        "replica-announce-ip",
        "replica-announce-port",
        "replica-ignore-maxmemory",
        "replica-lazy-flush",
        "replica-priority",
        "replica-serve-stale-data",
        "slave-priority",
        "slave-serve-stale-data",
    ];
    let directives = DIRECTIVES.iter().filter(|(known, _)| !known.ends_with('*'));
    let directives = directives.map(|(known, meaning)| match meaning {
        Any => (*known, NOTHING),
        Only(_, remedy) | Never(remedy) => {
            // What a line of a file is told, without the line.
            let end = remedy.find(": remove the line").or(remedy.find(", and remove the line"));
            (*known, &remedy[..end.unwrap_or(remedy.len())])
        }
    });
    let mut known = directives.chain(others.into_iter().map(|known| (known, NOTHING)));
    known.find(|(known, _)| *known == name)
}

/// Settings that take several words.
const SEVERAL_WORDS: [&str; 4] = ["bind", "client-output-buffer-limit", "cores", "tls-protocols"];

/// Is this text in Redis' format rather than TOML? The first line that says something decides; a
/// file that ends in `.toml` is TOML whatever it says.
pub fn is_redis_format(path: &Path, text: &str) -> bool {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return false;
    }
    let mut lines = text.lines().map(str::trim);
    let Some(line) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) else {
        return false;
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name_end = line.find(|c| !is_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    !name.is_empty() && !rest.trim_start().starts_with(['=', '.'])
}

/// What only the whole file tells.
#[derive(Default)]
struct Persistence {
    append: Option<bool>,
    /// The value of `appendfsync`, and its place in the file.
    fsync: Option<(String, String)>,
    /// Seconds of the `save` points; `None` when there is no such line.
    points: Option<Vec<i64>>,
}

/// Reads a file of Redis into settings.
/// Errors: one line with the file, the line and the directive.
pub fn load(path: &Path, text: &str, settings: &mut Settings) -> Result<(), String> {
    let mut persistence = Persistence::default();
    read(path, text, settings, &mut persistence, 0)?;
    settle(persistence, settings)
}

fn read(
    path: &Path,
    text: &str,
    settings: &mut Settings,
    persistence: &mut Persistence,
    depth: usize,
) -> Result<(), String> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}, line {}", path.display(), number + 1);
        let words = split_words(line.as_bytes()).ok_or_else(|| {
            format!("{place}: a quote is not closed, or something follows a closing one")
        })?;
        let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
        let words = words.map_err(|_| format!("{place}: what it says is not UTF-8"))?;
        let Some((name, values)) = words.split_first() else { continue };
        let name = name.to_ascii_lowercase();
        let place = format!("{place}: {name}");
        if name == "include" {
            include(&place, values, settings, persistence, depth)?;
        } else {
            take(&name, values, &place, settings, persistence)
                .map_err(|cause| format!("{place}: {cause}"))?;
        }
    }
    Ok(())
}

/// One directive.
/// Errors: why it cannot be so.
fn take(
    name: &str,
    values: &[String],
    place: &str,
    settings: &mut Settings,
    persistence: &mut Persistence,
) -> Result<(), String> {
    let one = || match values {
        [value] => Ok(value),
        _ => Err("wrong number of arguments".to_string()),
    };
    match name {
        "user" => {
            settings.users.push(join(values.iter(), " "));
            return Ok(());
        }
        "save" => return add_points(values, &mut persistence.points),
        "appendonly" => {
            persistence.append = Some(match one()?.to_ascii_lowercase().as_str() {
                "yes" => true,
                "no" => false,
                _ => return Err("argument must be 'yes' or 'no'".into()),
            });
            return Ok(());
        }
        "appendfsync" => {
            persistence.fsync = Some((one()?.clone(), place.to_string()));
            return Ok(());
        }
        _ => {}
    }
    if let Some((row, _)) = Setting::find(name).filter(|(row, _)| row.is_option()) {
        let several = SEVERAL_WORDS.contains(&name) && !values.is_empty();
        let value = if several { join(values.iter(), " ") } else { one()?.clone() };
        return settings.set_row(row, &value);
    }
    let fits = |known: &str| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == known,
    };
    match DIRECTIVES.iter().find(|(known, _)| fits(known)) {
        Some((_, Any)) => Ok(()),
        Some((_, Only(allowed, remedy))) => {
            let value = join(values.iter(), " ");
            let is_allowed = allowed.iter().any(|allowed| value.eq_ignore_ascii_case(allowed));
            is_allowed.then_some(()).ok_or_else(|| (*remedy).to_string())
        }
        Some((_, Never(remedy))) => Err((*remedy).to_string()),
        None => Err(
            "no directive of Redis that is known here, and no setting (ringraft --help lists them)"
                .into(),
        ),
    }
}

/// Adds `save` points; an empty one takes back those before it.
fn add_points(values: &[String], points: &mut Option<Vec<i64>>) -> Result<(), String> {
    const INVALID: &str = "Invalid save parameters";
    let points = points.get_or_insert_default();
    match values {
        [value] if value.is_empty() => {
            points.clear();
            return Ok(());
        }
        [] => return Err("wrong number of arguments".into()),
        _ if values.iter().any(String::is_empty) => return Err(INVALID.into()),
        _ => {}
    }
    // All in one pair of quotes, or word by word.
    let words: Vec<&str> = values.iter().flat_map(|value| value.split_ascii_whitespace()).collect();
    if !words.len().is_multiple_of(2) {
        return Err(INVALID.into());
    }
    for pair in words.chunks_exact(2) {
        let number = |text: &str| crate::numbers::parse_integer(text.as_bytes());
        match (number(pair[0]), number(pair[1])) {
            (Some(seconds @ 1..), Some(0..)) => points.push(seconds.min(i32::MAX.into())),
            _ => return Err(INVALID.into()),
        }
    }
    Ok(())
}

/// Chooses the mode: a file that wants neither snapshots nor a log wants a cache; any other has
/// what it wants, and the log besides.
fn settle(persistence: Persistence, settings: &mut Settings) -> Result<(), String> {
    let set = |settings: &mut Settings, name: &str, value: &str| {
        let (row, _) = Setting::find(name).expect("a row of the table");
        settings.set_row(row, value)
    };
    let no_points = persistence.points.as_ref().is_some_and(Vec::is_empty);
    let keeps_nothing = no_points && persistence.append != Some(true);
    if keeps_nothing && !settings.is_given("mode") {
        return set(settings, "mode", "cache");
    }
    if let Some((value, place)) = &persistence.fsync {
        set(settings, "fsync", value).map_err(|cause| format!("{place}: {cause}"))?;
    }
    if let Some(points) = &persistence.points {
        // The longest is the one that holds however little is written.
        let seconds = points.iter().max().copied().unwrap_or(0);
        set(settings, "snapshot-interval", &seconds.to_string())?;
    }
    Ok(())
}

fn include(
    place: &str,
    values: &[String],
    settings: &mut Settings,
    persistence: &mut Persistence,
    depth: usize,
) -> Result<(), String> {
    let [pattern] = values else { return Err(format!("{place}: wrong number of arguments")) };
    if depth == CONFIG_INCLUDES_MAX {
        return Err(format!("{place}: {CONFIG_INCLUDES_MAX} files include each other"));
    }
    for path in matching(Path::new(pattern)).map_err(|error| format!("{place}: {error}"))? {
        let shown = path.display();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{place}: cannot read {shown}: {error}"))?;
        read(&path, &text, settings, persistence, depth + 1)?;
    }
    Ok(())
}

/// The files that `include` means, in the order of their names: one, or those that its last part
/// matches.
fn matching(pattern: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_path_buf()]);
    }
    let folder = match pattern.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let glob = Glob::new(name.as_bytes());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A star does not stand for a dot at the start, as in a shell.
        let file = entry.file_name().to_string_lossy().into_owned();
        if glob.matches(file.as_bytes()) && (!file.starts_with('.') || name.starts_with('.')) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::{AuthClients, Protocols};
    use crate::settings::values::{Fsync, LogLevel, MaxmemoryPolicy, Mode};

    fn loaded(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        load(Path::new("redis.conf"), text, &mut settings)?;
        settings.settle();
        settings.check().map_err(|(name, cause)| format!("{name}: {cause}"))?;
        Ok(settings)
    }

    #[test]
    fn formats_are_told_apart() {
        for (name, text, is_redis) in [
            ("a", "", false),
            ("a", "# only\n\n", false),
            ("a", "# c\n\nport 1", true),
            ("a", "port = 1", false),
            ("a", "port=1", false),
            ("a.conf", "port = 1", false),
            ("a.toml", "port 1", false),
            ("a", "[table]", false),
            ("a", "\"port\" = 1", false),
            ("a", "save \"\"", true),
            ("a", "server_cpulist 0-7", true),
            ("a", "shutdown", true),
        ] {
            assert_eq!(is_redis_format(Path::new(name), text), is_redis, "{name}: {text}");
        }
    }

    #[test]
    fn common_directives_are_settings() {
        let settings = loaded(
            "# A cache of ours\n\
             bind 127.0.0.1 -::1\n PORT 7000\nprotected-mode no\ntimeout 5\ntcp-keepalive 60\n\
             loglevel warning\nlogfile \"\"\ndatabases 16\nmaxclients 50\nmaxmemory 1gb\n\
             maxmemory-policy allkeys-lru\nmaxmemory-samples 7\nrequirepass \"a b\\x41\"\n\
             client-output-buffer-limit normal 1mb 0 0\n\
             client-output-buffer-limit pubsub 2mb 0 0\n\
             slowlog-log-slower-than 5\nslowlog-max-len 6\nproto-max-bulk-len 2mb\n\
             client-query-buffer-limit 3mb\nhz 100\ndir '/tmp/x'\nappendonly yes\n\
             appendfsync everysec\nshards 3\n",
        );
        let settings = settings.expect("all of it is common");
        assert_eq!(settings.bind.to_string(), "127.0.0.1 -::1");
        assert_eq!((settings.port, settings.timeout, settings.tcp_keepalive), (7000, 5, 60));
        assert_eq!((settings.log_level, settings.maxclients), (LogLevel::Warn, 50));
        assert_eq!((settings.maxmemory, settings.maxmemory_samples), (1 << 30, 7));
        assert_eq!(settings.maxmemory_policy, MaxmemoryPolicy::AllkeysLru);
        assert_eq!(settings.requirepass, "a bA");
        let limits = settings.client_output_buffer_limit;
        assert_eq!((limits.normal.hard_bytes, limits.pubsub.hard_bytes), (1 << 20, 2 << 20));
        assert_eq!((settings.slowlog_log_slower_than, settings.slowlog_max_len), (5, 6));
        assert_eq!(settings.proto_max_bulk_len, 2 << 20);
        assert_eq!(settings.client_query_buffer_limit, 3 << 20);
        assert_eq!((settings.mode, settings.fsync), (Mode::Store, Fsync::Everysec));
        assert_eq!((settings.dir, settings.shards), (PathBuf::from("/tmp/x"), Some(3)));
        assert!(!settings.protected_mode);
    }

    #[test]
    fn tls_directives_are_settings() {
        let text = "port 0\ntls-port 6390\ntls-cert-file /a.crt\ntls-key-file /a.key\ntls-ca-cert-dir /ca\n\
                    tls-auth-clients optional\ntls-protocols TLSv1.2 TLSv1.3\ntls-session-caching no\n\
                    tls-replication no\ntls-cluster no\ntls-key-file-pass \"\"\ntls-prefer-server-ciphers yes";
        let tls = loaded(text).expect("all of it is known").tls;
        assert_eq!(
            (tls.port, tls.cert_file.as_str(), tls.key_file.as_str()),
            (6390, "/a.crt", "/a.key")
        );
        assert_eq!((tls.ca_cert_dir.as_str(), tls.auth_clients), ("/ca", AuthClients::Optional));
        assert!(
            tls.prefer_server_ciphers && !tls.session_caching && tls.protocols == Protocols::Both
        );
        let refusal = loaded("port 0\ntls-port 6390").expect_err("it has no certificate");
        assert_eq!(refusal, "tls-cert-file: tls-port 6390 needs it");
    }

    #[test]
    fn persistence_is_translated_as_a_whole() {
        use Fsync::{Always, Everysec, No};
        for (text, mode, fsync, interval) in [
            ("port 1", Mode::Store, Always, 3600),
            ("save \"\"", Mode::Cache, No, 0),
            ("save ''\nappendonly no\nappendfsync everysec", Mode::Cache, No, 0),
            ("save ''\nappendonly yes", Mode::Store, Always, 0),
            ("appendonly no\nappendfsync everysec", Mode::Store, Everysec, 3600),
            ("appendonly yes\nappendfsync no", Mode::Store, No, 3600),
            ("save 900 1\nsave 300 10", Mode::Store, Always, 900),
            ("save 3600 1 300 100 60 10000", Mode::Store, Always, 3600),
            ("save \"60 1\"", Mode::Store, Always, 60),
            ("save 900 1\nsave \"\"\nsave 60 1", Mode::Store, Always, 60),
            ("save 900 1\nsave \"\"", Mode::Cache, No, 0),
            ("save \"\"\nmode store", Mode::Store, Always, 0),
        ] {
            let settings = loaded(text).expect(text);
            let found = (settings.mode, settings.fsync, settings.snapshot_interval);
            assert_eq!(found, (mode, fsync, interval), "{text}");
        }
    }

    #[test]
    fn refusals_name_line_and_directive() {
        for (text, refusal) in [
            ("\nport x", "line 2: port: argument couldn't be parsed into an integer"),
            ("port 1 2", "line 1: port: wrong number of arguments"),
            ("port", "line 1: port: wrong number of arguments"),
            ("maxmemory -1", "line 1: maxmemory: argument must be a memory value"),
            ("requirepass a b", "line 1: requirepass: wrong number of arguments"),
            ("requirepass \"a", "line 1: a quote is not closed"),
            ("# c\n\nReplicaOf a 1", "line 3: replicaof: ringraft does not replicate"),
            ("databases 32", "line 1: databases: there are 16 databases, always"),
            ("daemonize yes", "line 1: daemonize: ringraft stays in the foreground"),
            ("tls-key-file-pass x", "line 1: tls-key-file-pass: keys are read without a password"),
            (
                "tls-dh-params-file x",
                "line 1: tls-dh-params-file: keys are exchanged over elliptic",
            ),
            (
                "tls-replication yes",
                "line 1: tls-replication: ringraft connects by TLS to its own nodes alone",
            ),
            ("tls-ciphers HIGH", "line 1: tls-ciphers: no suite is called 'HIGH' here"),
            ("rename-command FLUSHALL \"\"", "line 1: rename-command: commands have their names"),
            ("nosuch 1", "line 1: nosuch: no directive of Redis that is known here"),
            ("save", "line 1: save: wrong number of arguments"),
            ("save \"\" \"\"", "line 1: save: Invalid save parameters"),
            ("save 60", "line 1: save: Invalid save parameters"),
            ("save 0 1", "line 1: save: Invalid save parameters"),
            ("save 60 1 \"\"", "line 1: save: Invalid save parameters"),
            ("appendonly maybe", "line 1: appendonly: argument must be 'yes' or 'no'"),
            ("port 1\nappendfsync maybe", "line 2: appendfsync: argument(s) must be one of"),
            ("include /nowhere/at.conf", "line 1: include: cannot read /nowhere/at.conf: "),
            ("include", "line 1: include: wrong number of arguments"),
            ("metrics-port 6379", "metrics-port: "),
        ] {
            let found = loaded(text).expect_err(text);
            let found = found.strip_prefix("redis.conf, ").unwrap_or(&found);
            assert!(found.starts_with(refusal), "{text}: {found}");
            assert!(!found.contains('\n'), "{found}");
        }
    }

    #[test]
    fn files_are_included() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("writable");
        };
        let here = folder.path().display();
        write("1.conf", "port 7001\ntimeout 1\n");
        write("2.conf", "timeout 2\nappendonly no\n");
        write(".hidden.conf", "nosuch 1\n");
        let settings = loaded(&format!("include {here}/*.conf\nport 7003\nsave ''"));
        let settings = settings.expect("both are good");
        assert_eq!((settings.port, settings.timeout, settings.mode), (7003, 2, Mode::Cache));
        write("2.conf", "\nnosuch 1\n");
        let refusal = loaded(&format!("include {here}/2.conf")).expect_err("unknown");
        assert!(refusal.contains("2.conf, line 2: nosuch: "), "{refusal}");
        write("2.conf", &format!("include {here}/2.conf\n"));
        let refusal = loaded(&format!("include {here}/2.conf")).expect_err("for ever");
        assert!(refusal.ends_with("files include each other"), "{refusal}");
    }
}
