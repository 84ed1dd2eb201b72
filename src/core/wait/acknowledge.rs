//! WAIT and WAITAOF: how many have what a connection wrote. There are no followers, so who waits for one waits its time out.
//!
//! Whether it is on this node's disk the shards know: under `always` what is answered is on the disk; under `everysec` a
//! shard answers when the next sync has ended; under `no` nobody syncs, and the time is waited out too.

use crate::commands::{
    Answer, Arity, Call, Command, Group, Keys, session, shard as shard_row, table,
};
use crate::core::Core;
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::gather::context::SessionContext;
use crate::core::shard::{LocalShard, Request, ShardContext};
use crate::numbers::parse_integer;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::{Protocol, Reply};
use crate::settings::values::{Fsync, Mode};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::log::WriteTicket;
use std::time::Duration;

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
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
    shard_row(SYNCED, Arity::Exactly(2), Keys::NONE, synced).internal().about(
        Group::Generic,
        "7.2.0",
        "Says whether what a shard has written is on the disk, or waits until it is.",
    ),
];

const SYNCED: &str = "await-sync";

/// What a connection that waits for others is told.
pub struct Acknowledged {
    /// WAITAOF: is it on this disk, as far as is known?
    local: Option<bool>,
    /// Shards that have not said whether it is.
    missing: usize,
    /// Is that all it waits for?
    is_local: bool,
}

impl Acknowledged {
    /// Takes a shard's answer. True when there is nothing left to wait for.
    pub fn take(&mut self, reply: &[u8]) -> bool {
        self.missing -= 1;
        let is_synced = reply == b":1\r\n";
        self.local = self.local.map(|so_far| so_far && is_synced);
        self.missing == 0 && self.is_local
    }

    /// The reply as it is now.
    pub fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut reply = Reply::new(out, protocol);
        if let Some(local) = self.local {
            reply.array(2);
            reply.integer(i64::from(local && self.missing == 0));
        }
        reply.integer(0);
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
    let acknowledged = Acknowledged { local: None, missing: 0, is_local: false };
    context.core.block_for_others(context.index, context.target, acknowledged, timeout);
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
    let acknowledged =
        Acknowledged { local: Some(true), missing: shard_count, is_local: followers == 0 };
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
    Ok(Answer::Later)
}

/// In EXEC nothing waits: what was written before is on the disk where every write is, when it is answered.
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
