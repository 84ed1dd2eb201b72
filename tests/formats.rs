//! What `docs/formats.md` shows of the data directory is what the server reads.

use ringraft::core::commands::table;
use ringraft::node::directory::{Directory, Wanted};
use std::fs;

const DOCUMENT: &str = include_str!("../docs/formats.md");

#[test]
fn the_cluster_file_of_the_document_is_accepted() {
    let (_, chapter) = DOCUMENT.split_once("### cluster.json").expect("a chapter on it");
    let example = chapter.split("```\n").nth(1).expect("an example");
    let folder = tempfile::tempdir().expect("a scratch directory");
    fs::write(folder.path().join("cluster.json"), example).expect("it takes files");
    let directory =
        Directory::open(folder.path(), &Wanted { shards_default: 8, ..Wanted::default() }, 0)
            .expect("the checksum is right");
    let identity = directory.identity();
    assert_eq!(identity.cluster.to_string(), "00112233445566778899aabbccddeeff");
    assert_eq!((identity.node.0, identity.shard_count), (1, 2));
    assert_eq!((identity.key_hash_seed, identity.created_ms), (42, 1_700_000_000_000));
    assert!(!directory.is_new());
}

#[test]
fn the_commands_of_the_document_have_these_numbers() {
    for (number, name) in [(1, "set"), (67, "incr")] {
        assert_eq!(table::by_number(number).expect("a command").name, name);
    }
    for name in ["expire-keys", "evict-keys", "run-queued"] {
        assert!(table::internal(name).flags.internal);
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name}");
    }
}
