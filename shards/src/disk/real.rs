//! Files of the operating system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{AlignedBuffer, BUFFER_ALIGNMENT, Disk, DiskError, DiskResult, FileInfo, free_bytes};
use crate::limits::{FREE_BYTES_LEFT_MIN, ZERO_FILL_CHUNK_BYTES};

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// The files of `directory`, which is created with its parents when it is not there.
    pub fn open(directory: &Path) -> DiskResult<RealDisk> {
        let disk = RealDisk { directory: directory.to_path_buf() };
        fs::create_dir_all(directory).map_err(|source| DiskError {
            operation: "create",
            file: directory.display().to_string(),
            source,
        })?;
        Ok(disk)
    }

    /// Path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn run<T>(
        &self,
        operation: &'static str,
        name: &str,
        work: impl FnOnce(&Path) -> io::Result<T>,
    ) -> DiskResult<T> {
        let path = self.path(name);
        work(&path).map_err(|source| DiskError {
            operation,
            file: path.display().to_string(),
            source,
        })
    }
}

impl Disk for RealDisk {
    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn list(&self) -> DiskResult<Vec<FileInfo>> {
        self.run("list", "", |path| {
            let mut files = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                    files.push(FileInfo { name, bytes: metadata.len() });
                }
            }
            Ok(files)
        })
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> DiskResult<()> {
        self.run("read", name, |path| File::open(path)?.read_exact_at(buffer, offset))
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.run("write", name, |path| {
            OpenOptions::new().write(true).open(path)?.write_all_at(bytes, offset)
        })
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> DiskResult<()> {
        self.run("create", name, |path| {
            // Not by trying: what is filled in vain lacks somebody else meanwhile.
            if free_bytes(&self.directory)? < bytes.saturating_add(FREE_BYTES_LEFT_MIN) {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            let file = open_to_fill(path, bytes)?;
            let mut zeros = AlignedBuffer::with_capacity(0);
            zeros.pad_with(ZERO_FILL_CHUNK_BYTES.min(bytes as usize));
            let zeros = zeros.as_slice();
            let mut offset = 0;
            while offset < bytes {
                let chunk = &zeros[..zeros.len().min((bytes - offset) as usize)];
                file.write_all_at(chunk, offset)?;
                offset += chunk.len() as u64;
            }
            Ok(())
        })
    }

    fn sync(&self, name: &str) -> DiskResult<()> {
        self.run("sync", name, |path| OpenOptions::new().write(true).open(path)?.sync_all())
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        self.run("rename", from, |path| fs::rename(path, self.path(to)))
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        self.run("remove", name, |path| fs::remove_file(path))
    }

    fn sync_directory(&self) -> DiskResult<()> {
        self.run("sync", "", |path| File::open(path)?.sync_all())
    }
}

/// Creates a file that is to be filled with `bytes` zeros: past the page cache where the length and
/// the file system allow it. Nobody reads them soon, and the copy costs a core more than the log's
/// own writes when many logs grow.
fn open_to_fill(path: &Path, bytes: u64) -> io::Result<File> {
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(flags).open(path)
    };
    if !bytes.is_multiple_of(BUFFER_ALIGNMENT as u64) {
        return open(0);
    }
    match open(libc::O_DIRECT) {
        // Some network file systems have no O_DIRECT.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let disk = RealDisk::open(&scratch.path().join("a/b")).expect("created");
        disk.create_zeroed("one", 3000).expect("created");
        disk.write_at("one", 10, b"hello").expect("written");
        disk.sync("one").expect("synced");
        let mut bytes = [1; 7];
        disk.read_at("one", 9, &mut bytes).expect("read");
        assert_eq!(&bytes, b"\0hello\0");
        disk.rename("one", "two").expect("renamed");
        disk.sync_directory().expect("synced");
        assert_eq!(disk.list().expect("listed"), [FileInfo { name: "two".into(), bytes: 3000 }]);
        let missing = disk.read_at("one", 0, &mut bytes).expect_err("gone");
        assert!(missing.to_string().starts_with("cannot read "), "{missing}");
        assert!(disk.read_at("two", 2999, &mut bytes).is_err(), "past the end");
        disk.remove("two").expect("removed");
        assert!(disk.list().expect("listed").is_empty());
    }

    #[test]
    fn files_of_every_length_are_filled_with_zeros() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let disk = RealDisk::open(scratch.path()).expect("created");
        let chunk = ZERO_FILL_CHUNK_BYTES as u64;
        for bytes in [0, 1, 4096, 4097, chunk, chunk + 4096, 3 * chunk - 1] {
            fs::write(disk.path("file"), vec![1; 2 * chunk as usize]).expect("written");
            disk.create_zeroed("file", bytes).expect("created");
            let content = fs::read(disk.path("file")).expect("read");
            assert_eq!(content.len() as u64, bytes);
            assert!(content.iter().all(|byte| *byte == 0), "{bytes} bytes");
        }
    }
}
