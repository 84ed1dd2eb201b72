//! The lines a starting server logs.

use super::Plan;
use crate::options::VERSION;
use crate::settings::values::{Mode, Word, cpus_text, size_text};
use std::time::Duration;

/// Between two lines about recovery, and before the first.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// After so long lines say what is waited for, too: it may be a disk that does not answer.
const STEP_AFTER: Duration = Duration::from_secs(5);

/// What is about to start.
pub fn starting(plan: &Plan) -> Vec<String> {
    let settings = &plan.settings;
    let identity = &plan.identity;
    let (cores, shards) = (plan.cpus.len(), identity.shard_count);
    let mut lines = vec![
        format!("ringraft {VERSION}, process {}", std::process::id()),
        format!(
            "{} on cpu {}, {}",
            count(cores, "core"),
            cpus_text(&plan.cpus),
            count(usize::from(shards), "shard")
        ),
    ];
    lines.push(match (&plan.directory, settings.mode) {
        (Some(directory), Mode::Store) => format!(
            "mode store, fsync {}, {} directory {}, cluster {}",
            settings.fsync.word(),
            if directory.is_new() { "new" } else { "existing" },
            directory.path().display(),
            identity.cluster
        ),
        _ => format!(
            "mode cache, nothing on disk{}, maxmemory {}",
            if settings.is_given("dir") {
                format!(" (directory {} is not used)", settings.dir.display())
            } else {
                String::new()
            },
            match settings.maxmemory {
                0 => "unlimited".to_string(),
                bytes => format!("{} {}", size_text(bytes), settings.maxmemory_policy.word()),
            }
        ),
    });
    lines
}

/// What an operator should look into before others find it.
pub fn warnings(plan: &Plan) -> Option<String> {
    let settings = &plan.settings;
    let is_closed = settings.port == 0 && settings.tls.port == 0;
    if is_closed || !settings.bind.is_open() || plan.users.ask_for_password() {
        return None;
    }
    Some(if settings.protected_mode {
        format!(
            "bind is {} and no password is set: clients of other machines are refused until there is one (requirepass) or \
             protected-mode is no",
            settings.bind
        )
    } else {
        format!(
            "bind is {}, no password is set and protected-mode is no: whoever reaches this machine may read and change \
             everything; set requirepass",
            settings.bind
        )
    })
}

/// It serves.
pub fn ready(plan: &Plan, took: Duration) -> String {
    let settings = &plan.settings;
    let unix = Some(settings.unixsocket.clone()).filter(|path| !path.is_empty());
    let tls = settings.tls_addresses().map(|address| format!("{address} (TLS)"));
    let plain = settings.addresses().map(|address| address.to_string());
    let addresses = plain.chain(tls).chain(unix);
    let addresses = crate::settings::values::join(addresses, ", ");
    format!("ready on {addresses} after {} ms", took.as_millis())
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// How far one shard has come in reading its snapshot and log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardProgress {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes to read.
    pub total_bytes: u64,
    /// Is it ready to serve?
    pub is_done: bool,
    /// What is being done for it.
    pub step: &'static str,
}

/// Says now and then how far recovery has come. Time is an argument: how long it has been going on.
#[derive(Debug, Default)]
pub struct Recovery {
    last: Duration,
}

impl Recovery {
    /// A line for the log, once a second.
    pub fn line(&mut self, shards: &[ShardProgress], elapsed: Duration) -> Option<String> {
        if elapsed < self.last + PROGRESS_INTERVAL {
            return None;
        }
        self.last = elapsed;
        let done = shards.iter().filter(|shard| shard.is_done).count();
        let read: u64 = shards.iter().map(|shard| shard.read_bytes).sum();
        let total: u64 = shards.iter().map(|shard| shard.total_bytes).sum();
        let awaited = shards.iter().enumerate().find(|(_, shard)| !shard.is_done);
        let step = match awaited.filter(|_| elapsed >= STEP_AFTER) {
            Some((id, shard)) => format!(", shard {id}: {}", shard.step),
            None => String::new(),
        };
        Some(format!(
            "recovering: {done} of {} done, {} of {} MiB read, {} s{step}",
            count(shards.len(), "shard"),
            read >> 20,
            total >> 20,
            elapsed.as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_speaks_once_a_second() {
        let mut recovery = Recovery::default();
        let shards = [
            ShardProgress { read_bytes: 5 << 20, total_bytes: 5 << 20, is_done: true, step: "" },
            ShardProgress {
                read_bytes: 1 << 20,
                total_bytes: 9 << 20,
                is_done: false,
                step: "log",
            },
        ];
        let mut lines = Vec::new();
        for ms in [0, 500, 999, 1000, 1001, 1999, 2600, 3599, 5100] {
            lines.extend(recovery.line(&shards, Duration::from_millis(ms)).map(|line| (ms, line)));
        }
        let text = |s| format!("recovering: 1 of 2 shards done, 6 of 14 MiB read, {s} s");
        assert_eq!(lines, [(1000, text(1)), (2600, text(2)), (5100, text(5) + ", shard 1: log")]);
    }
}
