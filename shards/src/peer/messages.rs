//! Messages of Raft groups as items. What raft-rs puts into a message is written, and nothing else:
//! a field that it begins to use is found by the assertions here, which the simulator runs through.
//!
//! Heartbeats of all groups of a core go in one item, with the time that they carry once; their
//! answers likewise. Each group's term and commit index are there: "the node is up" would leave
//! stale leaders in place.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

use super::item::{
    APPEND, APPENDED, HEARD, HEARTBEATS, Item, OFFER, Pieces, STAND_NOW, VOTE, VOTED, put_head,
};
use crate::ids::{NodeId, ShardId};
use crate::raft::PeerMessage;
use crate::snapshot::Membership;
use crate::wire::{Garbage, Reader};

/// The context of a vote that a leader has asked for.
const TRANSFER: &[u8] = raft::CAMPAIGN_TRANSFER;
/// Flag: the answer is no.
const REJECTS: u8 = 1;
/// Flag: a vote before the vote.
const BEFORE: u8 = 2;
/// Flag: the leader has asked for it.
const HANDED_OVER: u8 = 4;
/// Flag of a heartbeat: a read waits for it.
const READS: u8 = 1;
/// Bytes of a group in an item of heartbeats or of their answers.
const ROW_BYTES: usize = 36;
/// Bytes before the rows: the time.
const STAMP_BYTES: usize = 8;

/// The nodes at both ends of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub from: NodeId,
    pub to: NodeId,
}

fn is_heartbeat(message: &Message) -> Option<u8> {
    match message.msg_type {
        MessageType::MsgHeartbeat => Some(HEARTBEATS),
        MessageType::MsgHeartbeatResponse => Some(HEARD),
        _ => None,
    }
}

/// Bytes of an item of this message alone, without its head.
pub(super) fn bytes(message: &Message) -> usize {
    let generations = 8;
    match message.msg_type {
        MessageType::MsgAppend => {
            let entries: usize = message.entries.iter().map(|entry| 13 + entry.data.len()).sum();
            generations + 4 * 8 + 4 + entries
        }
        MessageType::MsgAppendResponse => generations + 5 * 8,
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => STAMP_BYTES + ROW_BYTES,
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => generations + 5 * 8,
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            generations + 3 * 8
        }
        MessageType::MsgTimeoutNow => generations + 8,
        MessageType::MsgSnapshot => {
            let snapshot = message.get_snapshot();
            let members = snapshot.get_metadata().get_conf_state();
            let count = members.voters.len()
                + members.learners.len()
                + members.voters_outgoing.len()
                + members.learners_next.len();
            generations + 3 * 8 + 1 + 4 * 4 + 8 * count + 4 + snapshot.data.len()
        }
        other => unreachable!("groups send no {other:?}"),
    }
}

/// Appends a message that is no heartbeat.
pub(super) fn put(shard: ShardId, message: &Message, out: &mut Pieces) {
    if is_heartbeat(message).is_some() {
        let message = PeerMessage(message.clone());
        put_heartbeats(&[Item::Raft { shard, message }], out);
        return;
    }
    let length = bytes(message);
    let rejects = if message.reject { REJECTS } else { 0 };
    let (kind, flags, numbers): (u8, u8, &[u64]) = match message.msg_type {
        MessageType::MsgAppend => (APPEND, 0, &[message.index, message.log_term, message.commit]),
        MessageType::MsgAppendResponse => {
            let Message { index, log_term, commit, reject_hint, .. } = *message;
            (APPENDED, rejects, &[index, log_term, commit, reject_hint])
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            let before = message.msg_type == MessageType::MsgRequestPreVote;
            let handed_over = message.context == TRANSFER;
            assert!(handed_over || message.context.is_empty(), "a vote of another kind");
            let flags = if before { BEFORE } else { 0 } | if handed_over { HANDED_OVER } else { 0 };
            let Message { index, log_term, commit, commit_term, .. } = *message;
            (VOTE, flags, &[index, log_term, commit, commit_term])
        }
        MessageType::MsgRequestVoteResponse => {
            (VOTED, rejects, &[message.commit, message.commit_term])
        }
        MessageType::MsgRequestPreVoteResponse => {
            (VOTED, rejects | BEFORE, &[message.commit, message.commit_term])
        }
        MessageType::MsgTimeoutNow => (STAND_NOW, 0, &[]),
        MessageType::MsgSnapshot => (OFFER, 0, &[]),
        other => unreachable!("groups send no {other:?}"),
    };
    put_head(out, kind, flags, shard, length);
    out.put(&generation(message.from));
    out.put(&generation(message.to));
    out.put_u64(message.term);
    numbers.iter().for_each(|number| out.put_u64(*number));
    match kind {
        APPEND => put_entries(message, out),
        OFFER => put_snapshot(message.get_snapshot(), out),
        _ => {}
    }
}

