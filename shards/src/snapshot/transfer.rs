//! Snapshots between nodes: reading a complete one by offset, and writing one that arrives in
//! pieces.
//!
//! Only `state.ring` travels: `meta.json` is written anew from its header and footer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::directory::{PendingSnapshot, SnapshotDirectory, SnapshotName};
use super::error::{Flaw, ReadError, SnapshotError};
use super::footer::Footer;
use super::header::Header;
use super::meta::Meta;
use super::reader::SnapshotReader;
use crate::limits::SNAPSHOT_SYNC_BYTES;

/// A complete snapshot, open. Stays readable when it is pruned meanwhile.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: File,
    size: u64,
    format_version: u32,
    header: Header,
    footer: Footer,
}

impl SnapshotFile {
    /// Opens `state.ring` at `path`: header, footer, size and `meta.json` agree. Items are not
    /// read.
    pub fn open(path: &Path) -> Result<SnapshotFile, SnapshotError> {
        let opened = SnapshotFile::open_alone(path)?;
        opened.meta().check_beside(path)?;
        Ok(opened)
    }

    /// Opens a state file that may have lost its `meta.json`.
    pub fn open_alone(path: &Path) -> Result<SnapshotFile, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::io("opening", path))?;
        let size = file.metadata().map_err(SnapshotError::io("opening", path))?.len();
        let unreadable = |source| SnapshotError::Unreadable { path: path.to_path_buf(), source };
        let reader = SnapshotReader::open(&file, size).map_err(unreadable)?;
        let (format_version, header) = (reader.format_version(), reader.header().clone());
        let offset = size.saturating_sub(Footer::BYTES as u64);
        let mut bytes = [0; Footer::BYTES];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|source| unreadable(ReadError::Io { offset, source }))?;
        let footer = Footer::decode(&bytes).and_then(|footer| match footer.file_size == size {
            true => Ok(footer),
            false => Err(Flaw::Mismatch {
                what: "the size of the file",
                found: size,
                recorded: footer.file_size,
            }),
        });
        // Without a footer the file was cut, or never finished.
        let footer = footer.map_err(|flaw| unreadable(ReadError::damaged(offset, flaw)))?;
        Ok(SnapshotFile { path: path.to_path_buf(), file, size, format_version, header, footer })
    }

    /// Refuses a snapshot of another cluster or shard.
    pub fn check_owner(&self, directory: &SnapshotDirectory) -> Result<(), SnapshotError> {
        let path = || self.path.clone();
        if self.header.cluster != directory.cluster() {
            let (found, expected) = (self.header.cluster, directory.cluster());
            return Err(SnapshotError::OtherCluster { path: path(), found, expected });
        }
        if self.header.shard != directory.shard() {
            let (found, expected) = (self.header.shard, directory.shard());
            return Err(SnapshotError::OtherShard { path: path(), found, expected });
        }
        Ok(())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its counts.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// What `meta.json` says.
    pub fn meta(&self) -> Meta {
        Meta::new(&self.header, &self.footer).of_format(self.format_version)
    }

    /// Up to `length` bytes from `offset`; fewer only at the end. Blocks on the disk.
    pub fn read_at(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let left = self.size.saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(left).unwrap_or(usize::MAX))];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// A reader of the whole file from its start.
    pub fn reader(&self) -> Result<SnapshotReader<impl std::io::Read + use<>>, SnapshotError> {
        let failed = || SnapshotError::io("opening", &self.path);
        let source = AtOffset { file: self.file.try_clone().map_err(failed())?, offset: 0 };
        SnapshotReader::open(source, self.size).map_err(|source| self.unreadable(source))
    }

    /// A reading error, with this file's path.
    pub fn unreadable(&self, source: ReadError) -> SnapshotError {
        SnapshotError::Unreadable { path: self.path.clone(), source }
    }
}

/// A snapshot that arrives from another node.
#[derive(Debug)]
#[must_use = "an arriving snapshot exists only once it is finished"]
pub struct IncomingSnapshot {
    pending: PendingSnapshot,
    directory: SnapshotDirectory,
    name: SnapshotName,
    file: File,
    size: u64,
    received: u64,
}

impl IncomingSnapshot {
    /// Begins to receive a snapshot announced with this name and size.
    /// Errors: [`SnapshotError::Exists`] when it is here already, and can be loaded.
    pub fn begin(
        directory: &SnapshotDirectory,
        name: SnapshotName,
        size: u64,
    ) -> Result<IncomingSnapshot, SnapshotError> {
        let pending = directory.begin(name)?;
        let path = pending.state_path();
        let file = File::create(&path).map_err(SnapshotError::io("creating", &path))?;
        let directory = directory.clone();
        Ok(IncomingSnapshot { pending, directory, name, file, size, received: 0 })
    }

    /// Offset of the piece that comes next.
    pub fn next_offset(&self) -> u64 {
        self.received
    }

    /// Has every byte arrived?
    pub fn is_complete(&self) -> bool {
        self.received == self.size
    }

    /// Appends a piece. A piece that does not continue the file is refused and changes nothing.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let path = || self.pending.state_path();
        if offset != self.received {
            let expected = self.received;
            return Err(SnapshotError::OutOfOrder { path: path(), found: offset, expected });
        }
        if bytes.len() as u64 > self.size - self.received {
            let found = self.received + bytes.len() as u64;
            return Err(self.not_as_announced("the size", found, self.size));
        }
        append_snapshot(&self.file, offset, bytes)
            .map_err(SnapshotError::io("writing", &path()))?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Verifies every byte and makes the snapshot exist. Nothing is left of one that is refused.
    /// Cost: reads the file once and syncs it: blocks for about a second per gigabyte.
    pub fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        match self.verified() {
            Ok(file) => {
                self.pending.publish(&file.meta())?;
                SnapshotFile::open(&self.directory.state_path(self.name))
            }
            Err(error) => {
                self.pending.abandon()?;
                Err(error)
            }
        }
    }

    /// Gives up.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        self.pending.abandon()
    }

    fn verified(&self) -> Result<SnapshotFile, SnapshotError> {
        if self.received != self.size {
            return Err(self.not_as_announced("the size", self.received, self.size));
        }
        let file = SnapshotFile::open_alone(&self.pending.state_path())?;
        file.check_owner(&self.directory)?;
        let header = file.header();
        for (what, found, expected) in [
            ("the term", header.term.0, self.name.term.0),
            ("the index", header.index.0, self.name.index.0),
        ] {
            if found != expected {
                return Err(self.not_as_announced(what, found, expected));
            }
        }
        file.reader()?.verify().map_err(|error| file.unreadable(error))?;
        Ok(file)
    }

    fn not_as_announced(&self, what: &'static str, found: u64, expected: u64) -> SnapshotError {
        let path = self.pending.state_path();
        SnapshotError::NotAsAnnounced { path, what, found, expected }
    }
}

/// Appends to the state file of a snapshot, which has `offset` bytes. Cost: after each
/// [`SNAPSHOT_SYNC_BYTES`] waits until the disk has them.
pub fn append_snapshot(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all_at(bytes, offset)?;
    let end = offset + bytes.len() as u64;
    if offset / SNAPSHOT_SYNC_BYTES != end / SNAPSHOT_SYNC_BYTES {
        file.sync_data()?;
    }
    Ok(())
}

/// Reads a file by offset, so that the file's own position does not matter.
struct AtOffset {
    file: File,
    offset: u64,
}

impl std::io::Read for AtOffset {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(out, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
