//! A group of one voter against a memory disk: the path of a write, restarts, a full disk, failing
//! writes.

mod common;

use std::sync::Arc;

use common::{Node, options};
use ringraft_shards::ids::{Index, NodeId, ShardId};
use ringraft_shards::log::recover;
use ringraft_shards::raft::{
    EntryKind, Group, GroupConfig, MembershipChange, Output, ProposeError, ReadError, Role,
};
use ringraft_shards::random::Random;

#[test]
fn in_memory_a_proposal_is_committed_in_the_poll_that_follows() {
    let config = GroupConfig::new(NodeId(1), ShardId(0), vec![NodeId(1)]);
    let mut group = Group::open(config, None, None, 7).expect("opens");
    let mut out = Output::default();
    group.poll(&mut out);
    assert!(out.role_changed && group.role() == Role::Leader);
    assert_eq!(out.committed.len(), 1);
    assert_eq!(out.committed[0].kind, EntryKind::Empty);
    group.applied(out.committed[0].index);
    for n in 0..100u8 {
        let proposal = group.propose(vec![n; 10]).expect("leads");
        out.clear();
        group.poll(&mut out);
        assert_eq!(out.committed.len(), 1);
        let entry = &out.committed[0];
        assert_eq!((entry.index, entry.term), (proposal.index, proposal.term));
        assert_eq!((entry.kind, &entry.data[..]), (EntryKind::Command, &[n; 10][..]));
        assert!(out.messages.is_empty() && out.writes.is_empty() && out.lost.is_empty());
        group.applied(entry.index);
        assert!(group.is_idle());
    }
    assert_eq!(group.status().cache_bytes, 0, "nobody needs applied entries");
    group.read_index(5).expect("leads");
    out.clear();
    group.poll(&mut out);
    assert_eq!((out.read_ready[0].context, out.read_ready[0].index), (5, group.commit_index()));
}

#[test]
fn in_memory_nothing_is_handed_out_twice_when_members_come_and_go() {
    let config = GroupConfig::new(NodeId(1), ShardId(0), vec![NodeId(1)]);
    let mut group = Group::open(config, None, None, 7).expect("opens");
    let mut out = Output::default();
    let mut handed_out = Vec::new();
    let mut poll = |group: &mut Group, apply: bool| {
        out.clear();
        group.poll(&mut out);
        handed_out.extend(out.committed.iter().map(|entry| (entry.index, entry.kind)));
        if apply && let Some((index, _)) = handed_out.last() {
            group.applied(*index);
        }
        (out.committed.len(), out.messages.len())
    };
    poll(&mut group, true);
    assert!(group.is_alone());
    // Two entries in a poll that is not told yet that the one before was applied.
    group.propose("a".as_bytes()).expect("leads");
    assert_eq!(poll(&mut group, false), (1, 0));
    group.propose("b".as_bytes()).expect("leads");
    group.propose("c".as_bytes()).expect("leads");
    poll(&mut group, true);
    poll(&mut group, true);
    // A change of members with a write before and after it, while the one before is not applied.
    group.propose("d".as_bytes()).expect("leads");
    assert_eq!(poll(&mut group, false), (1, 0));
    group.propose_membership(&[MembershipChange::AddLearner(NodeId(2))]).expect("the first");
    group.propose("e".as_bytes()).expect("leads");
    assert_eq!(poll(&mut group, true), (0, 0), "it waits for that");
    let (_, messages) = poll(&mut group, true);
    assert!(!group.is_alone());
    group.propose("f".as_bytes()).expect("leads");
    let (_, more) = poll(&mut group, true);
    assert!(messages + more > 0, "the learner is told");
    // Alone again.
    group.propose_membership(&[MembershipChange::Remove(NodeId(2))]).expect("the next");
    poll(&mut group, true);
    poll(&mut group, true);
    assert!(group.is_alone());
    group.propose("g".as_bytes()).expect("leads");
    assert_eq!(poll(&mut group, true), (1, 0));
    assert_eq!(poll(&mut group, true), (0, 0));
    let (indices, kinds): (Vec<_>, Vec<_>) = handed_out.iter().copied().unzip();
    assert_eq!(indices, (2..=11).map(Index).collect::<Vec<_>>(), "each once, in order");
    let commands = kinds.iter().filter(|kind| **kind == EntryKind::Command).count();
    assert_eq!(commands, 7);
    assert_eq!(group.status().cache_bytes, 0);
}

