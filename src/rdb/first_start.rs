//! `--load-rdb FILE`: the data of a new directory comes from an RDB file.
//!
//! Each shard gets a snapshot with its part of the file, at the entry behind its founding. The
//! shards then start as from any snapshot. All of it happens while the directory is being founded,
//! so a start that fails or is killed leaves nothing.

use super::{Progress, check, in_file, open};
use crate::core::mail::router::Router;
use crate::node::Refusal;
use crate::node::directory::{Directory, Identity};
use ringraft_shards::ids::{Index, ShardId, Term};
use ringraft_shards::keyspace::{Expiry, Key, KeyHasher, Keyspace, Libraries, LibraryChange};
use ringraft_shards::rdb::file::{Event, ItemFields, Library, RdbReader, Survey};
use ringraft_shards::rdb::{ItemRecord, Piece};
use ringraft_shards::snapshot::directory::SnapshotName;
use ringraft_shards::snapshot::{
    Header, Membership, PendingSnapshot, SnapshotDirectory, SnapshotWriter,
};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The entry that the snapshots end at: the one behind the founding, which no log has.
const LOADED_AT: SnapshotName = SnapshotName { term: Term(1), index: Index(2) };

/// A file that was checked, to be loaded when the directory is founded.
#[derive(Debug)]
pub struct Checked {
    path: PathBuf,
    found: Survey,
}

/// Reads all of the file, which may not change until it is loaded.
/// Errors: it is damaged, or holds what there is not here.
pub fn check_file(path: &Path) -> Result<Checked, Refusal> {
    let found = check(path, &|line| tracing::info!("{}: {line}", path.display()));
    let found = found.map_err(|text| Refusal::failure(format!("--load-rdb {text}")))?;
    Ok(Checked { path: path.to_path_buf(), found })
}

