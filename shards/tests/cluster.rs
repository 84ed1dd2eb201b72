//! Groups of several members in one thread over a network that loses messages.

mod common;

use common::{Cluster, Node};
use ringraft_shards::ids::NodeId;
use ringraft_shards::raft::{MembershipChange, ProposeError, ReadError, Role};

#[test]
fn three_nodes_elect_replicate_and_elect_again() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, seed);
        let first = cluster.elect();
        for n in 0..30u8 {
            cluster.propose(&[n + 1; 50]);
        }
        cluster.converge();
        assert_eq!(cluster.node(first).applied().len(), 30);
        let follower = cluster.nodes.keys().copied().find(|id| *id != first).expect("two more");
        assert_eq!(
            cluster.node(follower).group().propose("x".as_bytes()),
            Err(ProposeError::NotLeader { leader: Some(NodeId(first)) })
        );
        cluster.crash(first, true);
        cluster.run_until("another leader", |c| c.leader().is_some());
        let second = cluster.leader().expect("just waited for");
        assert_ne!(first, second);
        cluster.propose(b"after");
        cluster.start(first);
        cluster.converge();
        assert_eq!(cluster.node(first).applied().len(), 31, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut cluster = Cluster::new(3, seed);
        cluster.loss = 10;
        let mut terms = Vec::new();
        for _ in 0..100 {
            cluster.tick();
            cluster.settle();
            terms.push(cluster.leader().map(|id| (id, cluster.node(id).group().term())));
        }
        terms
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn a_leader_cut_off_steps_down_and_its_writes_are_replaced() {
    let mut cluster = Cluster::new(3, 3);
    let old = cluster.elect();
    cluster.propose(b"shared");
    let others: Vec<u64> = cluster.nodes.keys().copied().filter(|id| *id != old).collect();
    cluster.cut = others.iter().flat_map(|&id| [(old, id), (id, old)]).collect();
    let lost = cluster.node(old).group().propose("lost".as_bytes()).expect("it believes to lead");
    let lost_too = cluster.node(old).group().propose("too".as_bytes()).expect("it believes so");
    cluster.node(old).group().read_index(77).expect("it believes so");
    cluster.run_until("a new leader", |c| others.iter().any(|id| c.node(*id).is_leader()));
    cluster.propose(b"kept");
    cluster.run_until("the old one steps down", |c| !c.node(old).is_leader());
    assert_eq!(
        cluster.node(old).reads_failed,
        [77],
        "a read is never confirmed by one that is cut off"
    );
    assert!(cluster.node(old).reads_ready.is_empty());
    assert!(cluster.node(old).lost.is_empty(), "nothing is known yet");
    cluster.cut.clear();
    cluster.converge();
    cluster.propose(b"more");
    cluster.propose(b"and more");
    cluster.converge();
    assert_eq!(cluster.node(old).applied(), [b"shared".as_slice(), b"kept", b"more", b"and more"]);
    assert_eq!(cluster.node(old).lost, [lost, lost_too]);
}

#[test]
fn a_node_far_behind_is_fed_from_the_disk_or_by_a_snapshot() {
    for (writes, snapshot_every) in [(60, 0), (400, 20)] {
        let mut cluster = Cluster::new(3, 9);
        let leader = cluster.elect();
        for node in cluster.nodes.values_mut() {
            node.snapshot_every = snapshot_every;
        }
        let behind = cluster.nodes.keys().copied().find(|id| *id != leader).expect("two more");
        cluster.crash(behind, false);
        for n in 0..writes {
            cluster.propose(&[n as u8; 400]);
            if n % 10 == 0 {
                cluster.tick();
            }
        }
        let status = cluster.node(leader).group().status();
        let compacted = status.first_index.0 > 10;
        assert_eq!(compacted, snapshot_every > 0, "{status:?}");
        assert!(status.cache_bytes < 10 << 10, "older entries are on the disk only: {status:?}");
        cluster.start(behind);
        cluster.converge();
        assert_eq!(cluster.node(behind).applied().len(), writes as usize);
        assert_eq!(cluster.node(behind).snapshot.is_some(), snapshot_every > 0);
        // And it keeps what it got.
        cluster.crash(behind, true);
        cluster.start(behind);
        cluster.propose(b"more");
        cluster.converge();
    }
}

#[test]
fn a_node_joins_as_learner_is_promoted_and_replaces_another() {
    let mut cluster = Cluster::new(3, 21);
    let leader = cluster.elect();
    for n in 0..50u8 {
        cluster.propose(&[n + 1; 300]);
    }
    let mut newcomer = Node::new(4, &[]);
    newcomer.snapshot_every = 0;
    cluster.nodes.insert(4, newcomer);
    cluster.start(4);
    let change = [MembershipChange::AddLearner(NodeId(4))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    assert_eq!(
        cluster.node(leader).group().propose_membership(&change),
        Err(ProposeError::MembershipPending)
    );
    cluster.poll(leader);
    cluster.run_until("the learner has all", |c| {
        let all = c.node(leader).group().last_index();
        let peers = c.node(leader).group().peers();
        peers.iter().any(|peer| peer.node == NodeId(4) && !peer.voter && peer.matched == all)
    });
    assert!(cluster.node(4).snapshot.is_some(), "the first entries do not name the founders");
    let gone = cluster.nodes.keys().copied().find(|id| *id != leader && *id != 4).expect("some");
    let change = [MembershipChange::AddVoter(NodeId(4)), MembershipChange::Remove(NodeId(gone))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    cluster.run_until("the joint change is over", |c| {
        c.nodes.values_mut().filter(|node| node.id != gone).all(|node| {
            let members = node.group().membership();
            !members.is_joint() && members.voters.contains(&NodeId(4)) && members.voters.len() == 3
        })
    });
    cluster.crash(gone, false);
    cluster.nodes.remove(&gone);
    // Every one of them knows its members after a restart.
    let ids: Vec<u64> = cluster.nodes.keys().copied().collect();
    let members = cluster.node(4).group().membership().clone();
    for id in ids {
        cluster.crash(id, true);
        cluster.start(id);
        cluster.converge();
        assert_eq!(*cluster.node(id).group().membership(), members);
    }
    cluster.propose(b"more");
    cluster.converge();
    assert_eq!(cluster.node(4).applied().len(), 51);
}

/// Found by the simulator (seed 0 of its first day): the snapshot that the leader had did not name
/// the newcomer, who refused it, was offered it again, and so on for ever.
#[test]
fn a_node_that_joins_after_the_last_snapshot_gets_a_newer_one() {
    let mut cluster = Cluster::new(3, 22);
    let leader = cluster.elect();
    for n in 0..5u8 {
        cluster.propose(&[n + 1; 300]);
    }
    cluster.node(leader).take_snapshot();
    cluster.nodes.insert(4, Node::new(4, &[]));
    cluster.start(4);
    let change = [MembershipChange::AddLearner(NodeId(4))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    cluster.run_until("the learner has all", |c| {
        let all = c.node(leader).group().last_index();
        c.node(4).group().applied_index() == all
    });
}

#[test]
fn a_leader_that_is_removed_steps_down_and_the_rest_goes_on() {
    let mut cluster = Cluster::new(3, 4);
    let leader = cluster.elect();
    let change = [MembershipChange::Remove(NodeId(leader))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    cluster.run_until("another leader", |c| c.leader().is_some_and(|id| id != leader));
    assert_eq!(cluster.node(leader).group().role(), Role::Follower);
    cluster.propose(b"without it");
}

#[test]
fn leadership_is_handed_over() {
    let mut cluster = Cluster::new(3, 5);
    let leader = cluster.elect();
    cluster.propose(b"a");
    cluster.converge();
    let next = cluster.nodes.keys().copied().find(|id| *id != leader).expect("two more");
    cluster.node(leader).group().transfer_leader(NodeId(next)).expect("it leads");
    assert_eq!(
        cluster.node(leader).group().propose("x".as_bytes()),
        Err(ProposeError::Transferring)
    );
    cluster.poll(leader);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(next), "without waiting for a timeout");
    cluster.propose(b"b");
    cluster.converge();
}

#[test]
fn reads_are_confirmed_by_a_majority() {
    let mut cluster = Cluster::new(3, 6);
    let leader = cluster.elect();
    cluster.propose(b"a");
    cluster.converge();
    let follower = cluster.nodes.keys().copied().find(|id| *id != leader).expect("two more");
    assert_eq!(
        cluster.node(follower).group().read_index(1),
        Err(ReadError::NotLeader { leader: Some(NodeId(leader)) })
    );
    cluster.node(leader).group().read_index(1).expect("it leads");
    cluster.node(leader).group().read_index(2).expect("it leads");
    cluster.poll(leader);
    assert!(cluster.node(leader).reads_ready.is_empty(), "not without the others");
    cluster.settle();
    let commit = cluster.node(leader).group().commit_index().0;
    assert_eq!(cluster.node(leader).reads_ready, [(1, commit), (2, commit)]);
    // Lost messages are made up for by the next heartbeat.
    cluster.node(leader).group().read_index(3).expect("it leads");
    cluster.poll(leader);
    cluster.links.clear();
    cluster.run_until("the read", |c| c.node(leader).reads_ready.len() == 3);
}

#[test]
fn a_follower_with_a_full_disk_refuses_entries_and_catches_up_later() {
    let mut cluster = Cluster::new(3, 8);
    let leader = cluster.elect();
    let full = cluster.nodes.keys().copied().find(|id| *id != leader).expect("two more");
    let capacity = 2 * cluster.node(full).options.segment_bytes;
    cluster.node(full).disk.set_capacity(Some(capacity));
    for n in 0..200u8 {
        cluster.propose(&[n; 300]);
    }
    assert!(cluster.node(full).applied().len() < 200);
    assert!(cluster.node(full).failures.is_empty());
    cluster.node(full).disk.set_capacity(None);
    cluster.converge();
    assert_eq!(cluster.node(full).applied().len(), 200);
}

#[test]
fn a_node_that_lost_what_it_acknowledged_says_so_and_stops() {
    let mut cluster = Cluster::new(3, 12);
    let leader = cluster.elect();
    let victim = cluster.nodes.keys().copied().find(|id| *id != leader).expect("two more");
    for n in 0..10u8 {
        cluster.propose(&[n; 100]);
    }
    cluster.converge();
    let old = cluster.node(victim).disk.copy();
    for n in 0..10u8 {
        cluster.propose(&[n; 100]);
    }
    cluster.converge();
    cluster.crash(victim, false);
    // Somebody brings an old copy of the directory back.
    cluster.node(victim).disk = old;
    cluster.node(victim).start(1).expect("the old log is good as such");
    for _ in 0..10 {
        for id in [leader, victim] {
            cluster.node(id).tick();
            cluster.node(id).settle();
        }
        let messages: Vec<_> = cluster.node(leader).outbox.drain(..).collect();
        for message in messages.into_iter().filter(|message| message.to().0 == victim) {
            let _ = cluster.node(victim).group().step(message);
        }
        cluster.node(victim).poll();
    }
    let failure = &cluster.node(victim).failures[0];
    assert!(failure.contains("this node has lost entries that it had acknowledged"), "{failure}");
}

#[test]
fn nothing_applied_is_ever_lost_or_different() {
    let (mut applied, mut changed, mut installed, mut lost) = (0, 0, 0, 0);
    for seed in 0..150 {
        let mut cluster = Cluster::new(if seed % 5 == 0 { 5 } else { 3 }, seed);
        cluster.loss = [0, 30, 8][seed as usize % 3];
        for node in cluster.nodes.values_mut() {
            node.snapshot_every = [0, 15, 40][seed as usize / 3 % 3];
        }
        let faults = [10, 40, 100][seed as usize / 9 % 3];
        for _ in 0..12_000 {
            cluster.step(faults);
        }
        cluster.heal();
        applied += cluster.history.len();
        for node in cluster.nodes.values_mut() {
            changed += usize::from(!node.group().membership().learners.is_empty());
            installed += node.installs;
            lost += node.lost.len();
        }
    }
    // The chance is fixed: these say that the events meant to be tested do happen.
    assert!(
        applied > 5000 && changed > 100 && installed > 20 && lost > 3,
        "{applied} {changed} {installed} {lost}"
    );
}
