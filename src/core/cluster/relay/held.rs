//! Requests that wait for somebody to lead: what had no effect, what is asked for, and what comes
//! behind them.

use super::{AGAIN, DONE, Kept, Sent, kept_of, put};
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::{Hold, NEVER_MS};
use crate::core::shard::Caller;
use crate::core::transact::participate::Parked;
use crate::limits::HELD_FOR_LEADER_MS;
use crate::resp::reply::Reply;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::NodeId;
use ringraft_shards::remembered::Recollection;
use ringraft_shards::transaction::NO_LEADER;
use std::collections::{BTreeMap, BTreeSet};

/// A request that waits for somebody to lead: whose, and itself.
pub(in crate::core::cluster) type WaitingRequest = (u32, Sent);

impl Core {
    /// Does a connection that waited for a leader have to go on waiting?
    pub(in crate::core) fn still_waits(&self, index: u32) -> bool {
        let own = self.shared.cluster.own();
        match self.shared.cluster.route() {
            None => true,
            // What it has sent to itself comes first.
            Some(leader) if leader == own => self
                .answers
                .connections
                .at(index)
                .relay
                .as_ref()
                .is_some_and(|r| !r.sent.is_empty()),
            Some(_) => self.relay_is_full(index),
        }
    }

    pub(in crate::core::cluster) fn wait_for_leader(
        &mut self,
        index: u32,
        arguments: &OwnedArguments,
    ) {
        let until_ms = self.turn.steady_ms + HELD_FOR_LEADER_MS;
        self.hold_back(index, arguments);
        let connection = self.answers.connections.at_mut(index);
        connection.hold = Hold::Leader;
        connection.held_until_ms = until_ms;
    }

    /// A request was not answered, or it was said that this cannot be: it is sent again, asked for,
    /// or told.
    pub(in crate::core::cluster) fn take_up(&mut self, index: u32, mut sent: Sent, had_none: bool) {
        let Some(sequence) = sent.sequence else { return };
        if self.answers.connections.at(index).closed {
            // Nobody waits for it any more.
            return self.reply_to(index, sequence, |_| {});
        }
        if !had_none {
            let is_asked_for = sent.kept == Kept::Write && sent.stamp.is_some();
            if sent.kept != Kept::Read && !is_asked_for {
                return self.reply_to(index, sequence, |reply| reply.error(sent.unknown()));
            }
            sent.is_unsure = is_asked_for;
            sent.waits_until_ms = 0;
        }
        self.send_later(index, sent);
    }

    /// A request that had no effect is sent to whoever leads now.
    pub(super) fn send_again(&mut self, index: u32, leader: NodeId, mut sent: Sent) {
        (sent.seen, sent.is_again) = (0, false);
        let Some(sequence) = sent.sequence else { return };
        if sent.is_guarded {
            // What was watched there is not watched any more: it may have changed.
            return self.reply_to(index, sequence, |reply| reply.null_array());
        }
        sent.renew_timeout(self.steady.read());
        self.stats.sent_again += 1;
        self.send_relayed_request(index, leader, sent);
    }

    /// A request waits until another node leads, or for the next tick: whoever has sent it back may
    /// take it then. What its client asks for next waits behind it.
    pub(super) fn send_later(&mut self, index: u32, sent: Sent) {
        let until_ms = match sent.waits_until_ms {
            0 => self.turn.steady_ms + HELD_FOR_LEADER_MS,
            until_ms => until_ms,
        };
        self.cluster.waiting.push_back((index, Sent { waits_until_ms: until_ms, ..sent }));
        let connection = self.answers.connections.at_mut(index);
        connection.waiting_count += 1;
        self.hold_for_leader(index);
    }

    /// A client's next requests wait behind those that wait.
    pub(super) fn hold_for_leader(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if connection.hold == Hold::None {
            connection.hold = Hold::Leader;
            connection.held_until_ms = NEVER_MS;
        }
    }

    /// A request does not wait any more.
    fn waits_no_longer(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        connection.waiting_count -= 1;
        if connection.waiting_count == 0 && connection.hold == Hold::Leader {
            self.go_on(index);
        }
    }

    /// Sends what waits to whoever leads: of each client in order, and nothing behind what is not
    /// known to have had no effect.
    pub(in crate::core::cluster) fn send_waiting(&mut self) {
        let (route, steady_ms) = (self.shared.cluster.route(), self.turn.steady_ms);
        let mut held = BTreeSet::new();
        for (index, sent) in std::mem::take(&mut self.cluster.waiting) {
            let Some(sequence) = sent.sequence else { continue };
            let is_late = sent.waits_until_ms <= steady_ms;
            let leader = route.filter(|_| !sent.is_unsure && !held.contains(&index));
            if self.answers.connections.at(index).closed {
                self.waits_no_longer(index);
                self.reply_to(index, sequence, |_| {});
            } else if is_late {
                self.waits_no_longer(index);
                let text = if sent.is_unsure { sent.unknown() } else { NO_LEADER };
                self.reply_to(index, sequence, |reply| reply.error(text));
            } else if let Some(leader) = leader {
                self.send_again(index, leader, sent);
                if leader == self.shared.cluster.own() {
                    self.hold_for_leader(index);
                }
                self.waits_no_longer(index);
            } else {
                held.insert(index);
                self.cluster.waiting.push_back((index, sent));
            }
        }
        self.ask_what_became();
    }

