//! What section by section of `docs/replication.md` promises: who disturbs whom, what is bounded,
//! what a proposal learns.

mod common;

use common::{Cluster, Node};
use raft::eraftpb::MessageType;
use ringraft_shards::ids::{MonotonicTime, NodeId};
use ringraft_shards::raft::{MembershipChange, PeerMessage, ProposeError, Role};
use std::collections::VecDeque;

/// A cluster with a leader, and the ids of the others.
fn cluster(count: u64, seed: u64) -> (Cluster, u64, Vec<u64>) {
    let mut cluster = Cluster::new(count, seed);
    let leader = cluster.elect();
    cluster.propose(b"first");
    cluster.converge();
    let others = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    (cluster, leader, others)
}

fn entry_bytes(message: &PeerMessage) -> u64 {
    message.0.entries.iter().map(|entry| entry.data.len() as u64).sum()
}

/// Appends on a link, and the bytes of entries in them.
fn appends(cluster: &Cluster, link: (u64, u64)) -> (usize, u64) {
    let queue = cluster.links.get(&link);
    let with_entries = queue.into_iter().flatten().filter(|message| entry_bytes(message) > 0);
    with_entries.fold((0, 0), |(count, bytes), message| (count + 1, bytes + entry_bytes(message)))
}

fn cut_off(cluster: &mut Cluster, id: u64) {
    let ids: Vec<u64> = cluster.nodes.keys().copied().collect();
    cluster.cut = ids.iter().flat_map(|&other| [(id, other), (other, id)]).collect();
}

