//! Two ends and the bytes between them.

use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};

use super::frame::{FrameKind, head};
use super::*;
use crate::ids::{ClusterId, DirectoryId, MonotonicTime, NodeId, ShardId};
use crate::limits::*;
use crate::raft::PeerMessage;
use crate::random::Random;

fn identity(node: u64) -> Identity {
    Identity {
        cluster: ClusterId(7),
        epoch: 1,
        node: NodeId(node),
        directory: DirectoryId(node.into()),
        start: 1,
        process: 100 + node,
        level: 1,
        address: format!("127.0.0.1:{node}"),
    }
}

fn core_of(node: u64) -> PeerCore {
    PeerCore { node: NodeId(node), core: 0, purpose: Purpose::Link }
}

/// A core with its peers and connections.
struct End {
    peers: Peers,
    secret: Secret,
    links: BTreeMap<Connection, Link>,
    items: Vec<Item>,
    ended: Vec<LinkError>,
    nonces: Random,
}

impl End {
    fn new(identity: Identity, seed: u64) -> End {
        let mut nonces = Random::new(seed);
        End {
            peers: Peers::new(identity, 0, nonces.bits()),
            secret: Secret::new("secret"),
            links: BTreeMap::new(),
            items: Vec::new(),
            ended: Vec::new(),
            nonces,
        }
    }

    fn nonce(&mut self) -> [u8; NONCE_BYTES] {
        [self.nonces.bits() as u8; NONCE_BYTES]
    }

    fn dial(&mut self, to: u64, connection: Connection, now: MonotonicTime) {
        let nonce = self.nonce();
        let hello = self.peers.dial(core_of(to), connection, nonce);
        self.links.insert(connection, Link::dial(self.secret.clone(), hello, now));
    }

    fn accept(&mut self, connection: Connection, now: MonotonicTime) {
        let nonce = self.nonce();
        let hello = self.peers.hello(nonce);
        self.links.insert(connection, Link::accept(self.secret.clone(), hello, now));
    }

    /// Takes bytes as a driver does.
    fn receive(&mut self, connection: Connection, bytes: &[u8], now: MonotonicTime) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let (mut events, mut close) = (Vec::new(), Vec::new());
        let mut result = link.receive(bytes, now, &mut events);
        let mut at = 0;
        while at < events.len() {
            match std::mem::replace(&mut events[at], LinkEvent::Greeted) {
                LinkEvent::Greeted => {
                    let hello = link.peer().expect("greeted").clone();
                    self.peers.heard(hello.identity.node, now);
                    link.answer_hello(hello.to_core, self.peers.life(hello.peer()));
                }
                LinkEvent::Proven => match self.peers.judge(link, connection) {
                    Ok(others) => {
                        close.extend(others);
                        link.admit(&mut events);
                    }
                    Err(reason) => result = Err(link.refuse(reason)),
                },
                LinkEvent::Up => {
                    if !self.peers.up(link, connection) {
                        close.push(connection);
                    }
                }
                LinkEvent::Item(item) => self.items.push(item),
                LinkEvent::Bulk(_) => {}
            }
            at += 1;
        }
        close.into_iter().for_each(|other| self.close(other, now));
        if let Err(error) = result {
            self.ended.push(error);
        }
    }

    fn close(&mut self, connection: Connection, now: MonotonicTime) {
        self.links.remove(&connection);
        self.peers.lost(connection, now);
    }

    /// What goes out on a connection, at most so much.
    fn take(&mut self, connection: Connection, most: usize, now: MonotonicTime) -> Vec<u8> {
        let Some(link) = self.links.get_mut(&connection) else { return Vec::new() };
        link.encode(now);
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        link.slices(&mut slices, usize::MAX);
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(most);
        link.sent(bytes.len());
        bytes
    }
}

const NOW: MonotonicTime = MonotonicTime(1_000_000);

/// Lets both ends of connection 1 speak until they are silent.
fn run(one: &mut End, other: &mut End) {
    loop {
        let (there, back) = (one.take(1, usize::MAX, NOW), other.take(1, usize::MAX, NOW));
        if there.is_empty() && back.is_empty() {
            return;
        }
        other.receive(1, &there, NOW);
        one.receive(1, &back, NOW);
    }
}

