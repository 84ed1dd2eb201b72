//! Entries of the meta group's log; `docs/formats.md` has their bytes. A number is never given
//! another meaning: what means something else gets another number, and one that is not known stops
//! the replica that meets it.

use bytes::Bytes;

use crate::ids::{DirectoryId, NodeId, ShardId};
use crate::wire::{Garbage, Reader, put_string};

const JOIN: u8 = 1;
const DESCRIBE: u8 = 2;
const LEAVE: u8 = 3;
const REMOVE: u8 = 4;
const WISH: u8 = 5;
const RENEW: u8 = 6;
const LEVEL: u8 = 7;
const REPLICAS: u8 = 8;
const RENEW_FOR: u8 = 9;
/// Longest address, and longest name of a zone.
const TEXT_BYTES_MAX: usize = 255;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Where clients and peers reach it. May change at any start.
    pub address: String,
    /// What it shares its fate with; replicas of a shard are spread over zones.
    pub zone: String,
    /// Cores.
    pub cores: u16,
    /// The newest feature level that it knows.
    pub level: u32,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaEntry {
    /// A directory wants to be a node. Repeated, it gets the same id.
    Join {
        /// The directory.
        directory: DirectoryId,
        /// What the node says of itself.
        facts: NodeFacts,
    },
    /// A node says something else of itself.
    Describe {
        /// The node.
        node: NodeId,
        /// What it says.
        facts: NodeFacts,
    },
    /// A node shall have no replicas any more.
    Leave(NodeId),
    /// A node that is left without replicas is removed, for ever.
    Remove(NodeId),
    /// Who shall have replicas of a shard.
    Wish {
        /// The shard.
        shard: ShardId,
        /// The shard's version that this was planned for; of another one it is rejected.
        version: u64,
        /// The nodes.
        nodes: Vec<NodeId>,
        /// Who shall lead, if it can.
        leader: Option<NodeId>,
    },
    /// A replica has lost its log: the node shall have another one.
    Renew {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
        /// The replica that is lost; another one is there already when this does not fit.
        generation: u32,
        /// Who has asked, of that node: remembered, so that whoever leads names it the same
        /// replica. None where the feature level is less than [`super::ASKER_LEVEL`].
        asker: Option<u64>,
    },
    /// The cluster may use what this feature level brings.
    Level(u32),
    /// How many replicas each shard shall have.
    Replicas(u16),
}

impl MetaEntry {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            MetaEntry::Join { directory, facts } => {
                out.push(JOIN);
                out.extend_from_slice(&directory.0.to_le_bytes());
                facts.put(&mut out);
            }
            MetaEntry::Describe { node, facts } => {
                out.push(DESCRIBE);
                out.extend_from_slice(&node.0.to_le_bytes());
                facts.put(&mut out);
            }
            MetaEntry::Leave(node) => {
                out.push(LEAVE);
                out.extend_from_slice(&node.0.to_le_bytes());
            }
            MetaEntry::Remove(node) => {
                out.push(REMOVE);
                out.extend_from_slice(&node.0.to_le_bytes());
            }
            MetaEntry::Wish { shard, version, nodes, leader } => {
                out.push(WISH);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&leader.map_or(0, |leader| leader.0).to_le_bytes());
                out.extend_from_slice(&(nodes.len() as u32).to_le_bytes());
                nodes.iter().for_each(|node| out.extend_from_slice(&node.0.to_le_bytes()));
            }
            MetaEntry::Renew { shard, node, generation, asker } => {
                out.push(if asker.is_some() { RENEW_FOR } else { RENEW });
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&node.0.to_le_bytes());
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend(asker.iter().flat_map(|asker| asker.to_le_bytes()));
            }
            MetaEntry::Level(level) => {
                out.push(LEVEL);
                out.extend_from_slice(&level.to_le_bytes());
            }
            MetaEntry::Replicas(count) => {
                out.push(REPLICAS);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        out
    }

    /// Reads one.
    pub fn decode(bytes: Bytes) -> Result<MetaEntry, Garbage> {
        let mut input = Reader::new(bytes, "a meta entry");
        let entry = match input.u8()? {
            JOIN => MetaEntry::Join {
                directory: DirectoryId(input.u128()?),
                facts: NodeFacts::take(&mut input)?,
            },
            DESCRIBE => MetaEntry::Describe {
                node: NodeId(input.u64()?),
                facts: NodeFacts::take(&mut input)?,
            },
            LEAVE => MetaEntry::Leave(NodeId(input.u64()?)),
            REMOVE => MetaEntry::Remove(NodeId(input.u64()?)),
            WISH => {
                let (shard, version) = (ShardId(input.u16()?), input.u64()?);
                let leader = Some(NodeId(input.u64()?)).filter(|leader| leader.0 != 0);
                let count = input.count(8)?;
                let nodes = (0..count).map(|_| Ok(NodeId(input.u64()?)));
                let nodes = nodes.collect::<Result<_, Garbage>>()?;
                MetaEntry::Wish { shard, version, nodes, leader }
            }
            kind @ (RENEW | RENEW_FOR) => MetaEntry::Renew {
                shard: ShardId(input.u16()?),
                node: NodeId(input.u64()?),
                generation: input.u32()?,
                asker: if kind == RENEW_FOR { Some(input.u64()?) } else { None },
            },
            LEVEL => MetaEntry::Level(input.u32()?),
            REPLICAS => MetaEntry::Replicas(input.u16()?),
            other => return Err(Reader::unknown("a meta entry", other)),
        };
        input.end()?;
        Ok(entry)
    }
}

