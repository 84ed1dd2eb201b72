//! Transactions over several shards, as far as this one takes part, and the single requests that
//! wait for them.

use super::{Fate, Host};
use crate::transaction::{Message, Next, ToShard};

/// Keeps a request until no transaction holds what it needs; [`Host::admit`] then gathers it.
#[cold]
pub fn wait<H: Host>(host: &mut H, kept: H::Kept) {
    let (locks, after) = (host.locks(&kept), host.last_lock(&kept));
    assert!(!locks.is_empty(), "who locks nothing waits for nothing");
    let server = host.server_mut();
    server.participant.wait(locks, after, kept, &mut server.wanted);
}

/// Takes a message of a transaction. The answer says that this node does not serve the shard.
/// Nothing may be staged that was not run.
pub fn take_message<H: Host>(
    host: &mut H,
    message: ToShard<H::Ask>,
) -> Option<Message<H::Ask, H::Found>> {
    let server = host.server_mut();
    if !server.serves() {
        return message.refusal(server.id);
    }
    server.participant.handle(message, server.keyspace.ledger(), &mut server.wanted);
    None
}

/// Time passes for transactions: those in doubt ask the others, locks that nobody follows up are
/// given up. Who could not be served is tried again.
pub fn tick<H: Host>(host: &mut H) {
    let server = host.server_mut();
    if server.serves() {
        server.participant.tick(server.keyspace.ledger(), &mut server.wanted);
        server.postponed.append(&mut server.unserved);
    }
}

/// Does what transactions want of this shard: lets requests go on, gathers reads and records, asks
/// for confirmations. Messages are appended to `messages`. True when there was something to do.
#[inline]
pub fn transact<H: Host>(
    host: &mut H,
    messages: &mut Vec<Message<H::Ask, H::Found>>,
    turn: &mut H::Turn<'_>,
) -> bool {
    let any = !host.server().wanted.is_empty();
    while !host.server().wanted.is_empty() {
        if !host.server().postponed.is_empty() {
            host.serve_postponed();
        }
        transact_once(host, messages, turn);
    }
    any
}

fn transact_once<H: Host>(
    host: &mut H,
    messages: &mut Vec<Message<H::Ask, H::Found>>,
    turn: &mut H::Turn<'_>,
) {
    let wanted = std::mem::take(&mut host.server_mut().wanted);
    let serves = host.server().serves();
    assert!(serves || wanted.records.is_empty(), "records are a leader's");
    let is_awaited = !host.server().postponed.is_empty() || host.awaits_any();
    if is_awaited {
        let unread = wanted.next.iter().filter_map(|next| match next {
            Next::Fetch(fetch) => Some(fetch.id),
            Next::Admit(_) => None,
        });
        host.server_mut().unread.extend(unread);
    }
    for next in wanted.next {
        match next {
            Next::Admit(kept) if serves => host.admit(kept, turn),
            Next::Admit(kept) => {
                let leader = host.server().group.leader();
                host.fail_kept(kept, Fate::NotLeader { leader }, turn);
            }
            Next::Fetch(fetch) => {
                host.server_mut().unread.retain(|id| *id != fetch.id);
                host.gather_fetch(fetch);
            }
        }
    }
    debug_assert!(host.server().unread.is_empty(), "all of them were let in");
    for record in wanted.records {
        host.gather_record(&record);
    }
    let server = host.server_mut();
    if server.is_alone {
        for fetch in wanted.confirms {
            server.participant.confirmed(fetch, true, &mut server.wanted);
        }
    } else {
        server.reads.fetches.extend(wanted.confirms);
    }
    messages.extend(wanted.messages);
}