fn generation(replica: u64) -> [u8; 4] {
    NodeId(replica).generation().to_le_bytes()
}

fn put_entries(message: &Message, out: &mut Pieces) {
    out.put(&(message.entries.len() as u32).to_le_bytes());
    for (i, entry) in message.entries.iter().enumerate() {
        assert_eq!(entry.index, message.index + 1 + i as u64, "entries follow each other");
        assert!(entry.context.is_empty() && !entry.sync_log, "entries carry nothing else");
        out.put(&[entry.get_entry_type() as u8]);
        out.put_u64(entry.term);
        out.put(&(entry.data.len() as u32).to_le_bytes());
        out.share(&entry.data);
    }
}

fn put_snapshot(snapshot: &Snapshot, out: &mut Pieces) {
    let metadata = snapshot.get_metadata();
    let members = metadata.get_conf_state();
    out.put_u64(metadata.index);
    out.put_u64(metadata.term);
    out.put(&[members.auto_leave.into()]);
    let lists =
        [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next];
    for list in lists {
        out.put(&(list.len() as u32).to_le_bytes());
        list.iter().for_each(|id| out.put_u64(*id));
    }
    out.put(&(snapshot.data.len() as u32).to_le_bytes());
    out.share(&snapshot.data);
}

/// Appends the heartbeats, or the answers to such, with which `items` begin and that carry the same
/// time, as one item. Returns how many they are.
pub(super) fn put_heartbeats(items: &[Item], out: &mut Pieces) -> usize {
    let row = |item: &Item| match item {
        Item::Raft { message, .. } => {
            let kind = is_heartbeat(&message.0)?;
            let (stamp, _) = message.0.context.split_first_chunk::<STAMP_BYTES>()?;
            Some((kind, *stamp))
        }
        Item::Transaction(_) | Item::Node(_) => None,
    };
    let Some(first) = items.first().and_then(row) else { return 0 };
    let count = items.iter().take_while(|item| row(item) == Some(first)).count();
    put_head(out, first.0, 0, ShardId(0), STAMP_BYTES + count * ROW_BYTES);
    out.put(&first.1);
    for item in &items[..count] {
        let Item::Raft { shard, message } = item else { continue };
        let message = &message.0;
        let read = &message.context[STAMP_BYTES..];
        out.put(&shard.0.to_le_bytes());
        out.put(&[if read.is_empty() { 0 } else { READS }, 0]);
        out.put(&generation(message.from));
        out.put(&generation(message.to));
        out.put_u64(message.term);
        out.put_u64(message.commit);
        match read.first_chunk::<8>() {
            Some(context) if read.len() == 8 => out.put(context),
            _ => {
                assert!(read.is_empty(), "contexts of reads are 8 bytes");
                out.put(&[0; 8]);
            }
        }
    }
    count
}

