//! A thread of the client: its connections, its clock, its counts.
//!
//! One loop: wait for replies, judge them, send what may be sent next. In a closed loop that is the
//! connection's next batch; in an open loop it is whatever is due.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::book::Book;
use super::connection::Connection;
use super::epoll::{Epoll, Interest};
use super::plan::{Length, Load, Pace, Plan};
use super::random::Random;
use super::schedule::Schedule;
use super::tally::Tally;

/// Bytes read from a connection at once.
const RECEIVE_BYTES: usize = 256 << 10;

/// How long a closed loop waits for replies before it looks whether the run has ended.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// An open loop sleeps only if nothing is due for so long, and wakes so much early: a sleeping
/// thread comes late.
const SLEEP_MARGIN: Duration = Duration::from_micros(60);

/// How long requests may stay unanswered after the run's end before they count as lost.
const STRAGGLERS_MAX: Duration = Duration::from_secs(10);

/// What all threads of a run share.
pub struct Control {
    phase: AtomicU8,
    begin: Instant,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are sent and not measured.
    WarmUp,
    /// Requests are measured.
    Measured,
    /// No new requests.
    End,
}

impl Control {
    /// A run that begins now.
    pub fn new(phase: Phase) -> Control {
        Control { phase: AtomicU8::new(phase as u8), begin: Instant::now() }
    }

    /// Moves on.
    pub fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measured,
            _ => Phase::End,
        }
    }

    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }
}

/// What a thread shows while it runs. Alone on its cache lines, for it is written at every receipt.
#[derive(Default)]
#[repr(align(128))]
pub struct Meter {
    /// Replies since the run began, warm-up included.
    pub replies: AtomicU64,
    /// The longest latency since somebody last took it, in nanoseconds.
    pub longest_ns: AtomicU64,
    /// 1 when the thread has ended.
    pub ended: AtomicU64,
}