#[test]
fn with_a_log_a_proposal_is_committed_when_its_write_is_reported() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    assert!(node.writes.is_empty() && node.file_action.is_some(), "the first segment comes first");
    assert!(node.is_leader(), "nobody else can be");
    assert_eq!(node.group().read_index(1), Err(ReadError::NotReady), "nothing is committed yet");
    node.settle();
    assert!(node.group().is_ready_to_read());
    node.group().propose("a".as_bytes()).expect("leads");
    node.poll();
    assert_eq!(node.writes.len(), 1);
    node.group().propose("b".as_bytes()).expect("leads");
    node.poll();
    assert_eq!(node.writes.len(), 2, "writes overlap");
    assert!(node.applied().is_empty());
    // The second one ends first: nothing is known to be durable yet.
    node.finish_write(1);
    node.poll();
    assert!(node.applied().is_empty());
    node.finish_write(0);
    node.poll();
    assert_eq!(node.applied(), [b"a", b"b"]);
}

#[test]
fn what_comes_while_all_writes_are_in_flight_becomes_one_record() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    for n in 0..20u8 {
        node.group().propose(vec![n + 1]).expect("leads");
        node.poll();
    }
    assert_eq!(node.writes.len(), node.options.writes_in_flight_max);
    while !node.writes.is_empty() {
        node.finish_write(0);
    }
    node.poll();
    assert_eq!(node.writes.len(), 1, "sixteen entries in one");
    node.settle();
    assert_eq!(node.applied().len(), 20);
}

#[test]
fn everything_acknowledged_is_there_after_every_restart() {
    for seed in 0..40 {
        let mut chance = Random::new(seed);
        let mut node = Node::new(1, &[1]);
        node.snapshot_every = if seed % 2 == 0 { 30 } else { 0 };
        let mut proposed: Vec<Vec<u8>> = Vec::new();
        let mut acknowledged = 0;
        for _ in 0..12 {
            node.start(seed).expect("the log is good");
            node.settle();
            assert!(node.applied().len() >= acknowledged, "seed {seed}");
            for (have, want) in node.applied().iter().zip(&proposed) {
                assert_eq!(have, want, "seed {seed}");
            }
            // What was not acknowledged may be there or not; go on from what is.
            proposed.truncate(node.applied().len());
            for _ in 0..chance.below(60) {
                let bound = if chance.below(10) == 0 { 9000 } else { 300 };
                let size = 1 + chance.below(bound);
                let data = vec![chance.bits() as u8; size as usize];
                if node.group().propose(data.clone()).is_ok() {
                    proposed.push(data);
                }
                node.poll();
                for _ in 0..chance.below(4) {
                    if !node.writes.is_empty() {
                        let at = chance.below(node.writes.len() as u64) as usize;
                        node.finish_write(at);
                    }
                    if chance.below(3) == 0 {
                        node.finish_file_action();
                    }
                    node.poll();
                }
            }
            acknowledged = node.applied().len();
            let power = chance.below(3) > 0;
            node.crash(power.then_some(&mut chance));
        }
        assert!(acknowledged > 50, "seed {seed}: {acknowledged}");
    }
}

