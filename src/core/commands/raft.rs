//! The Raft groups as kvnode's and RedRaft's users know them: RAFTLEADER, RAFTSTATE, RAFTSTATS,
//! RAFTPEERS.
//!
//! A node has one group per shard. Without an argument these commands speak of shard 0; RAFTSTATE,
//! RAFTSTATS and RAFTPEERS take the number of another one.

use super::{Answer, Arity, Call, Group, Row, session};
use crate::core::client::answers::Origin;
use crate::core::{Core, SessionContext};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use ringraft_shards::ids::{DirectoryId, NodeId, ShardId};
use ringraft_shards::meta::NodeFacts;
use ringraft_shards::raft::{PeerProgress, Role, Status};
use std::net::SocketAddr;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
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
    session("raftaddpeer", Arity::Exactly(2), raftaddpeer).admin().no_multi().about(
        Group::Raft,
        "7.4.0",
        "Says how the node at an address joins.",
    ),
    session("raftremovepeer", Arity::AtLeast(2), raftremovepeer)
        .admin()
        .no_multi()
        .for_leader()
        .about(Group::Raft, "7.4.0", "Sees a node off, by its address or its number."),
    session("rafttransfer", Arity::Exactly(2), rafttransfer).admin().no_multi().for_leader().about(
        Group::Raft,
        "7.4.0",
        "Lets another node lead, by its address or its number.",
    ),
    session("raftjoin", Arity::AtLeast(6), raftjoin)
        .admin()
        .no_multi()
        .no_auth()
        .for_leader()
        .about(Group::Raft, "7.4.0", "Takes a node in: what a start with --join sends."),
];

/// What a group tells, if its shard lives on the core that was asked.
#[derive(Clone)]
struct Facts {
    status: Status,
    waiting_count: usize,
    peer_count: usize,
    peers: Vec<PeerProgress>,
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
                peer_count: shard.group.peers().len().saturating_sub(1),
                peers: shard.group.peers(),
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
pub(super) fn own_address(core: &Core) -> String {
    if let Some(peer) = core.shared.peer.as_ref().filter(|peer| !peer.identity.address.is_empty()) {
        return peer.identity.address.clone();
    }
    let settings = &core.settings;
    let address = settings.addresses().chain(settings.tls_addresses()).next();
    address.map_or_else(String::new, |address| address.to_string())
}

/// Where a member of a group is reached.
fn address_of(core: &Core, member: NodeId) -> Option<String> {
    let node = member.node();
    match node == core.shared.cluster.own() {
        true => Some(own_address(core)),
        false => core.shared.cluster.address(node),
    }
}

/// A node by its number or its address.
pub(super) fn node_named(core: &Core, name: &[u8]) -> Result<NodeId, Refusal> {
    let nodes = core.shared.cluster.nodes();
    let named = nodes
        .iter()
        .find(|(id, address)| name == address.as_bytes() || name == id.0.to_string().as_bytes());
    named.map(|(id, ..)| *id).ok_or(Refusal::text("ERR peer is unknown"))
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
    ask(context, call, |core, facts, reply| {
        // A node that stands by has no group to ask.
        let leads_all = || core.shared.cluster.address(core.shared.cluster.route()?);
        let leader = facts.status.leader.and_then(|leader| address_of(core, leader));
        match leader.or_else(leads_all) {
            Some(address) => reply.bulk(address.as_bytes()),
            None => reply.null(),
        }
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
        let own = core.shared.cluster.own();
        let links = core.shared.cluster.links();
        let mut rows: Vec<(String, &str)> = Vec::new();
        for peer in &facts.peers {
            let node = peer.node.node();
            let is_up = links.iter().any(|link| link.node == node && link.is_up);
            let state = match facts.status.leader {
                _ if node == own => state_word(facts.status.role),
                Some(leader) if leader == peer.node => "Leader",
                _ if !is_up => "Timeout",
                _ => "Follower",
            };
            let address = address_of(core, peer.node).unwrap_or_else(|| node.to_string());
            rows.push((address, state));
        }
        if rows.is_empty() {
            rows.push((own_address(core), state_word(facts.status.role)));
        }
        rows.sort();
        reply.array(2 * rows.len());
        for (address, state) in rows {
            reply.bulk(address.as_bytes());
            reply.bulk(state.as_bytes());
        }
    })
}

/// RAFTADDPEER address. A node joins by itself: it needs to be told of the cluster, not the cluster
/// of it.
fn raftaddpeer(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if node_named(context.core, call.at(1)).is_ok() {
        return Err(Refusal::text("ERR peer already known"));
    }
    Err(Refusal::Text(
        format!(
            "ERR a node joins by itself: start it there with an empty directory and --join {}",
            own_address(context.core)
        )
        .into(),
    ))
}

/// RAFTREMOVEPEER address | number [FORCE]. OK when it is decided; the node goes when others have
/// what it had.
pub(super) fn raftremovepeer(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    // MEMBER REMOVE has one word more before it.
    let at = if call.command.parent.is_empty() { 1 } else { 2 };
    let node = node_named(context.core, call.at(at))?;
    let forced = match call.arguments.get(at + 1) {
        None | Some(b"") => false,
        Some(word) if word.eq_ignore_ascii_case(b"force") => true,
        Some(_) => return Err(Refusal::Syntax),
    };
    context.at_links(move |core, origin| core.let_leave(origin, node, forced))
}

/// RAFTTRANSFER address | number. OK when it is begun.
fn rafttransfer(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let node = node_named(context.core, call.at(1))?;
    context.at_links(move |core, origin| core.let_lead(origin, node))
}

/// RAFTJOIN directory address cores level proof. Answers with the node's number and what else it
/// must know.
fn raftjoin(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let core = &context.core;
    let Some(peer) = &core.shared.peer else {
        return Err(Refusal::text(
            "ERR this server runs in cache mode: it has no directory, and nobody can join it",
        ));
    };
    let words = [call.at(1), call.at(2), call.at(3), call.at(4)];
    if !peer.secret.is_sealed(&words.concat(), &from_hex(call.at(5))) {
        return Err(Refusal::text("ERR the cluster has another --cluster-secret"));
    }
    match (core.settings.tls.cluster, call.count() > 6) {
        (true, false) => {
            return Err(Refusal::text(
                "ERR the nodes of this cluster speak TLS with each other: start this one with tls-cluster yes",
            ));
        }
        (false, true) => {
            return Err(Refusal::text(
                "ERR the nodes of this cluster do not speak TLS with each other: start this one with tls-cluster no",
            ));
        }
        _ => {}
    }
    let text = |at: usize| std::str::from_utf8(call.at(at)).map_err(|_| Refusal::Syntax);
    let directory = u128::from_str_radix(text(1)?, 16).map_err(|_| Refusal::Syntax)?;
    let address: SocketAddr = text(2)?.parse().map_err(|_| Refusal::Syntax)?;
    if !peer.secret.is_some() && !address.ip().is_loopback() {
        return Err(Refusal::text(
            "ERR a node of another machine joins with a secret only: start all nodes with the same --cluster-secret FILE",
        ));
    }
    let own = own_address(core);
    let is_loopback = own.parse::<SocketAddr>().is_ok_and(|own| own.ip().is_loopback());
    if is_loopback && !address.ip().is_loopback() {
        return Err(Refusal::Text(
            format!(
                "ERR this node is at {own}, where no other machine reaches it: give it --advertise"
            )
            .into(),
        ));
    }
    let facts = NodeFacts {
        address: address.to_string(),
        zone: String::new(),
        cores: call.integer(3)?.clamp(1, 1024) as u16,
        level: call.integer(4)?.clamp(0, i64::from(u32::MAX)) as u32,
    };
    let hasher = core.router.hasher();
    let told = format!(
        "{:032x} {} {} {:016x}",
        core.shared.cluster_id,
        core.router.shard_count(),
        hasher.scheme().name(),
        hasher.seed()
    );
    let directory = DirectoryId(directory);
    let protocol = context.session().protocol;
    let origin = Origin::asks(context.core.id, context.target, protocol);
    let core = context.core.shared.cluster.link_core();
    context.core.tell_core(core, move |core| core.take_in(origin, directory, facts, told));
    Ok(Answer::Later)
}

fn from_hex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = text.chunks_exact(2);
    pairs.filter_map(|pair| Some((digit(&pair[0])? * 16 + digit(&pair[1])?) as u8)).collect()
}

