//! Commands that wait for keys, and how they are served through the log of their shard.
//!
//! Who waits is memory of the leader ([`Waiters`]); what is logged is an operation that *serves*:
//! it carries the waiting commands that the entry does not know yet, and the key to serve them at.
//! The first try of a command is such an operation at its place in the order; behind every write
//! that names an awaited key stands another. What fills a key unnamed is noticed when it is
//! applied, and served by the next entry ([`tend`]).
//!
//! An operation that serves has these arguments: its name, the key ([`WaitKey::encode`]; empty: the
//! first try of the one command that follows), the last ticket to serve, and then each command: a
//! head, its stamp if it has one, its arguments.

use super::sets::Set;
use super::{Host, Server};
use crate::arguments::{Arguments, OwnedArguments};
use crate::batch::BatchBuilder;
use crate::ids::DatabaseIndex;
use crate::keyspace::{Edit, View};
use crate::stamp::Stamp;
use crate::transaction::{LockKey, Next};
use crate::waiting::{Declaration, Declared, Ending, Round, Ticket, WaitKey, Waiters};
use std::hash::Hash;

/// Name of the operation.
pub const SERVE: &str = "serve-waiting";

/// That the stamp of a declared command stands before its arguments: a bit beside its manner.
const STAMPED: u8 = 2;

/// What waits, and what an ended wait is told.
pub type Ended<H> = (<H as Waits>::Waiting, <H as Waits>::End);

/// A host whose clients may wait for keys.
pub trait Waits: Host {
    /// Names one who waits.
    type Asker: Copy + Eq + Hash;
    /// A command that waits.
    type Waiting;
    /// How a wait ends that nothing was found for.
    type End: Clone;

