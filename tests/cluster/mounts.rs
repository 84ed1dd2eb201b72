//! File systems of a node's own, which a test can fill or freeze. Root makes them; a test says that
//! it was passed over where it cannot.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that is mounted on a directory, until it is dropped.
pub struct Mount {
    place: PathBuf,
    image: Option<PathBuf>,
}

/// A file system that takes no writes, until it is dropped.
pub struct Frozen<'a>(&'a Mount);

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

impl Mount {
    /// Memory of so many bytes. None, with the reason printed, where it cannot be had.
    pub fn memory(place: &Path, mib: u32) -> Option<Mount> {
        let size = format!("size={mib}m");
        let done = run("mount", &["-t", "tmpfs", "-o", &size, "ringraft-test", text(place)]);
        said(done).then(|| Mount { place: place.into(), image: None })
    }

    /// An ext4 of its own, in a file beside the directory. None, with the reason printed, where it
    /// cannot be had.
    pub fn ext4(place: &Path, mib: u64) -> Option<Mount> {
        let image = place.with_extension("image");
        let file = std::fs::File::create(&image).expect("a file beside the directory");
        file.set_len(mib << 20).expect("a sparse file");
        let made = run("mkfs.ext4", &["-q", "-F", text(&image)])
            .and_then(|()| run("mount", &["-o", "loop", text(&image), text(place)]));
        let mount = Mount { place: place.into(), image: Some(image.clone()) };
        if said(made) {
            return Some(mount);
        }
        let _ = std::fs::remove_file(image);
        std::mem::forget(mount);
        None
    }

    /// Every write waits from now on.
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["-f", text(&self.place)]).expect("it is ours");
        Frozen(self)
    }

    /// Memory is so many bytes from now on.
    pub fn resize(&self, mib: u32) {
        let options = format!("remount,size={mib}m");
        run("mount", &["-o", &options, text(&self.place)]).expect("it is ours");
    }
}

fn said(done: Result<(), String>) -> bool {
    if let Err(error) = &done {
        println!("passed over, as it needs root and mounts: {error}");
    }
    done.is_ok()
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", text(&self.0.place)]).expect("it was frozen");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The server is gone by then: mounts are made before clusters, and so dropped after them.
        if let Err(error) = run("umount", &["-l", text(&self.place)]) {
            eprintln!("{error}");
        }
        let _ = std::fs::remove_dir_all(&self.place);
        if let Some(image) = &self.image {
            let _ = std::fs::remove_file(image);
        }
    }
}
