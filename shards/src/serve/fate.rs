//! Leadership: when this node serves, and what becomes of its requests when it does no more.

use super::entries::end_set;
use super::{Fate, Host, Server, reads};
use crate::raft::{Output, Proposal, Role};
use crate::transaction::Next;

/// Looks whether this node serves. Ask after everything that may change its role, before the next
/// request.
pub fn note_role<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    let server = host.server();
    let (leads, term) = (server.group.role() == Role::Leader, server.group.term());
    if server.leading.is_some_and(|leading| !leads || leading != term) {
        step_down(host, turn);
    }
    let server = host.server_mut();
    let members = server.group.membership();
    let is_alone = members.voters.len() == 1 && !members.is_joint();
    if server.leading.is_some() {
        if server.is_alone != is_alone {
            (server.is_alone, server.reads_in_place) = (is_alone, is_alone);
            server.participant.set_alone(is_alone);
        }
    } else if server.group.is_ready_to_read()
        && server.group.applied_index() >= server.group.commit_index()
    {
        debug_assert!(leads, "only who leads is ready to read");
        debug_assert!(server.sets.iter().all(|set| set.is_empty()), "nobody was let in before");
        server.leading = Some(term);
        (server.is_alone, server.reads_in_place) = (is_alone, is_alone);
        server.participant.lead(server.keyspace.ledger(), is_alone);
        host.leads();
    }
}

/// This node leads no more. What was not proposed never had an effect; what was is settled when its
/// fate is known.
#[cold]
fn step_down<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    let server = host.server_mut();
    server.leading = None;
    (server.is_alone, server.reads_in_place) = (false, false);
    server.clock.step_down();
    server.wanted.next.retain(|next| matches!(next, Next::Admit(_)));
    server.wanted.records.clear();
    server.wanted.confirms.clear();
    // Who waits is told, and served here no more.
    server.postponed.clear();
    server.unserved.clear();
    server.participant.step_down(&mut server.wanted);
    let fate = server.not_leader();
    for set in std::mem::take(&mut server.sets) {
        end_set(host, set, fate, turn);
    }
    reads::step_down(host, turn);
    host.deposed(turn);
}

/// The group was polled: takes in what this says of its role and its members. Call it before what
/// is committed is applied.
#[inline]
pub fn polled<H: Host>(host: &mut H, output: &Output, turn: &mut H::Turn<'_>) {
    if output.role_changed || output.membership_changed {
        note_role(host, turn);
    }
}

/// Takes in what a poll of the group says of proposals and reads. Call it when what is committed is
/// applied.
#[inline]
pub fn settle<H: Host>(host: &mut H, output: &mut Output, turn: &mut H::Turn<'_>) {
    if !output.committed.is_empty() && !host.server().serves() {
        note_role(host, turn);
    }
    if !(output.lost.is_empty() && output.unknown.is_empty()) {
        for lost in output.lost.drain(..) {
            end_flight(host, lost, Fate::Lost, turn);
        }
        for unknown in output.unknown.drain(..) {
            end_flight(host, unknown, Fate::Unknown, turn);
        }
    }
    reads::settle(host, output, turn);
}

/// Nobody waits any longer to hear what becomes of what is on its way through the log: another node
/// leads, or none, and no majority has said. It may be committed all the same, and is applied then
/// as if another node had proposed it.
pub fn give_up<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    assert!(!host.server().serves(), "who leads hears of its entries");
    while let Some(flight) = host.server_mut().flights.pop_front() {
        end_set(host, flight.set, Fate::Unknown, turn);
    }
}

/// What was proposed at this place, and what waits behind it, comes to nothing.
#[cold]
fn end_flight<H: Host>(host: &mut H, proposal: Proposal, fate: Fate<'_>, turn: &mut H::Turn<'_>) {
    let place = (proposal.index, proposal.term);
    while let Some(at) = host.server().position(place) {
        let server: &mut Server<H> = host.server_mut();
        let flight = server.flights.remove(at).expect("just found");
        end_set(host, flight.set, fate, turn);
    }
}
