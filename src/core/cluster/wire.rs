//! What processes say to each other beside Raft's messages; `docs/formats.md` has the bytes.

use bytes::Bytes;
use ringraft_shards::ids::{Index, NodeId, ShardId, Term};
use ringraft_shards::remembered::Recollection;
use ringraft_shards::serve::Certainty;
use ringraft_shards::snapshot::directory::SnapshotName;
use ringraft_shards::snapshot::{SnapshotOffer, TransferAnswer, TransferFrame, TransferId};
use ringraft_shards::wire::{Garbage, Reader, put_string};

const SERVES: u8 = 1;
const REQUESTS: u8 = 2;
const REPLIES: u8 = 3;
const END: u8 = 4;
const PUBLISH: u8 = 5;
const ENDED: u8 = 6;
const BEGIN: u8 = 7;
const RECALL: u8 = 8;
const RECALLED: u8 = 9;
const CONDITION: u8 = 32;
const LOST: u8 = 33;
const RENEWED: u8 = 34;
const ASK: u8 = 16;
const CERTAIN: u8 = 17;
const SEEN: u8 = 18;

const ANSWERED: u8 = 1;
const DONE: u8 = 2;
const FORGOTTEN: u8 = 3;

const OFFER: u8 = 1;
const PIECE: u8 = 2;
const HAS: u8 = 3;
const STORED: u8 = 4;
const UNNEEDED: u8 = 5;
const REFUSED: u8 = 6;

/// A client of a node whose requests another node runs: where it is on its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey {
    /// Its core.
    pub core: u16,
    /// Its place among the connections there.
    pub index: u32,
    /// Counts the client's sessions with leaders, over all clients of the process.
    pub session: u64,
}

/// A question of a core of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionKey {
    /// The core.
    pub core: u16,
    /// Its number.
    pub number: u64,
}

/// A message of one process to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeMessage {
    /// The sender leads all shards, or does no more. The one with the greatest term is right.
    Serves {
        /// Term of the meta group.
        term: u64,
        /// Does it?
        serves: bool,
    },
    /// A session of a client begins.
    Begin {
        /// Which client.
        client: ClientKey,
        /// The term in which the receiver said that it leads. In another one it does not take the
        /// session: what it was sent then may have been done elsewhere since.
        term: u64,
        /// Random bits of the sender's process.
        process: u64,
        /// The client's address, for people.
        address: Bytes,
    },
    /// Requests of a client, as RESP.
    Requests {
        /// Which client.
        client: ClientKey,
        /// Where the last of them stands among those of its session, from 0 on.
        place: u32,
        /// What the last of them is known by: its lane and number, 0 if it has none.
        stamp: (u64, u64),
        /// The requests, whole ones.
        bytes: Bytes,
    },
    /// What is known of requests whose answers were lost?
    Recall {
        /// Who asks.
        question: QuestionKey,
        /// As in [`NodeMessage::Begin`].
        term: u64,
        /// As in [`NodeMessage::Begin`].
        process: u64,
        /// Lanes and numbers of the requests.
        asked: Vec<(u64, u64)>,
    },
    /// What is known of them. Those that are not there were never done, and never will be.
    Recalled {
        /// Who asked.
        question: QuestionKey,
        /// Lanes, numbers, and what is known.
        known: Vec<(u64, u64, Recollection)>,
    },
    /// Replies, as RESP, in order, cut anywhere.
    Replies {
        /// Whose.
        client: ClientKey,
        /// The replies.
        bytes: Bytes,
    },
    /// The client will send nothing more: whatever it waits for ends, and what it sent is answered.
    Ended {
        /// Which client.
        client: ClientKey,
    },
    /// A session is over.
    End {
        /// Whose.
        client: ClientKey,
        /// From the leader: so many requests of the session were begun; all behind them had no
        /// effect.
        begun: u64,
    },
    /// How the sender is.
    Condition {
        /// What its wall clock shows, milliseconds since the Unix epoch.
        wall_ms: i64,
        /// The p99 of its log writes, microseconds; 0 when there were too few.
        log_write_p99_us: u64,
        /// Why it should not lead, as bits.
        unfit: u8,
        /// Nodes that it is connected with.
        hears: Vec<NodeId>,
    },
    /// The sender has lost its replica of a shard, and asks which one it has from now on.
    Lost {
        /// The shard.
        shard: ShardId,
        /// Who asks: random bits of the process, and how often it has lost the shard, added.
        asker: u64,
    },
    /// It has this one.
    Renewed {
        /// The shard.
        shard: ShardId,
        /// Who has asked.
        asker: u64,
        /// Which replica of its node it is.
        generation: u32,
    },
    /// To the leader: how far is the log of a shard committed, for certain?
    Ask {
        /// Which shard.
        shard: ShardId,
        /// Counts the questions of the asker about it.
        number: u64,
    },
    /// The answer; none when the sender does not lead, or is not certain.
    Certain {
        /// Which shard.
        shard: ShardId,
        /// The question.
        number: u64,
        /// What is certain.
        certainty: Option<Certainty>,
    },
    /// Replies that follow may rest on so much of the shards' logs.
    Seen {
        /// Whose replies.
        client: ClientKey,
        /// What is news to it.
        news: Vec<(ShardId, Index)>,
    },
    /// A message for subscribers of a channel.
    Publish {
        /// Is the channel a shard's?
        is_shard: bool,
        /// The channel.
        channel: Bytes,
        /// The message.
        message: Bytes,
    },
}

