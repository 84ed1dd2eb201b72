//! INFO: the server's state and counters as text, in sections.
//!
//! Fields have Redis' names where they mean the same; fields of Redis that have no meaning here are
//! left out. What this server has beyond Redis stands in sections of its own: Cores, Shards and
//! Raft.

use super::raft::{Peers, split_address};
use super::{Answer, Arity, Call, Group, Row, session, table};
use crate::core::disk::snapshots::SnapshotReport;
use crate::core::gather::report::Totals;
use crate::core::push::TopicKind;
use crate::core::{Core, SessionContext, wall_clock_ms};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use crate::settings::Settings;
use crate::settings::values::{Mode, Routing, Word};
use crate::usage;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

/// The version of Redis whose behaviour this server has.
pub const REDIS_VERSION: &str = "7.4.0";

/// Rows of this file.
pub const COMMANDS: &[Row] = &[session("info", Arity::AtLeast(1), info).asks().about(
    Group::Server,
    "1.0.0",
    "State and counters of the server; sections may be named.",
)];

/// One section.
struct Section {
    name: &'static str,
    title: &'static str,
    /// Is it shown when no section is named?
    default: bool,
    write: fn(&mut Text, &Core, &Totals),
}

const fn section(
    name: &'static str,
    title: &'static str,
    write: fn(&mut Text, &Core, &Totals),
) -> Section {
    Section { name, title, default: true, write }
}

impl Section {
    const fn on_demand(mut self) -> Section {
        self.default = false;
        self
    }
}

/// In the order in which they are shown.
const SECTIONS: &[Section] = &[
    section("server", "Server", server),
    section("clients", "Clients", clients),
    section("memory", "Memory", memory),
    section("persistence", "Persistence", persistence),
    section("stats", "Stats", stats),
    section("replication", "Replication", replication),
    section("cpu", "CPU", cpu),
    section("cores", "Cores", cores),
    section("shards", "Shards", shards).on_demand(),
    section("raft", "Raft", raft).on_demand(),
    section("modules", "Modules", |_, _, _| ()),
    section("commandstats", "Commandstats", command_stats).on_demand(),
    section("errorstats", "Errorstats", error_stats),
    section("latencystats", "Latencystats", latency_stats).on_demand(),
    section("cluster", "Cluster", cluster),
    section("keyspace", "Keyspace", keyspace),
];

/// The text being written.
struct Text(String);

impl Text {
    fn field(&mut self, name: impl Display, value: impl Display) {
        write!(self.0, "{name}:{value}\r\n").expect("text takes all");
    }

    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(format_args!("{name}_human"), human(bytes));
    }
}

fn info(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let words: Vec<String> = call
        .arguments
        .iter_from(1)
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
        .collect();
    let is_wanted = |section: &Section| {
        let default = words.is_empty() || words.iter().any(|word| word == "default");
        let all = words.iter().any(|word| word == "all" || word == "everything");
        all || default && section.default || words.iter().any(|word| word == section.name)
    };
    let wanted: Vec<&'static Section> = SECTIONS.iter().filter(|s| is_wanted(s)).collect();
    context.ask_cores(
        |core| core.report(),
        move |core, reports, reply| {
            let totals = Totals::of(reports);
            let mut text = Text(String::new());
            for section in wanted {
                if !text.0.is_empty() {
                    text.0.push_str("\r\n");
                }
                write!(text.0, "# {}\r\n", section.title).expect("text takes all");
                (section.write)(&mut text, core, &totals);
            }
            reply.verbatim(&text.0);
        },
    )
}

fn server(text: &mut Text, core: &Core, totals: &Totals) {
    let now_ms = wall_clock_ms();
    let uptime = core.shared.started.elapsed().as_secs();
    let (clock_turns, clock_turned_ms) = core.shared.clock_reports.numbers();
    text.field("redis_version", REDIS_VERSION);
    text.field("ringraft_version", env!("CARGO_PKG_VERSION"));
    text.field("redis_mode", mode_word(core));
    text.field("os", operating_system());
    text.field("arch_bits", usize::BITS);
    text.field("multiplexing_api", "io_uring");
    text.field("monotonic_clock", "POSIX clock_gettime");
    text.field("process_id", std::process::id());
    text.field("process_supervised", "no");
    text.field("run_id", &core.shared.run_id);
    text.field("cluster_id", format_args!("{:032x}", core.shared.cluster_id));
    let (port, tls_port) = (core.settings.port, core.settings.tls.port);
    text.field("tcp_port", if port == 0 { tls_port } else { port });
    text.field("server_time_usec", now_ms * 1000);
    text.field("uptime_in_seconds", uptime);
    text.field("uptime_in_days", uptime / 86400);
    text.field("clock_turned_back", clock_turns);
    text.field("clock_turned_back_ms", clock_turned_ms);
    text.field("hz", 10);
    text.field("configured_hz", 10);
    text.field("io_threads_active", 0);
    text.field("executable", file_name(std::env::current_exe().ok().as_deref()));
    text.field("config_file", file_name(core.settings.config_file.as_deref()));
    listeners(text, &core.settings);
    text.field("mode", core.settings.mode.word());
    text.field("ring_features", &totals.cores[0].features);
}