/// The first end dials node 2, and gets the second.
fn meet(one: &mut End, other: &mut End) {
    one.peers.want(core_of(2));
    one.dial(2, 1, NOW);
    other.accept(1, NOW);
    run(one, other);
}

fn pair() -> (End, End) {
    (End::new(identity(1), 1), End::new(identity(2), 2))
}

fn up() -> (End, End) {
    let (mut one, mut other) = pair();
    meet(&mut one, &mut other);
    assert!(one.links[&1].is_up() && other.links[&1].is_up());
    (one, other)
}

fn raft(kind: MessageType, index: u64, data: usize) -> Item {
    let mut message = Message { from: 1, to: 2, term: 3, index, ..Message::default() };
    message.msg_type = kind;
    if kind == MessageType::MsgAppend {
        let entry = Entry { index: index + 1, data: vec![7; data].into(), ..Entry::default() };
        message.set_entries(vec![entry].into());
    }
    if kind == MessageType::MsgHeartbeat {
        message.context = Bytes::from_static(b"12345678");
    }
    Item::Raft { shard: ShardId(4), message: PeerMessage(message) }
}

fn answer(index: u64, rejects: bool) -> Item {
    let mut message = Message { from: 2, to: 1, term: 3, index, ..Message::default() };
    message.msg_type = MessageType::MsgAppendResponse;
    message.reject = rejects;
    Item::Raft { shard: ShardId(4), message: PeerMessage(message) }
}

#[test]
fn both_sides_prove_themselves_and_items_go_both_ways() {
    let (mut one, mut other) = up();
    assert_eq!(one.peers.current(core_of(2)), Some(1));
    assert_eq!(other.peers.current(core_of(1)), Some(1));
    assert_eq!((one.links[&1].life(), other.links[&1].life()), (1, 1));
    let there = [raft(MessageType::MsgAppend, 5, 100), Item::Transaction(Bytes::from_static(b"t"))];
    for item in &there {
        one.links.get_mut(&1).expect("up").send(item.clone()).expect("there is room");
    }
    other.links.get_mut(&1).expect("up").send(answer(6, false)).expect("there is room");
    run(&mut one, &mut other);
    assert_eq!(other.items, there);
    assert_eq!(one.items, [answer(6, false)]);
}

#[test]
fn whoever_is_not_what_it_should_be_is_refused_by_name() {
    let check = |spoil: fn(&mut End, &mut End), reason: Refusal, proven: bool| {
        let (mut one, mut other) = pair();
        spoil(&mut one, &mut other);
        meet(&mut one, &mut other);
        assert!(!one.links[&1].is_up() && !other.links[&1].is_up(), "{reason:?}");
        let refused = [&one.ended, &other.ended].into_iter().flatten();
        let by_peer = LinkError::RefusedByPeer { reason, proven };
        let errors: Vec<_> = refused.cloned().collect();
        assert!(errors.contains(&LinkError::Refused(reason)), "{reason:?}: {errors:?}");
        assert!(errors.contains(&by_peer), "{reason:?}: {errors:?}");
    };
    check(|one, _| one.secret = Secret::new("guess"), Refusal::Secret, false);
    check(|one, _| one.secret = Secret::none(), Refusal::Secret, false);
    check(
        |one, _| *one = End::new(Identity { cluster: ClusterId(8), ..identity(1) }, 1),
        Refusal::OtherCluster,
        true,
    );
    check(
        |one, _| *one = End::new(Identity { epoch: 2, ..identity(1) }, 1),
        Refusal::OlderEpoch,
        true,
    );
    check(
        |_, other| *other = End::new(Identity { epoch: 2, ..identity(2) }, 1),
        Refusal::NewerEpoch,
        true,
    );
    check(|_, other| drop(other.peers.removed(NodeId(1))), Refusal::Removed, true);
    check(|one, _| drop(one.peers.removed(NodeId(2))), Refusal::Removed, true);
    check(|_, other| other.peers.member(NodeId(1), DirectoryId(77)), Refusal::OtherDirectory, true);
    check(|_, other| *other = End::new(identity(3), 1), Refusal::OtherNode, true);
    assert!(Refusal::Removed.ends_process() && !Refusal::Crossing.ends_process());
}