#[test]
fn a_full_disk_refuses_writes_and_service_resumes_with_room() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    node.disk.set_capacity(Some(2 * node.options.segment_bytes));
    let mut refused = None;
    let mut taken = 0;
    for _ in 0..400 {
        match node.propose(&[1; 200]) {
            Ok(_) => taken += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let Some(ProposeError::DiskFull(cause)) = refused else { panic!("{refused:?}") };
    assert!(cause.contains("cannot create") && cause.contains("No space left"), "{cause}");
    assert_eq!(node.applied().len(), taken, "all that was taken is done");
    node.group().read_index(1).expect("reads go on");
    node.poll();
    assert_eq!(node.reads_ready.len(), 1);
    // It survives a restart in this condition.
    node.crash(None);
    node.start(2).expect("the log is good");
    node.settle();
    assert_eq!(node.applied().len(), taken);
    assert!(node.is_leader(), "votes have a reserve");
    // Room: a snapshot makes the oldest segment free, which becomes the next one.
    node.take_snapshot();
    for _ in 0..20 {
        node.tick();
        node.settle();
    }
    node.propose(&[2; 200]).expect("there is room again");
    assert_eq!(node.applied().len(), taken + 1);
}

/// A node whose disk has room for two segments, which are full up to the reserves.
fn starved() -> Node {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    node.disk.set_capacity(Some(2 * node.options.segment_bytes));
    while node.propose(&[1; 200]).is_ok() {}
    assert!(node.group().lack_of_room().is_some_and(|cause| cause.contains("No space left")));
    node
}

#[test]
fn what_makes_the_data_smaller_has_a_reserve_on_a_full_disk() {
    let mut node = starved();
    let mut taken = node.applied().len();
    let mut more = 0;
    while node.group().propose_smaller(vec![2; 200]).is_ok() {
        node.settle();
        more += 1;
        taken += 1;
    }
    assert!(more > 1, "{more} found room");
    assert_eq!(node.applied().len(), taken, "what was taken is done");
    assert!(matches!(node.propose(&[3; 1]), Err(ProposeError::DiskFull(_))));
    // What is left is for votes.
    for start in 2..6 {
        node.crash(None);
        node.start(start).expect("the log is good");
        node.settle();
        assert!(node.is_leader(), "start {start}");
        assert_eq!(node.applied().len(), taken);
    }
}

#[test]
fn another_segment_size_takes_no_room_that_is_not_there() {
    let mut node = starved();
    let taken = node.applied().len();
    for segment_bytes in [32 << 10, 8 << 10] {
        node.crash(None);
        node.options.segment_bytes = segment_bytes;
        node.start(2).expect("the log is good");
        node.settle();
        assert!(node.is_leader(), "{segment_bytes}");
        assert_eq!(node.applied().len(), taken);
    }
    node.disk.set_capacity(None);
    node.group().retry_file_work();
    node.settle();
    for _ in 0..100 {
        node.propose(&[4; 200]).expect("there is room");
    }
    node.crash(None);
    node.start(3).expect("segments of three sizes");
    node.settle();
    assert_eq!(node.applied().len(), taken + 100);
}

#[test]
fn a_proposal_can_wait_for_the_segment_that_decides_whether_there_is_room() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    let large = node.options.segment_bytes as usize;
    assert!(!node.group().awaits_room(large), "the next segment is there");
    node.disk.set_capacity(Some(2 * node.options.segment_bytes));
    // It is used, and the one after it is being made.
    while node.file_action.is_none() {
        node.group().propose(vec![1; 200]).expect("leads");
        node.poll();
        while !node.writes.is_empty() {
            node.finish_write(0);
        }
        node.poll();
    }
    assert!(!node.group().awaits_room(200), "it fits as things are");
    assert!(node.group().awaits_room(large));
    node.settle();
    assert!(!node.group().awaits_room(large), "it is not waited for");
    assert!(node.group().lack_of_room().is_some());
    // The next try is awaited again; with room, proposals are taken at once, not a second later.
    node.disk.set_capacity(None);
    node.group().retry_file_work();
    assert!(node.group().awaits_room(large));
    node.settle();
    assert_eq!(node.group().lack_of_room(), None);
    node.propose(&vec![2; 20_000]).expect("there is room");
}

/// Ends writes until there are none, and no work on files.
fn finish_writes(node: &mut Node) {
    node.poll();
    while !node.writes.is_empty() {
        node.finish_write(0);
        node.poll();
    }
}

#[test]
fn what_is_taken_at_once_is_committed_without_work_on_files() {
    let (mut taken, mut awaited) = (0, 0);
    for seed in 1..=20 {
        println!("seed {seed}");
        let mut chance = Random::new(seed);
        let mut node = Node::new(1, &[1]);
        node.start(seed).expect("an empty directory");
        node.settle();
        for step in 0..200 {
            let segments = 2 + chance.below(6);
            let capacity = (chance.below(2) > 0).then_some(segments * node.options.segment_bytes);
            node.disk.set_capacity(capacity);
            if chance.below(3) == 0 {
                node.finish_file_action();
                node.settle();
            }
            if chance.below(20) == 0 {
                node.take_snapshot();
            }
            // One or two entries that are proposed together.
            let bytes: Vec<usize> = (0..1 + chance.below(2))
                .map(|_| {
                    let most = if chance.below(4) == 0 { 9000 } else { 900 };
                    1 + chance.below(most) as usize
                })
                .collect();
            let together = bytes.iter().sum();
            if !node.group().commits_at_once() {
                // One that was not taken at once waits for room.
                node.disk.set_capacity(None);
                node.group().retry_file_work();
                node.settle();
            }
            if !node.group().takes_at_once(together) {
                awaited += 1;
                let _ = node.propose(&vec![1; together]);
                continue;
            }
            for &bytes in &bytes {
                assert!(!node.group().awaits_room(bytes), "seed {seed}, step {step}: {bytes}");
                node.group().propose(vec![step as u8; bytes]).expect("it said so");
            }
            assert!(!node.group().commits_at_once());
            let before = node.state.len();
            finish_writes(&mut node);
            assert_eq!(node.state.len(), before + bytes.len(), "seed {seed}, step {step}");
            taken += 1;
        }
    }
    assert!(taken > 1000 && awaited > 100, "{taken} taken, {awaited} not");
}

