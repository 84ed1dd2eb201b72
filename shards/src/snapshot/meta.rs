//! `meta.json`: what the header and the footer say, for people and tools.
//!
//! It says nothing that `state.ring` does not say; where the two disagree, the snapshot is refused.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::directory::META_FILE;
use super::error::{Flaw, ReadError, SnapshotError};
use super::footer::Footer;
use super::header::{FORMAT_VERSION, Header, Membership};
use crate::limits::SNAPSHOT_META_BYTES_MAX;

/// The contents of `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Format of `state.ring`.
    pub format_version: u32,
    /// The ringraft that wrote it. Not compared.
    pub ringraft_version: String,
    /// 32 hexadecimal digits.
    pub cluster: String,
    /// The shard.
    pub shard: u16,
    /// Term of the last entry applied.
    pub term: u64,
    /// Index of the last entry applied.
    pub index: u64,
    /// Items in `state.ring`.
    pub items: u64,
    /// Bytes of `state.ring`.
    pub size: u64,
    /// CRC-32 of `state.ring` up to its footer, 8 hexadecimal digits.
    pub crc: String,
    /// How keys are placed in slots.
    pub slot_scheme: String,
    /// First and last slot of each range.
    pub slots: Vec<(u16, u16)>,
    /// Wall clock at the start of writing, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Leader's time of the last entry applied.
    pub leader_time_ms: i64,
    /// The group's members.
    pub conf_state: Membership,
}

impl Meta {
    /// What `meta.json` must say beside a file with this header and footer.
    pub fn new(header: &Header, footer: &Footer) -> Meta {
        let slot = |slot: crate::slot::Slot| slot.number() as u16;
        Meta {
            format_version: FORMAT_VERSION,
            ringraft_version: env!("CARGO_PKG_VERSION").to_string(),
            cluster: header.cluster.to_string(),
            shard: header.shard.0,
            term: header.term.0,
            index: header.index.0,
            items: footer.item_count,
            size: footer.file_size,
            crc: format!("{:08x}", footer.crc),
            slot_scheme: header.slot_scheme.name().to_string(),
            slots: header.slots.iter().map(|range| (slot(range.first), slot(range.last))).collect(),
            created_ms: header.created_ms,
            leader_time_ms: header.leader_time_ms,
            conf_state: header.membership.clone(),
        }
    }

    /// The same beside a file of an older format.
    pub fn of_format(self, format_version: u32) -> Meta {
        Meta { format_version, ..self }
    }

    /// The file's text, one field a line.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain fields always serialize");
        text.push('\n');
        text
    }

    /// Checks the `meta.json` that lies beside a state file.
    pub fn check_beside(&self, state: &Path) -> Result<(), SnapshotError> {
        let path = state.with_file_name(META_FILE);
        let checked = read_bounded(&path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|text| self.check(&text));
        checked.map_err(|what| {
            let source = ReadError::damaged(0, Flaw::Meta { what });
            SnapshotError::Unreadable { path, source }
        })
    }

    /// Checks the text of a `meta.json` against what it must say.
    /// Errors: what is wrong, to follow the words "meta.json".
    pub fn check(&self, text: &[u8]) -> Result<(), String> {
        let other: Meta = serde_json::from_slice(text)
            .map_err(|error| format!("is not what ringraft writes: {error}"))?;
        if other == (Meta { ringraft_version: other.ringraft_version.clone(), ..self.clone() }) {
            return Ok(());
        }
        let fields = |meta| serde_json::to_value(meta).expect("plain fields always serialize");
        let (mine, theirs) = (fields(self), fields(&other));
        let differing = mine.as_object().into_iter().flatten().find(|(name, value)| {
            name.as_str() != "ringraft_version" && theirs.get(name.as_str()) != Some(value)
        });
        Err(match differing {
            Some((name, value)) => {
                format!("says {name} = {} where the file has {value}", theirs[name.as_str()])
            }
            None => "differs from the file".to_string(),
        })
    }
}

/// Reads a small file, up to [`SNAPSHOT_META_BYTES_MAX`].
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(SNAPSHOT_META_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_agrees_or_names_the_field() {
        let footer = Footer { crc: 0xabc, chunk_count: 1, item_count: 2, file_size: 300 };
        let meta = Meta::new(&crate::snapshot::header::tests::example(), &footer);
        let text = meta.to_json();
        assert_eq!(meta.check(text.as_bytes()), Ok(()));
        assert!(text.contains("\"crc\": \"00000abc\""), "{text}");
        let changed = text.replace("4711", "4712");
        let error = meta.check(changed.as_bytes()).expect_err("another index");
        assert_eq!(error, "says index = 4712 where the file has 4711");
        assert!(meta.check(b"{}").expect_err("no fields").starts_with("is not what"));
    }
}
