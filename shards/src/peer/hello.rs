//! The handshake: who is there, and that both know the cluster's secret.
//!
//! ```text
//! dials                                        was dialled
//! \0RINGPEER, version, Hello     ────────▶
//!                                ◀────────     \0RINGPEER, version, Hello, Proof
//! Proof                          ────────▶
//!                                ◀────────     Welcome, or Refusal
//! ```
//!
//! A proof is HMAC-SHA-256 with the secret over both hellos, each of which has 32 random bytes, and
//! says which side made it: neither an old one nor the other side's own passes. Welcome and refusal
//! carry one too. So a refusal that makes a node end for good (it was removed) cannot come from
//! somebody who stands between.
//!
//! A hello may grow at its end: a reader passes over what it does not know. What it has now stays
//! where it is.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::{ClusterId, DirectoryId, NodeId};
use crate::wire::{Garbage, Reader, put_string};

/// What a link begins with, in both directions. No request of a client can.
pub const PREFACE: &[u8; 10] = b"\0RINGPEER\x01";
/// Oldest and newest link protocol that this version speaks.
pub const PROTOCOLS: (u16, u16) = (1, 1);
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// Random bytes of a hello.
pub const NONCE_BYTES: usize = 32;
/// Longest address.
const ADDRESS_BYTES_MAX: usize = 255;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Items between two cores, in both directions.
    Link,
    /// Much data: snapshots.
    Bulk,
}

/// A core of a node, and for what it is spoken to: the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerCore {
    /// The node.
    pub node: NodeId,
    /// Which of its cores.
    pub core: u16,
    /// For what.
    pub purpose: Purpose,
}

/// Who a process is: the same in all of its hellos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Raised when a cluster is recovered from lost quorum: peers of a smaller one are refused.
    pub epoch: u64,
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Counts the starts from this directory.
    pub start: u64,
    /// Random bits of this process: a copy of the directory may be at the same start.
    pub process: u64,
    /// The newest feature level that it knows.
    pub level: u32,
    /// Where it is reached.
    pub address: String,
}

/// The first frame of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who says it.
    pub identity: Identity,
    /// Oldest and newest link protocol that it speaks.
    pub protocols: (u16, u16),
    /// For what.
    pub purpose: Purpose,
    /// Which of its cores.
    pub core: u16,
    /// Whom it wants to speak to.
    pub to: NodeId,
    /// Which core there.
    pub to_core: u16,
    /// The greatest life of the link between these two cores that it knows.
    pub life: u64,
    /// Random bytes.
    pub nonce: [u8; NONCE_BYTES],
}

impl Hello {
    /// The other end of the link, for whoever gets it.
    pub fn peer(&self) -> PeerCore {
        PeerCore { node: self.identity.node, core: self.core, purpose: self.purpose }
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let identity = &self.identity;
        assert!(identity.address.len() <= ADDRESS_BYTES_MAX, "addresses are short");
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&self.protocols.0.to_le_bytes());
        out.extend_from_slice(&self.protocols.1.to_le_bytes());
        out.extend_from_slice(&[match self.purpose {
            Purpose::Link => 1,
            Purpose::Bulk => 2,
        }]);
        out.extend_from_slice(&identity.cluster.0.to_le_bytes());
        out.extend_from_slice(&identity.directory.0.to_le_bytes());
        out.extend_from_slice(&self.nonce);
        for number in [
            identity.epoch,
            identity.node.0,
            identity.start,
            identity.process,
            self.to.0,
            self.life,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&identity.level.to_le_bytes());
        out.extend_from_slice(&self.core.to_le_bytes());
        out.extend_from_slice(&self.to_core.to_le_bytes());
        put_string(&mut out, identity.address.as_bytes());
        out.into()
    }

    /// Reads one.
    pub fn decode(bytes: Bytes) -> Result<Hello, Garbage> {
        let mut input = Reader::new(bytes, "a hello");
        let protocols = (input.u16()?, input.u16()?);
        let purpose = match input.u8()? {
            1 => Purpose::Link,
            2 => Purpose::Bulk,
            other => return Err(Reader::unknown("a purpose of a connection", other)),
        };
        let (cluster, directory) = (ClusterId(input.u128()?), DirectoryId(input.u128()?));
        let nonce = input.array()?;
        let (epoch, node) = (input.u64()?, NodeId(input.u64()?));
        let (start, process) = (input.u64()?, input.u64()?);
        let (to, life) = (NodeId(input.u64()?), input.u64()?);
        let (level, core, to_core) = (input.u32()?, input.u16()?, input.u16()?);
        let address = input.string()?;
        if address.len() > ADDRESS_BYTES_MAX {
            let (found, bound) = (address.len() as u64, ADDRESS_BYTES_MAX as u64);
            return Err(Garbage::TooMuch { what: "an address", found, bound });
        }
        let address = String::from_utf8_lossy(&address).into_owned();
        let identity = Identity { cluster, epoch, node, directory, start, process, level, address };
        Ok(Hello { identity, protocols, purpose, core, to, to_core, life, nonce })
    }
}

