//! Writes the seeds of every target to `corpus/<target>/` below the directory given, or here.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let root = std::env::args_os().nth(1).map_or(PathBuf::from("corpus"), PathBuf::from);
    for (name, _, seeds) in ringraft_fuzz::TARGETS {
        let directory = root.join(name);
        std::fs::create_dir_all(&directory)?;
        for (n, seed) in seeds().into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{n:03}")), seed)?;
        }
    }
    Ok(())
}
