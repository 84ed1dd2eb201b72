//! What a core does ten times a second: Raft's clock, transactions' time, expiry, idle timeouts,
//! moves, snapshots.

use crate::core::Core;
use crate::core::client::connection::Hold;
use crate::core::disk::storage::ShardFiles;
use crate::core::observe::latency::Event;
use crate::limits::{
    COMPACTION_BUDGET_PER_TICK, EXPIRE_BUCKETS_PER_TICK, EXPIRE_ROUNDS_PER_TICK_MAX,
    FREED_BUCKETS_PER_TURN, IDLE_BUFFERS_KEPT_MS, REST_INTERVAL_MS, SLABS_GIVEN_BACK_PER_TICK,
};
use ringraft_shards::ids::MonotonicTime;
use ringraft_shards::serve;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Core {
    pub(in crate::core) fn tick(&mut self) {
        self.tick_groups();
        self.tick_cluster();
        if self.shared.stopping.load(Ordering::Acquire) {
            self.stop_in_order();
        }
        if self.cluster.ticks % 2 == 1 {
            return;
        }
        let steady_ms = self.turn.steady_ms;
        self.tend_shards();
        self.give_back_memory(SLABS_GIVEN_BACK_PER_TICK);
        self.tend_migrations();
        self.transactions.coordinator.tick(&mut self.transactions.coordinated);
        for listener in std::mem::take(&mut self.doors.silent) {
            self.arm_listener(listener);
        }
        self.rates.sample(steady_ms, &self.stats);
        self.govern();
        if steady_ms - self.rested_ms >= REST_INTERVAL_MS {
            self.rested_ms = steady_ms;
            if self.doors.ring.rest() {
                crate::usage::decay();
            }
            if self.is_home() {
                // Some tenths of a millisecond: the allocator adds up what each of its classes
                // holds.
                crate::usage::note_peak();
            }
        }
        self.tick_blocked();
        self.end_pause();
        self.close_idle();
        self.close_stalled_handshakes();
        self.close_slow_readers();
        self.close_over_query_limit();
        self.tend_client_memory();
        self.shrink_idle();
        self.answers.spares.shed();
        self.schedule_snapshots();
    }

    /// Begins to stop, once somebody else leads, if somebody can.
    pub(in crate::core) fn stop_in_order(&mut self) {
        if !self.stop_sent && !self.hands_over() {
            self.begin_stop();
        }
    }

    /// Raft's clock.
    fn tick_groups(&mut self) {
        let now = MonotonicTime(self.steady.read().as_micros() as u64);
        for shard in self.shards.iter_mut().filter(|shard| !shard.is_installing()) {
            shard.group.tick(now);
        }
    }

    /// What every shard does ten times a second.
    fn tend_shards(&mut self) {
        let (now_ms, steady_ms) = (self.turn.now_ms, self.turn.steady_ms);
        let (mut expiring, mut evicting) = (Duration::ZERO, Duration::ZERO);
        for shard in &mut self.shards {
            serve::tick(shard);
            // Another node led until now, or the disk was full.
            shard.propose_limits(self.settings.limits);
            if self.pause.until_ms <= steady_ms {
                let stats = &mut self.stats;
                if self.active_expire {
                    let (buckets, rounds) = (EXPIRE_BUCKETS_PER_TICK, EXPIRE_ROUNDS_PER_TICK_MAX);
                    let begin = Instant::now();
                    shard.expire(now_ms, buckets, rounds, stats);
                    expiring += begin.elapsed();
                }
                // What was cleared is about to be freed: no item goes because it is still counted.
                if !self.freeing {
                    let begin = Instant::now();
                    shard.reclaim(stats);
                    evicting += begin.elapsed();
                }
            }
            shard.keyspace.drop_idle_orders(now_ms);
            self.freeing |= shard.keyspace.free_some(FREED_BUCKETS_PER_TURN);
            shard.keyspace.compact_some(COMPACTION_BUDGET_PER_TICK);
        }
        let latency = &mut self.stats.noted.latency;
        latency.note(Event::ExpireCycle, expiring, now_ms);
        latency.note(Event::EvictionCycle, evicting, now_ms);
    }

    /// Gives the physical memory of up to so many empty slabs of each shard back.
    pub fn give_back_memory(&mut self, slab_budget: usize) {
        for shard in &mut self.shards {
            shard.keyspace.tend_memory(slab_budget);
        }
    }

    /// Lets connections go on that CLIENT PAUSE held back.
    pub(in crate::core) fn end_pause(&mut self) {
        if self.pause.until_ms > self.turn.steady_ms {
            return;
        }
        for (index, connection) in self.answers.connections.iter_mut() {
            if connection.hold == Hold::Pause && !connection.runnable {
                connection.runnable = true;
                self.runnable.push(index);
            }
        }
    }

    /// Takes buffer memory back from connections that have not used it lately.
    fn shrink_idle(&mut self) {
        let steady_ms = self.turn.steady_ms;
        for (_, connection) in self.answers.connections.iter_mut() {
            if steady_ms - connection.active_ms > IDLE_BUFFERS_KEPT_MS {
                connection.replies.shrink();
                if connection.input.is_empty() {
                    connection.input = Vec::new();
                }
                if let Some(session) = &mut connection.tls {
                    session.shrink();
                }
            }
        }
    }

    fn close_idle(&mut self) {
        let timeout_ms = i64::from(self.settings.timeout) * 1000;
        if timeout_ms == 0 {
            return;
        }
        let steady_ms = self.turn.steady_ms;
        let idle: Vec<u32> = self
            .answers
            .connections
            .iter()
            .filter(|(_, c)| steady_ms - c.active_ms > timeout_ms)
            .filter(|(_, c)| !c.closed && !c.session.monitor && c.replies.unfinished() == 0)
            .filter(|(_, c)| c.session.subscriptions.is_none())
            .filter(|(_, c)| c.hold == Hold::None && c.kind.is_client())
            .map(|(index, _)| index)
            .collect();
        for index in idle {
            self.close(index);
        }
    }

    /// Goes on evicting where memory is over its limit.
    pub(in crate::core) fn shed_shards(&mut self) {
        let paused = self.pause.until_ms > self.turn.steady_ms;
        let mut evicting = Duration::ZERO;
        for shard in self.shards.iter_mut().filter(|shard| shard.is_shedding()) {
            if paused || self.freeing {
                shard.stop_shedding();
            } else {
                let begin = Instant::now();
                shard.reclaim(&mut self.stats);
                evicting += begin.elapsed();
            }
        }
        self.stats.noted.latency.note(Event::EvictionCycle, evicting, self.turn.now_ms);
    }

    /// Closes clients whose unfinished request a lowered limit no longer allows: they may send
    /// nothing for long.
    fn close_over_query_limit(&mut self) {
        let limit = self.settings.client_query_buffer_limit;
        let connections = self.answers.connections.iter();
        let over = connections.filter(|(_, c)| !c.closed && c.unparsed() as u64 > limit);
        let over = over.filter(|(_, c)| c.parser.unfinished(c.unparsed()) as u64 > limit);
        let over: Vec<u32> = over.map(|(index, _)| index).collect();
        for index in over {
            self.close_for_query_limit(index);
        }
    }

    /// Closes clients that have read nothing for too long, or that a lowered limit no longer allows
    /// so many replies: nothing is sent to them, so nothing else would look.
    fn close_slow_readers(&mut self) {
        let connections = self.answers.connections.iter();
        let waiting = connections.filter(|(_, c)| !c.closed && c.replies.waiting_bytes() > 0);
        let waiting: Vec<u32> = waiting.map(|(index, _)| index).collect();
        for index in waiting {
            self.check_output_limits(index);
        }
    }

    /// Begins to stop, as SHUTDOWN or a signal asks.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.scripts.ends.store(true, Ordering::Relaxed);
        // Others that stop as well must not hand over to this node.
        self.judge_at_once();
        self.stop_in_order();
    }

    /// Stops in order: no new connections and requests; what is under way is finished and answered.
    pub(in crate::core) fn begin_stop(&mut self) {
        self.stop_sent = true;
        // The rest of this turn's requests is refused too.
        self.gate_closed = true;
        for local in 0..self.shards.len() {
            self.stop_shard(local);
        }
        self.refuse_wishes();
        self.stop_migrations();
        self.close_blocked();
        for listener in &self.doors.listeners {
            // Ends the accept in the ring. A listener that is closed already is as good.
            let _ = listener.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Gives up what of a shard is not to be finished before the end.
    pub(in crate::core) fn stop_shard(&mut self, local: usize) {
        const STOPPING: &str = "ERR the server is shutting down";
        self.give_up_snapshot(local, STOPPING);
        self.shards[local].refuse_held(STOPPING, &mut self.answers);
    }

    /// Have all cores finished what was under way when the end began? A core that is through stays
    /// to serve the others until they are too.
    pub(in crate::core) fn has_stopped(&mut self) -> bool {
        if !self.stop_sent {
            return false;
        }
        if !self.stop_noted && self.is_through() {
            self.stop_noted = true;
            self.shared.stopped_count.fetch_add(1, Ordering::AcqRel);
            // Wakes the others, who may wait for this one alone.
            self.everywhere(|_| {});
            self.flush();
        }
        self.shared.stopped_count.load(Ordering::Acquire) as usize == self.core_count()
    }

    fn is_through(&self) -> bool {
        self.waits_no_more()
            || self.shards.iter().all(|shard| !shard.snapshots.is_running())
                && self.shards.iter().all(|shard| shard.is_quiet())
                && self.answers.gathers.count() == 0
                && self.answers.blocks.count() == 0
                && self.transactions.coordinator.count() == 0
                && self.answers.dirty.is_empty()
                && self.answers.in_slices.is_empty()
                && !self.has_unsent_mail()
                && self.storage.is_idle()
                && self.shards.iter().all(|s| s.files.as_ref().is_none_or(ShardFiles::is_synced))
                && !self.is_moving_shards()
                && self
                    .answers
                    .connections
                    .iter()
                    .all(|(_, c)| c.closed || c.replies.unfinished() == 0)
    }
}
