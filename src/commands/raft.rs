//! The Raft groups as kvnode's and RedRaft's users know them: RAFTLEADER, RAFTSTATE, RAFTSTATS, RAFTPEERS.
//!
//! A server has one group per shard. Without an argument these commands speak of shard 0; RAFTSTATE,
//! RAFTSTATS and RAFTPEERS take the number of another one.

use super::refusal::Refusal;
use super::{Answer, Arity, Call, Command, Group, session};
use crate::core::{Core, SessionContext};
use crate::resp::reply::Reply;
use ringraft_shards::ids::ShardId;
use ringraft_shards::raft::{Role, Status};

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    session("raftleader", Arity::AtLeast(1), raftleader).asks().about(
        Group::Raft,
        "7.2.0",
        "Address of the leader, or null.",
    ),
    session("raftstate", Arity::AtLeast(1), raftstate).asks().about(
        Group::Raft,
        "7.2.0",
        "What this node is in the group of a shard.",
    ),
    session("raftstats", Arity::AtLeast(1), raftstats).asks().about(
        Group::Raft,
        "7.2.0",
        "Facts about the group of a shard.",
    ),
    session("raftpeers", Arity::AtLeast(1), raftpeers).asks().about(
        Group::Raft,
        "7.2.0",
        "Members of the group of a shard, and their states.",
    ),
];

/// What a group tells, if its shard lives on the core that was asked.
#[derive(Clone)]
struct Facts {
    status: Status,
    waiting_count: usize,
    peer_count: usize,
}

/// Asks the core that a shard lives on.
fn ask(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    answer: impl FnOnce(&Core, &Facts, &mut Reply<'_>) + 'static,
) -> Result<Answer, Refusal> {
    let shard = match call.count() {
        1 => ShardId(0),
        2 => shard_number(context.core, call)?,
        _ => return Err(Refusal::Arity(call.command.full_name())),
    };
    context.ask_cores(
        move |core| {
            let shard = core.shards.iter().find(|local| local.id == shard)?;
            Some(Facts {
                status: shard.group.status(),
                waiting_count: shard.waiting_count(),
                peer_count: shard.group.peers().len() - 1,
            })
        },
        move |core, found, reply| {
            let facts = found.into_iter().flatten().next().expect("every shard has a core");
            answer(core, &facts, reply);
        },
    )
}

fn shard_number(core: &Core, call: &Call<'_>) -> Result<ShardId, Refusal> {
    let number = call.integer(1)?;
    match u16::try_from(number) {
        Ok(shard) if usize::from(shard) < core.router.shard_count() => Ok(ShardId(shard)),
        _ => Err(Refusal::Text(format!("ERR no such shard: {number}").into())),
    }
}

/// The address under which clients reach this node.
fn own_address(core: &Core) -> String {
    let settings = &core.settings;
    let address = settings.addresses().chain(settings.tls_addresses()).next();
    address.map_or_else(String::new, |address| address.to_string())
}

fn state_word(role: Role) -> &'static str {
    match role {
        Role::Leader => "Leader",
        Role::Follower => "Follower",
        Role::Candidate => "Candidate",
    }
}

fn raftleader(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    ask(context, call, |core, facts, reply| match facts.status.role {
        Role::Leader => reply.bulk(own_address(core).as_bytes()),
        _ => reply.null(),
    })
}

fn raftstate(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    ask(context, call, |_, facts, reply| reply.bulk(state_word(facts.status.role).as_bytes()))
}

fn raftstats(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    ask(context, call, |_, facts, reply| {
        let status = &facts.status;
        let last_contact = match status.role {
            Role::Leader => "0",
            _ => "never",
        };
        let rows = [
            ("applied_index", status.applied_index.to_string()),
            ("commit_index", status.commit_index.to_string()),
            ("fsm_pending", facts.waiting_count.to_string()),
            ("last_contact", last_contact.to_string()),
            ("last_log_index", status.last_index.to_string()),
            ("last_log_term", status.last_term.to_string()),
            ("last_snapshot_index", status.snapshot_index.to_string()),
            ("last_snapshot_term", status.snapshot_term.to_string()),
            ("num_peers", facts.peer_count.to_string()),
            ("state", state_word(status.role).to_string()),
            ("term", status.term.to_string()),
        ];
        reply.array(2 * rows.len());
        for (name, value) in rows {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    })
}

fn raftpeers(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    ask(context, call, |core, facts, reply| {
        // A group of this version has one member: this node.
        reply.array(2);
        reply.bulk(own_address(core).as_bytes());
        reply.bulk(state_word(facts.status.role).as_bytes());
    })
}
