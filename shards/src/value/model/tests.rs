//! Each type from many seeds, and what random changes seldom meet.

use super::sorted_set::check_places;
use super::*;
use crate::random::Random;
use crate::value::set::SetMut;
use crate::value::sorted_set::{SortedSet, SortedSetMut};
use std::collections::BTreeMap;

/// Growing for a while, then shrinking to nothing, and again.
fn tendency(step: usize, steps: usize) -> Tendency {
    match (step * 4 / steps).is_multiple_of(2) {
        true => Tendency::Grows,
        false => Tendency::Shrinks,
    }
}

pub(in crate::value) fn each_seed<M: Modelled>() {
    let (seeds, steps) = if cfg!(miri) { (3, 150) } else { (12, 8_000) };
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut chance = Chance::Seeded(seed);
        let mut one = M::new(limits_of(seed));
        for step in 0..steps {
            one.change(&mut chance, tendency(step, steps));
            one.glance(&mut chance);
            if step % 200 == 0 {
                M::check(one.value(), one.model(), &mut chance);
            }
        }
        M::check(one.value(), one.model(), &mut chance);
        one.place().body.into_iter().for_each(shed);
    }
}

#[test]
fn lists_are_vectors() {
    each_seed::<list::Lists>();
}

#[test]
fn hashes_are_maps() {
    each_seed::<hash::Hashes>();
}

#[test]
fn sets_are_sets() {
    each_seed::<set::Sets>();
}

#[test]
fn sorted_sets_are_sorted() {
    each_seed::<sorted_set::SortedSets>();
}

/// What a fuzzer does, with bytes that nobody has chosen.
#[test]
fn any_bytes_lead_to_what_the_models_say() {
    let (seeds, length) = if cfg!(miri) { (5, 60) } else { (60, 1200) };
    let mut reached = Vec::new();
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
        reached.push(follow(&[&[seed as u8, (seed / 3) as u8], &bytes[..]].concat()));
    }
    if !cfg!(miri) {
        for value_type in [1, 2, 3, 4, 5].map(ValueType::from_number) {
            let of_type = || reached.iter().filter(move |one| Some(one.value_type) == value_type);
            let most = of_type().map(|one| one.most).max();
            assert!(of_type().any(|one| one.versions > 2), "{value_type:?}");
            assert!(most.is_some_and(|most| most > 500), "{value_type:?}: {most:?}");
        }
        assert!(reached.iter().any(|one| one.groups == 3));
        assert!(reached.iter().any(|one| one.forms == [true; 2]));
    }
}

#[test]
fn integers_of_a_large_set_are_short() {
    const COUNT: usize = 5000;
    let mut set = SetMut::new(Alone::new(Limits::default()));
    for n in 0..COUNT {
        assert!(set.add((10_000_000 + 80 * n).to_string().as_bytes()));
    }
    let Stored::Tree(body) = set.set().stored else { panic!("it is large") };
    // Eight digits and a length as text would be nine each.
    assert!(body.bytes() < 6 * COUNT, "{} bytes", body.bytes());
}

/// What scans of a sorted set meet, each member once.
fn scanned(set: SortedSet<'_>) -> BTreeMap<Vec<u8>, i64> {
    let (mut met, mut cursor) = (BTreeMap::new(), 0);
    loop {
        cursor = set.scan(cursor, 100, &mut |member, score| {
            let before = met.insert(member.to_vec(), score as i64);
            assert_eq!(before, None, "each once");
        });
        if cursor == 0 {
            return met;
        }
    }
}

/// Long ranges that are cut off, members that come again before they are swept, and sweeps in
/// between.
#[test]
fn what_is_cut_off_is_not_seen_while_it_is_swept() {
    for seed in 0..if cfg!(miri) { 1 } else { 30 } {
        let mut chance = Random::new(seed);
        let mut place = Alone::new(Limits::default());
        let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let member = |n: u64| format!("m{n}").into_bytes();
        let count = 300 + chance.below(2000);
        for _ in 0..200 {
            let mut set = SortedSetMut::new(&mut place);
            match chance.below(8) {
                0 if set.count() > 0 => {
                    let (rank, some) = (chance.below(set.count()), chance.below(set.count()));
                    let gone = set.sorted_set().members_from(rank).take(some as usize);
                    gone.for_each(|(member, _)| {
                        model.remove(member);
                    });
                    set.remove_at(rank, some);
                }
                1 => {
                    let is_tree = matches!(place.stored(), Stored::Tree(_));
                    if is_tree {
                        place.body_mut().sweep(chance.below(4) as usize);
                    }
                }
                2 => {
                    for _ in 0..chance.below(50) {
                        let member = member(chance.below(count));
                        let gone = model.remove(&member).map(|score| score as f64);
                        assert_eq!(set.remove(&member), gone, "seed {seed}");
                    }
                }
                _ => {
                    for _ in 0..chance.below(200) {
                        let (member, score) = (member(chance.below(count)), chance.below(50));
                        let before = model.insert(member.clone(), score as i64);
                        let before = before.map(|score| score as f64);
                        assert_eq!(set.set(&member, score as f64), before, "seed {seed}");
                    }
                }
            }
            let set = SortedSet::new(place.stored());
            assert_eq!(set.count(), model.len() as u64, "seed {seed}");
            for n in 0..count {
                let expected = model.get(&member(n)).map(|score| *score as f64);
                assert_eq!(set.score(&member(n)), expected, "seed {seed}");
            }
            if chance.below(8) == 0 {
                check_places(set);
                assert!(scanned(set) == model, "seed {seed}");
            }
        }
        if matches!(place.stored(), Stored::Tree(_)) {
            let body = place.body_mut();
            if chance.below(2) == 0 {
                let (before, hasher) = (body.bytes(), body.hasher);
                while body.sweep(1) {}
                assert_eq!(body.bytes(), before, "what is not seen is on no account");
                body.scored().check(&hasher);
            }
            let mut bytes = body.bytes();
            while body.shed(2) {
                assert!(body.bytes() <= bytes, "seed {seed}");
                bytes = body.bytes();
            }
            assert!(!body.has_leftovers());
        }
    }
}

