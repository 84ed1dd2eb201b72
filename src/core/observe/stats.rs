//! What a core counts: per command, per connection, per hop. Plain numbers, merged when somebody
//! asks.

use crate::commands::Command;
use crate::core::commands::table;
use crate::core::observe::command_log::{CommandLog, Trait};
use crate::core::observe::latency::{Event, LatencyMonitor};
use crate::refusal::Outcome;
use crate::resp::listing::{LongReply, Rest};
use crate::resp::reply::Reply;
use crate::settings::Settings;
use hdrhistogram::Histogram;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest duration a histogram tells apart, in microseconds; longer ones count as this.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Counters of one command.
#[derive(Clone)]
pub struct CommandStats {
    /// Times it ran.
    pub calls: u64,
    /// Time it ran, nanoseconds.
    pub nanoseconds: u64,
    /// Times a gate refused it.
    pub rejected: u64,
    /// Times it ran and refused.
    pub failed: u64,
    /// Its durations in microseconds.
    pub latency: Option<Box<Histogram<u32>>>,
}

/// Counters of one core since start or CONFIG RESETSTAT.
#[derive(Clone)]
pub struct Stats {
    /// The turn's time, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// By command number.
    pub commands: Vec<CommandStats>,
    /// By code word.
    pub errors: BTreeMap<String, u64>,
    /// Commands run.
    pub total_commands: u64,
    /// Connections accepted.
    pub total_connections: u64,
    /// Connections refused because of `maxclients`.
    pub rejected_connections: u64,
    /// Bytes received.
    pub input_bytes: u64,
    /// Bytes sent.
    pub output_bytes: u64,
    /// Keys found by reads.
    pub keyspace_hits: u64,
    /// Keys not found by reads.
    pub keyspace_misses: u64,
    /// Keys deleted because of their deadline.
    pub expired_keys: u64,
    /// Keys deleted to free memory.
    pub evicted_keys: u64,
    /// Requests that ran on this core for its own connections.
    pub local_requests: u64,
    /// Reads that were taken here although another node leads.
    pub reads_as_follower: u64,
    /// Requests sent to other cores.
    pub hops: u64,
    /// Messages sent to other cores.
    pub messages: u64,
    /// Connections that moved to another core.
    pub moved_connections: u64,
    /// Requests sent to the node that leads.
    pub relayed: u64,
    /// Those of them that were sent again: the first time they had no effect.
    pub sent_again: u64,
    /// Those that another node had answered already when their leader was lost.
    pub recalled: u64,
    /// Operations applied that nobody waited for.
    pub replayed_operations: u64,
    /// TLS handshakes that came to their end.
    pub tls_handshakes: u64,
    /// Those that failed, or took too long.
    pub tls_handshake_failures: u64,
    /// Connections closed because they read too slowly.
    pub output_limit_disconnections: u64,
    /// Connections closed because their request grew too large.
    pub query_limit_disconnections: u64,
    /// Turns run.
    pub turns: u64,
    /// Clients closed because all of them held more memory than `maxmemory-clients`.
    pub evicted_clients: u64,
    /// What is kept of single commands and events. It outlives [`Stats::reset`] and is not added
    /// up.
    pub noted: Noted,
}

/// What a core keeps of single commands and events that stand out.
#[derive(Clone)]
pub struct Noted {
    /// Commands that took long.
    pub slow: CommandLog,
    /// Commands whose request was large.
    pub large_requests: CommandLog,
    /// Commands whose reply was large.
    pub large_replies: CommandLog,
    /// What held the core up.
    pub latency: LatencyMonitor,
    /// The least duration of a command that concerns anybody.
    slow_from: Duration,
}

impl Default for Noted {
    /// Empty, and never takes anything.
    fn default() -> Noted {
        Noted {
            slow: CommandLog::new(Trait::Slow),
            large_requests: CommandLog::new(Trait::LargeRequest),
            large_replies: CommandLog::new(Trait::LargeReply),
            latency: LatencyMonitor::default(),
            slow_from: Duration::MAX,
        }
    }
}

impl Noted {
    /// Takes from now on what these settings say.
    pub fn configure(&mut self, settings: &Settings) {
        self.slow.configure(settings.slowlog_log_slower_than, settings.slowlog_max_len);
        let requests = (settings.large_request_bytes, settings.large_request_max_len);
        self.large_requests.configure(requests.0, requests.1);
        let replies = (settings.large_reply_bytes, settings.large_reply_max_len);
        self.large_replies.configure(replies.0, replies.1);
        let threshold_ms = settings.latency_monitor_threshold;
        self.latency.configure(Duration::from_millis(threshold_ms));
        let slow = Duration::from_micros(self.slow.threshold());
        self.slow_from = slow.min(self.latency.threshold());
    }

    /// The log of the commands with a trait.
    pub fn log(&mut self, kind: Trait) -> &mut CommandLog {
        match kind {
            Trait::Slow => &mut self.slow,
            Trait::LargeRequest => &mut self.large_requests,
            Trait::LargeReply => &mut self.large_replies,
        }
    }

    /// Did a command, or like ones together, take so long that somebody wants to know?
    #[inline(always)]
    pub fn is_slow(&self, took: Duration) -> bool {
        took >= self.slow_from
    }

    /// Does a reply have so many bytes that somebody wants to know?
    #[inline(always)]
    pub fn is_large_reply(&self, size: usize) -> bool {
        size as u64 >= self.large_replies.threshold()
    }

