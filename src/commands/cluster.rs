//! CLUSTER for clients of Redis Cluster, READONLY and READWRITE.
//!
//! Slots here are those clients' own: 16384 of them. This node leads them all and takes every key, so no reply ever
//! sends a client elsewhere. What changes a cluster in Redis (MEET, ADDSLOTS, SETSLOT ...) is not there.

use super::help::help;
use super::refusal::{Outcome, Refusal};
use super::{Answer, Arity, Call, Command, Group, container, plain, session};
use crate::core::{Core, SessionContext};
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::ScanPosition;
use ringraft_shards::slot::{REDIS_SLOT_COUNT, Slot, SlotScheme, redis_slot};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    container("cluster", CLUSTER).about(
        Group::Cluster,
        "3.0.0",
        "What clients of Redis Cluster ask.",
    ),
    session("readonly", Arity::Exactly(1), readonly).fast().about(
        Group::Cluster,
        "3.0.0",
        "Lets the connection read from replicas.",
    ),
    session("readwrite", Arity::Exactly(1), readwrite).fast().about(
        Group::Cluster,
        "3.0.0",
        "Has the connection read from leaders alone again.",
    ),
];

const CLUSTER: &[Command] = &[
    session("countkeysinslot", Arity::Exactly(3), count_keys).of("cluster").asks().about(
        Group::Cluster,
        "3.0.0",
        "Counts the keys of a slot.",
    ),
    session("getkeysinslot", Arity::Exactly(4), get_keys).of("cluster").asks().about(
        Group::Cluster,
        "3.0.0",
        "Some keys of a slot.",
    ),
    plain("help", Arity::Exactly(2), help).of("cluster").about(
        Group::Cluster,
        "5.0.0",
        "Lists the subcommands.",
    ),
    session("info", Arity::Exactly(2), info).of("cluster").about(
        Group::Cluster,
        "3.0.0",
        "The state of the cluster, as lines of text.",
    ),
    plain("keyslot", Arity::Exactly(3), keyslot).of("cluster").about(
        Group::Cluster,
        "3.0.0",
        "The slot of a key.",
    ),
    session("links", Arity::Exactly(2), links).of("cluster").about(
        Group::Cluster,
        "7.0.0",
        "The links to other nodes.",
    ),
    session("myid", Arity::Exactly(2), myid).of("cluster").about(
        Group::Cluster,
        "3.0.0",
        "The id of this node.",
    ),
    session("myshardid", Arity::Exactly(2), myshardid).of("cluster").about(
        Group::Cluster,
        "7.2.0",
        "The id of what this node is a replica of, itself included.",
    ),
    session("nodes", Arity::Exactly(2), nodes).of("cluster").about(
        Group::Cluster,
        "3.0.0",
        "The nodes and their slots, as lines of text.",
    ),
    session("replicas", Arity::Exactly(3), replicas).of("cluster").about(
        Group::Cluster,
        "5.0.0",
        "The replicas of a node.",
    ),
    session("shards", Arity::Exactly(2), shards).of("cluster").about(
        Group::Cluster,
        "7.0.0",
        "Ranges of slots, each with the nodes that have them.",
    ),
    session("slaves", Arity::Exactly(3), replicas).of("cluster").about(
        Group::Cluster,
        "3.0.0",
        "The replicas of a node.",
    ),
    session("slots", Arity::Exactly(2), slots).of("cluster").about(
        Group::Cluster,
        "3.0.0",
        "Ranges of slots, each with the addresses of nodes that have them.",
    ),
];

const LAST_SLOT: usize = REDIS_SLOT_COUNT - 1;

/// The node's id as those clients know ids, 40 hexadecimal digits: the cluster's, and the node's in it.
fn node_id(core: &Core) -> String {
    format!("{:032x}{:08x}", core.shared.cluster_id, core.shared.node_id)
}

/// The id of the one set of replicas that there is.
fn shard_id(core: &Core) -> String {
    format!("{:032x}{:08x}", core.shared.cluster_id, 0)
}