/// Starts another node, which learns until it has everything.
fn add_learner(cluster: &mut Cluster, leader: u64, id: u64) {
    cluster.nodes.insert(id, Node::new(id, &[]));
    cluster.start(id);
    let change = [MembershipChange::AddLearner(NodeId(id))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    cluster.converge();
}

#[test]
fn a_node_that_was_cut_off_comes_back_without_an_election() {
    let (mut cluster, leader, others) = cluster(3, 1);
    let term = cluster.node(leader).group().term();
    cut_off(&mut cluster, others[0]);
    for _ in 0..100 {
        cluster.tick();
        cluster.settle();
    }
    assert_eq!(cluster.node(others[0]).group().role(), Role::Candidate, "it would like to lead");
    assert_eq!(cluster.node(others[0]).group().term(), term, "but only asks first");
    cluster.cut.clear();
    cluster.propose(b"more");
    cluster.converge();
    assert_eq!((cluster.leader(), cluster.node(leader).group().term()), (Some(leader), term));
}

#[test]
fn a_leader_without_a_majority_steps_down_in_two_election_timeouts() {
    let (mut cluster, leader, _) = cluster(5, 2);
    cut_off(&mut cluster, leader);
    let patience = 2 * cluster.node(leader).config.election_ticks;
    for _ in 0..patience {
        cluster.node(leader).tick();
        cluster.poll(leader);
    }
    assert_eq!(cluster.node(leader).group().role(), Role::Follower);
    let refused = cluster.node(leader).group().propose("x".as_bytes());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
}

#[test]
fn a_node_that_was_removed_and_does_not_know_disturbs_nobody() {
    let (mut cluster, leader, others) = cluster(3, 3);
    let gone = others[0];
    cut_off(&mut cluster, gone);
    let change = [MembershipChange::Remove(NodeId(gone))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    cluster.settle();
    let term = cluster.node(leader).group().term();
    cluster.cut.clear();
    for _ in 0..100 {
        cluster.tick();
        cluster.settle();
        assert_eq!((cluster.leader(), cluster.node(leader).group().term()), (Some(leader), term));
    }
    cluster.propose(b"without it");
    cluster.run_until("it is applied", |c| c.node(others[1]).applied().len() == 2);
}

#[test]
fn who_was_removed_is_not_needed_after_all_others_lost_power() {
    let (mut cluster, leader, others) = cluster(3, 5);
    let gone = others[0];
    let change = [MembershipChange::Remove(NodeId(gone))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    let stay = [leader, others[1]];
    cluster.run_until("both know", |c| {
        stay.iter().all(|id| {
            let group = c.node(*id).group();
            !group.membership().contains(NodeId(gone)) && group.is_membership_durable()
        })
    });
    for id in [leader, others[1], gone] {
        cluster.crash(id, true);
    }
    cluster.links.clear();
    for id in stay {
        cluster.start(id);
        cluster.node(id).settle();
        let members = cluster.node(id).group().membership();
        assert!(!members.contains(NodeId(gone)), "node {id} has forgotten: {members:?}");
    }
    cluster.cut = stay.iter().flat_map(|&id| [(id, gone), (gone, id)]).collect();
    cluster.run_until("one of them leads", |c| c.leader().is_some_and(|id| id != gone));
}

#[test]
fn what_is_proposed_in_one_turn_goes_in_one_message_to_each() {
    let (mut cluster, leader, others) = cluster(3, 4);
    for n in 0..20u8 {
        cluster.node(leader).group().propose(vec![n; 50]).expect("it leads");
    }
    cluster.poll(leader);
    for other in others {
        assert_eq!(appends(&cluster, (leader, other)), (1, 20 * 50));
    }
    let writes = cluster.node(leader).writes.len();
    assert_eq!(writes, 1, "and in one write");
}

#[test]
fn a_follower_that_does_not_answer_gets_a_bounded_number_of_messages() {
    let (mut cluster, leader, others) = cluster(3, 5);
    let (silent, good) = (others[0], others[1]);
    let config = cluster.node(leader).config.clone();
    for n in 0..200u8 {
        cluster.node(leader).group().propose(vec![n; 300]).expect("the other one answers");
        cluster.node(leader).settle();
        cluster.collect(leader);
        while cluster.links.get(&(leader, good)).is_some_and(|queue| !queue.is_empty()) {
            cluster.deliver((leader, good));
            cluster.node(good).settle();
            cluster.collect(good);
            cluster.deliver((good, leader));
            cluster.node(leader).settle();
            cluster.collect(leader);
        }
        let (count, bytes) = appends(&cluster, (leader, silent));
        assert!(count <= config.messages_in_flight_max, "{count} messages");
        assert!(bytes <= count as u64 * (config.message_bytes_max + 300), "{bytes} bytes");
    }
    assert_eq!(cluster.node(leader).applied().len(), 201, "nobody waited");
    let held = cluster.node(leader).group().status().cache_bytes;
    assert!(held <= config.entry_cache_bytes + 1024, "the rest is on the disk: {held}");
    cluster.converge();
    assert_eq!(cluster.node(silent).applied().len(), 201);
}

#[test]
fn without_a_majority_proposals_are_refused_at_a_bound() {
    let (mut cluster, leader, _) = cluster(3, 6);
    cut_off(&mut cluster, leader);
    let bound = cluster.node(leader).config.uncommitted_bytes_max;
    let mut taken = 0;
    let refused = loop {
        match cluster.node(leader).group().propose(vec![1; 1000]) {
            Ok(_) => taken += 1000,
            Err(refused) => break refused,
        }
        assert!(taken <= bound + 1000);
    };
    assert_eq!(refused, ProposeError::Busy);
    assert!(taken + 1000 >= bound, "{taken}");
    cluster.node(leader).settle();
    cluster.cut.clear();
    cluster.converge();
    cluster.node(leader).group().propose(vec![1; 1000]).expect("there is room again");
}

#[test]
fn a_follower_far_behind_is_fed_while_writes_go_on_as_before() {
    let (mut cluster, leader, others) = cluster(3, 7);
    let behind = others[0];
    cluster.crash(behind, false);
    for n in 0..250u8 {
        cluster.propose(&[n; 400]);
    }
    cluster.start(behind);
    let config = cluster.node(leader).config.clone();
    let mut rounds = 0;
    while cluster.node(behind).applied().len() + 5 < 251 + rounds {
        rounds += 1;
        cluster.tick();
        let last = cluster.node(leader).propose(b"more").expect("it leads").index;
        cluster.collect(leader);
        // One message each way between the two who are up to date commits it.
        for link in [(leader, others[1]), (others[1], leader)] {
            while cluster.links.get(&link).is_some_and(|queue| !queue.is_empty()) {
                cluster.deliver(link);
            }
            cluster.node(link.1).settle();
            cluster.collect(link.1);
        }
        assert!(cluster.node(leader).group().commit_index() >= last, "round {rounds}");
        let (count, bytes) = appends(&cluster, (leader, behind));
        assert!(count <= config.messages_in_flight_max);
        assert!(bytes <= count as u64 * (config.message_bytes_max + 400));
        for link in [(leader, behind), (behind, leader)] {
            for _ in 0..4 {
                cluster.deliver(link);
                cluster.node(behind).settle();
                cluster.collect(behind);
            }
        }
        assert!(rounds < 500, "it catches up");
    }
    cluster.converge();
}

/// A cluster whose first follower was away for 250 entries and has answered its leader again, which
/// waits for its disk to send them: leader, and who was away.
fn behind(seed: u64) -> (Cluster, u64, u64) {
    let (mut cluster, leader, others) = cluster(3, seed);
    cluster.crash(others[0], false);
    for n in 0..250u8 {
        cluster.propose(&[n; 400]);
    }
    cluster.start(others[0]);
    // A heartbeat, its answer, and what the answer has the leader probe with: refused with a hint.
    while cluster.node(leader).log_reads.is_empty() {
        for link in [(leader, others[0]), (others[0], leader)] {
            cluster.deliver(link);
            cluster.node(others[0]).settle();
            cluster.collect(others[0]);
        }
        if cluster.links.values().all(VecDeque::is_empty) {
            cluster.node(leader).tick();
            cluster.poll(leader);
        }
    }
    (cluster, leader, others[0])
}

#[test]
fn a_leader_does_not_wait_for_what_it_reads_back() {
    let (mut cluster, leader, away) = behind(31);
    assert_eq!(appends(&cluster, (leader, away)), (0, 0), "nothing is there yet");
    // More that is to be sent does not have the same read again.
    let last = cluster.node(leader).group().propose("more".as_bytes()).expect("it leads").index;
    let reads = cluster.node(leader).log_reads.len();
    cluster.poll(leader);
    assert_eq!(cluster.node(leader).log_reads.len(), reads);
    cluster.node(leader).finish_log_reads();
    cluster.poll(leader);
    assert!(appends(&cluster, (leader, away)).1 > 0, "what was read goes");
    cluster.converge();
    assert!(cluster.node(away).group().applied_index() >= last);
    assert_eq!(cluster.node(away).installs, 0);
}

#[test]
fn what_is_read_back_may_be_given_up_meanwhile() {
    let (mut cluster, leader, away) = behind(32);
    let reads = std::mem::take(&mut cluster.node(leader).log_reads);
    // Who is away has not answered for long, and the log is not kept for it.
    cut_off(&mut cluster, away);
    for n in 0..60u8 {
        cluster.propose(&[n; 400]);
        cluster.tick();
        cluster.settle();
    }
    assert!(cluster.node(leader).log_reads.is_empty(), "it reads no more while the first is out");
    cluster.node(leader).take_snapshot();
    for n in 0..200u8 {
        cluster.propose(&[n; 400]);
    }
    assert!(cluster.node(leader).group().status().first_index.0 > 250, "its segments are others'");
    for read in reads {
        let result = read.run(&cluster.node(leader).disk);
        cluster.node(leader).group().log_read_done(read.id, result);
    }
    assert_eq!(cluster.node(leader).failures, Vec::<String>::new());
    cluster.cut.clear();
    cluster.converge();
    assert_eq!(cluster.node(away).installs, 1, "a snapshot takes its place");
}

#[test]
fn what_a_deposed_leader_reads_back_is_nobodys() {
    let (mut cluster, leader, away) = behind(33);
    let reads = std::mem::take(&mut cluster.node(leader).log_reads);
    cut_off(&mut cluster, leader);
    cluster.run_until("another leader", |c| c.leader().is_some_and(|other| other != leader));
    for _ in 0..20 {
        cluster.tick();
    }
    assert!(!cluster.node(leader).is_leader());
    for read in reads {
        let result = read.run(&cluster.node(leader).disk);
        cluster.node(leader).group().log_read_done(read.id, result);
    }
    cluster.poll(leader);
    cluster.cut.clear();
    cluster.converge();
    assert_eq!(cluster.node(leader).failures, Vec::<String>::new());
    assert_eq!(cluster.node(away).applied().len(), cluster.node(leader).applied().len());
}

#[test]
fn the_log_waits_for_a_slow_follower_up_to_a_bound() {
    let (mut cluster, leader, others) = cluster(3, 8);
    let slow = others[0];
    cluster.node(leader).snapshot_every = 10;
    // It answers heartbeats; entries never reach it.
    cluster.starved = Some(slow);
    let bound = cluster.node(leader).config.retained_bytes_max;
    let mut kept_for_it = 0;
    for n in 0..400u16 {
        cluster.propose(&[n as u8; 400]);
        if n.is_multiple_of(2) {
            cluster.tick();
        }
        let status = cluster.node(leader).group().status();
        let matched = cluster.node(leader).group().peers();
        let matched = matched.iter().find(|peer| peer.node == NodeId(slow)).expect("a member");
        assert!(matched.active, "it is slow, not gone");
        if status.first_index.0 <= matched.matched.0 + 1 {
            kept_for_it = status.log_bytes;
        }
        let most = bound + 3 * cluster.node(leader).options.segment_bytes;
        assert!(status.log_bytes <= most, "{} of {most}", status.log_bytes);
    }
    assert!(kept_for_it > bound / 2, "{kept_for_it} were kept for it");
    cluster.starved = None;
    cluster.converge();
    assert_eq!(cluster.node(slow).installs, 1, "what it needed was gone in the end");
    // One that is gone is not waited for.
    cluster.crash(slow, false);
    for n in 0..100u16 {
        cluster.propose(&[n as u8; 400]);
        cluster.tick();
        cluster.settle();
    }
    let status = cluster.node(leader).group().status();
    assert!(status.log_bytes < bound / 2, "{status:?}");
}

#[test]
fn a_deposed_leader_tells_what_is_lost_and_what_it_cannot_know() {
    let (mut cluster, old, others) = cluster(3, 9);
    cut_off(&mut cluster, old);
    let proposed: Vec<_> = (0..40u8)
        .map(|n| cluster.node(old).group().propose(vec![n]).expect("it believes to lead"))
        .collect();
    cluster.node(old).settle();
    cluster.run_until("a new leader", |c| others.iter().any(|id| c.node(*id).is_leader()));
    let new = cluster.leader().expect("just elected");
    for _ in 0..20 {
        cluster.propose(b"instead");
    }
    cluster.run_until("the old one steps down", |c| !c.node(old).is_leader());
    assert!(cluster.node(old).lost.is_empty() && cluster.node(old).unknown.is_empty());
    // What it would need is compacted away: it gets a snapshot, then entries.
    cluster.node(new).take_snapshot();
    let point = cluster.node(new).snapshot.as_ref().expect("just taken").0.index;
    cluster.node(new).config.retained_bytes_max = 0;
    for _ in 0..60 {
        cluster.propose(&[7; 500]);
    }
    cluster.node(new).group().compact(point);
    cluster.cut.clear();
    cluster.converge();
    let first_sent = cluster.node(old).snapshot.as_ref().map(|(point, _)| point.index);
    let (lost, unknown) = (cluster.node(old).lost.clone(), cluster.node(old).unknown.clone());
    match first_sent {
        Some(point) => {
            assert!(unknown.iter().all(|proposal| proposal.index <= point));
            assert!(lost.iter().all(|proposal| proposal.index > point));
            assert!(!unknown.is_empty() && !lost.is_empty(), "{unknown:?} {lost:?}");
        }
        None => assert!(unknown.is_empty(), "everything came as entries"),
    }
    assert_eq!(lost.len() + unknown.len(), proposed.len(), "each has its answer, once");
}

#[test]
fn reads_of_a_turn_cost_one_round() {
    let (mut cluster, leader, others) = cluster(3, 10);
    cluster.node(leader).group().read_index(7).expect("it leads");
    cluster.poll(leader);
    for &other in &others {
        assert_eq!(cluster.links[&(leader, other)].len(), 1, "one message for all reads");
    }
    // One answer makes a majority.
    cluster.deliver((leader, others[0]));
    cluster.node(others[0]).settle();
    cluster.collect(others[0]);
    cluster.deliver((others[0], leader));
    let commit = cluster.node(leader).group().commit_index().0;
    assert_eq!(cluster.node(leader).reads_ready, [(7, commit)]);
}

#[test]
fn a_slow_disk_of_the_leader_holds_nobody_up_but_itself() {
    let (mut cluster, leader, others) = cluster(3, 11);
    let data = b"written by the others".to_vec();
    let proposal = cluster.node(leader).group().propose(data.clone()).expect("it leads");
    cluster.poll(leader);
    assert_eq!(cluster.node(leader).writes.len(), 1);
    for _ in 0..3 {
        for &other in &others {
            for link in [(leader, other), (other, leader)] {
                while cluster.links.get(&link).is_some_and(|queue| !queue.is_empty()) {
                    cluster.deliver(link);
                    if link.1 != leader {
                        cluster.node(link.1).settle();
                        cluster.collect(link.1);
                    }
                }
            }
        }
        // The commit index goes out with a heartbeat.
        cluster.node(leader).tick();
        cluster.poll(leader);
    }
    assert_eq!(cluster.node(leader).group().commit_index(), proposal.index, "two have it");
    assert_eq!(cluster.node(leader).applied().len(), 1, "it is not applied before it is here");
    assert_eq!(cluster.node(others[0]).applied().last(), Some(&data.as_slice()));
    cluster.node(leader).settle();
    assert_eq!(cluster.node(leader).applied().last(), Some(&data.as_slice()));
}

#[test]
fn a_snapshot_on_its_way_holds_nobody_up_and_may_fail() {
    let (mut cluster, leader, others) = cluster(3, 12);
    let (behind, good) = (others[0], others[1]);
    cluster.node(leader).snapshot_every = 20;
    cluster.crash(behind, false);
    for n in 0..150u8 {
        cluster.propose(&[n; 400]);
        cluster.tick();
        cluster.settle();
    }
    cluster.start(behind);
    // The offer comes, and the transfer takes its time.
    let offered = |cluster: &Cluster| {
        let queue = cluster.links.get(&(leader, behind));
        queue.into_iter().flatten().any(|message| message.snapshot().is_some())
    };
    let round = |cluster: &mut Cluster| {
        cluster.tick();
        for id in [leader, good, behind] {
            cluster.node(id).settle();
            cluster.collect(id);
        }
        for link in [(leader, good), (good, leader), (leader, behind), (behind, leader)] {
            while let Some(next) = cluster.links.get(&link).and_then(|queue| queue.front()) {
                if next.snapshot().is_some() {
                    break;
                }
                cluster.deliver(link);
                cluster.node(link.1).settle();
                cluster.collect(link.1);
            }
        }
    };
    let mut rounds = 0;
    while !offered(&cluster) {
        round(&mut cluster);
        rounds += 1;
        assert!(rounds < 50, "the offer comes");
    }
    for _ in 0..20 {
        let last = cluster.node(leader).propose(b"meanwhile").expect("it leads").index;
        round(&mut cluster);
        assert!(cluster.node(leader).group().commit_index() >= last);
        let peers = cluster.node(leader).group().peers();
        let peer = peers.iter().find(|peer| peer.node == NodeId(behind)).expect("a member");
        assert!(peer.in_snapshot);
    }
    // It fails; the next one arrives.
    cluster.links.remove(&(leader, behind));
    cluster.node(leader).group().snapshot_sent(NodeId(behind), false);
    cluster.converge();
    assert_eq!(cluster.node(behind).installs, 1);
}

/// Kinds of the messages on a link.
fn kinds(cluster: &Cluster, link: (u64, u64)) -> Vec<MessageType> {
    let queue = cluster.links.get(&link);
    queue.into_iter().flatten().map(|message| message.0.msg_type).collect()
}

#[test]
fn what_a_follower_says_waits_for_its_disk() {
    use MessageType::*;
    let (mut cluster, leader, others) = cluster(3, 13);
    let (voter, candidate) = (others[0], others[1]);
    cluster.node(leader).group().propose("x".as_bytes()).expect("it leads");
    cluster.poll(leader);
    cluster.deliver((leader, voter));
    assert_eq!((cluster.node(voter).writes.len(), kinds(&cluster, (voter, leader))), (1, vec![]));
    cluster.node(voter).settle();
    cluster.collect(voter);
    assert_eq!(kinds(&cluster, (voter, leader)), [MsgAppendResponse]);
    cluster.converge();
    // A vote, and a candidate's own for itself. Nobody hears of the leader any more.
    cut_off(&mut cluster, leader);
    for _ in 0..cluster.node(voter).config.election_ticks {
        cluster.node(voter).tick();
        cluster.node(candidate).tick();
    }
    cluster.links.clear();
    cluster.node(voter).settle();
    cluster.node(voter).outbox.clear();
    cluster.node(candidate).group().campaign();
    cluster.poll(candidate);
    cluster.deliver((candidate, voter));
    assert_eq!(kinds(&cluster, (voter, candidate)), [MsgRequestPreVoteResponse], "binds nobody");
    cluster.deliver((voter, candidate));
    assert_eq!(kinds(&cluster, (candidate, voter)), [], "its term is not on the disk");
    cluster.node(candidate).settle();
    cluster.collect(candidate);
    assert_eq!(kinds(&cluster, (candidate, voter)), [MsgRequestVote]);
    cluster.deliver((candidate, voter));
    assert_eq!(kinds(&cluster, (voter, candidate)), [], "its vote is not on the disk");
    cluster.node(voter).settle();
    cluster.collect(voter);
    assert_eq!(kinds(&cluster, (voter, candidate)), [MsgRequestVoteResponse]);
    cluster.deliver((voter, candidate));
    assert!(cluster.node(candidate).is_leader());
}

#[test]
fn a_leader_sends_entries_before_they_are_on_its_disk_but_not_before_its_term_is() {
    // A sole voter leads in the step that raises its term; its learner must not hear of a term that
    // may be forgotten.
    let mut node = Node::new(1, &[1]);
    node.config.learners = vec![NodeId(2)];
    node.start(14).expect("an empty directory");
    for _ in 0..2 {
        node.finish_file_action();
        node.poll();
    }
    assert!(node.is_leader() && !node.writes.is_empty());
    assert!(node.outbox.is_empty(), "{:?}", node.outbox);
    node.settle();
    assert!(!node.outbox.is_empty());
    // Of a later entry nothing need be durable here.
    let (mut cluster, leader, others) = cluster(3, 14);
    cluster.node(leader).group().propose("x".as_bytes()).expect("it leads");
    cluster.poll(leader);
    assert_eq!(cluster.node(leader).writes.len(), 1, "under way");
    assert_eq!(kinds(&cluster, (leader, others[0])), [MessageType::MsgAppend]);
}

#[test]
fn who_hears_nothing_but_is_heard_neither_leads_nor_disturbs() {
    let (mut deaf, leader, others) = cluster(3, 15);
    let term = deaf.node(leader).group().term();
    deaf.cut = vec![(leader, others[0])];
    for _ in 0..100 {
        deaf.tick();
        deaf.settle();
        assert_eq!((deaf.leader(), deaf.node(leader).group().term()), (Some(leader), term));
    }
    assert_eq!(deaf.node(others[0]).group().role(), Role::Candidate);
    deaf.cut.clear();
    deaf.propose(b"it hears again");
    deaf.converge();
    // A leader who is heard keeps the others from electing; it finds out that it hears nobody.
    deaf.cut = others.iter().map(|&other| (other, leader)).collect();
    let proposal = deaf.node(leader).group().propose("x".as_bytes()).expect("it leads");
    deaf.run_until("another leader", |c| others.iter().any(|id| c.node(*id).is_leader()));
    assert!(!deaf.node(leader).is_leader(), "it stepped down before");
    deaf.cut.clear();
    deaf.converge();
    let lost = deaf.node(leader).lost.contains(&proposal);
    let kept = deaf.node(leader).applied().last() == Some(&b"x".as_slice());
    assert!(lost != kept, "what it proposed arrived: it is kept, or its place is taken");
}

#[test]
fn a_learner_counts_for_nothing() {
    let (mut cluster, leader, others) = cluster(3, 16);
    cluster.nodes.insert(4, Node::new(4, &[]));
    cluster.start(4);
    let change = [MembershipChange::AddLearner(NodeId(4))];
    cluster.node(leader).group().propose_membership(&change).expect("it leads");
    cluster.poll(leader);
    cluster.run_until("the learner has all", |c| {
        let last = c.node(leader).group().last_index();
        c.node(4).group().applied_index() == last
    });
    for &other in &others {
        cluster.crash(other, false);
    }
    let commit = cluster.node(leader).group().commit_index();
    let last = cluster.node(leader).group().propose("x".as_bytes()).expect("it leads").index;
    cluster.poll(leader);
    cluster.settle();
    let peers = cluster.node(leader).group().peers();
    let learner = peers.iter().find(|peer| peer.node == NodeId(4)).expect("a member");
    assert_eq!((learner.matched, learner.voter), (last, false));
    assert_eq!(cluster.node(leader).group().commit_index(), commit, "one of three voters has it");
    cluster.node(leader).group().read_index(1).expect("it still believes to lead");
    cluster.settle();
    assert!(cluster.node(leader).reads_ready.is_empty(), "nor does it confirm a read");
    cluster.crash(leader, false);
    for _ in 0..100 {
        cluster.tick();
        cluster.settle();
        assert_eq!(cluster.node(4).group().role(), Role::Follower, "it never stands");
    }
}

/// Two of three voters are replaced at once, up to where the leader has entered the joint change.
/// Nothing that it sent since has arrived.
fn in_the_middle_of_a_joint_change(seed: u64) -> (Cluster, u64, Vec<u64>) {
    let (mut cluster, leader, others) = cluster(3, seed);
    [4, 5].into_iter().for_each(|id| add_learner(&mut cluster, leader, id));
    let changes = [
        MembershipChange::AddVoter(NodeId(4)),
        MembershipChange::AddVoter(NodeId(5)),
        MembershipChange::Remove(NodeId(others[0])),
        MembershipChange::Remove(NodeId(others[1])),
    ];
    cluster.node(leader).group().propose_membership(&changes).expect("it leads");
    cluster.node(leader).settle();
    cluster.collect(leader);
    let mut rounds = 0;
    while !cluster.node(leader).group().membership().is_joint() {
        rounds += 1;
        assert!(rounds < 10, "the old members have the change");
        for link in [(leader, others[0]), (others[0], leader)] {
            cluster.deliver(link);
            cluster.node(link.1).settle();
            cluster.collect(link.1);
        }
    }
    cluster.links.clear();
    (cluster, leader, others)
}

#[test]
fn a_vote_goes_to_another_and_who_had_it_listens() {
    let (mut cluster, leader, others) = cluster(3, 18);
    cluster.nodes.insert(4, Node::new(4, &[]));
    cluster.start(4);
    let (gives, keeps) = (others[0], others[1]);
    let changes = [
        vec![MembershipChange::AddLearner(NodeId(4))],
        vec![MembershipChange::AddVoter(NodeId(4)), MembershipChange::AddLearner(NodeId(gives))],
    ];
    for changes in changes {
        cluster.node(leader).group().propose_membership(&changes).expect("it leads");
        cluster.poll(leader);
        cluster.converge();
    }
    let mut voters = [leader, keeps, 4].map(NodeId);
    voters.sort_unstable();
    for id in [leader, keeps, gives, 4] {
        let members = cluster.node(id).group().membership();
        assert_eq!(
            (&members.voters[..], &members.learners[..]),
            (&voters[..], &[NodeId(gives)][..])
        );
        assert!(!members.is_joint() && cluster.node(id).group().is_membership_durable());
    }
    cluster.propose(b"heard by all");
    cluster.run_until("who listens has it", |c| c.node(gives).applied().len() == 2);
    cluster.crash(leader, true);
    cluster.run_until("one with a vote leads", |c| c.leader().is_some_and(|id| id != gives));
}

#[test]
fn a_joint_change_needs_both_majorities() {
    let (mut cluster, leader, others) = in_the_middle_of_a_joint_change(17);
    // The new members are a majority of the new ones alone; the end of the change needs the old
    // ones too.
    cluster.cut = others.iter().flat_map(|&id| [(leader, id), (id, leader)]).collect();
    let joined = cluster.node(leader).group().commit_index();
    for _ in 0..4 {
        cluster.tick();
        cluster.settle();
    }
    let peers = cluster.node(leader).group().peers();
    let matched = |id| peers.iter().find(|peer| peer.node == NodeId(id)).map(|peer| peer.matched);
    assert!(matched(4) > Some(joined) && matched(5) > Some(joined), "{peers:?}");
    assert_eq!(cluster.node(leader).group().commit_index(), joined);
    assert!(cluster.node(leader).group().membership().is_joint());
    cluster.cut.clear();
    cluster.run_until("the change is over", |c| {
        c.leader().is_some_and(|id| !c.node(id).group().membership().is_joint())
    });
}

#[test]
fn whoever_leads_next_ends_a_joint_change() {
    let (mut cluster, leader, _) = in_the_middle_of_a_joint_change(19);
    cluster.crash(leader, true);
    let mut expected = vec![NodeId(leader), NodeId(4), NodeId(5)];
    expected.sort_unstable();
    cluster.run_until("the change is over", |c| {
        [4, 5].iter().all(|id| {
            let members = c.node(*id).group().membership();
            !members.is_joint() && members.voters == expected
        })
    });
    cluster.run_until("a new member leads", |c| matches!(c.leader(), Some(4 | 5)));
    cluster.propose(b"by the new members");
}

/// A founder that two others join, up to where it knows that both have votes. What it has sent
/// since is on its way.
fn just_joined(seed: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::new(1, seed);
    let leader = cluster.elect();
    [2, 3].into_iter().for_each(|id| add_learner(&mut cluster, leader, id));
    let changes = [2, 3].map(|id| MembershipChange::AddVoter(NodeId(id)));
    cluster.node(leader).group().propose_membership(&changes).expect("it leads");
    let mut rounds = 0;
    loop {
        cluster.node(leader).settle();
        cluster.collect(leader);
        let members = cluster.node(leader).group().membership();
        if members.votes(NodeId(3)) && !members.is_joint() {
            return (cluster, leader);
        }
        rounds += 1;
        assert!(rounds < 20, "both answer");
        for id in [2, 3] {
            cluster.deliver((leader, id));
            cluster.node(id).settle();
            cluster.collect(id);
            cluster.deliver((id, leader));
        }
    }
}

#[test]
fn a_new_voter_counts_once_it_knows_that_it_is_one() {
    let knowing = |cluster: &mut Cluster, leader| {
        let peers = cluster.node(leader).group().peers();
        let knowing = peers.iter().filter(|peer| peer.knows_members);
        knowing.map(|peer| peer.node.0).collect::<Vec<_>>()
    };
    let (mut cluster, leader) = just_joined(23);
    assert_eq!(knowing(&mut cluster, leader), [leader]);
    // By what the others know, one of the two majorities is the founder.
    cluster.links.clear();
    cluster.crash(leader, false);
    for _ in 0..200 {
        cluster.tick();
        cluster.settle();
    }
    assert_eq!(cluster.leader(), None);
    cluster.start(leader);
    cluster.elect();

    let (mut cluster, leader) = just_joined(24);
    cluster.run_until("all know", |cluster| knowing(cluster, leader).len() == 3);
    cluster.crash(leader, false);
    cluster.run_until("one of them leads", |cluster| cluster.leader().is_some());
}

#[test]
fn a_follower_without_room_says_that_what_comes_behind_does_not_follow() {
    let (mut cluster, leader, others) = cluster(3, 25);
    let full = others[0];
    let capacity = 2 * cluster.node(full).options.segment_bytes;
    cluster.node(full).disk.set_capacity(Some(capacity));
    let mut has_dropped = false;
    for _ in 0..1000 {
        cluster.node(leader).group().propose(vec![1; 200]).expect("it leads");
        cluster.node(leader).settle();
        cluster.collect(leader);
        for &id in &others {
            while cluster.links.get(&(leader, id)).is_some_and(|queue| !queue.is_empty()) {
                cluster.deliver((leader, id));
            }
            cluster.node(id).settle();
            cluster.collect(id);
        }
        let answers = cluster.links.get(&(full, leader)).into_iter().flatten();
        let refusals: Vec<bool> = answers.map(|message| message.0.reject).collect();
        if has_dropped {
            assert_eq!(refusals, [true], "the leader must hear that it counts on too much");
            cluster.node(full).disk.set_capacity(None);
            return cluster.converge();
        }
        has_dropped = refusals.is_empty();
        for &id in &others {
            while cluster.links.get(&(id, leader)).is_some_and(|queue| !queue.is_empty()) {
                cluster.deliver((id, leader));
            }
        }
    }
    panic!("two segments hold all of that");
}

#[test]
fn a_leader_whose_disk_fails_says_nothing_more_and_is_replaced() {
    let (mut cluster, leader, others) = cluster(3, 18);
    cluster.node(leader).group().propose("x".as_bytes()).expect("it leads");
    cluster.node(leader).poll();
    let (ticket, ..) = cluster.node(leader).writes.remove(0);
    cluster.node(leader).group().write_failed(ticket, "input/output error");
    cluster.node(leader).outbox.clear();
    for _ in 0..5 {
        cluster.node(leader).tick();
        cluster.node(leader).poll();
    }
    assert!(cluster.node(leader).outbox.is_empty(), "not even a heartbeat");
    let refused = cluster.node(leader).group().propose("y".as_bytes());
    assert!(matches!(refused, Err(ProposeError::Failed(_))), "{refused:?}");
    assert!(!cluster.node(leader).group().lease_valid(MonotonicTime(0)));
    // The driver ends the process; the disk is good again when it starts.
    cluster.node(leader).failures.clear();
    cluster.crash(leader, true);
    cluster.run_until("another leader", |c| others.iter().any(|id| c.node(*id).is_leader()));
    cluster.propose(b"without it");
    cluster.start(leader);
    cluster.converge();
}
