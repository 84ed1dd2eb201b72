//! MEMBER: the nodes of the cluster as raft-kv's kvsctl knows them.

use super::help::help;
use super::raft::{node_named, raftremovepeer};
use super::{Answer, Arity, Call, Group, Row, container, plain, session};
use crate::core::SessionContext;
use crate::core::cluster::{ClusterView, GroupFacts, META};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use ringraft_shards::ids::{NodeId, ShardId};
use ringraft_shards::raft::PeerProgress;

/// Rows of this file.
pub const COMMANDS: &[Row] =
    &[container("member", MEMBER).about(Group::Raft, "7.4.0", "The nodes of the cluster.")];

const MEMBER: &[Row] = &[
    session("add", Arity::AtLeast(3), add).of("member").admin().no_multi().about(
        Group::Raft,
        "7.4.0",
        "Says how a node joins.",
    ),
    plain("help", Arity::Exactly(2), help).of("member").about(
        Group::Raft,
        "7.4.0",
        "Lists the subcommands.",
    ),
    session("list", Arity::AtLeast(2), list).of("member").about(
        Group::Raft,
        "7.4.0",
        "A line for each node: id, address, suffrage, whether it leads.",
    ),
    session("remove", Arity::AtLeast(3), raftremovepeer)
        .of("member")
        .admin()
        .no_multi()
        .for_leader()
        .about(Group::Raft, "7.4.0", "Sees a node off, by its address or its number."),
];

/// MEMBER ADD id address.
fn add(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let named = call.arguments.iter_from(2).any(|word| node_named(context.core, word).is_ok());
    if named {
        return Err(Refusal::text("ERR peer already known"));
    }
    Err(Refusal::Text(
        format!(
            "ERR a node joins by itself: start it with an empty directory and --join {}",
            super::raft::own_address(context.core)
        )
        .into(),
    ))
}

/// MEMBER LIST, one line of text for all nodes as kvsctl prints it.
fn list(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let cluster = &context.core.shared.cluster;
    let leader = cluster.route();
    let mut lines = Vec::new();
    for (node, address) in cluster.nodes() {
        let votes = votes_everywhere(cluster, node);
        lines.push(line(node, &address, votes, leader == Some(node)));
    }
    if lines.is_empty() {
        let own = super::raft::own_address(context.core);
        lines.push(line(cluster.own(), &own, true, leader == Some(cluster.own())));
    }
    reply.verbatim(&lines.join("\n"));
    Ok(Answer::Now)
}

/// Has a node a vote in the meta group and in that of each shard that it shall have, as far as this
/// node knows? One that comes has none before all is as if it had always been there: while the
/// members change those of before are needed as well, and as long as it has not heard that they
/// have changed it would ask them.
fn votes_everywhere(cluster: &ClusterView, node: NodeId) -> bool {
    let Some(state) = cluster.state() else { return false };
    // One that was lost may still be a voter, until the node's next one takes its place.
    let votes = |shard: ShardId| {
        let member = state.lasting_member(shard, node);
        cluster.group(shard).is_some_and(|GroupFacts { members, peers, .. }| {
            let is_lasting = !members.is_joint() || members.voters_outgoing.contains(&member);
            let is_told = |peer: &PeerProgress| peer.node != member || peer.knows_members;
            members.voters.contains(&member) && is_lasting && peers.iter().all(is_told)
        })
    };
    let mut shards = state.shards.iter().filter(|(_, shard)| shard.replica_of(node).is_some());
    // Who stands by has no replica, and does not know.
    let is_known =
        |shard: ShardId| cluster.group(shard).is_some_and(|group| !group.members.voters.is_empty());
    votes(META) && shards.all(|(shard, _)| votes(*shard) || !is_known(*shard))
}

fn line(node: NodeId, address: &str, votes: bool, leads: bool) -> String {
    format!("id={node} address={address} suffrage={} isLeader={leads}", u8::from(!votes))
}
