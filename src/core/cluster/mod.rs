//! This node among others: links, members, copies of shards, and clients whose leader is elsewhere.
//!
//! | part | where |
//! |---|---|
//! | what all cores know of the cluster: who leads, who is there | `view.rs` |
//! | connections to other nodes, and what goes over them | `links.rs`, their sockets `links/sockets.rs`, `wire.rs` |
//! | who is fit to lead: disks, clocks | `fitness.rs` |
//! | joining, leaving, members of groups, who shall lead | `members.rs`, `meta.rs` |
//! | replicas that have lost their logs | `renew.rs` |
//! | snapshots to and from other nodes | `transfer.rs`, `pace.rs`, `install.rs` |
//! | clients of a node that does not lead | `relay.rs`, what waits for somebody to lead `relay/held.rs`, what they keep copies of `news.rs`; at the node that does, `relayed.rs`; replies, `scan.rs` |
//! | requests of own clients that this node leads no more for | `again.rs` |
//! | what became of requests whose answers were lost | `recall.rs`; their stamps within this process, `lanes.rs` |
//! | reads that a node answers itself although another one leads | `follow.rs` |
//! | clients that are sent to the node that leads | `redirect.rs` |
//!
//! One core of a node has its links: the one that takes new connections (its home). What other
//! cores have for a node goes by their mail. All shards are led by one node, which serves every
//! command as if it were alone; the others pass their clients' requests on (`docs/decisions/0018`).

pub(in crate::core) mod again;
pub mod fitness;
pub(in crate::core) mod follow;
pub(in crate::core) mod install;
pub(in crate::core) mod lanes;
pub(in crate::core) mod links;
pub mod members;
pub mod meta;
mod news;
pub mod pace;
mod recall;
mod redirect;
pub(in crate::core) mod relay;
pub(in crate::core) mod relayed;
pub(in crate::core) mod renew;
mod scan;
pub(in crate::core) mod transfer;
pub mod view;
mod wire;

pub use links::LinkFacts;
pub use meta::META;
pub use view::{ClusterView, GroupFacts};

use ringraft_shards::ids::NodeId;
use ringraft_shards::peer::Item;
use std::collections::{BTreeSet, VecDeque};

/// A core's part in the cluster.
#[derive(Default)]
pub struct Cluster {
    /// Connections to other nodes: on one core, once there are others.
    pub(in crate::core) links: Option<Box<links::Links>>,
    /// What this core has for other nodes, while the links are on another one.
    outgoing: Vec<(NodeId, Item)>,
    /// Clients of other nodes that this node serves.
    relayed: relayed::Relayed,
    /// Those whose replies wait for room in a link to their node.
    crowded: BTreeSet<(NodeId, u32)>,
    /// What it remembers of members.
    pub(in crate::core) membership: members::Membership,
    /// What it remembers of lost replicas.
    renewals: renew::Renewals,
    /// Requests that wait for somebody to lead.
    waiting: VecDeque<relay::WaitingRequest>,
    /// What this core has asked of the node that leads.
    question: Option<recall::Question>,
    /// Its number.
    last_question: u64,
    /// What other nodes ask of this one, on the core that has the links.
    questions: recall::Questions,
    last_asked: u64,
    /// The number of the last request that may write and was sent to the node that leads.
    last_stamp: u64,
    /// Messages of this node to itself.
    loopback: VecDeque<wire::NodeMessage>,
    /// At which tick another node began to lead.
    route_changed_at: u64,
    /// Does this node's clock differ from those of the others?
    is_clock_off: bool,
    /// Ticks for which a fit node has been connected with more than this one.
    outdone_ticks: u64,
    /// Ticks so far.
    pub(in crate::core) ticks: u64,
}

impl Cluster {
    /// Are there messages of this node to itself?
    #[inline(always)]
    pub(in crate::core) fn has_told_itself(&self) -> bool {
        !self.loopback.is_empty()
    }
}
