//! What is done before it is proposed: whoever reads the entries has the same items, whatever was
//! undone in between and whoever wrote behind it.

use crate::core::client::answers::{Answers, Origin};
use crate::core::commands::table;
use crate::core::disk::snapshots::ShardSnapshots;
use crate::core::observe::stats::Stats;
use crate::core::shard::{LocalShard, Request, ShardTurn, run_operation};
use crate::resp::reply::{Protocol, Reply};
use crate::script::ground::{Draft, OwnItems};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::batch::Batch;
use ringraft_shards::ids::{DatabaseIndex, NodeId, ShardId};
use ringraft_shards::keyspace::{Key, KeyHasher, Keyspace};
use ringraft_shards::raft::{EntryKind, Group, GroupConfig, Output};
use ringraft_shards::random::Random;
use ringraft_shards::serve;
use ringraft_shards::slot::SLOT_COUNT;

const NOW_MS: i64 = 1_700_000_000_000;
const BYTES_MAX: usize = 10_000;
const DATABASE: DatabaseIndex = DatabaseIndex(0);

fn shard() -> LocalShard {
    let config = GroupConfig::new(NodeId(1), ShardId(0), vec![NodeId(1)]);
    let group = Group::open(config, None, None, 7).expect("a new group");
    let snapshots = ShardSnapshots::new(None, Vec::new(), NOW_MS);
    let keyspace = Keyspace::new(KeyHasher::new(1));
    let mut shard = LocalShard::new(ShardId(0), keyspace, group, snapshots, 0, 42);
    shard.string_bytes_max = BYTES_MAX;
    shard
}

/// The only member of a group, and somebody who reads what it has committed.
struct Scene {
    shard: LocalShard,
    reader: LocalShard,
    answers: Answers,
    stats: Stats,
    items: OwnItems,
    now_ms: i64,
}

impl Scene {
    fn new() -> Scene {
        let mut scene = Scene {
            shard: shard(),
            reader: shard(),
            answers: Answers::new(0, 1),
            stats: Stats::default(),
            items: OwnItems::of(0..SLOT_COUNT),
            now_ms: NOW_MS,
        };
        scene.settle();
        assert!(scene.shard.serves());
        scene
    }

    /// Everything that was gathered or done is committed, applied and read.
    fn settle(&mut self) {
        let mut output = Output::default();
        self.stats.now_ms = self.now_ms;
        loop {
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            serve::propose(&mut self.shard, self.now_ms, &mut turn);
            output.clear();
            self.shard.group.poll(&mut output);
            serve::polled(&mut self.shard, &output, &mut turn);
            for entry in &output.committed {
                serve::apply(&mut self.shard, entry, &mut turn);
                if entry.kind == EntryKind::Command {
                    let batch = Batch::read(&entry.data).expect("it was proposed");
                    self.reader.run_unasked(batch, turn.stats);
                }
            }
            if let Some(last) = output.committed.last() {
                self.shard.group.applied(last.index);
            }
            serve::settle(&mut self.shard, &mut output, &mut turn);
            if output.committed.is_empty() && !self.shard.may_propose() {
                return;
            }
        }
    }

    /// Does some commands beforehand; with `stays` unset nothing of them is to be left.
    fn do_beforehand(&mut self, commands: &[Vec<String>], seed: u64, stays: bool) {
        let server = &mut self.shard.server;
        if server.must_propose_beforehand(BYTES_MAX) {
            self.settle();
        }
        let server = &mut self.shard.server;
        assert!(server.may_do_beforehand(self.now_ms));
        let (conditions, batch) = server.begin_beforehand(self.now_ms, seed, BYTES_MAX);
        assert_eq!(conditions.time_ms, self.now_ms);
        self.items.draft = Some(Draft::new(batch, conditions.seed));
        for words in commands {
            let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
            let (command, arguments) =
                (table::resolve(owned.borrow()).expect("a row"), owned.borrow());
            let hasher = server.keyspace.hasher();
            for at in command.keys.positions(arguments) {
                let key = Key::new(arguments.at(at), hasher.hash(arguments.at(at)));
                self.items.undo.save(&server.keyspace.view(DATABASE, self.now_ms), &key);
            }
            let first = command.first_key(arguments, hasher);
            let seed = self.items.note(command.number, DATABASE, first, arguments, 0);
            let seed = seed.expect("it is short");
            let mut reply = Vec::new();
            let mut reply = Reply::new(&mut reply, Protocol::Resp2);
            let mut edit = server.keyspace.edit(DATABASE, conditions.time_ms);
            // A refusal is one for the reader, too.
            let _ =
                run_operation(&mut edit, command, first, arguments, seed, BYTES_MAX, &mut reply);
        }
        let draft = self.items.draft.take().expect("just put there");
        let batch = if stays {
            self.items.undo.clear();
            draft.into_batch()
        } else {
            self.items.undo.roll_back(&mut server.keyspace, self.now_ms);
            draft.into_batch_before()
        };
        server.end_beforehand(batch);
    }