/// One thread.
pub struct Worker<'a> {
    plan: &'a Plan,
    load: &'a Load,
    control: &'a Control,
    meter: &'a Meter,
    epoll: Epoll,
    connections: Vec<Connection>,
    schedule: Option<Schedule>,
    /// The connection that takes the next due request.
    turn: usize,
    /// Requests whose replies have not come; without meaning in a run that ends by time.
    remaining: u64,
    tally: Tally,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    /// Builds the requests and connects. `index` counts the threads of the load.
    pub fn new(
        plan: &'a Plan,
        load: &'a Load,
        index: usize,
        target: SocketAddr,
        control: &'a Control,
        meter: &'a Meter,
    ) -> io::Result<Worker<'a>> {
        let epoll = Epoll::new()?;
        let mut connections = Vec::new();
        let mut remaining = 0_u64;
        for number in (index..load.connections).step_by(load.threads) {
            let left = match plan.length {
                Length::Seconds { .. } => u64::MAX,
                Length::Requests(all) => {
                    (all + load.connections as u64 - 1 - number as u64) / load.connections as u64
                }
            };
            let first_length = left.min(load.pipeline as u64) as usize;
            remaining = remaining.saturating_add(left);
            let book = Book::new(&plan.data, load, number, first_length, plan.seed);
            let connection = Connection::open(target, book, left)?;
            epoll.add(connection.stream(), connections.len())?;
            connections.push(connection);
        }
        let schedule = match load.pace {
            Pace::Closed => None,
            Pace::Open { rate, poisson } => {
                let threads = load.threads as f64;
                let random = poisson.then(|| Random::new(plan.seed ^ index as u64));
                let rate = rate / threads / load.pipeline as f64;
                Some(Schedule::new(rate, index as f64 / threads, random))
            }
        };
        Ok(Worker {
            plan,
            load,
            control,
            meter,
            epoll,
            connections,
            schedule,
            turn: 0,
            remaining,
            tally: Tally::new(),
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Runs to the end and returns what was measured.
    pub fn run(mut self) -> io::Result<Tally> {
        let outcome = self.serve();
        self.meter.ended.store(1, Ordering::Release);
        outcome.map(|()| self.tally)
    }

    fn serve(&mut self) -> io::Result<()> {
        let start_ns = self.control.now_ns();
        let mut phase = self.control.phase();
        let mut was_on = false;
        loop {
            let current = self.control.phase();
            if current != phase {
                phase = current;
                if phase == Phase::Measured {
                    self.tally = Tally::new();
                }
            }
            if phase == Phase::End || self.remaining == 0 {
                return self.finish();
            }
            let timeout = match self.schedule {
                None => {
                    let is_on = self.is_on();
                    if is_on && !was_on {
                        self.send_idle()?;
                    }
                    was_on = is_on;
                    self.until_change().min(WAIT_MAX)
                }
                Some(_) => self.send_due(start_ns)?,
            };
            self.turn(timeout)?;
        }
    }

    /// Waits, and deals with what is ready.
    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let ready = self.epoll.wait(timeout)?;
        for event in 0..ready {
            self.receive(self.epoll.ready(event))?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.has_unsent() {
            connection.flush()?;
            if !connection.has_unsent() {
                self.epoll.change(connection.stream(), index, Interest::Read)?;
            }
        }
        let length = connection.receive(&mut self.buffer)?;
        if length == 0 {
            return Ok(());
        }
        let now_ns = self.control.now_ns();
        let longest_ns = now_ns.saturating_sub(connection.oldest_ns().unwrap_or(now_ns));
        let replies = connection.digest(
            &self.buffer[..length],
            now_ns,
            &self.plan.data,
            self.plan.verify_every,
            &mut self.tally,
        )?;
        if replies > 0 {
            self.remaining -= replies;
            self.meter.replies.fetch_add(replies, Ordering::Relaxed);
            if longest_ns > self.meter.longest_ns.load(Ordering::Relaxed) {
                self.meter.longest_ns.store(longest_ns, Ordering::Relaxed);
            }
        }
        let is_due = self.schedule.is_none() && connection.is_idle();
        if is_due && self.control.phase() != Phase::End && self.is_on() {
            self.send_next(index)?;
        }
        Ok(())
    }

    /// Closed loop: does the load ask at this time?
    fn is_on(&self) -> bool {
        self.load.bursts.is_none_or(|bursts| bursts.is_on(self.control.begin.elapsed()))
    }

    fn until_change(&self) -> Duration {
        let bursts = self.load.bursts;
        bursts.map_or(Duration::MAX, |bursts| bursts.until_change(self.control.begin.elapsed()))
    }

    /// Closed loop: all connections that wait for nothing send.
    fn send_idle(&mut self) -> io::Result<()> {
        for index in 0..self.connections.len() {
            if self.connections[index].is_idle() {
                self.send_next(index)?;
            }
        }
        Ok(())
    }

    /// Closed loop: the connection's next batch, if it has one left.
    fn send_next(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if !connection.has_room() {
            return Ok(());
        }
        connection.push(self.load.pipeline, self.control.now_ns());
        self.flush(index)
    }

    /// Open loop: sends all that is due, and returns how long to wait for replies then.
    fn send_due(&mut self, start_ns: u64) -> io::Result<Duration> {
        let schedule = self.schedule.as_mut().expect("an open loop has a schedule");
        let now_ns = self.control.now_ns();
        let count = self.connections.len();
        // At most one batch per connection and look, so that replies are read however far behind
        // the client is.
        for _ in 0..count {
            let due_ns = start_ns + schedule.next_due();
            if due_ns > now_ns {
                let rest = Duration::from_nanos(due_ns - now_ns);
                return Ok(rest.saturating_sub(SLEEP_MARGIN).min(WAIT_MAX));
            }
            let room = (0..count)
                .map(|step| (self.turn + step) % count)
                .find(|index| self.connections[*index].has_room());
            // Without room the request stays due: it is the server's slowness, and is charged to
            // it.
            let Some(index) = room else { return Ok(Duration::ZERO) };
            self.turn = (index + 1) % count;
            schedule.advance();
            self.tally.sent(now_ns - due_ns);
            self.connections[index].push(self.load.pipeline, due_ns);
            Self::flush_one(&mut self.connections[index], &self.epoll, index)?;
        }
        Ok(Duration::ZERO)
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        Self::flush_one(&mut self.connections[index], &self.epoll, index)
    }

    fn flush_one(connection: &mut Connection, epoll: &Epoll, index: usize) -> io::Result<()> {
        connection.flush()?;
        if connection.has_unsent() {
            epoll.change(connection.stream(), index, Interest::ReadAndWrite)?;
        }
        Ok(())
    }

    /// Reads the replies that are still to come.
    fn finish(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < STRAGGLERS_MAX && !self.connections.iter().all(Connection::is_idle)
        {
            self.turn(WAIT_MAX)?;
        }
        self.tally.unanswered = self.connections.iter().map(Connection::awaited).sum();
        Ok(())
    }
}
