//! Which replica of a shard lies in a directory, and what becomes of one that cannot be read.
//!
//! A replica is the first of its node, and there is nothing more to say; or a later one, since the
//! node has lost what it had: then `shard-N/replica` has its generation. A replica that cannot be
//! read, or that has less than it has promised, is set aside (`shard-N.damaged-DATE`), and an empty
//! one takes its place, whose file says that it is lost: it is a member of no group, until the
//! cluster has said which one it is. What the old one has promised binds nobody, since it never
//! votes again. `companions` says how many other nodes had the shards when this one heard of it
//! last: without a majority of others nothing is set aside.

use crate::files;
use ringraft_shards::ids::{NodeId, ShardId};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const REPLICA_FILE: &str = "replica";
const COMPANIONS_FILE: &str = "companions";
const LOST: &str = "lost";

/// So many others are a majority, with the one that they lack: two of three.
const COMPANIONS_MIN: usize = 2;

/// The folder of a shard.
pub fn folder(data: &Path, shard: ShardId) -> PathBuf {
    data.join(format!("shard-{shard}"))
}

/// The member of the shard's group that the directory's replica is.
/// Errors: the file that says so cannot be read, or says nothing that can be.
pub fn member(data: &Path, shard: ShardId, node: NodeId) -> Result<NodeId, String> {
    let file = folder(data, shard).join(REPLICA_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(node),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    match (text.trim(), text.trim().parse::<u32>()) {
        (LOST, _) => Ok(node.lost_replica()),
        (_, Ok(generation)) if generation != u32::MAX => Ok(node.replica(generation)),
        // As good as lost, and safe: a cut file cannot name another replica, since its end is
        // written with it.
        _ => Ok(node.lost_replica()),
    }
}

/// The directory's replica is this one from now on.
/// Errors: that cannot be written.
pub fn note_member(data: &Path, shard: ShardId, member: NodeId) -> io::Result<()> {
    let text = format!("{}\n", member.generation());
    files::replace(&folder(data, shard).join(REPLICA_FILE), text.as_bytes())
}

/// Sets a shard's folder aside, if there is one, and puts an empty one in its place, whose replica
/// is lost. Returns where the old one is.
/// Errors: the directory cannot be written.
pub fn set_aside(data: &Path, shard: ShardId, now_ms: i64) -> io::Result<Option<PathBuf>> {
    let place = folder(data, shard);
    let aside = match place.try_exists()? {
        true => Some(free_name(&place, now_ms)?),
        false => None,
    };
    if let Some(aside) = &aside {
        fs::rename(&place, aside)?;
    }
    // Whole before it has its name: a folder without the file would be a first replica.
    let fresh = files::beside(&place);
    if fresh.try_exists()? {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    files::replace(&fresh.join(REPLICA_FILE), format!("{LOST}\n").as_bytes())?;
    fs::rename(&fresh, &place)?;
    files::sync_folder_of(&place)?;
    Ok(aside)
}

fn free_name(place: &Path, now_ms: i64) -> io::Result<PathBuf> {
    let date = date(now_ms.max(0) as u64 / 1000);
    let mut count = 0;
    loop {
        let more = if count == 0 { String::new() } else { format!("-{count}") };
        let mut name = place.as_os_str().to_os_string();
        name.push(format!(".damaged-{date}{more}"));
        let name = PathBuf::from(name);
        if !name.try_exists()? {
            return Ok(name);
        }
        count += 1;
    }
}

/// `20261128-173957`, UTC.
fn date(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = crate::dates::utc(seconds);
    format!("{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Writes down how many other nodes have the shards.
/// Errors: the directory cannot be written.
pub fn note_companions(data: &Path, count: usize) -> io::Result<()> {
    files::replace(&data.join(COMPANIONS_FILE), format!("{count}\n").as_bytes())
}

/// Had other nodes the shards, so that a majority is left when this one has lost what it had?
pub fn has_companions(data: &Path) -> bool {
    let text = fs::read_to_string(data.join(COMPANIONS_FILE));
    let count = text.ok().and_then(|text| text.trim().parse::<usize>().ok());
    count.is_some_and(|count| count >= COMPANIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);
    const NODE: NodeId = NodeId(2);

    #[test]
    fn a_replica_is_the_first_or_lost_or_one_that_was_named() {
        let data = tempfile::tempdir().expect("a scratch directory");
        let is = || member(data.path(), SHARD, NODE).expect("readable");
        assert_eq!(is(), NODE);
        fs::create_dir(folder(data.path(), SHARD)).expect("ours");
        assert_eq!(is(), NODE);
        let first = set_aside(data.path(), SHARD, 1_795_887_597_000).expect("ours");
        let name = first.expect("it was there");
        assert!(name.ends_with("shard-3.damaged-20261128-173957"), "{}", name.display());
        assert_eq!(is(), NODE.lost_replica());
        note_member(data.path(), SHARD, NODE.replica(77)).expect("ours");
        assert_eq!(is(), NODE.replica(77));
        let again = set_aside(data.path(), SHARD, 1_795_887_597_000).expect("ours");
        assert!(again.expect("it was there").ends_with("shard-3.damaged-20261128-173957-1"));
        assert_eq!(is(), NODE.lost_replica());
        fs::remove_dir_all(folder(data.path(), SHARD)).expect("ours");
        assert_eq!(set_aside(data.path(), SHARD, 0).expect("ours"), None);
        assert_eq!(is(), NODE.lost_replica());
        fs::write(folder(data.path(), SHARD).join(REPLICA_FILE), "garbage").expect("ours");
        assert_eq!(is(), NODE.lost_replica());
    }

    #[test]
    fn two_others_are_a_majority() {
        let data = tempfile::tempdir().expect("a scratch directory");
        assert!(!has_companions(data.path()));
        for (count, expected) in [(0, false), (1, false), (2, true), (4, true)] {
            note_companions(data.path(), count).expect("ours");
            assert_eq!(has_companions(data.path()), expected);
        }
    }
}
