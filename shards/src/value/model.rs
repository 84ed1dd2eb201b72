//! Random changes of collections against plain vectors and maps, small and large, with limits
//! crossed both ways.

use super::body::{Body, Place, Stored};
use super::hash::HashMut;
use super::list::{End, ListMut};
use super::set::SetMut;
use super::sorted_set::{SortedSet, SortedSetMut};
use super::{Form, Limits, Room};
use crate::keyspace::KeyHasher;
use crate::random::Random;
use std::collections::BTreeMap;

/// A collection that lies in no item.
pub(super) struct Alone {
    form: Form,
    bytes: Vec<u8>,
    body: Option<Body>,
    limits: Limits,
}

impl Alone {
    pub(super) fn new(limits: Limits) -> Alone {
        Alone { form: Form::Pack, bytes: Vec::new(), body: None, limits }
    }
}

impl Room for Alone {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn resize(&mut self, length: usize) {
        self.bytes.resize(length, 0);
    }
}

impl Place for Alone {
    fn stored(&self) -> Stored<'_> {
        match (self.form, &self.body) {
            (Form::Pack, _) => Stored::Pack(&self.bytes),
            (Form::Integers, _) => Stored::Integers(&self.bytes),
            (Form::Tree, body) => Stored::Tree(body.as_ref().expect("it is a tree")),
        }
    }

    fn body_mut(&mut self) -> &mut Body {
        self.body.as_mut().expect("it is a tree")
    }

    fn grow(&mut self, body: Body) {
        (self.form, self.body) = (Form::Tree, Some(body));
    }

    fn set(&mut self, form: Form, bytes: &[u8]) {
        (self.form, self.body) = (form, None);
        self.bytes = bytes.to_vec();
    }

    fn discard(&mut self, mut body: Body) {
        while body.shed(1) {}
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn member_hasher(&self) -> KeyHasher {
        KeyHasher::new(77)
    }
}

/// A generator whose seed is printed by whoever makes it.
#[derive(Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Mostly short, now and then beyond a leaf.
    pub(super) fn element(&mut self, names: u64) -> Vec<u8> {
        let n = self.below(names);
        match n % 50 {
            0 => vec![b'x'; (n % 7) as usize * 700],
            1 => format!("a longer name, number {n}, of more than sixty-four bytes, to be sure")
                .into(),
            // As integers of large sets begin.
            2 => vec![0x80 + (n % 0x28) as u8; (n % 10) as usize + 1],
            _ if n.is_multiple_of(3) => n.to_string().into_bytes(),
            _ => format!("name:{n}").into_bytes(),
        }
    }
}

fn limits_of(seed: u64) -> Limits {
    match seed % 3 {
        0 => Limits::default(),
        1 => Limits {
            hash_entries: 8,
            set_entries: 8,
            sorted_set_entries: 8,
            list_size: 6,
            ..Limits::default()
        },
        _ => Limits {
            hash_entries: 0,
            set_entries: 0,
            set_integers: 4,
            sorted_set_entries: 0,
            list_size: -1,
            ..Limits::default()
        },
    }
}

pub(super) fn each_seed(check: impl Fn(&mut Chance, Limits, usize)) {
    let (seeds, steps) = if cfg!(miri) { (3, 150) } else { (12, 8_000) };
    for seed in 0..seeds {
        println!("seed {seed}");
        check(&mut Chance(seed), limits_of(seed), steps);
    }
}

/// Growing for a while, then shrinking to nothing, and again.
fn grows(step: usize, steps: usize) -> bool {
    (step * 4 / steps).is_multiple_of(2)
}

