//! Names of the log's files, and the work on whole files that is done aside of the writes.
//!
//! `00000000000000000007.log` is segment 7. `.new` is a segment in the making and worth nothing.
//! `.free` was a segment once and waits to become another one.

use super::format::{HEADER_BYTES, SegmentHeader};
use crate::disk::{Disk, DiskResult};

/// Name of a live segment.
pub fn segment_file_name(sequence: u64) -> String {
    format!("{sequence:020}.log")
}

pub(super) fn new_file_name(sequence: u64) -> String {
    format!("{sequence:020}.new")
}

pub(super) fn free_file_name(sequence: u64) -> String {
    format!("{sequence:020}.free")
}

/// What a file of the log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment(u64),
    New,
    Free,
}

/// What a file is by its name. `None` for files that are not the log's.
pub(super) fn classify(name: &str) -> Option<FileKind> {
    let (stem, extension) = name.split_once('.')?;
    if stem.len() != 20 || !stem.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match extension {
        "log" => stem.parse().ok().map(FileKind::Segment),
        "new" => Some(FileKind::New),
        "free" => Some(FileKind::Free),
        _ => None,
    }
}

/// One piece of work on whole files. The group has at most one out at a time; the driver runs it
/// where blocking is allowed and reports the result with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAction {
    /// Number to report it by.
    pub id: u64,
    /// What is to be done.
    pub work: FileWork,
}

/// Work on whole files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileWork {
    /// Make the next segment: all of it written, header in place, name durable.
    Prepare {
        /// Header of the new segment.
        header: SegmentHeader,
        /// File to make it from, which saves filling a new one with zeros.
        from: Option<String>,
    },
    /// Take away the oldest segment, which nobody needs any more.
    Release {
        /// Sequence of the segment.
        sequence: u64,
        /// Name under which the file is kept for later; `None` removes it.
        keep: Option<String>,
        /// Segments that must be durable first, because they hold what makes the old one unneeded.
        sync: Vec<String>,
    },
}

impl FileAction {
    /// Does the work, blocking. Doing it again after a failure or a crash in the middle is fine.
    pub fn run(&self, disk: &dyn Disk) -> DiskResult<()> {
        match &self.work {
            FileWork::Prepare { header, from } => prepare(disk, header, from.as_deref()),
            FileWork::Release { sequence, keep, sync } => {
                release(disk, *sequence, keep.as_deref(), sync)
            }
        }
    }
}

fn prepare(disk: &dyn Disk, header: &SegmentHeader, from: Option<&str>) -> DiskResult<()> {
    let name = segment_file_name(header.sequence);
    let files = disk.list()?;
    let size_of = |name: &str| files.iter().find(|file| file.name == name).map(|file| file.bytes);
    if size_of(&name) == Some(header.segment_bytes) {
        // An earlier attempt got as far as the rename.
        let mut bytes = [0; HEADER_BYTES];
        disk.read_at(&name, 0, &mut bytes)?;
        if SegmentHeader::decode(&bytes) == Ok(*header) {
            return disk.sync_directory();
        }
    }
    let mut block = vec![0; header.block_bytes as usize];
    block[..HEADER_BYTES].copy_from_slice(&header.encode());
    let source = match from {
        Some(from) if size_of(from) == Some(header.segment_bytes) => from.to_string(),
        other => {
            if let Some(wrong_size) = other.filter(|name| size_of(name).is_some()) {
                disk.remove(wrong_size)?;
            }
            let fresh = new_file_name(header.sequence);
            if let Err(error) = disk.create_zeroed(&fresh, header.segment_bytes) {
                // Half a file on a full disk would only make things worse.
                let _ = disk.remove(&fresh);
                return Err(error);
            }
            fresh
        }
    };
    disk.write_at(&source, 0, &block)?;
    disk.sync(&source)?;
    disk.rename(&source, &name)?;
    disk.sync_directory()
}

fn release(disk: &dyn Disk, sequence: u64, keep: Option<&str>, sync: &[String]) -> DiskResult<()> {
    let name = segment_file_name(sequence);
    if disk.list()?.iter().any(|file| file.name == name) {
        for needed in sync {
            disk.sync(needed)?;
        }
        match keep {
            Some(free) => disk.rename(&name, free)?,
            None => disk.remove(&name)?,
        }
    }
    // Before the next one goes: a gap in the middle of the chain would be taken for a loss.
    disk.sync_directory()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::ids::{ClusterId, NodeId, ShardId};
    use crate::log::LogIdentity;

    fn header(sequence: u64) -> SegmentHeader {
        let identity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
        SegmentHeader { identity, sequence, salt: 9, block_bytes: 512, segment_bytes: 8192 }
    }

    #[test]
    fn names_say_what_files_are() {
        assert_eq!(classify(&segment_file_name(7)), Some(FileKind::Segment(7)));
        assert_eq!(classify(&new_file_name(7)), Some(FileKind::New));
        assert_eq!(classify(&free_file_name(7)), Some(FileKind::Free));
        for other in ["meta.json", "7.log", "0000000000000000000x.log", "00000000000000000007.rdb"]
        {
            assert_eq!(classify(other), None, "{other}");
        }
    }

    #[test]
    fn work_can_fail_anywhere_and_be_done_again() {
        for operation in ["create", "write", "sync", "rename", "sync directory"] {
            let disk = MemoryDisk::new();
            let prepare = FileWork::Prepare { header: header(1), from: None };
            let prepare = FileAction { id: 1, work: prepare };
            disk.fail(operation, 0);
            prepare.run(&disk).expect_err(operation);
            prepare.run(&disk).expect(operation);
            let bytes = disk.read_all(&segment_file_name(1));
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header(1)), "{operation}");

            let keep = Some(free_file_name(1));
            let release = FileWork::Release { sequence: 1, keep: keep.clone(), sync: Vec::new() };
            let release = FileAction { id: 2, work: release };
            disk.fail(operation, 0);
            let failed = release.run(&disk).is_err();
            assert_eq!(failed, operation.starts_with("rename") || operation == "sync directory");
            release.run(&disk).expect(operation);
            disk.kill();

            let again =
                FileAction { id: 3, work: FileWork::Prepare { header: header(2), from: keep } };
            again.run(&disk).expect("room");
            let names: Vec<_> = disk.list().expect("listed").into_iter().map(|f| f.name).collect();
            assert_eq!(names, [segment_file_name(2)], "{operation}");
        }
    }
}
