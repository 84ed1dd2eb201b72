//! CLUSTER for clients of Redis Cluster, READONLY and READWRITE.
//!
//! Slots here are those clients' own: 16384 of them. One node leads them all, and every node takes
//! every key, so a reply sends a client elsewhere only where that was asked for (`--routing
//! moved`). What changes a cluster in Redis (MEET, ADDSLOTS, SETSLOT ...) is not there.

use super::help::help;
use super::{Answer, Arity, Call, Group, Row, container, plain, session};
use crate::core::cluster::META;
use crate::core::{Core, SessionContext};
use crate::numbers::parse_integer;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use ringraft_shards::ids::{DatabaseIndex, NodeId};
use ringraft_shards::keyspace::ScanPosition;
use ringraft_shards::slot::{REDIS_SLOT_COUNT, Slot, SlotScheme, redis_slot};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    container("cluster", CLUSTER).about(
        Group::Cluster,
        "3.0.0",
        "What clients of Redis Cluster ask.",
    ),
    session("asking", Arity::Exactly(1), asking).fast().about(
        Group::Cluster,
        "3.0.0",
        "Announces a request for a slot that is being moved here. None ever is.",
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

const CLUSTER: &[Row] = &[
    session("countkeysinslot", Arity::Exactly(3), count_keys).of("cluster").asks().about(
        Group::Cluster,
        "3.0.0",
        "Counts the keys of a slot.",
    ),
    super::failover::CLUSTER_FAILOVER,
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

/// The node's id as those clients know ids, 40 hexadecimal digits: the cluster's, and the node's in
/// it.
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

/// A node as those clients see it.
struct Seen {
    id: String,
    address: SocketAddr,
    is_self: bool,
    leads: bool,
    is_reached: bool,
}

/// All nodes: the one that leads first.
fn seen(context: &mut SessionContext<'_>) -> Vec<Seen> {
    let own_address = address(context);
    let core = &context.core;
    let cluster = &core.shared.cluster;
    let (own, route, links) = (cluster.own(), cluster.route(), cluster.links());
    let id = |node: NodeId| format!("{:032x}{:08x}", core.shared.cluster_id, node.0);
    let mut seen: Vec<Seen> = cluster
        .nodes()
        .into_iter()
        .filter_map(|(node, address)| {
            let is_self = node == own;
            let is_reached = is_self || links.iter().any(|link| link.node == node && link.is_up);
            let address = if is_self { own_address } else { address.parse().ok()? };
            let leads = route == Some(node);
            Some(Seen { id: id(node), address, is_self, leads, is_reached })
        })
        .collect();
    if seen.is_empty() {
        let (id, address) = (id(own), own_address);
        let leads = route == Some(own);
        seen.push(Seen { id, address, is_self: true, leads, is_reached: true });
    }
    seen.sort_by_key(|node| !node.leads);
    seen
}

fn info(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let seen = seen(context);
    let has_leader = seen.iter().any(|node| node.leads);
    let (state, slots) = if has_leader { ("ok", LAST_SLOT + 1) } else { ("fail", 0) };
    let group = context.core.shared.cluster.group(META);
    let term = group.map_or(1, |group| group.term.0).to_string();
    let (slots, known) = (slots.to_string(), seen.len().to_string());
    let lines = [
        ("cluster_state", state),
        ("cluster_slots_assigned", "16384"),
        ("cluster_slots_ok", &slots),
        ("cluster_slots_pfail", "0"),
        ("cluster_slots_fail", "0"),
        ("cluster_known_nodes", &known),
        ("cluster_size", "1"),
        ("cluster_current_epoch", &term),
        ("cluster_my_epoch", &term),
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
    let seen = seen(context);
    reply.verbatim(&lines(&seen, |_| true).concat());
    Ok(Answer::Now)
}

/// A line for each node that is wanted.
fn lines(seen: &[Seen], wanted: impl Fn(&Seen) -> bool) -> Vec<String> {
    let leader = seen.iter().find(|node| node.leads).map_or("-", |node| node.id.as_str());
    let line = |node: &Seen| {
        let (ip, port) = (node.address.ip(), node.address.port());
        let role = if node.leads { "master" } else { "slave" };
        let flags = if node.is_self { format!("myself,{role}") } else { role.to_string() };
        let of = if node.leads { "-" } else { leader };
        let state = if node.is_reached { "connected" } else { "disconnected" };
        let slots = if node.leads { format!(" 0-{LAST_SLOT}") } else { String::new() };
        format!("{} {ip}:{port}@{port} {flags} {of} 0 0 1 {state}{slots}\n", node.id)
    };
    seen.iter().filter(|node| wanted(node)).map(line).collect()
}

fn slots(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let seen = seen(context);
    if !seen.iter().any(|node| node.leads) {
        reply.array(0);
        return Ok(Answer::Now);
    }
    reply.array(1);
    reply.array(2 + seen.len());
    reply.integer(0);
    reply.integer(LAST_SLOT as i64);
    for node in &seen {
        reply.array(4);
        reply.bulk(node.address.ip().to_string().as_bytes());
        reply.integer(i64::from(node.address.port()));
        reply.bulk(node.id.as_bytes());
        reply.array(0);
    }
    Ok(Answer::Now)
}

fn shards(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let seen = seen(context);
    let offset = super::raft::Peers::of(context.core).offset;
    reply.array(1);
    reply.map(2);
    reply.bulk(b"slots");
    reply.array(2);
    reply.integer(0);
    reply.integer(LAST_SLOT as i64);
    reply.bulk(b"nodes");
    reply.array(seen.len());
    for node in &seen {
        let ip = node.address.ip().to_string();
        let role = if node.leads { "master" } else { "replica" };
        reply.map(7);
        reply.bulk(b"id");
        reply.bulk(node.id.as_bytes());
        reply.bulk(b"port");
        reply.integer(i64::from(node.address.port()));
        for (name, value) in [("ip", ip.as_str()), ("endpoint", ip.as_str()), ("role", role)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"replication-offset");
        reply.integer(offset as i64);
        reply.bulk(b"health");
        reply.bulk(if node.is_reached { b"online" } else { b"fail" });
    }
    Ok(Answer::Now)
}

fn links(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let core = &context.core;
    let passed_ms = core.now_ms() - core.steady_ms();
    let links = core.shared.cluster.links();
    reply.array(links.len());
    for link in links {
        reply.map(6);
        reply.bulk(b"direction");
        reply.bulk(if link.dialled { b"to" } else { b"from" });
        reply.bulk(b"node");
        reply.bulk(format!("{:032x}{:08x}", core.shared.cluster_id, link.node.0).as_bytes());
        reply.bulk(b"create-time");
        reply.integer(passed_ms + link.since_ms);
        reply.bulk(b"events");
        reply.bulk(if link.is_up { b"rw" } else { b"" });
        reply.bulk(b"send-buffer-allocated");
        reply.integer(link.waiting_bytes as i64);
        reply.bulk(b"send-buffer-used");
        reply.integer(link.waiting_bytes as i64);
    }
    Ok(Answer::Now)
}

fn replicas(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let asked = call.arguments.at(2);
    let seen = seen(context);
    let Some(node) = seen.iter().find(|node| asked.eq_ignore_ascii_case(node.id.as_bytes())) else {
        let asked = String::from_utf8_lossy(asked);
        return Err(Refusal::Text(format!("ERR Unknown node {asked}").into()));
    };
    if !node.leads && seen.len() > 1 {
        return Err(Refusal::text("ERR The specified node is not a master"));
    }
    let lines = lines(&seen, |node| !node.leads);
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.bulk(line.trim_end().as_bytes()));
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

/// Every slot is where CLUSTER SLOTS says: there is nothing to be let through.
fn asking(
    _: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.ok();
    Ok(Answer::Now)
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