/// Where new members go, by what has been put in so far.
type Spots = fn(&mut Random, u64) -> (String, f64);

/// Always at the end, always at the front, always at one place in the middle, all with one score,
/// and a few scores with many members each.
const SPOTS: [Spots; 5] = [
    |_, n| (format!("member:{n}"), n as f64),
    |_, n| (format!("member:{n}"), -(n as f64)),
    |_, n| match n % 8 {
        0 => (format!("member:{n}"), (n as f64 + 2.0) * if n % 16 == 0 { 1e9 } else { -1e9 }),
        _ => (format!("member:{n}"), n as f64),
    },
    |random, n| (format!("{}:{n}", random.below(1 << 20)), 0.0),
    |random, n| (format!("{}:{n}", random.below(1 << 20)), random.below(5) as f64),
];

#[test]
fn places_are_known_wherever_members_gather() {
    let count = if cfg!(miri) { 400 } else { 30_000_u64 };
    for (seed, spot) in SPOTS.iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let mut set = SortedSetMut::new(Alone::new(Limits::default()));
        let mut members = Vec::new();
        for n in 0..count {
            let (member, score) = spot(&mut random, n);
            assert_eq!(set.set(member.as_bytes(), score), None);
            members.push((member, score));
        }
        check_places(set.sorted_set());
        members.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        for (rank, (member, score)) in members.iter().enumerate().step_by(7) {
            let found = set.sorted_set().rank(member.as_bytes());
            assert_eq!(found, Some((rank as u64, *score)), "spot {seed}");
        }
        // Each moves to the other end, and most of them go: nodes are joined on all levels.
        for (member, score) in &members {
            assert_eq!(set.set(member.as_bytes(), 3e9 - score), Some(*score), "spot {seed}");
        }
        check_places(set.sorted_set());
        for (member, score) in members.iter().skip(20) {
            assert_eq!(set.remove(member.as_bytes()), Some(3e9 - score), "spot {seed}");
        }
        check_places(set.sorted_set());
        assert_eq!(set.count(), 20);
    }
}

/// A sorted set, and what a version of it is to have.
type SetAndModel = (Body, BTreeMap<Vec<u8>, i64>);

#[test]
fn versions_of_sorted_sets_stay_while_numbers_of_leaves_are_given_again() {
    for seed in 0..if cfg!(miri) { 1 } else { 12 } {
        println!("seed {seed}");
        let mut chance = Random::new(seed);
        let mut place = Alone::new(Limits { sorted_set_entries: 0, ..Limits::default() });
        let mut model = BTreeMap::new();
        let mut versions: Vec<SetAndModel> = Vec::new();
        let name = |n: u64| format!("m{n}").into_bytes();
        for _ in 0..60 {
            let mut set = SortedSetMut::new(&mut place);
            for _ in 0..chance.below(600) {
                let (member, score) = (name(chance.below(4000)), chance.below(300) as i64);
                set.set(&member, score as f64);
                model.insert(member, score);
            }
            let (rank, some) = (chance.below(set.count()), chance.below(set.count()));
            for (member, _) in set.sorted_set().members_from(rank).take(some as usize) {
                model.remove(member);
            }
            set.remove_at(rank, some);
            if !matches!(place.stored(), Stored::Tree(_)) {
                continue;
            }
            place.body_mut().sweep(chance.below(20) as usize);
            match chance.below(3) {
                // This one goes on as a version of itself: both change what they share.
                0 if !versions.is_empty() => {
                    let at = chance.below(versions.len() as u64) as usize;
                    let mine = (place.body_mut().clone(), model);
                    let (body, other) = std::mem::replace(&mut versions[at], mine);
                    place.grow(body);
                    model = other;
                }
                _ if versions.len() < 4 => {
                    versions.push((place.body_mut().clone(), model.clone()));
                }
                _ => {
                    let at = chance.below(versions.len() as u64) as usize;
                    let (mut body, _) = versions.swap_remove(at);
                    while body.shed(1 + chance.below(5) as usize) {}
                }
            }
            for (body, model) in &versions {
                let set = SortedSet::new(Stored::Tree(body));
                if chance.below(8) == 0 {
                    check_places(set);
                }
                let all = set.members_from(0).map(|(m, score)| (m.to_vec(), score as i64));
                assert!(all.collect::<BTreeMap<_, _>>() == *model, "seed {seed}");
            }
        }
    }
}