/// Another process, or another connection, dials the second end while connection 1 is up.
fn second(identity: Identity, life: u64) -> (End, End) {
    let (_, mut other) = up();
    let mut late = End::new(identity, 3);
    let hello = Hello { life, ..late.peers.dial(core_of(2), 2, [4; NONCE_BYTES]) };
    late.links.insert(2, Link::dial(late.secret.clone(), hello, NOW));
    other.accept(2, NOW);
    for _ in 0..4 {
        let there = late.take(2, usize::MAX, NOW);
        other.receive(2, &there, NOW);
        let back = other.take(2, usize::MAX, NOW);
        late.receive(2, &back, NOW);
    }
    (late, other)
}

#[test]
fn of_two_processes_of_one_directory_the_later_start_stays() {
    let (late, other) = second(Identity { start: 2, process: 5, ..identity(1) }, 0);
    assert!(late.links[&2].is_up(), "{:?}", late.ended);
    assert!(!other.links.contains_key(&1), "the older one's is closed");
    let (copy, other) = second(Identity { process: 5, ..identity(1) }, 0);
    let refused = LinkError::RefusedByPeer { reason: Refusal::OtherProcess, proven: true };
    assert_eq!(copy.ended, [refused]);
    assert!(other.links[&1].is_up(), "the one that was there stays");
    let (old, other) = second(Identity { start: 0, process: 5, ..identity(1) }, 0);
    let refused = LinkError::RefusedByPeer { reason: Refusal::OlderStart, proven: true };
    assert_eq!(old.ended, [refused]);
    assert!(other.links[&1].is_up());
}

#[test]
fn a_newer_life_takes_the_place_of_an_older_one() {
    // It knows the first life, and has lost it.
    let (late, other) = second(identity(1), 1);
    assert!(late.links[&2].is_up() && !other.links.contains_key(&1));
    assert_eq!((late.links[&2].life(), other.peers.current(core_of(1))), (2, Some(2)));
}

/// Both ends dial, connections are cut, bytes come in pieces and late. Items carry a number, and
/// each end must get rising ones; in the end one connection is up at both ends, the same.
fn muddle(seed: u64) {
    let mut chance = Random::new(seed);
    let (mut one, mut other) = (End::new(identity(1), seed), End::new(identity(2), seed + 1));
    one.peers.want(core_of(2));
    other.peers.want(core_of(1));
    // Of each connection the bytes on their way there and back, and whether it is cut.
    let mut streams: BTreeMap<Connection, [Vec<u8>; 2]> = BTreeMap::new();
    let (mut connections, mut number, mut now) = (0, 0u64, NOW);
    for step in 0..3000 {
        let is_calm = step > 2000;
        now = MonotonicTime(now.0 + chance.below(20_000));
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut one, &mut other];
            let due = ends[from].peers.due(now);
            for peer in due {
                connections += 1;
                ends[from].dial(peer.node.0, connections, now);
                ends[to].accept(connections, now);
                streams.insert(connections, Default::default());
            }
        }
        for end in [&mut one, &mut other] {
            number += 1;
            let up: Vec<_> = end.links.values_mut().filter(|link| link.is_up()).collect();
            for link in up {
                let bytes = number.to_le_bytes().to_vec();
                link.send(Item::Transaction(bytes.into())).expect("there is room");
            }
            let ids: Vec<Connection> = end.links.keys().copied().collect();
            for id in ids {
                if end.links.get_mut(&id).is_some_and(|link| link.tick(now).is_err()) {
                    end.close(id, now);
                }
            }
        }
        for (id, stream) in &mut streams {
            stream[0].extend(one.take(*id, chance.below(300) as usize, now));
            stream[1].extend(other.take(*id, chance.below(300) as usize, now));
            for (way, end) in [(0, &mut other), (1, &mut one)] {
                let count = stream[way].len().min(chance.below(200) as usize);
                let bytes: Vec<u8> = stream[way].drain(..count).collect();
                end.receive(*id, &bytes, now);
            }
        }
        // One end closes, or the network does: the other end hears of it some time later.
        streams.retain(|id, stream| {
            let ends = [&mut one, &mut other];
            let open = ends.iter().filter(|end| end.links.contains_key(id)).count();
            let cut = !is_calm && chance.below(150) == 0;
            let is_read = stream.iter().all(Vec::is_empty) || chance.below(4) == 0;
            if !cut && (open == 2 || !is_read) {
                return true;
            }
            ends.into_iter()
                .filter(|end| end.links.contains_key(id))
                .for_each(|end| end.close(*id, now));
            false
        });
    }
    for end in [&one, &other] {
        let numbers: Vec<&Item> = end.items.iter().collect();
        let number = |item: &Item| match item {
            Item::Transaction(bytes) => bytes.first_chunk().map(|n| u64::from_le_bytes(*n)),
            Item::Raft { .. } | Item::Node(_) => None,
        };
        assert!(numbers.is_sorted_by_key(|item| number(item)), "seed {seed}: out of order");
        assert!(numbers.len() > 300, "seed {seed}: little came through");
    }
    let (mine, theirs) = (one.peers.current(core_of(2)), other.peers.current(core_of(1)));
    assert!(mine.is_some() && mine == theirs, "seed {seed}: {mine:?} {theirs:?}");
    assert_eq!((one.links.len(), other.links.len()), (1, 1), "seed {seed}");
}

