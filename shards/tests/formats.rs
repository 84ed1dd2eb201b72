//! `docs/formats.md` shows a batch byte by byte: it is this one.

use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::KeyHasher;

const SET: u16 = 1;
const INCR: u16 = 67;

#[test]
fn the_document_shows_this_batch() {
    let hasher = KeyHasher::new(42);
    let mut builder = BatchBuilder::default();
    for (command, database, words) in
        [(SET, 0, &["SET", "greeting", "hello"][..]), (INCR, 1, &["INCR", "n"][..])]
    {
        let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
        let first_key = hasher.hash(words[1].as_bytes());
        builder.push(command, DatabaseIndex(database), first_key, owned.borrow());
    }
    let bytes = builder.encode(1_700_000_000_000, 0x0102_0304_0506_0708);
    let document = include_str!("../../docs/formats.md");
    let (_, chapter) = document.split_once("## Entries").expect("a chapter on entries");
    let (_, example) = chapter.split_once("### Example").expect("an example");
    let shown = example.split("```\n").nth(1).expect("a listing");
    let mut at = 0;
    for line in shown.lines() {
        let hex = line.split("  ").next().expect("bytes first");
        for byte in hex.split(' ') {
            assert_eq!(format!("{:02x}", bytes[at]), byte, "at {at}: {line}");
            at += 1;
        }
    }
    assert_eq!(at, bytes.len(), "the example shows all");
}
