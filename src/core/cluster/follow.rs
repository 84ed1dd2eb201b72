//! Reads that a node answers itself although another one leads, or none.
//!
//! `high`: the leader is asked how far its log is committed, once per shard and turn; the reads are
//! executed here when that is applied (`ringraft_shards::serve`, `follow.rs`). `low`: what is
//! applied here, but not before what the connection has seen; the leader tells that with the
//! replies of what it was sent.
//!
//! Nothing of a connection overtakes: a read goes to the leader while something that was sent there
//! is not answered, and what may change something waits until the reads before it are answered
//! here.

use super::relay::Kept;
use super::wire::{ClientKey, NodeMessage};
use crate::commands::{Command, Gather, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::connection::{Connection, Hold, Kind};
use crate::core::client::dispatch::Piece;
use crate::core::gather::{GatherState, Merge, Part};
use crate::core::shard::{Request, ShardTurn};
use crate::core::transact::participate::Parked;
use crate::limits::FOLLOWER_PATIENCE_TICKS;
use crate::settings::values::{Consistency, Routing};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, Index, NodeId, ShardId};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::serve::{self, Certainty, Sight};

/// What a leader answers to the question of another node.
pub type Told = (NodeId, u64, Option<Certainty>);

impl Connection {
    /// What its reads may see.
    pub(super) fn consistency(&self, of_node: Consistency) -> Consistency {
        if self.session.reads_replicas { Consistency::Low } else { of_node }
    }
}

