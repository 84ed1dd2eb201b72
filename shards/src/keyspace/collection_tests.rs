//! Collections among other items: random changes under cuts, compaction and expiry against a plain
//! map.

use super::model::{Bench, Chance};
use super::*;
use crate::ids::Deadline;
use crate::rdb::{EncodedValue, Fault, Piece};
use crate::snapshot::SnapshotWriter;
use crate::value::body::Stored;
use crate::value::list::End;
use crate::value::stream::{Pending, StreamId, StreamPart, Trim, TrimTo};
use crate::value::{Form, Part, ValueType};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// All parts of an item's value as text, and its deadline.
fn text(item: &Item<'_>) -> (Vec<String>, Option<Deadline>) {
    let mut parts = vec![];
    item.value().visit(0, &mut |part| {
        parts.push(match part {
            Part::String(one) | Part::Element(one) | Part::Member(one) => {
                String::from_utf8_lossy(one).into_owned()
            }
            Part::TimedField(one, other, at) => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                format!("{}={} until {at}", text(one), text(other))
            }
            Part::Field(one, other) => {
                format!("{}={}", String::from_utf8_lossy(one), String::from_utf8_lossy(other))
            }
            Part::Scored(one, score) => format!("{}:{score}", String::from_utf8_lossy(one)),
            Part::Stream(StreamPart::Block(block)) => {
                let entries = block.entries().map(|entry| {
                    let pairs: Vec<_> = entry.pairs().collect();
                    format!("{:?} {pairs:?}", entry.id)
                });
                entries.collect::<Vec<_>>().join(", ")
            }
            Part::Stream(part) => format!("{part:?}"),
        });
        ControlFlow::Continue(())
    });
    (parts, item.deadline())
}

type Contents = BTreeMap<(u8, Vec<u8>), (Vec<String>, Option<Deadline>)>;

/// Every key of the first databases, with its parts.
fn contents(keyspace: &Keyspace) -> Contents {
    let mut contents = BTreeMap::new();
    for database in 0..2 {
        let view = keyspace.view(DatabaseIndex(database), 0);
        let rest = view.scan(ScanPosition::default(), usize::MAX, &mut |item| {
            contents.insert((database, item.key().to_vec()), text(&item));
        });
        assert!(rest.is_none());
    }
    contents
}

/// One random change of a random key.
fn change(keyspace: &mut Keyspace, chance: &mut Chance, now_ms: i64) {
    let hasher = keyspace.hasher();
    let name = |chance: &mut Chance| format!("key:{}", chance.below(40));
    let (from, to) = (name(chance), name(chance));
    let from = Key::new(from.as_bytes(), hasher.hash(from.as_bytes()));
    let to = Key::new(to.as_bytes(), hasher.hash(to.as_bytes()));
    let database = DatabaseIndex(chance.below(2) as u8);
    let element = format!("element:{}", chance.below(500)).into_bytes();
    let mut edit = keyspace.edit(database, now_ms);
    match chance.below(28) {
        0..4 => {
            if let Ok(mut list) = edit.list_mut(&from) {
                for _ in 0..chance.below(20) {
                    list.push(if chance.below(2) == 0 { End::Front } else { End::Back }, &element);
                }
            }
        }
        4..8 => {
            if let Ok(mut set) = edit.set_mut(&from) {
                for n in 0..chance.below(20) {
                    set.add(&[&element[..], n.to_string().as_bytes()].concat());
                }
            }
        }
        8..12 => {
            if let Ok(mut hash) = edit.hash_mut(&from) {
                for n in 0..chance.below(20) {
                    hash.set(&[&element[..], n.to_string().as_bytes()].concat(), &element);
                }
            }
        }
        12..16 => {
            if let Ok(mut set) = edit.sorted_set_mut(&from) {
                for n in 0..chance.below(20) {
                    set.set(&[&element[..], n.to_string().as_bytes()].concat(), n as f64);
                }
            }
        }
        16 => {
            if let Ok(mut list) = edit.list_mut(&from) {
                list.remove(0, chance.below(200));
            }
        }
        17 => {
            if let Ok(mut set) = edit.set_mut(&from) {
                set.remove_at(0, chance.below(200));
            }
        }
        18 => {
            edit.rename(&from, DatabaseIndex(chance.below(2) as u8), &to);
        }
        19 => {
            edit.copy(&from, DatabaseIndex(chance.below(2) as u8), &to);
        }
        20 => {
            edit.set_deadline(&from, Some(Deadline(now_ms + 1 + chance.below(50) as i64)));
        }
        21 => {
            edit.set_deadline(&from, None);
        }
        22 => edit.set_string(&from, &element, StringForm::Automatic, Expiry::Never),
        23..27 => change_stream(&mut edit, chance, &from, &element),
        _ => {
            if chance.below(30) == 0 {
                edit.clear();
            } else {
                edit.remove(&from);
            }
        }
    }
}