    /// It is known what became of these requests; of those that are asked for and not there, that
    /// nothing did.
    pub(in crate::core::cluster) fn became_known(
        &mut self,
        asked: &BTreeSet<(u64, u64)>,
        mut known: BTreeMap<(u64, u64), Recollection>,
    ) {
        for (index, mut sent) in std::mem::take(&mut self.cluster.waiting) {
            let stamp = sent.stamp.filter(|stamp| sent.is_unsure && asked.contains(stamp));
            let found = stamp.and_then(|stamp| known.remove(&stamp));
            let (Some(_), Some(sequence)) = (stamp, sent.sequence) else {
                self.cluster.waiting.push_back((index, sent));
                continue;
            };
            let Some(recollection) = found else {
                sent.is_unsure = false;
                self.cluster.waiting.push_back((index, sent));
                continue;
            };
            self.waits_no_longer(index);
            self.stats.recalled += 1;
            self.reply_to(index, sequence, |reply| match &recollection {
                Recollection::Answered(bytes) => reply.raw(bytes),
                Recollection::Done => reply.error(DONE),
                Recollection::Forgotten => reply.error(sent.unknown()),
            });
        }
        self.send_waiting();
    }

    /// What waits and has to be asked for.
    pub(in crate::core::cluster) fn unsure(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let unsure = self.cluster.waiting.iter().filter(|(_, sent)| sent.is_unsure);
        unsure.filter_map(|(_, sent)| sent.stamp)
    }

    /// Requests of this node's clients had no effect here: they go to the node that leads.
    #[cold]
    pub(in crate::core) fn send_back_all(&mut self, local: usize) {
        for parked in std::mem::take(&mut self.shards[local].sent_back) {
            let core = parked.caller().origin.core;
            self.tell_core(core, move |core| core.take_back(parked));
        }
    }

    /// Requests wait here for a shard that another node leads by now.
    pub(super) fn release_stranded(&mut self) {
        let own = self.shared.cluster.own();
        if self.shared.cluster.route().is_none_or(|leader| leader == own) {
            return;
        }
        for local in 0..self.shards.len() {
            let shard = &mut self.shards[local];
            if shard.serves() {
                continue;
            }
            self.send_held_back(local);
        }
    }

    /// What waits for a shard here goes to the node that leads it.
    pub(in crate::core::cluster) fn send_held_back(&mut self, local: usize) {
        let shard = &mut self.shards[local];
        for parked in std::mem::take(&mut shard.held) {
            let origin = parked.caller().origin;
            match origin.target {
                Target::Connection { .. } if origin.is_relayed => {
                    self.answers.write(origin, |out| out.extend_from_slice(AGAIN));
                }
                // What a command has made of itself: the command is given again, by who gave it.
                Target::Connection { .. } if parked.caller().command.flags.internal => {
                    self.answers.write(origin, |out| {
                        Reply::new(out, origin.protocol).error(NO_LEADER);
                    });
                }
                Target::Connection { .. } => shard.sent_back.push(parked),
                _ => shard.held.push_back(parked),
            }
        }
        self.send_back_all(local);
    }

    /// A request of a client here had no effect: it is sent again.
    fn take_back(&mut self, parked: Parked) {
        let (Caller { command, origin }, request) = (parked.caller(), parked.request());
        if origin.is_relayed {
            return self.answers.write_here(origin.target, |out| out.extend_from_slice(AGAIN));
        }
        let Target::Connection { index, sequence } = origin.target else { return };
        let Some(connection) = self.answers.connections.get(index) else { return };
        if connection.closed {
            return self.reply_to(index, sequence, |_| {});
        }
        if request.database != connection.session.database {
            // Its client has chosen another database since, and could not tell where the reply
            // belongs.
            let text = "TRYAGAIN the node that leads has changed";
            return self.reply_to(index, sequence, |reply| reply.error(text));
        }
        let mut bytes = Vec::new();
        put(&mut bytes, request.arguments.iter_from(0));
        self.send_later(index, Sent::new(Some(sequence), kept_of(command), bytes.into()));
    }

    /// This node leads: what its clients have asked of the one before comes before what they ask of
    /// this one.
    pub(super) fn hold_who_asked_elsewhere(&mut self) {
        let own = self.shared.cluster.own();
        let connections = self.answers.connections.iter();
        let all: Vec<u32> = connections.map(|(index, _)| index).collect();
        for index in all {
            if self.is_owed_by_another(index, own) {
                self.hold_for_leader(index);
            }
        }
    }

    /// Who has waited for a leader for too long is told.
    pub(in crate::core::cluster) fn tend_held(&mut self) {
        self.leave_old_leaders();
        self.tend_trackers();
        self.send_waiting();
        let steady_ms = self.turn.steady_ms;
        let connections = self.answers.connections.iter();
        let waiting: Vec<(u32, bool)> = connections
            .filter(|(_, c)| c.hold == Hold::Leader)
            .map(|(index, c)| (index, c.held_until_ms <= steady_ms))
            .collect();
        for (index, is_late) in waiting {
            if !is_late || !self.still_waits(index) {
                // There may be room by now.
                self.go_on(index);
                continue;
            }
            let sequence = self.expect_reply(index);
            let connection = self.answers.connections.at_mut(index);
            connection.hold = Hold::None;
            connection.held_back = Box::default();
            self.reply_to(index, sequence, |reply| reply.error(NO_LEADER));
            self.go_on(index);
        }
    }
}
