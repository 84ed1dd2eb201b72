//! Clients that append numbers to lists and remember which were acknowledged.

use crate::cluster::Cluster;
use crate::support::{Client, PATIENCE, Value, eventually};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What one client has seen.
#[derive(Debug)]
pub struct Seen {
    /// Its list.
    pub key: String,
    /// Numbers that were acknowledged, in order.
    pub acknowledged: Vec<u64>,
    /// Errors that it was told.
    pub errors: Vec<String>,
    /// The longest time that a request took.
    pub longest: Duration,
}

/// Has so many clients at each of these ports append while `meanwhile` runs, and until each has had
/// `count` more acknowledged after it.
pub fn append(ports: &[u16], clients: usize, count: usize, meanwhile: impl FnOnce()) -> Vec<Seen> {
    let (is_over, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let given_up = GivenUp::default();
    let all = ports.len() * clients;
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for &port in ports {
            for n in 0..clients {
                let (is_over, begun, given_up) = (&is_over, &begun, &given_up);
                workers.push(scope.spawn(move || worker(port, n, count, is_over, begun, given_up)));
            }
        }
        let guard = OnEnd(|| given_up.0.store(std::thread::panicking(), Ordering::Release));
        eventually("every client has begun", || {
            (begun.load(Ordering::Acquire) == all).then_some(())
        });
        meanwhile();
        drop(guard);
        is_over.store(true, Ordering::Release);
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    })
}

/// The test has failed: nobody waits for what may never come.
#[derive(Default)]
struct GivenUp(AtomicBool);

/// Does something at its end, whether or not the test has failed.
pub struct OnEnd<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn worker(
    port: u16,
    n: usize,
    count: usize,
    is_over: &AtomicBool,
    begun: &AtomicUsize,
    given_up: &GivenUp,
) -> Seen {
    let key = format!("list-{port}-{n}-{:?}", Instant::now());
    let mut seen =
        Seen { key, acknowledged: Vec::new(), errors: Vec::new(), longest: Duration::ZERO };
    let mut client = Client::connect(port);
    let (mut number, mut left) = (0, count);
    let mut over_since = None;
    while left > 0 && !given_up.0.load(Ordering::Acquire) {
        let asked = Instant::now();
        let reply = client.call(&["RPUSH", &seen.key, &number.to_string()]);
        seen.longest = seen.longest.max(asked.elapsed());
        if reply.is_error() {
            seen.errors.push(reply.error().to_string());
        } else {
            seen.acknowledged.push(number);
        }
        number += 1;
        if number == 50 {
            begun.fetch_add(1, Ordering::AcqRel);
        }
        if is_over.load(Ordering::Acquire) {
            let since = *over_since.get_or_insert_with(Instant::now);
            assert!(
                since.elapsed() < PATIENCE,
                "nothing is taken any more: {:?}",
                seen.errors.last()
            );
            left -= usize::from(!reply.is_error());
        }
    }
    seen
}

/// Everything that was acknowledged is there, once and in order, at every node that is up.
pub fn check(cluster: &Cluster, all: &[Seen]) {
    for node in cluster.up() {
        let mut client = cluster.client(node);
        for seen in all {
            let list = client.call(&["LRANGE", &seen.key, "0", "-1"]);
            let found: Vec<u64> = list.elements().iter().map(number).collect();
            let set: BTreeSet<u64> = found.iter().copied().collect();
            let missing: Vec<_> = seen.acknowledged.iter().filter(|n| !set.contains(n)).collect();
            assert!(missing.is_empty(), "{} lacks {missing:?}; told {:?}", seen.key, seen.errors);
            assert_eq!(set.len(), found.len(), "{}: something is there twice", seen.key);
            assert!(found.is_sorted(), "{}: the order is another", seen.key);
        }
    }
    cluster.is_level();
}

fn number(value: &Value) -> u64 {
    value.text().parse().expect("a number was appended")
}

/// The ports of nodes.
pub fn ports(cluster: &Cluster, nodes: impl Iterator<Item = usize>) -> Vec<u16> {
    nodes.map(|node| cluster.servers[node].port()).collect()
}