/// Reads an item of this kind.
pub(super) fn take(
    kind: u8,
    flags: u8,
    shard: ShardId,
    bytes: Bytes,
    ends: Ends,
    item: &mut impl FnMut(Item),
) -> Result<(), Garbage> {
    let mut input = Reader::new(bytes, "an item of a Raft group");
    let mut message = Message::default();
    let pick = |flag: u8, yes, no| if flags & flag != 0 { yes } else { no };
    let (kind, known) = match kind {
        HEARTBEATS | HEARD => return take_heartbeats(kind, input, ends, item),
        APPEND => (MessageType::MsgAppend, 0),
        APPENDED => (MessageType::MsgAppendResponse, REJECTS),
        VOTE => {
            use MessageType::{MsgRequestPreVote, MsgRequestVote};
            (pick(BEFORE, MsgRequestPreVote, MsgRequestVote), BEFORE | HANDED_OVER)
        }
        VOTED => {
            use MessageType::{MsgRequestPreVoteResponse, MsgRequestVoteResponse};
            let kind = pick(BEFORE, MsgRequestPreVoteResponse, MsgRequestVoteResponse);
            (kind, BEFORE | REJECTS)
        }
        STAND_NOW => (MessageType::MsgTimeoutNow, 0),
        OFFER => (MessageType::MsgSnapshot, 0),
        other => return Err(Reader::unknown("a kind of item", other)),
    };
    if flags & !known != 0 {
        return Err(Reader::unknown("a flag of an item", flags));
    }
    message.msg_type = kind;
    message.from = ends.from.replica(input.u32()?).0;
    message.to = ends.to.replica(input.u32()?).0;
    message.term = number(&mut input)?;
    match kind {
        MessageType::MsgAppend => {
            (message.index, message.log_term) = (number(&mut input)?, number(&mut input)?);
            message.commit = number(&mut input)?;
            take_entries(&mut input, &mut message)?;
        }
        MessageType::MsgAppendResponse => {
            (message.index, message.log_term) = (number(&mut input)?, number(&mut input)?);
            (message.commit, message.reject_hint) = (number(&mut input)?, number(&mut input)?);
            message.reject = flags & REJECTS != 0;
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            (message.index, message.log_term) = (number(&mut input)?, number(&mut input)?);
            (message.commit, message.commit_term) = (number(&mut input)?, number(&mut input)?);
            if flags & HANDED_OVER != 0 {
                message.context = Bytes::from_static(TRANSFER);
            }
        }
        MessageType::MsgSnapshot => message.set_snapshot(take_snapshot(&mut input)?),
        MessageType::MsgTimeoutNow => {}
        _ => {
            (message.commit, message.commit_term) = (number(&mut input)?, number(&mut input)?);
            message.reject = flags & REJECTS != 0;
        }
    }
    input.end()?;
    item(Item::Raft { shard, message: PeerMessage(message) });
    Ok(())
}

/// Reads an index or a term: none is ever so large that counting on from it ends.
fn number(input: &mut Reader) -> Result<u64, Garbage> {
    const NUMBER_MAX: u64 = i64::MAX as u64;
    match input.u64()? {
        found if found > NUMBER_MAX => {
            Err(Garbage::TooMuch { what: "an index or a term", found, bound: NUMBER_MAX })
        }
        found => Ok(found),
    }
}

fn take_entries(input: &mut Reader, message: &mut Message) -> Result<(), Garbage> {
    let count = input.count(13)?;
    let mut entries = Vec::with_capacity(count);
    for i in 0..count {
        let mut entry = Entry::default();
        entry.set_entry_type(match input.u8()? {
            0 => EntryType::EntryNormal,
            2 => EntryType::EntryConfChangeV2,
            other => return Err(Reader::unknown("a kind of entry", other)),
        });
        entry.term = number(input)?;
        entry.index = message.index + 1 + i as u64;
        entry.data = input.string()?;
        entries.push(entry);
    }
    message.set_entries(entries.into());
    Ok(())
}

fn take_snapshot(input: &mut Reader) -> Result<Snapshot, Garbage> {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (number(input)?, number(input)?);
    let mut members = Membership { auto_leave: input.u8()? != 0, ..Membership::default() };
    for list in [
        &mut members.voters,
        &mut members.learners,
        &mut members.voters_outgoing,
        &mut members.learners_next,
    ] {
        let count = input.count(8)?;
        for _ in 0..count {
            list.push(NodeId(input.u64()?));
        }
    }
    metadata.set_conf_state((&members).into());
    snapshot.data = input.string()?;
    Ok(snapshot)
}

