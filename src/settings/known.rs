//! Settings of Redis that are no settings here, because it is always so, or follows from a setting:
//! CONFIG GET shows what is so, and CONFIG SET takes that value alone.
//!
//! Only what is true stands here. Names of Redis that mean nothing in this server are refused as
//! such.

use super::values::Routing;
use super::{Settings, redis_file};

/// A name, and what is in force.
pub struct Known {
    /// Redis' name.
    pub name: &'static str,
    value: Value,
}

enum Value {
    /// It is always so.
    Always(&'static str),
    /// It follows from the setting of this name.
    From(&'static str, fn(&Settings) -> &'static str),
}

impl Known {
    /// The value under these settings.
    pub fn value(&self, settings: &Settings) -> &'static str {
        match self.value {
            Value::Always(value) => value,
            Value::From(_, value) => value(settings),
        }
    }

    /// Why it is not otherwise.
    fn cause(&self, settings: &Settings) -> String {
        let value = self.value(settings);
        match self.value {
            Value::Always(_) => format!("it is '{value}' here, always"),
            Value::From(setting, _) => format!("it is '{value}' here; see {setting}"),
        }
    }
}

/// Clients of Redis Cluster ask for it.
fn cluster_enabled(settings: &Settings) -> &'static str {
    if settings.routing == Routing::Moved { "yes" } else { "no" }
}

const fn known(name: &'static str, value: &'static str) -> Known {
    Known { name, value: Value::Always(value) }
}

/// All of them, by name.
pub const KNOWN: &[Known] = &[
    known("activedefrag", "yes"),
    known("active-expire-effort", "1"),
    known("aof-load-truncated", "yes"),
    known("aof-use-rdb-preamble", "no"),
    known("auto-aof-rewrite-percentage", "0"),
    known("bind-source-addr", ""),
    Known { name: "cluster-enabled", value: Value::From("routing", cluster_enabled) },
    known("daemonize", "no"),
    known("dynamic-hz", "no"),
    known("enable-debug-command", "yes"),
    known("enable-module-command", "no"),
    known("enable-protected-configs", "no"),
    known("hll-sparse-max-bytes", "3000"),
    known("hz", "10"),
    known("latency-tracking", "yes"),
    known("latency-tracking-info-percentiles", "50 99 99.9"),
    known("lazyfree-lazy-user-flush", "yes"),
    known("lfu-decay-time", "1"),
    known("lfu-log-factor", "10"),
    known("min-replicas-to-write", "0"),
    known("min-slaves-to-write", "0"),
    known("no-appendfsync-on-rewrite", "no"),
    known("oom-score-adj", "no"),
    known("pidfile", ""),
    known("rdbchecksum", "yes"),
    known("rdbcompression", "no"),
    known("replica-read-only", "yes"),
    known("replicaof", ""),
    known("sanitize-dump-payload", "yes"),
    known("set-proc-title", "no"),
    known("slave-read-only", "yes"),
    known("slaveof", ""),
    known("socket-mark-id", "0"),
    known("stop-writes-on-bgsave-error", "no"),
    known("supervised", "no"),
    known("syslog-enabled", "no"),
    known("tls-replication", "no"),
];

/// What CONFIG SET answers to a name that is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It is so already.
    IsSo,
    /// It cannot be so: Redis' spelling of the name, and why.
    Never(&'static str, String),
    /// Nobody knows it.
    Unknown,
}

impl Stranger {
    /// Judges a name, in any case of letters, with the value that is asked for.
    pub fn judge(name: &str, value: &[u8], settings: &Settings) -> Stranger {
        if let Some(known) = KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name)) {
            return match known.value(settings).as_bytes().eq_ignore_ascii_case(value) {
                true => Stranger::IsSo,
                false => Stranger::Never(known.name, known.cause(settings)),
            };
        }
        match redis_file::remedy(&name.to_ascii_lowercase()) {
            Some((name, remedy)) => Stranger::Never(name, remedy.to_string()),
            None => Stranger::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::row::Setting;

    #[test]
    fn none_is_a_setting_and_none_stands_twice() {
        let settings = Settings::default();
        let mut names = std::collections::HashSet::new();
        for known in KNOWN {
            assert!(Setting::find(known.name).is_none(), "{} is a setting", known.name);
            assert!(names.insert(known.name), "{} twice", known.name);
            let value = known.value(&settings).as_bytes();
            let judged = Stranger::judge(&known.name.to_uppercase(), value, &settings);
            assert_eq!(judged, Stranger::IsSo);
            let judged = Stranger::judge(known.name, b"other", &settings);
            assert!(matches!(judged, Stranger::Never(..)));
        }
    }

    #[test]
    fn cluster_enabled_follows_from_routing() {
        let mut settings = Settings::default();
        for (routing, enabled) in [(Routing::Forward, "no"), (Routing::Moved, "yes")] {
            settings.routing = routing;
            let found = settings.get(&[b"cluster-enabled"]);
            assert_eq!(found, [("cluster-enabled", enabled.to_string())]);
            let judged = Stranger::judge("cluster-enabled", enabled.as_bytes(), &settings);
            assert_eq!(judged, Stranger::IsSo);
        }
        let Stranger::Never(_, cause) = Stranger::judge("cluster-enabled", b"no", &settings) else {
            panic!("it is not so");
        };
        assert_eq!(cause, "it is 'yes' here; see routing");
    }

    #[test]
    fn names_of_redis_are_refused_as_such() {
        let settings = Settings::default();
        for name in
            ["dbfilename", "repl-backlog-size", "REPL-DISKLESS-SYNC", "lazyfree-lazy-eviction"]
        {
            let judged = Stranger::judge(name, b"yes", &settings);
            assert!(matches!(judged, Stranger::Never(..)), "{name}");
        }
        assert_eq!(Stranger::judge("foo", b"yes", &settings), Stranger::Unknown);
        assert_eq!(Stranger::judge("repl", b"yes", &settings), Stranger::Unknown);
    }
}
