//! `ringraft snapshot print`: a snapshot as RESP commands, for `redis-cli --pipe`.
//!
//! Items are printed as they are verified, a chunk at a time; whether the whole file was good is known
//! at its end. What precedes damage is thus saved, and the exit status says that it is not all. Nothing
//! but commands is written to the output.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ringraft_shards::ids::{DatabaseIndex, Deadline};
use ringraft_shards::rdb::DecodedValue;
use ringraft_shards::snapshot::directory::{META_FILE, STATE_FILE};
use ringraft_shards::snapshot::{Meta, ReadError, SnapshotError, SnapshotReader};

use crate::kvnode_state::{GZIP_MAGIC, KvnodeError, KvnodeRecord, KvnodeState};
use crate::limits::PRINT_BUFFER_BYTES;

/// kvnode's name for the file with the items.
const KVNODE_STATE_FILE: &str = "state.bin";

/// What was printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items, one SET each.
    pub items: u64,
    /// Records of kvnode that are not a user's, passed over.
    pub skipped: u64,
}

/// Why a snapshot could not be printed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// Nothing to print at this path.
    #[error(
        "{}: neither a snapshot file nor a directory that holds {STATE_FILE} or {KVNODE_STATE_FILE}",
        path.display()
    )]
    NothingThere {
        /// As given.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error("opening {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A snapshot of ringraft that is not good.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A snapshot of kvnode that is not good.
    #[error(transparent)]
    Kvnode(#[from] KvnodeError),
    /// The output took no more: a reader that went away, a full disk.
    #[error("writing the commands: {0}")]
    Output(std::io::Error),
}

/// Prints the snapshot at `path`: `state.ring`, kvnode's `state.bin`, or the directory of either.
/// Items come as `SET key value [PXAT ms]`, with `SELECT` before the first one of ringraft's and wherever
/// the database changes. On an error, what was printed before it is true but not all.
/// Cost: memory for one chunk, or one huge item.
pub fn print(path: &Path, out: &mut dyn Write) -> Result<Counts, PrintError> {
    let path = locate(path)?;
    let mut commands = Commands { out: BufWriter::with_capacity(PRINT_BUFFER_BYTES, out) };
    let printed = if begins_as_gzip(&path)? {
        print_kvnode(&path, &mut commands)
    } else {
        print_ringraft(&path, &mut commands)
    };
    let flushed = commands.out.flush().map_err(PrintError::Output);
    printed.and_then(|counts| flushed.map(|()| counts))
}

fn locate(path: &Path) -> Result<PathBuf, PrintError> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let inside = [STATE_FILE, KVNODE_STATE_FILE].map(|name| path.join(name));
    let found = inside.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| PrintError::NothingThere { path: path.to_path_buf() })
}

fn open(path: &Path) -> Result<File, PrintError> {
    File::open(path).map_err(|source| PrintError::Open { path: path.to_path_buf(), source })
}

fn begins_as_gzip(path: &Path) -> Result<bool, PrintError> {
    let mut magic = [0; GZIP_MAGIC.len()];
    // A file too short for it is no gzip stream either.
    Ok(open(path)?.read_exact(&mut magic).is_ok() && magic == GZIP_MAGIC)
}

fn print_kvnode(path: &Path, commands: &mut Commands<'_>) -> Result<Counts, PrintError> {
    let mut state = KvnodeState::open(path)?;
    let mut counts = Counts::default();
    while let Some(record) = state.next_record()? {
        match record {
            KvnodeRecord::User(key, value) => {
                commands.set(key, value, None).map_err(PrintError::Output)?;
                counts.items += 1;
            }
            KvnodeRecord::Other => counts.skipped += 1,
        }
    }
    Ok(counts)
}

fn print_ringraft(path: &Path, commands: &mut Commands<'_>) -> Result<Counts, PrintError> {
    let unreadable =
        |source: ReadError| SnapshotError::Unreadable { path: path.to_path_buf(), source };
    let file = open(path)?;
    let size = file.metadata().map_err(|source| PrintError::Open { path: path.into(), source })?;
    let mut reader = SnapshotReader::open(file, size.len()).map_err(unreadable)?;
    let mut counts = Counts::default();
    let mut selected = None;
    while let Some(mut chunk) = reader.read_chunk().map_err(unreadable)? {
        while let Some(item) = chunk.next_item().map_err(unreadable)? {
            if selected != Some(item.database) {
                commands.select(item.database).map_err(PrintError::Output)?;
                selected = Some(item.database);
            }
            match &item.value {
                DecodedValue::String(value) => commands.set(&item.key, value, item.deadline),
            }
            .map_err(PrintError::Output)?;
            counts.items += 1;
        }
    }
    if let (Some(footer), true) = (reader.footer(), path.with_file_name(META_FILE).exists()) {
        Meta::new(reader.header(), footer).check_beside(path)?;
    }
    Ok(counts)
}

/// Writes commands as RESP arrays of bulk strings.
struct Commands<'a> {
    out: BufWriter<&'a mut dyn Write>,
}

impl Commands<'_> {
    fn select(&mut self, database: DatabaseIndex) -> std::io::Result<()> {
        self.count(2)?;
        self.bulk(b"SELECT")?;
        self.bulk(itoa::Buffer::new().format(database.0).as_bytes())
    }

    fn set(&mut self, key: &[u8], value: &[u8], deadline: Option<Deadline>) -> std::io::Result<()> {
        self.count(if deadline.is_some() { 5 } else { 3 })?;
        self.bulk(b"SET")?;
        self.bulk(key)?;
        self.bulk(value)?;
        let Some(deadline) = deadline else { return Ok(()) };
        self.bulk(b"PXAT")?;
        // SET refuses a time before 1; long past is as good.
        self.bulk(itoa::Buffer::new().format(deadline.0.max(1)).as_bytes())
    }

    fn count(&mut self, count: usize) -> std::io::Result<()> {
        self.line(b'*', count)
    }

    fn bulk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.line(b'$', bytes.len())?;
        self.out.write_all(bytes)?;
        self.out.write_all(b"\r\n")
    }

    fn line(&mut self, kind: u8, number: usize) -> std::io::Result<()> {
        self.out.write_all(&[kind])?;
        self.out.write_all(itoa::Buffer::new().format(number).as_bytes())?;
        self.out.write_all(b"\r\n")
    }
}
