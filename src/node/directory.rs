//! The data directory of a `store` node: who uses it, and which cluster it belongs to.
//!
//! `lock` holds the process id of its user and is locked (flock) as long as that process lives,
//! whatever becomes of it. `cluster.json` says what was decided when the directory was created and
//! can never change: identities, the count of shards, the seed of the key hash. It is written once,
//! atomically, and carries a checksum. A first start writes it as `founding.json`
//! ([`Directory::begin_founding`]), and gives it its name when all shards serve and before a client
//! is let in ([`Directory::end_founding`]). A start that finds `founding.json` knows that nothing
//! was ever acknowledged: it begins anew. So a first start that is refused or killed decides
//! nothing. A `cache` node has an [`Identity`] but no directory: it touches no disk.

use super::Refusal;
use crate::core::disk::journal::journal_directory;
use crate::files;
use crate::settings::values::{Slots, Word};
use ringraft_shards::ids::{ClusterId, NodeId};
use ringraft_shards::slot::SlotScheme;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start waits for the lock of a process that is dead already.
const DYING_HOLDER_PATIENCE: Duration = Duration::from_secs(5);

/// The version of `cluster.json` and of the directory's layout that this program writes, and the
/// newest it reads. Since 2 it may hold journals, without which its logs may lack something.
pub const FORMAT: u32 = 2;

const CLUSTER_FILE: &str = "cluster.json";
const FOUNDING_FILE: &str = "founding.json";
const LOCK_FILE: &str = "lock";

/// What was decided when the cluster was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Count of shards.
    pub shard_count: u16,
    /// How keys are placed in slots.
    pub slot_scheme: SlotScheme,
    /// Seed of the hash of keys.
    pub key_hash_seed: u64,
    /// When, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// What a start wants a directory to be made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Count of shards, when it was asked for.
    pub shards: Option<u16>,
    /// Count of shards of a new cluster otherwise.
    pub shards_default: u16,
    /// How keys are placed in slots, when it was asked for.
    pub slots: Option<SlotScheme>,
}

impl Identity {
    /// A new cluster of one node.
    pub fn create(wanted: &Wanted, now_ms: u64) -> Identity {
        Identity {
            cluster: ClusterId(u128::from(random()) << 64 | u128::from(random())),
            node: NodeId(1),
            shard_count: wanted.shards.unwrap_or(wanted.shards_default),
            slot_scheme: wanted.slots.unwrap_or_default(),
            key_hash_seed: random(),
            created_ms: now_ms,
        }
    }
}

fn random() -> u64 {
    getrandom::u64().expect("the kernel has random numbers once it has booted")
}

/// A data directory in use by this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    identity: Identity,
    is_new: bool,
    /// Is `cluster.json` of an older format?
    is_older: bool,
    /// Held for its lock.
    _lock: File,
}

