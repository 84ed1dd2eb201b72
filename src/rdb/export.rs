//! `ringraft rdb export`: an RDB file of all shards as they were at one moment.
//!
//! The server takes snapshots of all shards at one moment (RAFTMOMENT); the file is made from them,
//! while the server goes on. A stopped server is started for it, as nobody else's.

use super::Progress;
use crate::client::{Answer, Client, Target};
use crate::core::commands::info::REDIS_VERSION;
use crate::limits::PRINT_BUFFER_BYTES;
use crate::node::run::{Node, random_digits};
use crate::node::{self, Refusal};
use crate::settings::Settings;
use ringraft_shards::ids::{DatabaseIndex, Deadline};
use ringraft_shards::keyspace::{Expiry, Key, KeyHasher, Keyspace, Libraries};
use ringraft_shards::rdb::file::{Flavor, RdbWriter, elements_of, head_of};
use ringraft_shards::rdb::{ItemRecord, Piece, is_plain, is_timed, write_plain};
use ringraft_shards::snapshot::transfer::SnapshotFile;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a moment is asked for, when something stands in its way.
const MOMENT_TRIES: u32 = 600;
/// How long writes are held back for it at most, milliseconds.
const MOMENT_MS: u64 = 100;
/// Between two tries.
const MOMENT_WAIT: Duration = Duration::from_millis(100);
/// Between two looks at what the server does.
const POLL: Duration = Duration::from_millis(20);

/// What to export, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Whose data.
    pub source: Source,
    /// The file to write.
    pub out: PathBuf,
    /// For which servers, if there are hashes with deadlines of fields.
    pub timed: Flavor,
}

/// Whose data is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A running server's, on this machine.
    Server(Target),
    /// A stopped one's.
    Directory(PathBuf),
}

/// Writes the file. `tell` hears how far it is. Returns what was done.
/// Errors: one line; the file is then as it was.
pub fn run(export: &Export, now_ms: u64, tell: &dyn Fn(&str)) -> Result<String, String> {
    match &export.source {
        Source::Server(target) => {
            let snapshots = snapshots(target)?;
            write(export, &snapshots, now_ms, tell)
        }
        Source::Directory(directory) => {
            let (node, target) = start(directory, now_ms).map_err(|refusal| refusal.text)?;
            let stop = node.stopper();
            let written = snapshots(&target).and_then(|found| write(export, &found, now_ms, tell));
            stop();
            node.wait().map_err(|refusal| refusal.text)?;
            written
        }
    }
}

