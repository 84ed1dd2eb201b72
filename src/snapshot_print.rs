//! `ringraft snapshot print`: a snapshot as RESP commands, for `redis-cli --pipe`.
//!
//! Items are printed as they are verified, a chunk at a time; whether the whole file was good is
//! known at its end. What precedes damage is thus saved, and the exit status says that it is not
//! all. Nothing but commands is written to the output.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ringraft_shards::ids::{DatabaseIndex, Deadline};
use ringraft_shards::rdb::{Fault, ItemRecord, Piece};
use ringraft_shards::snapshot::directory::{META_FILE, STATE_FILE};
use ringraft_shards::snapshot::{Meta, ReadError, SnapshotError, SnapshotReader};
use ringraft_shards::value::stream::{StreamId, StreamPart};
use ringraft_shards::value::{Part, ValueType};

use crate::kvnode_state::{GZIP_MAGIC, KvnodeError, KvnodeRecord, KvnodeState};
use crate::limits::{PRINT_BUFFER_BYTES, PRINTED_ELEMENTS_MAX};
use crate::resp::listing::id_text;

/// kvnode's name for the file with the items.
const KVNODE_STATE_FILE: &str = "state.bin";

/// What was printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items.
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
/// Items come as `SET key value [PXAT ms]`, or as what adds the elements of a collection and
/// `PEXPIREAT`, with `SELECT` before the first one of ringraft's and wherever the database changes.
/// On an error, what was printed before it is true but not all. Cost: memory for one chunk, or one
/// huge item.
pub fn print(path: &Path, out: &mut dyn Write) -> Result<Counts, PrintError> {
    let path = locate(path)?;
    let out = BufWriter::with_capacity(PRINT_BUFFER_BYTES, out);
    let mut commands = Commands { out, selected: None, heads: BTreeMap::new() };
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
    // Deadlines of items in pieces: past ones would end them before their last piece.
    let mut deadlines = Vec::new();
    while let Some(mut chunk) = reader.read_chunk().map_err(unreadable)? {
        while let Some(item) = chunk.next_item().map_err(unreadable)? {
            commands.item(&item).map_err(PrintError::Output)?;
            counts.items += u64::from(item.is_first());
            if let (Piece::First(_), Some(deadline)) = (item.piece, item.deadline) {
                deadlines.push((item.database, item.key.into_owned(), deadline));
            }
        }
    }
    commands.last_heads().map_err(PrintError::Output)?;
    for (database, key, deadline) in deadlines {
        commands.select(database).map_err(PrintError::Output)?;
        commands.expire(&key, deadline).map_err(PrintError::Output)?;
    }
    if let (Some(footer), true) = (reader.footer(), path.with_file_name(META_FILE).exists()) {
        let meta = Meta::new(reader.header(), footer).of_format(reader.format_version());
        meta.check_beside(path)?;
    }
    Ok(counts)
}

/// Writes commands as RESP arrays of bulk strings.
struct Commands<'a> {
    out: BufWriter<&'a mut dyn Write>,
    selected: Option<DatabaseIndex>,
    /// What is known of streams whose entries are not all printed yet.
    heads: BTreeMap<(DatabaseIndex, Vec<u8>), StreamHead>,
}

struct StreamHead {
    last_id: StreamId,
    added: u64,
    max_deleted_id: StreamId,
    has_entries: bool,
}

