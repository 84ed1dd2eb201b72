//! Settings take effect on a core: at its start, and whenever CONFIG SET changes them.

use crate::core::Core;
use crate::core::shard::LocalShard;
use crate::net::listener;
use crate::settings::Settings;
use crate::settings::values::MaxmemoryPolicy;
use ringraft_shards::keyspace::EvictionPolicy;
use socket2::{Domain, Socket};

impl Core {
    /// Makes these settings those of the core and of its shards.
    pub fn adopt_settings(&mut self, settings: Settings) {
        self.settle_beforehand();
        let shard_count = self.router.shard_count();
        for shard in &mut self.shards {
            if let Err(error) = shard.adopt_settings(&settings, shard_count) {
                self.failure.get_or_insert(format!("the log cannot be synced: {error}"));
            }
            shard.answer_synced(&mut self.answers);
        }
        if let Some(overlay) = &mut self.spares.overlay {
            overlay.set_limits(settings.limits);
        }
        self.stats.noted.configure(&settings);
        if settings.tcp_keepalive != self.settings.tcp_keepalive {
            let is_internet = |socket: &Socket| socket.domain().is_ok_and(|d| d != Domain::UNIX);
            let sockets = self.doors.listeners.iter().map(|listener| &listener.socket);
            for socket in sockets.filter(|socket| is_internet(socket)) {
                if let Err(error) = listener::keep_alive(socket, settings.tcp_keepalive.into()) {
                    tracing::warn!(%error, "tcp-keepalive could not be changed");
                }
            }
        }
        self.with_acl_log(|log| log.trim(settings.acllog_max_len as usize));
        let accepts_more = settings.cores_in_use != self.settings.cores_in_use;
        self.settings = settings;
        self.listen_to_changes();
        if accepts_more && self.report.is_none() && !self.stop_sent {
            self.open_listeners();
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
        self.with_acl_log(|log| log.counts = [0; 4]);
        self.shards.iter_mut().for_each(|shard| shard.keyspace.reset_lookups());
    }
}

impl LocalShard {
    /// Makes these settings those of the shard, one of `shard_count`: they have changed, or it
    /// lives on another core now. With another fsync mode it goes on when everything written so
    /// far is on the disk. Errors: it cannot be written there.
    pub(in crate::core) fn adopt_settings(
        &mut self,
        settings: &Settings,
        shard_count: usize,
    ) -> std::io::Result<()> {
        let share = settings.maxmemory / shard_count.max(1) as u64;
        let policy = eviction_policy(settings.maxmemory_policy);
        self.string_bytes_max = settings.proto_max_bulk_len as usize;
        self.memory_limit = if settings.maxmemory == 0 { 0 } else { share.max(1) };
        self.eviction_policy = policy;
        self.keyspace.set_access_clock(policy.access_clock());
        self.eviction_samples = settings.maxmemory_samples as usize;
        self.server.keyspace.set_eviction_samples(self.eviction_samples);
        self.propose_limits(settings.limits);
        if self.files.as_ref().is_none_or(|files| files.fsync() == settings.fsync) {
            return Ok(());
        }
        self.write_runs().map_err(std::io::Error::other)?;
        let files = self.files.as_mut().expect("seen above");
        files.change_mode(settings.fsync)?;
        self.group.set_sync_policy(settings.fsync.sync_policy());
        Ok(())
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
