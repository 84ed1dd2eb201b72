//! Carriers: threads that take keys to other servers. Only they wait for a target.

use super::line::{Broken, Line};
use super::{After, Arrived, Migration, Question, Slice};
use crate::client::encode;
use crate::core::mail::mailbox::{Mail, MailboxSender};
use crate::core::{Core, wall_clock_ms};
use crate::limits::{MIGRATE_REPLIES_MAX, MIGRATE_STARTS_MAX};
use crossbeam_channel::{Receiver, Sender};
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::KeyHasher;
use ringraft_shards::rdb::{Made, Payload, Payloads};
use ringraft_shards::transaction::{NO_LEADER, TransactionId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Which keys a carrier takes, and how.
pub(super) struct Carriage {
    pub id: TransactionId,
    pub migration: Arc<Migration>,
    /// Where the keys are here.
    pub database: DatabaseIndex,
    /// The keys of each shard.
    pub parts: Vec<(ShardId, Arc<[Vec<u8>]>)>,
    pub hasher: KeyHasher,
    /// The core that asked.
    pub core: MailboxSender,
    pub stage: Arc<Stage>,
}

/// How far a carriage is, as its core and its carrier agree on it.
#[derive(Default)]
pub(super) struct Stage(AtomicU8);

const CONNECTING: u8 = 0;
const TALKING: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Shorter payloads are sent in one piece with what is around them.
const JOINED_BYTES_MAX: usize = 64 * 1024;

impl Stage {
    /// The connection stands. False: it came too late.
    fn talks(&self) -> bool {
        let talks =
            self.0.compare_exchange(CONNECTING, TALKING, Ordering::AcqRel, Ordering::Acquire);
        talks.is_ok()
    }

    /// Makes the carrier end soon. True: it has said nothing to the target and will not, nor
    /// report.
    pub fn give_up(&self) -> bool {
        self.0.swap(GIVEN_UP, Ordering::AcqRel) == CONNECTING
    }

    /// Is the carrier to end?
    pub fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == GIVEN_UP
    }
}

/// A new carrier, and the way to it. It ends when nobody can send it anywhere.
/// Errors: no thread.
pub(super) fn start() -> std::io::Result<Sender<Carriage>> {
    let (sender, carriages) = crossbeam_channel::unbounded();
    std::thread::Builder::new().name("migrate".into()).spawn(move || work(&carriages))?;
    Ok(sender)
}

fn work(carriages: &Receiver<Carriage>) {
    let mut line = None;
    while let Ok(carriage) = carriages.recv() {
        let mut trip = Trip {
            carriage: &carriage,
            unanswered: VecDeque::new(),
            acknowledged: Vec::new(),
            refused: None,
            has_heard: false,
        };
        let ended = trip.make(&mut line);
        let Trip { acknowledged, refused, .. } = trip;
        if ended.is_err() {
            line = None;
        }
        let error = match (refused, ended) {
            (None, Err(Failure::GivenUp)) => return,
            (None, Err(failure)) => Some(failure.text().as_bytes().to_vec()),
            (refused, _) => refused,
        };
        let after = if line.is_some() { After::Waits } else { After::Ends };
        let (id, arrived) = (carriage.id, Arrived { acknowledged, error, after });
        post(&carriage.core, move |core| core.arrived(id, arrived));
    }
}

/// Sends a task to a core. One whose mailbox is full takes some turns.
fn post(core: &MailboxSender, task: impl FnOnce(&mut Core) + Send + 'static) {
    let mut mail = Mail::Task(Box::new(task));
    while let Err(back) = core.send(mail) {
        mail = back;
        std::thread::yield_now();
    }
}

/// Why a trip ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Connecting,
    Writing(Broken),
    Reading(Broken),
    NoLocks,
    /// The core has answered already.
    GivenUp,
}

impl Failure {
    fn text(self) -> &'static str {
        match self {
            Failure::Connecting => "IOERR error or timeout connecting to the client",
            Failure::Writing(_) => "IOERR error or timeout writing to target instance",
            Failure::Reading(_) => "IOERR error or timeout reading from target instance",
            Failure::NoLocks | Failure::GivenUp => NO_LEADER,
        }
    }
}