    /// All that wait here.
    fn waiters(&self) -> &Waiters<Self::Asker, Self::Waiting, Self::End>;
    /// The same, to be changed.
    fn waiters_mut(&mut self) -> &mut Waiters<Self::Asker, Self::Waiting, Self::End>;
    /// A command as an entry carries it.
    fn declared(&self, waiting: &Self::Waiting) -> Declared;
    /// Appends an operation that serves to the newest set, with [`Server::gather_beside`].
    fn gather_serving(&mut self, operation: Arguments<'_>);
    /// Is a request of a set an operation that serves?
    fn is_serving(who: &Self::Who) -> bool;
    /// Is there what is waited for?
    fn has(view: &View<'_>, key: &WaitKey) -> bool;
    /// The keys that a command fills with what it was served.
    fn also_filled(&self, waiting: &Self::Waiting) -> Vec<(DatabaseIndex, Vec<u8>)>;
    /// Of a key that has changed, what else than commands of this shard waits for it.
    fn also_awaited(&self, _database: DatabaseIndex, _key: &[u8], _found: &mut Vec<WaitKey>) {}
}

/// A command waits from now on: its first try takes its place in the order, behind those who are
/// still to be served at one of its keys.
pub fn begin<H: Waits>(host: &mut H, asker: H::Asker, keys: Vec<WaitKey>, waiting: H::Waiting) {
    for key in &keys {
        host.server_mut().keyspace.start_awaiting(key.database, &key.bytes);
    }
    let is_early = keys.iter().any(|key| is_overdue(host, key));
    let ticket = host.waiters_mut().open(asker, keys, waiting);
    if !is_early && !host.waiters().is_behind_untried(ticket) {
        try_first(host, ticket);
    }
}

/// Is somebody still to be served at a key, in an entry to come?
fn is_overdue<H: Waits>(host: &H, key: &WaitKey) -> bool {
    let Server { postponed, unserved, keyspace, .. } = host.server();
    host.waiters().is_awaited(key)
        && (postponed.contains(key)
            || unserved.contains(key)
            || keyspace.has_changed(key.database, &key.bytes)
            || host.waiters().is_unsettled(key))
}

fn try_first<H: Waits>(host: &mut H, ticket: Ticket) {
    host.server_mut().open_set();
    let round = round(host);
    host.waiters_mut().declare_first(ticket, round);
    let waiting = host.waiters().waiting(ticket).expect("it is about to be tried");
    let filled = host.also_filled(waiting);
    gather(host, b"", Declaration { tickets: vec![ticket], last: ticket, is_behind: false });
    for (database, key) in filled {
        serve_behind(host, database, &key, 1);
    }
}

/// Lets those try who came when others were still to be served.
#[cold]
fn try_untried<H: Waits>(host: &mut H) {
    if !host.server().serves() {
        return;
    }
    let untried: Vec<Ticket> = host.waiters().untried().collect();
    for ticket in untried {
        let keys = host.waiters().keys(ticket);
        let is_early = keys.iter().any(|key| is_overdue(host, key));
        if is_early || host.waiters().is_behind_untried(ticket) {
            continue;
        }
        let waiting = host.waiters().waiting(ticket).expect("it has not been tried");
        let filled = host.also_filled(waiting);
        let own = keys.iter().map(|key| &*key.bytes);
        match holds_any(host, own.chain(filled.iter().map(|(_, bytes)| &**bytes))) {
            true => {
                let key = keys[0].clone();
                host.server_mut().postponed.push(key);
            }
            false => try_first(host, ticket),
        }
    }
}

/// The round of the newest set.
fn round<H: Waits>(host: &mut H) -> Round {
    if let Some(round) = host.server_mut().newest_set().round {
        return round;
    }
    let round = host.waiters_mut().next_round();
    host.server_mut().newest_set().round = Some(round);
    round
}

/// A write of the newest set may give a key up to `count` elements: puts an operation behind it
/// that serves whoever waits for that key, whatever is to be there.
pub fn serve_behind<H: Waits>(host: &mut H, database: DatabaseIndex, key: &[u8], count: usize) {
    let awaited: Vec<WaitKey> = host.waiters().awaited(database, key).cloned().collect();
    for key in awaited {
        serve_key(host, &key, count);
    }
}

fn serve_key<H: Waits>(host: &mut H, key: &WaitKey, count: usize) {
    let round = round(host);
    if is_taken(host, key, count, round) {
        let postponed = &mut host.server_mut().postponed;
        if !postponed.contains(key) {
            postponed.push(key.clone());
        }
        return;
    }
    let mut filled = Vec::new();
    // Behind whom it was asked for before, it is followed up already.
    if host.waiters().serves_more(key, count, round) {
        let served = host.waiters().to_be_served(key, count, round);
        filled.extend(served.into_iter().flat_map(|(waiting, _)| host.also_filled(waiting)));
    }
    let Some(declaration) = host.waiters_mut().declare(key, count, round) else { return };
    if declaration.is_behind {
        host.server_mut().newest_set().is_behind = true;
    }
    gather(host, &key.encode(), declaration);
    // A round serves nobody twice at a key, so this ends.
    for (database, key) in filled {
        serve_behind(host, database, &key, 1);
    }
}

/// Does a transaction hold what may be changed, at this key or at others of those who are served?
/// What it has read there must be as it was until it is over.
fn is_taken<H: Waits>(host: &H, key: &WaitKey, count: usize, round: Round) -> bool {
    if host.server().participant.is_idle() {
        return false;
    }
    let served = host.waiters().to_be_served(key, count, round);
    let filled: Vec<_> = served.iter().flat_map(|(waiting, _)| host.also_filled(waiting)).collect();
    let emptied = served.iter().flat_map(|(_, keys)| keys.iter()).map(|key| &*key.bytes);
    holds_any(host, emptied.chain(filled.iter().map(|(_, bytes)| &**bytes)))
}

/// Does a transaction hold one of these keys?
fn holds_any<'k, H: Waits>(host: &H, mut keys: impl Iterator<Item = &'k [u8]>) -> bool {
    let Server { participant, wanted, keyspace, unread, .. } = host.server();
    let mut unread = unread.clone();
    unread.extend(wanted.next.iter().filter_map(|next| match next {
        Next::Fetch(fetch) => Some(fetch.id),
        Next::Admit(_) => None,
    }));
    keys.any(|bytes| {
        let hash = keyspace.hasher().hash(bytes);
        participant.is_taken(LockKey::new(hash, true).hash, &unread)
    })
}

/// Serves whoever waits for a key that has something, if this node leads.
fn serve_all<H: Waits>(host: &mut H, key: &WaitKey) {
    if host.server().serves() && host.waiters().is_awaited(key) {
        host.server_mut().open_set();
        serve_key(host, key, usize::MAX);
    }
}

/// Serves at keys that a transaction held, unless one still does.
#[cold]
pub fn serve_postponed<H: Waits>(host: &mut H) {
    serve_postponed_keys(host);
    try_untried(host);
}

fn serve_postponed_keys<H: Waits>(host: &mut H) {
    for key in std::mem::take(&mut host.server_mut().postponed) {
        serve_all(host, &key);
    }
}

fn gather<H: Waits>(host: &mut H, key: &[u8], declaration: Declaration) {
    let mut operation: OwnedArguments =
        [SERVE.as_bytes(), key, &declaration.last.0.to_le_bytes()].into_iter().collect();
    for ticket in declaration.tickets {
        let waiting = host.waiters().waiting(ticket).expect("just declared");
        push_declared(&mut operation, ticket, &host.declared(waiting));
    }
    host.gather_serving(operation.borrow());
}

/// Takes out of a set, which is about to be proposed, the tickets that earlier entries have served
/// since it was gathered.
#[cold]
pub fn forget_served<H: Waits>(host: &H, set: &mut Set<H>) {
    if !set.round.is_some_and(|round| host.waiters().has_served(round)) {
        return;
    }
    let mut rest = BatchBuilder::default();
    for waiting in set.order.iter_mut().filter(|waiting| waiting.proposed) {
        let (operation, arguments) = set.batch.operation(waiting.place as usize);
        let mut owned = OwnedArguments::default();
        let arguments = match H::is_serving(&waiting.who) {
            true => {
                arguments.first(3).iter_from(0).for_each(|argument| owned.push(argument));
                each_declared(arguments, |ticket, declared| {
                    if host.waiters().waiting(ticket).is_some() {
                        push_declared(&mut owned, ticket, &declared);
                    }
                });
                owned.borrow()
            }
            false => arguments,
        };
        let (number, database) = (operation.command(), operation.database());
        waiting.place = rest.push(number, database, operation.first_key(), arguments) as u32;
    }
    set.batch = rest;
}

/// An entry has served a ticket. Returns what waited; nothing when nobody waits under this number
/// here, as the shard was led elsewhere meanwhile.
pub fn take_served<H: Waits>(host: &mut H, ticket: Ticket) -> Option<H::Waiting> {
    let waited = host.waiters_mut().served(ticket)?;
    Some(release(host.server_mut(), waited))
}

/// An operation that serves could not be proposed. Those who waited before go on waiting, and are
/// served at a tick to come if leadership stays here; returns the one whose first try it was.
pub fn refused<H: Waits>(host: &mut H, operation: Arguments<'_>) -> Option<H::Waiting> {
    if let Some(key) = WaitKey::decode(operation.at(1)) {
        let unserved = &mut host.server_mut().unserved;
        if !unserved.contains(&key) {
            unserved.push(key);
        }
        return None;
    }
    let mut first_try = None;
    each_declared(operation, |ticket, _| first_try = Some(ticket));
    take_served(host, first_try.expect("a first try declares its command"))
}

/// The asker no longer wants to wait. What has waited is returned if that is over now; [`tend`]
/// tells if it is over later.
pub fn end<H: Waits>(host: &mut H, asker: H::Asker, end: H::End) -> Ending<H::Waiting> {
    match host.waiters_mut().end(asker, end) {
        Ending::Ended(waited) => Ending::Ended(release(host.server_mut(), waited)),
        Ending::Later => Ending::Later,
        Ending::Unknown => Ending::Unknown,
    }
}

/// Is there something for [`tend`] to do?
#[inline(always)]
pub fn is_to_be_tended<H: Waits>(server: &Server<H>) -> bool {
    !(server.settled.is_empty() && server.postponed.is_empty())
        || server.keyspace.awaited_key_changed()
}

/// Serves those who wait for keys that have something by now, at this time. Appends to `ended` the
/// waits that are over in vain, and returns the keys that have something, for those who wait
/// elsewhere.
#[cold]
pub fn tend<H: Waits>(host: &mut H, time_ms: i64, ended: &mut Vec<Ended<H>>) -> Vec<WaitKey> {
    let mut keys = Vec::new();
    for round in std::mem::take(&mut host.server_mut().settled) {
        let settled = host.waiters_mut().settle(round);
        for (waited, end) in settled.ended {
            ended.push((release(host.server_mut(), waited), end));
        }
        keys.extend(settled.keys);
    }
    for (database, bytes) in host.server_mut().keyspace.take_changed() {
        keys.extend(host.waiters().awaited(database, &bytes).cloned());
        host.also_awaited(database, &bytes, &mut keys);
    }
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| H::has(&host.server().keyspace.view(key.database, time_ms), key));
    serve_postponed_keys(host);
    for key in &keys {
        serve_all(host, key);
    }
    try_untried(host);
    keys
}

