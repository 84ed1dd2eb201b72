//! Section `push`: what it costs to bring a message to a subscriber, with one, a hundred and ten
//! thousand of them, and memory: of subscribers who wait, and of keys that somebody caches.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Findings, Goal, Limit};
use crate::arm::{Arm, ServerCommand};
use crate::client::call::Caller;
use crate::client::epoll::Epoll;
use crate::client::resp::encode;
use crate::cpus::{self, Cpus};
use crate::measure::measurement::Clocks;
use crate::proc::resident_bytes;
use crate::report::Spread;

use Limit::AtMost;

/// Subscribers.
const CROWDS: [usize; 3] = [1, 100, 10_000];

/// Connections beside them. Few: 20,000 descriptors suffice for all.
const OTHER_CLIENTS: usize = 1000;

/// Messages that reach somebody, in one measurement.
const DELIVERIES: usize = 400_000;

/// Cpu per delivery, as a part of the cheaper one's of Redis 8.2 and Valkey 9.1.
const OF_BEST: f64 = 0.7;

/// Subscribers whose memory is measured, and those that come before.
const WAITING: usize = 15_000;
const WAITING_BEFORE: usize = 50;

/// Bytes of each.
const WAITING_BYTES: f64 = 600.0;

/// Keys that are read by a client that tracks, and how many at a time.
const TRACKED: usize = 1_000_000;
const TRACKED_AT_ONCE: usize = 10_000;

/// Bytes of each, as a part of what Redis takes.
const TRACKED_OF_REDIS: f64 = 0.7;

/// Time for servers to give back what they do not need.
const SETTLE: Duration = Duration::from_secs(4);

const CHANNEL: &[u8] = b"news";
const MESSAGE: [u8; 64] = [b'x'; 64];

/// How long nothing may come before messages count as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Delivered<'a> {
    kind: &'static str,
    server: &'a str,
    subscribers: usize,
    round: usize,
    deliveries: usize,
    server_cpu_us_per_delivery: f64,
    foreign_cpus: f64,
}

impl Findings<'_> {
    /// The whole section.
    pub(super) fn push(&mut self) -> Result<(), String> {
        let plain = "--save '' --appendonly no";
        let servers = [
            self.one_shard()?,
            self.options.peers.redis8(plain)?,
            self.options.peers.valkey(plain)?,
        ];
        for crowd in CROWDS {
            let name = format!("publish-{crowd}");
            if !self.options.wants(&name) {
                continue;
            }
            let mut costs: [Vec<f64>; 3] = Default::default();
            for round in 0..self.bench.setup.repeats {
                for turn in 0..servers.len() {
                    let index = (turn + round) % servers.len();
                    costs[index].push(self.deliver(&servers[index], crowd, round)?);
                }
            }
            let [ours, redis, valkey] = costs;
            let against = |peer: &[f64]| Spread::of(ours.iter().zip(peer).map(|(a, b)| a / b));
            let (redis, valkey) = (against(&redis), against(&valkey));
            let cheaper = if redis.median > valkey.median { redis } else { valkey };
            let us = Spread::of(ours.iter().copied()).median;
            let what = format!("{name}: cpu per delivery ({us:.2} us) / the cheaper peer's");
            self.goals.push(Goal::new(what, cheaper, AtMost(OF_BEST)));
        }
        if self.options.wants("waiting") {
            let ours = rounds(self.bench.setup.repeats, || waiting_bytes(&servers[0]))?;
            self.goals.push(Goal::new(
                format!("{WAITING} subscribers that wait: bytes of each"),
                ours,
                AtMost(WAITING_BYTES),
            ));
        }
        if self.options.wants("tracking") {
            let redis = self.redis(plain)?;
            let mut ours = Vec::new();
            let ratio = rounds(self.bench.setup.repeats, || {
                let (own, theirs) = (tracked_bytes(&servers[0])?, tracked_bytes(&redis)?);
                ours.push(own);
                Ok(own / theirs)
            })?;
            let bytes = Spread::of(ours).median;
            let what = format!("{TRACKED} keys of a tracking client ({bytes:.0} bytes) / Redis");
            self.goals.push(Goal::new(what, ratio, AtMost(TRACKED_OF_REDIS)));
            self.mention(redis);
        }
        servers.into_iter().for_each(|server| self.mention(server));
        Ok(())
    }

    /// Server's cpu per delivery, in microseconds.
    fn deliver(
        &mut self,
        server: &ServerCommand,
        crowd: usize,
        round: usize,
    ) -> Result<f64, String> {
        let setup = self.bench.setup.clone();
        let arm = Arm::start(server, Some(&setup.server_cpu))?;
        let clients = (crowd + OTHER_CLIENTS).to_string();
        arm.connect()?.call(&["CONFIG", "SET", "maxclients", &clients])?;
        let mut listeners = Listeners::subscribe(&arm, crowd)?;
        let mut publisher = arm.connect()?;
        // The first message brings what is only made once.
        publish(&mut publisher, crowd)?;
        listeners.take(crowd * frame_bytes(), None)?;
        let messages = (DELIVERIES / crowd).max(20);
        let before = Clocks::read(&arm)?;
        let begin = Instant::now();
        thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let bytes = messages * crowd * frame_bytes();
                listeners.take(bytes, Some(&setup.client_cpu))
            });
            for _ in 0..messages {
                publish(&mut publisher, crowd)?;
            }
            taker.join().expect("the taker does not panic")
        })?;
        let (cpu, _, foreign) = Clocks::read(&arm)?.since(&before);
        let deliveries = messages * crowd;
        let cost = cpu * 1e6 / deliveries as f64;
        self.bench.json.write(&Delivered {
            kind: "push",
            server: &arm.name,
            subscribers: crowd,
            round,
            deliveries,
            server_cpu_us_per_delivery: cost,
            foreign_cpus: foreign / begin.elapsed().as_secs_f64(),
        })?;
        Ok(cost)
    }
}

