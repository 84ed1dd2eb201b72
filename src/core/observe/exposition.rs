//! What the metrics page says, in Prometheus' text format.
//!
//! Names end in their unit; counters in `_total`. The same numbers as INFO's, by core, shard and
//! command.

use crate::core::Core;
use crate::core::commands::table;
use crate::core::gather::report::Totals;
use crate::core::observe::stats::CommandStats;
use crate::settings::values::Word;
use crate::usage;
use std::fmt::{Display, Write};

/// Upper bounds of the durations that are told apart, in microseconds.
const DURATION_BOUNDS_US: [u64; 11] =
    [1, 4, 16, 64, 256, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000];

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("text takes all");
    }

    fn sample(&mut self, name: impl Display, labels: impl Display, value: impl Display) {
        writeln!(self.0, "{name}{labels} {value}").expect("text takes all");
    }

    /// A family of one sample.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }
}

/// The whole page.
pub(in crate::core) fn page(core: &Core, totals: &Totals) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    server(&mut page, core, totals);
    memory(&mut page, core, totals);
    traffic(&mut page, totals);
    commands(&mut page, totals);
    cores(&mut page, totals);
    shards(&mut page, totals);
    page.0
}

fn server(page: &mut Page, core: &Core, totals: &Totals) {
    page.family("ringraft_info", "gauge", "Version and mode; always 1.");
    let labels = format!(
        "{{version=\"{}\",redis_version=\"{}\",mode=\"{}\",run_id=\"{}\"}}",
        env!("CARGO_PKG_VERSION"),
        crate::core::commands::info::REDIS_VERSION,
        core.settings.mode.word(),
        core.shared.run_id
    );
    page.sample("ringraft_info", labels, 1);
    let uptime = core.shared.started.elapsed().as_secs_f64();
    page.one("ringraft_uptime_seconds", "gauge", "Time since the start.", uptime);
    let (kernel, user) = usage::processor_time();
    page.family("ringraft_cpu_seconds_total", "counter", "Processor time of the process.");
    for (mode, time) in [("system", kernel), ("user", user)] {
        let labels = format!("{{mode=\"{mode}\"}}");
        page.sample("ringraft_cpu_seconds_total", labels, time.as_secs_f64());
    }
    let clients = totals.sum(|core| core.client_count);
    page.one("ringraft_connected_clients", "gauge", "Clients connected.", clients);
    let moved = core.shared.moves.count();
    page.one("ringraft_moved_shards_total", "counter", "Shards moved to other cores.", moved);
    let limit = core.settings.maxclients;
    page.one("ringraft_maxclients", "gauge", "Connections at a time.", limit);
}

fn memory(page: &mut Page, core: &Core, totals: &Totals) {
    let memory = usage::memory();
    for (name, help, bytes) in [
        ("allocated", "Memory in allocations.", memory.allocated),
        ("active", "Memory in pages that hold allocations.", memory.active),
        ("resident", "Memory in pages that the allocator keeps.", memory.resident),
        ("process", "Physical memory of the process.", memory.process),
        ("peak", "Most memory ever seen in allocations.", memory.peak),
        ("data", "Memory of items, tables and indexes.", totals.data_bytes()),
        ("clients", "Memory of clients' buffers.", totals.sum(|c| c.client_bytes) as u64),
        ("limit", "The setting maxmemory; 0 is no limit.", core.settings.maxmemory),
    ] {
        page.one(&format!("ringraft_memory_{name}_bytes"), "gauge", help, bytes);
    }
}

fn traffic(page: &mut Page, totals: &Totals) {
    let stats = &totals.stats;
    for (name, help, count) in [
        ("connections", "Connections accepted.", stats.total_connections),
        ("rejected_connections", "Connections over maxclients.", stats.rejected_connections),
        ("tls_handshakes", "TLS handshakes that succeeded.", stats.tls_handshakes),
        ("tls_handshake_failures", "TLS handshakes that failed.", stats.tls_handshake_failures),
        ("received_bytes", "Bytes received.", stats.input_bytes),
        ("sent_bytes", "Bytes sent.", stats.output_bytes),
        ("keyspace_hits", "Keys found by reads.", stats.keyspace_hits),
        ("keyspace_misses", "Keys not found by reads.", stats.keyspace_misses),
        ("expired_keys", "Keys deleted at their deadline.", stats.expired_keys),
        ("evicted_keys", "Keys deleted to free memory.", stats.evicted_keys),
    ] {
        page.one(&format!("ringraft_{name}_total"), "counter", help, count);
    }
    page.family("ringraft_error_replies_total", "counter", "Error replies by code word.");
    for (code, count) in &stats.errors {
        let code = code.replace(['"', '\\'], "?");
        page.sample("ringraft_error_replies_total", format!("{{code=\"{code}\"}}"), count);
    }
}