#[test]
fn of_crossing_dials_and_many_lives_one_stays_and_nothing_is_out_of_order() {
    for seed in 0..60 {
        muddle(seed);
    }
}

#[test]
fn silence_cuts_and_a_sign_of_life_keeps() {
    let (mut one, mut other) = up();
    let mut now = NOW;
    for _ in 0..40 {
        now = MonotonicTime(now.0 + 100_000);
        for end in [&mut one, &mut other] {
            assert_eq!(end.links.get_mut(&1).expect("up").tick(now), Ok(()));
        }
        let there = one.take(1, usize::MAX, now);
        other.receive(1, &there, now);
        let back = other.take(1, usize::MAX, now);
        one.receive(1, &back, now);
    }
    let late = MonotonicTime(now.0 + LINK_SILENCE_US);
    let link = one.links.get_mut(&1).expect("up");
    assert_eq!(link.tick(MonotonicTime(late.0 - 300_000)), Ok(()));
    assert!(matches!(link.tick(late), Err(LinkError::Silence(_))));
    let mut slow = End::new(identity(1), 1);
    slow.dial(2, 9, NOW);
    let late = MonotonicTime(NOW.0 + LINK_HANDSHAKE_US);
    assert_eq!(slow.links.get_mut(&9).expect("dialled").tick(late), Err(LinkError::SlowHandshake));
}

#[test]
fn redialling_waits_longer_each_time_and_not_when_the_peer_dials() {
    let mut one = End::new(identity(1), 5);
    one.peers.want(core_of(2));
    let (mut now, mut waits) = (NOW, Vec::new());
    for connection in 1..9 {
        one.dial(2, connection, now);
        one.close(connection, now);
        let mut wait_us = 0;
        while one.peers.due(MonotonicTime(now.0 + wait_us)).is_empty() {
            wait_us += 1000;
        }
        waits.push(wait_us);
        now = MonotonicTime(now.0 + wait_us);
    }
    for (n, wait_us) in waits.iter().enumerate() {
        let most = (50_000 << n).min(1_000_000);
        assert!((most / 2..=most + 1000).contains(wait_us), "{waits:?}");
    }
    one.dial(2, 20, now);
    one.close(20, now);
    assert!(one.peers.due(now).is_empty());
    one.peers.heard(NodeId(2), now);
    assert_eq!(one.peers.due(now), [core_of(2)]);
}