impl ClientKey {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.core.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.session.to_le_bytes());
    }

    fn take(input: &mut Reader) -> Result<ClientKey, Garbage> {
        Ok(ClientKey { core: input.u16()?, index: input.u32()?, session: input.u64()? })
    }
}

impl QuestionKey {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.core.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
    }

    fn take(input: &mut Reader) -> Result<QuestionKey, Garbage> {
        Ok(QuestionKey { core: input.u16()?, number: input.u64()? })
    }
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn take_known(input: &mut Reader) -> Result<(u64, u64, Recollection), Garbage> {
    let (lane, sequence, kind) = (input.u64()?, input.u64()?, input.u8()?);
    let reply = input.string()?;
    let recollection = match kind {
        ANSWERED => Recollection::Answered(reply.to_vec()),
        DONE => Recollection::Done,
        FORGOTTEN => Recollection::Forgotten,
        other => return Err(Reader::unknown("what is known of a request", other)),
    };
    Ok((lane, sequence, recollection))
}

impl NodeMessage {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        match self {
            NodeMessage::Serves { term, serves } => {
                out.push(SERVES);
                out.extend_from_slice(&term.to_le_bytes());
                out.push((*serves).into());
            }
            NodeMessage::Begin { client, term, process, address } => {
                out.push(BEGIN);
                client.put(&mut out);
                put_numbers(&mut out, &[*term, *process]);
                out.extend_from_slice(address);
            }
            NodeMessage::Requests { client, place, stamp, bytes } => {
                out.reserve(bytes.len());
                out.push(REQUESTS);
                client.put(&mut out);
                out.extend_from_slice(&place.to_le_bytes());
                put_numbers(&mut out, &[stamp.0, stamp.1]);
                out.extend_from_slice(bytes);
            }
            NodeMessage::Recall { question, term, process, asked } => {
                out.push(RECALL);
                question.put(&mut out);
                put_numbers(&mut out, &[*term, *process]);
                out.extend_from_slice(&(asked.len() as u32).to_le_bytes());
                asked.iter().for_each(|asked| put_numbers(&mut out, &[asked.0, asked.1]));
            }
            NodeMessage::Recalled { question, known } => {
                out.push(RECALLED);
                question.put(&mut out);
                out.extend_from_slice(&(known.len() as u32).to_le_bytes());
                for (lane, sequence, recollection) in known {
                    put_numbers(&mut out, &[*lane, *sequence]);
                    let (kind, reply) = match recollection {
                        Recollection::Answered(reply) => (ANSWERED, reply.as_slice()),
                        Recollection::Done => (DONE, &[][..]),
                        Recollection::Forgotten => (FORGOTTEN, &[][..]),
                    };
                    out.push(kind);
                    put_string(&mut out, reply);
                }
            }
            NodeMessage::Replies { client, bytes } => {
                out.reserve(bytes.len());
                out.push(REPLIES);
                client.put(&mut out);
                out.extend_from_slice(bytes);
            }
            NodeMessage::Ended { client } => {
                out.push(ENDED);
                client.put(&mut out);
            }
            NodeMessage::End { client, begun } => {
                out.push(END);
                client.put(&mut out);
                out.extend_from_slice(&begun.to_le_bytes());
            }
            NodeMessage::Condition { wall_ms, log_write_p99_us, unfit, hears } => {
                out.push(CONDITION);
                out.extend_from_slice(&wall_ms.to_le_bytes());
                out.extend_from_slice(&log_write_p99_us.to_le_bytes());
                out.push(*unfit);
                out.extend_from_slice(&(hears.len() as u32).to_le_bytes());
                hears.iter().for_each(|node| out.extend_from_slice(&node.0.to_le_bytes()));
            }
            NodeMessage::Lost { shard, asker } => {
                out.push(LOST);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&asker.to_le_bytes());
            }
            NodeMessage::Renewed { shard, asker, generation } => {
                out.push(RENEWED);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&asker.to_le_bytes());
                out.extend_from_slice(&generation.to_le_bytes());
            }
            NodeMessage::Ask { shard, number } => {
                out.push(ASK);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
            }
            NodeMessage::Certain { shard, number, certainty } => {
                out.push(CERTAIN);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
                // No entry has the index 0.
                let (index, time_ms) = certainty.map_or((0, 0), |c| (c.index.0, c.time_ms));
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(&time_ms.to_le_bytes());
            }
            NodeMessage::Seen { client, news } => {
                out.push(SEEN);
                client.put(&mut out);
                out.extend_from_slice(&(news.len() as u16).to_le_bytes());
                for (shard, index) in news {
                    out.extend_from_slice(&shard.0.to_le_bytes());
                    out.extend_from_slice(&index.0.to_le_bytes());
                }
            }
            NodeMessage::Publish { is_shard, channel, message } => {
                out.push(PUBLISH);
                out.push((*is_shard).into());
                put_string(&mut out, channel);
                out.extend_from_slice(message);
            }
        }
        out.into()
    }

    /// Reads one.
    pub fn decode(bytes: Bytes) -> Result<NodeMessage, Garbage> {
        let mut input = Reader::new(bytes, "a message of a node");
        Ok(match input.u8()? {
            SERVES => NodeMessage::Serves { term: input.u64()?, serves: input.u8()? != 0 },
            BEGIN => NodeMessage::Begin {
                client: ClientKey::take(&mut input)?,
                term: input.u64()?,
                process: input.u64()?,
                address: input.rest(),
            },
            REQUESTS => NodeMessage::Requests {
                client: ClientKey::take(&mut input)?,
                place: input.u32()?,
                stamp: (input.u64()?, input.u64()?),
                bytes: input.rest(),
            },
            RECALL => NodeMessage::Recall {
                question: QuestionKey::take(&mut input)?,
                term: input.u64()?,
                process: input.u64()?,
                asked: {
                    let count = input.count(16)?;
                    let asked = (0..count).map(|_| Ok((input.u64()?, input.u64()?)));
                    asked.collect::<Result<Vec<_>, Garbage>>()?
                },
            },
            RECALLED => NodeMessage::Recalled {
                question: QuestionKey::take(&mut input)?,
                known: {
                    let count = input.count(21)?;
                    let known = (0..count).map(|_| take_known(&mut input));
                    known.collect::<Result<_, Garbage>>()?
                },
            },
            REPLIES => {
                NodeMessage::Replies { client: ClientKey::take(&mut input)?, bytes: input.rest() }
            }
            ENDED => NodeMessage::Ended { client: ClientKey::take(&mut input)? },
            END => NodeMessage::End { client: ClientKey::take(&mut input)?, begun: input.u64()? },
            CONDITION => NodeMessage::Condition {
                wall_ms: input.u64()? as i64,
                log_write_p99_us: input.u64()?,
                unfit: input.u8()?,
                hears: take_nodes(&mut input)?,
            },
            LOST => NodeMessage::Lost { shard: ShardId(input.u16()?), asker: input.u64()? },
            RENEWED => NodeMessage::Renewed {
                shard: ShardId(input.u16()?),
                asker: input.u64()?,
                generation: input.u32()?,
            },
            ASK => NodeMessage::Ask { shard: ShardId(input.u16()?), number: input.u64()? },
            CERTAIN => {
                let (shard, number) = (ShardId(input.u16()?), input.u64()?);
                let (index, time_ms) = (Index(input.u64()?), input.u64()?.cast_signed());
                let certainty = (index.0 > 0).then_some(Certainty { index, time_ms });
                NodeMessage::Certain { shard, number, certainty }
            }
            SEEN => {
                let (client, count) = (ClientKey::take(&mut input)?, input.u16()?);
                let mut news = Vec::new();
                for _ in 0..count {
                    news.push((ShardId(input.u16()?), Index(input.u64()?)));
                }
                NodeMessage::Seen { client, news }
            }
            PUBLISH => NodeMessage::Publish {
                is_shard: input.u8()? != 0,
                channel: input.string()?,
                message: input.rest(),
            },
            other => return Err(Reader::unknown("a message of a node", other)),
        })
    }
}

