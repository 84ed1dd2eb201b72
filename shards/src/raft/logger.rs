//! raft-rs' log messages, warnings and above, as tracing events.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

/// Passes warnings and errors on.
struct Bridge {
    shard: u16,
}

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let (shard, message) = (self.shard, record.msg());
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(shard, "raft: {message}"),
            Level::Warning => tracing::warn!(shard, "raft: {message}"),
            // The group's own outputs tell what matters of the rest.
            Level::Info | Level::Debug | Level::Trace => {}
        }
        Ok(())
    }
}

/// A logger for the group of a shard.
pub(super) fn logger(shard: u16) -> Logger {
    Logger::root(Bridge { shard }, o!())
}