#[test]
fn lists_are_vectors() {
    each_seed(|chance, limits, steps| {
        let mut list = ListMut::new(Alone::new(limits));
        let mut model: Vec<Vec<u8>> = vec![];
        for step in 0..steps {
            let count = model.len() as u64;
            let element = chance.element(5000);
            let at = chance.below(count + 1);
            match chance.below(if grows(step, steps) { 8 } else { 14 }) {
                0..2 => {
                    list.push(End::Back, &element);
                    model.push(element);
                }
                2..4 => {
                    list.push(End::Front, &element);
                    model.insert(0, element);
                }
                4..6 => {
                    list.insert(at, &element);
                    model.insert(at as usize, element);
                }
                6 if at < count => {
                    list.set(at, &element);
                    model[at as usize] = element;
                }
                7 if step % 50 == 0 => {
                    let gone = chance.below(60).min(count - at);
                    list.remove(at, gone);
                    model.drain(at as usize..(at + gone) as usize);
                }
                8..10 => assert_eq!(list.pop(End::Back), model.pop()),
                10..12 => {
                    let first = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(list.pop(End::Front), first);
                }
                _ if at < count => {
                    list.remove(at, 1);
                    model.remove(at as usize);
                }
                _ => {}
            }
            assert_eq!(list.count(), model.len() as u64);
            let at = chance.below(model.len() as u64 + 1);
            let found = list.list().get(at).map(<[u8]>::to_vec);
            assert_eq!(found.as_ref(), model.get(at as usize));
            if step % 200 == 0 {
                assert!(
                    list.list().elements_from(at).eq(model[at as usize..].iter().map(|e| &e[..]))
                );
                let back = model[..model.len().min(at as usize + 1)].iter().rev();
                assert!(list.list().elements_back_from(at).eq(back.map(|e| &e[..])));
            }
        }
    });
}

#[test]
fn hashes_are_maps() {
    each_seed(|chance, limits, steps| {
        let mut hash = HashMut::new(Alone::new(limits));
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for step in 0..steps {
            let (field, value) = (chance.element(3000), chance.element(500));
            if chance.below(10) < if grows(step, steps) { 7 } else { 2 } {
                let is_new = model.insert(field.clone(), value.clone()).is_none();
                assert_eq!(hash.set(&field, &value), is_new);
            } else {
                assert_eq!(hash.remove(&field), model.remove(&field).is_some());
            }
            assert_eq!(hash.count(), model.len() as u64);
            let field = chance.element(3000);
            assert_eq!(hash.hash().get(&field), model.get(&field).map(|value| &value[..]));
            if step % 200 == 0 {
                let mut all: Vec<_> = hash.hash().fields_from(0).collect();
                let rank = chance.below(all.len() as u64 + 1);
                assert_eq!(hash.hash().at(rank), all.get(rank as usize).copied());
                all.sort_unstable();
                assert!(
                    all.into_iter().eq(model.iter().map(|(field, value)| (&field[..], &value[..])))
                );
            }
        }
    });
}