/// The newest protocol that both speak.
pub fn common_protocol(one: (u16, u16), other: (u16, u16)) -> Option<u16> {
    let newest = one.1.min(other.1);
    (newest >= one.0.max(other.0)).then_some(newest)
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not know the secret.
    #[error("it does not know the cluster's secret (--cluster-secret)")]
    Secret,
    /// There is no secret and it is not on this machine.
    #[error("without a secret (--cluster-secret) peers are taken on loopback only")]
    NotLoopback,
    /// It belongs to another cluster.
    #[error("it belongs to another cluster")]
    OtherCluster,
    /// The cluster was recovered without it.
    #[error("the cluster was recovered from lost quorum without it: it is of an older epoch")]
    OlderEpoch,
    /// It was recovered, and this node does not know it.
    #[error("the cluster was recovered from lost quorum without the node that was dialled")]
    NewerEpoch,
    /// It was removed from the cluster.
    #[error("it was removed from the cluster, for good")]
    Removed,
    /// Its directory is not the one that this node id was given to.
    #[error("its directory is not the one of this node id")]
    OtherDirectory,
    /// A process that was started later from the same directory, or from a copy, has been here.
    #[error("another process was started later from the same directory, or from a copy of it")]
    OlderStart,
    /// Another process runs from a copy of its directory.
    #[error("another process runs from the same directory, or from a copy of it")]
    OtherProcess,
    /// No protocol that both speak.
    #[error("there is no link protocol that both speak")]
    Protocol,
    /// It wanted another node.
    #[error("it dialled another node")]
    OtherNode,
    /// Both dialled, and the other one's connection stays.
    #[error("both sides dialled: the connection of the smaller node id stays")]
    Crossing,
    /// A newer connection is there.
    #[error("a newer connection of the same link is there")]
    Superseded,
    /// For a reason that this version does not know.
    #[error("for a reason that this version does not know")]
    Unknown,
}

impl Refusal {
    const ALL: [Refusal; 13] = [
        Refusal::Secret,
        Refusal::NotLoopback,
        Refusal::OtherCluster,
        Refusal::OlderEpoch,
        Refusal::NewerEpoch,
        Refusal::Removed,
        Refusal::OtherDirectory,
        Refusal::OlderStart,
        Refusal::OtherProcess,
        Refusal::Protocol,
        Refusal::OtherNode,
        Refusal::Crossing,
        Refusal::Superseded,
    ];

    /// Its number between nodes.
    pub(super) fn number(self) -> u8 {
        let place = Refusal::ALL.iter().position(|refusal| *refusal == self);
        place.map_or(0, |place| place as u8 + 1)
    }

    pub(super) fn from_number(number: u8) -> Refusal {
        let place = usize::from(number).checked_sub(1);
        place.and_then(|place| Refusal::ALL.get(place)).copied().unwrap_or(Refusal::Unknown)
    }

    /// Must the process that hears this of itself, proven, end? It is no member any more, or not
    /// the one.
    pub fn ends_process(self) -> bool {
        use Refusal::{OlderEpoch, OlderStart, OtherDirectory, OtherProcess, Removed};
        matches!(self, OlderEpoch | Removed | OtherDirectory | OlderStart | OtherProcess)
    }
}

/// What both ends of every link know; without one it is empty, and proves nothing.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Which side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that dialled.
    Dials,
    /// The other.
    Answers,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Dials => Side::Answers,
            Side::Answers => Side::Dials,
        }
    }
}

