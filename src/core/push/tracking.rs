//! Client-side caches: who has read which key, and who is told when it changes.
//!
//! A connection that tracks is remembered with the keys that it reads, before they are read: what
//! changes them afterwards is told. A core keeps that table for its own connections; shards note
//! their changes in the feed as long as some core has such a connection, and tell those cores. A
//! read's reply and the news of a later change come from the same core in that order; news waits
//! until the replies of the requests before it are written, so that nobody caches what has just
//! gone. An entry is gone with the first change: the client must read again to hear of the next.

use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::Kind;
use crate::core::mail::mailbox::Mail;
use crate::core::push::read_key::ReadKey;
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::Listening;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The channel of news to a client that speaks RESP2, which another one reads for.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Which reads are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrackingMode {
    /// All.
    #[default]
    Default,
    /// None: all changes of keys with some prefixes are told.
    Broadcast,
    /// Those behind CLIENT CACHING YES.
    OptIn,
    /// All but those behind CLIENT CACHING NO.
    OptOut,
}

/// How a connection tracks.
#[derive(Clone, Debug, Default)]
pub struct Tracking {
    /// Which reads.
    pub mode: TrackingMode,
    /// Is it not told of its own changes?
    pub no_loop: bool,
    /// The id of the client that is told instead.
    pub redirect: Option<u64>,
    /// Is that client gone?
    pub is_broken: bool,
    /// Of a broadcast; all keys have the empty one.
    pub prefixes: Vec<Vec<u8>>,
    /// CLIENT CACHING was said for the next command.
    pub caching: bool,
    /// What the table knows it by.
    number: u32,
    /// News that waits for replies: how many requests must have theirs, and the bytes.
    pending: Vec<(u32, Vec<u8>)>,
}

impl Tracking {
    /// Are the keys that its next command reads remembered?
    fn remembers(&self) -> bool {
        match self.mode {
            TrackingMode::Default => true,
            TrackingMode::Broadcast => false,
            TrackingMode::OptIn => self.caching,
            TrackingMode::OptOut => !self.caching,
        }
    }
}

/// A connection: its number may belong to another one later, its id never.
type Reader = (u32, u64);

/// Stands for the readers of a key that has several.
const SEVERAL: u32 = u32::MAX;

/// What a core knows of its connections that track.
#[derive(Debug, Default)]
pub struct TrackingTable {
    /// Keys with the numbers of their readers.
    keys: HashSet<ReadKey>,
    /// The readers of keys that have several.
    shared: HashMap<Box<[u8]>, BTreeSet<u32>>,
    /// Who has a number. Numbers of connections that track no more may still stand with keys.
    readers: HashMap<u32, Reader>,
    /// The last number that was given.
    last_number: u32,
    /// Readers of all keys together.
    items: usize,
    prefixes: BTreeMap<Vec<u8>, Vec<Reader>>,
    /// Its connections that track.
    count: usize,
    /// Cores that have some, and how many.
    cores: Vec<(u16, usize)>,
}

impl TrackingTable {
    /// Keys, readers of them, and prefixes.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.keys.len(), self.items, self.prefixes.len())
    }

    /// Does any connection of any core track?
    pub fn is_in_use(&self) -> bool {
        !self.cores.is_empty()
    }

    /// Gives a reader a number that no other has.
    fn number(&mut self, reader: Reader) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if self.last_number != SEVERAL && !self.readers.contains_key(&self.last_number) {
                self.readers.insert(self.last_number, reader);
                return self.last_number;
            }
        }
    }

    fn remember(&mut self, key: &[u8], reader: u32) {
        let is_new = match self.keys.get(key).map(ReadKey::reader) {
            None => self.keys.insert(ReadKey::new(key, reader)),
            Some(SEVERAL) => self.shared.get_mut(key).is_some_and(|some| some.insert(reader)),
            Some(other) if other == reader => false,
            Some(other) => {
                self.keys.replace(ReadKey::new(key, SEVERAL));
                self.shared.insert(key.into(), [other, reader].into());
                true
            }
        };
        self.items += usize::from(is_new);
    }

    /// Forgets a key. Returns its readers that still track.
    fn forget(&mut self, key: &[u8]) -> SmallVec<[Reader; 1]> {
        let Some(read) = self.keys.take(key) else { return SmallVec::new() };
        if read.reader() != SEVERAL {
            self.items -= 1;
            return self.readers.get(&read.reader()).copied().into_iter().collect();
        }
        let numbers = self.shared.remove(key).unwrap_or_default();
        self.items -= numbers.len();
        numbers.iter().filter_map(|number| self.readers.get(number).copied()).collect()
    }

    fn forget_all(&mut self) {
        self.keys = HashSet::new();
        self.shared = HashMap::new();
        self.items = 0;
    }
}