/// One number for each round.
fn rounds(count: usize, mut one: impl FnMut() -> Result<f64, String>) -> Result<Spread, String> {
    let all: Result<Vec<f64>, String> = (0..count).map(|_| one()).collect();
    all.map(Spread::of)
}

/// Resident bytes of a subscriber to a channel that nobody publishes to.
fn waiting_bytes(server: &ServerCommand) -> Result<f64, String> {
    let arm = Arm::start(server, None)?;
    let clients = (WAITING_BEFORE + WAITING + OTHER_CLIENTS).to_string();
    arm.connect()?.call(&["CONFIG", "SET", "maxclients", &clients])?;
    let _first = Listeners::subscribe(&arm, WAITING_BEFORE)?;
    let before = resident_bytes(arm.pid())?;
    let _rest = Listeners::subscribe(&arm, WAITING)?;
    thread::sleep(SETTLE);
    let grown = resident_bytes(arm.pid())?.saturating_sub(before);
    Ok(grown as f64 / WAITING as f64)
}

/// Resident bytes that a server takes to know that a client has read a key.
fn tracked_bytes(server: &ServerCommand) -> Result<f64, String> {
    let arm = Arm::start(server, None)?;
    let mut caller = arm.connect()?;
    caller.call(&["CONFIG", "SET", "tracking-table-max-keys", "0"])?;
    let keys: Vec<String> = (0..TRACKED).map(|number| format!("key:{number:012}")).collect();
    let each = |words: &mut dyn FnMut(&[String]) -> Result<(), String>| {
        keys.chunks(TRACKED_AT_ONCE).try_for_each(words)
    };
    each(&mut |keys| {
        let pairs = keys.iter().flat_map(|key| [key.as_str(), "x"]);
        let words: Vec<&str> = ["MSET"].into_iter().chain(pairs).collect();
        caller.call(&words).map(|_| ())
    })?;
    let read = |caller: &mut Caller| {
        each(&mut |keys| {
            let words: Vec<&str> =
                ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
            caller.take_long(&words)
        })
    };
    // Buffers of requests and replies are there before and after.
    read(&mut caller)?;
    let before = resident_bytes(arm.pid())?;
    caller.call(&["CLIENT", "TRACKING", "ON"])?;
    read(&mut caller)?;
    let grown = resident_bytes(arm.pid())?.saturating_sub(before);
    Ok(grown as f64 / TRACKED as f64)
}

fn publish(publisher: &mut Caller, crowd: usize) -> Result<(), String> {
    let text = |bytes| std::str::from_utf8(bytes).expect("plain letters");
    let reached = publisher.number(&["PUBLISH", text(CHANNEL), text(&MESSAGE)])?;
    if reached == crowd as u64 { Ok(()) } else { Err(format!("PUBLISH reached {reached}")) }
}

/// Bytes of a message as a subscriber receives it.
fn frame_bytes() -> usize {
    let mut frame = Vec::new();
    encode(&mut frame, &[b"message", CHANNEL, &MESSAGE]);
    frame.len()
}

/// Subscribers who count bytes.
struct Listeners {
    streams: Vec<TcpStream>,
    epoll: Epoll,
}

impl Listeners {
    fn subscribe(arm: &Arm, count: usize) -> Result<Listeners, String> {
        let mut request = Vec::new();
        encode(&mut request, &[b"SUBSCRIBE", CHANNEL]);
        let mut confirmation = Vec::new();
        encode(&mut confirmation, &[b"subscribe", CHANNEL]);
        // The same words, and a number.
        let mut reply = vec![0; confirmation.len() + b":1\r\n".len()];
        let mut subscribe = || {
            let mut stream = TcpStream::connect(arm.address())?;
            stream.write_all(&request)?;
            stream.read_exact(&mut reply)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let context = |error: std::io::Error| format!("subscribing: {error}");
        let epoll = Epoll::new().map_err(context)?;
        let mut streams = Vec::new();
        for place in 0..count {
            let stream = subscribe().map_err(context)?;
            epoll.add(&stream, place).map_err(context)?;
            streams.push(stream);
        }
        Ok(Listeners { streams, epoll })
    }

    /// Reads until so many bytes have come, in all.
    fn take(&mut self, mut bytes: usize, cpus: Option<&Cpus>) -> Result<(), String> {
        if let Some(cpus) = cpus {
            cpus::sit_down(cpus, 0);
        }
        let mut buffer = vec![0; 64 << 10];
        let mut heard = Instant::now();
        while bytes > 0 {
            let ready = self.epoll.wait(Duration::from_millis(20)).map_err(|e| e.to_string())?;
            for event in 0..ready {
                let place = self.epoll.ready(event);
                match self.streams[place].read(&mut buffer) {
                    Ok(0) => return Err("a subscriber was closed".into()),
                    Ok(length) if length > bytes => return Err("more came than was sent".into()),
                    Ok(length) => bytes -= length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("a subscriber: {error}")),
                }
                heard = Instant::now();
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(format!("{bytes} bytes of messages did not come"));
            }
        }
        Ok(())
    }
}
