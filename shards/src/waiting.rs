//! Who waits for a key of a shard: blocked commands in the memory of its leader, in order of
//! arrival.
//!
//! A waiting command has a *ticket*. Nothing of waiting is replicated but the tries: operations of
//! the log that carry the waiting commands themselves. An entry **declares** each of them at most
//! once; from there to the end of the entry it is run as soon as one of its keys has something.
//! When the leader gathers a write that may fill a key, it declares the next tickets of that key in
//! the same entry, right behind the write: so they are served before any later command, as Redis
//! does.
//!
//! Invariants:
//! - whether an entry serves a ticket depends on that entry and the items alone ([`Served`] is
//!   forgotten at its end), and nobody is served twice: an entry that declares a ticket of an
//!   earlier one is proposed when that one is applied, and without the tickets that it has served
//!   ([`Declaration::is_behind`]);
//! - the tickets of a key are declared in their order: nobody overtakes. Who comes while somebody is
//!   still to be served at one of its keys makes its first try after that.
//!
//! Deliberately absent: what a command is, how its reply goes back, and time. The asker ends a
//! wait.

use crate::arguments::OwnedArguments;
use crate::ids::DatabaseIndex;
use crate::limits::DECLARED_PER_OPERATION_MAX;
use crate::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// Number of a waiting command: later ones are higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Number of an entry that gathers declarations: later ones are higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Round(pub u64);

/// What a command waits for at a key: a value of this type that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum WaitKind {
    /// A list.
    List = 1,
    /// A sorted set.
    SortedSet = 2,
    /// A stream with entries that a group was not given, or anything that is none with this group:
    /// then there is an error to be told.
    Group = 3,
    /// A stream with entries behind an id.
    Entries = 4,
}

impl WaitKind {
    /// All of them.
    pub const ALL: [WaitKind; 4] =
        [WaitKind::List, WaitKind::SortedSet, WaitKind::Group, WaitKind::Entries];
}

/// A key that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitKey {
    /// Its database.
    pub database: DatabaseIndex,
    /// The key.
    pub bytes: Box<[u8]>,
    /// What is to be there.
    pub kind: WaitKind,
    /// Of a stream the name of the group, or the id.
    pub within: Box<[u8]>,
}

impl WaitKey {
    /// A key with a value of this kind.
    pub fn new(database: DatabaseIndex, kind: WaitKind, bytes: &[u8]) -> WaitKey {
        WaitKey { database, bytes: bytes.into(), kind, within: Box::default() }
    }

