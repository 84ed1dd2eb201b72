//! The unix socket: a file by which clients of this machine connect.

use super::listener::until_released;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A bound unix socket. Its file goes when this is dropped, if it is still the same file.
#[derive(Debug)]
pub struct UnixSocket {
    path: PathBuf,
    socket: Socket,
    /// Device and number of the file.
    file: (u64, u64),
}

impl UnixSocket {
    /// Makes the file, with these permission bits unless they are 0. Until a core listens, who
    /// connects is refused. What a server that was killed has left there is removed; it is
    /// tried for a second whether somebody still listens there, since a killed server's sockets
    /// listen until its rings are torn down. Errors: somebody listens there, it is a file of
    /// another kind, the path is too long, its folder is missing or not writable.
    pub fn bind(path: &Path, mode: u32) -> io::Result<UnixSocket> {
        let address = SockAddr::unix(path)?;
        until_released(|| clear(path))?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&address)?;
        if mode != 0 {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        let file = fs::symlink_metadata(path)?;
        Ok(UnixSocket { path: path.into(), socket, file: (file.dev(), file.ino()) })
    }

    /// The same socket for one more core.
    /// Errors: no more descriptors.
    pub fn share(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_it = |file: fs::Metadata| (file.dev(), file.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_it) {
            // What cannot be removed is found by the next start, which tries again.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens at.
fn clear(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and is no socket"));
    }
    // Not blocking: a server that is stopped, with a full backlog, would hold up this one.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) => Err(in_use()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(in_use()),
        Err(error) => Err(error),
    }
}

fn in_use() -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_removed_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sock");
        let first = UnixSocket::bind(&path, 0o600).expect("nothing there");
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        first.socket.listen(1).expect("a socket that can listen");
        let error = UnixSocket::bind(&path, 0).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        // As after kill -9: the file stays, and nobody listens.
        let left = folder.path().join("left.sock");
        fs::rename(&path, &left).expect("the same folder");
        drop(first);
        assert!(left.exists(), "it was not at its path any more");
        drop(UnixSocket::bind(&left, 0).expect("nobody listens"));
        assert!(!left.exists(), "it goes with its owner");
    }

    #[test]
    fn other_files_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text");
        fs::write(&path, "text").expect("writable");
        let error = UnixSocket::bind(&path, 0).expect_err("no socket");
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "text");
        let long = folder.path().join("x".repeat(120));
        UnixSocket::bind(&long, 0).expect_err("longer than 107 bytes");
        UnixSocket::bind(&folder.path().join("no/x"), 0).expect_err("no such folder");
    }
}