fn take_heartbeats(
    kind: u8,
    mut input: Reader,
    ends: Ends,
    item: &mut impl FnMut(Item),
) -> Result<(), Garbage> {
    let stamp = input.array::<STAMP_BYTES>()?;
    while !input.is_empty() {
        let msg_type = match kind {
            HEARTBEATS => MessageType::MsgHeartbeat,
            _ => MessageType::MsgHeartbeatResponse,
        };
        let mut message = Message { msg_type, ..Message::default() };
        let (shard, flags) = (ShardId(input.u16()?), input.u16()?);
        message.from = ends.from.replica(input.u32()?).0;
        message.to = ends.to.replica(input.u32()?).0;
        (message.term, message.commit) = (number(&mut input)?, number(&mut input)?);
        let read = input.array::<8>()?;
        let mut context = stamp.to_vec();
        match flags {
            0 => {}
            1 => context.extend_from_slice(&read),
            other => return Err(Reader::unknown("a flag of a heartbeat", other)),
        }
        message.context = context.into();
        item(Item::Raft { shard, message: PeerMessage(message) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::item::{put_all, take_all};
    use super::*;

    fn message(kind: MessageType) -> Message {
        let mut message = Message { term: 7, ..Message::default() };
        message.msg_type = kind;
        (message.from, message.to) = (NodeId(1).replica(3).0, NodeId(2).0);
        message
    }

    fn item(message: Message) -> Item {
        Item::Raft { shard: ShardId(5), message: PeerMessage(message) }
    }

    /// Some of every kind.
    fn samples() -> Vec<Item> {
        use MessageType::*;
        let mut append = Message { index: 9, log_term: 6, commit: 8, ..message(MsgAppend) };
        let data = [Bytes::from_static(b"short"), vec![1; 9000].into(), Bytes::new()];
        let entry = |(i, data): (usize, Bytes)| {
            let mut entry = Entry { index: 10 + i as u64, term: 7, data, ..Entry::default() };
            if i == 2 {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
            }
            entry
        };
        append.set_entries(data.into_iter().enumerate().map(entry).collect::<Vec<_>>().into());
        let answer = Message { index: 12, commit: 9, ..message(MsgAppendResponse) };
        let mut no = Message { index: 12, log_term: 2, reject_hint: 4, ..answer.clone() };
        no.reject = true;
        let beat = |context: &'static [u8]| Message {
            commit: 8,
            context: Bytes::from_static(context),
            ..message(MsgHeartbeat)
        };
        let heard = Message { msg_type: MsgHeartbeatResponse, ..beat(b"stamp--1") };
        let vote =
            Message { index: 3, log_term: 2, commit: 1, commit_term: 1, ..message(MsgRequestVote) };
        let before = Message { msg_type: MsgRequestPreVote, ..vote.clone() };
        let asked = Message { context: Bytes::from_static(TRANSFER), ..vote.clone() };
        let voted = Message { commit: 4, commit_term: 2, ..message(MsgRequestVoteResponse) };
        let mut refused = Message { msg_type: MsgRequestPreVoteResponse, ..voted.clone() };
        refused.reject = true;
        let mut offer = message(MsgSnapshot);
        let snapshot = offer.mut_snapshot();
        snapshot.data = Bytes::from_static(b"token");
        snapshot.mut_metadata().index = 40;
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        let members = Membership {
            voters: nodes(&[1, 2]),
            voters_outgoing: nodes(&[3]),
            auto_leave: true,
            ..Membership::default()
        };
        snapshot.mut_metadata().set_conf_state((&members).into());
        let all = [
            append,
            answer,
            no,
            beat(b"stamp--1"),
            beat(b"stamp--1read---1"),
            beat(b"stamp--2"),
            heard.clone(),
            heard,
            vote,
            before,
            asked,
            voted,
            refused,
            message(MsgTimeoutNow),
            offer,
        ];
        let mut items: Vec<Item> = all.into_iter().map(item).collect();
        items.push(Item::Transaction(Bytes::from_static(b"as it is")));
        items
    }

    fn encode(items: &[Item]) -> Bytes {
        let mut out = Pieces::default();
        put_all(items, &mut out);
        let bytes = out.bytes();
        let joined = out.finish().concat();
        assert_eq!(joined.len(), bytes);
        joined.into()
    }

    fn decode(bytes: Bytes) -> Result<Vec<Item>, Garbage> {
        let mut items = Vec::new();
        take_all(bytes, NodeId(1), NodeId(2), |item| items.push(item))?;
        Ok(items)
    }

    #[test]
    fn every_item_arrives_as_it_was() {
        let items = samples();
        assert_eq!(decode(encode(&items)).as_ref(), Ok(&items));
        for item in &items {
            let one = std::slice::from_ref(item);
            let bytes = encode(one);
            assert_eq!(bytes.len(), item.bytes(), "{item:?}");
            assert_eq!(decode(bytes).as_deref(), Ok(one));
        }
    }

    /// One whose entries would be counted beyond the last number came from the fuzzer.
    #[test]
    fn indexes_and_terms_have_a_bound() {
        use MessageType::*;
        let stamped =
            |message: Message| Message { context: Bytes::from_static(b"stamp--1"), ..message };
        let all = [
            Message { index: u64::MAX, ..message(MsgAppend) },
            Message { term: u64::MAX, ..message(MsgRequestVote) },
            Message { index: 1 << 63, ..message(MsgAppendResponse) },
            Message { reject_hint: u64::MAX, ..message(MsgAppendResponse) },
            stamped(Message { commit: u64::MAX, ..message(MsgHeartbeat) }),
            Message { commit: u64::MAX, ..message(MsgRequestVoteResponse) },
        ];
        for message in all {
            let refused = decode(encode(&[item(message.clone())]));
            assert!(matches!(refused, Err(Garbage::TooMuch { .. })), "{message:?}: {refused:?}");
        }
        let most = Message { index: i64::MAX as u64, ..message(MsgAppendResponse) };
        assert!(decode(encode(&[item(most)])).is_ok());
    }

    #[test]
    fn heartbeats_of_a_core_are_one_item() {
        let beats = samples()[3..5].to_vec();
        assert_eq!(encode(&beats).len(), 8 + 8 + 2 * 36);
        assert_eq!(
            encode(&samples()[3..8]).len(),
            (8 + 8 + 2 * 36) + (8 + 8 + 36) + (8 + 8 + 2 * 36)
        );
    }

    #[test]
    fn long_data_is_shared_and_not_copied() {
        let mut out = Pieces::default();
        put_all(&samples()[..1], &mut out);
        let pieces = out.finish();
        assert_eq!(pieces.iter().map(Bytes::len).max(), Some(9000));
        let bytes = encode(&samples()[..1]);
        let read = decode(bytes.clone()).expect("it was written");
        let Item::Raft { message, .. } = &read[0] else { panic!("an append") };
        let data = &message.0.entries[1].data;
        assert!(bytes.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn garbage_is_refused_by_name() {
        let whole = encode(&samples());
        for length in 0..whole.len() {
            if let Ok(items) = decode(whole.slice(..length)) {
                assert!(items.len() < samples().len());
            }
        }
        for (bytes, error) in [
            (&[99u8, 0, 0, 0, 0, 0, 0, 0][..], "a kind of item: there is no 99"),
            (&[VOTE, 128, 0, 0, 0, 0, 0, 0], "a flag of an item: there is no 128"),
            (&[VOTE, 0, 0, 0, 0, 0, 0, 0], "an item of a Raft group ends too soon"),
            (&[VOTE, 0, 0, 0, 255, 255, 255, 255], "a turn ends too soon"),
        ] {
            let found = decode(Bytes::copy_from_slice(bytes)).expect_err("garbage");
            assert_eq!(found.to_string(), error);
        }
    }
}