impl Directory {
    /// Opens the directory, or creates it as wanted, to be founded before anything is written to
    /// it. Errors: it cannot be written, is in use, damaged, newer than this program, of
    /// another shard count or with other slots.
    pub fn open(path: &Path, wanted: &Wanted, now_ms: u64) -> Result<Directory, Refusal> {
        let shown = path.display();
        let fails = |doing: &str, error: io::Error| unusable(path, doing, &error);
        fs::create_dir_all(path).map_err(|error| fails("create", error))?;
        let lock = lock(path)?;
        let cluster_file = path.join(CLUSTER_FILE);
        let ((identity, format), is_new) = match fs::read_to_string(&cluster_file) {
            Ok(text) => (read(&text, &cluster_file)?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                clear_unfounded(path).map_err(|error| fails("clear", error))?;
                if let Some(shard) = shard_folder(path).map_err(|error| fails("read", error))? {
                    return Err(missing(&cluster_file, &shard));
                }
                ((Identity::create(wanted, now_ms), FORMAT), true)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(&cluster_file, "it is not text"));
            }
            Err(error) => return Err(fails("read", error)),
        };
        if let Some(shards) = wanted.shards.filter(|shards| *shards != identity.shard_count) {
            return Err(Refusal::failure(format!(
                "directory {shown} was created with {} shards, --shards asks for {shards}: leave out --shards or use another \
                 directory with --dir",
                identity.shard_count
            )));
        }
        if let Some(slots) = wanted.slots.filter(|slots| *slots != identity.slot_scheme) {
            let word = |scheme| Slots::of_scheme(scheme).word();
            return Err(Refusal::failure(format!(
                "directory {shown} was created with --slots {}, --slots asks for {}: leave out --slots or use another \
                 directory with --dir",
                word(identity.slot_scheme),
                word(slots)
            )));
        }
        let is_older = format < FORMAT;
        Ok(Directory { path: path.into(), identity, is_new, is_older, _lock: lock })
    }

    /// The directory is for this node of a cluster that is there already.
    pub fn join(&mut self, identity: Identity) {
        assert!(self.is_new, "what a directory is for is decided once");
        self.identity = identity;
    }

    /// Writes down what a new directory is for, as far as this start goes; that an older one is of
    /// this program's format from now on. To be called before any shard writes to it.
    /// Errors: it cannot be written.
    pub fn begin_founding(&self) -> Result<(), Refusal> {
        let fails = |doing: &str, error: io::Error| unusable(&self.path, doing, &error);
        if self.is_older {
            files::replace(&self.path.join(CLUSTER_FILE), write(&self.identity).as_bytes())
                .map_err(|error| fails("write to", error))?;
        }
        if !self.is_new {
            return Ok(());
        }
        files::replace(&self.path.join(FOUNDING_FILE), write(&self.identity).as_bytes())
            .map_err(|error| fails("write to", error))?;
        let path = fs::canonicalize(&self.path).map_err(|error| fails("find", error))?;
        files::sync_folder_of(&path).map_err(|error| fails("write to", error))
    }

    /// Decides for good what a new directory is for. To be called when its shards serve, before
    /// anything is acknowledged. Errors: it cannot be written.
    pub fn end_founding(&self) -> Result<(), Refusal> {
        if !self.is_new {
            return Ok(());
        }
        let file = self.path.join(CLUSTER_FILE);
        fs::rename(self.path.join(FOUNDING_FILE), &file)
            .and_then(|()| files::sync_folder_of(&file))
            .map_err(|error| unusable(&self.path, "write to", &error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Was it created by this start?
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// The process id that the holder of the lock wrote; empty when it has not yet.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let first_line = text.lines().next().filter(|_| read.is_ok());
    first_line.unwrap_or_default().trim().to_string()
}

/// Is this process dead or about to be? A killed server holds its lock until the kernel has taken
/// down its rings, which a quick restart can outrun.
fn is_dying(process: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{process}/stat")) {
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat) => {
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
        }
        Err(_) => !process.is_empty(),
    }
}

