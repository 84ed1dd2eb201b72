//! The process' shards as members of one group of three, in memory: what clients are told when
//! leadership moves.

use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::commands::table;
use crate::core::disk::snapshots::ShardSnapshots;
use crate::core::observe::stats::Stats;
use crate::core::shard::{LocalShard, Request, ShardTurn};
use crate::resp::reply::Protocol;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, MonotonicTime, NodeId, ShardId};
use ringraft_shards::keyspace::{KeyHasher, Keyspace};
use ringraft_shards::raft::{Group, GroupConfig, Output, PeerMessage};
use ringraft_shards::serve::{self, Leases};

const NOW_MS: i64 = 1_700_000_000_000;
/// The core whose connections ask: not the shards' own, so that replies lie in its outbox.
const ASKING: u16 = 1;
const NODES: [u64; 3] = [1, 2, 3];

struct Member {
    shard: LocalShard,
    answers: Answers,
    stats: Stats,
}

impl Member {
    fn new(node: u64) -> Member {
        let voters = NODES.map(NodeId).to_vec();
        let config = GroupConfig::new(NodeId(node), ShardId(0), voters);
        let group = Group::open(config, None, None, node).expect("a new group");
        let snapshots = ShardSnapshots::new(None, Vec::new(), NOW_MS);
        let keyspace = Keyspace::new(KeyHasher::new(1));
        let stats = Stats { now_ms: NOW_MS, ..Stats::default() };
        Member {
            shard: LocalShard::new(ShardId(0), keyspace, group, snapshots, 0, 42),
            answers: Answers::new(0, 2),
            stats,
        }
    }

    /// A turn at this time. Returns what others are to hear.
    fn drive(&mut self, now: MonotonicTime) -> Vec<PeerMessage> {
        self.drive_between(now, now)
    }

    /// A turn between two times, as `Core::drive_shard` does it.
    fn drive_between(&mut self, now: MonotonicTime, end: MonotonicTime) -> Vec<PeerMessage> {
        let (mut output, mut messages) = (Output::default(), Vec::new());
        let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
        let shard = &mut self.shard;
        loop {
            serve::propose(shard, NOW_MS, &mut turn);
            serve::ask_for_reads(shard, now, Leases::Trusted, &mut turn);
            output.clear();
            shard.group.poll(&mut output);
            messages.append(&mut output.messages);
            serve::polled(shard, &output, &mut turn);
            for entry in &output.committed {
                serve::apply(shard, entry, &mut turn);
            }
            if let Some(last) = output.committed.last() {
                shard.group.applied(last.index);
            }
            serve::settle(shard, &mut output, &mut turn);
            serve::end_leased(shard, end, &mut turn);
            if !output.more && output.committed.is_empty() && !shard.is_pressed() {
                return messages;
            }
        }
    }

    /// A client asks; `number` tells its replies from others.
    fn ask(&mut self, number: u32, rides: bool, words: &[&str]) {
        let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
        let target = Target::Gather { index: number, part: 0 };
        let protocol = Protocol::Resp2;
        let origin = Origin { rides, no_touch: false, ..Origin::asks(ASKING, target, protocol) };
        let command = table::find(words[0].as_bytes()).expect("a command");
        let first_key = self.shard.keyspace.hasher().hash(words[1].as_bytes());
        let (database, arguments) = (DatabaseIndex(0), owned.borrow());
        assert!(
            rides || words[0] != "get" || !self.shard.lets_read(command, arguments, first_key),
            "where another may lead no read runs at once"
        );
        let request = Request { command, origin, database, first_key, arguments };
        assert!(self.shard.admit(&request, &mut self.stats), "there is memory");
    }

    /// What was answered since this was asked before.
    fn replies(&mut self) -> Vec<(u32, String)> {
        let replies = std::mem::take(&mut self.answers.outboxes[usize::from(ASKING)].replies);
        let mut start = 0;
        let each = replies.targets.iter().map(|&(target, length)| {
            let bytes = &replies.bytes[start..start + length];
            start += length;
            let Target::Gather { index, .. } = target else { unreachable!("as in `ask`") };
            (index, String::from_utf8_lossy(bytes).trim_end().to_string())
        });
        each.collect()
    }
}

/// A group, its clock, and who is cut off.
struct Scene {
    members: Vec<Member>,
    now: MonotonicTime,
    cut: Option<u64>,
    /// Messages to the one that is cut off, in order.
    late: Vec<PeerMessage>,
}