/// Some random changes of a stream, its groups included.
fn change_stream(edit: &mut Edit<'_>, chance: &mut Chance, key: &Key<'_>, element: &[u8]) {
    let group = [b'a' + chance.below(3) as u8];
    let consumer = &element[..8 + chance.below(2) as usize];
    let Ok(mut stream) = edit.stream_mut(key) else { return };
    for _ in 0..chance.below(30) {
        let last = stream.stream().last_id();
        let id = StreamId { ms: last.ms + chance.below(2), sequence: last.sequence + 1 };
        stream.append(id, [(&b"name"[..], element), (consumer, b"")].into_iter());
    }
    let last = stream.stream().last_id();
    stream.add_group(&group, StreamId::MIN, None);
    match chance.below(6) {
        0 => {
            let to = TrimTo::Count(chance.below(40));
            stream.trim(Trim { to, whole_blocks: chance.below(2) == 0, limit: 0 });
        }
        1 => {
            stream.remove_group(&group);
        }
        2 => {
            let first = stream.stream().first().map(|first| first.id);
            first.map(|first| stream.delete(first));
        }
        3 => {
            let mut group = stream.group_mut(&group).expect("just made");
            group.remove_consumer(consumer);
        }
        _ => {
            let mut group = stream.group_mut(&group).expect("just made");
            group.add_consumer(consumer, 5, None);
            for sequence in 0..chance.below(100) {
                let id = StreamId { sequence, ..last };
                group.give(Pending { id, consumer, delivered_ms: 7, count: 1 });
            }
            group.take(StreamId { sequence: chance.below(100), ..last });
        }
    }
}

/// Cuts, freeing and compaction go on at all times; what a cut gives is the moment when it began,
/// and in the end all memory is free.
#[test]
fn cuts_see_their_moment_and_all_memory_returns() {
    for seed in 0..if cfg!(miri) { 1 } else { 6 } {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let mut bench = Bench::new();
        let keyspace = &mut bench.keyspace;
        keyspace.set_limits(Limits { hash_entries: 40, list_size: 50, ..Limits::default() });
        let mut cut: Option<(Contents, Contents)> = None;
        let mut finished = 0;
        for step in 0..if cfg!(miri) { 150 } else { 6000 } {
            let now_ms = step / 10;
            change(keyspace, &mut chance, now_ms);
            if chance.below(20) == 0 && !keyspace.begin_compaction(1) {
                keyspace.compaction_step(usize::MAX);
            }
            keyspace.compaction_step(chance.below(10) as usize);
            keyspace.free_some(chance.below(3) as usize);
            if cut.is_none() && keyspace.begin_cut() {
                cut = Some((contents(keyspace), BTreeMap::new()));
            }
            let Some((expected, mut given)) = cut.take() else { continue };
            let mut pieces = Chance(chance.bits());
            let done = keyspace.cut_step(1, &mut |database, item, from| {
                let all = text(&item);
                let here = all.0.len() as u64 - from;
                let taken = if pieces.below(3) == 0 { here } else { pieces.below(here + 1) };
                let place = (database.0, item.key().to_vec());
                let before: &mut (Vec<String>, _) =
                    given.entry(place).or_insert_with(|| (vec![], all.1));
                assert_eq!(before.0.len() as u64, from, "pieces follow one another");
                before.0.extend_from_slice(&all.0[from as usize..(from + taken) as usize]);
                // A first piece of nothing would begin again from 0.
                (taken < here && from + taken > 0).then_some(from + taken).or_else(|| {
                    before.0.extend_from_slice(&all.0[(from + taken) as usize..]);
                    None
                })
            });
            if done {
                finished += 1;
                let alive = |(_, value): &(&_, &(Vec<String>, _))| !value.0.is_empty();
                assert!(given.iter().filter(alive).eq(expected.iter()), "seed {seed}, step {step}");
            } else {
                cut = Some((expected, given));
            }
        }
        assert!(finished > 1 || cfg!(miri), "{finished} cuts");
        keyspace.abort_cut();
        keyspace.edit(DatabaseIndex(0), 0).clear_all();
        while keyspace.free_some(3) {}
        assert_eq!((keyspace.used_bytes(), keyspace.freeing_bytes()), (0, 0), "seed {seed}");
    }
}