/// Where clients connect, as Redis lists it: its kinds of connection have fixed numbers.
fn listeners(text: &mut Text, settings: &Settings) {
    let mut line = |number: u8, name: &str, binds: &[String], port: u16| {
        let binds = binds.iter().map(|bind| format!(",bind={bind}")).collect::<String>();
        let port = if port == 0 { String::new() } else { format!(",port={port}") };
        text.field(format_args!("listener{number}"), format_args!("name={name}{binds}{port}"));
    };
    let words = settings.bind.to_string();
    let words: Vec<String> = words.split(' ').map(str::to_string).collect();
    if settings.port != 0 {
        line(0, "tcp", &words, settings.port);
    }
    if !settings.unixsocket.is_empty() {
        line(1, "unix", std::slice::from_ref(&settings.unixsocket), 0);
    }
    if settings.tls.port != 0 {
        line(2, "tls", &words, settings.tls.port);
    }
}

fn operating_system() -> String {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let [kind, release] = ["ostype", "osrelease"].map(|name| read(name).unwrap_or_default());
    format!("{} {} {}", kind.trim(), release.trim(), std::env::consts::ARCH)
}

fn file_name(path: Option<&std::path::Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

fn clients(text: &mut Text, core: &Core, totals: &Totals) {
    let reports = totals.cores.iter();
    let input = reports.clone().map(|core| core.largest_buffers.0).max().unwrap_or(0);
    let output = reports.map(|core| core.largest_buffers.1).max().unwrap_or(0);
    text.field("connected_clients", totals.sum(|core| core.client_count));
    text.field("cluster_connections", 0);
    text.field("maxclients", core.settings.maxclients);
    text.field("client_recent_max_input_buffer", input);
    text.field("client_recent_max_output_buffer", output);
    text.field("blocked_clients", totals.sum(|core| core.blocked_client_count));
    text.field("paused_clients", totals.sum(|core| core.paused_client_count));
    text.field("pubsub_clients", totals.sum(|core| core.pubsub_client_count));
    text.field("tracking_clients", totals.sum(|core| core.tracking_client_count));
    text.field("watching_clients", totals.sum(|core| core.watching_client_count));
    text.field("monitors", core.shared.monitor_count.load(Ordering::Relaxed));
}

fn memory(text: &mut Text, core: &Core, totals: &Totals) {
    let memory = usage::memory();
    let data = totals.data_bytes();
    let percent = |part: u64, all: u64| format!("{:.2}%", 100.0 * part as f64 / all.max(1) as f64);
    text.bytes("used_memory", memory.allocated);
    text.bytes("used_memory_rss", memory.process);
    text.bytes("used_memory_peak", memory.peak);
    text.field("used_memory_peak_perc", percent(memory.allocated, memory.peak));
    text.field("used_memory_overhead", memory.allocated.saturating_sub(data));
    text.field("used_memory_startup", memory.at_start);
    text.field("used_memory_dataset", data);
    let net = memory.allocated.saturating_sub(memory.at_start);
    text.field("used_memory_dataset_perc", percent(data.min(net), net));
    text.field("allocator_allocated", memory.allocated);
    text.field("allocator_active", memory.active);
    text.field("allocator_resident", memory.resident);
    text.bytes("total_system_memory", usage::system_memory());
    let script_bytes = totals.sum(|core| core.script_bytes) as u64;
    text.bytes("used_memory_lua", script_bytes);
    text.bytes("used_memory_scripts", script_bytes);
    text.field("number_of_cached_scripts", core.shared.scripts.count());
    text.bytes("maxmemory", core.settings.maxmemory);
    text.field("maxmemory_policy", core.settings.maxmemory_policy.word());
    let ratio = |a: u64, b: u64| format!("{:.2}", a as f64 / b.max(1) as f64);
    text.field("allocator_frag_ratio", ratio(memory.active, memory.allocated));
    text.field("allocator_frag_bytes", memory.active.saturating_sub(memory.allocated));
    text.field("allocator_rss_ratio", ratio(memory.resident, memory.active));
    text.field("allocator_rss_bytes", memory.resident.saturating_sub(memory.active));
    text.field("rss_overhead_ratio", ratio(memory.process, memory.resident));
    text.field("rss_overhead_bytes", memory.process as i64 - memory.resident as i64);
    text.field("mem_fragmentation_ratio", ratio(memory.process, memory.allocated));
    text.field("mem_fragmentation_bytes", memory.process as i64 - memory.allocated as i64);
    text.field("mem_replication_backlog", 0);
    text.field("mem_total_replication_buffers", 0);
    text.field("mem_clients_slaves", 0);
    text.field("mem_cluster_links", 0);
    text.field("mem_aof_buffer", totals.log_bytes());
    text.field("mem_clients_normal", totals.sum(|core| core.client_bytes));
    text.field("mem_allocator", format_args!("jemalloc-{}", usage::allocator_version()));
}

fn persistence(text: &mut Text, core: &Core, totals: &Totals) {
    let shards = totals.cores.iter().flat_map(|core| &core.shards);
    let snapshots: Vec<SnapshotReport> = shards.map(|shard| shard.snapshots).collect();
    let seconds = |ms: i64| if ms < 0 { -1 } else { ms / 1000 };
    let longest = snapshots.iter().map(|s| s.last_duration_ms).max().unwrap_or(-1);
    let oldest = snapshots.iter().map(|s| s.last_ms).min().unwrap_or(0);
    let all_ok = snapshots.iter().all(|s| s.last_ok);
    let is_running = snapshots.iter().any(|s| s.is_running);
    text.field("loading", 0);
    text.field("async_loading", 0);
    text.field("rdb_changes_since_last_save", snapshots.iter().map(|s| s.changes).sum::<u64>());
    text.field("rdb_bgsave_in_progress", u8::from(is_running));
    text.field("rdb_last_save_time", oldest / 1000);
    text.field("rdb_last_bgsave_status", if all_ok { "ok" } else { "err" });
    text.field("rdb_last_bgsave_time_sec", seconds(longest));
    text.field("rdb_saves", snapshots.iter().map(|s| s.count).sum::<u64>());
    text.field("aof_enabled", u8::from(core.settings.mode == Mode::Store));
    // A snapshot makes the log short: it is both of Redis' two works in the background.
    text.field("aof_rewrite_in_progress", u8::from(is_running));
    text.field("aof_rewrite_scheduled", 0);
    text.field("aof_last_rewrite_time_sec", seconds(longest));
    text.field("aof_last_bgrewrite_status", if all_ok { "ok" } else { "err" });
    let shards = totals.cores.iter().flat_map(|core| &core.shards);
    text.field("aof_current_size", shards.map(|shard| shard.raft.log_bytes).sum::<u64>());
    let is_starved = totals.cores.iter().flat_map(|core| &core.shards).any(|s| s.is_starved);
    text.field("aof_last_write_status", if is_starved { "err" } else { "ok" });
    text.field("fsync", core.settings.fsync.word());
}

fn stats(text: &mut Text, core: &Core, totals: &Totals) {
    let stats = &totals.stats;
    let rate = totals.rate;
    let kilobytes = |bytes: f64| format!("{:.2}", bytes / 1024.0);
    text.field("total_connections_received", stats.total_connections);
    text.field("total_commands_processed", stats.total_commands);
    text.field("instantaneous_ops_per_sec", rate.commands as u64);
    text.field("total_net_input_bytes", stats.input_bytes);
    text.field("total_net_output_bytes", stats.output_bytes);
    text.field("instantaneous_input_kbps", kilobytes(rate.input_bytes));
    text.field("instantaneous_output_kbps", kilobytes(rate.output_bytes));
    text.field("rejected_connections", stats.rejected_connections);
    let denied = core.with_acl_log(|log| log.counts);
    for (reason, count) in ["cmd", "key", "channel", "auth"].iter().zip(denied) {
        text.field(format!("acl_access_denied_{reason}"), count);
    }
    text.field("expired_keys", stats.expired_keys);
    text.field("evicted_keys", stats.evicted_keys);
    text.field("evicted_clients", stats.evicted_clients);
    text.field("tls_handshakes", stats.tls_handshakes);
    text.field("tls_handshake_failures", stats.tls_handshake_failures);
    text.field("keyspace_hits", stats.keyspace_hits);
    text.field("keyspace_misses", stats.keyspace_misses);
    text.field("tracking_total_keys", totals.sum(|core| core.tracking.0));
    text.field("tracking_total_items", totals.sum(|core| core.tracking.1));
    text.field("tracking_total_prefixes", totals.sum(|core| core.tracking.2));
    text.field("sync_full", 0);
    text.field("sync_partial_ok", 0);
    text.field("sync_partial_err", 0);
    text.field("latest_fork_usec", 0);
    text.field("total_forks", 0);
    text.field("pubsub_channels", core.push.count(TopicKind::Channel));
    text.field("pubsub_patterns", core.push.count(TopicKind::Pattern));
    text.field("pubsubshard_channels", core.push.count(TopicKind::ShardChannel));
    text.field("total_error_replies", stats.errors.values().sum::<u64>());
    text.field("client_query_buffer_limit_disconnections", stats.query_limit_disconnections);
    text.field("client_output_buffer_limit_disconnections", stats.output_limit_disconnections);
}

fn replication(text: &mut Text, core: &Core, _: &Totals) {
    let peers = Peers::of(core);
    text.field("role", if peers.leads { "master" } else { "slave" });
    if !peers.leads {
        let (host, port) = peers.leader.as_deref().and_then(split_address).unwrap_or(("?", "0"));
        text.field("master_host", host);
        text.field("master_port", port);
        text.field("master_link_status", if peers.leader.is_some() { "up" } else { "down" });
        text.field("master_last_io_seconds_ago", if peers.leader.is_some() { 0 } else { -1 });
        text.field("master_sync_in_progress", 0);
        text.field("slave_read_repl_offset", peers.offset);
        text.field("slave_repl_offset", peers.offset);
        text.field("slave_priority", 100);
        text.field("slave_read_only", 1);
        text.field("replica_announced", 1);
    }
    text.field("connected_slaves", if peers.leads { peers.followers.len() } else { 0 });
    if peers.leads {
        for (n, (address, offset)) in peers.followers.iter().enumerate() {
            let (host, port) = split_address(address).unwrap_or(("?", "0"));
            let lag = u64::from(peers.offset > *offset);
            text.field(
                format!("slave{n}"),
                format_args!("ip={host},port={port},state=online,offset={offset},lag={lag}"),
            );
        }
    }
    let hands_over = core.shared.cluster.hands_over_since_ms().is_some();
    let state = if hands_over { "failover-in-progress" } else { "no-failover" };
    text.field("master_failover_state", state);
    text.field("master_replid", &core.shared.run_id);
    text.field("master_replid2", "0".repeat(40));
    text.field("master_repl_offset", peers.offset);
    text.field("second_repl_offset", -1);
    text.field("repl_backlog_active", 0);
    text.field("repl_backlog_size", 0);
    text.field("repl_backlog_first_byte_offset", 0);
    text.field("repl_backlog_histlen", 0);
}

fn cpu(text: &mut Text, _: &Core, _: &Totals) {
    let (kernel, user) = usage::processor_time();
    text.field("used_cpu_sys", format_args!("{:.6}", kernel.as_secs_f64()));
    text.field("used_cpu_user", format_args!("{:.6}", user.as_secs_f64()));
    // There is no child: nothing is forked.
    text.field("used_cpu_sys_children", "0.000000");
    text.field("used_cpu_user_children", "0.000000");
}

fn cores(text: &mut Text, core: &Core, totals: &Totals) {
    let stats = &totals.stats;
    let requests = stats.local_requests + stats.hops;
    let share = stats.local_requests as f64 / requests.max(1) as f64;
    text.field("cores", totals.cores.len());
    text.field("cores_in_use", totals.sum(|core| usize::from(core.is_in_use)));
    text.field("local_requests", stats.local_requests);
    text.field("reads_as_follower", stats.reads_as_follower);
    text.field("hops", stats.hops);
    text.field("local_share", format_args!("{share:.4}"));
    text.field("messages", stats.messages);
    text.field("moved_connections", stats.moved_connections);
    text.field("relayed_requests", stats.relayed);
    text.field("relayed_requests_sent_again", stats.sent_again);
    text.field("relayed_requests_recalled", stats.recalled);
    text.field("moved_shards", core.shared.moves.count());
    text.field("longest_shard_move_us", core.shared.moves.longest_us());
    text.field("turns", stats.turns);
    for core in &totals.cores {
        let line = format!(
            "cpu={},clients={},shards={},commands={},hops={},messages={},turns={},busy={:.3},in_use={},since={},behind={:.3}",
            core.cpu,
            core.client_count,
            core.shards.len(),
            core.stats.total_commands,
            core.stats.hops,
            core.stats.messages,
            core.stats.turns,
            core.busy,
            u8::from(core.is_in_use),
            core.since_seconds,
            core.behind
        );
        text.field(format_args!("core{}", core.core), line);
    }
}

fn shards(text: &mut Text, _: &Core, totals: &Totals) {
    let shards = totals.shards();
    text.field("shards", shards.len());
    for (core, shard) in shards {
        let line = format!(
            "core={core},slots={}-{},keys={},used_bytes={},compacted={},memory_limit={},waiting={},lockers={},prepared={},unforgotten={},role={}",
            shard.slots.0,
            shard.slots.1,
            shard.key_count(),
            shard.used_bytes,
            shard.compacted_count,
            shard.memory_limit,
            shard.waiting_count,
            shard.locker_count,
            shard.prepared_count,
            shard.unforgotten_count,
            shard.role()
        );
        text.field(format_args!("shard{}", shard.id.0), line);
    }
}

fn raft(text: &mut Text, core: &Core, totals: &Totals) {
    match core.shared.cluster.fitness.own() {
        unfit if unfit.is_any() => text.field("fit_to_lead", format_args!("no: {unfit}")),
        _ => text.field("fit_to_lead", "yes"),
    }
    for (_, shard) in totals.shards() {
        let raft = &shard.raft;
        let line = format!(
            "role={},term={},commit={},applied={},last={},first={},snapshot={},log_bytes={},cache_bytes={}",
            shard.role(),
            raft.term.0,
            raft.commit_index.0,
            raft.applied_index.0,
            raft.last_index.0,
            raft.first_index.0,
            raft.snapshot_index.0,
            raft.log_bytes,
            raft.cache_bytes
        );
        text.field(format_args!("raft{}", shard.id.0), line);
    }
}

fn command_stats(text: &mut Text, _: &Core, totals: &Totals) {
    for row in table::rows().iter().filter(|row| !row.flags.internal) {
        let stats = &totals.stats.commands[usize::from(row.number)];
        if stats.calls + stats.rejected + stats.failed == 0 {
            continue;
        }
        let microseconds = stats.nanoseconds / 1000;
        let each = stats.nanoseconds as f64 / 1000.0 / stats.calls.max(1) as f64;
        let line = format!(
            "calls={},usec={microseconds},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
            stats.calls, stats.rejected, stats.failed
        );
        text.field(format_args!("cmdstat_{}", row.full_name()), line);
    }
}

fn error_stats(text: &mut Text, _: &Core, totals: &Totals) {
    for (code, count) in &totals.stats.errors {
        text.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_stats(text: &mut Text, _: &Core, totals: &Totals) {
    for row in table::rows().iter().filter(|row| !row.flags.internal) {
        let Some(latency) = &totals.stats.commands[usize::from(row.number)].latency else {
            continue;
        };
        let at = |quantile| latency.value_at_quantile(quantile) as f64;
        let line = format!("p50={:.3},p99={:.3},p99.9={:.3}", at(0.5), at(0.99), at(0.999));
        text.field(format_args!("latency_percentiles_usec_{}", row.full_name()), line);
    }
}

fn cluster(text: &mut Text, core: &Core, _: &Totals) {
    text.field("cluster_enabled", u8::from(core.settings.routing == Routing::Moved));
}

/// What clients of Redis ask for: is this Redis Cluster?
pub(super) fn mode_word(core: &Core) -> &'static str {
    if core.settings.routing == Routing::Moved { "cluster" } else { "standalone" }
}

fn keyspace(text: &mut Text, _: &Core, totals: &Totals) {
    for database in 0..ringraft_shards::limits::DATABASE_COUNT {
        let shards = totals.cores.iter().flat_map(|core| &core.shards);
        let (keys, expires) = shards
            .map(|shard| shard.keys[database])
            .fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        if keys > 0 {
            let shards = totals.cores.iter().flat_map(|core| &core.shards);
            let averages = shards.map(|shard| shard.average_ttl_ms[database]).filter(|ms| *ms > 0);
            let (sum, count) = averages.fold((0, 0), |all, ms| (all.0 + ms, all.1 + 1));
            let average_ms = if expires > 0 { sum / count.max(1) } else { 0 };
            let line = format_args!("keys={keys},expires={expires},avg_ttl={average_ms}");
            text.field(format_args!("db{database}"), line);
        }
    }
}

/// Bytes for people, as Redis prints them: `1.23M`.
fn human(bytes: u64) -> String {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    let mut value = bytes as f64;
    let mut unit = None;
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = Some(next);
    }
    unit.map_or_else(|| format!("{bytes}B"), |unit| format!("{value:.2}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_469_384, "1.40M"), (7 << 30, "7.00G")]
        {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn sections_have_unique_names() {
        let mut names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SECTIONS.len());
    }
}
