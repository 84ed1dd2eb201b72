//! Clients give way when together they hold more memory than `maxmemory-clients`: the largest
//! first, over all cores.
//!
//! Each core adds its clients up ten times a second and shows the sum. The core that sees too much
//! asks all of them for their largest clients and has as many closed as it takes. A client that has
//! asked for CLIENT NO-EVICT neither counts nor goes.

use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::clients::client_memory;
use crate::core::client::connection::Connection;
use crate::limits::CLIENTS_EVICTED_AT_ONCE_MAX;
use crate::resp::reply::Protocol;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What clients hold, as all cores see it.
pub struct ClientMemory {
    /// Bytes held by the clients of each core, as it saw them last.
    bytes: Vec<AtomicUsize>,
    /// Are clients being chosen and closed?
    is_evicting: AtomicBool,
}

impl ClientMemory {
    /// None yet, on so many cores.
    pub fn new(core_count: usize) -> ClientMemory {
        let bytes = (0..core_count).map(|_| AtomicUsize::new(0)).collect();
        ClientMemory { bytes, is_evicting: AtomicBool::new(false) }
    }

    fn total(&self) -> usize {
        self.bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

/// Clients that may be closed.
struct Evictable {
    /// Bytes that all of them hold.
    bytes: usize,
    /// The largest: bytes and id.
    largest: Vec<(usize, u64)>,
}

impl Core {
    fn evictable(&self) -> impl Iterator<Item = &Connection> {
        let connections = self.answers.connections.iter().map(|(_, connection)| &**connection);
        connections.filter(|c| c.kind.is_client() && !c.closed && !c.session.no_evict)
    }

    /// Looks at what clients hold, and begins to close some if it is too much.
    pub(in crate::core) fn tend_client_memory(&mut self) {
        let limit = self.settings.client_memory_max();
        if limit == 0 {
            return;
        }
        let shared = self.shared.clone();
        let own = self.evictable().map(client_memory).sum();
        shared.client_memory.bytes[usize::from(self.id)].store(own, Ordering::Relaxed);
        let is_over = shared.client_memory.total() as u64 > limit;
        if is_over && !shared.client_memory.is_evicting.swap(true, Ordering::AcqRel) {
            self.ask_cores(
                Target::Nobody,
                Protocol::Resp2,
                |core| core.largest_clients(),
                |core, found, _| {
                    core.evict_clients(found);
                },
            );
        }
    }

    fn largest_clients(&mut self) -> Evictable {
        let mut largest: Vec<(usize, u64)> =
            self.evictable().map(|connection| (client_memory(connection), connection.id)).collect();
        let bytes = largest.iter().map(|(bytes, _)| bytes).sum();
        largest.sort_unstable_by_key(|client| Reverse(*client));
        largest.truncate(CLIENTS_EVICTED_AT_ONCE_MAX);
        Evictable { bytes, largest }
    }

    /// Closes the largest of these until the rest fits.
    fn evict_clients(&mut self, found: Vec<Evictable>) {
        let limit = self.settings.client_memory_max();
        let mut bytes: usize = found.iter().map(|own| own.bytes).sum();
        let mut clients: Vec<(usize, u64)> =
            found.into_iter().flat_map(|own| own.largest).collect();
        clients.sort_unstable_by_key(|client| Reverse(*client));
        clients.truncate(CLIENTS_EVICTED_AT_ONCE_MAX);
        let is_too_much = |bytes: usize| limit > 0 && bytes as u64 > limit;
        let mut ids = Vec::new();
        for (own, id) in clients {
            if !is_too_much(bytes) {
                break;
            }
            bytes -= own;
            ids.push(id);
        }
        self.ask_cores(
            Target::Nobody,
            Protocol::Resp2,
            move |core| core.close_evicted(&ids),
            |core, _, _| core.shared.client_memory.is_evicting.store(false, Ordering::Release),
        );
    }

    fn close_evicted(&mut self, ids: &[u64]) {
        let connections = self.answers.connections.iter();
        let meant = connections.filter(|(_, c)| !c.closed && ids.contains(&c.id));
        let meant: Vec<(u32, u64, usize)> =
            meant.map(|(index, c)| (index, c.id, client_memory(c))).collect();
        for (index, client, bytes) in meant {
            tracing::warn!(
                client,
                bytes,
                "closing a client: clients hold more than maxmemory-clients"
            );
            self.stats.evicted_clients += 1;
            self.close(index);
        }
    }
}