/// Changes that clients are told of.
pub struct News {
    /// Keys; `None` when all are gone.
    pub keys: Option<Vec<Box<[u8]>>>,
    /// The core and the number of the connection that made them, if it is known.
    pub writer: Option<(u16, u32)>,
}

impl Core {
    /// Begins to track for a connection. All cores must be told of it: see [`Core::note_tracker`].
    pub fn start_tracking(&mut self, index: u32, tracking: Tracking) {
        let connection = self.answers.connections.at_mut(index);
        let reader = (index, connection.id);
        for prefix in &tracking.prefixes {
            let readers = self.tracking.prefixes.entry(prefix.clone()).or_default();
            if !readers.contains(&reader) {
                readers.push(reader);
            }
        }
        let before = connection.session.tracking.take();
        let is_new = before.is_none();
        let redirected = before.as_ref().is_some_and(|before| before.redirect.is_some());
        let count = &self.shared.redirecting_count;
        match (redirected, tracking.redirect.is_some()) {
            (false, true) => count.fetch_add(1, Ordering::AcqRel),
            (true, false) => count.fetch_sub(1, Ordering::AcqRel),
            _ => 0,
        };
        let (number, pending) = match before {
            Some(before) => (before.number, before.pending),
            None => (self.tracking.number(reader), Vec::new()),
        };
        connection.session.tracking = Some(Box::new(Tracking { number, pending, ..tracking }));
        connection.session.note_manner();
        self.tracking.count += usize::from(is_new);
    }

    /// Ends it.
    pub fn stop_tracking(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        let reader = (index, connection.id);
        let Some(tracking) = connection.session.tracking.take() else { return };
        connection.session.note_manner();
        if tracking.redirect.is_some() {
            self.shared.redirecting_count.fetch_sub(1, Ordering::AcqRel);
        }
        for (_, bytes) in &tracking.pending {
            connection.replies.push().extend_from_slice(bytes);
        }
        for prefix in &tracking.prefixes {
            if let Some(readers) = self.tracking.prefixes.get_mut(prefix) {
                readers.retain(|other| *other != reader);
                if readers.is_empty() {
                    self.tracking.prefixes.remove(prefix);
                }
            }
        }
        self.tracking.readers.remove(&tracking.number);
        self.tracking.count -= 1;
        if self.tracking.count == 0 {
            self.tracking.forget_all();
        }
        let (from, count) = (self.id, self.tracking.count);
        self.everywhere(move |core| core.note_tracker(from, count));
    }

    /// How many connections of a core track from now on.
    pub fn note_tracker(&mut self, from: u16, count: usize) {
        self.tracking.cores.retain(|(core, _)| *core != from);
        if count > 0 {
            self.tracking.cores.push((from, count));
        }
        self.listen_to_changes();
    }

    /// Connections of this core that track.
    pub fn tracker_count(&self) -> usize {
        self.tracking.count
    }

    /// Remembers the keys that a command is about to read, if its connection tracks.
    pub(in crate::core) fn track_reads(
        &mut self,
        index: u32,
        command: &crate::commands::Command,
        arguments: Arguments<'_>,
    ) {
        if command.flags.readonly && self.remembers_reads(index) {
            self.remember_reads(index, command, arguments);
        }
    }

    /// Are the keys to be remembered that a connection reads now?
    pub(in crate::core) fn remembers_reads(&self, index: u32) -> bool {
        let tracking = &self.answers.connections.at(index).session.tracking;
        tracking.as_ref().is_some_and(|tracking| tracking.remembers())
    }

    /// Remembers that a connection has read the keys of a command.
    pub(in crate::core) fn remember_reads(
        &mut self,
        index: u32,
        command: &crate::commands::Command,
        arguments: Arguments<'_>,
    ) {
        let Some(connection) = self.answers.connections.get(index) else { return };
        let Some(tracking) = &connection.session.tracking else { return };
        let reader = tracking.number;
        for i in command.keys.positions(arguments) {
            self.tracking.remember(arguments.at(i), reader);
        }
        let most = self.settings.tracking_table_max_keys as usize;
        while most > 0 && self.tracking.keys.len() > most {
            // Whoever has read a key that there is no room for is told as if it had changed.
            let first = self.tracking.keys.iter().next().expect("there are too many");
            let key: Box<[u8]> = first.key().into();
            let readers = self.tracking.forget(&key);
            self.tell(&readers, Some(&[key]), None);
        }
    }