impl Scene {
    /// Node 1 leads.
    fn new() -> Scene {
        let members = NODES.map(Member::new).into_iter().collect();
        let mut scene = Scene { members, now: MonotonicTime(0), cut: None, late: Vec::new() };
        // A node that begins anew owes silence for a while; then somebody is elected.
        scene.pass(60);
        let leads = |member: &Member| member.shard.serves();
        let first = scene.members.iter().position(leads).expect("somebody leads");
        if first > 0 {
            let group = &mut scene.members[first].shard.group;
            group.transfer_leader(NodeId(1)).expect("it leads");
            scene.deliver();
        }
        // Heartbeats, so that there is a lease.
        scene.pass(8);
        assert!(scene.at(1).shard.serves() && !scene.at(2).shard.serves());
        scene
    }

    fn at(&mut self, node: u64) -> &mut Member {
        &mut self.members[node as usize - 1]
    }

    /// Everybody has turns until nothing is said any more.
    fn deliver(&mut self) {
        loop {
            let mut messages = Vec::new();
            for (node, member) in NODES.iter().zip(&mut self.members) {
                let said = member.drive(self.now);
                if self.cut != Some(*node) {
                    messages.extend(said);
                }
            }
            if messages.is_empty() {
                return;
            }
            for message in messages {
                self.step(message);
            }
        }
    }

    fn step(&mut self, message: PeerMessage) {
        let to = message.to().0;
        if self.cut == Some(to) {
            return self.late.push(message);
        }
        // A refusal is as good as a loss.
        let _ = self.at(to).shard.group.step(message);
    }

    /// Time passes for all that are not cut off: who is stands still, and believes what it
    /// believed.
    fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now.0 += 100_000;
            for (node, member) in NODES.iter().zip(&mut self.members) {
                if self.cut != Some(*node) {
                    member.shard.group.tick(self.now);
                }
            }
            self.deliver();
        }
    }

    /// Another node leads than the one that is cut off. Returns which.
    fn elect_another(&mut self) -> u64 {
        self.pass(60);
        let leads = |node: &u64| *node != 1 && self.members[*node as usize - 1].shard.serves();
        NODES.into_iter().find(leads).expect("the majority has elected one")
    }
}

#[test]
fn who_leads_answers_under_its_lease() {
    let mut scene = Scene::new();
    scene.at(1).ask(1, false, &["set", "k", "first"]);
    scene.deliver();
    assert_eq!(scene.at(1).replies(), [(1, "+OK".to_string())]);
    scene.at(1).ask(2, false, &["get", "k"]);
    assert!(scene.at(1).replies().is_empty(), "nobody was asked and no clock was read");
    // Its own turn is enough.
    let now = scene.now;
    scene.at(1).drive(now);
    assert_eq!(scene.at(1).replies(), [(2, "$5\r\nfirst".to_string())]);
}

#[test]
fn reads_run_in_place_while_a_lease_lasts_and_not_behind_one_that_waits() {
    let mut scene = Scene::new();
    let now = scene.now;
    let lease = MonotonicTime(now.0 + scene.at(1).shard.group.lease_us());
    let server = &mut scene.at(1).shard.server;
    assert!(!server.reads_in_place(), "nobody has looked");
    server.look_at_lease(Leases::Unused, now);
    assert!(!server.reads_in_place(), "a lease is not trusted");
    server.look_at_lease(Leases::Trusted, lease);
    assert!(!server.reads_in_place(), "it is over by then");
    server.look_at_lease(Leases::Trusted, now);
    assert!(server.reads_in_place() && server.lease_holds(now));
    // The turn has taken long: what was received in it is kept, and what comes later is as well.
    assert!(!server.lease_holds(lease) && !server.lease_holds(now));
    scene.at(1).ask(1, false, &["get", "k"]);
    let server = &mut scene.at(1).shard.server;
    server.look_at_lease(Leases::Trusted, now);
    assert!(!server.reads_in_place(), "an earlier read has not run");
    scene.at(1).drive(now);
    assert_eq!(scene.at(1).replies(), [(1, "$-1".to_string())]);
    let server = &mut scene.at(1).shard.server;
    server.look_at_lease(Leases::Trusted, now);
    assert!(server.reads_in_place());
    server.look_at_lease(Leases::Unneeded, lease);
    assert!(server.reads_in_place() && server.lease_holds(lease), "it believes to lead");
    let follower = &mut scene.at(2).shard.server;
    follower.look_at_lease(Leases::Unneeded, now);
    assert!(!follower.reads_in_place());
}