/// This node leads the shard no longer: nobody waits here. What serves them may be on its way
/// through the log.
pub fn dissolve<H: Waits>(host: &mut H) -> Vec<H::Waiting> {
    host.server_mut().postponed.clear();
    host.server_mut().unserved.clear();
    let waited = host.waiters_mut().dissolve();
    waited.into_iter().map(|waited| release(host.server_mut(), waited)).collect()
}

/// Ends the interest of what has waited in its keys.
fn release<H: Host, W>(server: &mut Server<H>, (waiting, keys): (W, Vec<WaitKey>)) -> W {
    for key in &keys {
        server.keyspace.stop_awaiting(key.database, &key.bytes);
    }
    waiting
}

/// Calls with each command that an operation declares.
pub fn each_declared<'a>(operation: Arguments<'a>, mut visit: impl FnMut(Ticket, Declared)) {
    let mut at = 3;
    while let Some(head) = operation.get(at) {
        let head: [u8; 16] = head.try_into().expect("a head has sixteen bytes");
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let count = number(12..16) as usize;
        at += 1;
        let stamp = (head[11] & STAMPED != 0).then(|| {
            at += 1;
            Stamp::decode(operation.at(at - 1)).expect("a leader has stamped it")
        });
        let declared = Declared {
            command: number(8..10) as u16,
            database: DatabaseIndex(head[10]),
            manner: head[11] & !STAMPED,
            arguments: OwnedArguments::copy(operation.tail(at).first(count)),
            stamp,
        };
        visit(Ticket(number(0..8)), declared);
        at += count;
    }
}

