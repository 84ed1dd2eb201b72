//! Settings take effect on a core: at its start, and whenever CONFIG SET changes them.

use crate::core::Core;
use crate::net::listener;
use crate::settings::Settings;
use crate::settings::values::Fsync;
use crate::settings::values::MaxmemoryPolicy;
use ringraft_shards::keyspace::EvictionPolicy;

impl Core {
    /// Makes these settings those of the core and of its shards.
    pub fn adopt_settings(&mut self, settings: Settings) {
        let share = settings.maxmemory / self.router.shard_count().max(1) as u64;
        let memory_limit = if settings.maxmemory == 0 { 0 } else { share.max(1) };
        let policy = eviction_policy(settings.maxmemory_policy);
        for shard in &mut self.shards {
            shard.string_bytes_max = settings.proto_max_bulk_len as usize;
            shard.memory_limit = memory_limit;
            shard.eviction_policy = policy;
            shard.keyspace.set_access_clock(policy.access_clock());
            shard.eviction_samples = settings.maxmemory_samples as usize;
            shard.keyspace.set_eviction_samples(shard.eviction_samples);
            shard.propose_limits(settings.limits);
        }
        if let Some(overlay) = &mut self.spare_overlay {
            overlay.set_limits(settings.limits);
        }
        self.stats.slowlog.configure(settings.slowlog_log_slower_than, settings.slowlog_max_len);
        if settings.tcp_keepalive != self.settings.tcp_keepalive {
            for (socket, _) in &self.listeners {
                if let Err(error) = listener::keep_alive(socket, settings.tcp_keepalive.into()) {
                    tracing::warn!(%error, "tcp-keepalive could not be changed");
                }
            }
        }
        if settings.fsync != self.settings.fsync {
            self.change_fsync(settings.fsync);
        }
        self.settings = settings;
    }

    /// Goes on with another fsync mode, once everything written so far is on the disk.
    fn change_fsync(&mut self, fsync: Fsync) {
        if let Err(error) = self.storage.change_mode() {
            return self.fail(format!("the log cannot be synced: {error}"));
        }
        for shard in &mut self.shards {
            shard.group.set_sync_policy(fsync.sync_policy());
        }
    }

    /// Changes some settings, checked before on the core that was asked.
    pub fn change_settings(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) {
        let mut settings = self.settings.clone();
        let pairs: Vec<(&[u8], &[u8])> =
            pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        match settings.set(&pairs) {
            Ok(()) => self.adopt_settings(settings),
            // Two changes at once on two cores that do not go together: the other one was first.
            Err(error) => tracing::warn!(%error, core = self.id, "a change of settings is void"),
        }
    }

    /// Counts from zero again, here and in the shards (CONFIG RESETSTAT).
    pub fn reset_stats(&mut self) {
        self.stats.reset();
        self.shards.iter_mut().for_each(|shard| shard.keyspace.reset_lookups());
    }
}

fn eviction_policy(policy: MaxmemoryPolicy) -> EvictionPolicy {
    match policy {
        MaxmemoryPolicy::VolatileLru => EvictionPolicy::VolatileLru,
        MaxmemoryPolicy::VolatileLfu => EvictionPolicy::VolatileLfu,
        MaxmemoryPolicy::VolatileRandom => EvictionPolicy::VolatileRandom,
        MaxmemoryPolicy::VolatileTtl => EvictionPolicy::VolatileTtl,
        MaxmemoryPolicy::AllkeysLru => EvictionPolicy::AllKeysLru,
        MaxmemoryPolicy::AllkeysLfu => EvictionPolicy::AllKeysLfu,
        MaxmemoryPolicy::AllkeysRandom => EvictionPolicy::AllKeysRandom,
        MaxmemoryPolicy::Noeviction => EvictionPolicy::NoEviction,
    }
}