    /// CLIENT CACHING holds for one command, or one transaction.
    pub(in crate::core) fn end_caching(&mut self, index: u32, command: &crate::commands::Command) {
        let Some(connection) = self.answers.connections.get_mut(index) else { return };
        let session = &mut connection.session;
        if session.transaction.is_none()
            && command.parent != "client"
            && let Some(tracking) = &mut session.tracking
        {
            tracking.caching = false;
        }
    }

    /// Passes changes of this core's shards on to all cores with clients that track.
    pub(in crate::core) fn spread_news(&mut self, news: News) {
        let news = Arc::new(news);
        let cores: Vec<u16> = self.tracking.cores.iter().map(|(core, _)| *core).collect();
        for core in cores {
            if core == self.id {
                self.take_news(&news);
            } else {
                self.answers.post(core, Mail::News(news.clone()));
            }
        }
    }

    /// Tells this core's clients of changes.
    pub(in crate::core) fn take_news(&mut self, news: &News) {
        let writer = news.writer.filter(|(core, _)| *core == self.id).map(|(_, index)| index);
        let Some(keys) = &news.keys else {
            self.tracking.forget_all();
            let all = self.answers.connections.iter();
            let all = all.filter(|(_, c)| c.session.tracking.is_some() && !c.closed);
            let all: Vec<Reader> = all.map(|(index, c)| (index, c.id)).collect();
            return self.tell(&all, None, None);
        };
        for key in keys {
            let readers = self.tracking.forget(key);
            if !readers.is_empty() {
                self.tell(&readers, Some(std::slice::from_ref(key)), writer);
            }
        }
        if self.tracking.prefixes.is_empty() {
            return;
        }
        let mut batches = Vec::new();
        for (prefix, readers) in &self.tracking.prefixes {
            let meant: Vec<Box<[u8]>> =
                keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
            if !meant.is_empty() {
                batches.push((readers.clone(), meant));
            }
        }
        for (readers, keys) in batches {
            self.tell(&readers, Some(&keys), writer);
        }
    }

    /// Tells connections of this core, or those that read for them. `None`: all keys are gone.
    pub(in crate::core) fn tell(
        &mut self,
        readers: &[Reader],
        keys: Option<&[Box<[u8]>]>,
        writer: Option<u32>,
    ) {
        for &(index, id) in readers {
            let Some(connection) = self.answers.connections.get_mut(index) else { continue };
            if connection.id != id || connection.closed {
                continue;
            }
            // What goes to another node is told there in its client's manner.
            let is_pushed =
                connection.session.protocol == Protocol::Resp3 || connection.kind == Kind::Relayed;
            let barrier = connection.replies.next_sequence();
            let Some(tracking) = &mut connection.session.tracking else { continue };
            if tracking.no_loop && writer == Some(index) {
                continue;
            }
            if let Some(redirect) = tracking.redirect {
                let keys: Option<Vec<Box<[u8]>>> = keys.map(<[Box<[u8]>]>::to_vec);
                self.everywhere(move |core| core.tell_instead(redirect, keys.as_deref()));
            } else if is_pushed {
                tracking.pending.push((barrier, news_bytes(keys)));
                self.answers.mark_dirty(index);
            }
        }
    }

    /// Tells a client of this core that reads for another one.
    fn tell_instead(&mut self, id: u64, keys: Option<&[Box<[u8]>]>) {
        let mut all = self.answers.connections.iter();
        let found = all.find(|(_, c)| c.id == id && !c.closed).map(|(index, _)| index);
        drop(all);
        let Some(index) = found else { return };
        let connection = self.answers.connections.at_mut(index);
        match connection.session.protocol {
            Protocol::Resp3 => connection.replies.push().extend_from_slice(&news_bytes(keys)),
            Protocol::Resp2 if connection.session.only_listens => {
                let mut reply = Reply::new(connection.replies.push(), Protocol::Resp2);
                reply.array(3);
                reply.bulk(b"message");
                reply.bulk(CHANNEL);
                write_keys(keys, &mut reply);
            }
            Protocol::Resp2 => return,
        }
        self.answers.mark_dirty(index);
    }

    /// Appends the news whose replies before it are written.
    pub(in crate::core) fn release_news(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        let Some(tracking) = &mut connection.session.tracking else { return };
        let ready = |(barrier, _): &(u32, Vec<u8>)| connection.replies.is_reached(*barrier);
        let count = tracking.pending.iter().take_while(|pending| ready(pending)).count();
        for (_, bytes) in tracking.pending.drain(..count) {
            connection.replies.push().extend_from_slice(&bytes);
        }
    }