fn key(bench: &Bench, name: &'static str) -> Key<'static> {
    Key::new(name.as_bytes(), bench.hash(name))
}

#[test]
fn a_change_is_reported_once_and_only_if_there_was_one() {
    let mut bench = Bench::new();
    let k = key(&bench, "k");
    let mut version = bench.keyspace.watch(bench.database, &k, bench.now_ms);
    let mut changes = |bench: &mut Bench, act: &mut dyn FnMut(&mut Edit<'_>)| {
        act(&mut bench.edit());
        let now = bench.keyspace.watch_version(bench.database, &k, bench.now_ms);
        let changed = now != Some(version);
        let count = now.expect("it is watched") - version;
        version += count;
        assert!(count <= 1, "reported {count} times");
        changed
    };
    assert!(!changes(&mut bench, &mut |edit| assert!(!hash(edit, &k).remove(b"f"))));
    assert_eq!(bench.keyspace.count(bench.database), 0, "nothing was created");
    assert!(changes(&mut bench, &mut |edit| {
        let mut hash = hash(edit, &k);
        assert!(hash.set(b"f", b"v"));
        assert!(hash.set(b"g", b"w"));
    }));
    assert!(!changes(&mut bench, &mut |edit| assert!(!hash(edit, &k).remove(b"x"))));
    assert!(!changes(&mut bench, &mut |edit| assert!(edit.list_mut(&k).is_err())));
    assert!(changes(&mut bench, &mut |edit| assert!(hash(edit, &k).remove(b"f"))));
    assert!(changes(&mut bench, &mut |edit| assert!(hash(edit, &k).remove(b"g"))));
    let left = (bench.keyspace.count(bench.database), bench.keyspace.used_bytes());
    assert_eq!(left, (0, super::database::ROW_SIZE));
    // What is made and emptied at once was never there.
    assert!(!changes(&mut bench, &mut |edit| {
        let mut hash = hash(edit, &k);
        hash.set(b"f", b"v");
        hash.remove(b"f");
    }));
    bench.keyspace.unwatch(bench.database, b"k");
}

fn hash<'e>(
    edit: &'e mut Edit<'_>,
    key: &Key<'static>,
) -> crate::value::hash::HashMut<Guard<'e, 'static>> {
    edit.hash_mut(key).expect("a hash or nothing")
}

#[test]
fn a_large_value_is_freed_bit_by_bit() {
    let mut bench = Bench::new();
    let (k, other) = (key(&bench, "k"), key(&bench, "other"));
    let count = if cfg!(miri) { 600 } else { 50_000 };
    let fill = |bench: &mut Bench| {
        let mut edit = bench.edit();
        let mut set = edit.set_mut(&k).expect("a set or nothing");
        (0..count).for_each(|n| {
            set.add(format!("member:{n}").as_bytes());
        });
    };
    let ways: [&dyn Fn(&mut Bench); 4] = [
        &|bench| assert!(bench.edit().remove(&k)),
        &|bench| bench.set("k", "v"),
        &|bench| {
            bench.set("other", "v");
            let database = bench.database;
            assert!(bench.edit().rename(&other, database, &k));
        },
        &|bench| {
            let deadline = Deadline(bench.now_ms);
            assert!(bench.edit().set_deadline(&k, Some(deadline)));
        },
    ];
    for way in ways {
        fill(&mut bench);
        let used = bench.keyspace.used_bytes();
        let size = bench.get("k").expect("just filled").size();
        assert!(size > used / 2 || cfg!(miri), "it is small then beside the tables");
        way(&mut bench);
        assert_eq!(bench.keyspace.freeing_bytes(), size);
        assert!(bench.keyspace.used_bytes() + 1000 > used, "nothing is freed at once");
        let mut steps = 0;
        while bench.keyspace.free_some(10) {
            steps += 1;
        }
        assert!(steps > 10 || cfg!(miri), "{steps}");
        bench.edit().clear();
        while bench.keyspace.free_some(10) {}
        assert_eq!((bench.keyspace.used_bytes(), bench.keyspace.freeing_bytes()), (0, 0));
    }
}

