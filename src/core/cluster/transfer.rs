//! Snapshots to other nodes, and from them: the engine says which piece goes when, the helper
//! thread reads and writes.

use super::install::Installing;
use super::pace;
use super::wire::TransferMessage;
use crate::core::Core;
use crate::core::disk::storage::Done;
use crate::core::shard::LocalShard;
use ringraft_shards::ids::{Index, NodeId, ShardId};
use ringraft_shards::raft::{PeerMessage, SnapshotPoint};
use ringraft_shards::snapshot::{
    IncomingSnapshot, ReceiveWork, SendOutcome, SendStep, SnapshotDirectory, SnapshotError,
    SnapshotFile, SnapshotName, SnapshotOffer, SnapshotReceiver, SnapshotSender, TransferFrame,
    TransferId,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A snapshot on its way to a node.
struct Outgoing {
    sender: SnapshotSender,
    file: Arc<SnapshotFile>,
    /// Raft's own message, which follows when it is there.
    message: PeerMessage,
}

/// What of a shard goes to other nodes and comes from them.
#[derive(Default)]
pub struct Replication {
    outgoing: BTreeMap<NodeId, Outgoing>,
    /// Transfers that were begun.
    count: u64,
    receiver: SnapshotReceiver,
    /// What comes in, while the helper does not have it.
    incoming: Option<IncomingSnapshot>,
    /// A snapshot that takes the place of the items.
    pub(super) installing: Option<Installing>,
}

/// What background work for another node has come to.
pub struct ReplicaDone {
    shard: ShardId,
    what: Box<What>,
}

#[allow(clippy::large_enum_variant)] // It is boxed, and few are there.
enum What {
    Opened {
        message: PeerMessage,
        result: Result<SnapshotFile, SnapshotError>,
    },
    Read {
        to: NodeId,
        id: TransferId,
        offset: u64,
        result: std::io::Result<Vec<u8>>,
    },
    Received {
        incoming: Option<IncomingSnapshot>,
        result: Result<Option<SnapshotName>, SnapshotError>,
    },
}

impl ReplicaDone {
    /// Whose.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

impl LocalShard {
    /// Is there a complete snapshot of this place in the log?
    pub(super) fn has_snapshot(&self, point: &SnapshotPoint) -> bool {
        self.snapshots.has(point.index) || self.server.group.applied_index() >= point.index
    }

    /// Is a snapshot of another node being loaded?
    #[inline]
    pub(in crate::core) fn is_installing(&self) -> bool {
        self.replication.as_deref().is_some_and(|it| it.installing.is_some())
    }
}

impl Core {
    /// A follower is offered a snapshot: it goes to it first, then Raft's message.
    pub(in crate::core) fn begin_transfer(&mut self, local: usize, message: PeerMessage) {
        let shard = &mut self.shards[local];
        let offered = message.snapshot().expect("the caller looked");
        let Some(directory) = shard.snapshots.directory() else {
            return shard.server.group.snapshot_sent(message.to(), false);
        };
        let name = SnapshotName { term: offered.point.term, index: offered.point.index };
        let path = directory.state_path(name);
        let id = shard.server.id;
        self.storage.in_background(
            move || SnapshotFile::open(&path),
            move |result| {
                let what = Box::new(What::Opened { message, result });
                Done::Replica(ReplicaDone { shard: id, what })
            },
        );
    }

    /// Background work for another node is done.
    pub(in crate::core) fn replica_done(&mut self, local: usize, done: ReplicaDone) {
        self.turn.has_new_work = true;
        match *done.what {
            What::Opened { message, result } => self.opened(local, message, result),
            What::Read { to, id, offset, result } => {
                let replication = self.shards[local].replication.get_or_insert_default();
                let outgoing = replication.outgoing.get_mut(&to);
                let Some(outgoing) = outgoing.filter(|outgoing| outgoing.sender.id() == id) else {
                    return;
                };
                match result {
                    Ok(bytes) => outgoing.sender.read(offset, bytes),
                    Err(error) => {
                        tracing::error!("a snapshot cannot be read: {error}");
                        outgoing.sender.read_failed();
                    }
                }
                self.step_transfer(local, to);
            }
            What::Received { incoming, result } => self.received_work(local, incoming, result),
        }
    }

    fn opened(
        &mut self,
        local: usize,
        message: PeerMessage,
        result: Result<SnapshotFile, SnapshotError>,
    ) {
        let (to, offered) = (message.to(), message.snapshot().expect("it offers one"));
        let shard = &mut self.shards[local];
        let file = match result {
            Ok(file) => Arc::new(file),
            Err(error) => {
                // It was pruned meanwhile; the group wants another one.
                tracing::warn!("a snapshot cannot be sent: {error}");
                shard.snapshots.want(None);
                return shard.server.group.snapshot_sent(to, false);
            }
        };
        let term = shard.server.group.term().0;
        let replication = shard.replication.get_or_insert_default();
        replication.count += 1;
        let id = TransferId { term, number: replication.count };
        let offer = SnapshotOffer {
            name: SnapshotName { term: offered.point.term, index: offered.point.index },
            size: file.size(),
            crc: file.footer().crc,
        };
        tracing::info!(
            shard = shard.server.id.0,
            "node {} gets a snapshot of {} bytes",
            to.node(),
            offer.size
        );
        let sender = SnapshotSender::new(id, offer);
        replication.outgoing.insert(to, Outgoing { sender, file, message });
        self.step_transfer(local, to);
    }

    /// Goes on with what goes to a node, as far as it can now.
    fn step_transfer(&mut self, local: usize, to: NodeId) {
        loop {
            let shard = &mut self.shards[local];
            let id = shard.server.id;
            let replication = shard.replication.get_or_insert_default();
            let Some(outgoing) = replication.outgoing.get_mut(&to) else { return };
            if let Some(outcome) = outgoing.sender.outcome() {
                let outgoing = replication.outgoing.remove(&to).expect("just seen");
                let delivered = outcome == SendOutcome::Delivered;
                shard.server.group.snapshot_sent(to, delivered);
                if delivered {
                    let (shard, message) = (id, outgoing.message);
                    let item = ringraft_shards::peer::Item::Raft { shard, message };
                    self.send_to_node(to.node(), item);
                }
                self.turn.has_new_work = true;
                return;
            }
            let transfer = outgoing.sender.id();
            match outgoing.sender.next_step() {
                None => return,
                Some(SendStep::Frame(frame)) => {
                    let message = TransferMessage::Frame(frame);
                    self.send_transfer(to.node(), id, transfer, message);
                }
                Some(SendStep::Read { offset, length }) => {
                    let file = outgoing.file.clone();
                    self.storage.in_background(
                        move || file.read_at(offset, length),
                        move |result| {
                            let what = Box::new(What::Read { to, id: transfer, offset, result });
                            Done::Replica(ReplicaDone { shard: id, what })
                        },
                    );
                }
            }
        }
    }

    /// A step of a snapshot's way has come from another node.
    pub(super) fn take_transfer(
        &mut self,
        local: usize,
        from: NodeId,
        id: TransferId,
        message: TransferMessage,
    ) {
        match message {
            TransferMessage::Frame(frame) => self.take_frame(local, from, id, frame),
            TransferMessage::Answer(answer) => {
                let replication = self.shards[local].replication.get_or_insert_default();
                let member = replication.outgoing.keys().find(|member| member.node() == from);
                let Some(member) = member.copied() else { return };
                let outgoing = replication.outgoing.get_mut(&member).expect("just found");
                if outgoing.sender.id() == id {
                    outgoing.sender.answered(answer);
                    self.step_transfer(local, member);
                }
            }
        }
    }

    fn take_frame(&mut self, local: usize, from: NodeId, id: TransferId, frame: TransferFrame) {
        let shard = &mut self.shards[local];
        if shard.group.config().node.is_lost_replica() {
            // It is for the replica that was there before.
            return;
        }
        let commit = shard.server.group.commit_index();
        let replication = shard.replication.get_or_insert_default();
        replication.receiver.take(from, id, frame, commit);
        self.drive_receiver(local);
    }

    /// Has the helper do the receiver's next piece of work, and sends its answers.
    fn drive_receiver(&mut self, local: usize) {
        let shard = &mut self.shards[local];
        let id = shard.server.id;
        let commit = shard.server.group.commit_index();
        let Some(directory) = shard.snapshots.directory() else { return };
        let replication = shard.replication.get_or_insert_default();
        if let Some(work) = replication.receiver.next_work() {
            let incoming = replication.incoming.take();
            self.storage.in_background(
                move || do_work(&directory, work, incoming, commit),
                move |(incoming, result)| {
                    let what = Box::new(What::Received { incoming, result });
                    Done::Replica(ReplicaDone { shard: id, what })
                },
            );
        }
        let replication = self.shards[local].replication.get_or_insert_default();
        for answer in replication.receiver.take_answers() {
            let message = TransferMessage::Answer(answer.answer);
            self.send_transfer(answer.sender.node(), id, answer.transfer, message);
        }
    }

    fn received_work(
        &mut self,
        local: usize,
        incoming: Option<IncomingSnapshot>,
        result: Result<Option<SnapshotName>, SnapshotError>,
    ) {
        let shard = &mut self.shards[local];
        let replication = shard.replication.get_or_insert_default();
        replication.incoming = incoming;
        if let Err(error) = &result {
            tracing::error!("a snapshot of another node cannot be kept: {error}");
        }
        replication.receiver.work_done(result.is_ok());
        if let Ok(Some(name)) = result {
            shard.snapshots.note_received(name.index);
        }
        self.drive_receiver(local);
    }

    /// Time passes for what is on its way.
    pub(super) fn tick_transfers(&mut self) {
        let replications = self.shards.iter().filter_map(|shard| shard.replication.as_deref());
        let to = replications.flat_map(|it| it.outgoing.keys().map(|member| member.node()));
        let to = to.collect();
        let shared = self.shared.clone();
        let all = shared.cluster.pace.note(self.id, to);
        let rate = self.settings.transfer_rate;
        let p99_us = shared.cluster.fitness.log_write_p99_us();
        let is_slowed = pace::is_slowed(p99_us, self.rates.rate().commands);
        for local in 0..self.shards.len() {
            let Some(replication) = &mut self.shards[local].replication else { continue };
            replication.receiver.tick();
            let nodes: Vec<NodeId> = replication.outgoing.keys().copied().collect();
            for (member, outgoing) in &mut replication.outgoing {
                outgoing.sender.set_pace(pace::share(rate, is_slowed, &all, member.node()));
                outgoing.sender.tick();
            }
            for node in nodes {
                self.step_transfer(local, node);
            }
            self.drive_receiver(local);
        }
    }
}

/// One piece of a receiver's work. What comes in is given back, and its name when it is complete.
fn do_work(
    directory: &SnapshotDirectory,
    work: ReceiveWork,
    incoming: Option<IncomingSnapshot>,
    commit: Index,
) -> (Option<IncomingSnapshot>, Result<Option<SnapshotName>, SnapshotError>) {
    match (work, incoming) {
        (ReceiveWork::Begin { name, size }, left) => {
            let begun = left
                .map_or(Ok(()), IncomingSnapshot::abandon)
                // What the group did not take, since its leader was replaced meanwhile, must not
                // hide an older one.
                .and_then(|()| directory.remove_beyond(commit))
                .and_then(|()| IncomingSnapshot::begin(directory, name, size));
            match begun {
                Ok(incoming) => (Some(incoming), Ok(None)),
                Err(error) => (None, Err(error)),
            }
        }
        (ReceiveWork::Write { offset, bytes }, Some(mut incoming)) => {
            let written = incoming.write(offset, &bytes).map(|()| None);
            (Some(incoming), written)
        }
        (ReceiveWork::Finish, Some(incoming)) => {
            let header = |file: SnapshotFile| {
                let (term, index) = (file.header().term, file.header().index);
                Some(SnapshotName { term, index })
            };
            (None, incoming.finish().map(header))
        }
        (ReceiveWork::Abandon, Some(incoming)) => (None, incoming.abandon().map(|()| None)),
        (ReceiveWork::Abandon, None) => (None, Ok(None)),
        // A piece of what could not be begun; the receiver has given it up, or will.
        (ReceiveWork::Write { .. } | ReceiveWork::Finish, None) => (None, Ok(None)),
    }
}
