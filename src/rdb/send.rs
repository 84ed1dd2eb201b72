//! Sends items to a server, as many at a time as it takes, and hears what it says to each.

use crate::client::{Answer, Client, Target, encode};
use crate::limits::{IMPORT_REPLIES_MAX, PRINT_BUFFER_BYTES, PRINTED_ELEMENTS_MAX};
use ringraft_shards::ids::{DatabaseIndex, Deadline};
use ringraft_shards::rdb::file::{ItemFields, Library};
use ringraft_shards::rdb::{Fault, ItemRecord, Piece, write_payload_of};
use ringraft_shards::value::{Part, ValueType};
use std::io::{self, BufWriter, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What a reply means.
enum Asked {
    /// The item is there now, or it was there before.
    Item(Vec<u8>),
    /// The library of functions is there now, or it was there before.
    Library(Vec<u8>),
    /// More of an item, or what belongs to it.
    Part(Vec<u8>),
    /// Is there this key? Told by this way.
    Present(Vec<u8>, SyncSender<bool>),
}

/// What the server said.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Items that it took.
    pub taken: u64,
    /// Items that it had before, which stay as they are.
    pub present: u64,
    /// The first of those.
    pub first_present: Option<Vec<u8>>,
    /// The first thing that it refused, and why.
    pub refused: Option<String>,
}

/// May what is there be overwritten?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// It stays.
    Stays,
    /// It goes.
    IsReplaced,
}

/// A connection that items are sent over.
pub struct Sender {
    out: BufWriter<TcpStream>,
    asked: SyncSender<Asked>,
    replies: JoinHandle<Outcome>,
    present: Present,
    database: DatabaseIndex,
    /// The item that comes in pieces: its deadline, or nothing when it is passed over.
    open: Option<Option<Deadline>>,
    bytes: Vec<u8>,
}

impl Sender {
    /// Connects.
    pub fn connect(target: &Target, present: Present) -> Result<Sender, String> {
        let client = Client::connect(target)?;
        let out = client.writer().map_err(|error| error.to_string())?;
        let out = BufWriter::with_capacity(PRINT_BUFFER_BYTES, out);
        let (asked, replies) = sync_channel(IMPORT_REPLIES_MAX);
        let replies = std::thread::Builder::new()
            .name("replies".into())
            .spawn(move || hear(client, &replies))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        let (database, open, bytes) = (DatabaseIndex(0), None, Vec::new());
        Ok(Sender { out, asked, replies, present, database, open, bytes })
    }

    /// Sends an item, or a piece of one.
    /// Errors: the connection is gone, or the server has refused something: [`Sender::finish`] says
    /// what.
    pub fn send(&mut self, record: &ItemRecord<'_>, fields: ItemFields) -> io::Result<()> {
        if record.database != self.database {
            self.database = record.database;
            let number = record.database.0.to_string();
            self.say(Asked::Part(Vec::new()), &[b"SELECT", number.as_bytes()])?;
        }
        match record.piece {
            Piece::Whole if record.value.value_type() == ValueType::String => {
                self.string(record, fields)
            }
            Piece::Whole => self.restore(record, fields),
            Piece::First(_) => self.begin(record),
            Piece::Next(_) => self.go_on(record),
        }
    }

    /// The item that was sent in pieces is whole.
    pub fn item_ends(&mut self, key: &[u8]) -> io::Result<()> {
        match self.open.take() {
            Some(Some(deadline)) if deadline.0 < i64::MAX => {
                let at = deadline.0.to_string();
                self.say(Asked::Part(key.to_vec()), &[b"PEXPIREAT", key, at.as_bytes()])
            }
            _ => Ok(()),
        }
    }

    /// Sends a library of functions.
    pub fn library(&mut self, library: &Library) -> io::Result<()> {
        let mut words: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD"];
        if self.present == Present::IsReplaced {
            words.push(b"REPLACE");
        }
        words.push(&library.text);
        self.say(Asked::Library(library.name.clone()), &words)
    }

