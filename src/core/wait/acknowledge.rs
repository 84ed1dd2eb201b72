//! WAIT and WAITAOF: how many have what a connection wrote.
//!
//! Where there are other nodes each shard says which of them have what was committed when it was
//! asked, behind the connection's writes, and says so again whenever that changes, until nobody
//! waits for it (`copies`). A node counts that has it of all shards. On a node of its own who waits
//! for others waits its time out.
//!
//! Whether it is on this node's disk the shards know: under `always` what is answered is on the
//! disk; under `everysec` a shard answers when the next sync has ended; under `no` nobody syncs,
//! and the time is waited out too.

use crate::commands::{Answer, Arity, Call, Group, Keys};
use crate::core::Core;
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::commands::{Row, session, shard as shard_row, table};
use crate::core::gather::context::SessionContext;
use crate::core::gather::integer_of;
use crate::core::shard::{LocalShard, Request, ShardContext};
use crate::numbers::parse_integer;
use crate::refusal::{Outcome, Refusal};
use crate::resp::read::Elements;
use crate::resp::reply::{Protocol, Reply};
use crate::settings::values::{Fsync, Mode};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, Index, NodeId, ShardId};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::log::WriteTicket;
use ringraft_shards::raft::PeerProgress;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    session("wait", Arity::Exactly(3), wait).queued(wait_queued).for_leader().about(
        Group::Generic,
        "3.0.0",
        "Waits until so many followers have what this connection wrote.",
    ),
    session("waitaof", Arity::Exactly(4), waitaof).queued(waitaof_queued).for_leader().about(
        Group::Generic,
        "7.2.0",
        "Waits until what this connection wrote is on the disks of this node and of so many followers.",
    ),
    shard_row(COPIES, Arity::Exactly(1), Keys::NONE, copies).internal().about(
        Group::Generic,
        "7.4.0",
        "Says which nodes have what a shard has committed, now and as it changes.",
    ),
    shard_row(SYNCED, Arity::Exactly(2), Keys::NONE, synced).internal().about(
        Group::Generic,
        "7.2.0",
        "Says whether what a shard has written is on the disk, or waits until it is.",
    ),
];

const SYNCED: &str = "await-sync";
const COPIES: &str = "await-copies";

/// What a connection that waits for others is told.
pub struct Acknowledged {
    /// WAITAOF: is it on this disk, as far as is known?
    local: Option<bool>,
    /// Shards that have not said whether it is.
    missing: usize,
    /// How many other nodes are to have it.
    wanted: usize,
    /// For each shard the nodes that have it, as far as is known.
    copies: BTreeMap<u16, BTreeSet<u64>>,
    /// How many shards there are.
    shard_count: usize,
}

impl Acknowledged {
    /// Takes a shard's answer. True when there is nothing left to wait for.
    pub fn take(&mut self, reply: &[u8]) -> bool {
        if reply.first() == Some(&b'*') {
            let mut numbers = Elements::of(reply).filter_map(integer_of).map(i64::cast_unsigned);
            if let Some(shard) = numbers.next() {
                self.copies.insert(shard as u16, numbers.collect());
            }
        } else {
            // A shard that another node leads by now refuses: it knows nothing of copies either.
            self.missing = self.missing.saturating_sub(1);
            let is_synced = reply == b":1\r\n";
            self.local = self.local.map(|so_far| so_far && is_synced);
        }
        self.missing == 0 && self.count() >= self.wanted
    }

    /// How many other nodes have what was written, in all shards.
    fn count(&self) -> usize {
        let mut shards = self.copies.values();
        if self.copies.len() < self.shard_count {
            return 0;
        }
        let Some(first) = shards.next() else { return 0 };
        first.iter().filter(|node| shards.clone().all(|nodes| nodes.contains(*node))).count()
    }

    /// Do shards still say more?
    pub fn is_watched(&self) -> bool {
        self.wanted > 0
    }

    /// The reply as it is now.
    pub fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut reply = Reply::new(out, protocol);
        if let Some(local) = self.local {
            reply.array(2);
            reply.integer(i64::from(local && self.missing == 0));
        }
        reply.integer(self.count() as i64);
    }
}

