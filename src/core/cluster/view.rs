//! What all cores of this process know of the cluster.

use ringraft_shards::ids::{Index, NodeId, ShardId, Term};
use ringraft_shards::meta::{MetaState, NodeState};
use ringraft_shards::raft::PeerProgress;
use ringraft_shards::snapshot::Membership;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// The feature level from which on nodes stamp requests, and know what entries and snapshots say of
/// stamps.
const STAMPS_LEVEL: u32 = 2;

/// Facts about a group, for people and for the planner; not older than a tick.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// Its term.
    pub term: Term,
    /// Who leads it, if known.
    pub leader: Option<NodeId>,
    /// What is applied here.
    pub applied: Index,
    /// Is that everything from before the leader was elected?
    pub is_current: bool,
    /// Is this node's replica one of its members, as far as it knows?
    pub is_member: bool,
    /// Its members.
    pub members: Membership,
    /// How far they are, as far as this node knows.
    pub peers: Vec<PeerProgress>,
}

/// The view. Numbers that a request looks at are atomic; the rest is looked at by commands for
/// people and at ticks.
pub struct ClusterView {
    own: u64,
    /// Are there other nodes, or were there?
    is_clustered: AtomicBool,
    /// The node that leads all shards; 0 when none is known.
    route: AtomicU64,
    /// In which term of the meta group it has said so.
    route_term: AtomicU64,
    /// Do all nodes know stamps of requests?
    stamps: AtomicBool,
    /// Must requests go elsewhere, or wait? Follows from the two above.
    is_elsewhere: AtomicBool,
    /// The core that has the links.
    link_core: AtomicU16,
    /// For each shard: does this node serve it?
    serving: Vec<AtomicBool>,
    /// When this node began to hand leadership over, milliseconds since the process started and
    /// one; 0 while it does not.
    hands_over: AtomicU64,
    /// For each shard: has this node a replica of it?
    replicas: Vec<AtomicBool>,
    /// For each shard: what is applied here.
    applied: Vec<AtomicU64>,
    /// Who leads the meta group; 0 when unknown.
    meta_leader: AtomicU64,
    /// Members of the cluster, as this node knows them.
    state: RwLock<Option<Arc<MetaState>>>,
    groups: Vec<Mutex<Option<GroupFacts>>>,
    links: Mutex<Vec<super::LinkFacts>>,
    /// How fast snapshots go.
    pub(super) pace: super::pace::Pace,
    /// Who is fit to lead.
    pub fitness: Arc<super::fitness::Fitness>,
}

impl ClusterView {
    /// Of a node that knows of no other.
    pub fn new(own: NodeId, shard_count: usize, is_clustered: bool) -> ClusterView {
        ClusterView {
            own: own.0,
            is_clustered: AtomicBool::new(is_clustered),
            route: AtomicU64::new(if is_clustered { 0 } else { own.0 }),
            route_term: AtomicU64::new(0),
            stamps: AtomicBool::new(false),
            is_elsewhere: AtomicBool::new(is_clustered),
            link_core: AtomicU16::new(0),
            serving: (0..shard_count).map(|_| AtomicBool::new(false)).collect(),
            hands_over: AtomicU64::new(0),
            replicas: (0..shard_count).map(|_| AtomicBool::new(false)).collect(),
            applied: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
            meta_leader: AtomicU64::new(0),
            state: RwLock::new(None),
            // One more for the meta group.
            groups: (0..=shard_count).map(|_| Mutex::new(None)).collect(),
            links: Mutex::new(Vec::new()),
            pace: super::pace::Pace::default(),
            fitness: Arc::default(),
        }
    }

    /// This node.
    pub fn own(&self) -> NodeId {
        NodeId(self.own)
    }

    /// Are there other nodes, or were there?
    #[inline]
    pub fn is_clustered(&self) -> bool {
        self.is_clustered.load(Ordering::Relaxed)
    }

    /// From now on there are.
    pub fn begin(&self) {
        self.is_clustered.store(true, Ordering::Relaxed);
    }

    /// The node that leads all shards.
    pub fn route(&self) -> Option<NodeId> {
        Some(NodeId(self.route.load(Ordering::Relaxed))).filter(|node| node.0 != 0)
    }

    /// In which term of the meta group it has said so.
    pub fn route_term(&self) -> u64 {
        self.route_term.load(Ordering::Relaxed)
    }

    /// Says in which term.
    pub fn set_route_term(&self, term: u64) {
        self.route_term.store(term, Ordering::Relaxed);
    }

    /// Do all nodes know stamps of requests?
    pub fn stamps(&self) -> bool {
        self.stamps.load(Ordering::Relaxed)
    }