fn commands(page: &mut Page, totals: &Totals) {
    let ran = || {
        let rows = table::rows().iter().filter(|row| !row.flags.internal);
        let counted = rows.map(|row| (row, &totals.stats.commands[usize::from(row.number)]));
        counted.filter(|(_, stats)| stats.calls + stats.rejected + stats.failed > 0)
    };
    for (name, help, count) in [
        (
            "ringraft_command_failures_total",
            "Commands that ran and refused.",
            (|stats| stats.failed) as fn(&CommandStats) -> u64,
        ),
        ("ringraft_command_rejections_total", "Commands refused before they ran.", |stats| {
            stats.rejected
        }),
    ] {
        page.family(name, "counter", help);
        for (row, stats) in ran() {
            page.sample(name, format!("{{command=\"{}\"}}", row.full_name()), count(stats));
        }
    }
    const DURATION: &str = "ringraft_command_duration_seconds";
    page.family(DURATION, "histogram", "How long commands run.");
    for (row, stats) in ran() {
        let Some(latency) = &stats.latency else { continue };
        let name = row.full_name();
        for bound in DURATION_BOUNDS_US {
            let labels = format!("{{command=\"{name}\",le=\"{}\"}}", bound as f64 / 1e6);
            let count = latency.count_between(0, bound);
            page.sample(format_args!("{DURATION}_bucket"), labels, count);
        }
        let labels = format!("{{command=\"{name}\",le=\"+Inf\"}}");
        page.sample(format_args!("{DURATION}_bucket"), labels, latency.len());
        let labels = format!("{{command=\"{name}\"}}");
        page.sample(format_args!("{DURATION}_sum"), &labels, stats.nanoseconds as f64 / 1e9);
        page.sample(format_args!("{DURATION}_count"), &labels, latency.len());
    }
}

fn cores(page: &mut Page, totals: &Totals) {
    use crate::core::gather::report::CoreReport;
    type Count = fn(&CoreReport) -> u64;
    let families: [(&str, &str, &str, Count); 13] = [
        ("in_use", "gauge", "Is it in use?", |core| u64::from(core.is_in_use)),
        ("shards", "gauge", "Shards that live on it.", |core| core.shards.len() as u64),
        ("clients", "gauge", "Clients connected.", |core| core.client_count as u64),
        ("commands_total", "counter", "Commands run.", |core| core.stats.total_commands),
        (
            "reads_as_follower_total",
            "counter",
            "Reads taken here although another node leads.",
            |core| core.stats.reads_as_follower,
        ),
        ("local_requests_total", "counter", "Requests for its own shards.", |core| {
            core.stats.local_requests
        }),
        ("hops_total", "counter", "Requests sent to other cores.", |core| core.stats.hops),
        ("messages_total", "counter", "Messages sent to other cores.", |core| core.stats.messages),
        ("moved_connections_total", "counter", "Connections moved to other cores.", |core| {
            core.stats.moved_connections
        }),
        ("relayed_requests_total", "counter", "Requests sent to the node that leads.", |core| {
            core.stats.relayed
        }),
        (
            "relayed_requests_sent_again_total",
            "counter",
            "Requests sent again: the first time they had no effect.",
            |core| core.stats.sent_again,
        ),
        (
            "relayed_requests_recalled_total",
            "counter",
            "Requests whose reply a new leader knew when the old one was lost.",
            |core| core.stats.recalled,
        ),
        ("turns_total", "counter", "Turns run.", |core| core.stats.turns),
    ];
    for (name, kind, help, count) in families {
        let name = format!("ringraft_core_{name}");
        page.family(&name, kind, help);
        for core in &totals.cores {
            page.sample(&name, format!("{{core=\"{}\"}}", core.core), count(core));
        }
    }
    let name = "ringraft_core_busy_ratio";
    page.family(
        name,
        "gauge",
        "Share of its time that it worked, or would have if it had its cpu.",
    );
    for core in &totals.cores {
        page.sample(name, format!("{{core=\"{}\"}}", core.core), core.busy);
    }
}

fn shards(page: &mut Page, totals: &Totals) {
    use crate::core::gather::report::ShardReport;
    type Count = fn(&ShardReport) -> u64;
    let families: [(&str, &str, Count); 13] = [
        ("shard_keys", "Keys.", ShardReport::key_count),
        ("shard_data_bytes", "Memory of items, tables and indexes.", |shard| shard.used_bytes),
        ("shard_compacted_items", "Items moved so that memory could be given back.", |shard| {
            shard.compacted_count
        }),
        ("shard_waiting_requests", "Requests that wait for the log.", |shard| {
            shard.waiting_count as u64
        }),
        ("shard_lockers", "Transactions that hold or want locks.", |shard| {
            shard.locker_count as u64
        }),
        ("shard_prepared_transactions", "Transactions that are prepared, not decided.", |shard| {
            shard.prepared_count as u64
        }),
        ("shard_unforgotten_transactions", "Transactions committed here, not all over.", |shard| {
            shard.unforgotten_count as u64
        }),
        ("raft_leader", "Does this node lead?", |shard| u64::from(shard.role() == "leader")),
        ("raft_term", "Term.", |shard| shard.raft.term.0),
        ("raft_commit_index", "Last committed index.", |shard| shard.raft.commit_index.0),
        ("raft_applied_index", "Last applied index.", |shard| shard.raft.applied_index.0),
        ("raft_last_index", "Last index in the log.", |shard| shard.raft.last_index.0),
        ("raft_log_bytes", "Size of the log's segments.", |shard| shard.raft.log_bytes),
    ];
    let shards = totals.shards();
    for (name, help, count) in families {
        let name = format!("ringraft_{name}");
        page.family(&name, "gauge", help);
        for (core, shard) in &shards {
            let labels = format!("{{shard=\"{}\",core=\"{core}\"}}", shard.id.0);
            page.sample(&name, labels, count(shard));
        }
    }
}