impl NodeFacts {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for text in [&self.address, &self.zone] {
            assert!(text.len() <= TEXT_BYTES_MAX, "addresses and zones are short");
            put_string(out, text.as_bytes());
        }
        out.extend_from_slice(&self.cores.to_le_bytes());
        out.extend_from_slice(&self.level.to_le_bytes());
    }

    pub(super) fn take(input: &mut Reader) -> Result<NodeFacts, Garbage> {
        let mut texts = [String::new(), String::new()];
        for text in &mut texts {
            let bytes = input.string()?;
            if bytes.len() > TEXT_BYTES_MAX {
                let (found, bound) = (bytes.len() as u64, TEXT_BYTES_MAX as u64);
                return Err(Garbage::TooMuch { what: "an address or a zone", found, bound });
            }
            let valid = std::str::from_utf8(&bytes);
            *text = valid.map_err(|_| Reader::unknown("a text", 0u8))?.to_owned();
        }
        let [address, zone] = texts;
        Ok(NodeFacts { address, zone, cores: input.u16()?, level: input.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_and_garbage_is_refused() {
        let facts =
            NodeFacts { address: "[::1]:7481".into(), zone: "a".into(), cores: 4, level: 2 };
        let entries = [
            MetaEntry::Join { directory: DirectoryId(u128::MAX - 3), facts: facts.clone() },
            MetaEntry::Describe { node: NodeId(3), facts },
            MetaEntry::Leave(NodeId(3)),
            MetaEntry::Remove(NodeId(4)),
            MetaEntry::Wish {
                shard: ShardId(7),
                version: 12,
                nodes: vec![NodeId(1), NodeId(2)],
                leader: Some(NodeId(2)),
            },
            MetaEntry::Renew { shard: ShardId(7), node: NodeId(1), generation: 9, asker: None },
            MetaEntry::Renew { shard: ShardId(7), node: NodeId(1), generation: 9, asker: Some(3) },
            MetaEntry::Level(3),
            MetaEntry::Replicas(5),
        ];
        for entry in entries {
            let bytes = Bytes::from(entry.encode());
            assert_eq!(MetaEntry::decode(bytes.clone()), Ok(entry.clone()));
            for length in 0..bytes.len() {
                assert!(MetaEntry::decode(bytes.slice(..length)).is_err(), "{entry:?}");
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(MetaEntry::decode(longer.into()), Err(Garbage::Behind("a meta entry")));
        }
        let unknown = MetaEntry::decode(Bytes::from_static(&[99])).expect_err("a later version's");
        assert_eq!(unknown.to_string(), "a meta entry: there is no 99");
    }
}
