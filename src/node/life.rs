//! Which directory this is, and which of its starts: `life`, one line in the data directory.
//!
//! The directory's number is drawn when it is made: one that was emptied is another node, one that
//! was copied is told from its copy by the starts. The line keeps its length, so that a start on a
//! full disk can write it.

use super::Refusal;
use super::directory::unusable;
use crate::files;
use ringraft_shards::ids::DirectoryId;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "life";

/// A directory's identity, and the count of its starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The directory.
    pub directory: DirectoryId,
    /// This start's number, from 1.
    pub start: u64,
}

impl Life {
    /// Counts this start. A directory without the file gets one.
    /// Errors: it cannot be read or written, or is damaged.
    pub fn begin(path: &Path) -> Result<Life, Refusal> {
        let file = path.join(FILE);
        let fails = |doing: &str, error: io::Error| unusable(path, doing, &error);
        match fs::read(&file) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let mut life = Life::parse(&text).ok_or_else(|| {
                    Refusal::failure(format!(
                        "{} is damaged: restore it from a backup, or remove it if this node is in no cluster",
                        file.display()
                    ))
                })?;
                life.start += 1;
                let written = OpenOptions::new().write(true).open(&file).and_then(|mut out| {
                    out.write_all(life.line().as_bytes())?;
                    out.sync_data()
                });
                written.map_err(|error| fails("write to", error))?;
                Ok(life)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).map_err(|error| {
                    Refusal::failure(format!("cannot read random bytes: {error}"))
                })?;
                let life = Life { directory: DirectoryId(u128::from_le_bytes(bytes)), start: 1 };
                match files::replace(&file, life.line().as_bytes()) {
                    Ok(()) => {}
                    // A node that is alone needs none, and serves reads on a full disk.
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                        tracing::warn!("{} cannot be written: {error}", file.display());
                    }
                    Err(error) => return Err(fails("write to", error)),
                }
                Ok(life)
            }
            Err(error) => Err(fails("read", error)),
        }
    }

    fn line(&self) -> String {
        let fields = format!("ringraft-life 1 {:032x} {:020}", self.directory.0, self.start);
        format!("{fields} {:08x}\n", crc32fast::hash(fields.as_bytes()))
    }

    fn parse(text: &str) -> Option<Life> {
        let (fields, sum) = text.trim_end().rsplit_once(' ')?;
        let sum = u32::from_str_radix(sum, 16).ok()?;
        let mut words = fields.strip_prefix("ringraft-life 1 ")?.split(' ');
        let directory = DirectoryId(u128::from_str_radix(words.next()?, 16).ok()?);
        let start = words.next()?.parse().ok()?;
        (crc32fast::hash(fields.as_bytes()) == sum).then_some(Life { directory, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_the_directory_keeps_its_number() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let first = Life::begin(folder.path()).expect("writable");
        let second = Life::begin(folder.path()).expect("writable");
        assert_eq!((first.start, second.start), (1, 2));
        assert_eq!(first.directory, second.directory);
        let other = tempfile::tempdir().expect("a scratch directory");
        assert_ne!(Life::begin(other.path()).expect("writable").directory, first.directory);
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let life = Life::begin(folder.path()).expect("writable");
        let file = folder.path().join(FILE);
        let text = life.line();
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if at % 2 == 0 { bytes[at] ^ 0x80 } else { bytes[at] ^ 1 };
            fs::write(&file, bytes).expect("writable");
            let refusal = Life::begin(folder.path()).expect_err("damaged");
            assert!(refusal.text.contains("life is damaged"), "{}", refusal.text);
        }
    }
}