    /// A reply that began so far has a rest: it is looked at when that is written.
    #[cold]
    pub fn note_long(
        &self,
        rest: &mut Rest,
        command: &Command,
        arguments: Arguments<'_>,
        size: &mut usize,
    ) {
        let size = std::mem::take(size) as u64;
        if self.large_replies.threshold() < u64::MAX && !command.flags.no_slowlog {
            let (command, arguments) = (command.number, OwnedArguments::copy(arguments));
            rest.noted = Some(Box::new(LongReply { command, arguments, size }));
        }
    }

    /// Notes what held the core up, if it did: a command, or like ones together.
    #[cold]
    pub fn note_latency(&mut self, command: &Command, took: Duration, now_ms: i64) {
        let event = if command.flags.fast { Event::FastCommand } else { Event::Command };
        self.latency.note(event, took, now_ms);
    }
}

impl Default for Stats {
    /// All zero.
    fn default() -> Stats {
        let none = CommandStats { calls: 0, nanoseconds: 0, rejected: 0, failed: 0, latency: None };
        Stats {
            now_ms: 0,
            commands: vec![none; table::rows().len()],
            errors: BTreeMap::new(),
            total_commands: 0,
            total_connections: 0,
            rejected_connections: 0,
            input_bytes: 0,
            output_bytes: 0,
            keyspace_hits: 0,
            keyspace_misses: 0,
            expired_keys: 0,
            evicted_keys: 0,
            local_requests: 0,
            reads_as_follower: 0,
            hops: 0,
            messages: 0,
            moved_connections: 0,
            relayed: 0,
            sent_again: 0,
            recalled: 0,
            replayed_operations: 0,
            output_limit_disconnections: 0,
            query_limit_disconnections: 0,
            turns: 0,
            evicted_clients: 0,
            tls_handshakes: 0,
            tls_handshake_failures: 0,
            noted: Noted::default(),
        }
    }
}

impl Stats {
    /// Counts `calls` runs of a command that together took the time since `start`; returns the time
    /// now. Runs of the same command within a stage share one reading of the clock.
    #[inline]
    pub fn count(&mut self, command: &'static Command, calls: u64, start: Instant) -> Instant {
        let now = Instant::now();
        self.count_span(command, calls, now.duration_since(start).as_nanos() as u64);
        now
    }

    /// Counts `calls` runs of a command that together took so long.
    #[inline]
    pub fn count_span(&mut self, command: &'static Command, calls: u64, nanoseconds: u64) {
        self.total_commands += calls;
        let stats = &mut self.commands[usize::from(command.number)];
        stats.calls += calls;
        stats.nanoseconds += nanoseconds;
        let latency = stats.latency.get_or_insert_with(|| {
            let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 2);
            Box::new(histogram.expect("bounds that the crate accepts"))
        });
        let each = (nanoseconds / 1000 / calls.max(1)).clamp(1, LATENCY_MAX_US);
        latency.saturating_record_n(each, calls as u32);
    }

    /// Turns a refusal into the error that replaces what the command wrote since `start`.
    #[inline(always)]
    pub fn finish(
        &mut self,
        outcome: Outcome,
        command: &'static Command,
        start: usize,
        reply: &mut Reply<'_>,
    ) {
        if let Err(refusal) = outcome {
            self.commands[usize::from(command.number)].failed += 1;
            self.refuse(refusal.line(), start, reply);
        }
    }

    /// Writes and counts an error in place of what was written since `start`.
    #[cold]
    pub fn refuse(&mut self, text: impl AsRef<[u8]>, start: usize, reply: &mut Reply<'_>) {
        let text = text.as_ref();
        reply.truncate(start);
        reply.error_bytes(text);
        let code = text.split(|&byte| byte == b' ').next().unwrap_or(b"ERR");
        *self.errors.entry(String::from_utf8_lossy(code).into_owned()).or_default() += 1;
    }

    /// Counts from zero again (CONFIG RESETSTAT).
    pub fn reset(&mut self) {
        let noted = std::mem::take(&mut self.noted);
        *self = Stats { now_ms: self.now_ms, noted, ..Stats::default() };
    }

    /// Adds the counters of another core.
    pub fn add(&mut self, other: &Stats) {
        for (mine, theirs) in self.commands.iter_mut().zip(&other.commands) {
            mine.calls += theirs.calls;
            mine.nanoseconds += theirs.nanoseconds;
            mine.rejected += theirs.rejected;
            mine.failed += theirs.failed;
            if let Some(theirs) = &theirs.latency {
                match &mut mine.latency {
                    Some(mine) => mine.add(&**theirs).expect("equal bounds"),
                    none => *none = Some(theirs.clone()),
                }
            }
        }
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.total_commands += other.total_commands;
        self.total_connections += other.total_connections;
        self.rejected_connections += other.rejected_connections;
        self.input_bytes += other.input_bytes;
        self.output_bytes += other.output_bytes;
        self.keyspace_hits += other.keyspace_hits;
        self.keyspace_misses += other.keyspace_misses;
        self.expired_keys += other.expired_keys;
        self.evicted_keys += other.evicted_keys;
        self.local_requests += other.local_requests;
        self.reads_as_follower += other.reads_as_follower;
        self.hops += other.hops;
        self.messages += other.messages;
        self.moved_connections += other.moved_connections;
        self.relayed += other.relayed;
        self.sent_again += other.sent_again;
        self.recalled += other.recalled;
        self.replayed_operations += other.replayed_operations;
        self.output_limit_disconnections += other.output_limit_disconnections;
        self.query_limit_disconnections += other.query_limit_disconnections;
        self.turns += other.turns;
        self.evicted_clients += other.evicted_clients;
        self.tls_handshakes += other.tls_handshakes;
        self.tls_handshake_failures += other.tls_handshake_failures;
    }
}
