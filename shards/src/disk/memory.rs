//! A disk in memory that behaves as badly as real ones may.
//!
//! What was not synced is lost in a crash, sector by sector and by chance; a write in flight may be
//! torn; a test can flip bits, fill the disk and make the next operations fail. Writes of the log
//! are started and completed by the test, in any order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskError, DiskResult, FileInfo};
use crate::random::Random;

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// One durable write that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteInFlight(u64);

/// A directory in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Files by number, so that a name can move while its content stays.
    files: BTreeMap<u64, Content>,
    /// Names as a process sees them.
    names: BTreeMap<String, u64>,
    /// Names after a crash, before the changes below.
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of the directory. A crash keeps a first part of them.
    name_changes: Vec<BTreeMap<String, u64>>,
    in_flight: BTreeMap<u64, (u64, u64, Vec<u8>)>,
    next_number: u64,
    /// Bytes that all files together may have.
    capacity_bytes: Option<u64>,
    /// Operations that will fail: the verb, and how many of them succeed before.
    failure: Option<(&'static str, usize)>,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Ranges in which `now` may differ from `durable`.
    dirty: Vec<Range<usize>>,
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
    }

    fn persist(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[offset..end].copy_from_slice(bytes);
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Begins a write that will be durable when it completes (the log's O_DSYNC write).
    pub fn start_write(&self, name: &str, offset: u64, bytes: &[u8]) -> DiskResult<WriteInFlight> {
        let mut state = self.lock();
        state.check("write", name)?;
        let file = state.number(name, "write")?;
        state.next_number += 1;
        let id = state.next_number;
        state.in_flight.insert(id, (file, offset, bytes.to_vec()));
        Ok(WriteInFlight(id))
    }

    /// Ends a write: its bytes are durable.
    pub fn complete_write(&self, write: WriteInFlight) {
        let mut state = self.lock();
        let (file, offset, bytes) = state.in_flight.remove(&write.0).expect("it is in flight");
        // The file may have been removed meanwhile; then there is nothing left to write to.
        if let Some(content) = state.files.get_mut(&file) {
            content.write(offset as usize, &bytes);
            content.persist(offset as usize, &bytes);
        }
    }

    /// A write fails: each of its sectors is, by chance, old or new, and durable either way.
    pub fn fail_write(&self, write: WriteInFlight, chance: &mut Random) {
        let mut state = self.lock();
        let (file, offset, bytes) = state.in_flight.remove(&write.0).expect("it is in flight");
        let Some(content) = state.files.get_mut(&file) else { return };
        for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if chance.below(2) == 0 {
                content.write(offset as usize + i * SECTOR_BYTES, sector);
                content.persist(offset as usize + i * SECTOR_BYTES, sector);
            }
        }
    }

    /// The machine loses power: every sector that was not durable is, by chance, old or new, and a
    /// first part of the unsynced changes of names survives.
    pub fn crash(&self, chance: &mut Random) {
        let mut state = self.lock();
        let in_flight = std::mem::take(&mut state.in_flight);
        for (file, offset, bytes) in in_flight.into_values() {
            if let Some(content) = state.files.get_mut(&file) {
                let start = offset as usize;
                for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if chance.below(2) == 0 {
                        content.persist(start + i * SECTOR_BYTES, sector);
                    }
                }
            }
        }
        for content in state.files.values_mut() {
            for range in std::mem::take(&mut content.dirty) {
                let mut at = range.start;
                while at < range.end {
                    let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(range.end);
                    if chance.below(2) == 0 {
                        let bytes = content.now[at..end].to_vec();
                        content.persist(at, &bytes);
                    }
                    at = end;
                }
            }
            content.now = content.durable.clone();
        }
        let kept = chance.below(state.name_changes.len() as u64 + 1) as usize;
        if kept > 0 {
            state.durable_names = state.name_changes[kept - 1].clone();
        }
        state.name_changes.clear();
        state.names = state.durable_names.clone();
        state.failure = None;
        state.drop_nameless();
    }

    /// The process dies and the machine lives: what was handed to the system stays, and each write
    /// in flight ends.
    pub fn kill(&self) {
        let pending: Vec<u64> = self.lock().in_flight.keys().copied().collect();
        for id in pending {
            self.complete_write(WriteInFlight(id));
        }
        self.lock().failure = None;
    }

    /// Exchanges the bits of `mask` in one byte of a file, at once and durably.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) {
        let mut state = self.lock();
        let file = state.number(name, "flip").expect("the test names a file that is there");
        let content = state.files.get_mut(&file).expect("names lead to files");
        let byte = content.now[offset as usize] ^ mask;
        content.write(offset as usize, &[byte]);
        content.persist(offset as usize, &[byte]);
    }

    /// All bytes of a file.
    pub fn read_all(&self, name: &str) -> Vec<u8> {
        let state = self.lock();
        let file = state.number(name, "read").expect("the test names a file that is there");
        state.files[&file].now.clone()
    }

    /// A copy that shares nothing with this disk.
    pub fn copy(&self) -> MemoryDisk {
        let state = self.lock();
        let state = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            in_flight: state.in_flight.clone(),
            next_number: state.next_number,
            capacity_bytes: state.capacity_bytes,
            failure: state.failure,
        };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Bytes that all files together have.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used()
    }

    /// From now on all files together may have this many bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Makes an operation (`write`, `sync`, `create`, `rename`, ...) fail once, after `successes`
    /// more of them.
    pub fn fail(&self, operation: &'static str, successes: usize) {
        self.lock().failure = Some((operation, successes));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the disk")
    }
}