#[test]
fn a_failed_write_stops_the_group_for_good() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    node.propose(b"a").expect("leads");
    node.disk.fail("write", 0);
    node.group().propose("b".as_bytes()).expect("leads");
    node.poll();
    node.poll();
    assert!(node.failures[0].starts_with("shard 3: the log cannot be written: "));
    assert!(matches!(node.group().propose("c".as_bytes()), Err(ProposeError::Failed(_))));
    assert!(matches!(node.group().read_index(1), Err(ReadError::Failed(_))));
    node.crash(None);
    node.start(2).expect("what was written is good");
    node.settle();
    assert_eq!(node.applied(), [b"a"]);
}

#[test]
fn entries_larger_than_a_segment_are_spread_over_records() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    let large: Vec<u8> = (0..50_000u32).map(|n| (n * 7) as u8).collect();
    node.propose(b"before").expect("leads");
    node.propose(&large).expect("leads");
    node.propose(b"after").expect("leads");
    for _ in 0..2 {
        assert_eq!(node.applied(), [b"before".as_slice(), &large, b"after"]);
        node.crash(None);
        node.start(2).expect("the log is good");
        node.settle();
    }
}

#[test]
fn compacted_segments_are_used_again_and_the_log_stays_small() {
    let mut node = Node::new(1, &[1]);
    node.snapshot_every = 20;
    node.start(1).expect("an empty directory");
    node.settle();
    for n in 0..1500u32 {
        node.propose(&[n as u8; 300]).expect("leads");
    }
    assert!(node.group().status().log_bytes <= 3 * node.options.segment_bytes);
    let files = common_files(&node);
    assert!(files.len() <= 6, "{files:?}");
    assert!(files.iter().any(|name| name.ends_with(".free")), "{files:?}");
    for seed in 0..10 {
        node.crash(None);
        node.start(seed).expect("the log is good");
        node.settle();
        assert_eq!(node.applied().len() as u64, 1500 + seed);
        node.propose(b"more").expect("leads");
    }
}

#[test]
fn another_block_size_begins_a_new_segment() {
    let mut node = Node::new(1, &[1]);
    node.start(1).expect("an empty directory");
    node.settle();
    node.propose(b"a").expect("leads");
    node.crash(None);
    node.options.block_bytes = 1024;
    node.start(1).expect("the log is good");
    node.settle();
    node.propose(b"b").expect("leads");
    node.crash(None);
    node.options = options(1);
    node.start(1).expect("the log is good");
    node.settle();
    assert_eq!(node.applied(), [b"a", b"b"]);
}

#[test]
fn a_snapshot_that_the_log_does_not_reach_is_refused() {
    let mut node = Node::new(1, &[1]);
    node.snapshot_every = 10;
    node.start(1).expect("an empty directory");
    node.settle();
    for _ in 0..200 {
        node.propose(&[1; 300]).expect("leads");
    }
    node.crash(None);
    let good = node.snapshot.take();
    let error = node.start(1).expect_err("the beginning is missing").to_string();
    assert!(error.contains("the newest readable snapshot ends at entry 0"), "{error}");
    node.snapshot = good;
    node.start(1).expect("with it all is well");
    node.settle();
    assert_eq!(node.applied().len(), 200);
    assert_eq!(node.group().applied_index(), Index(node.group().commit_index().0));
}

fn common_files(node: &Node) -> Vec<String> {
    use ringraft_shards::disk::Disk;
    node.disk.list().expect("listed").into_iter().map(|file| file.name).collect()
}

#[test]
fn it_works_on_real_files_too() {
    use ringraft_shards::disk::{Disk, RealDisk};
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let disk = RealDisk::open(&scratch.path().join("log")).expect("created");
    for start in 1..=3u64 {
        let log = recover(Arc::new(disk.clone()), options(1), Index(0), start, &mut |_, _| {});
        let log = log.expect("the log is good");
        let mut group = Group::open(common::config(1, &[1]), Some(log), None, 1).expect("fits");
        let mut out = Output::default();
        let (mut proposed, mut commands) = (0, 0);
        while commands < start * 200 {
            if proposed < 200 && group.propose(vec![start as u8; 300]).is_ok() {
                proposed += 1;
            }
            out.clear();
            group.poll(&mut out);
            assert_eq!(out.failure, None);
            for write in out.writes.drain(..) {
                let name = write.file_name();
                disk.write_at(&name, write.offset, write.buffer.as_slice()).expect("written");
                group.written(write.ticket, write.buffer);
            }
            if let Some(action) = out.file_action.take() {
                let result = action.run(&disk);
                group.file_action_done(action.id, result);
            }
            for entry in out.committed.drain(..) {
                commands += u64::from(entry.kind == EntryKind::Command);
                group.applied(entry.index);
            }
        }
        assert_eq!(commands, start * 200);
    }
}
