//! Which part of the server may use which: the directions of imports, so that what lies below never
//! learns of what is built on it.
//!
//! The engine (`shards`) and the load generator (`bench`) are crates of their own: the compiler
//! keeps those directions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the bottom up. A module uses those of its own layer and below.
const LAYERS: &[&[&str]] = &[
    // Single things: bounds, numbers, text, bits, the process itself.
    &["limits", "numbers", "dates", "bits", "glob", "geo", "files", "usage", "refusal"],
    // Bytes in and out.
    &["net", "resp", "client", "kvnode_state", "hyperloglog"],
    &["settings"],
    // What commands do with values.
    &["commands"],
    // Cores, and the commands that need one; scripts and users, which are asked for at every
    // request.
    &["core", "script", "acl"],
    // The process, and what is typed at a prompt.
    &["node", "options", "snapshot_print", "rdb", "tools"],
    &["main"],
];

/// Arrows that climb all the same, and why.
const CLIMBING: &[(&str, &str)] = &[
    // CONFIG SET changes bounds of the whole process (open files, the log's level).
    ("core", "node"),
];

/// Rooms of the core that know nothing of how requests are carried out: what of the core each of
/// them may use.
const QUIET_ROOMS: &[(&str, &[&str])] = &[
    ("observe", &["client", "commands", "gather", "turn"]),
    ("mail", &["client", "place", "push", "transact"]),
    ("disk", &["client", "cluster", "mail", "observe", "shard"]),
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder of sources")
        .map(|entry| entry.expect("readable").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let name = path.strip_prefix("src").expect("below src").with_extension("");
            found.push((name.to_string_lossy().into_owned(), text));
        }
    }
}

/// The words behind each `crate::` of a text that are modules: `core::client` for
/// `crate::core::client::...`.
fn used(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == ':'));
        let path = &rest[..end.unwrap_or(rest.len())];
        found.insert(path.trim_end_matches(':').to_string());
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn imports_go_downwards() {
    let mut all = Vec::new();
    sources(Path::new("src"), &mut all);
    let mut wrong = Vec::new();
    let mut climbed = BTreeSet::new();
    for (name, text) in &all {
        let own = name.split('/').next().expect("a name");
        if own == "lib" || name.ends_with("tests") {
            continue;
        }
        // What the tests in a file use builds on nothing.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let own_layer = layer(own).unwrap_or_else(|| panic!("{own} is in no layer: add it"));
        for path in used(text) {
            let other = path.split("::").next().expect("a word");
            let Some(other_layer) = layer(other) else { continue };
            if other_layer > own_layer {
                let arrow = CLIMBING.iter().find(|arrow| **arrow == (own, other));
                match arrow {
                    Some(arrow) => drop(climbed.insert(arrow)),
                    None => wrong.push(format!("src/{name}.rs uses {path}, which lies above it")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(climbed.len(), CLIMBING.len(), "an exception is not needed any more: {climbed:?}");
}

#[test]
fn quiet_rooms_use_only_what_they_need() {
    let mut all = Vec::new();
    sources(Path::new("src/core"), &mut all);
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in &all {
        let mut words = name.split('/').skip(1);
        let (Some(room), Some(_)) = (words.next(), words.next()) else { continue };
        for path in used(text) {
            let mut words = path.split("::");
            let (Some("core"), Some(other)) = (words.next(), words.next()) else { continue };
            if other != room && Path::new("src/core").join(other).is_dir() {
                rooms.entry(room.to_string()).or_default().insert(other.to_string());
            }
        }
    }
    for (room, may) in QUIET_ROOMS {
        let uses = rooms.remove(*room).unwrap_or_default();
        let may: BTreeSet<String> = may.iter().map(ToString::to_string).collect();
        assert_eq!(uses, may, "what src/core/{room} uses of the other rooms");
    }
}