#[test]
fn what_is_cut_off_a_large_collection_is_freed_bit_by_bit() {
    const COUNT: u64 = if cfg!(miri) { 2_000 } else { 50_000 };
    let mut bench = Bench::new();
    let [list, set, sorted] = ["list", "set", "sorted"].map(|name| key(&bench, name));
    let mut edit = bench.edit();
    for n in 0..COUNT {
        let element = format!("element:{n}");
        edit.list_mut(&list).expect("a list").push(End::Back, element.as_bytes());
        edit.set_mut(&set).expect("a set").add(element.as_bytes());
        edit.sorted_set_mut(&sorted).expect("a sorted set").set(element.as_bytes(), n as f64);
    }
    let cuts: [&dyn Fn(&mut Bench); 4] = [
        &|bench| bench.edit().list_mut(&list).expect("a list").remove(10, COUNT - 20),
        &|bench| bench.edit().set_mut(&set).expect("a set").remove_at(3, COUNT - 9),
        &|bench| bench.edit().sorted_set_mut(&sorted).expect("it is").remove_at(7, COUNT / 2),
        &|bench| bench.edit().sorted_set_mut(&sorted).expect("it is").remove_at(0, COUNT),
    ];
    for (nth, cut) in cuts.into_iter().enumerate() {
        let used = bench.keyspace.used_bytes();
        cut(&mut bench);
        // What is to be swept from an index is on no account from the first.
        let is_swept = nth == 2;
        let freeing = bench.keyspace.freeing_bytes();
        assert!(is_swept || freeing > 0, "what is cut off is not freed at once");
        assert!(bench.keyspace.used_bytes() + used / 100 + 4096 > used / 2);
        let mut steps = 0;
        while bench.keyspace.free_some(1) {
            steps += 1;
        }
        assert!(steps > 10, "{steps}");
        assert_eq!(bench.keyspace.freeing_bytes(), 0);
    }
    let count = |bench: &Bench, key: &Key<'_>| bench.view().peek(key).map(|i| i.value().count());
    let counts = [list, set, sorted].map(|key| count(&bench, &key));
    assert_eq!(counts, [Some(20), Some(9), None]);
}

#[test]
fn what_is_cut_off_a_sorted_set_is_swept_wherever_its_key_goes() {
    let mut bench = Bench::new();
    let [one, other, copy] = ["one", "other", "copy"].map(|name| key(&bench, name));
    let member = |n: u64| format!("member:{n}").into_bytes();
    for n in 0..20_000 {
        bench.edit().sorted_set_mut(&one).expect("it is").set(&member(n), n as f64);
    }
    let before = bench.keyspace.used_bytes();
    assert!(bench.keyspace.begin_cut());
    bench.edit().sorted_set_mut(&one).expect("it is").remove_at(100, 19_000);
    assert!(bench.edit().rename(&one, DatabaseIndex(0), &other));
    assert!(bench.edit().copy(&other, DatabaseIndex(0), &copy));
    assert!(bench.edit().set_deadline(&other, Some(Deadline(i64::MAX))));
    bench.edit().swap(DatabaseIndex(0), DatabaseIndex(3));
    bench.database = DatabaseIndex(3);
    let has_leftovers = |bench: &Bench, key: &Key<'_>| {
        let item = bench.view().peek(key).expect("it is there");
        matches!(item.stored(), Stored::Tree(body) if body.has_leftovers())
    };
    assert!(has_leftovers(&bench, &other) && has_leftovers(&bench, &copy));
    bench.edit().sorted_set_mut(&other).expect("it is").set(&member(5000), 1.5);
    while bench.keyspace.free_some(1) {}
    assert!(!has_leftovers(&bench, &other) && !has_leftovers(&bench, &copy));
    for (key, count) in [(&other, 1001), (&copy, 1000)] {
        let item = bench.view().peek(key).expect("it is there");
        let Value::SortedSet(set) = item.value() else { panic!("a sorted set") };
        assert_eq!(set.count(), count);
        assert_eq!(set.score(&member(5000)), (count == 1001).then_some(1.5));
        assert_eq!((set.score(&member(99)), set.score(&member(100))), (Some(99.0), None));
    }
    // The cut has the set as it was.
    let mut counts = vec![];
    while !bench.keyspace.cut_step(10, &mut |_, item, _| {
        counts.push(item.value().count());
        None
    }) {}
    assert_eq!(counts, [20_000]);
    while bench.keyspace.free_some(1) {}
    assert!(bench.keyspace.used_bytes() < before / 4);
}