/// Where this client has reached the node: another client of its network does, too.
fn address(context: &mut SessionContext<'_>) -> SocketAddr {
    let port = context.core.settings.port;
    let local = context.connection().local.internet();
    local.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

fn myid(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.bulk(node_id(context.core).as_bytes());
    Ok(Answer::Now)
}

fn myshardid(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.bulk(shard_id(context.core).as_bytes());
    Ok(Answer::Now)
}

fn info(
    _: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let lines = [
        ("cluster_state", "ok"),
        ("cluster_slots_assigned", "16384"),
        ("cluster_slots_ok", "16384"),
        ("cluster_slots_pfail", "0"),
        ("cluster_slots_fail", "0"),
        ("cluster_known_nodes", "1"),
        ("cluster_size", "1"),
        ("cluster_current_epoch", "1"),
        ("cluster_my_epoch", "1"),
        ("cluster_stats_messages_sent", "0"),
        ("cluster_stats_messages_received", "0"),
        ("total_cluster_links_buffer_limit_exceeded", "0"),
    ];
    let text: String = lines.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
    reply.verbatim(&text);
    Ok(Answer::Now)
}

fn nodes(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let address = address(context);
    let (id, ip, port) = (node_id(context.core), address.ip(), address.port());
    reply.verbatim(&format!(
        "{id} {ip}:{port}@{port} myself,master - 0 0 1 connected 0-{LAST_SLOT}\n"
    ));
    Ok(Answer::Now)
}

fn slots(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let address = address(context);
    reply.array(1);
    reply.array(3);
    reply.integer(0);
    reply.integer(LAST_SLOT as i64);
    reply.array(4);
    reply.bulk(address.ip().to_string().as_bytes());
    reply.integer(i64::from(address.port()));
    reply.bulk(node_id(context.core).as_bytes());
    reply.array(0);
    Ok(Answer::Now)
}

fn shards(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let address = address(context);
    let ip = address.ip().to_string();
    reply.array(1);
    reply.map(2);
    reply.bulk(b"slots");
    reply.array(2);
    reply.integer(0);
    reply.integer(LAST_SLOT as i64);
    reply.bulk(b"nodes");
    reply.array(1);
    reply.map(7);
    reply.bulk(b"id");
    reply.bulk(node_id(context.core).as_bytes());
    reply.bulk(b"port");
    reply.integer(i64::from(address.port()));
    for (name, value) in [("ip", ip.as_str()), ("endpoint", ip.as_str()), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"replication-offset");
    reply.integer(0);
    reply.bulk(b"health");
    reply.bulk(b"online");
    Ok(Answer::Now)
}

fn links(
    _: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.array(0);
    Ok(Answer::Now)
}

fn replicas(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let asked = call.arguments.at(2);
    if !asked.eq_ignore_ascii_case(node_id(context.core).as_bytes()) {
        let asked = String::from_utf8_lossy(asked);
        return Err(Refusal::Text(format!("ERR Unknown node {asked}").into()));
    }
    reply.array(0);
    Ok(Answer::Now)
}

fn keyslot(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(i64::from(redis_slot(call.arguments.at(2))));
    Ok(())
}

/// The slot of a request, when keys are kept by such slots.
fn slot_of(core: &Core, call: &Call<'_>, wrong: Refusal) -> Result<u16, Refusal> {
    let slot = parse_integer(call.arguments.at(2)).ok_or(Refusal::NotAnInteger)?;
    let slot = u16::try_from(slot).ok().filter(|slot| usize::from(*slot) <= LAST_SLOT);
    let slot = slot.ok_or(wrong)?;
    if core.router.hasher().scheme() != SlotScheme::Redis {
        return Err(Refusal::text(
            "ERR the keys of a slot are not kept together: this node's data was created without --slots redis",
        ));
    }
    Ok(slot)
}

/// Some keys of a slot that lie on this core.
fn keys_here(core: &Core, database: DatabaseIndex, slot: u16, limit: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let Some(table) = Slot::of_redis_slot(slot) else { return found };
    let shard = core.router.shard_of_slot(table.number());
    let Some(local) = core.router.local(shard) else { return found };
    let shard = &core.shards[local];
    let view = shard.keyspace.view(database, shard.time(core.now_ms()));
    let mut next = Some(ScanPosition { slot: table.number(), hash: 0 });
    while let Some(at) = next.filter(|at| at.slot == table.number() && found.len() < limit) {
        next = view.scan(at, KEYS_PER_STEP, &mut |item| {
            if found.len() < limit && redis_slot(item.key()) == slot {
                found.push(item.key().to_vec());
            }
        });
    }
    found
}

/// Keys that are looked at before it is asked whether these are enough.
const KEYS_PER_STEP: usize = 64;

fn count_keys(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let slot = slot_of(context.core, call, Refusal::text("ERR Invalid slot"))?;
    let database = context.session().database;
    context.ask_cores(
        move |core| keys_here(core, database, slot, usize::MAX).len(),
        |_, counts, reply| reply.integer(counts.into_iter().sum::<usize>() as i64),
    )
}

fn get_keys(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    const WRONG: Refusal = Refusal::text("ERR Invalid slot or number of keys");
    let limit = parse_integer(call.arguments.at(3)).ok_or(Refusal::NotAnInteger)?;
    let slot = slot_of(context.core, call, WRONG)?;
    let limit = usize::try_from(limit).map_err(|_| WRONG)?;
    let database = context.session().database;
    context.ask_cores(
        move |core| keys_here(core, database, slot, limit),
        |_, parts, reply| {
            let keys: Vec<Vec<u8>> = parts.into_iter().flatten().collect();
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        },
    )
}

fn readonly(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.session().reads_replicas = true;
    reply.ok();
    Ok(Answer::Now)
}

fn readwrite(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.session().reads_replicas = false;
    reply.ok();
    Ok(Answer::Now)
}