fn push_declared(operation: &mut OwnedArguments, ticket: Ticket, declared: &Declared) {
    let arguments = declared.arguments.borrow();
    let mut head = [0; 16];
    head[..8].copy_from_slice(&ticket.0.to_le_bytes());
    head[8..10].copy_from_slice(&declared.command.to_le_bytes());
    head[10] = declared.database.0;
    head[11] = declared.manner | if declared.stamp.is_some() { STAMPED } else { 0 };
    head[12..].copy_from_slice(&(arguments.count() as u32).to_le_bytes());
    operation.push(&head);
    if let Some(stamp) = declared.stamp {
        operation.push(&stamp.encode());
    }
    arguments.iter_from(0).for_each(|argument| operation.push(argument));
}

/// What commands mean to [`serve`].
pub trait Serving {
    /// The keys that a command waits for.
    fn keys(&self, declared: &Declared) -> Vec<WaitKey>;
    /// Is there what is waited for?
    fn has(&self, view: &View<'_>, key: &WaitKey) -> bool;
    /// Runs a command: its first try, or as the `nth` that an operation serves. Nothing when it
    /// found nothing.
    fn run(
        &mut self,
        edit: &mut Edit<'_>,
        declared: &Declared,
        nth: Option<usize>,
    ) -> Option<Vec<u8>>;
    /// A command is served, and answered this.
    fn served(&mut self, edit: &mut Edit<'_>, ticket: Ticket, declared: &Declared, reply: Vec<u8>);
}

/// Applies an operation that serves: on the leader and on every other replica alike.
pub fn serve(edit: &mut Edit<'_>, operation: Arguments<'_>, serving: &mut impl Serving) {
    let mut first_try = None;
    each_declared(operation, |ticket, declared| {
        let keys = serving.keys(&declared);
        first_try = Some((ticket, declared.clone()));
        edit.serving().declare(ticket, keys.into_iter(), declared);
    });
    let Some(key) = WaitKey::decode(operation.at(1)) else {
        let (ticket, declared) = first_try.expect("a first try declares its command");
        if let Some(reply) = serving.run(edit, &declared, None) {
            edit.serving().take(ticket);
            serving.served(edit, ticket, &declared, reply);
        }
        return;
    };
    let last = operation.at(2).try_into().map(u64::from_le_bytes).expect("a ticket has 8 bytes");
    let mut nth = 0;
    while serving.has(&edit.of_database(key.database).view(), &key) {
        let Some((ticket, declared)) = edit.serving().next(&key, Ticket(last)) else { return };
        let declared = declared.clone();
        let reply = serving.run(edit, &declared, Some(nth));
        nth += 1;
        match reply {
            None => edit.serving().pass(&key, ticket),
            Some(reply) => {
                edit.serving().take(ticket);
                serving.served(edit, ticket, &declared, reply);
            }
        }
    }
}