#[test]
fn what_is_shed_is_gone_leaf_by_leaf() {
    let mut place = Alone::new(Limits::default());
    let mut set = SortedSetMut::new(&mut place);
    for n in 0..if cfg!(miri) { 300 } else { 20_000 } {
        set.set(format!("member:{n}").as_bytes(), f64::from(n));
    }
    let body = place.body_mut();
    let (mut bytes, mut steps) = (body.bytes(), 0);
    while body.shed(4) {
        assert!(body.bytes() < bytes);
        (bytes, steps) = (body.bytes(), steps + 1);
    }
    assert!(steps > 50 || cfg!(miri), "{steps}");
    assert_eq!(body.bytes(), BODY_BYTES);
}

#[test]
fn a_scan_meets_what_stays() {
    let mut place = Alone::new(Limits::default());
    let mut set = SetMut::new(&mut place);
    let count = if cfg!(miri) { 200 } else { 5000 };
    let name = |n: usize| format!("member:{n}").into_bytes();
    (0..count).for_each(|n| assert!(set.add(&name(n))));
    let mut met = BTreeMap::new();
    let (mut cursor, mut calls) = (0, 0);
    loop {
        let mut visited = 0;
        cursor = set.set().scan(cursor, 10, &mut |member| {
            visited += 1;
            *met.entry(member.to_vec()).or_insert(0) += 1;
        });
        assert!(visited == 10 || cursor == 0, "{visited}");
        assert!(cursor < 1 << 48, "{cursor}");
        if cursor == 0 {
            break;
        }
        // The odd ones go, others come.
        set.remove(&name(2 * calls + 1));
        set.add(&name(count + calls));
        calls += 1;
    }
    assert!(calls > count / 20);
    assert!((0..count).step_by(2).all(|n| met.get(&name(n)) == Some(&1)), "each once");
    let mut small = SetMut::new(Alone::new(Limits::default()));
    assert!(small.add(b"a") && small.add(b"b"));
    let mut members = vec![];
    assert_eq!(small.set().scan(0, 1, &mut |member| members.push(member.to_vec())), 0);
    assert_eq!(members, [b"a", b"b"]);
}

/// Small and large forms alike, at the limits and beyond, with what is too long for a small one.
#[test]
fn what_is_filled_in_one_go_is_as_if_one_by_one() {
    let mut random = Random::new(3);
    for count in [0, 1, 127, 128, 129, 512, 513, 3000] {
        for kind in 0..3 {
            let member = |n: usize| match kind {
                0 => (n * 7).to_string().into_bytes(),
                1 if n == 5 => vec![b'x'; 200],
                _ => format!("member:{n}").into_bytes(),
            };
            let mut all: Vec<(Vec<u8>, f64)> = (0..count)
                .map(|n| (member(n), random.below(count as u64 / 3 + 1) as f64))
                .collect();
            all.sort_by_cached_key(|_| random.bits());
            let members: Vec<&[u8]> = all.iter().map(|(member, _)| &member[..]).collect();

            let new = || SetMut::new(Alone::new(Limits::default()));
            let [mut filled, mut one_by_one] = [new(), new()];
            filled.fill(&members);
            members.iter().for_each(|member| assert!(one_by_one.add(member)));
            assert_eq!(filled.set().is_large(), one_by_one.set().is_large(), "{count} {kind}");
            assert!(filled.set().members_from(0).eq(one_by_one.set().members_from(0)));
            assert!(members.iter().all(|member| filled.set().contains(member)));

            let new = || SortedSetMut::new(Alone::new(Limits::default()));
            let [mut filled, mut one_by_one] = [new(), new()];
            filled.fill(&all);
            all.iter().for_each(|(member, score)| assert_eq!(one_by_one.set(member, *score), None));
            let [sets, other] = [filled.sorted_set(), one_by_one.sorted_set()];
            assert_eq!(sets.is_large(), other.is_large(), "{count} {kind}");
            assert!(sets.members_from(0).eq(other.members_from(0)));
            if sets.is_large() {
                check_places(sets);
            }
        }
    }
}