/// The time of the turn's beginning shows a lease, the time after the read does not: a majority is
/// asked, in the same turn.
#[test]
fn a_turn_that_outlasts_the_lease_asks_a_majority_and_ends() {
    let mut scene = Scene::new();
    let (began, lease) = (scene.now, scene.at(1).shard.group.lease_us());
    for rides in [false, true] {
        scene.at(1).ask(1, rides, &["get", "k"]);
        let late = MonotonicTime(began.0 + lease);
        let messages = scene.at(1).drive_between(began, late);
        assert!(scene.at(1).replies().is_empty());
        messages.into_iter().for_each(|message| scene.step(message));
        scene.deliver();
        assert_eq!(scene.at(1).replies(), [(1, "$-1".to_string())]);
    }
}

#[test]
fn who_is_cut_off_answers_nothing_and_then_says_what_became_of_it() {
    let mut scene = Scene::new();
    scene.at(1).ask(1, false, &["set", "k", "first"]);
    scene.deliver();
    scene.at(1).replies();
    scene.cut = Some(1);
    let other = scene.elect_another();
    scene.at(other).ask(2, false, &["set", "k", "second"]);
    scene.deliver();
    assert_eq!(scene.at(other).replies(), [(2, "+OK".to_string())]);
    // It stood still so long that its lease is over, and does not know of the other.
    scene.at(1).ask(3, false, &["get", "k"]);
    scene.at(1).ask(4, false, &["set", "k", "third"]);
    scene.at(1).ask(5, true, &["get", "k"]);
    scene.deliver();
    assert!(scene.at(1).shard.serves(), "it believes to lead");
    assert!(scene.at(1).replies().is_empty(), "and answers nothing");
    scene.cut = None;
    scene.pass(4);
    let mut replies = scene.at(1).replies();
    replies.sort_unstable();
    let expected = [
        (3, "-ERR leader not known".to_string()),
        (4, "-leadership lost while committing log".to_string()),
        (5, "-ERR leader not known".to_string()),
    ];
    assert_eq!(replies, expected);
    assert!(!scene.at(1).shard.serves());
    // What comes now is held until somebody leads here.
    scene.at(1).ask(6, false, &["get", "k"]);
    scene.pass(4);
    assert!(scene.at(1).replies().is_empty() && scene.at(1).shard.holds_any());
}

/// The commit of an entry says nothing about reads that came after it was proposed.
#[test]
fn a_read_behind_a_write_that_was_proposed_before_it_is_confirmed_by_itself() {
    let mut scene = Scene::new();
    // The others have the entry, and what they say of it is late.
    scene.at(1).ask(1, false, &["set", "k", "first"]);
    let now = scene.now;
    let appends = scene.at(1).drive(now);
    appends.into_iter().for_each(|message| scene.step(message));
    scene.cut = Some(1);
    scene.deliver();
    assert!(scene.at(1).replies().is_empty() && !scene.late.is_empty());
    let other = scene.elect_another();
    scene.at(other).ask(2, false, &["set", "k", "second"]);
    scene.deliver();
    assert_eq!(scene.at(other).replies(), [(2, "+OK".to_string())]);
    // Now somebody asks the one that was cut off, behind its write.
    scene.at(1).ask(3, true, &["get", "k"]);
    let now = scene.now;
    scene.at(1).drive(now);
    let term = scene.at(1).shard.group.term();
    let (early, late): (Vec<_>, Vec<_>) =
        std::mem::take(&mut scene.late).into_iter().partition(|message| message.0.term == term.0);
    for message in early {
        let _ = scene.at(1).shard.group.step(message);
    }
    scene.at(1).drive(now);
    let replies = scene.at(1).replies();
    assert_eq!(replies, [(1, "+OK".to_string())], "the write is committed, the read not confirmed");
    for message in late {
        let _ = scene.at(1).shard.group.step(message);
    }
    scene.cut = None;
    scene.pass(4);
    assert_eq!(scene.at(1).replies(), [(3, "-ERR leader not known".to_string())]);
}