/// Starts the server of a directory on a port and with a password that nobody knows.
fn start(directory: &Path, now_ms: u64) -> Result<(Node, Target), Refusal> {
    if !directory.join("cluster.json").is_file() {
        let text = format!("{} is no data directory of ringraft", directory.display());
        return Err(Refusal::failure(text));
    }
    let failed = |error: io::Error| Refusal::failure(format!("cannot find a free port: {error}"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let port = free.local_addr().map_err(failed)?.port();
    drop(free);
    let password = random_digits()?;
    let mut settings = Settings::default();
    settings.dir = directory.to_path_buf();
    settings.port = port;
    settings.requirepass = password.clone();
    settings.settle();
    let plan = node::prepare(settings, now_ms)?;
    let node = Node::start(&plan, Instant::now())?;
    let host = "127.0.0.1".to_string();
    Ok((node, Target { host, port, password, ..Target::default() }))
}

/// Has the server take snapshots of one moment and opens them.
fn snapshots(target: &Target) -> Result<Vec<SnapshotFile>, String> {
    let mut client = Client::connect(target)?;
    let directory = match client.say("CONFIG GET dir")? {
        Answer::Array(pair) => match pair.into_iter().nth(1) {
            Some(Answer::Bulk(path)) => PathBuf::from(String::from_utf8_lossy(&path).into_owned()),
            _ => return Err("the server does not say where its data is".into()),
        },
        _ => return Err("the server does not say where its data is".into()),
    };
    let names = moment(&mut client)?;
    let mut files = Vec::new();
    for name in names {
        let path = directory.join(&name);
        while !path.is_file() {
            let is_running = |info: &str| info.contains("rdb_bgsave_in_progress:1");
            let info = match client.say("INFO persistence")? {
                Answer::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
                _ => String::new(),
            };
            if !is_running(&info) && !path.is_file() {
                return Err(format!(
                    "{} did not come about: see the log of the server, and export on its machine",
                    path.display()
                ));
            }
            std::thread::sleep(POLL);
        }
        files.push(SnapshotFile::open(&path).map_err(|error| error.to_string())?);
    }
    Ok(files)
}

/// Asks for snapshots of one moment until there is one. Returns their names.
fn moment(client: &mut Client) -> Result<Vec<String>, String> {
    let mut in_the_way = String::new();
    for _ in 0..MOMENT_TRIES {
        in_the_way = client.say("RAFTMOMENT FREE").err().unwrap_or_default();
        if in_the_way.is_empty() {
            // Over by itself: another pause may be under way, which an end of this one would end.
            client.say(&format!("CLIENT PAUSE {MOMENT_MS} WRITE"))?;
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(MOMENT_MS) {
                let rest = client.say("RAFTMOMENT REST");
                match rest.and_then(|_| client.say("RAFTMOMENT TAKE")) {
                    Ok(Answer::Array(names)) => {
                        return Ok(names.into_iter().map(text_of).collect());
                    }
                    Ok(_) => return Err("a strange reply to RAFTMOMENT".into()),
                    Err(text) if text.contains("TRYAGAIN") => in_the_way = text,
                    Err(text) => return Err(text),
                }
            }
        } else if !in_the_way.contains("TRYAGAIN") {
            return Err(in_the_way);
        }
        std::thread::sleep(MOMENT_WAIT);
    }
    Err(format!("there was no moment to take: {in_the_way}"))
}

fn text_of(answer: Answer) -> String {
    match answer {
        Answer::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => String::new(),
    }
}

fn write(
    export: &Export,
    snapshots: &[SnapshotFile],
    now_ms: u64,
    tell: &dyn Fn(&str),
) -> Result<String, String> {
    let total: u64 = snapshots.iter().map(SnapshotFile::size).sum();
    let mut progress = Progress::new("checking", total, tell);
    let (mut has_timed, mut done, mut libraries) = (false, 0, Vec::new());
    for snapshot in snapshots {
        let found = each(snapshot, &mut done, &mut |done| progress.reached(done), &mut |record| {
            has_timed |= is_timed(&record.value);
            Ok(())
        })?;
        libraries.extend(found.iter().map(|(_, text)| text.to_vec()));
    }
    let flavor = if has_timed { export.timed } else { Flavor::Common };
    let beside = crate::files::beside(&export.out);
    let written = (|| {
        let failed = |error: io::Error| format!("writing {}: {error}", beside.display());
        let file = File::create(&beside).map_err(failed)?;
        let items = fill(export, snapshots, flavor, &libraries, file, now_ms, tell)
            .map_err(|text| format!("{text}; {} is as it was", export.out.display()))?;
        std::fs::rename(&beside, &export.out)
            .and_then(|()| crate::files::sync_folder_of(&export.out))
            .map_err(failed)?;
        Ok(format!("{items} items exported to {}", export.out.display()))
    })();
    if written.is_err() {
        // The error that matters is the one above.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn fill(
    export: &Export,
    snapshots: &[SnapshotFile],
    flavor: Flavor,
    libraries: &[Vec<u8>],
    file: File,
    now_ms: u64,
    tell: &dyn Fn(&str),
) -> Result<u64, String> {
    let total: u64 = snapshots.iter().map(SnapshotFile::size).sum();
    let mut progress = Progress::new("exporting", total, tell);
    let facts = [
        ("redis-ver", REDIS_VERSION.to_string()),
        ("redis-bits", "64".to_string()),
        ("ctime", (now_ms / 1000).to_string()),
        ("ringraft-ver", crate::options::VERSION.to_string()),
    ];
    let failed = |error: io::Error| format!("writing {}: {error}", export.out.display());
    let out = BufWriter::with_capacity(PRINT_BUFFER_BYTES, file);
    let mut writer = RdbWriter::new(out, flavor, &facts).map_err(failed)?;
    libraries.iter().try_for_each(|text| writer.library(text)).map_err(failed)?;
    let mut exporter = Exporter {
        writer,
        flavor,
        folder: crate::files::folder_of(&export.out),
        partial: HashMap::new(),
        scratch: Keyspace::new(KeyHasher::new(now_ms)),
    };
    let mut done = 0;
    for snapshot in snapshots {
        each(snapshot, &mut done, &mut |done| progress.reached(done), &mut |record| {
            exporter.take(record)
        })?;
    }
    let items = exporter.writer.items();
    let out = exporter.writer.finish().map_err(failed)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(items)
}

/// Hands out all items of a snapshot, some in pieces. Returns the libraries of functions that it
/// holds.
fn each(
    snapshot: &SnapshotFile,
    done: &mut u64,
    reached: &mut dyn FnMut(u64),
    take: &mut dyn FnMut(&ItemRecord<'_>) -> io::Result<()>,
) -> Result<Libraries, String> {
    let mut reader = snapshot.reader().map_err(|error| error.to_string())?;
    let failed = |error| snapshot.unreadable(error).to_string();
    while let Some(mut chunk) = reader.read_chunk().map_err(failed)? {
        while let Some(record) = chunk.next_item().map_err(failed)? {
            take(&record).map_err(|error| format!("writing the file: {error}"))?;
        }
        reached(*done + reader.offset());
    }
    *done += reader.size();
    Ok(reader.take_libraries())
}

/// An item of which more pieces are to come.
struct Partial {
    deadline: Option<Deadline>,
    total: u64,
    done: u64,
    /// What came of it; nothing when it is built in memory.
    spilled: Option<File>,
}

/// Puts the pieces of items together.
struct Exporter<W> {
    writer: RdbWriter<W>,
    flavor: Flavor,
    /// Where files without a name lie that hold the pieces of items meanwhile.
    folder: PathBuf,
    partial: HashMap<(DatabaseIndex, Vec<u8>), Partial>,
    /// Where streams are built, which are written as a whole.
    scratch: Keyspace,
}

impl<W: Write> Exporter<W> {
    fn take(&mut self, record: &ItemRecord<'_>) -> io::Result<()> {
        if record.piece == Piece::Whole && is_plain(&record.value) {
            let (flavor, value) = (self.flavor, &record.value);
            let head = head_of(value.type_byte(), flavor, value.count());
            return self.writer.item(
                record.database,
                record.deadline,
                &record.key,
                value.type_byte(),
                &mut |out| match value.string() {
                    // As it is, be it as a number.
                    Some(_) => out.write_all(value.bytes()),
                    None => {
                        out.write_all(&head)?;
                        out.write_all(&elements_of(value, flavor))
                    }
                },
            );
        }
        self.take_piece(record)
    }

    fn take_piece(&mut self, record: &ItemRecord<'_>) -> io::Result<()> {
        let place = (record.database, record.key.to_vec());
        let count = record.value.count();
        let mut partial = match self.partial.remove(&place) {
            Some(partial) => partial,
            None => {
                let total = match record.piece {
                    Piece::First(total) => total,
                    _ => count,
                };
                let spills = is_plain(&record.value);
                let spilled = if spills { Some(nameless(&self.folder)?) } else { None };
                Partial { deadline: record.deadline, total, done: 0, spilled }
            }
        };
        partial.done += count;
        match &mut partial.spilled {
            Some(file) => file.write_all(&elements_of(&record.value, self.flavor))?,
            None => self.build(record)?,
        }
        if partial.done < partial.total {
            self.partial.insert(place, partial);
            return Ok(());
        }
        match partial.spilled.take() {
            Some(file) => self.write_spilled(record, &partial, file),
            None => self.write_built(record, &partial),
        }
    }

    fn build(&mut self, record: &ItemRecord<'_>) -> io::Result<()> {
        let hash = self.scratch.hasher().hash(&record.key);
        let key = Key::new(&record.key, hash);
        let mut edit = self.scratch.edit(record.database, i64::MIN);
        let loaded = edit.load(&key, record.shape, Expiry::Never, &record.value, record.piece);
        loaded.map_err(io::Error::other)
    }

    fn write_built(&mut self, record: &ItemRecord<'_>, partial: &Partial) -> io::Result<()> {
        let hash = self.scratch.hasher().hash(&record.key);
        let key = Key::new(&record.key, hash);
        let mut bytes = Vec::new();
        {
            let view = self.scratch.view(record.database, i64::MIN);
            let item = view.peek(&key).expect("it was built");
            write_plain(&mut bytes, item.value());
        }
        self.scratch.edit(record.database, i64::MIN).remove(&key);
        while self.scratch.free_some(crate::limits::FREED_BUCKETS_PER_TURN) {}
        let (type_byte, value) = bytes.split_first().expect("a type stands first");
        let (database, key) = (record.database, &record.key);
        self.writer
            .item(database, partial.deadline, key, *type_byte, &mut |out| out.write_all(value))
    }

    fn write_spilled(
        &mut self,
        record: &ItemRecord<'_>,
        partial: &Partial,
        mut file: File,
    ) -> io::Result<()> {
        file.rewind()?;
        let type_byte = record.value.type_byte();
        let head = head_of(type_byte, self.flavor, partial.total);
        let (database, deadline) = (record.database, partial.deadline);
        self.writer.item(database, deadline, &record.key, type_byte, &mut |out| {
            out.write_all(&head)?;
            let mut buffer = vec![0; PRINT_BUFFER_BYTES];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => out.write_all(&buffer[..read])?,
                }
            }
        })
    }
}

/// A file that is gone when it is closed.
fn nameless(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder)
}