/// The way of one carriage.
struct Trip<'a> {
    carriage: &'a Carriage,
    /// Keys that were sent, and of which the target has said nothing.
    unanswered: VecDeque<Vec<u8>>,
    acknowledged: Vec<Vec<u8>>,
    /// The first error of the target, as the client is told it.
    refused: Option<Vec<u8>>,
    /// Has the target said anything?
    has_heard: bool,
}

impl Trip<'_> {
    /// Makes it, over the connection that there is or a new one. One that was kept may have been
    /// closed by the target meanwhile: then a new one is tried, if nothing was heard over it.
    fn make(&mut self, line: &mut Option<Line>) -> Result<(), Failure> {
        if line.is_some() {
            if !self.carriage.stage.talks() {
                return Err(Failure::GivenUp);
            }
            match self.go(line.as_mut().expect("just seen")) {
                Err(Failure::Writing(Broken::Lost) | Failure::Reading(Broken::Lost))
                    if !self.has_heard => {}
                ended => return ended,
            }
            self.unanswered.clear();
            *line = Some(self.connect()?);
        } else {
            let connected = self.connect();
            if !self.carriage.stage.talks() {
                return Err(Failure::GivenUp);
            }
            *line = Some(connected?);
        }
        self.go(line.as_mut().expect("just connected"))
    }

    fn connect(&self) -> Result<Line, Failure> {
        let migration = &self.carriage.migration;
        let line = Line::connect(&migration.destination, migration.patience);
        // Redis notices a refusal when it writes, and says so.
        line.map_err(|broken| match broken {
            Broken::TimedOut => Failure::Connecting,
            Broken::Lost => Failure::Writing(Broken::Lost),
        })
    }

    fn go(&mut self, line: &mut Line) -> Result<(), Failure> {
        self.introduce(line)?;
        let mut payloads = Payloads::new(self.carriage.hasher);
        for (shard, keys) in &self.carriage.parts {
            self.take_keys(line, &mut payloads, *shard, keys)?;
        }
        while !self.unanswered.is_empty() {
            self.hear(line)?;
        }
        Ok(())
    }

    /// Says who asks, and which database. What the target refuses here is heard before it gets any
    /// value.
    fn introduce(&mut self, line: &mut Line) -> Result<(), Failure> {
        let migration = self.carriage.migration.clone();
        if !migration.credentials.is_empty() {
            let mut words = vec![b"AUTH".to_vec()];
            words.extend(migration.credentials.iter().cloned());
            self.ask(line, &words)?;
        }
        if line.database != Some(migration.database) {
            let number = migration.database.to_string();
            self.ask(line, &[b"SELECT".to_vec(), number.into_bytes()])?;
            line.database = Some(migration.database);
        }
        Ok(())
    }

    /// Asks something that is to be answered well.
    fn ask(&mut self, line: &mut Line, words: &[Vec<u8>]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        let (migration, stage) = (&self.carriage.migration, &self.carriage.stage);
        line.write(&bytes, migration, stage).map_err(Failure::Writing)?;
        let reply = line.read(migration, stage).map_err(Failure::Reading)?;
        self.has_heard = true;
        match reply.strip_prefix(b"-") {
            Some(error) => {
                self.refuse(error);
                // What follows would be refused too, or go elsewhere.
                Err(Failure::Reading(Broken::Lost))
            }
            None => Ok(()),
        }
    }

    fn refuse(&mut self, error: &[u8]) {
        let told = [b"ERR Target instance replied with error: ", error].concat();
        self.refused.get_or_insert(told);
    }

    /// Takes the keys of a shard.
    fn take_keys(
        &mut self,
        line: &mut Line,
        payloads: &mut Payloads,
        shard: ShardId,
        keys: &Arc<[Vec<u8>]>,
    ) -> Result<(), Failure> {
        let (mut from, mut starts) = ((0, 0), 0);
        while from.0 < keys.len() {
            for Slice { record, next } in self.slices(shard, keys, from)? {
                let key = &keys[from.0];
                let behind = (from.0 + 1, 0);
                let made = match record.is_empty() {
                    // Its time has come. What was put together of it is thrown away with the next
                    // one's first piece.
                    true => None,
                    false => Some(payloads.take(&record, next.is_none())),
                };
                from = next.map_or(behind, |next| (from.0, next));
                match made {
                    None => from = behind,
                    Some(Made::Part) => continue,
                    Some(Made::Whole(payload)) => self.send(line, key, payload)?,
                    Some(Made::Changed) => {
                        // Fields of it have ended: once more. At last it stays here.
                        starts += 1;
                        let place = behind.0 - 1;
                        from = if starts < MIGRATE_STARTS_MAX { (place, 0) } else { behind };
                        if starts == MIGRATE_STARTS_MAX {
                            self.refused
                                .get_or_insert(b"ERR the value changes all the time".into());
                        }
                        break;
                    }
                }
                starts = 0;
            }
        }
        Ok(())
    }

    fn slices(
        &self,
        shard: ShardId,
        keys: &Arc<[Vec<u8>]>,
        from: (usize, u64),
    ) -> Result<Vec<Slice>, Failure> {
        if self.carriage.stage.is_given_up() {
            return Err(Failure::Writing(Broken::TimedOut));
        }
        let (answer, answers) = crossbeam_channel::bounded(1);
        let (id, database) = (self.carriage.id, self.carriage.database);
        let question = Question { id, shard, database, keys: keys.clone(), from, answer };
        post(&self.carriage.core, move |core| core.ask_slices(question));
        // Nobody answers when the process ends.
        answers.recv().ok().flatten().ok_or(Failure::NoLocks)
    }

    /// Sends a key, once the target has answered some of those before it.
    fn send(&mut self, line: &mut Line, key: &[u8], payload: Payload) -> Result<(), Failure> {
        let Payload { deadline, bytes } = payload;
        let left_ms = deadline.map_or(0, |deadline| deadline.0 - wall_clock_ms());
        if left_ms < 0 {
            // It is over, and nobody sees it any more.
            return Ok(());
        }
        let left_ms = if deadline.is_some() { left_ms.max(1) } else { 0 };
        while self.unanswered.len() >= MIGRATE_REPLIES_MAX {
            self.hear(line)?;
        }
        let count = if self.carriage.migration.replaces { 5 } else { 4 };
        let mut head = format!("*{count}\r\n$7\r\nRESTORE\r\n${}\r\n", key.len()).into_bytes();
        head.extend_from_slice(key);
        let digits = left_ms.to_string();
        let middle = format!("\r\n${}\r\n{digits}\r\n${}\r\n", digits.len(), bytes.len());
        head.extend_from_slice(middle.as_bytes());
        let tail: &[u8] = match self.carriage.migration.replaces {
            true => b"\r\n$7\r\nREPLACE\r\n",
            false => b"\r\n",
        };
        let (migration, stage) = (&self.carriage.migration, &self.carriage.stage);
        let mut parts = vec![head, bytes];
        if parts[1].len() < JOINED_BYTES_MAX {
            let bytes = parts.pop().unwrap_or_default();
            parts[0].extend_from_slice(&bytes);
            parts[0].extend_from_slice(tail);
        } else {
            parts.push(tail.to_vec());
        }
        for part in parts {
            line.write(&part, migration, stage).map_err(Failure::Writing)?;
        }
        self.unanswered.push_back(key.to_vec());
        Ok(())
    }

    /// Hears what the target says of the oldest key that it has not answered.
    fn hear(&mut self, line: &mut Line) -> Result<(), Failure> {
        let (migration, stage) = (&self.carriage.migration, &self.carriage.stage);
        let reply = line.read(migration, stage).map_err(Failure::Reading)?;
        self.has_heard = true;
        let key = self.unanswered.pop_front().expect("the caller looked");
        match reply.strip_prefix(b"-") {
            None => self.acknowledged.push(key),
            Some(error) => {
                self.refuse(error);
                line.database = None;
            }
        }
        Ok(())
    }
}