    /// Must requests go elsewhere, or wait until somebody leads? Cost: one load.
    #[inline(always)]
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere.load(Ordering::Relaxed)
    }

    /// Says who leads all shards. True when that is news.
    pub fn set_route(&self, node: Option<NodeId>) -> bool {
        let node = node.map_or(0, |node| node.0);
        let is_news = self.route.swap(node, Ordering::Relaxed) != node;
        self.is_elsewhere.store(self.is_clustered() && node != self.own, Ordering::Relaxed);
        is_news
    }

    /// The core that has the links.
    pub fn link_core(&self) -> u16 {
        self.link_core.load(Ordering::Relaxed)
    }

    /// Chooses it, before anybody connects.
    pub fn set_link_core(&self, core: u16) {
        self.link_core.store(core, Ordering::Relaxed);
    }

    /// This node serves a shard, or does no more. True when that is news.
    pub fn note_serving(&self, shard: ShardId, serves: bool) -> bool {
        let Some(known) = self.serving.get(usize::from(shard.0)) else { return false };
        known.load(Ordering::Relaxed) != serves && known.swap(serves, Ordering::AcqRel) != serves
    }

    /// Since when does this node hand leadership over, milliseconds since the process started?
    pub fn hands_over_since_ms(&self) -> Option<i64> {
        let since = self.hands_over.load(Ordering::Relaxed);
        Some(since.checked_sub(1)?.cast_signed())
    }

    /// It begins to, or does no more.
    pub fn note_hand_over(&self, since_ms: Option<i64>) {
        let since = since_ms.map_or(0, |since_ms| since_ms.unsigned_abs() + 1);
        self.hands_over.store(since, Ordering::Relaxed);
    }

    /// Has this node a replica of a shard?
    pub fn has_replica(&self, shard: ShardId) -> bool {
        self.replicas.get(usize::from(shard.0)).is_some_and(|has| has.load(Ordering::Relaxed))
    }

    /// What of a shard is applied here, at least.
    pub fn applied(&self, shard: ShardId) -> u64 {
        self.applied.get(usize::from(shard.0)).map_or(0, |index| index.load(Ordering::Acquire))
    }

    /// So much is applied, before anybody is answered who has changed it.
    pub fn note_applied(&self, shard: ShardId, index: Index) {
        if let Some(applied) = self.applied.get(usize::from(shard.0)) {
            applied.store(index.0, Ordering::Release);
        }
    }

    /// Does this node serve all shards?
    pub fn serves_all(&self) -> bool {
        self.serving.iter().all(|serves| serves.load(Ordering::Acquire))
    }

    /// Who leads the meta group.
    pub fn meta_leader(&self) -> Option<NodeId> {
        Some(NodeId(self.meta_leader.load(Ordering::Relaxed))).filter(|node| node.0 != 0)
    }

    /// Says who leads the meta group.
    pub fn set_meta_leader(&self, node: Option<NodeId>) {
        self.meta_leader.store(node.map_or(0, |node| node.0), Ordering::Relaxed);
    }

    /// The members, if this node knows them.
    pub fn state(&self) -> Option<Arc<MetaState>> {
        self.state.read().expect("nobody panics with it").clone()
    }

    /// The members have changed.
    pub fn set_state(&self, state: MetaState) {
        self.stamps.store(state.level >= STAMPS_LEVEL, Ordering::Relaxed);
        *self.state.write().expect("nobody panics with it") = Some(Arc::new(state));
    }

    /// Where a node is reached.
    pub fn address(&self, node: NodeId) -> Option<String> {
        let state = self.state()?;
        let node = state.nodes.get(&node)?;
        Some(node.facts.address.clone())
    }

    /// Nodes that are not removed, this one included, and where they are reached.
    pub fn nodes(&self) -> Vec<(NodeId, String)> {
        let Some(state) = self.state() else { return Vec::new() };
        let nodes = state.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        nodes.map(|(id, node)| (*id, node.facts.address.clone())).collect()
    }

    /// Facts about the group of a shard, or of the meta group.
    pub fn group(&self, shard: ShardId) -> Option<GroupFacts> {
        self.groups[self.place(shard)].lock().expect("nobody panics with it").clone()
    }

    /// New facts about it.
    pub fn note_group(&self, shard: ShardId, facts: GroupFacts) {
        if let Some(replica) = self.replicas.get(usize::from(shard.0)) {
            let members = &facts.members;
            let has = members.voters.iter().chain(&members.learners);
            let has = has.chain(&members.voters_outgoing).any(|member| member.node() == self.own());
            replica.store(has, Ordering::Relaxed);
        }
        *self.groups[self.place(shard)].lock().expect("nobody panics with it") = Some(facts);
    }

    /// Facts about all groups of shards, as far as there are some.
    pub fn groups(&self) -> Vec<GroupFacts> {
        let of_shards = &self.groups[..self.groups.len() - 1];
        of_shards.iter().filter_map(|group| group.lock().expect("nobody panics").clone()).collect()
    }

    fn place(&self, shard: ShardId) -> usize {
        usize::from(shard.0).min(self.groups.len() - 1)
    }

    /// Facts about the links.
    pub fn links(&self) -> Vec<super::LinkFacts> {
        self.links.lock().expect("nobody panics with it").clone()
    }

    /// New facts about the links.
    pub fn note_links(&self, links: Vec<super::LinkFacts>) {
        *self.links.lock().expect("nobody panics with it") = links;
    }
}