    /// Waits for the last reply.
    pub fn finish(mut self) -> Outcome {
        // A connection that is gone is told by who reads from it.
        let _ = self.out.flush();
        drop(self.asked);
        self.replies.join().unwrap_or_default()
    }

    fn string(&mut self, record: &ItemRecord<'_>, fields: ItemFields) -> io::Result<()> {
        /// As a payload, a longer one might be longer than the server takes.
        const RESTORED_BYTES_MAX: u64 = 1 << 20;
        if record.value.count() <= RESTORED_BYTES_MAX {
            return self.restore(record, fields);
        }
        let value = record.value.string().unwrap_or_default();
        let at = record.deadline.map(|at| at.0.to_string());
        let mut words: Vec<&[u8]> = vec![b"SET", &record.key, &value];
        if self.present == Present::Stays {
            words.push(b"NX");
        }
        if let Some(at) = &at {
            words.extend([&b"PXAT"[..], at.as_bytes()]);
        }
        self.say(Asked::Item(record.key.to_vec()), &words)
    }

    fn restore(&mut self, record: &ItemRecord<'_>, fields: ItemFields) -> io::Result<()> {
        let mut payload = std::mem::take(&mut self.bytes);
        payload.clear();
        write_payload_of(&mut payload, &record.value);
        let at = record.deadline.map_or(0, |at| at.0).to_string();
        let mut words: Vec<&[u8]> =
            vec![b"RESTORE", &record.key, at.as_bytes(), &payload, b"ABSTTL"];
        if self.present == Present::IsReplaced {
            words.push(b"REPLACE");
        }
        let (idle, frequency) = (
            fields.idle_seconds.map(|seconds| seconds.to_string()),
            fields.frequency.map(|frequency| frequency.to_string()),
        );
        match (&idle, &frequency) {
            (_, Some(frequency)) => words.extend([&b"FREQ"[..], frequency.as_bytes()]),
            (Some(idle), None) => words.extend([&b"IDLETIME"[..], idle.as_bytes()]),
            (None, None) => {}
        }
        let said = self.say(Asked::Item(record.key.to_vec()), &words);
        self.bytes = payload;
        said
    }

    /// Begins an item in pieces, unless its key is there and stays.
    fn begin(&mut self, record: &ItemRecord<'_>) -> io::Result<()> {
        let key = record.key.to_vec();
        if self.present == Present::IsReplaced {
            self.say(Asked::Part(key), &[b"UNLINK", &record.key])?;
        } else {
            let (tell, told) = sync_channel(1);
            self.say(Asked::Present(key, tell), &[b"EXISTS", &record.key])?;
            self.out.flush()?;
            let is_present = told.recv().map_err(|_| refused())?;
            if is_present {
                self.open = Some(None);
                return Ok(());
            }
        }
        self.open = Some(Some(record.deadline.unwrap_or(Deadline(i64::MAX))));
        self.elements(record, true)
    }

    fn go_on(&mut self, record: &ItemRecord<'_>) -> io::Result<()> {
        match self.open {
            Some(Some(_)) => self.elements(record, false),
            _ => Ok(()),
        }
    }

    /// Commands that add all elements of a piece, some at a time.
    fn elements(&mut self, record: &ItemRecord<'_>, is_first: bool) -> io::Result<()> {
        let name: &[u8] = match record.value.value_type() {
            ValueType::List => b"RPUSH",
            ValueType::Set => b"SADD",
            ValueType::Hash => b"HSET",
            ValueType::SortedSet => b"ZADD",
            ValueType::String | ValueType::Stream => unreachable!("these come whole"),
        };
        let (mut words, mut timed) = (Vec::new(), Vec::new());
        let mut failed = None;
        let mut is_first = is_first;
        let key = &record.key;
        let walked = record.value.each(&mut |part| {
            match part {
                Part::Element(one) | Part::Member(one) => words.push(one.to_vec()),
                Part::Field(field, value) => words.extend([field.to_vec(), value.to_vec()]),
                Part::TimedField(field, value, at) => {
                    words.extend([field.to_vec(), value.to_vec()]);
                    timed.push((field.to_vec(), at));
                }
                Part::Scored(member, score) => {
                    words.extend([score.to_string().into_bytes(), member.to_vec()]);
                }
                Part::String(_) | Part::Stream(_) => {}
            }
            if words.len() >= PRINTED_ELEMENTS_MAX {
                failed = self.add(name, key, &mut words, &mut timed, &mut is_first).err();
            }
            // Any fault ends the walk.
            if failed.is_none() { Ok(()) } else { Err(Fault::Empty) }
        });
        match failed {
            Some(error) => Err(error),
            None => {
                debug_assert!(walked.is_ok(), "the reader has checked it");
                self.add(name, key, &mut words, &mut timed, &mut is_first)
            }
        }
    }