/// Argument `i` as a time in milliseconds; `None` is for ever.
fn timeout_at(call: &Call<'_>, i: usize) -> Result<Option<Duration>, Refusal> {
    let milliseconds = parse_integer(call.at(i))
        .ok_or(Refusal::text("ERR timeout is not an integer or out of range"))?;
    let milliseconds =
        u64::try_from(milliseconds).map_err(|_| Refusal::text("ERR timeout is negative"))?;
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

/// WAIT numreplicas timeout.
fn wait(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let count = call.integer(1)?;
    let timeout = timeout_at(call, 2)?;
    if count <= 0 {
        reply.integer(0);
        return Ok(Answer::Now);
    }
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let shard_count = context.core.router.shard_count();
    let copies = BTreeMap::new();
    let acknowledged = Acknowledged { local: None, missing: 0, wanted, copies, shard_count };
    let number =
        context.core.block_for_others(context.index, context.target, acknowledged, timeout);
    context.core.ask_for_copies(number);
    Ok(Answer::Later)
}

fn wait_queued(_: &Core, call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    call.integer(1)?;
    timeout_at(call, 2)?;
    reply.integer(0);
    Ok(())
}

/// What WAITAOF is asked for: this node's disk, followers' disks, a time.
fn asked(core: &Core, call: &Call<'_>) -> Result<(bool, i64, Option<Duration>), Refusal> {
    let local = call.integer(1)?;
    if !(0..=1).contains(&local) {
        return Err(Refusal::text("ERR value is out of range, value must between 0 and 1"));
    }
    let followers = call.integer(2)?;
    if followers < 0 {
        return Err(Refusal::text("ERR value is out of range, must be positive"));
    }
    let timeout = timeout_at(call, 3)?;
    if local == 1 && core.settings.mode == Mode::Cache {
        return Err(Refusal::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    Ok((local == 1, followers, timeout))
}

/// WAITAOF numlocal numreplicas timeout.
fn waitaof(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let (local, followers, timeout) = asked(context.core, call)?;
    let (core, protocol) = (&mut *context.core, Protocol::default());
    let shard_count = core.router.shard_count();
    let acknowledged = Acknowledged {
        local: Some(true),
        missing: shard_count,
        wanted: usize::try_from(followers).unwrap_or(usize::MAX),
        copies: BTreeMap::new(),
        shard_count,
    };
    let number = core.block_for_others(context.index, context.target, acknowledged, timeout);
    let owned: OwnedArguments =
        [SYNCED.as_bytes(), if local { b"wait" } else { b"look" }].into_iter().collect();
    for shard in 0..shard_count as u16 {
        let target = Target::Block(number);
        let origin = Origin::asks(core.id, target, protocol);
        let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
        let (command, arguments) = (table::internal(SYNCED), owned.borrow());
        let request = Request { command, origin, database, first_key, arguments };
        core.forward(ShardId(shard), &request);
    }
    // What other nodes have is on their disks where every write is.
    if followers > 0 && core.settings.fsync == Fsync::Always {
        core.ask_for_copies(number);
    }
    Ok(Answer::Later)
}

impl Core {
    /// Has all shards say which nodes have what is written, from now on.
    fn ask_for_copies(&mut self, number: u32) {
        if !self.shared.cluster.is_clustered() {
            return;
        }
        let owned: OwnedArguments = [COPIES.as_bytes()].into_iter().collect();
        for shard in 0..self.router.shard_count() as u16 {
            let origin = Origin::asks(self.id, Target::Block(number), Protocol::default());
            let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
            let (command, arguments) = (table::internal(COPIES), owned.borrow());
            let request = Request { command, origin, database, first_key, arguments };
            self.forward(ShardId(shard), &request);
        }
    }

    /// Nobody waits any more to hear which nodes have what.
    pub(in crate::core) fn forget_copies(&mut self, number: u32) {
        let asker = self.id;
        for shard in 0..self.router.shard_count() as u16 {
            self.at_shard(ShardId(shard), move |core, local| {
                let waits = &mut core.shards[local].copy_waits;
                waits.retain(|wait| {
                    (wait.origin.core, wait.origin.target) != (asker, Target::Block(number))
                });
            });
        }
    }
}

/// Which nodes have what is committed? Asked behind the writes that are meant.
fn copies(
    context: &mut ShardContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let index = context.shard.group.commit_index();
    context.shard.copy_waits.push(CopyWait { index, origin: context.origin, told: None });
    Ok(Answer::Later)
}

/// Who waits for other nodes to have something.
pub struct CopyWait {
    /// The end of what they are to have.
    index: Index,
    origin: Origin,
    /// The nodes that were named last.
    told: Option<Vec<u64>>,
}

/// In EXEC nothing waits: what was written before is on the disk where every write is, when it is
/// answered.
fn waitaof_queued(core: &Core, call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    asked(core, call)?;
    let is_synced = core.settings.mode == Mode::Store && core.settings.fsync == Fsync::Always;
    reply.array(2);
    reply.integer(i64::from(is_synced));
    reply.integer(0);
    Ok(())
}

/// Is what the shard has written on the disk? Asked behind the writes that are meant.
fn synced(
    context: &mut ShardContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let is_synced =
        context.shard.files.as_ref().is_some_and(|files| files.is_on_disk(files.newest()));
    if is_synced || call.at(1) == b"look" {
        reply.integer(i64::from(is_synced));
        return Ok(Answer::Now);
    }
    let newest = context.shard.files.as_ref().and_then(|files| files.newest());
    match newest {
        // It has no log, and nobody may wait for one.
        None => reply.integer(0),
        Some(newest) => {
            context.shard.sync_waits.push((newest, context.origin));
            return Ok(Answer::Later);
        }
    }
    Ok(Answer::Now)
}

/// Who waits for a sync, and up to which write.
pub type SyncWait = (WriteTicket, Origin);

impl LocalShard {
    /// Tells those who wait for it which nodes have what they have written.
    #[cold]
    pub(in crate::core) fn tell_copies(&mut self, own: NodeId, answers: &mut Answers) {
        if !self.serves() {
            return;
        }
        let (id, peers) = (self.server.id, self.server.group.peers());
        for wait in &mut self.copy_waits {
            let has = |peer: &&PeerProgress| peer.node.node() != own && peer.matched >= wait.index;
            let nodes: Vec<u64> = peers.iter().filter(has).map(|peer| peer.node.node().0).collect();
            if wait.told.as_ref() == Some(&nodes) {
                continue;
            }
            answers.write(wait.origin, |out| {
                let mut reply = Reply::new(out, Protocol::default());
                reply.array(1 + nodes.len());
                reply.integer(id.0.into());
                nodes.iter().for_each(|node| reply.integer(node.cast_signed()));
            });
            wait.told = Some(nodes);
        }
    }

    /// Answers those who wait for what is on the disk now.
    pub(in crate::core) fn answer_synced(&mut self, answers: &mut Answers) {
        let Some(files) = self.files.as_ref().filter(|_| !self.sync_waits.is_empty()) else {
            return;
        };
        self.sync_waits.retain(|(ticket, origin)| {
            let waits = !files.is_on_disk(Some(*ticket));
            if !waits {
                answers.write(*origin, |out| out.extend_from_slice(b":1\r\n"));
            }
            waits
        });
    }
}