impl Core {
    /// Is this a read that this node answers itself? Then that is begun.
    pub(super) fn is_read_here(
        &mut self,
        index: u32,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) -> bool {
        let connection = self.answers.connections.at(index);
        let is_read = matches!(command.run, Run::Read(_)) && command.wait.is_none();
        let is_client = connection.kind != Kind::Relayed;
        // The leader keeps track of what it is asked for alone.
        let is_tracked = connection.session.tracking.is_some();
        if !is_read || !is_client || is_tracked || connection.must_ride() {
            return false;
        }
        let is_led = self.shared.cluster.route().is_some();
        let forwards = self.settings.routing == Routing::Forward;
        let is_low = match connection.consistency(self.settings.consistency) {
            Consistency::High if is_led && forwards => false,
            Consistency::High | Consistency::Medium => return false,
            // What it has seen is told with the next reply of the leader.
            Consistency::Low
                if forwards && connection.seen.is_empty() && connection.last_ordered.is_some() =>
            {
                return false;
            }
            Consistency::Low => true,
        };
        let view = arguments.borrow();
        let pieces = match self.check_arguments(command, view) {
            Ok(()) => self.pieces(command, view).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let has_all = pieces.iter().all(|piece| self.shared.cluster.has_replica(piece.shard));
        if pieces.is_empty() || !has_all || pieces.len() > 1 && !(is_low && is_split(command)) {
            return false;
        }
        let seen = |shard: ShardId| {
            let seen = connection.seen.get(usize::from(shard.0)).copied().unwrap_or(0);
            if seen > self.shared.cluster.applied(shard) { seen } else { 0 }
        };
        if pieces.len() > 1 && pieces.iter().any(|piece| seen(piece.shard) > 0) {
            return false;
        }
        let sight = match is_low {
            true => Sight::Applied(Index(seen(pieces[0].shard))),
            false => Sight::Acknowledged,
        };
        self.stats.reads_as_follower += 1;
        self.show_to_monitors(index, command, view);
        let sequence = self.expect_reply(index);
        let connection = self.answers.connections.at_mut(index);
        connection.last_read_here = Some(sequence);
        let protocol = connection.session.protocol;
        let no_touch = connection.session.no_touch;
        let database = connection.session.database;
        let target = Target::Connection { index, sequence };
        let origin = Origin { rides: false, no_touch, ..Origin::asks(self.id, target, protocol) };
        match pieces.as_slice() {
            [piece] => self.read_here(piece, origin, command, database, view, sight),
            pieces => self.read_in_parts(pieces, origin, command, database, arguments),
        }
        true
    }

    /// Must what may change something wait until reads before it are answered?
    pub(super) fn waits_for_reads(
        &mut self,
        index: u32,
        kept: Kept,
        arguments: &OwnedArguments,
    ) -> bool {
        let connection = self.answers.connections.at(index);
        let reads = connection.last_read_here;
        if kept == Kept::Read || reads.is_none_or(|last| connection.replies.is_written(last)) {
            return false;
        }
        self.hold_back(index, arguments);
        self.answers.connections.at_mut(index).hold = Hold::Order;
        true
    }

    fn read_here(
        &mut self,
        piece: &Piece,
        origin: Origin,
        command: &'static Command,
        database: DatabaseIndex,
        arguments: Arguments<'_>,
        sight: Sight,
    ) {
        let first_key = piece.first_key;
        let request = Request { command, origin, database, first_key, arguments };
        let parked = Parked::copy(&request, None);
        self.at_shard(piece.shard, move |core, local| core.take_read_here(local, parked, sight));
    }

    fn take_read_here(&mut self, local: usize, parked: Parked, sight: Sight) {
        self.turn.has_new_work = true;
        let shard = &mut self.shards[local];
        if shard.serves() {
            // It leads by now.
            shard.admit(&parked.request(), &mut self.stats);
        } else if shard.group.membership().voters.is_empty() {
            // It has begun anew meanwhile.
            shard.sent_back.push(parked);
            self.send_back_all(local);
        } else {
            shard.server.follow(parked, sight);
        }
    }

    /// Each shard, or each key, has a part of its own.
    fn read_in_parts(
        &mut self,
        pieces: &[Piece],
        origin: Origin,
        command: &'static Command,
        database: DatabaseIndex,
        arguments: &OwnedArguments,
    ) {
        let view = arguments.borrow();
        let (merge, parts) = match command.spread {
            Spread::Split(gather) => {
                let positions = command.keys.positions(view);
                let part = |at: usize| {
                    let first_key: KeyHash = self.router.hash(view.at(at));
                    let words: OwnedArguments = [view.at(0), view.at(at)].into_iter().collect();
                    (Piece { shard: self.router.shard(first_key), first_key }, words)
                };
                (gather, positions.map(part).collect::<Vec<_>>())
            }
            Spread::Everywhere(gather) => {
                let part = |piece: &Piece| {
                    let first_key = piece.first_key;
                    (Piece { shard: piece.shard, first_key }, arguments.clone())
                };
                (gather, pieces.iter().map(part).collect())
            }
            Spread::One | Spread::Referring => unreachable!("the caller looked"),
        };
        let gather = self.answers.gathers.insert(GatherState {
            target: origin.target,
            protocol: origin.protocol,
            merge: Merge::Shards(merge),
            parts: parts.iter().map(|_| Part::default()).collect(),
            missing: parts.len(),
            arguments: arguments.clone(),
            scanned_slot: None,
        });
        for (n, (piece, words)) in parts.into_iter().enumerate() {
            let target = Target::Gather { index: gather, part: n as u32 };
            let sight = Sight::Applied(Index(0));
            let origin = Origin { target, ..origin };
            self.read_here(&piece, origin, command, database, words.borrow(), sight);
        }
    }

    /// Executes what of a shard may be executed, and asks for the rest.
    pub(in crate::core) fn drive_followers(&mut self, local: usize) {
        let shard = &mut self.shards[local];
        let id = shard.server.id;
        for (node, number, certainty) in std::mem::take(&mut shard.told) {
            self.send_message(node, &NodeMessage::Certain { shard: id, number, certainty });
        }
        let shard = &mut self.shards[local];
        if !shard.follows() {
            return;
        }
        let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
        serve::serve_followers(shard, &mut turn);
        match self.shared.cluster.route() {
            Some(leader) if leader != self.shared.cluster.own() => {
                if let Some(number) = shard.ask_leader() {
                    self.send_message(leader, &NodeMessage::Ask { shard: id, number });
                }
            }
            _ => serve::forget_questions(shard, &mut turn),
        }
    }

    /// Another node asks how far the log of a shard is committed.
    pub(super) fn asked(&mut self, local: usize, node: NodeId, number: u64) {
        self.turn.has_new_work = true;
        let shard = &mut self.shards[local];
        if !shard.server.question(node, number) {
            shard.told.push((node, number, None));
        }
    }

    /// The leader has answered.
    pub(super) fn told(&mut self, local: usize, number: u64, certainty: Option<Certainty>) {
        self.turn.has_new_work = true;
        self.shards[local].server.answered(number, certainty);
    }

    /// Nobody will answer what was asked: another node leads, or the one that does is not reached.
    pub(super) fn forget_asked(&mut self) {
        for shard in &mut self.shards {
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            serve::forget_questions(shard, &mut turn);
        }
    }

    /// Time passes: what has waited for long goes to the leader.
    pub(super) fn tick_following(&mut self) {
        for shard in &mut self.shards {
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            serve::tick_followers(shard, FOLLOWER_PATIENCE_TICKS, &mut turn);
            if shard.is_installing() {
                // Nobody is asked before it is loaded.
                serve::forget_questions(shard, &mut turn);
            }
        }
    }

    /// At the leader, before replies go to another node's client that reads there: what they may
    /// rest on.
    pub(super) fn tell_seen(&mut self, index: u32, node: NodeId, client: ClientKey) {
        let connection = self.answers.connections.at_mut(index);
        if !connection.session.reads_replicas {
            return;
        }
        let count = self.router.shard_count();
        connection.make_seen(count);
        let mut news = Vec::new();
        for (shard, told) in connection.seen.iter_mut().enumerate() {
            let shard = ShardId(shard as u16);
            let applied = self.shared.cluster.applied(shard);
            if applied > *told {
                *told = applied;
                news.push((shard, Index(applied)));
            }
        }
        if !news.is_empty() {
            self.send_message(node, &NodeMessage::Seen { client, news });
        }
    }

    /// The replies that follow may rest on this: reads here show it as well.
    pub(super) fn has_seen(&mut self, client: ClientKey, news: &[(ShardId, Index)]) {
        let count = self.router.shard_count();
        let Some(connection) = self.answers.connections.get_mut(client.index) else { return };
        if connection.relay.as_ref().is_none_or(|relay| !relay.is_of(client)) {
            return;
        }
        connection.make_seen(count);
        for (shard, index) in news {
            if let Some(seen) = connection.seen.get_mut(usize::from(shard.0)) {
                *seen = index.0.max(*seen);
            }
        }
    }
}

/// Is a read over several shards as good as its parts, where they need not be of one moment?
fn is_split(command: &Command) -> bool {
    match command.spread {
        Spread::Split(_) => true,
        Spread::Everywhere(gather) => gather != Gather::Cursor,
        Spread::One | Spread::Referring => false,
    }
}
