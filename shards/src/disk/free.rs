//! How much room a file system has left.

#![allow(unsafe_code)] // statvfs has no safe interface in std.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that are free for this user on the file system of `path`. Quotas are not counted.
/// Errors: the path is not there, or the file system does not answer.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name ends in a zero byte, and the result is read only when the call has filled
    // it.
    let stat = unsafe {
        if libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_a_missing_one_is_an_error() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        assert!(free_bytes(scratch.path()).expect("it is there") > 0);
        assert!(free_bytes(&scratch.path().join("missing")).is_err());
        assert!(free_bytes(Path::new("a\0b")).is_err());
    }
}