impl Commands<'_> {
    /// Makes this the database of the commands that follow.
    fn select(&mut self, database: DatabaseIndex) -> std::io::Result<()> {
        if self.selected.replace(database) == Some(database) {
            return Ok(());
        }
        self.count(2)?;
        self.bulk(b"SELECT")?;
        self.bulk(itoa::Buffer::new().format(database.0).as_bytes())
    }

    /// An item or a piece of one; of an item in pieces, without its deadline.
    fn item(&mut self, item: &ItemRecord<'_>) -> std::io::Result<()> {
        self.select(item.database)?;
        let whole = item.piece == Piece::Whole;
        match item.value.value_type() {
            ValueType::String => {
                let value = item.value.string().expect("its type says so");
                match item.piece {
                    Piece::Whole => self.set(&item.key, &value, item.deadline),
                    Piece::First(_) => self.set(&item.key, &value, None),
                    Piece::Next(_) => self.words(&[b"APPEND", &item.key, &value]),
                }
            }
            ValueType::List => self.elements(b"RPUSH", item),
            ValueType::Set => self.elements(b"SADD", item),
            ValueType::Hash => self.elements(b"HSET", item),
            ValueType::SortedSet => self.elements(b"ZADD", item),
            ValueType::Stream => self.stream(item),
        }?;
        let is_string = item.value.value_type() == ValueType::String;
        match item.deadline.filter(|_| whole && !is_string) {
            Some(deadline) => self.expire(&item.key, deadline),
            None => Ok(()),
        }
    }

    /// Commands that add all elements of a value, some at a time.
    fn elements(&mut self, name: &[u8], item: &ItemRecord<'_>) -> std::io::Result<()> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut result = Ok(());
        let read = item.value.each(&mut |part| {
            match part {
                Part::String(element) | Part::Element(element) | Part::Member(element) => {
                    words.push(element.to_vec());
                }
                Part::TimedField(field, value, at) => {
                    result = self.timed_field(&item.key, field, value, at);
                }
                Part::Field(field, value) => words.extend([field.to_vec(), value.to_vec()]),
                Part::Scored(member, score) => {
                    words.extend([score.to_string().into_bytes(), member.to_vec()]);
                }
                Part::Stream(_) => unreachable!("streams have a printer of their own"),
            }
            if result.is_ok() && words.len() >= PRINTED_ELEMENTS_MAX {
                result = self.add(name, &item.key, &words);
                words.clear();
            }
            // Any fault ends the walk.
            if result.is_ok() { Ok(()) } else { Err(Fault::Empty) }
        });
        result?;
        debug_assert!(read.is_ok(), "the reader has verified it");
        if words.is_empty() { Ok(()) } else { self.add(name, &item.key, &words) }
    }

    /// Commands that make a stream, or go on with one: an entry each, and what is known beside them
    /// once the last one has come.
    fn stream(&mut self, item: &ItemRecord<'_>) -> std::io::Result<()> {
        let mut result = Ok(());
        let read = item.value.each(&mut |part| {
            if let Part::Stream(part) = part {
                result = self.stream_part(item, part);
            }
            // Any fault ends the walk.
            if result.is_ok() { Ok(()) } else { Err(Fault::Empty) }
        });
        result?;
        debug_assert!(read.is_ok(), "the reader has verified it");
        match item.piece {
            Piece::Whole => self.stream_head(item.database, &item.key),
            Piece::First(_) | Piece::Next(_) => Ok(()),
        }
    }

    fn stream_part(&mut self, item: &ItemRecord<'_>, part: StreamPart<'_>) -> std::io::Result<()> {
        let key = &*item.key;
        match part {
            StreamPart::Head { last_id, added, max_deleted_id } => {
                let (has_entries, key) = (false, key.to_vec());
                let head = StreamHead { last_id, added, max_deleted_id, has_entries };
                self.heads.insert((item.database, key), head);
                return Ok(());
            }
            StreamPart::Block(block) => {
                if let Some(head) = self.heads.get_mut(&(item.database, key.to_vec())) {
                    head.has_entries = true;
                }
                return block.entries().try_for_each(|entry| {
                    let id = id_text(entry.id);
                    let head = [&b"XADD"[..], key, &id].into_iter();
                    let pairs = entry.pairs().flat_map(|(name, value)| [name, value]);
                    self.words(&head.chain(pairs).collect::<Vec<_>>())
                });
            }
            _ => self.stream_head(item.database, key)?,
        }
        match part {
            StreamPart::Group { name, last_id, entries_read } => {
                let (id, read) = (id_text(last_id), entries_read.map_or(-1, |read| read as i64));
                let read = read.to_string();
                let options = [b"ENTRIESREAD", read.as_bytes()];
                self.words(&[&[b"XGROUP", b"CREATE", key, name, &id], &options[..]].concat())
            }
            StreamPart::Consumer { group, name, .. } => {
                self.words(&[b"XGROUP", b"CREATECONSUMER", key, group, name])
            }
            StreamPart::Pending { group, pending } => {
                // Of an entry that is gone this does nothing; there is no command that would do
                // more.
                let id = id_text(pending.id);
                let (time, count) = (pending.delivered_ms.to_string(), pending.count.to_string());
                let options: [&[u8]; 6] = [
                    b"TIME",
                    time.as_bytes(),
                    b"RETRYCOUNT",
                    count.as_bytes(),
                    b"FORCE",
                    b"JUSTID",
                ];
                let head: [&[u8]; 6] = [b"XCLAIM", key, group, pending.consumer, b"0", &id];
                self.words(&[head, options].concat())
            }
            StreamPart::Head { .. } | StreamPart::Block(_) => Ok(()),
        }
    }

    /// What is known of a stream beside its entries, if it was not said yet: its entries are all
    /// there.
    fn stream_head(&mut self, database: DatabaseIndex, key: &[u8]) -> std::io::Result<()> {
        let Some(head) = self.heads.remove(&(database, key.to_vec())) else { return Ok(()) };
        if !head.has_entries {
            // A stream without entries is made by a group alone.
            self.words(&[b"XGROUP", b"CREATE", key, b"none", b"0", b"MKSTREAM"])?;
            self.words(&[b"XGROUP", b"DESTROY", key, b"none"])?;
        }
        let (last_id, max_deleted_id) = (id_text(head.last_id), id_text(head.max_deleted_id));
        let added = head.added.to_string();
        let options: [&[u8]; 4] =
            [b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", &max_deleted_id];
        self.words(&[&[b"XSETID", key, &last_id], &options[..]].concat())
    }

    /// What is known of streams whose last piece was one of entries.
    fn last_heads(&mut self) -> std::io::Result<()> {
        for (database, key) in self.heads.keys().cloned().collect::<Vec<_>>() {
            self.select(database)?;
            self.stream_head(database, &key)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &[u8], key: &[u8], elements: &[Vec<u8>]) -> std::io::Result<()> {
        self.count(2 + elements.len())?;
        self.bulk(name)?;
        self.bulk(key)?;
        elements.iter().try_for_each(|element| self.bulk(element))
    }

    fn timed_field(
        &mut self,
        key: &[u8],
        field: &[u8],
        value: &[u8],
        at: i64,
    ) -> std::io::Result<()> {
        self.words(&[b"HSET", key, field, value])?;
        let mut digits = itoa::Buffer::new();
        let at = digits.format(at).as_bytes();
        self.words(&[b"HPEXPIREAT", key, at, b"FIELDS", b"1", field])
    }

    fn expire(&mut self, key: &[u8], deadline: Deadline) -> std::io::Result<()> {
        self.words(&[b"PEXPIREAT", key, itoa::Buffer::new().format(deadline.0).as_bytes()])
    }

    fn set(&mut self, key: &[u8], value: &[u8], deadline: Option<Deadline>) -> std::io::Result<()> {
        let Some(deadline) = deadline else { return self.words(&[b"SET", key, value]) };
        // SET refuses a time before 1; long past is as good.
        let time = deadline.0.max(1);
        self.words(&[b"SET", key, value, b"PXAT", itoa::Buffer::new().format(time).as_bytes()])
    }

    fn words(&mut self, words: &[&[u8]]) -> std::io::Result<()> {
        self.count(words.len())?;
        words.iter().try_for_each(|word| self.bulk(word))
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