#[test]
fn renaming_moves_trees() {
    let mut bench = Bench::new();
    let (k, longer) = (key(&bench, "k"), key(&bench, "another, longer name"));
    let mut edit = bench.edit();
    let mut list = edit.list_mut(&k).expect("a list or nothing");
    (0..10_000).for_each(|n| list.push(End::Back, format!("element:{n}").as_bytes()));
    drop(list);
    let place = |bench: &Bench, key: &Key<'_>| {
        let item = bench.view().peek(key).expect("it is there");
        let Value::List(list) = item.value() else { panic!("a list") };
        list.get(5000).expect("an element").as_ptr()
    };
    let before = place(&bench, &k);
    assert!(bench.edit().rename(&k, DatabaseIndex(3), &longer));
    bench.database = DatabaseIndex(3);
    assert_eq!(place(&bench, &longer), before);
    assert!(bench.edit().set_deadline(&longer, Some(Deadline(i64::MAX))));
    assert_eq!(place(&bench, &longer), before);
    // A cut needs both: the list as it was under its old name, and under its new one. They share
    // what does not change.
    assert!(bench.keyspace.begin_cut());
    assert!(bench.edit().rename(&longer, DatabaseIndex(3), &k));
    assert_eq!(place(&bench, &k), before);
    bench.edit().list_mut(&k).expect("a list").set(5000, b"another");
    assert_ne!(place(&bench, &k), before);
    let mut names = vec![];
    while !bench.keyspace.cut_step(10, &mut |_, item, _| {
        names.push((item.key().to_vec(), item.value().count()));
        None
    }) {}
    assert_eq!(names, [(b"another, longer name".to_vec(), 10_000)]);
}

#[test]
fn what_is_restored_has_the_form_of_the_limits_and_what_is_loaded_its_own() {
    let mut bench = Bench::new();
    let k = key(&bench, "k");
    let set = EncodedValue::read(2, b"\x02\x01a\x01b").expect("a set of two");
    let form = |bench: &Bench| bench.get("k").map(|item| item.shape());
    let shape = |form| Some(Shape::Collection(ValueType::Set, form));
    bench.edit().restore(&k, &set, Expiry::Never).expect("good");
    assert_eq!(form(&bench), shape(Form::Pack));
    bench.keyspace.set_limits(Limits { set_entries: 1, ..Limits::default() });
    bench.edit().restore(&k, &set, Expiry::Never).expect("good");
    assert_eq!(form(&bench), shape(Form::Tree));
    for wanted in [Form::Pack, Form::Tree] {
        let shape = Shape::Collection(ValueType::Set, wanted);
        bench.edit().load(&k, shape, Expiry::Never, &set, Piece::Whole).expect("good");
        assert_eq!(form(&bench), Some(shape));
    }
    let twice = EncodedValue::read(2, b"\x02\x01a\x01a").expect("well-formed");
    assert_eq!(bench.edit().restore(&k, &twice, Expiry::Never), Err(Fault::Duplicate));
    assert_eq!(bench.get("k").expect("as it was").value().count(), 2);
}

#[test]
fn a_snapshot_keeps_forms_orders_and_limits() {
    let mut chance = Chance(5);
    let mut bench = Bench::new();
    let keyspace = &mut bench.keyspace;
    keyspace.set_limits(Limits { hash_entries: 40, list_size: 50, ..Limits::default() });
    for _ in 0..if cfg!(miri) { 50 } else { 2000 } {
        change(keyspace, &mut chance, 0);
    }
    let k = Key::new(b"huge", keyspace.hasher().hash(b"huge"));
    let mut edit = keyspace.edit(DatabaseIndex(0), 0);
    let mut huge = edit.hash_mut(&k).expect("new");
    for n in 0..if cfg!(miri) { 50 } else { 5000 } {
        huge.set(format!("field:{n}").as_bytes(), &[b'v'; 40]);
    }
    drop(huge);
    let mut writer = SnapshotWriter::new(crate::snapshot::header::tests::example());
    writer.push_limits(keyspace.limits());
    assert!(keyspace.begin_cut());
    while !keyspace.cut_step(10, &mut |database, item, from| writer.push(database, item, from)) {}
    assert_eq!(writer.item_count(), contents(keyspace).len() as u64);
    let (file, _) = writer.finish();
    let mut reader =
        crate::snapshot::SnapshotReader::open(&file[..], file.len() as u64).expect("just written");
    let mut loaded = Keyspace::new(keyspace.hasher());
    crate::snapshot::load::load(&mut reader, &mut loaded, &mut |_| {}).expect("just written");
    assert_eq!(loaded.limits(), keyspace.limits());
    assert_eq!(loaded.digest_all(), keyspace.digest_all());
    // Not only the same elements: the same order, and the same forms.
    assert_eq!(contents(&loaded), contents(keyspace));
    let shapes = |keyspace: &Keyspace| {
        let mut shapes = BTreeMap::new();
        keyspace.view(DatabaseIndex(0), 0).scan(ScanPosition::default(), usize::MAX, &mut |item| {
            shapes.insert(item.key().to_vec(), item.shape());
        });
        shapes
    };
    assert_eq!(shapes(&loaded), shapes(keyspace));
}