impl Secret {
    /// The content of the file that the operator named.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into())
    }

    /// No secret: then links are for loopback.
    pub fn none() -> Secret {
        Secret(Vec::new())
    }

    /// Is there one?
    pub fn is_some(&self) -> bool {
        !self.0.is_empty()
    }

    fn mac(&self, side: Side, hellos: [&[u8]; 2], kind: u8, said: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(match side {
            Side::Dials => b"ringraft link, dials\0",
            Side::Answers => b"ringraft link, answers\0",
        });
        for part in [hellos[0], hellos[1], said] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.update(&[kind]);
        mac
    }

    /// Shows that whoever says this knows the secret, to somebody who need not be there: for asking
    /// to join.
    pub fn seal(&self, said: &[u8]) -> [u8; PROOF_BYTES] {
        let mut mac: Hmac<Sha256> =
            Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"ringraft join\0");
        mac.update(said);
        mac.finalize().into_bytes().into()
    }

    /// Is that the seal of it? Compared in constant time.
    pub fn is_sealed(&self, said: &[u8], seal: &[u8]) -> bool {
        let mut mac: Hmac<Sha256> =
            Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"ringraft join\0");
        mac.update(said);
        mac.verify_slice(seal).is_ok()
    }

    /// Proof that `side` knows the secret and has said this. `hellos`: of the side that dialled,
    /// then of the other.
    pub(super) fn prove(
        &self,
        side: Side,
        hellos: [&[u8]; 2],
        kind: u8,
        said: &[u8],
    ) -> [u8; PROOF_BYTES] {
        self.mac(side, hellos, kind, said).finalize().into_bytes().into()
    }

    /// Is that the proof? Compared in constant time.
    pub(super) fn holds(
        &self,
        side: Side,
        hellos: [&[u8]; 2],
        kind: u8,
        said: &[u8],
        proof: &[u8],
    ) -> bool {
        self.mac(side, hellos, kind, said).verify_slice(proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            identity: Identity {
                cluster: ClusterId(7),
                epoch: 1,
                node: NodeId(3),
                directory: DirectoryId(99),
                start: 5,
                process: 0xabc,
                level: 1,
                address: "127.0.0.1:7481".into(),
            },
            protocols: PROTOCOLS,
            purpose: Purpose::Bulk,
            core: 1,
            to: NodeId(2),
            to_core: 4,
            life: 12,
            nonce: [9; NONCE_BYTES],
        }
    }

    #[test]
    fn a_hello_is_read_back_and_may_grow() {
        let bytes = hello().encode();
        assert_eq!(Hello::decode(bytes.clone()), Ok(hello()));
        let longer = [&bytes[..], b"what a later version adds"].concat();
        assert_eq!(Hello::decode(longer.into()), Ok(hello()));
        for length in 0..bytes.len() {
            let short = Hello::decode(bytes.slice(..length));
            assert_eq!(short, Err(Garbage::Short("a hello")), "{length}");
        }
    }

    #[test]
    fn a_proof_holds_for_one_side_one_pair_of_hellos_and_what_was_said() {
        let secret = Secret::new("rosebud");
        let hellos: [&[u8]; 2] = [b"one", b"other"];
        let proof = secret.prove(Side::Dials, hellos, 17, b"");
        assert!(secret.holds(Side::Dials, hellos, 17, b"", &proof));
        assert!(!secret.holds(Side::Answers, hellos, 17, b"", &proof));
        assert!(!secret.holds(Side::Dials, [b"oneo", b"ther"], 17, b"", &proof));
        assert!(!secret.holds(Side::Dials, hellos, 18, b"", &proof));
        assert!(!secret.holds(Side::Dials, hellos, 17, b"x", &proof));
        assert!(!secret.holds(Side::Dials, hellos, 17, b"", &proof[..31]));
        assert!(!Secret::none().holds(Side::Dials, hellos, 17, b"", &proof));
        assert_eq!(format!("{secret:?}"), "Secret", "it is in no log");
    }

    #[test]
    fn the_newest_common_protocol_is_spoken() {
        assert_eq!(common_protocol((1, 3), (2, 5)), Some(3));
        assert_eq!(common_protocol((1, 1), (1, 1)), Some(1));
        assert_eq!(common_protocol((1, 2), (3, 4)), None);
    }

    #[test]
    fn refusals_keep_their_numbers() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_number(refusal.number()), refusal);
        }
        assert_eq!(Refusal::Superseded.number(), 13);
        assert_eq!(Refusal::from_number(200), Refusal::Unknown);
    }
}
