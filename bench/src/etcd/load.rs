//! A closed loop of puts or gets: one thread, each connection has one request on its way.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::wire::{Event, Wire};
use crate::client::epoll::Epoll;
use crate::client::keys::write_key;
use crate::client::plan::Data;
use crate::client::random::Random;
use crate::client::tally::Tally;
use crate::client::values::write_value;
use crate::cpus::{self, Cpus};

pub use super::wire::Call;

/// How long nothing may come before etcd counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How to ask.
#[derive(Clone, Copy)]
pub struct Load {
    /// What.
    pub call: Call,
    /// About which keys; picked uniformly.
    pub data: Data,
    /// Each with one request.
    pub connections: usize,
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub measured: Duration,
}

/// What came of it.
pub struct Outcome {
    /// Latencies within the measured time.
    pub tally: Tally,
    /// Length of the measured time.
    pub seconds: f64,
}

impl Outcome {
    /// Calls per second.
    pub fn rate(&self) -> f64 {
        self.tally.replies as f64 / self.seconds
    }
}

struct Connection {
    stream: TcpStream,
    wire: Wire,
    sent: Instant,
}

/// Runs it, with its thread on `cpus`. `begins` is called when the measured time begins.
/// Errors: a connection that fails, a call that is refused.
pub fn run(
    load: &Load,
    target: SocketAddr,
    cpus: &Cpus,
    begins: &mut (dyn FnMut() + Send),
) -> Result<Outcome, String> {
    let context = |error: std::io::Error| format!("etcd at {target}: {error}");
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                cpus::sit_down(cpus, 0);
                Loop::open(load, target).map_err(context)?.run(begins)
            })
            .join()
            .expect("the loop does not panic")
    })
}

struct Loop<'a> {
    load: &'a Load,
    connections: Vec<Connection>,
    epoll: Epoll,
    random: Random,
}

impl Loop<'_> {
    fn open(load: &Load, target: SocketAddr) -> std::io::Result<Loop<'_>> {
        let epoll = Epoll::new()?;
        let mut connections = Vec::new();
        for place in 0..load.connections {
            let mut stream = TcpStream::connect(target)?;
            stream.set_nodelay(true)?;
            let mut out = Vec::new();
            let wire = Wire::open(&mut out);
            stream.write_all(&out)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, place)?;
            connections.push(Connection { stream, wire, sent: Instant::now() });
        }
        Ok(Loop { load, connections, epoll, random: Random::new(1) })
    }

    fn run(mut self, begins: &mut (dyn FnMut() + Send)) -> Result<Outcome, String> {
        for place in 0..self.connections.len() {
            self.ask(place, Vec::new())?;
        }
        let start = Instant::now();
        let mut begin = None;
        let mut tally = Tally::new();
        let mut heard = start;
        loop {
            let now = Instant::now();
            match begin {
                None if now - start >= self.load.warm_up => {
                    begins();
                    begin = Some(Instant::now());
                }
                Some(begin) if now - begin >= self.load.measured => {
                    return Ok(Outcome { tally, seconds: (now - begin).as_secs_f64() });
                }
                _ => {}
            }
            let ready = self.epoll.wait(Duration::from_millis(10)).map_err(|e| e.to_string())?;
            for event in 0..ready {
                let place = self.epoll.ready(event);
                heard = Instant::now();
                let sent = self.connections[place].sent;
                if self.take(place)? && begin.is_some() {
                    tally.answered((heard - sent).as_nanos() as u64, 1);
                }
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(format!("etcd said nothing for {SILENCE_MAX:?}"));
            }
        }
    }

    /// Reads what came; true when the call is done, and the next one was sent.
    fn take(&mut self, place: usize) -> Result<bool, String> {
        let mut buffer = [0; 16 << 10];
        let connection = &mut self.connections[place];
        let length = match connection.stream.read(&mut buffer) {
            Ok(0) => return Err("etcd closed a connection".into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("etcd: {error}")),
        };
        let mut out = Vec::new();
        match connection.wire.receive(&buffer[..length], &mut out) {
            Some(Event::Done) => self.ask(place, out).map(|()| true),
            Some(Event::Refused) => Err("etcd refused a call".into()),
            Some(Event::Gone) => Err("etcd ended a connection".into()),
            None => self.send(place, &out).map(|()| false),
        }
    }

    /// Sends the next call behind `out`.
    fn ask(&mut self, place: usize, mut out: Vec<u8>) -> Result<(), String> {
        let Data { keys, key_size, sizes, .. } = self.load.data;
        let index = self.random.below(keys);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        write_key(&mut key, index, key_size);
        write_value(&mut value, index, sizes.of(index));
        let connection = &mut self.connections[place];
        connection.wire.call(&mut out, self.load.call, &key, &value);
        connection.sent = Instant::now();
        self.send(place, &out)
    }

    /// What is sent is far below what a socket takes.
    fn send(&mut self, place: usize, bytes: &[u8]) -> Result<(), String> {
        self.connections[place].stream.write_all(bytes).map_err(|error| format!("etcd: {error}"))
    }
}