impl Checked {
    /// Makes the snapshots of all shards of a directory that is being founded.
    /// Errors: the disk's, or the file has changed.
    pub fn load(&self, directory: &Directory, now_ms: i64) -> Result<(), Refusal> {
        let failed = |text: String| Refusal::failure(format!("--load-rdb {text}"));
        let identity = directory.identity();
        let hasher = KeyHasher::with_scheme(identity.key_hash_seed, identity.slot_scheme);
        let router = Router::new(hasher, usize::from(identity.shard_count), 1, 0);
        let mut shards = (0..identity.shard_count)
            .map(|shard| {
                ShardPart::begin(directory.path(), identity, &router, ShardId(shard), now_ms)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        // They belong to the first shard.
        shards[0].writer.push_libraries(&libraries(&self.found.libraries));
        let mut loader =
            Loader { shards, router, now_ms, scratch: Keyspace::new(hasher), past: 0, open: None };
        let (file, size) = open(&self.path).map_err(failed)?;
        let tell = |line: &str| tracing::info!("{}: {line}", self.path.display());
        let mut progress = Progress::new("loading", size, &tell);
        let reader = RdbReader::open(file, self.found.totals.clone());
        let mut reader = reader.map_err(|error| failed(in_file(&self.path, &error)))?;
        loop {
            let event = reader.next(&mut |record, fields| loader.take(&record, fields));
            match event.map_err(|error| failed(in_file(&self.path, &error)))? {
                Event::End => break,
                _ => progress.reached(reader.offset()),
            }
        }
        let past = loader.past;
        for shard in loader.shards {
            shard.finish().map_err(failed)?;
        }
        tracing::info!(
            "{} items loaded from {}, {past} whose time is over passed over",
            self.found.items - past,
            self.path.display()
        );
        Ok(())
    }
}

/// All libraries of functions of the file, as one change makes them.
fn libraries(found: &[Library]) -> Libraries {
    let mut libraries = Libraries::default();
    if !found.is_empty() {
        let texts = found.iter().map(|found| (found.name.clone(), found.text.clone())).collect();
        let is_made = libraries.change(&LibraryChange { texts, ..LibraryChange::default() });
        debug_assert!(is_made, "nobody changed it before");
    }
    libraries
}

/// Puts items where they belong.
struct Loader {
    shards: Vec<ShardPart>,
    router: Router,
    now_ms: i64,
    /// Where whole values are built, so that they are written as a server would write them.
    scratch: Keyspace,
    /// Items whose deadline has passed.
    past: u64,
    /// Is the value that comes in pieces one of those?
    open: Option<bool>,
}

impl Loader {
    fn take(&mut self, record: &ItemRecord<'_>, _fields: ItemFields) -> io::Result<()> {
        let is_past = record.deadline.is_some_and(|at| at.0 <= self.now_ms);
        let hash = self.router.hash(&record.key);
        let shard = usize::from(self.router.shard(hash).0);
        let passes = match record.piece {
            Piece::Next(_) => self.open.unwrap_or(false),
            Piece::Whole | Piece::First(_) => {
                self.past += u64::from(is_past);
                *self.open.insert(is_past)
            }
        };
        if passes {
            return Ok(());
        }
        let part = &mut self.shards[shard];
        if record.piece != Piece::Whole {
            part.writer.push_record(record);
            return part.write();
        }
        let key = Key::new(&record.key, hash);
        let expiry = record.deadline.map_or(Expiry::Never, Expiry::At);
        let mut edit = self.scratch.edit(record.database, self.now_ms);
        edit.restore(&key, &record.value, expiry).map_err(io::Error::other)?;
        let view = self.scratch.view(record.database, self.now_ms);
        let item = view.peek(&key).expect("just set, and its time is to come");
        let mut from = Some(0);
        while let Some(at) = from {
            from = part.writer.push(record.database, item, at);
            part.write()?;
        }
        self.scratch.edit(record.database, self.now_ms).remove(&key);
        while self.scratch.free_some(crate::limits::FREED_BUCKETS_PER_TURN) {}
        Ok(())
    }
}

/// The snapshot of one shard.
struct ShardPart {
    writer: SnapshotWriter,
    pending: PendingSnapshot,
    file: File,
}

impl ShardPart {
    fn begin(
        data: &Path,
        identity: &Identity,
        router: &Router,
        shard: ShardId,
        now_ms: i64,
    ) -> Result<ShardPart, String> {
        let header = Header {
            cluster: identity.cluster,
            shard,
            term: LOADED_AT.term,
            index: LOADED_AT.index,
            slots: vec![router.slot_range(shard)],
            slot_scheme: identity.slot_scheme,
            key_hash_seed: identity.key_hash_seed,
            created_ms: now_ms,
            leader_time_ms: now_ms,
            membership: Membership { voters: vec![identity.node], ..Membership::default() },
        };
        let directory = SnapshotDirectory::open(data, identity.cluster, shard);
        let pending = directory.and_then(|directory| directory.begin(LOADED_AT));
        let pending = pending.map_err(|error| error.to_string())?;
        let path = pending.state_path();
        let file = File::create(&path);
        let file = file.map_err(|error| format!("creating {}: {error}", path.display()))?;
        Ok(ShardPart { writer: SnapshotWriter::new(header), pending, file })
    }

    /// Writes what is ready.
    fn write(&mut self) -> io::Result<()> {
        while let Some(chunk) = self.writer.take_chunk() {
            self.file.write_all(&chunk).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> io::Error {
        io::Error::other(format!("writing {}: {error}", self.pending.state_path().display()))
    }

    fn finish(mut self) -> Result<(), String> {
        self.write().map_err(|error| error.to_string())?;
        let (last, meta) = self.writer.finish();
        let path = self.pending.state_path();
        let written = self.file.write_all(&last);
        written.map_err(|error| format!("writing {}: {error}", path.display()))?;
        self.pending.publish(&meta).map(drop).map_err(|error| error.to_string())
    }
}