#[test]
fn a_link_ends_at_the_first_thing_that_is_wrong() {
    let check = |bytes: &[u8], error: &str| {
        let (_, mut other) = up();
        other.receive(1, bytes, NOW);
        let ended: Vec<String> = other.ended.iter().map(|error| error.to_string()).collect();
        assert_eq!(ended, [error]);
        let last = other.take(1, usize::MAX, NOW);
        assert!(last.ends_with(error.as_bytes()), "the peer is told");
    };
    let frame = |kind, number, body: &'static [u8]| {
        let body = Bytes::from_static(body);
        [&head(kind, number, std::slice::from_ref(&body))[..], &body].concat()
    };
    check(&[0; 24], "the checksum of a frame's head is wrong");
    check(&frame(FrameKind::Ping, 4, b""), "frame 4 instead of 3");
    check(&frame(FrameKind::Ping, 2, b""), "frame 2 instead of 3");
    check(&frame(FrameKind::Hello, 3, b""), "frame 3 of kind Hello has no place here");
    check(&frame(FrameKind::Turn, 3, b"123"), "frame 3: a turn ends too soon");
    check(&frame(FrameKind::Part, 3, b"123"), "frame 3: a part ends too soon");
    let part = b"\x09\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0x";
    check(&frame(FrameKind::Part, 3, part), "frame 3: a place of a part: there is no 1");

    let answers = |bytes: &[u8]| {
        let mut end = End::new(identity(2), 2);
        end.accept(1, NOW);
        end.receive(1, bytes, NOW);
        assert!(end.take(1, usize::MAX, NOW).is_empty(), "strangers hear nothing");
        end.ended.iter().map(|error| error.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(answers(b"GET / HTTP/1.1"), [LinkError::NotPeer.to_string()]);
    assert_eq!(answers(b"\0RINGPEER\x02"), [LinkError::Preface(2).to_string()]);
    let early = [&PREFACE[..], &frame(FrameKind::Turn, 1, b"")].concat();
    assert_eq!(answers(&early), ["frame 1 of kind Turn has no place here"]);
}

#[test]
fn a_recorded_handshake_proves_nothing_the_next_time() {
    let (mut one, mut other) = pair();
    one.peers.want(core_of(2));
    one.dial(2, 1, NOW);
    other.accept(1, NOW);
    let mut recorded = one.take(1, usize::MAX, NOW);
    other.receive(1, &recorded, NOW);
    let back = other.take(1, usize::MAX, NOW);
    one.receive(1, &back, NOW);
    recorded.extend(one.take(1, usize::MAX, NOW));
    let mut again = End::new(identity(2), 50);
    again.accept(1, NOW);
    again.receive(1, &recorded, NOW);
    let hasty = LinkError::Misplaced { number: 2, kind: FrameKind::Proof };
    assert_eq!(again.ended, [hasty], "who proves something before it knows what");
    let (hello, proof) = recorded.split_at(recorded.len() - HEAD_BYTES - 32);
    again.accept(2, NOW);
    again.receive(2, hello, NOW);
    again.receive(2, proof, NOW);
    assert_eq!(again.ended[1..], [LinkError::Refused(Refusal::Secret)]);
}

#[test]
fn a_long_item_goes_in_parts_and_a_heartbeat_between_them() {
    let (mut one, mut other) = up();
    let long = raft(MessageType::MsgAppend, 1, 3 * LINK_PART_BYTES + 5);
    let link = one.links.get_mut(&1).expect("up");
    link.send(long.clone()).expect("there is room");
    link.send(Item::Transaction(Bytes::from_static(b"behind"))).expect("there is room");
    // The socket takes little at a time, and less than the bound is encoded ahead.
    link.encode(NOW);
    assert!(link.encoded_bytes() > 3 * LINK_PART_BYTES);
    run(&mut one, &mut other);
    assert_eq!(other.items[0], long);
    let link = one.links.get_mut(&1).expect("up");
    other.items.clear();
    let huge = raft(MessageType::MsgAppend, 2, 2 * LINK_ENCODED_BYTES_MAX);
    link.send(huge.clone()).expect("it is alone");
    link.encode(NOW);
    let beat = raft(MessageType::MsgHeartbeat, 0, 0);
    link.send(beat.clone()).expect("there is room");
    run(&mut one, &mut other);
    assert_eq!(other.items, [beat, huge]);
}

#[test]
fn appends_wait_while_too_much_is_not_answered_and_heartbeats_do_not() {
    let (mut one, mut other) = up();
    let size = LINK_PART_BYTES - 200;
    let count = 2 * LINK_UNANSWERED_BYTES_MAX / size;
    for index in 0..count as u64 {
        let append = raft(MessageType::MsgAppend, index, size);
        one.links.get_mut(&1).expect("up").send(append).expect("there is room");
    }
    run(&mut one, &mut other);
    let arrived = other.items.len();
    assert!(one.links[&1].unanswered_bytes() <= LINK_UNANSWERED_BYTES_MAX);
    assert!((count / 2 - 2..=count / 2).contains(&arrived), "{arrived} of {count}");
    let link = one.links.get_mut(&1).expect("up");
    link.send(raft(MessageType::MsgHeartbeat, 0, 0)).expect("there is room");
    let message = Item::Transaction(Bytes::from_static(b"t"));
    let bytes = message.bytes();
    link.send(message).expect("there is room");
    assert_eq!(link.others_waiting_bytes(), bytes, "whatever else waits");
    run(&mut one, &mut other);
    assert_eq!(other.items.len(), arrived + 2);
    let link = &one.links[&1];
    assert_eq!(link.others_waiting_bytes(), 0);
    assert!(link.waiting_bytes() > LINK_UNANSWERED_BYTES_MAX / 2, "appends still wait");
    // Half is answered, then a refusal: raft-rs begins again, so nothing counts as under way.
    other.links.get_mut(&1).expect("up").send(answer(arrived as u64 / 2, false)).expect("room");
    run(&mut one, &mut other);
    assert!(other.items.len() > arrived + 2);
    let before = one.links[&1].unanswered_bytes();
    other.links.get_mut(&1).expect("up").send(answer(0, true)).expect("room");
    run(&mut one, &mut other);
    assert!(before > 0 && other.items.len() == count + 2);
}

#[test]
fn appends_that_were_dropped_do_not_hold_up_others_for_ever() {
    let (mut one, mut other) = up();
    let large = LINK_UNANSWERED_BYTES_MAX * 3 / 4;
    for index in [5, 6] {
        let append = raft(MessageType::MsgAppend, index, large);
        one.links.get_mut(&1).expect("up").send(append).expect("there is room");
    }
    run(&mut one, &mut other);
    assert_eq!(other.items.len(), 1, "the second one waits");
    let link = one.links.get_mut(&1).expect("up");
    link.encode(MonotonicTime(NOW.0 + LINK_ANSWER_US - 1));
    assert_eq!(link.encoded_bytes(), 0);
    link.encode(MonotonicTime(NOW.0 + LINK_ANSWER_US));
    run(&mut one, &mut other);
    assert_eq!(other.items.len(), 2, "nothing was heard of the first one");
    // Whoever is probed is sent the same again, however large it is.
    for _ in 0..3 {
        let again = raft(MessageType::MsgAppend, 6, large);
        one.links.get_mut(&1).expect("up").send(again).expect("there is room");
        run(&mut one, &mut other);
    }
    assert_eq!(other.items.len(), 5);
}

#[test]
fn appends_of_an_earlier_term_do_not_hold_up_those_of_a_later_one() {
    let (mut one, mut other) = up();
    let large = LINK_UNANSWERED_BYTES_MAX * 3 / 4;
    let append = |term, index, bytes| {
        let Item::Raft { shard, mut message } = raft(MessageType::MsgAppend, index, bytes) else {
            unreachable!("it makes one")
        };
        message.0.term = term;
        Item::Raft { shard, message }
    };
    for index in [5, 6, 7] {
        one.links.get_mut(&1).expect("up").send(append(3, index, large)).expect("there is room");
    }
    run(&mut one, &mut other);
    assert_eq!(other.items.len(), 1, "the others wait for its answer");
    one.links.get_mut(&1).expect("up").send(append(4, 5, large)).expect("there is room");
    run(&mut one, &mut other);
    assert_eq!(other.items.len(), 2, "what is of no use any more has gone");
    let Some(Item::Raft { message, .. }) = other.items.last() else { panic!("it is an append") };
    assert_eq!(message.0.term, 4);
    let link = &one.links[&1];
    assert_eq!(link.waiting_bytes(), 0);
    assert!(link.unanswered_bytes() <= LINK_UNANSWERED_BYTES_MAX, "counted once");
}

#[test]
fn what_finds_no_room_is_given_back() {
    let (mut one, _) = up();
    let link = one.links.get_mut(&1).expect("up");
    let mut beats = 0;
    while link.send(raft(MessageType::MsgHeartbeat, 0, 0)).is_ok() {
        beats += 1;
    }
    assert_eq!(beats, LINK_URGENT_BYTES_MAX / (8 + 8 + 36));
    let huge = Item::Transaction(vec![0; LINK_OTHERS_WAITING_BYTES_MAX + 1].into());
    assert_eq!(link.send(huge.clone()), Ok(()), "it waits alone");
    assert_eq!(link.send(Item::Transaction(Bytes::from_static(b"t"))), Err(Full));
    let quarter = LINK_APPENDS_WAITING_BYTES_MAX / 4;
    let sent = (0..9).take_while(|n| link.send(raft(MessageType::MsgAppend, *n, quarter)).is_ok());
    assert_eq!(sent.count(), 3);
}
