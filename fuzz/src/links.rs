//! Links: whatever comes over a connection, before and after the handshake, ends it or is read; in any pieces alike.
//!
//! Inputs of `frames` are steps: the kind of a frame and its body; head, number and checksums are put in place behind a
//! handshake that went well. Inputs of `hellos` are what a stranger sends: a switch, then raw bytes, or the body of a hello.

use std::io::IoSlice;

use ringraft_shards::ids::{ClusterId, DirectoryId, MonotonicTime, NodeId};
use ringraft_shards::peer::{
    Hello, Identity, Link, LinkEvent, NONCE_BYTES, PREFACE, PROTOCOLS, Purpose, Secret,
    encode_items, take_all,
};

const NOW: MonotonicTime = MonotonicTime(1_000_000);
const KINDS: [u8; 10] = [1, 1, 1, 2, 3, 4, 5, 16, 17, 19];

fn hello(node: u64, to: u64) -> Hello {
    Hello {
        identity: Identity {
            cluster: ClusterId(7),
            epoch: 1,
            node: NodeId(node),
            directory: DirectoryId(node.into()),
            start: 1,
            process: node,
            level: 1,
            address: "127.0.0.1:7481".into(),
        },
        protocols: PROTOCOLS,
        purpose: Purpose::Link,
        core: 0,
        to: NodeId(to),
        to_core: 0,
        life: 0,
        nonce: [node as u8; NONCE_BYTES],
    }
}

fn take(link: &mut Link) -> Vec<u8> {
    link.encode(NOW);
    let mut slices: Vec<IoSlice<'_>> = Vec::new();
    link.slices(&mut slices, usize::MAX);
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
    link.sent(bytes.len());
    bytes
}

/// Both ends of a link that is up.
fn pair() -> (Link, Link) {
    let mut one = Link::dial(Secret::new("secret"), hello(1, 2), NOW);
    let mut other = Link::accept(Secret::new("secret"), hello(2, 0), NOW);
    for _ in 0..4 {
        exchange(&mut one, &mut other);
        exchange(&mut other, &mut one);
    }
    assert!(one.is_up() && other.is_up());
    (one, other)
}

fn exchange(from: &mut Link, to: &mut Link) {
    let (bytes, mut events) = (take(from), Vec::new());
    to.receive(&bytes, NOW, &mut events).expect("both are as they should be");
    for event in events.clone() {
        match event {
            LinkEvent::Greeted => to.answer_hello(0, 0),
            LinkEvent::Proven => to.admit(&mut events),
            _ => {}
        }
    }
}