    fn write(&mut self, words: &[String]) {
        let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
        let arguments = owned.borrow();
        let command = table::resolve(arguments).expect("a row");
        let first_key = command.first_key(arguments, self.shard.keyspace.hasher());
        let (origin, database) = (Origin::NOBODY, DATABASE);
        let request = Request { command, origin, database, first_key, arguments };
        assert!(self.shard.gather(&request, &mut self.stats));
    }
}

fn command(random: &mut Random) -> Vec<String> {
    let (n, m) = (random.below(5), random.below(100));
    let text = match random.below(12) {
        0 => format!("INCR s{n}"),
        1 => format!("APPEND s{n} {m}"),
        2 => format!("SETRANGE s{n} {} x", 9_900 + 2 * m),
        3 => format!("SADD t{n} {m} a{m} b{m}"),
        4 => format!("SPOP t{n} 2"),
        5 => format!("RPUSH l{n} {m} y"),
        6 => format!("LPOP l{n}"),
        7 => format!("XADD x{n} * f {m}"),
        8 => format!("ZADD z{n} {m} m{m}"),
        9 => format!("PEXPIRE t{n} {}", 1_000_000 + m),
        10 => format!("RENAME s{n} s{}", (n + 1) % 5),
        _ => format!("DEL z{n} l{n}"),
    };
    text.split(' ').map(str::to_string).collect()
}

#[test]
fn who_reads_the_entries_has_the_same_items() {
    for seed in 1..=8 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut scene = Scene::new();
        for turn in 0..200 {
            scene.now_ms += random.below(300) as i64;
            for _ in 0..random.below(5) {
                let count = 1 + random.below(6);
                let commands: Vec<_> = (0..count).map(|_| command(&mut random)).collect();
                scene.do_beforehand(&commands, random.bits(), random.below(4) > 0);
            }
            let done = scene.shard.has_beforehand();
            for _ in 0..random.below(3) {
                let words = command(&mut random);
                scene.write(&words);
                assert!(!scene.shard.may_do_beforehand(scene.now_ms), "it waits for its entry");
            }
            assert_eq!(scene.shard.has_beforehand(), done, "nobody waits in the same set");
            scene.settle();
            assert!(!scene.shard.has_beforehand() && scene.shard.is_quiet());
            let digests = [&scene.shard, &scene.reader].map(|shard| shard.keyspace.digest_all());
            assert_eq!(digests[0], digests[1], "turn {turn}");
        }
    }
}

#[test]
fn what_was_undone_leaves_no_entry() {
    let mut scene = Scene::new();
    let before = scene.shard.group.last_index();
    let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    scene.do_beforehand(&[words("SET a 1")], 5, false);
    assert!(!scene.shard.has_beforehand() && !scene.shard.has_gathered());
    scene.settle();
    assert_eq!(scene.shard.group.last_index(), before);
    assert!(!scene.shard.may_do_beforehand(NOW_MS - 3_600_000), "time turns back before");
    scene.do_beforehand(&[words("SET a 1")], 5, true);
    scene.do_beforehand(&[words("SET b 1")], 6, false);
    assert!(scene.shard.has_beforehand() && scene.shard.has_gathered() && !scene.shard.is_quiet());
    assert!(!scene.shard.must_propose_beforehand(BYTES_MAX));
    assert!(scene.shard.must_propose_beforehand(BYTES_MAX + 1), "their entry has one bound");
    scene.settle();
    assert_eq!(scene.shard.group.last_index().0, before.0 + 1);
    assert_eq!(scene.shard.applied_operations, 1);
}