fn take_nodes(input: &mut Reader) -> Result<Vec<NodeId>, Garbage> {
    (0..input.count(8)?).map(|_| Ok(NodeId(input.u64()?))).collect()
}

/// A step of a snapshot's way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TransferMessage {
    /// To the receiver.
    Frame(TransferFrame),
    /// To the sender.
    Answer(TransferAnswer),
}

/// The body of a bulk frame.
pub(super) fn put_transfer(
    shard: ShardId,
    id: TransferId,
    message: &TransferMessage,
) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(64);
    let head = |kind: u8, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(&shard.0.to_le_bytes());
        out.extend_from_slice(&id.term.to_le_bytes());
        out.extend_from_slice(&id.number.to_le_bytes());
    };
    match message {
        TransferMessage::Frame(TransferFrame::Offer(offer)) => {
            head(OFFER, &mut out);
            for number in [offer.name.term.0, offer.name.index.0, offer.size] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&offer.crc.to_le_bytes());
        }
        TransferMessage::Frame(TransferFrame::Piece { offset, bytes }) => {
            head(PIECE, &mut out);
            out.extend_from_slice(&offset.to_le_bytes());
            return vec![out.into(), Bytes::copy_from_slice(bytes)];
        }
        TransferMessage::Answer(TransferAnswer::Has(offset)) => {
            head(HAS, &mut out);
            out.extend_from_slice(&offset.to_le_bytes());
        }
        TransferMessage::Answer(TransferAnswer::Stored) => head(STORED, &mut out),
        TransferMessage::Answer(TransferAnswer::Unneeded) => head(UNNEEDED, &mut out),
        TransferMessage::Answer(TransferAnswer::Refused) => head(REFUSED, &mut out),
    }
    vec![out.into()]
}