#[test]
fn sets_are_sets() {
    each_seed(|chance, limits, steps| {
        let mut set = SetMut::new(Alone::new(limits));
        let mut model: BTreeMap<Vec<u8>, ()> = BTreeMap::new();
        let mut integers_alone = true;
        for step in 0..steps {
            let member = match integers_alone && step < steps / 8 {
                true => (chance.below(100_000) as i64 - 50_000).pow(3).to_string().into_bytes(),
                false => chance.element(3000),
            };
            integers_alone &= super::set::integer(&member).is_some();
            if chance.below(10) < if grows(step, steps) { 7 } else { 2 } {
                let is_new = model.insert(member.clone(), ()).is_none();
                assert_eq!(set.add(&member), is_new);
            } else if chance.below(4) == 0 && !model.is_empty() {
                let rank = chance.below(model.len() as u64);
                let member = set.set().at(rank).expect("below the count").into_owned();
                set.remove_at(rank, 1);
                assert!(model.remove(&member).is_some());
            } else {
                assert_eq!(set.remove(&member), model.remove(&member).is_some());
            }
            assert_eq!(set.count(), model.len() as u64);
            let member = chance.element(3000);
            assert_eq!(set.set().contains(&member), model.contains_key(&member));
            if step % 200 == 0 {
                let mut all: Vec<_> = set.set().members_from(0).collect();
                all.sort_unstable();
                assert!(
                    all.iter().map(|member| &member[..]).eq(model.keys().map(|member| &member[..]))
                );
            }
        }
    });
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

#[test]
fn sorted_sets_are_sorted() {
    const SCORES: [f64; 8] =
        [0.0, -0.0, 1.0, -1.5, f64::INFINITY, f64::NEG_INFINITY, 5e-324, 1.7e308];
    each_seed(|chance, limits, steps| {
        let mut set = SortedSetMut::new(Alone::new(limits));
        let mut model: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
        let sorted = |model: &BTreeMap<Vec<u8>, f64>| {
            let mut all: Vec<_> = model.iter().map(|(m, &score)| (m.clone(), score)).collect();
            all.sort_by(|a, b| a.1.partial_cmp(&b.1).expect("numbers").then(a.0.cmp(&b.0)));
            all
        };
        for step in 0..steps {
            let member = chance.element(3000);
            let score = match chance.below(4) {
                0 => SCORES[chance.below(8) as usize],
                1 => chance.below(1000) as f64 / 7.0,
                _ => chance.below(100) as f64,
            };
            if chance.below(10) < if grows(step, steps) { 7 } else { 2 } {
                let before = model.insert(member.clone(), score).map(f64::to_bits);
                assert_eq!(set.set(&member, score).map(f64::to_bits), before);
            } else if step % 100 == 0 && !model.is_empty() {
                let (rank, count) = (chance.below(model.len() as u64), chance.below(30));
                for (member, _) in
                    sorted(&model).into_iter().skip(rank as usize).take(count as usize)
                {
                    model.remove(&member);
                }
                set.remove_at(rank, count);
            } else {
                let gone = model.remove(&member).map(f64::to_bits);
                assert_eq!(set.remove(&member).map(f64::to_bits), gone);
            }
            assert_eq!(set.count(), model.len() as u64);
            let read = set.sorted_set();
            assert_eq!(read.score(&member), model.get(&member).copied());
            if step % 200 == 0 {
                let all = sorted(&model);
                let found: Vec<_> = read.members_from(0).map(|(m, s)| (m.to_vec(), s)).collect();
                assert_eq!(found, all);
                let back: Vec<_> =
                    read.members_back_from(u64::MAX).map(|(m, s)| (m.to_vec(), s)).collect();
                assert!(back.iter().eq(all.iter().rev()));
                let below = all.iter().filter(|(_, score)| *score < 50.0).count() as u64;
                assert_eq!(read.partition_point(|_, score| score < 50.0), below);
                assert_eq!(read.partition_point_at(50.0, |_, score| score < 50.0), below);
                for (rank, (member, score)) in all.iter().enumerate().step_by(37) {
                    assert_eq!(read.rank(member), Some((rank as u64, *score)));
                    assert_eq!(read.at(rank as u64), Some((&member[..], *score)));
                }
            }
        }
    });
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
            let (mut met, mut cursor) = (BTreeMap::new(), 0);
            loop {
                cursor = set.scan(cursor, 100, &mut |member, score| {
                    met.insert(member.to_vec(), score as i64);
                });
                if cursor == 0 {
                    break;
                }
            }
            assert!(met == model, "seed {seed}");
        }
        if matches!(place.stored(), Stored::Tree(_)) {
            let body = place.body_mut();
            if chance.below(2) == 0 {
                let before = body.bytes();
                while body.sweep(1) {}
                assert_eq!(body.bytes(), before, "what is not seen is on no account");
                let (order, index) = body.scored();
                assert_eq!(order.count(), index.count(), "seed {seed}");
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
    assert_eq!(
        body.bytes(),
        Body { hasher: KeyHasher::new(1), trees: super::body::Trees::Elements(Default::default()) }
            .bytes()
    );
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