    fn add(
        &mut self,
        name: &[u8],
        key: &[u8],
        elements: &mut Vec<Vec<u8>>,
        timed: &mut Vec<(Vec<u8>, i64)>,
        is_first: &mut bool,
    ) -> io::Result<()> {
        if elements.is_empty() {
            return Ok(());
        }
        let words: Vec<&[u8]> =
            [name, key].into_iter().chain(elements.iter().map(|element| &element[..])).collect();
        let part = if std::mem::take(is_first) { Asked::Item } else { Asked::Part };
        self.say(part(key.to_vec()), &words)?;
        elements.clear();
        for (field, at) in timed.drain(..) {
            let at = at.to_string();
            let words: [&[u8]; 6] = [b"HPEXPIREAT", key, at.as_bytes(), b"FIELDS", b"1", &field];
            self.say(Asked::Part(key.to_vec()), &words)?;
        }
        Ok(())
    }

    fn say(&mut self, asked: Asked, words: &[&[u8]]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        // Said before it is sent: the reply finds it there. A full channel waits for replies, which
        // need what is unsent.
        if let Err(error) = self.asked.try_send(asked) {
            match error {
                std::sync::mpsc::TrySendError::Full(asked) => {
                    self.out.flush()?;
                    self.asked.send(asked).map_err(|_| refused())?;
                }
                std::sync::mpsc::TrySendError::Disconnected(_) => return Err(refused()),
            }
        }
        self.out.write_all(&bytes)
    }
}

/// Who reads has ended and knows why.
fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the server took no more")
}

/// Reads the reply to everything that was asked. Ends at the first refusal.
fn hear(mut client: Client, asked: &Receiver<Asked>) -> Outcome {
    let mut outcome = Outcome::default();
    while let Ok(asked) = asked.recv() {
        let answer = match client.read() {
            Ok(answer) => answer,
            Err(error) => {
                outcome.refused = Some(format!("the connection to the server failed: {error}"));
                return outcome;
            }
        };
        if let (Asked::Library(name), Answer::Error(text)) = (&asked, &answer)
            && text.ends_with("already exists")
        {
            outcome.note_present(name.clone());
            continue;
        }
        let (key, is_item) = match asked {
            Asked::Present(key, tell) => {
                let is_present = answer != Answer::Integer(0);
                if is_present {
                    outcome.note_present(key);
                }
                // Who asked waits for it.
                let _ = tell.send(is_present);
                continue;
            }
            Asked::Item(key) => (key, true),
            Asked::Library(key) | Asked::Part(key) => (key, false),
        };
        match answer {
            // SET NX says it so, RESTORE so.
            Answer::Null => outcome.note_present(key),
            Answer::Error(text) if is_item && text.starts_with("BUSYKEY") => {
                outcome.note_present(key);
            }
            Answer::Error(text) => {
                outcome.refused = Some(format!("key \"{}\": {text}", key.escape_ascii()));
                // Who sends may wait for room, and there will be none.
                client.hang_up();
                return outcome;
            }
            _ => outcome.taken += u64::from(is_item),
        }
    }
    outcome
}

impl Outcome {
    fn note_present(&mut self, key: Vec<u8>) {
        self.present += 1;
        self.first_present.get_or_insert(key);
    }
}