/// Takes the directory for this process. Writing the process id also shows whether the disk takes
/// data.
fn lock(path: &Path) -> Result<File, Refusal> {
    let fails = |doing: &str, error: io::Error| unusable(path, doing, &error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path.join(LOCK_FILE)).map_err(|error| fails("write to", error))?;
    let give_up = Instant::now() + DYING_HOLDER_PATIENCE;
    match loop {
        let attempt = file.try_lock();
        let held = matches!(attempt, Err(TryLockError::WouldBlock));
        if !held || !is_dying(&holder(&mut file)) || Instant::now() > give_up {
            break attempt;
        }
        std::thread::yield_now();
    } {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = match holder(&mut file) {
                holder if holder.is_empty() => "another process".to_string(),
                holder => format!("process {holder}"),
            };
            return Err(Refusal::failure(format!(
                "directory {} is in use by {holder}: stop it or choose another directory with --dir",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(fails("lock", error)),
    }
    // In one place from start to start: on a full disk there may be no other.
    let mut record = || {
        file.rewind()?;
        let text = format!("{}\n", std::process::id());
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    };
    match record() {
        // What is there can be read all the same.
        Err(error) if is_full(&error) && path.join(CLUSTER_FILE).exists() => {
            tracing::warn!("the process id is not in {}: {error}", path.join(LOCK_FILE).display());
        }
        result => result.map_err(|error| fails("write to", error))?,
    }
    Ok(file)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a directory cannot be used, from an error of the system.
pub fn unusable(path: &Path, doing: &str, error: &io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give this user write permission or choose another with --dir"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable or choose another with --dir",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another disk with --dir"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way: remove it or choose another with --dir"
        }
        _ => "repair it or choose another with --dir",
    };
    Refusal::failure(format!("cannot {doing} directory {}: {error}: {remedy}", path.display()))
}

/// A shard's folder in this directory, if there is one: then it was founded before.
fn shard_folder(path: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-"));
        if number.is_some_and(|number| number.parse::<u16>().is_ok()) && entry.file_type()?.is_dir()
        {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Removes what a first start has left that did not get so far as to let a client in.
fn clear_unfounded(path: &Path) -> io::Result<()> {
    let founding = path.join(FOUNDING_FILE);
    if !founding.try_exists()? {
        return Ok(());
    }
    tracing::info!("a first start in {} did not come to its end: it begins anew", path.display());
    while let Some(folder) = shard_folder(path)? {
        fs::remove_dir_all(folder)?;
    }
    let journals = journal_directory(path);
    if journals.try_exists()? {
        fs::remove_dir_all(journals)?;
    }
    // Last: what is interrupted before goes on.
    files::sync_folder_of(&founding)?;
    fs::remove_file(&founding)?;
    files::sync_folder_of(&founding)
}

fn missing(file: &Path, shard: &Path) -> Refusal {
    Refusal::failure(format!(
        "{} is missing although {} is there: restore it from a backup, or move the directory away to start empty",
        file.display(),
        shard.display()
    ))
}

fn damaged(file: &Path, cause: &str) -> Refusal {
    Refusal::failure(format!(
        "{} is damaged ({cause}): restore it from a backup, or move the directory away to start empty",
        file.display()
    ))
}

/// `cluster.json`. Numbers of 64 bits and more are hexadecimal text: JSON readers round them.
#[derive(Serialize, Deserialize)]
struct ClusterFile {
    format: u32,
    cluster_id: String,
    node_id: u64,
    shard_count: u16,
    key_hash_seed: String,
    slot_scheme: String,
    created_ms: u64,
    /// CRC-32 of the fields above, each as text with a newline after it.
    crc32: String,
}

impl ClusterFile {
    fn checksum(&self) -> String {
        let fields = format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.format,
            self.cluster_id,
            self.node_id,
            self.shard_count,
            self.key_hash_seed,
            self.slot_scheme,
            self.created_ms
        );
        format!("{:08x}", crc32fast::hash(fields.as_bytes()))
    }
}

fn write(identity: &Identity) -> String {
    let mut file = ClusterFile {
        format: FORMAT,
        cluster_id: identity.cluster.to_string(),
        node_id: identity.node.0,
        shard_count: identity.shard_count,
        key_hash_seed: format!("{:016x}", identity.key_hash_seed),
        slot_scheme: identity.slot_scheme.name().to_string(),
        created_ms: identity.created_ms,
        crc32: String::new(),
    };
    file.crc32 = file.checksum();
    serde_json::to_string_pretty(&file).expect("plain fields become JSON") + "\n"
}

/// The identity, and the format of the file.
fn read(text: &str, place: &Path) -> Result<(Identity, u32), Refusal> {
    // The version comes first: a newer format may differ in everything else.
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| damaged(place, &error.to_string()))?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    let format = format.ok_or_else(|| damaged(place, "it has no format number"))?;
    if format > u64::from(FORMAT) {
        return Err(Refusal::failure(format!(
            "{} has format {format}, this ringraft reads formats up to {FORMAT}: use the newer ringraft that wrote it",
            place.display()
        )));
    }
    let file: ClusterFile =
        serde_json::from_value(value).map_err(|error| damaged(place, &error.to_string()))?;
    if file.crc32 != file.checksum() {
        return Err(damaged(place, "its checksum is wrong"));
    }
    let cluster = u128::from_str_radix(&file.cluster_id, 16);
    let seed = u64::from_str_radix(&file.key_hash_seed, 16);
    match (cluster, seed, SlotScheme::of_name(&file.slot_scheme)) {
        (Ok(cluster), Ok(key_hash_seed), Some(slot_scheme))
            if file.shard_count > 0 && file.node_id > 0 =>
        {
            let identity = Identity {
                cluster: ClusterId(cluster),
                node: NodeId(file.node_id),
                shard_count: file.shard_count,
                slot_scheme,
                key_hash_seed,
                created_ms: file.created_ms,
            };
            Ok((identity, file.format))
        }
        _ => Err(damaged(place, "a field has no sensible value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a scratch directory")
    }

    fn founded(path: &Path, shards: Option<u16>, shards_default: u16, now_ms: u64) -> Directory {
        let wanted = Wanted { shards, shards_default, slots: None };
        let directory = Directory::open(path, &wanted, now_ms).expect("opened");
        directory.begin_founding().expect("writable");
        directory.end_founding().expect("founded");
        directory
    }

    fn refusal(path: &Path, shards: Option<u16>) -> String {
        Directory::open(path, &Wanted { shards, shards_default: 2, slots: None }, 0)
            .expect_err("to be refused")
            .text
    }

    #[test]
    fn created_once_then_the_same() {
        let folder = scratch();
        let path = folder.path().join("deep/data");
        let first = founded(&path, None, 3, 1_700_000_000_000);
        assert!(first.is_new());
        let identity = first.identity().clone();
        assert_eq!((identity.shard_count, identity.created_ms), (3, 1_700_000_000_000));
        drop(first);
        let again =
            Directory::open(&path, &Wanted { shards: Some(3), shards_default: 8, slots: None }, 5)
                .expect("opened");
        assert!(!again.is_new());
        assert_eq!(*again.identity(), identity);
    }

    #[test]
    fn other_slots_are_refused_with_both_words() {
        let folder = scratch();
        let open = |slots| {
            let wanted = Wanted { shards: None, shards_default: 1, slots };
            Directory::open(folder.path(), &wanted, 0)
        };
        let first = open(Some(SlotScheme::Redis)).expect("created");
        first.begin_founding().and_then(|()| first.end_founding()).expect("writable");
        drop(first);
        let text = open(Some(SlotScheme::Codis)).expect_err("other slots").text;
        let expected = "was created with --slots redis, --slots asks for codis: leave out --slots";
        assert!(text.contains(expected), "{text}");
        let again = open(None).expect("as it is");
        assert_eq!(again.identity().slot_scheme, SlotScheme::Redis);
    }

    #[test]
    fn one_user_at_a_time() {
        let folder = scratch();
        let held = Directory::open(
            folder.path(),
            &Wanted { shards: None, shards_default: 1, slots: None },
            0,
        )
        .expect("created");
        let text = refusal(folder.path(), None);
        let expected = format!("is in use by process {}: stop it or choose", std::process::id());
        assert!(text.contains(&expected), "{text}");
        drop(held);
        assert!(
            Directory::open(
                folder.path(),
                &Wanted { shards: None, shards_default: 1, slots: None },
                0
            )
            .is_ok()
        );
    }

    #[test]
    fn another_shard_count_is_refused_with_both_numbers() {
        let folder = scratch();
        drop(founded(folder.path(), Some(4), 1, 0));
        let text = refusal(folder.path(), Some(5));
        assert!(
            text.contains("was created with 4 shards, --shards asks for 5: leave out"),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_decided_before_the_founding() {
        let folder = scratch();
        drop(
            Directory::open(
                folder.path(),
                &Wanted { shards: Some(4), shards_default: 1, slots: None },
                0,
            )
            .expect("opened"),
        );
        let directory = founded(folder.path(), Some(5), 1, 0);
        assert!(directory.is_new());
        assert_eq!(directory.identity().shard_count, 5);
    }

    #[test]
    fn a_missing_cluster_file_is_named() {
        let folder = scratch();
        drop(founded(folder.path(), Some(1), 1, 0));
        fs::create_dir(folder.path().join("shard-0")).expect("writable");
        fs::remove_file(folder.path().join(CLUSTER_FILE)).expect("there");
        let text = refusal(folder.path(), None);
        assert!(text.contains("cluster.json is missing although "), "{text}");
        assert!(text.contains("shard-0 is there: restore it"), "{text}");
        assert!(!folder.path().join(CLUSTER_FILE).exists());
    }

    #[test]
    fn foreign_files_are_left_alone() {
        let folder = scratch();
        fs::write(folder.path().join("notes.txt"), "mine").expect("writable");
        drop(
            Directory::open(
                folder.path(),
                &Wanted { shards: None, shards_default: 1, slots: None },
                0,
            )
            .expect("created"),
        );
        assert_eq!(fs::read(folder.path().join("notes.txt")).expect("there"), b"mine");
    }

    #[test]
    fn every_damaged_byte_is_refused() {
        let folder = scratch();
        drop(founded(folder.path(), Some(2), 1, 77));
        let path = folder.path().join(CLUSTER_FILE);
        let good = fs::read(&path).expect("there");
        let (identity, _) = read(std::str::from_utf8(&good).expect("text"), &path).expect("whole");
        for i in 0..good.len() - 1 {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[i] ^= 1 << bit;
                match std::str::from_utf8(&bad).map(|text| read(text, &path)) {
                    // Blanks between the fields mean nothing.
                    Ok(Ok((read, _))) => assert_eq!(read, identity, "byte {i} bit {bit}"),
                    Ok(Err(refusal)) => assert!(!refusal.text.contains('\n'), "{}", refusal.text),
                    Err(_) => {}
                }
            }
            assert!(
                read(std::str::from_utf8(&good[..i]).expect("text"), &path).is_err(),
                "cut at {i}"
            );
        }
        fs::write(&path, b"\xff\xfe").expect("writable");
        assert!(refusal(folder.path(), None).contains("is damaged (it is not text)"));
    }

    #[test]
    fn an_older_format_is_read_and_raised_before_a_shard_writes() {
        let folder = scratch();
        let path = folder.path().join(CLUSTER_FILE);
        let identity = Identity::create(&Wanted { shards: Some(3), ..Wanted::default() }, 5);
        let newest = write(&identity);
        let mut older: ClusterFile = serde_json::from_str(&newest).expect("just written");
        older.format = 1;
        older.crc32 = older.checksum();
        let older = serde_json::to_string_pretty(&older).expect("plain fields");
        fs::write(&path, &older).expect("writable");
        let open = || Directory::open(folder.path(), &Wanted::default(), 9).expect("read");
        let directory = open();
        assert_eq!((directory.identity(), directory.is_new()), (&identity, false));
        assert_eq!(fs::read_to_string(&path).expect("there"), older, "reading changes nothing");
        directory.begin_founding().expect("writable");
        assert_eq!(fs::read_to_string(&path).expect("there"), newest);
        drop(directory);
        assert_eq!(open().identity(), &identity);
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let folder = scratch();
        fs::write(folder.path().join(CLUSTER_FILE), "{\"format\": 7, \"new\": []}")
            .expect("writable");
        let text = refusal(folder.path(), None);
        assert!(
            text.contains("cluster.json has format 7, this ringraft reads formats up to 2"),
            "{text}"
        );
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = scratch();
        let path = folder.path().join("data");
        fs::write(&path, "").expect("writable");
        for path in [path.clone(), path.join("below")] {
            let text = refusal(&path, None);
            assert!(text.contains("a file is in the way"), "{text}");
        }
    }
}