/// Host and port of an address.
pub(super) fn split_address(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port))
}

/// This node among others, in the words of master and replicas.
pub(super) struct Peers {
    /// Does it lead, or is it alone?
    pub leads: bool,
    /// Where the node is that does.
    pub leader: Option<String>,
    /// Entries applied here, of all shards; 0 while there are no others.
    pub offset: u64,
    /// Nodes that are connected, each with what it has of that as far as this node knows.
    pub followers: Vec<(String, u64)>,
}

impl Peers {
    /// As this core knows it.
    pub fn of(core: &Core) -> Peers {
        let cluster = &core.shared.cluster;
        if !cluster.is_clustered() {
            return Peers { leads: true, leader: None, offset: 0, followers: Vec::new() };
        }
        let (own, route) = (cluster.own(), cluster.route());
        let groups = cluster.groups();
        let offset = groups.iter().map(|group| group.applied.0).sum();
        // A node that has no replica of a shard lacks nothing of it.
        let matched = |node: NodeId| {
            let of_groups = groups.iter().map(|group| {
                let peer = group.peers.iter().find(|peer| peer.node.node() == node);
                peer.map_or(group.applied.0, |peer| peer.matched.0)
            });
            of_groups.sum()
        };
        let mut nodes: Vec<NodeId> =
            cluster.links().iter().filter(|link| link.is_up).map(|link| link.node).collect();
        nodes.sort();
        nodes.dedup();
        let followers = nodes.into_iter().filter_map(|node| {
            let address = cluster.address(node)?;
            Some((address, matched(node)))
        });
        Peers {
            leads: route == Some(own),
            leader: route.and_then(|node| cluster.address(node)),
            offset,
            followers: followers.collect(),
        }
    }
}