    /// As the argument of an operation.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.database.0, self.kind as u8];
        out.extend_from_slice(&(self.within.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.within);
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads what [`WaitKey::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<WaitKey> {
        let (head, rest) = bytes.split_first_chunk::<6>()?;
        let [database, kind, length @ ..] = head;
        let kind = WaitKind::ALL.into_iter().find(|known| *known as u8 == *kind)?;
        let (within, key) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let database = DatabaseIndex(*database);
        Some(WaitKey { database, bytes: key.into(), kind, within: within.into() })
    }
}

/// Of what is kept by what is waited for, all that concerns one key, whatever is to be there.
pub fn of_key<'m, V>(
    map: &'m BTreeMap<WaitKey, V>,
    database: DatabaseIndex,
    bytes: &[u8],
) -> impl Iterator<Item = &'m WaitKey> {
    let first = WaitKey::new(database, WaitKind::List, bytes);
    let of_first = first.clone();
    map.range(first..)
        .map(|(key, _)| key)
        .take_while(move |key| key.database == of_first.database && key.bytes == of_first.bytes)
}

struct Waiter<A, W, E> {
    asker: A,
    what: W,
    keys: Vec<WaitKey>,
    /// The last unapplied entry that declares it.
    round: Option<Round>,
    /// It is to be ended once that entry is applied and has not served it.
    end: Option<E>,
}

#[derive(Default)]
struct Queue {
    tickets: BTreeSet<Ticket>,
    /// The last ticket that a write of this round was meant for: the next write is for those
    /// behind it.
    meant: Option<(Round, Ticket)>,
    /// The last round that declares tickets of this key.
    listed: Option<Round>,
    /// Is there more to declare than was?
    again: bool,
}

/// All that wait for keys of one shard. `A` names an asker, `W` is what waits, `E` how a wait ends.
pub struct Waiters<A, W, E> {
    last_ticket: u64,
    last_round: u64,
    open: HashMap<Ticket, Waiter<A, W, E>>,
    /// Those that have not made their first try.
    untried: BTreeSet<Ticket>,
    askers: HashMap<A, Ticket>,
    queues: BTreeMap<WaitKey, Queue>,
    /// What unapplied entries declare, oldest first.
    rounds: VecDeque<(Round, Vec<Ticket>, Vec<WaitKey>)>,
}

impl Queue {
    /// The last ticket that a write of a round was meant for.
    fn meant_in(&self, round: Round) -> Option<Ticket> {
        self.meant.filter(|(other, _)| *other == round).map(|(_, last)| last)
    }
}

impl<A, W, E> Default for Waiters<A, W, E> {
    fn default() -> Waiters<A, W, E> {
        Waiters {
            last_ticket: 0,
            last_round: 0,
            open: HashMap::new(),
            untried: BTreeSet::new(),
            askers: HashMap::new(),
            queues: BTreeMap::new(),
            rounds: VecDeque::new(),
        }
    }
}

/// What became of a wait that was to be ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending<W> {
    /// It is ended: the asker is to be told.
    Ended(W),
    /// An entry under way may still serve it; [`Waiters::settle`] tells.
    Later,
    /// It is served or ended already.
    Unknown,
}

/// Whom an operation is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Those that the entry does not know yet.
    pub tickets: Vec<Ticket>,
    /// The last one to serve: those behind it might overtake others.
    pub last: Ticket,
    /// Is one of them declared by an earlier entry that is not applied yet?
    pub is_behind: bool,
}

/// What is to be done once an entry that declared tickets is applied.
#[derive(Debug)]
pub struct Settled<W, E> {
    /// Waits that end now.
    pub ended: Vec<(W, E)>,
    /// Keys that may have something for others who wait.
    pub keys: Vec<WaitKey>,
}

impl<A: Copy + Eq + Hash, W, E> Waiters<A, W, E> {
    /// Does nobody wait?
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A number for an entry that is about to gather declarations.
    pub fn next_round(&mut self) -> Round {
        self.last_round += 1;
        Round(self.last_round)
    }

    /// A command waits from now on for `keys`. It is served by nothing before its first try
    /// ([`Waiters::declare_first`]).
    pub fn open(&mut self, asker: A, keys: Vec<WaitKey>, what: W) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        for key in &keys {
            self.queues.entry(key.clone()).or_default().tickets.insert(ticket);
        }
        let waiter = Waiter { asker, what, keys, round: None, end: None };
        assert!(self.open.insert(ticket, waiter).is_none(), "tickets are used once");
        assert!(self.askers.insert(asker, ticket).is_none(), "an asker waits once");
        self.untried.insert(ticket);
        ticket
    }

    /// The first try of a command is gathered in `round`.
    pub fn declare_first(&mut self, ticket: Ticket, round: Round) {
        assert!(self.untried.remove(&ticket), "ticket {} is tried twice", ticket.0);
        self.note(round, ticket);
    }

    /// Those that have not made their first try, in order.
    pub fn untried(&self) -> impl Iterator<Item = Ticket> {
        self.untried.iter().copied()
    }

    /// Has one that came before this one to make its first try at one of the same keys?
    pub fn is_behind_untried(&self, ticket: Ticket) -> bool {
        let keys = self.keys(ticket);
        let shares = |before: &Ticket| self.keys(*before).iter().any(|key| keys.contains(key));
        self.untried.range(..ticket).any(shares)
    }

    /// The keys of one that waits.
    pub fn keys(&self, ticket: Ticket) -> &[WaitKey] {
        &self.open[&ticket].keys
    }

    /// Will [`Waiters::settle`] name a key?
    pub fn is_unsettled(&self, key: &WaitKey) -> bool {
        let Some(Queue { listed: Some(listed), again: true, .. }) = self.queues.get(key) else {
            return false;
        };
        self.rounds.front().is_some_and(|(first, ..)| first <= listed)
    }

    fn note(&mut self, round: Round, ticket: Ticket) {
        let waiter = self.open.get_mut(&ticket).expect("it was just seen");
        assert!(waiter.round < Some(round), "ticket {} is declared twice", ticket.0);
        waiter.round = Some(round);
        if self.rounds.back().is_none_or(|(last, ..)| *last != round) {
            self.rounds.push_back((round, Vec::new(), Vec::new()));
        }
        let (_, tickets, keys) = self.rounds.back_mut().expect("just pushed");
        tickets.push(ticket);
        for key in &waiter.keys {
            let queue = self.queues.get_mut(key).expect("it waits there");
            if queue.listed.replace(round) != Some(round) {
                keys.push(key.clone());
            }
        }
    }

    /// Whom [`Waiters::declare`] would serve, and whether there would be more to do once that is
    /// known.
    ///
    /// Some of them may need nothing of this key when their turn has come: they may find something
    /// at another key, or an entry under way serves them. The next ones are served too then, as
    /// if those had never waited.
    fn chosen(&self, key: &WaitKey, count: usize, round: Round) -> (Vec<Ticket>, bool) {
        let Some(queue) = self.queues.get(key) else { return (Vec::new(), false) };
        let from = queue.meant_in(round).map_or(Ticket(0), |last| Ticket(last.0 + 1));
        let (mut chosen, mut takers) = (Vec::new(), 0);
        let is_tried = |ticket: &&Ticket| !self.untried.contains(ticket);
        let mut following = queue.tickets.range(from..).take_while(is_tried);
        while takers < count && chosen.len() < DECLARED_PER_OPERATION_MAX {
            let Some(&ticket) = following.next() else { break };
            let waiter = &self.open[&ticket];
            takers += usize::from(waiter.round.is_none() && waiter.keys.len() == 1);
            chosen.push(ticket);
        }
        (chosen, takers < count && following.next().is_some())
    }

    /// Those whom an operation would serve that [`Waiters::declare`] is asked for next, with all
    /// their keys: they take from the first that has something. The first of them, or all, may have
    /// been declared for this key by the same round.
    pub fn to_be_served(&self, key: &WaitKey, count: usize, round: Round) -> Vec<(&W, &[WaitKey])> {
        let Some(queue) = self.queues.get(key) else { return Vec::new() };
        let last = self.chosen(key, count, round).0.pop().or_else(|| queue.meant_in(round));
        let all = last.into_iter().flat_map(|last| queue.tickets.range(..=last));
        all.map(|ticket| &self.open[ticket]).map(|one| (&one.what, &*one.keys)).collect()
    }

    /// Does [`Waiters::declare`] serve anybody for whom it was not asked before in this round?
    pub fn serves_more(&self, key: &WaitKey, count: usize, round: Round) -> bool {
        !self.chosen(key, count, round).0.is_empty()
    }

    /// Whom to serve in `round` behind something that may give `key` up to `count` elements.
    /// `None`: nobody.
    pub fn declare(&mut self, key: &WaitKey, count: usize, round: Round) -> Option<Declaration> {
        let (chosen, has_more) = self.chosen(key, count, round);
        let queue = self.queues.get_mut(key)?;
        queue.again |= has_more;
        if let Some(&last) = chosen.last() {
            queue.meant = Some((round, last));
        }
        let last = queue.meant_in(round)?;
        let mut declared = Vec::new();
        let mut is_behind = false;
        for ticket in chosen {
            let before = self.open[&ticket].round;
            if before != Some(round) {
                // Whether an entry under way serves it is not known yet.
                is_behind |= before.is_some();
                declared.push(ticket);
                self.note(round, ticket);
            }
        }
        Some(Declaration { tickets: declared, last, is_behind })
    }

    /// Are tickets that this round declares served by now?
    pub fn has_served(&self, round: Round) -> bool {
        let declared = self.rounds.iter().find(|(other, ..)| *other == round);
        declared.is_some_and(|(_, tickets, _)| tickets.iter().any(|t| !self.open.contains_key(t)))
    }

    /// What waits with this ticket.
    pub fn waiting(&self, ticket: Ticket) -> Option<&W> {
        self.open.get(&ticket).map(|waiter| &waiter.what)
    }

    /// Does anybody wait for a key?
    pub fn is_awaited(&self, key: &WaitKey) -> bool {
        self.queues.contains_key(key)
    }

    /// What is waited for at a key.
    pub fn awaited(&self, database: DatabaseIndex, bytes: &[u8]) -> impl Iterator<Item = &WaitKey> {
        of_key(&self.queues, database, bytes)
    }

    /// A ticket is served: it waits no longer. Returns what waited, and its keys.
    pub fn served(&mut self, ticket: Ticket) -> Option<(W, Vec<WaitKey>)> {
        let waiter = self.open.remove(&ticket)?;
        self.untried.remove(&ticket);
        self.askers.remove(&waiter.asker);
        for key in &waiter.keys {
            // A key may be named twice.
            if let Some(queue) = self.queues.get_mut(key) {
                queue.again = true;
                queue.tickets.remove(&ticket);
                if queue.tickets.is_empty() {
                    self.queues.remove(key);
                }
            }
        }
        Some((waiter.what, waiter.keys))
    }

    /// The asker no longer wants to wait.
    pub fn end(&mut self, asker: A, end: E) -> Ending<(W, Vec<WaitKey>)> {
        let Some(&ticket) = self.askers.get(&asker) else { return Ending::Unknown };
        let waiter = self.open.get_mut(&ticket).expect("every asker has one");
        if waiter.round.is_some() {
            waiter.end.get_or_insert(end);
            return Ending::Later;
        }
        self.served(ticket).map_or(Ending::Unknown, Ending::Ended)
    }

    /// The entry of a round is applied, or will never be. Rounds end in their order.
    pub fn settle(&mut self, round: Round) -> Settled<(W, Vec<WaitKey>), E> {
        let mut settled = Settled { ended: Vec::new(), keys: Vec::new() };
        while self.rounds.front().is_some_and(|(first, ..)| *first <= round) {
            let (_, tickets, keys) = self.rounds.pop_front().expect("just seen");
            for ticket in tickets {
                let Some(waiter) = self.open.get_mut(&ticket) else { continue };
                if waiter.round > Some(round) {
                    continue;
                }
                waiter.round = None;
                if let Some(end) = waiter.end.take() {
                    let waited = self.served(ticket).expect("just seen");
                    settled.ended.push((waited, end));
                }
            }
            for key in keys {
                if let Some(queue) = self.queues.get_mut(&key)
                    && std::mem::take(&mut queue.again)
                {
                    settled.keys.push(key);
                }
            }
        }
        settled
    }

    /// Everybody who waits, who waits no longer: the shard is led elsewhere.
    pub fn dissolve(&mut self) -> Vec<(W, Vec<WaitKey>)> {
        let mut tickets: Vec<Ticket> = self.open.keys().copied().collect();
        tickets.sort_unstable();
        self.rounds.clear();
        tickets.into_iter().filter_map(|ticket| self.served(ticket)).collect()
    }
}

/// A waiting command as an entry carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its number.
    pub command: u16,
    /// How its reply is written; the engine does not know what that means.
    pub manner: u8,
    /// Its database.
    pub database: DatabaseIndex,
    /// Its arguments.
    pub arguments: OwnedArguments,
    /// What another node that has sent it on knows it by.
    pub stamp: Option<Stamp>,
}

/// What an entry has declared and not served so far, while it is applied; the same on every
/// replica.
#[derive(Debug, Default)]
pub struct Served {
    commands: BTreeMap<Ticket, Declared>,
    queues: HashMap<WaitKey, BTreeSet<Ticket>>,
}

impl Served {
    /// Forgets everything: another entry begins.
    #[inline]
    pub fn clear(&mut self) {
        if !self.queues.is_empty() {
            self.commands.clear();
            self.queues.clear();
        }
    }

    /// A command waits for its keys until this entry ends.
    pub fn declare(
        &mut self,
        ticket: Ticket,
        keys: impl Iterator<Item = WaitKey>,
        command: Declared,
    ) {
        for key in keys {
            self.queues.entry(key).or_default().insert(ticket);
        }
        let twice = self.commands.insert(ticket, command).is_some();
        assert!(!twice, "ticket {} is declared twice in an entry", ticket.0);
    }

    /// The first that waits for a key, up to the ticket `last`.
    pub fn next(&mut self, key: &WaitKey, last: Ticket) -> Option<(Ticket, &Declared)> {
        let queue = self.queues.get_mut(key)?;
        while let Some(first) = queue.first() {
            if self.commands.contains_key(first) {
                break;
            }
            queue.pop_first();
        }
        let ticket = *queue.first()?;
        (ticket <= last).then(|| (ticket, &self.commands[&ticket]))
    }

    /// A ticket is served: it waits no longer.
    pub fn take(&mut self, ticket: Ticket) {
        self.commands.remove(&ticket).expect("it waited");
    }

    /// A ticket found nothing at this key: it waits for its others.
    pub fn pass(&mut self, key: &WaitKey, ticket: Ticket) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Waiting = Waiters<u32, u32, &'static str>;

    fn key(name: &str) -> WaitKey {
        WaitKey::new(DatabaseIndex(0), WaitKind::List, name.as_bytes())
    }

    fn command(number: u16) -> Declared {
        let arguments = OwnedArguments::default();
        Declared { command: number, manner: 0, database: DatabaseIndex(0), arguments, stamp: None }
    }

    #[test]
    fn keys_read_back() {
        for kind in WaitKind::ALL {
            for (bytes, within) in [(&b""[..], &b""[..]), (b"a", b"bc"), (&[0, 255], b"")] {
                let key = WaitKey::new(DatabaseIndex(15), kind, bytes);
                let key = WaitKey { within: within.into(), ..key };
                assert_eq!(WaitKey::decode(&key.encode()), Some(key));
            }
        }
        for wrong in [&b""[..], b"\0", b"\0\0a", b"\0\xff\0\0\0\0a", b"\0\x01\x02\0\0\0a"] {
            assert_eq!(WaitKey::decode(wrong), None);
        }
    }

    #[test]
    fn all_that_is_waited_for_at_a_key_is_found() {
        let mut waiting = Waiting::default();
        let of = |name: &str, kind, within: &[u8]| {
            let key = WaitKey::new(DatabaseIndex(0), kind, name.as_bytes());
            WaitKey { within: within.into(), ..key }
        };
        let keys = [
            of("a", WaitKind::List, b""),
            of("a", WaitKind::Group, b"g"),
            of("a", WaitKind::Group, b"h"),
            of("ab", WaitKind::List, b""),
        ];
        let round = waiting.next_round();
        for (asker, key) in keys.iter().enumerate() {
            let ticket = waiting.open(asker as u32, vec![key.clone()], 0);
            waiting.declare_first(ticket, round);
        }
        let found: Vec<&WaitKey> = waiting.awaited(DatabaseIndex(0), b"a").collect();
        assert_eq!(found, keys[..3].iter().collect::<Vec<_>>());
        assert_eq!(waiting.awaited(DatabaseIndex(1), b"a").count(), 0);
    }

    /// Asker `asker` waits for `keys`, its own try being applied without success.
    fn wait(waiters: &mut Waiting, asker: u32, keys: &[&str]) -> Ticket {
        let round = waiters.next_round();
        let keys = keys.iter().map(|name| key(name)).collect();
        let ticket = waiters.open(asker, keys, asker);
        waiters.declare_first(ticket, round);
        waiters.settle(round);
        ticket
    }

    fn declaration(tickets: &[Ticket]) -> Option<Declaration> {
        let last = *tickets.last()?;
        Some(Declaration { tickets: tickets.to_vec(), last, is_behind: false })
    }

    #[test]
    fn tickets_are_declared_in_order_as_many_as_there_may_be_elements() {
        let mut waiters = Waiting::default();
        let tickets: Vec<Ticket> = (0..5).map(|n| wait(&mut waiters, n, &["a"])).collect();
        let round = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 1, round), declaration(&tickets[..1]));
        assert_eq!(waiters.declare(&key("a"), 2, round), declaration(&tickets[1..3]));
        assert_eq!(waiters.declare(&key("b"), 2, round), None);
        // The next entry: those of the first are not known yet.
        let next = waiters.next_round();
        let behind = Declaration { tickets: tickets.clone(), last: tickets[4], is_behind: true };
        assert_eq!(waiters.declare(&key("a"), 9, next), Some(behind));
        assert!(!waiters.has_served(next));
        assert_eq!(waiters.served(tickets[0]).map(|(what, _)| what), Some(0));
        assert_eq!(waiters.settle(round).keys, [key("a")]);
        assert!(waiters.has_served(next));
        for (n, ticket) in tickets.iter().enumerate().skip(1) {
            assert_eq!(waiters.served(*ticket).map(|(what, _)| what), Some(n as u32));
        }
        assert!(waiters.settle(next).keys.is_empty() && waiters.is_empty());
        assert!(!waiters.is_awaited(&key("a")));
    }

    #[test]
    fn who_is_declared_for_one_write_may_be_served_by_the_next() {
        let mut waiters = Waiting::default();
        let tickets = [wait(&mut waiters, 1, &["a"]), wait(&mut waiters, 2, &["a"])];
        let round = waiters.next_round();
        assert!(waiters.serves_more(&key("a"), 9, round));
        let keys = [key("a")];
        let both = [(&1, &keys[..]), (&2, &keys[..])];
        assert_eq!(waiters.to_be_served(&key("a"), 9, round), both);
        assert_eq!(waiters.declare(&key("a"), 9, round), declaration(&tickets));
        // The first write may have had something for one of them.
        assert!(!waiters.serves_more(&key("a"), 1, round));
        assert_eq!(waiters.to_be_served(&key("a"), 1, round), both);
        let again = Declaration { tickets: vec![], last: tickets[1], is_behind: false };
        assert_eq!(waiters.declare(&key("a"), 1, round), Some(again));
        let other = waiters.next_round();
        assert_eq!(waiters.to_be_served(&key("a"), 1, other).len(), 2);
        assert!(waiters.to_be_served(&key("b"), 1, round).is_empty());
    }

    #[test]
    fn nothing_serves_who_has_not_made_its_first_try() {
        let mut waiters = Waiting::default();
        let first = wait(&mut waiters, 1, &["a"]);
        let second = waiters.open(2, vec![key("a"), key("b")], 2);
        let third = wait(&mut waiters, 3, &["b"]);
        assert_eq!(waiters.untried().collect::<Vec<_>>(), [second]);
        assert!(waiters.is_behind_untried(third) && !waiters.is_behind_untried(second));
        let round = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 9, round), declaration(&[first]));
        assert_eq!(waiters.declare(&key("b"), 9, round), None, "the third came later");
        assert!(!waiters.is_unsettled(&key("a")));
        assert!(waiters.served(first).is_some() && waiters.is_unsettled(&key("a")));
        waiters.settle(round);
        assert!(!waiters.is_unsettled(&key("a")));
        let next = waiters.next_round();
        waiters.declare_first(second, next);
        assert_eq!(waiters.declare(&key("b"), 9, next).map(|one| one.tickets), Some(vec![third]));
        let fourth = waiters.open(4, vec![key("a")], 4);
        assert_eq!(waiters.end(4, ""), Ending::Ended((4, vec![key("a")])), "it was not tried");
        assert!(waiters.untried().next().is_none() && waiters.waiting(fourth).is_none());
    }

    #[test]
    fn a_try_of_its_own_is_a_declaration() {
        let mut waiters = Waiting::default();
        let first = wait(&mut waiters, 1, &["a"]);
        let round = waiters.next_round();
        let second = waiters.open(2, vec![key("a")], 2);
        waiters.declare_first(second, round);
        // Two elements: the one that waits is declared, the other is.
        let both = Declaration { tickets: vec![first], last: second, is_behind: false };
        assert_eq!(waiters.declare(&key("a"), 2, round), Some(both));
        let later = waiters.next_round();
        let third = waiters.open(3, vec![key("a")], 3);
        waiters.declare_first(third, later);
        // Not the third before the others.
        let all = Declaration { tickets: vec![first, second], last: third, is_behind: true };
        assert_eq!(waiters.declare(&key("a"), 9, later), Some(all));
        assert_eq!(waiters.settle(round).keys, []);
        assert_eq!(waiters.settle(later).keys, []);
        let last = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 9, last), declaration(&[first, second, third]));
    }

    #[test]
    fn a_ticket_of_several_keys_is_declared_once() {
        let mut waiters = Waiting::default();
        let both = wait(&mut waiters, 1, &["a", "b", "a"]);
        let only = wait(&mut waiters, 2, &["b"]);
        let round = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 1, round), declaration(&[both]));
        assert_eq!(
            waiters.declare(&key("b"), 2, round),
            declaration(&[both, only]).map(|all| { Declaration { tickets: vec![only], ..all } })
        );
        waiters.served(both);
        assert_eq!(waiters.settle(round).keys, [key("b")]);
        assert!(!waiters.is_awaited(&key("a")) && waiters.is_awaited(&key("b")));
    }

    #[test]
    fn who_may_need_nothing_of_a_key_is_in_nobody_s_way() {
        let mut waiters = Waiting::default();
        let both = wait(&mut waiters, 1, &["a", "b"]);
        let (second, third) = (wait(&mut waiters, 2, &["a"]), wait(&mut waiters, 3, &["a"]));
        // The first may find something at the other key.
        let round = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 1, round), declaration(&[both, second]));
        // The entry under way may serve both.
        let later = waiters.next_round();
        let all = Declaration { tickets: vec![both, second, third], last: third, is_behind: true };
        assert_eq!(waiters.declare(&key("a"), 1, later), Some(all));
        waiters.served(both);
        waiters.served(second);
        assert!(waiters.settle(round).keys.len() == 1 && waiters.has_served(later));
    }

    #[test]
    fn a_wait_ends_once_what_is_under_way_is_known() {
        let mut waiters = Waiting::default();
        wait(&mut waiters, 1, &["a"]);
        let served = wait(&mut waiters, 2, &["a"]);
        wait(&mut waiters, 3, &["a"]);
        assert_eq!(waiters.end(3, "timeout"), Ending::Ended((3, vec![key("a")])));
        assert_eq!(waiters.end(3, "timeout"), Ending::Unknown);
        let round = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 2, round).map(|all| all.tickets.len()), Some(2));
        assert_eq!(waiters.end(1, "gone"), Ending::Later);
        assert_eq!(waiters.end(2, "gone"), Ending::Later);
        waiters.served(served);
        let ended = waiters.settle(round).ended;
        assert_eq!(ended, [((1, vec![key("a")]), "gone")]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn who_waits_no_longer_is_not_declared_nor_in_the_way() {
        let mut waiters = Waiting::default();
        wait(&mut waiters, 1, &["a"]);
        let other = wait(&mut waiters, 2, &["a"]);
        waiters.end(1, "gone");
        let round = waiters.next_round();
        assert_eq!(waiters.declare(&key("a"), 1, round), declaration(&[other]));
        let all = waiters.dissolve();
        assert_eq!(all, [(2, vec![key("a")])]);
        assert!(waiters.is_empty() && waiters.settle(round).keys.is_empty());
    }

    #[test]
    fn an_entry_serves_in_order_of_tickets() {
        let (five, three) = (command(5), command(3));
        let mut served = Served::default();
        served.declare(Ticket(5), [key("a"), key("b")].into_iter(), five.clone());
        served.declare(Ticket(3), [key("a")].into_iter(), three.clone());
        assert_eq!(served.next(&key("a"), Ticket(2)), None);
        assert_eq!(served.next(&key("a"), Ticket(3)), Some((Ticket(3), &three)));
        served.take(Ticket(3));
        assert_eq!(served.next(&key("a"), Ticket(9)), Some((Ticket(5), &five)));
        served.pass(&key("a"), Ticket(5));
        assert_eq!(served.next(&key("a"), Ticket(9)), None);
        assert_eq!(served.next(&key("b"), Ticket(9)), Some((Ticket(5), &five)));
        served.take(Ticket(5));
        assert_eq!(served.next(&key("b"), Ticket(9)), None);
        served.clear();
        served.declare(Ticket(5), [key("a")].into_iter(), three.clone());
        assert_eq!(served.next(&key("a"), Ticket(9)), Some((Ticket(5), &three)));
    }
}