    /// A client is gone: those that have it read for them are told.
    pub(in crate::core) fn note_redirection_broken(&mut self, gone: u64) {
        let mut broken = Vec::new();
        for (index, connection) in self.answers.connections.iter_mut() {
            if let Some(tracking) = &mut connection.session.tracking
                && tracking.redirect == Some(gone)
                && !std::mem::replace(&mut tracking.is_broken, true)
            {
                broken.push(index);
            }
        }
        for index in broken {
            let connection = self.answers.connections.at_mut(index);
            if connection.session.protocol == Protocol::Resp3 {
                let mut reply = Reply::new(connection.replies.push(), Protocol::Resp3);
                reply.push(2);
                reply.bulk(b"tracking-redir-broken");
                reply.integer(gone as i64);
                self.answers.mark_dirty(index);
            }
        }
    }

    /// Shards note their changes while somebody wants to hear of them.
    pub(in crate::core) fn listen_to_changes(&mut self) {
        let events = self.settings.notify_keyspace_events;
        let listening = self.listening();
        for shard in &mut self.shards {
            shard.keyspace.listen(listening, events.hear_misses());
        }
        if let Some(overlay) = &mut self.spares.overlay {
            overlay.listen(listening);
        }
    }

    /// Who wants the feed of changes.
    pub(in crate::core) fn listening(&self) -> Listening {
        Listening {
            for_events: self.settings.notify_keyspace_events.hear_changes(),
            for_caches: self.tracking.is_in_use(),
        }
    }

    /// A connection ends: it tracks no longer, and reads for nobody.
    pub(in crate::core) fn end_tracking(&mut self, index: u32) {
        let id = self.answers.connections.at(index).id;
        self.stop_tracking(index);
        if self.shared.redirecting_count.load(Ordering::Acquire) > 0 {
            self.everywhere(move |core| core.note_redirection_broken(id));
        }
    }
}

fn news_bytes(keys: Option<&[Box<[u8]>]>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp3);
    reply.push(2);
    reply.bulk(b"invalidate");
    write_keys(keys, &mut reply);
    out
}

fn write_keys(keys: Option<&[Box<[u8]>]>, reply: &mut Reply<'_>) {
    match keys {
        None => reply.null(),
        Some(keys) => {
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
    }
}

/// The connection that a reply is for, as [`News`] names it.
pub fn writer_of(core: u16, target: Target) -> Option<(u16, u32)> {
    match target {
        Target::Connection { index, .. } => Some((core, index)),
        _ => None,
    }
}

/// The refusal of prefixes of which one begins with another.
pub fn check_prefixes(new: &[&[u8]], old: &[Vec<u8>]) -> Result<(), Refusal> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    for (i, prefix) in new.iter().enumerate() {
        let refuse = |other: &[u8], whose: &str| {
            let mut text = b"ERR Prefix '".to_vec();
            text.extend_from_slice(prefix);
            text.extend_from_slice(format!("' overlaps with {whose} prefix '").as_bytes());
            text.extend_from_slice(other);
            text.extend_from_slice(b"'. Prefixes for a single client must not overlap.");
            Refusal::Bytes(text)
        };
        if let Some(other) = old.iter().find(|old| overlap(prefix, old)) {
            return Err(refuse(other, "an existing"));
        }
        if let Some(other) = new[i + 1..].iter().find(|other| overlap(prefix, other)) {
            return Err(refuse(other, "another provided"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_readers_until_they_track_no_more() {
        let mut table = TrackingTable::default();
        let numbers: Vec<u32> = (0..3).map(|index| table.number((index, 100))).collect();
        for (key, readers) in [(&b"one"[..], 1), (b"two", 2), (b"all", 3), (b"", 1)] {
            for number in numbers[..readers].iter().chain(&numbers[..readers]) {
                table.remember(key, *number);
            }
        }
        assert_eq!(table.sizes(), (4, 7, 0));
        table.readers.remove(&numbers[1]);
        assert_eq!(table.forget(b"all").as_slice(), [(0, 100), (2, 100)]);
        assert_eq!(table.forget(b"").as_slice(), [(0, 100)]);
        assert!(table.forget(b"all").is_empty() && table.forget(b"none").is_empty());
        table.remember(b"two", numbers[2]);
        assert_eq!(table.forget(b"two").as_slice(), [(0, 100), (2, 100)]);
        assert_eq!(table.sizes(), (1, 1, 0));
        table.last_number = SEVERAL - 1;
        assert_eq!([7, 8, 9].map(|index| table.number((index, 1))), [0, 2, 4], "others are taken");
    }
}