fn frame(kind: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let mut head = (body.len() as u32).to_le_bytes().to_vec();
    head.extend_from_slice(&[kind, 0, 0, 0]);
    head.extend_from_slice(&number.to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    [&head, body].concat()
}

/// Checks one input of frames behind a handshake.
pub fn check_frames(data: &[u8]) {
    let [piece, steps @ ..] = data else { return };
    let mut steps = steps;
    let mut stream = Vec::new();
    // What the handshake has used up: a hello and a proof.
    let mut number = 3;
    while let [kind, length, rest @ ..] = steps {
        let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        stream.extend(frame(KINDS[usize::from(*kind) % KINDS.len()], number, body));
        (number, steps) = (number + 1, rest);
    }
    let feed = |size: usize| {
        let (_, mut other) = pair();
        let mut events = Vec::new();
        let result =
            stream.chunks(size.max(1)).try_for_each(|bytes| other.receive(bytes, NOW, &mut events));
        (events, result)
    };
    let whole = feed(stream.len());
    assert_eq!(feed(usize::from(*piece)), whole, "in pieces");
    for event in &whole.0 {
        let LinkEvent::Item(item) = event else { continue };
        assert!(item.bytes() <= data.len() + 64, "an item is no longer than its input");
        let mut again = Vec::new();
        let bytes = encode_items(std::slice::from_ref(item));
        take_all(bytes, NodeId(1), NodeId(2), |item| again.push(item)).expect("it was written");
        assert_eq!(again, std::slice::from_ref(item), "written again");
    }
}

/// Checks one input of a stranger.
pub fn check_hellos(data: &[u8]) {
    let [how, rest @ ..] = data else { return };
    let stream = match how % 3 {
        0 => rest.to_vec(),
        1 => [PREFACE, rest].concat(),
        _ => [&PREFACE[..], &frame(16, 1, rest)].concat(),
    };
    let mut link = Link::accept(Secret::new("secret"), hello(2, 0), NOW);
    let (mut events, mut said) = (Vec::new(), Vec::new());
    for bytes in stream.chunks(usize::from(how / 3).max(1)) {
        let ended = link.receive(bytes, NOW, &mut events).is_err();
        if events.contains(&LinkEvent::Greeted) {
            link.answer_hello(0, 0);
        }
        assert!(!events.contains(&LinkEvent::Proven), "it does not know the secret");
        said.extend(take(&mut link));
        if ended {
            break;
        }
    }
    if !events.contains(&LinkEvent::Greeted) {
        assert!(said.is_empty(), "strangers hear nothing");
    }
    assert!(said.len() < 1000, "and not much");
}

/// Streams of every kind of frame.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, body: &[u8]| [&[kind, body.len() as u8][..], body].concat();
    let item = |kind: u8, own: &[u8]| {
        [&[kind, 0, 4, 0][..], &(own.len() as u32).to_le_bytes(), own].concat()
    };
    let numbers = |count: usize| [0, 0, 0, 0, 0, 0, 0, 0].repeat(count);
    let mut entries = numbers(5);
    entries.extend_from_slice(&[1, 0, 0, 0, 0]);
    entries.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    entries.extend_from_slice(b"data");
    // Of entries that would be counted beyond the last number: a finding.
    let mut beyond = entries.clone();
    beyond[16..24].fill(0xff);
    let mut snapshot = numbers(4);
    snapshot.extend_from_slice(&[0; 1 + 5 * 4]);
    let bodies = [
        item(1, &entries),
        item(1, &beyond),
        item(2, &numbers(6)),
        item(3, &[&numbers(1)[..], &[5; 2], &[1, 0], &numbers(4)].concat()),
        item(4, &[&numbers(1)[..], &[5; 2], &[0, 0], &numbers(4)].concat()),
        item(5, &numbers(6)),
        item(6, &numbers(4)),
        item(7, &numbers(2)),
        item(8, &snapshot),
        item(16, b"a message"),
    ];
    let mut seeds: Vec<Vec<u8>> =
        bodies.iter().map(|body| [vec![7], step(0, body)].concat()).collect();
    let all: Vec<u8> = bodies.concat();
    let part = |at: usize, bytes: &[u8]| {
        let (length, at) = (all.len() as u64, at as u64);
        step(3, &[&length.to_le_bytes()[..], &at.to_le_bytes(), bytes].concat())
    };
    let (first, second) = all.split_at(100);
    let (second, third) = second.split_at(200);
    let parts = [part(0, first), step(4, b""), part(100, second), part(300, third)].concat();
    seeds.push([vec![30], parts].concat());
    seeds.push([vec![1], step(4, b""), step(5, b"bulk"), step(6, b"bye")].concat());
    seeds
}

/// Hellos, and what is none.
pub fn hello_seeds() -> Vec<Vec<u8>> {
    let body = hello(1, 2).encode().to_vec();
    let whole = frame(16, 1, &body);
    vec![
        [vec![2], body.clone()].concat(),
        [vec![0], PREFACE.to_vec(), whole.clone()].concat(),
        [vec![100], whole.clone(), frame(17, 2, &[0; 32])].concat(),
        [vec![1], whole].concat(),
        [vec![0], b"*1\r\n$4\r\nPING\r\n".to_vec()].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use ringraft_shards::peer::Item;

    use super::*;

    #[test]
    fn the_seeds_are_read() {
        for (n, seed) in frame_seeds().iter().enumerate().take(9) {
            let (_, mut other) = pair();
            let mut events = Vec::new();
            let stream = frame(1, 3, &seed[3..]);
            other.receive(&stream, NOW, &mut events).expect("a good seed");
            assert!(matches!(events[..], [LinkEvent::Item(_)]), "seed {n}: {events:?}");
            if n == 8 {
                assert_eq!(events, [LinkEvent::Item(Item::Transaction(b"a message"[..].into()))]);
            }
        }
        let mut link = Link::accept(Secret::new("secret"), hello(2, 0), NOW);
        let mut events = Vec::new();
        link.receive(&hello_seeds()[1][1..], NOW, &mut events).expect("a good seed");
        assert_eq!(events, [LinkEvent::Greeted]);
    }
}
