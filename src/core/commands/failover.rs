//! FAILOVER and CLUSTER FAILOVER: another node leads from now on. Both are transfers of leadership
//! as RAFTTRANSFER is, in the words of Redis. Nothing is lost by one: what the old leader had not
//! proposed is sent to the new one.

use super::raft::node_named;
use super::{Answer, Arity, Call, Group, Row, session};
use crate::core::SessionContext;
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::ids::NodeId;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[session("failover", Arity::AtLeast(1), failover)
    .admin()
    .no_multi()
    .for_leader()
    .about(Group::Server, "6.2.0", "Lets another node lead.")];

/// The subcommand of CLUSTER.
pub(super) const CLUSTER_FAILOVER: Row = session("failover", Arity::AtLeast(2), cluster_failover)
    .of("cluster")
    .admin()
    .no_multi()
    .about(Group::Cluster, "3.0.0", "Has this node lead.");

/// What FAILOVER is asked for.
#[derive(Default)]
struct Wish {
    target: Option<Vec<u8>>,
    is_forced: bool,
    is_abort: bool,
    timeout_ms: Option<i64>,
}

fn read_wish(call: &Call<'_>) -> Result<Wish, Refusal> {
    let mut wish = Wish::default();
    let is = |at: usize, word: &[u8]| call.at(at).eq_ignore_ascii_case(word);
    let mut at = 1;
    while at < call.count() {
        let left = call.count() - at - 1;
        if is(at, b"timeout") && left >= 1 && wish.timeout_ms.is_none() {
            let timeout_ms = call.integer(at + 1)?;
            if timeout_ms <= 0 {
                return Err(Refusal::text("ERR FAILOVER timeout must be greater than 0"));
            }
            wish.timeout_ms = Some(timeout_ms);
            at += 2;
        } else if is(at, b"to") && left >= 2 && wish.target.is_none() {
            let port = call.integer(at + 2)?;
            let host = String::from_utf8_lossy(call.at(at + 1));
            let target = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{}:{port}", if host == "localhost" { "127.0.0.1" } else { &host })
            };
            wish.target = Some(target.into_bytes());
            at += 3;
        } else if is(at, b"force") && !wish.is_forced {
            wish.is_forced = true;
            at += 1;
        } else if is(at, b"abort") && call.count() == 2 {
            wish.is_abort = true;
            at += 1;
        } else {
            return Err(Refusal::Syntax);
        }
    }
    Ok(wish)
}

/// FAILOVER \[TO host port \[FORCE\]\] \[ABORT\] \[TIMEOUT milliseconds\]. OK when it is begun.
fn failover(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let wish = read_wish(call)?;
    let view = &context.core.shared.cluster;
    let is_under_way = view.hands_over_since_ms().is_some();
    if wish.is_abort {
        if !is_under_way {
            return Err(Refusal::text("ERR No failover in progress."));
        }
        return context.at_links(|core, origin| core.keep_leading(origin));
    }
    if is_under_way {
        return Err(Refusal::text("ERR FAILOVER already in progress."));
    }
    let own = view.own();
    if view.route() != Some(own) {
        return Err(Refusal::text("ERR FAILOVER is not valid when server is a replica."));
    }
    let heirs: Vec<NodeId> =
        view.links().iter().filter(|link| link.is_up).map(|link| link.node).collect();
    if heirs.is_empty() {
        return Err(Refusal::text("ERR FAILOVER requires connected replicas."));
    }
    if wish.is_forced && (wish.timeout_ms.is_none() || wish.target.is_none()) {
        return Err(Refusal::text(
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        ));
    }
    let heir = match &wish.target {
        None => None,
        Some(address) => {
            let node = node_named(context.core, address).ok().filter(|node| *node != own);
            let node =
                node.ok_or(Refusal::text("ERR FAILOVER target HOST and PORT is not a replica."))?;
            if !heirs.contains(&node) {
                return Err(Refusal::text("ERR FAILOVER target replica is not online."));
            }
            Some(node)
        }
    };
    let timeout_ms = wish.timeout_ms;
    context.at_links(move |core, origin| core.let_lead_within(origin, heir, timeout_ms))
}

/// CLUSTER FAILOVER \[FORCE | TAKEOVER\], at the node that shall lead. While another one leads, the
/// dispatcher has asked that one.
fn cluster_failover(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let is_forced = asks_for_force(call.arguments)?;
    let view = &context.core.shared.cluster;
    if view.route() == Some(view.own()) {
        return Err(Refusal::text("ERR You should send CLUSTER FAILOVER to a replica"));
    }
    if !is_forced {
        return Err(Refusal::text(
            "ERR Master is down or failed, please use CLUSTER FAILOVER FORCE",
        ));
    }
    // A majority decides all the same.
    context.core.everywhere(|core| {
        core.shards.iter_mut().for_each(|shard| shard.server.group.campaign());
    });
    reply.ok();
    Ok(Answer::Now)
}

/// Does CLUSTER FAILOVER do without the leader's consent?
/// Errors: there is another word.
pub fn asks_for_force(arguments: Arguments<'_>) -> Result<bool, Refusal> {
    let is_force =
        |word: &[u8]| word.eq_ignore_ascii_case(b"force") || word.eq_ignore_ascii_case(b"takeover");
    match arguments.get(2) {
        None => Ok(false),
        Some(word) if arguments.count() == 3 && is_force(word) => Ok(true),
        Some(_) => Err(Refusal::Syntax),
    }
}
