//! MONITOR: shows the requests of all cores to the connections that asked for it.

use crate::commands::Command;
use crate::core::Core;
use crate::core::client::connection::Address;
use crate::resp::quoting::quote_into;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

impl Core {
    /// Shows a request to every monitor. Cost without monitors: nothing, the hot path does not come
    /// here.
    pub(in crate::core) fn show_to_monitors(
        &mut self,
        index: u32,
        command: &Command,
        arguments: Arguments<'_>,
    ) {
        if !command.flags.no_monitor && self.shared.monitor_count.load(Ordering::Relaxed) > 0 {
            let redacted = command.redacted(arguments);
            self.show_words(index, redacted.as_ref().map_or(arguments, OwnedArguments::borrow));
        }
    }

    /// Shows that a transaction ends. Its commands were shown one by one.
    pub(in crate::core) fn show_exec(&mut self, index: u32) {
        let exec: OwnedArguments = [&b"EXEC"[..]].into_iter().collect();
        self.show_words(index, exec.borrow());
    }

    fn show_words(&mut self, index: u32, arguments: Arguments<'_>) {
        if self.shared.monitor_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let connection = self.answers.connections.at(index);
        let peer = match &connection.peer {
            Address::Unix(path) => format!("unix:{path}"),
            other => other.to_string(),
        };
        let database = connection.session.database;
        self.show_line(database, &peer, arguments);
    }

    /// Shows a command and where it comes from.
    pub(in crate::core) fn show_line(
        &mut self,
        database: DatabaseIndex,
        peer: &str,
        arguments: Arguments<'_>,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line =
            format!("+{}.{:06} [{} {peer}]", now.as_secs(), now.subsec_micros(), database.0)
                .into_bytes();
        for argument in arguments.iter_from(0) {
            line.push(b' ');
            quote_into(argument, &mut line);
        }
        line.extend_from_slice(b"\r\n");
        let line: Arc<[u8]> = line.into();
        self.everywhere(move |core| core.feed_monitors(&line));
    }

    /// Begins to show every request to a connection.
    pub fn start_monitoring(&mut self, index: u32) {
        let session = &mut self.answers.connections.at_mut(index).session;
        if !std::mem::replace(&mut session.monitor, true) {
            self.shared.monitor_count.fetch_add(1, Ordering::Relaxed);
            self.monitors.insert(index);
            // What follows in this turn is shown and checked too.
            self.gate_closed = true;
        }
    }

    /// Ends it.
    pub fn stop_monitoring(&mut self, index: u32) {
        let session = &mut self.answers.connections.at_mut(index).session;
        if std::mem::replace(&mut session.monitor, false) {
            self.shared.monitor_count.fetch_sub(1, Ordering::Relaxed);
            self.monitors.remove(&index);
        }
    }

    fn feed_monitors(&mut self, line: &Arc<[u8]>) {
        for &index in &self.monitors {
            self.answers.connections.at_mut(index).replies.push_message(line);
            self.answers.mark_dirty(index);
        }
    }
}