impl State {
    fn error(&self, operation: &'static str, name: &str, source: io::Error) -> DiskError {
        DiskError { operation, file: format!("memory/{name}"), source }
    }

    fn check(&mut self, operation: &'static str, name: &str) -> DiskResult<()> {
        match &mut self.failure {
            Some((failing, 0)) if *failing == operation => {
                self.failure = None;
                Err(self.error(operation, name, io::Error::from_raw_os_error(libc::EIO)))
            }
            Some((failing, left)) if *failing == operation => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn number(&self, name: &str, operation: &'static str) -> DiskResult<u64> {
        let number = self.names.get(name).copied();
        number.ok_or_else(|| self.error(operation, name, io::ErrorKind::NotFound.into()))
    }

    fn change_names(&mut self, change: impl FnOnce(&mut BTreeMap<String, u64>)) {
        change(&mut self.names);
        self.name_changes.push(self.names.clone());
    }

    fn drop_nameless(&mut self) {
        let State { files, names, durable_names, name_changes, .. } = self;
        files.retain(|number, _| {
            std::iter::once(&*names)
                .chain([&*durable_names])
                .chain(name_changes.iter())
                .any(|names| names.values().any(|named| named == number))
        });
    }

    fn used(&self) -> u64 {
        self.names.values().map(|number| self.files[number].now.len() as u64).sum()
    }
}

impl Disk for MemoryDisk {
    fn place(&self) -> String {
        "memory".into()
    }

    fn list(&self) -> DiskResult<Vec<FileInfo>> {
        let state = self.lock();
        let file = |(name, number): (&String, &u64)| FileInfo {
            name: name.clone(),
            bytes: state.files[number].now.len() as u64,
        };
        Ok(state.names.iter().map(file).collect())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("read", name)?;
        let file = state.number(name, "read")?;
        let range = offset as usize..offset as usize + buffer.len();
        match state.files[&file].now.get(range) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(state.error("read", name, io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("write", name)?;
        let file = state.number(name, "write")?;
        let content = state.files.get_mut(&file).expect("names lead to files");
        content.write(offset as usize, bytes);
        content.dirty.push(offset as usize..offset as usize + bytes.len());
        Ok(())
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("create", name)?;
        if state.capacity_bytes.is_some_and(|capacity| state.used() + bytes > capacity) {
            return Err(state.error("create", name, io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        state.next_number += 1;
        let number = state.next_number;
        let zeros = vec![0; bytes as usize];
        let content =
            Content { now: zeros, durable: Vec::new(), dirty: vec![0..bytes as usize; 1] };
        state.files.insert(number, content);
        state.change_names(|names| {
            names.insert(name.to_string(), number);
        });
        Ok(())
    }

    fn sync(&self, name: &str) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("sync", name)?;
        let file = state.number(name, "sync")?;
        let content = state.files.get_mut(&file).expect("names lead to files");
        for range in std::mem::take(&mut content.dirty) {
            let bytes = content.now[range.clone()].to_vec();
            content.persist(range.start, &bytes);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("rename", from)?;
        let number = state.number(from, "rename")?;
        state.change_names(|names| {
            names.remove(from);
            names.insert(to.to_string(), number);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("remove", name)?;
        state.number(name, "remove")?;
        state.change_names(|names| {
            names.remove(name);
        });
        Ok(())
    }

    fn sync_directory(&self) -> DiskResult<()> {
        let mut state = self.lock();
        state.check("sync directory", "")?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        state.drop_nameless();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_only_sectors_of_the_rest() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..50 {
            let disk = MemoryDisk::new();
            disk.create_zeroed("a", 2048).expect("room");
            disk.write_at("a", 0, &[1; 512]).expect("written");
            disk.sync("a").expect("synced");
            disk.sync_directory().expect("synced");
            disk.write_at("a", 512, &[2; 1024]).expect("written");
            let done = disk.start_write("a", 1536, &[3; 256]).expect("started");
            disk.complete_write(done);
            disk.rename("a", "b").expect("renamed");
            disk.crash(&mut Random::new(seed));
            let name = disk.list().expect("listed")[0].name.clone();
            let bytes = disk.read_all(&name);
            assert_eq!(bytes[..512], [1; 512], "seed {seed}");
            assert_eq!(bytes[1536..1792], [3; 256], "seed {seed}");
            for sector in bytes[512..1536].chunks(512) {
                match sector[0] {
                    0 => old += 1,
                    _ => new += 1,
                }
                assert!(sector.iter().all(|&byte| byte == sector[0]), "seed {seed}");
            }
        }
        assert!(old > 20 && new > 20);
    }

    #[test]
    fn room_ends_and_operations_fail_when_asked() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(1000));
        disk.create_zeroed("a", 600).expect("room");
        assert!(disk.create_zeroed("b", 600).expect_err("no room").is_full());
        disk.fail("sync", 1);
        disk.sync("a").expect("the first succeeds");
        assert!(!disk.sync("a").expect_err("the second fails").is_full());
        disk.sync("a").expect("only once");
        disk.kill();
        assert_eq!(disk.copy().read_all("a").len(), 600);
    }
}
