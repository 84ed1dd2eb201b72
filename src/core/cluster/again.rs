//! Transactions, scripts, commands over several shards and those that wait, of this node's own
//! clients, kept while they are under way: should this node lead no more, they go on at the node
//! that does.
//!
//! What goes to one shard is kept by that shard until it is committed, and comes back from there
//! (`Core::send_back_all`). These have been taken apart by then. They have stamps as other nodes'
//! requests have, so that it can be asked what became of them. A node alone keeps nothing.

use super::relay::{AGAIN, Kept, Sent, UNSURE, kept_of, put, take_apart};
use crate::commands::{Command, Run};
use crate::core::Core;
use crate::core::client::answers::{StampKey, Target};
use crate::core::client::replies::Replies;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::Arguments;
use ringraft_shards::ids::NodeId;
use ringraft_shards::stamp::{Lane, Stamp};
use ringraft_shards::transaction::NO_LEADER;
use std::collections::VecDeque;

/// Requests of a client that are kept, by the numbers of their replies.
#[derive(Default)]
pub struct Again {
    kept: VecDeque<(u32, Sent, StampKey)>,
    /// Has the client a lane of its own?
    waits: bool,
}

impl Again {
    /// Keeps a request that is one command, and forgets those that are answered.
    #[cold]
    pub fn keep(&mut self, replies: &Replies, sequence: u32, arguments: Arguments<'_>) {
        let mut bytes = Vec::new();
        put(&mut bytes, arguments.iter_from(0));
        let sent = Sent::new(Some(sequence), Kept::Write, bytes.into());
        self.push(replies, sequence, sent, StampKey::NONE);
    }

    fn push(&mut self, replies: &Replies, sequence: u32, sent: Sent, stamp: StampKey) {
        while self.kept.front().is_some_and(|(kept, ..)| replies.is_written(*kept)) {
            self.kept.pop_front();
        }
        self.kept.push_back((sequence, sent, stamp));
    }

    /// The stamp of a request.
    pub fn stamp_at(&self, sequence: u32) -> StampKey {
        let found = self.kept.iter().find(|(kept, ..)| *kept == sequence);
        found.map_or(StampKey::NONE, |(.., stamp)| *stamp)
    }

    /// The lane of its own that a client of this node has, if it has one.
    pub fn own_lane(&self, id: u64, node: NodeId, process: u64) -> Option<Lane> {
        self.waits.then_some(Lane { node, process, number: Lane::WAITS | id })
    }

    fn take(&mut self, sequence: u32) -> Option<Sent> {
        let place = self.kept.iter().position(|(kept, ..)| *kept == sequence)?;
        self.kept.remove(place).map(|(_, sent, _)| sent)
    }
}

impl Core {
    /// Keeps a request that is about to be started, if it is of the kind and this node is one of
    /// several.
    pub(in crate::core) fn keep_for_again(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) {
        if self.shared.cluster.is_clustered() {
            self.keep_one_for_again(index, target, command, arguments);
        }
    }

    #[cold]
    fn keep_one_for_again(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) {
        let connection = self.answers.connections.at(index);
        let Target::Connection { sequence, .. } = target else { return };
        if !connection.kind.is_client() {
            return;
        }
        let sent = match (command.name, &connection.session.transaction) {
            ("exec", Some(transaction)) if !transaction.refused => {
                let (bytes, skips, kept) = take_apart(transaction, arguments);
                let is_guarded = !connection.session.watched.is_empty();
                Sent::new(Some(sequence), kept, bytes.into()).behind(skips, is_guarded)
            }
            (_, None)
                if matches!(command.run, Run::Write(_) | Run::Script(_))
                    || command.wait.is_some() =>
            {
                let mut bytes = Vec::new();
                put(&mut bytes, arguments.iter_from(0));
                let sent = Sent::new(Some(sequence), kept_of(command), bytes.into());
                self.with_deadline(sent, command, arguments)
            }
            _ => return,
        };
        let (sent, stamp) = self.stamped(index, sent);
        let connection = self.answers.connections.at_mut(index);
        let again = connection.again.get_or_insert_default();
        again.waits |= stamp.is_some() && sent.blocks();
        again.push(&connection.replies, sequence, sent, stamp);
    }

    /// The same with a stamp, which this node's shards are told.
    fn stamped(&mut self, index: u32, mut sent: Sent) -> (Sent, StampKey) {
        sent.stamp = self.next_stamp(index, &sent);
        let Some((number, sequence)) = sent.stamp else { return (sent, StampKey::NONE) };
        let lane = Lane { node: self.shared.cluster.own(), process: self.process(), number };
        let key = self.shared.lanes.key(Stamp { lane, sequence });
        if key.is_none() {
            sent.stamp = None;
        }
        (sent, key.unwrap_or(StampKey::NONE))
    }

    /// A request had no effect here, because this node leads no more, or that is not known: whoever
    /// has sent it on is told, or it goes on at the node that leads.
    #[cold]
    pub(in crate::core) fn goes_on_elsewhere(&mut self, target: Target, had_none: bool) {
        if matches!(target, Target::Block(_)) || self.is_of_session(target) {
            let text = if had_none { AGAIN } else { UNSURE };
            return self.answers.write_here(target, |out| out.extend_from_slice(text));
        }
        if let Target::Connection { index, sequence } = target
            && let Some(again) = &mut self.answers.connections.at_mut(index).again
            && let Some(sent) = again.take(sequence)
        {
            self.take_up(index, sent, had_none);
            return self.ask_what_became();
        }
        let text = if had_none { NO_LEADER } else { crate::core::transact::spread::UNKNOWN };
        self.answers.write_here(target, |out| Reply::new(out, Protocol::Resp2).error(text));
    }
}