/// Reads the body of a bulk frame.
pub(super) fn take_transfer(
    body: Bytes,
) -> Result<(ShardId, TransferId, TransferMessage), Garbage> {
    let mut input = Reader::new(body, "a piece of a snapshot");
    let (kind, shard) = (input.u8()?, ShardId(input.u16()?));
    let id = TransferId { term: input.u64()?, number: input.u64()? };
    let message = match kind {
        OFFER => {
            let name = SnapshotName { term: Term(input.u64()?), index: Index(input.u64()?) };
            let (size, crc) = (input.u64()?, input.u32()?);
            TransferMessage::Frame(TransferFrame::Offer(SnapshotOffer { name, size, crc }))
        }
        PIECE => {
            let (offset, bytes) = (input.u64()?, input.rest().to_vec());
            TransferMessage::Frame(TransferFrame::Piece { offset, bytes })
        }
        HAS => TransferMessage::Answer(TransferAnswer::Has(input.u64()?)),
        STORED => TransferMessage::Answer(TransferAnswer::Stored),
        UNNEEDED => TransferMessage::Answer(TransferAnswer::Unneeded),
        REFUSED => TransferMessage::Answer(TransferAnswer::Refused),
        other => return Err(Reader::unknown("a piece of a snapshot", other)),
    };
    Ok((shard, id, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::stamp::Lane;

    #[test]
    fn messages_are_read_back_and_short_ones_are_refused() {
        let client = ClientKey { core: 3, index: 70_000, session: u64::MAX };
        let bytes = Bytes::from_static(b"*1\r\n$4\r\nPING\r\n");
        let question = QuestionKey { core: 1, number: 6 };
        let known = vec![
            (1, 2, Recollection::Done),
            (Lane::WAITS | 4, 3, Recollection::Answered(b":12\r\n".to_vec())),
        ];
        let certainty = Certainty { index: Index(7), time_ms: -1 };
        for (message, fixed) in [
            (NodeMessage::Serves { term: 9, serves: true }, 10),
            (NodeMessage::Begin { client, term: 4, process: 5, address: bytes.clone() }, 31),
            (NodeMessage::Requests { client, place: 9, stamp: (1, 2), bytes: bytes.clone() }, 35),
            (NodeMessage::Recall { question, term: 3, process: 7, asked: vec![(1, 2)] }, 47),
            (NodeMessage::Recalled { question, known }, 62),
            (NodeMessage::Replies { client, bytes: bytes.clone() }, 15),
            (NodeMessage::End { client, begun: 7 }, 23),
            (NodeMessage::Ended { client }, 15),
            (NodeMessage::Lost { shard: ShardId(65535), asker: 9 }, 11),
            (NodeMessage::Renewed { shard: ShardId(1), asker: 9, generation: 77 }, 15),
            (
                NodeMessage::Condition {
                    wall_ms: -5,
                    log_write_p99_us: 1 << 40,
                    unfit: 9,
                    hears: vec![NodeId(7), NodeId(1 << 33)],
                },
                38,
            ),
            (NodeMessage::Ask { shard: ShardId(3), number: 9 }, 11),
            (NodeMessage::Certain { shard: ShardId(3), number: 9, certainty: None }, 27),
            (NodeMessage::Certain { shard: ShardId(3), number: 9, certainty: Some(certainty) }, 27),
            (NodeMessage::Seen { client, news: Vec::new() }, 17),
            (NodeMessage::Seen { client, news: vec![(ShardId(1), Index(u64::MAX))] }, 27),
            (NodeMessage::Publish { is_shard: true, channel: bytes.clone(), message: bytes }, 20),
        ] {
            let encoded = message.encode();
            assert_eq!(NodeMessage::decode(encoded.clone()), Ok(message));
            for length in 0..fixed {
                assert!(NodeMessage::decode(encoded.slice(..length)).is_err());
            }
        }
        assert!(NodeMessage::decode(Bytes::from_static(&[77])).is_err());
    }

    #[test]
    fn pieces_of_snapshots_are_read_back() {
        let (shard, id) = (ShardId(65535), TransferId { term: 5, number: 8 });
        let name = SnapshotName { index: Index(7), term: Term(2) };
        let offer = SnapshotOffer { name, size: 1 << 40, crc: 77 };
        for message in [
            TransferMessage::Frame(TransferFrame::Offer(offer)),
            TransferMessage::Frame(TransferFrame::Piece { offset: 9, bytes: vec![1, 2] }),
            TransferMessage::Answer(TransferAnswer::Has(u64::MAX)),
            TransferMessage::Answer(TransferAnswer::Stored),
            TransferMessage::Answer(TransferAnswer::Unneeded),
            TransferMessage::Answer(TransferAnswer::Refused),
        ] {
            let body: Bytes = put_transfer(shard, id, &message).concat().into();
            assert_eq!(take_transfer(body.clone()), Ok((shard, id, message)));
            assert!(take_transfer(body.slice(..18)).is_err());
        }
    }
}
